/* Mutual TLS 1.3 for any connection; without OpenSSL's headers a program that says so. */
#include "load.h"

#ifdef BENCH_TLS

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

enum { RECORD = 16 * 1024, READ_AHEAD = 64 * 1024 };

static const char *reason(void) {
    unsigned long code = ERR_peek_last_error();
    const char *text = code ? ERR_reason_error_string(code) : NULL;
    return text ? text : "no reason given";
}

static SSL_CTX *context(void) {
    static SSL_CTX *made;
    if (made)
        return made;
    made = SSL_CTX_new(TLS_client_method());
    if (made == NULL)
        fail("no TLS: %s", reason());
    if (!SSL_CTX_set_min_proto_version(made, TLS1_3_VERSION) ||
        !SSL_CTX_use_certificate_chain_file(made, options.certificate) ||
        !SSL_CTX_use_PrivateKey_file(made, options.key, SSL_FILETYPE_PEM) ||
        !SSL_CTX_load_verify_locations(made, options.authority, NULL))
        fail("the certificates cannot be used: %s", reason());
    SSL_CTX_set_verify(made, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_session_cache_mode(made, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(made, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                               (options.idle ? SSL_MODE_RELEASE_BUFFERS : 0));
    SSL_CTX_set_read_ahead(made, 1); /* one system call takes several records */
    SSL_CTX_set_default_read_buffer_len(made, READ_AHEAD);
    return made;
}

/* The result of a call of OpenSSL as that of a system call. */
static ssize_t outcome(struct connection *c, int done) {
    if (done > 0)
        return done;
    int problem = SSL_get_error(c->tls, done);
    if (problem == SSL_ERROR_ZERO_RETURN)
        return 0;
    if (problem == SSL_ERROR_WANT_READ || problem == SSL_ERROR_WANT_WRITE)
        errno = EAGAIN;
    else if (problem == SSL_ERROR_SSL)
        fail("TLS of %s %u broke: %s", kind(c), c->number, reason());
    else if (errno == 0)
        return 0;
    return -1;
}

void tls_open(struct connection *c) {
    SSL *tls = SSL_new(context());
    if (tls == NULL || !SSL_set_fd(tls, c->fd))
        fail("no TLS for %s %u: %s", kind(c), c->number, reason());
    c->tls = tls;
    ERR_clear_error();
    if (SSL_connect(tls) != 1)
        fail("the TLS handshake of %s %u failed: %s", kind(c), c->number, reason());
}

ssize_t tls_send(struct connection *c, const uint8_t *data, size_t size) {
    ERR_clear_error();
    errno = 0;
    return outcome(c, SSL_write(c->tls, data, (int)size));
}

/* Everything OpenSSL holds and one read of the socket, as far as `size` goes. */
ssize_t tls_receive(struct connection *c, uint8_t *data, size_t size) {
    size_t got = 0;
    do {
        ERR_clear_error();
        errno = 0;
        ssize_t more = outcome(c, SSL_read(c->tls, data + got, (int)(size - got)));
        if (more <= 0)
            return got ? (ssize_t)got : more;
        got += (size_t)more;
    } while (size - got >= RECORD && SSL_has_pending(c->tls));
    return (ssize_t)got;
}

bool tls_holds_data(const struct connection *c) { return SSL_has_pending(c->tls); }

void tls_close(struct connection *c) {
    SSL_shutdown(c->tls);
    SSL_free(c->tls);
    c->tls = NULL;
}

#else

static _Noreturn void missing(void) { fail("this load generator was built without OpenSSL's headers"); }

void tls_open(struct connection *c) {
    (void)c;
    missing();
}

ssize_t tls_send(struct connection *c, const uint8_t *data, size_t size) {
    (void)c, (void)data, (void)size;
    missing();
}

ssize_t tls_receive(struct connection *c, uint8_t *data, size_t size) {
    (void)c, (void)data, (void)size;
    missing();
}

bool tls_holds_data(const struct connection *c) {
    (void)c;
    return false;
}

void tls_close(struct connection *c) { (void)c; }

#endif
