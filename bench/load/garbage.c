/* Clients that send anything but good MQTT, and come back at once when they are thrown out.
 *
 * Each attempt draws a script (garbage.h) from the seed: some bytes, how they are cut into writes, how long the
 * connection then stays. They come from 16 addresses of the loopback, so a limit by address meets a small crowd.
 */
#include "garbage.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 256, ADDRESSES = 16, FIRST_ADDRESS = 0x7F000002, SWEEP_NS = 1000000 };

struct attacker {
    int fd; /* -1: not connected */
    bool connected;
    struct script script;
    size_t sent;
    uint64_t sequence;    /* of its chances */
    uint64_t next, until; /* CLOCK_MONOTONIC, ns */
};

static struct {
    uint64_t attempts, connected, refused, closed, left, sent, received;
} done;

/* End an attempt; half of them with a reset. The next begins at the next sweep. */
static void leave(struct attacker *a) {
    struct linger reset = {.l_onoff = 1};
    draw_from(&a->sequence);
    if (draw(2))
        setsockopt(a->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(a->fd);
    a->fd = -1;
    a->next = 0;
}

static void attempt(struct attacker *a, uint32_t number, uint64_t now) {
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
    int one = 1;
    a->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (a->fd < 0)
        fail("no socket for attacker %u: %s", number, strerror(errno));
    from.sin_addr.s_addr = htonl(FIRST_ADDRESS + number % ADDRESSES);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons((uint16_t)options.port);
    setsockopt(a->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(a->fd, (struct sockaddr *)&from, sizeof from) != 0)
        fail("attacker %u cannot use its address: %s", number, strerror(errno));
    done.attempts++;
    a->connected = false;
    a->sent = 0;
    draw_from(&a->sequence);
    write_script(&a->script);
    a->next = now + UINT64_C(10) * SWEEP_NS;
    a->until = now + (uint64_t)a->script.stay_ms * 1000000;
    if (connect(a->fd, (struct sockaddr *)&to, sizeof to) != 0 && errno != EINPROGRESS) {
        done.refused++;
        leave(a);
        return;
    }
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = a};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, a->fd, &event) != 0)
        fail("epoll_ctl: %s", strerror(errno));
}

/* Send what is due of the script. */
static void act(struct attacker *a, uint64_t now) {
    if (now >= a->until) {
        done.left++;
        leave(a);
        return;
    }
    size_t left = a->script.size - a->sent, step = a->script.step;
    if (left && a->connected) {
        ssize_t sent = send(a->fd, a->script.bytes + a->sent, left < step ? left : step, MSG_NOSIGNAL);
        if (sent > 0) {
            a->sent += (size_t)sent;
            done.sent += (uint64_t)sent;
        }
        if (a->sent == a->script.size && a->script.endless)
            a->sent = a->script.repeat_from;
    }
    a->next = a->sent < a->script.size ? now + (uint64_t)a->script.pause_ms * 1000000 : a->until;
}

static void react(struct attacker *a, uint32_t events, uint64_t now) {
    if (!a->connected && (events & EPOLLOUT) && !(events & (EPOLLERR | EPOLLHUP))) {
        a->connected = true;
        done.connected++;
        act(a, now);
    }
    while (a->fd >= 0 && (events & (EPOLLIN | EPOLLERR | EPOLLHUP))) {
        ssize_t got = recv(a->fd, scratch, SCRATCH, 0);
        if (got > 0) {
            done.received += (uint64_t)got;
            continue;
        }
        if (got < 0 && errno == EAGAIN && !(events & (EPOLLERR | EPOLLHUP)))
            return;
        *(a->connected ? &done.closed : &done.refused) += 1;
        leave(a);
    }
}

void send_garbage(void) {
    struct attacker *all = allocate(options.garbage, sizeof *all);
    struct epoll_event events[EVENTS];
    uint64_t now = now_ns(CLOCK_MONOTONIC), start = now, swept = 0, cpu = broker_cpu_ns();
    poller = epoll_create1(EPOLL_CLOEXEC);
    for (uint32_t i = 0; i < options.garbage; i++) {
        all[i].fd = -1;
        all[i].sequence = sequence_of(options.seed, i);
    }
    while (now < start + (uint64_t)(options.seconds * 1e9)) {
        int count = epoll_wait(poller, events, EVENTS, 1);
        now = now_ns(CLOCK_MONOTONIC);
        for (int i = 0; i < count; i++)
            if (((struct attacker *)events[i].data.ptr)->fd >= 0)
                react(events[i].data.ptr, events[i].events, now);
        if (now < swept + SWEEP_NS)
            continue;
        swept = now;
        for (uint32_t i = 0; i < options.garbage; i++) {
            if (all[i].fd < 0)
                attempt(&all[i], i, now);
            else if (all[i].next <= now)
                act(&all[i], now);
        }
    }
    cpu = broker_cpu_ns() - cpu;
    printf("{\"attempts\": %" PRIu64 ", \"connected\": %" PRIu64 ", \"refused\": %" PRIu64 ", \"closed_by_broker\": %" PRIu64
           ", \"left\": %" PRIu64 ", \"bytes_sent\": %" PRIu64 ", \"bytes_received\": %" PRIu64
           ", \"seconds\": %.6f, \"broker_cpu_seconds\": %.9f}\n",
           done.attempts, done.connected, done.refused, done.closed, done.left, done.sent, done.received,
           (double)(now - start) / 1e9, (double)cpu / 1e9);
}
