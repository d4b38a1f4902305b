/* One load: what is sent when, when measuring begins and ends, what must have arrived. */
#include "load.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum {
    BACKLOG_MAX = 64 << 20, /* unsent bytes of a publisher at a fixed rate: the broker does not keep up */
    TURN_MS = 10,           /* a quiet loop looks at the clock this often */
    EVENTS = 256,
};
static const uint64_t SECOND = 1000000000;
static const uint64_t STALL_NS = 5000000000;     /* no message for so long: what is under way is lost */
static const uint64_t STALL_GAP_NS = 1000000000; /* the same when the run has failed already */

static int start_timer(void) {
    uint64_t period = SECOND / options.rate;
    struct timespec time = {.tv_sec = (time_t)(period / SECOND), .tv_nsec = (long)(period % SECOND)};
    struct itimerspec setting = {.it_interval = time, .it_value = time};
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (timer < 0 || timerfd_settime(timer, 0, &setting, NULL) != 0 ||
        epoll_ctl(poller, EPOLL_CTL_ADD, timer, &event) != 0)
        fail("no timer: %s", strerror(errno));
    return timer;
}

/* Messages that are due, publisher after publisher. They are stamped here: time in our own backlog counts. */
static void send_due(int timer, bool publishing) {
    static uint32_t next;
    uint64_t ticks = 0;
    if (read(timer, &ticks, sizeof ticks) != sizeof ticks || !publishing)
        return;
    for (uint64_t now = now_ns(CLOCK_MONOTONIC); ticks > 0; ticks--, next++) {
        struct connection *c = &publishers[next % options.publishers];
        append_message(c, now);
        if (c->out_end - c->out_start > BACKLOG_MAX)
            fail("the broker does not keep up with %u messages a second: %d MiB wait", options.rate, BACKLOG_MAX >> 20);
        flush(c);
    }
}

static bool stalled(uint64_t now) { return now >= tally.last_progress + (tally.gaps ? STALL_GAP_NS : STALL_NS); }

static bool all_done(void) {
    uint64_t sent = 0;
    for (uint32_t i = 0; i < options.publishers; i++) {
        sent += publishers[i].sent;
        if (options.qos > 0 && publishers[i].complete != publishers[i].sent)
            return false;
    }
    return tally.received >= sent * fan;
}

/* One pass of the loop. */
static void turn(int timer, bool publishing) {
    struct epoll_event events[EVENTS];
    int count = epoll_wait(poller, events, EVENTS, ready_count ? 0 : TURN_MS);
    for (int i = 0; i < count; i++) {
        struct connection *c = events[i].data.ptr;
        if (c == NULL) {
            send_due(timer, publishing);
            continue;
        }
        if (events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
            take_input(c);
        if (events[i].events & EPOLLOUT) {
            flush(c);
            if (c->publishes)
                mark(c);
        }
    }
    for (; ready_count > 0; ready_count--) {
        struct connection *c = ready[ready_count - 1];
        c->marked = false;
        if (publishing && !options.rate)
            pump(c);
    }
    for (uint32_t i = 0; i < options.publishers && options.flood && publishing; i++)
        if (!publishers[i].armed)
            mark(&publishers[i]);
}

/* What one run has measured. */
struct figures {
    uint64_t from, to, cpu, own, messages;
    double p50, p99, p999, highest;
};

static void begin(struct figures *f) {
    latency_reset();
    counters_start();
    f->messages = tally.received;
    f->own = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    f->cpu = broker_cpu_ns();
    f->from = now_ns(CLOCK_MONOTONIC);
}

static void end(struct figures *f) {
    f->to = now_ns(CLOCK_MONOTONIC);
    f->cpu = broker_cpu_ns() - f->cpu;
    f->own = now_ns(CLOCK_PROCESS_CPUTIME_ID) - f->own;
    f->messages = tally.received - f->messages;
    f->p50 = latency_percentile_us(0.5);
    f->p99 = latency_percentile_us(0.99);
    f->p999 = latency_percentile_us(0.999);
    f->highest = latency_max_us();
    counters_stop();
}

static void print(const struct figures *f) {
    printf("{\"messages\": %" PRIu64 ", \"seconds\": %.6f, \"broker_cpu_seconds\": %.9f, "
           "\"load_cpu_seconds\": %.9f, \"checked\": %" PRIu64 ", \"repeated\": %" PRIu64,
           f->messages, (double)(f->to - f->from) / 1e9, (double)f->cpu / 1e9, (double)f->own / 1e9, tally.received,
           tally.old);
    counters_print();
    printf(", \"latency_us\": {\"p50\": %.1f, \"p99\": %.1f, \"p99.9\": %.1f, \"max\": %.1f}}\n",
           f->p50, f->p99, f->p999, f->highest);
}

/* Waits for what is under way; then nothing may be missing. */
static void drain(int timer) {
    uint64_t sent = 0;
    while (!all_done() && !stalled(now_ns(CLOCK_MONOTONIC)))
        turn(timer, false);
    for (uint32_t i = 0; i < options.publishers; i++)
        sent += publishers[i].sent;
    uint64_t missing = sent * fan > tally.received ? sent * fan - tally.received : 0;
    if (missing || tally.gaps || (tally.old && options.qos != 1))
        fail("of %" PRIu64 " messages %" PRIu64 " did not arrive in turn, %" PRIu64
             " numbers were skipped (lost or overtaken), %" PRIu64 " messages came again or late",
             sent * fan, missing, tally.gaps, tally.old);
    if (!all_done())
        fail("the broker did not finish the acknowledgements of %" PRIu64 " messages", sent);
}

/* All that --messages asked for has been sent and has arrived. */
static bool complete(void) {
    uint64_t each = options.messages / options.publishers;
    for (uint32_t i = 0; i < options.publishers; i++)
        if (publishers[i].sent < each)
            return false;
    return all_done();
}

void run(void) {
    int timer = options.rate ? start_timer() : -1;
    uint64_t now = now_ns(CLOCK_MONOTONIC), until = UINT64_MAX;
    uint64_t warm = now + (options.messages ? 0 : (uint64_t)(options.warm_up * 1e9));
    bool measuring = false;
    struct figures figures = {0};
    tally.last_progress = now;
    for (uint32_t i = 0; i < options.publishers && !options.rate; i++)
        mark(&publishers[i]);
    while (now < until && !stalled(now) && !(options.messages && complete())) {
        turn(timer, true);
        now = now_ns(CLOCK_MONOTONIC);
        if (!measuring && now >= warm) {
            measuring = true;
            begin(&figures);
            if (!options.messages)
                until = now + (uint64_t)(options.seconds * 1e9);
        }
    }
    end(&figures);
    if (!options.flood)
        drain(timer);
    print(&figures);
}
