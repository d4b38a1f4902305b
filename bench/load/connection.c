/* Sockets, their output, and the first packets of a connection. */
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

_Noreturn void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    printf("{\"error\": \"");
    vprintf(format, arguments);
    printf("\"}\n");
    va_end(arguments);
    exit(1);
}

uint64_t now_ns(clockid_t clock) {
    struct timespec time;
    if (clock_gettime(clock, &time) != 0)
        fail("the broker's CPU clock cannot be read: it has ended");
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

void *allocate(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (memory == NULL)
        fail("out of memory");
    return memory;
}

void watch(struct connection *c, int operation) {
    if (operation == EPOLL_CTL_ADD && c->tls && fcntl(c->fd, F_SETFL, O_NONBLOCK) != 0)
        fail("fcntl: %s", strerror(errno));
    struct epoll_event event = {.events = EPOLLIN | (c->armed ? EPOLLOUT : 0), .data.ptr = c};
    if (epoll_ctl(poller, operation, c->fd, &event) != 0)
        fail("epoll_ctl: %s", strerror(errno));
}

const char *kind(const struct connection *c) {
    return options.idle || options.connects ? "client" : c->publishes ? "publisher" : "subscriber";
}

uint8_t *reserve(struct connection *c, size_t size) {
    if (c->out_end + size > c->out_capacity) {
        size_t held = c->out_end - c->out_start;
        size_t capacity = c->out_capacity ? c->out_capacity : 4096;
        while (capacity < held + size)
            capacity *= 2;
        uint8_t *larger = allocate(capacity, 1);
        if (held)
            memcpy(larger, c->out + c->out_start, held);
        free(c->out);
        c->out = larger;
        c->out_capacity = capacity;
        c->out_start = 0;
        c->out_end = held;
    }
    uint8_t *place = c->out + c->out_end;
    c->out_end += size;
    return place;
}

static ssize_t send_some(struct connection *c, const uint8_t *data, size_t size, int flags) {
    return c->tls ? tls_send(c, data, size) : send(c->fd, data, size, MSG_NOSIGNAL | flags);
}

ssize_t receive_some(struct connection *c, uint8_t *data, size_t size) {
    return c->tls ? tls_receive(c, data, size) : recv(c->fd, data, size, MSG_DONTWAIT);
}

void flush(struct connection *c) {
    while (c->out_start < c->out_end) {
        ssize_t written = send_some(c, c->out + c->out_start, c->out_end - c->out_start, MSG_DONTWAIT);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0 && errno != EAGAIN)
            fail("the connection of %s %u broke: %s", kind(c), c->number, strerror(errno));
        if (written < 0)
            break;
        c->out_start += (size_t)written;
    }
    bool blocked = c->out_start < c->out_end;
    if (!blocked)
        c->out_start = c->out_end = 0;
    if (blocked != c->armed) {
        c->armed = blocked;
        watch(c, EPOLL_CTL_MOD);
    }
}

void send_all(struct connection *c, const uint8_t *data, size_t size) {
    while (size > 0) {
        ssize_t sent = send_some(c, data, size, 0);
        if (sent <= 0)
            fail("%s %u cannot send to the broker: %s", kind(c), c->number, strerror(errno));
        data += sent;
        size -= (size_t)sent;
    }
}

void receive_all(struct connection *c, uint8_t *data, size_t size) {
    while (size > 0) {
        ssize_t got = c->tls ? tls_receive(c, data, size) : recv(c->fd, data, size, 0);
        if (got < 0)
            fail("%s %u got no answer to its packets: %s", kind(c), c->number, strerror(errno));
        if (got == 0)
            fail("the broker closed the connection of %s %u, which waited for an answer", kind(c), c->number);
        data += got;
        size -= (size_t)got;
    }
}

void open_connection(struct connection *c, uint32_t number, bool publishes) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    struct timeval patience = {.tv_sec = 10};
    int one = 1;
    c->number = number;
    c->publishes = publishes;
    c->rest = allocate(options.size + 2 * ROUTE_BYTES, 1);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        fail("no socket for %s %u: %s", kind(c), number, strerror(errno));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) != 0)
        fail("%s %u cannot connect to port %u: %s", kind(c), number, options.port, strerror(errno));
    if (options.certificate)
        tls_open(c);
    uint8_t packet[64] = "\x10\0\0\x04MQTT\x04\x02\0\0\0", reply[4];
    int text = snprintf((char *)packet + 14, 48, "%s-%c%u", options.name, publishes ? 'p' : 's', number);
    packet[1] = (uint8_t)(12 + text);
    packet[13] = (uint8_t)text;
    send_all(c, packet, 14 + (size_t)text);
    receive_all(c, reply, sizeof reply);
    if (reply[0] != 0x20 || reply[3] != 0)
        fail("the broker refused %s %u with return code %u", kind(c), number, reply[3]);
}

void hang_up(struct connection *c) {
    send_all(c, (const uint8_t *)"\xe0\0", 2);
    if (c->tls)
        tls_close(c);
    close(c->fd);
    free(c->rest);
}
