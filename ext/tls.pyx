"""TLS under sessions: OpenSSL called directly, the one that Python's ssl module uses, with its contexts.

    recv -> shared read window -> SSL_read until it wants more -> one plaintext window -> Session.feed
    send -> SSL_write          -> block of records             -> one send, what is left is kept as ciphertext

OpenSSL never touches the socket. All of a read is decrypted before the session sees it, so nothing is ever left
inside OpenSSL that epoll would not report; and a whole batch becomes few records and one system call. Handshakes are
the expensive part: `Handshakes` spreads them over the turns of the loop and ends those that take too long.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.ref cimport PyObject
from libc.string cimport memcpy

from ggfast._ext.transport cimport READ_BYTES

import _ssl
import os
import ssl
import sys

from ggfast import limits

include "openssl.pxi"

cdef enum:
    RECORD_BYTES = 16 * 1024             # the most one record carries
    PLAIN_BYTES = READ_BYTES + 2 * RECORD_BYTES   # plaintext of one read and of a record begun before it
    BATCH_BYTES = 8 * RECORD_BYTES       # plaintext given to OpenSSL at once
    SEALED_BYTES = BATCH_BYTES + 8 * 1024         # the same as records, with room for what TLS itself has to say

cdef uint8_t plain[PLAIN_BYTES]          # untouched pages cost nothing
cdef uint8_t sealed[SEALED_BYTES]
cdef Py_ssize_t sealed_used = 0
cdef const uint8_t* in_at = NULL         # ciphertext of the read in progress, for the one BIO it belongs to
cdef Py_ssize_t in_left = 0
cdef void* in_bio = NULL

_problem = "not looked yet"


def unusable(context):
    """Why TLS with this ssl.SSLContext cannot be done here, as a clause for a sentence; None if it can."""
    global _problem
    if _problem == "not looked yet":
        _problem = start_library()
    if _problem is not None:
        return _problem
    for name in ("sni_callback", "keylog_filename", "_msg_callback"):   # they expect a socket of the ssl module
        if getattr(context, name, None) is not None:
            return f"the context has a {name}"
    return None if is_context(context) else "the context is not what it seems"


def prepare(context, str suites):
    """Set the order of TLS 1.3 suites and keep no sessions for resumption; why that cannot be, or None."""
    problem = unusable(context)
    if problem is not None:
        return problem
    lib.SSL_CTX_ctrl(context_pointer(context), SSL_CTRL_SET_SESS_CACHE_MODE, 0, NULL)
    if lib.SSL_CTX_set_ciphersuites(context_pointer(context), suites.encode("ascii")) != 1:
        lib.ERR_clear_error()
        return f"OpenSSL does not know the suites {suites}"
    return None


# --- how OpenSSL reads and writes ----------------------------------------------------------------------

cdef int bio_read(void* bio, char* to, int count) noexcept:
    global in_at, in_left
    lib.BIO_clear_flags(bio, BIO_FLAGS_AGAIN)
    if bio != in_bio or in_left == 0:
        lib.BIO_set_flags(bio, BIO_FLAGS_READ_AGAIN)
        return -1
    if count > in_left:
        count = <int> in_left
    memcpy(to, in_at, <size_t> count)
    in_at += count
    in_left -= count
    return count


cdef int bio_write(void* bio, const char* data, int count) noexcept:
    global sealed_used
    lib.BIO_clear_flags(bio, BIO_FLAGS_AGAIN)
    if count > SEALED_BYTES - sealed_used:
        count = <int> (SEALED_BYTES - sealed_used)
    if count <= 0:
        lib.BIO_set_flags(bio, BIO_FLAGS_WRITE_AGAIN)
        return -1
    memcpy(sealed + sealed_used, data, <size_t> count)
    sealed_used += count
    return count


cdef long bio_control(void* bio, int what, long number, void* pointer) noexcept:
    return 1 if what == BIO_CTRL_FLUSH else 0


# --- handshakes ----------------------------------------------------------------------------------------

cdef class Handshakes:
    """The handshakes of one listener. `failed(peer, reason)` hears of those that came to nothing."""

    def __cinit__(self, loop, failed, double timeout_s):
        self.loop = loop
        self.failed = failed
        self.timeout_s = timeout_s
        self.under_way = {}
        self.per_turn = self.left = limits.TLS_HANDSHAKES_PER_TURN

    cdef bint admit(self) except -1:
        """Whether one more step of a handshake may be taken in this turn of the loop; the next turn starts anew."""
        if self.left == 0:
            return False
        if self.left == self.per_turn:
            self.loop.call_soon(self._next_turn)
        self.left -= 1
        return True

    def _next_turn(self):
        self.left = self.per_turn

    def _enter(self, transport):
        cdef TlsTransport oldest
        if len(self.under_way) >= limits.TLS_HANDSHAKES_MAX:
            oldest = self.silent()
            if oldest is not None:
                oldest.give_up("others were waiting and it sent nothing more")
        (<TlsTransport> transport).asked_at = self.loop.time()
        self.under_way[transport] = (<TlsTransport> transport).asked_at + self.timeout_s
        if self.timer is None:
            self.timer = self.loop.call_later(self.timeout_s, self._expire)

    def _leave(self, transport):
        self.under_way.pop(transport, None)
        if not self.under_way and self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _expire(self):
        cdef TlsTransport transport
        self.timer = None
        now = self.loop.time()
        for transport, deadline in list(self.under_way.items()):
            if deadline > now:
                self.timer = self.loop.call_later(deadline - now, self._expire)
                break
            transport.give_up(f"it was not done within {self.timeout_s:g} s")

    def has_room(self) -> bool:
        """Whether one more may begin: there are few, or one that lets us wait would give way."""
        return len(self.under_way) < limits.TLS_HANDSHAKES_MAX or self.silent() is not None

    cdef TlsTransport silent(self):
        """One that never sent anything, else the first that has been due to for long, or None."""
        cdef TlsTransport transport
        cdef TlsTransport late = None
        cdef double since = self.loop.time() - limits.TLS_ANSWER_S
        for transport in self.under_way:
            if not transport.knocked:
                return transport
            if late is None and not transport.denied and transport.asked_at <= since:
                late = transport
        return late

    def __len__(self):
        return len(self.under_way)


# --- the transport -------------------------------------------------------------------------------------

cdef class TlsTransport(Transport):
    """A server's end of a TLS connection. The protocol is made when the handshake is done, and hears nothing before."""

    def __cinit__(self, loop, int fd, protocol, peer, context, Handshakes handshakes not None, make_protocol):
        self.context = context
        self.handshakes = handshakes
        self.make_protocol = make_protocol

    def __dealloc__(self):
        self.free_ssl()

    def begin(self):
        """Wait for the handshake. To be called once."""
        self.handshakes._enter(self)
        self.watch()

    # --- reading ---------------------------------------------------------------------------------------

    cdef int receive(self) except -1:
        if self.handshakes is not None:
            self.knocked = True
            self.denied = not self.handshakes.admit()
            if self.denied:                  # epoll reports it again in the next turn
                return 0
        return Transport.receive(self)

    cdef int deliver(self, const uint8_t* data, Py_ssize_t count) except -1:
        """Ciphertext of one read."""
        global in_at, in_left, in_bio
        cdef Py_ssize_t part = count             # of which the handshake, which keeps what is unfinished, sees this much
        if self.ssl == NULL:
            self.open_ssl()
        if self.handshakes is not None:
            part = min(count, <Py_ssize_t> limits.TLS_HANDSHAKE_BYTES_MAX - self.shaken)
        in_at = data
        in_left = part
        in_bio = self.bio
        try:
            if self.handshakes is not None:
                self.shake()
                self.shaken += part - in_left
                if self.handshakes is not None and self.shaken >= limits.TLS_HANDSHAKE_BYTES_MAX:
                    self.give_up(f"it sent {self.shaken} bytes and was not done")
            if self.handshakes is None and not self.closing:
                in_left += count - part
                self.read_records()
        finally:
            in_left = 0
            in_bio = NULL
        return 0

    cdef int read_records(self) except -1:
        """Decrypt all there is, then let the session have it."""
        cdef Py_ssize_t used = 0
        cdef int count = 1, error
        reason = None
        lib.ERR_clear_error()
        while used < PLAIN_BYTES:
            count = lib.SSL_read(self.ssl, plain + used, <int> (PLAIN_BYTES - used))
            if count <= 0:
                break
            used += count
        error = lib.SSL_get_error(self.ssl, count) if count <= 0 else SSL_ERROR_WANT_READ
        if error != SSL_ERROR_WANT_READ and error != SSL_ERROR_ZERO_RETURN:
            reason = reason_of_failure(self.ssl)
            self.broken = True
        self.flush()                         # an answer to a key update, or an alert
        if used and not self.closing:
            Transport.deliver(self, plain, used)
        if reason is not None:
            return self.finish(ConnectionError(f"TLS: {reason}"))
        if error == SSL_ERROR_ZERO_RETURN:
            return self.end_of_input()
        return 0

    cdef int end_of_input(self) except -1:
        if self.handshakes is not None:
            return self.give_up("the client closed the connection")
        return Transport.end_of_input(self)

    # --- the handshake ---------------------------------------------------------------------------------

    cdef int open_ssl(self) except -1:
        self.ssl = lib.SSL_new(context_pointer(self.context))
        if self.ssl == NULL:
            raise MemoryError("OpenSSL has no memory for a connection")
        self.bio = lib.BIO_new(wire_method)
        if self.bio == NULL:
            raise MemoryError("OpenSSL has no memory for a connection")
        lib.BIO_set_init(self.bio, 1)
        lib.SSL_set_bio(self.ssl, self.bio, self.bio)
        lib.SSL_set_accept_state(self.ssl)
        lib.SSL_ctrl(self.ssl, SSL_CTRL_MODE, SSL_MODE_RELEASE_BUFFERS, NULL)
        lib.SSL_ctrl(self.ssl, SSL_CTRL_SET_MAX_CERT_LIST, limits.TLS_CLIENT_CHAIN_BYTES_MAX, NULL)
        return 0

    cdef int shake(self) except -1:
        """Take the handshake as far as what has come allows."""
        cdef int result, error = SSL_ERROR_WANT_WRITE
        lib.ERR_clear_error()
        while error == SSL_ERROR_WANT_WRITE:     # only if an answer is longer than the block for it
            result = lib.SSL_do_handshake(self.ssl)
            if result == 1:
                self.flush()
                return self.made() if not self.closing else 0
            error = lib.SSL_get_error(self.ssl, result)
            if error != SSL_ERROR_WANT_READ and error != SSL_ERROR_WANT_WRITE:
                self.broken = True
                reason = reason_of_failure(self.ssl)
                self.flush()                     # the alert that tells the client why
                return self.give_up(reason)
            if sealed_used:                      # our side is said: now it is the client's turn
                self.asked_at = self.handshakes.loop.time()
            self.flush()
            if self.closing:
                return 0
        return 0

    cdef int made(self) except -1:
        self.handshakes._leave(self)
        self.handshakes = None
        self.protocol = self.make_protocol()
        self.make_protocol = None
        self.session = getattr(self.protocol, "session", None)
        self.protocol.connection_made(self)
        return 0

    cdef int give_up(self, str reason) except -1:
        """End a handshake that is not over, and say why."""
        cdef Handshakes handshakes = self.handshakes
        if handshakes is None:
            return self.finish(None)
        self.handshakes = None
        handshakes._leave(self)
        self.finish(None)
        handshakes.failed(self.peer, reason)
        return 0

    # --- writing and the end ---------------------------------------------------------------------------

    cdef int send(self, const uint8_t* data, Py_ssize_t count) except -1:
        cdef int part, done, error
        if self.handshakes is not None or self.broken:
            return 0
        lib.ERR_clear_error()
        while count > 0 and not self.closing:
            part = <int> min(count, <Py_ssize_t> BATCH_BYTES)
            done = lib.SSL_write(self.ssl, data, part)
            if done > 0:
                data += done
                count -= done
            else:
                error = lib.SSL_get_error(self.ssl, done)
                if error != SSL_ERROR_WANT_WRITE:    # that one only means that the block is full
                    self.broken = True
                    return self.finish(ConnectionError(f"TLS: {reason_of_failure(self.ssl)}"))
            self.flush()
        return 0

    cdef int flush(self) except -1:
        """Pass on what OpenSSL has written."""
        global sealed_used
        cdef Py_ssize_t count = sealed_used
        sealed_used = 0
        if count:
            self.put(sealed, count)
        return 0

    cdef int farewell(self) except -1:
        """close_notify, so that the client knows that nothing was cut off; its own is not waited for."""
        if self.ssl != NULL and self.handshakes is None and not self.broken:
            lib.ERR_clear_error()
            lib.SSL_shutdown(self.ssl)
            self.flush()
        return 0

    cdef int finish(self, object error) except -1:
        if self.handshakes is not None:
            return self.give_up("the connection broke" if error is None else str(error))
        return Transport.finish(self, error)

    def _lost(self, error):
        self.free_ssl()
        self.make_protocol = self.context = None
        Transport._lost(self, error)

    cdef void free_ssl(self) noexcept:
        if self.ssl != NULL:
            lib.SSL_free(self.ssl)
            self.ssl = self.bio = NULL

    # --- looking in ------------------------------------------------------------------------------------

    def get_extra_info(self, str name, default=None):
        """As a Transport's; `ssl_object` is this transport, once the handshake is done."""
        if name == "ssl_object":
            return self
        return Transport.get_extra_info(self, name, default)

    def getpeercert(self, bint binary_form=True):
        """The client's certificate as DER; None if it showed none. ValueError for any other form."""
        cdef void* certificate
        cdef int size
        cdef unsigned char* to
        if not binary_form:
            raise ValueError("only the binary form of a certificate is kept")
        if self.ssl == NULL:
            return None
        certificate = lib.SSL_get1_peer_certificate(self.ssl)
        if certificate == NULL:
            return None
        size = lib.i2d_X509(certificate, NULL)
        if size < 0:
            lib.X509_free(certificate)
            raise MemoryError("OpenSSL has no memory for the form of a certificate")
        encoded = PyBytes_FromStringAndSize(NULL, size)
        to = <unsigned char*> PyBytes_AS_STRING(encoded)
        lib.i2d_X509(certificate, &to)
        lib.X509_free(certificate)
        return encoded


cdef str reason_of_failure(void* ssl):
    """In OpenSSL's words; a certificate's own fault before the general one."""
    cdef long verdict = lib.SSL_get_verify_result(ssl)
    cdef const char* text = NULL
    if verdict != X509_V_OK:
        lib.ERR_clear_error()
        text = lib.X509_verify_cert_error_string(verdict)
        return "the client's certificate: " + (<bytes> text).decode("utf-8", "replace")
    text = lib.ERR_reason_error_string(lib.ERR_peek_last_error())
    lib.ERR_clear_error()
    return (<bytes> text).decode("utf-8", "replace") if text != NULL else "the connection ended inside a record"
