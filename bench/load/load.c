/* The load of the broker benchmark: MQTT 3.1.1 publishers and subscribers on plain TCP, one thread, epoll.
 *
 * Equal numbers of publishers and subscribers are pairs with a topic each; otherwise every subscriber gets the
 * messages of every publisher. A payload starts with publisher, sequence number and time; the receiver checks the
 * numbers of each publisher, so a message lost, repeated or overtaken fails the run. Prints one JSON object:
 * figures, or {"error": sentence} with exit status 1.
 *
 * With --idle N it only connects N clients, prints {"connected": N}, and hangs up when its input ends.
 */
#include "load.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum {
    BACKLOG_MAX = 64 << 20, /* unsent bytes of a publisher at a fixed rate: the broker does not keep up */
    TURN_MS = 10,           /* a quiet loop looks at the clock this often */
};
static const uint64_t SECOND = 1000000000;
static const uint64_t STALL_NS = 5000000000;     /* no message for so long: what is under way is lost */
static const uint64_t STALL_GAP_NS = 1000000000; /* the same when the run has failed already */

struct options options = {.port = 1883, .publishers = 1, .subscribers = 1, .size = 64, .seconds = 1.0, .warm_up = 0.2};
struct connection *publishers, *subscribers;
struct connection **ready;
size_t ready_count;
uint64_t *due;
uint32_t fan;
struct tally tally;
int poller;
uint8_t scratch[SCRATCH];

static uint64_t broker_cpu_ns(void) {
    uint64_t sum = 0;
    for (size_t i = 0; i < options.clock_count; i++)
        sum += now_ns(options.clocks[i]);
    return sum;
}

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
    struct epoll_event events[256];
    int count = epoll_wait(poller, events, 256, TURN_MS);
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
        if (publishing && options.window)
            pump(c);
    }
}

static void run(void) {
    int timer = options.rate ? start_timer() : -1;
    uint64_t start = now_ns(CLOCK_MONOTONIC), now = start, from = 0, cpu = 0, own = 0, before = 0;
    uint64_t warm = start + (uint64_t)(options.warm_up * 1e9), end = UINT64_MAX;
    bool measuring = false;
    tally.last_progress = start;
    for (uint32_t i = 0; i < options.publishers && options.window; i++)
        mark(&publishers[i]);
    while (now < end && !stalled(now)) {
        turn(timer, true);
        now = now_ns(CLOCK_MONOTONIC);
        if (!measuring && now >= warm) {
            measuring = true;
            latency_reset();
            before = tally.received;
            cpu = broker_cpu_ns();
            own = now_ns(CLOCK_PROCESS_CPUTIME_ID);
            from = now = now_ns(CLOCK_MONOTONIC);
            end = from + (uint64_t)(options.seconds * 1e9);
        }
    }
    cpu = broker_cpu_ns() - cpu;
    own = now_ns(CLOCK_PROCESS_CPUTIME_ID) - own;
    uint64_t measured = tally.received - before, sent = 0;
    double p50 = latency_percentile_us(0.5), p99 = latency_percentile_us(0.99), p999 = latency_percentile_us(0.999);
    double highest = latency_max_us();
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
    printf("{\"messages\": %" PRIu64 ", \"seconds\": %.6f, \"broker_cpu_seconds\": %.9f, \"load_cpu_seconds\": %.9f, "
           "\"checked\": %" PRIu64 ", \"repeated\": %" PRIu64 ", "
           "\"latency_us\": {\"p50\": %.1f, \"p99\": %.1f, \"p99.9\": %.1f, \"max\": %.1f}}\n",
           measured, (double)(now - from) / 1e9, (double)cpu / 1e9, (double)own / 1e9, tally.received, tally.old, p50,
           p99, p999, highest);
}

static void stay_idle(void) {
    struct connection *all = allocate(options.idle, sizeof *all);
    uint32_t closed = 0;
    for (uint32_t i = 0; i < options.idle; i++)
        open_connection(&all[i], i, true);
    printf("{\"connected\": %u}\n", options.idle);
    fflush(stdout);
    while (read(0, scratch, SCRATCH) > 0)
        ;
    for (uint32_t i = 0; i < options.idle; i++)
        if (recv(all[i].fd, scratch, 1, MSG_DONTWAIT) >= 0 || errno != EAGAIN)
            closed++;
    if (closed)
        fail("the broker closed %u of %u idle connections", closed, options.idle);
}

static void read_options(int count, char **arguments) {
    static const struct option known[] = {
        {"port", 1, 0, 'p'},    {"publishers", 1, 0, 'P'}, {"subscribers", 1, 0, 'S'}, {"qos", 1, 0, 'q'},
        {"size", 1, 0, 's'},    {"window", 1, 0, 'w'},     {"rate", 1, 0, 'r'},        {"idle", 1, 0, 'i'},
        {"seconds", 1, 0, 't'}, {"warm-up", 1, 0, 'u'},    {"cpu-of", 1, 0, 'c'},      {0, 0, 0, 0}};
    for (int found; (found = getopt_long(count, arguments, "", known, NULL)) != -1;) {
        uint32_t number = found == '?' ? 0 : (uint32_t)strtoul(optarg, NULL, 10);
        switch (found) {
        case 'p': options.port = number; break;
        case 'P': options.publishers = number; break;
        case 'S': options.subscribers = number; break;
        case 'q': options.qos = number; break;
        case 's': options.size = number; break;
        case 'w': options.window = number; break;
        case 'r': options.rate = number; break;
        case 'i': options.idle = number; break;
        case 't': options.seconds = atof(optarg); break;
        case 'u': options.warm_up = atof(optarg); break;
        case 'c':
            if (options.clock_count == PIDS_MAX)
                fail("found more than %d --cpu-of", PIDS_MAX);
            if (clock_getcpuclockid((pid_t)number, &options.clocks[options.clock_count++]) != 0)
                fail("no process %u to measure", number);
            break;
        default: fail("unknown option; expected those of read_options");
        }
    }
    if (optind < count || options.publishers < 1 || options.subscribers < 1 || options.qos > 2)
        fail("expected publishers and subscribers of 1 or more, and a QoS of 0, 1 or 2");
    if (options.size < HEAD || options.size > SCRATCH / 2)
        fail("found a payload of %u bytes, expected %d to %d", options.size, HEAD, SCRATCH / 2);
    if (!options.idle && (options.window > 0) == (options.rate > 0))
        fail("expected either --window or --rate");
    if (options.window > 65535 || options.rate > 1000000000)
        fail("expected a window of at most 65535 and a rate of at most 1000000000");
}

int main(int count, char **arguments) {
    read_options(count, arguments);
    if (options.idle) {
        stay_idle();
        return 0;
    }
    fan = options.publishers == options.subscribers ? 1 : options.subscribers;
    publishers = allocate(options.publishers, sizeof *publishers);
    subscribers = allocate(options.subscribers, sizeof *subscribers);
    ready = allocate(options.publishers, sizeof(struct connection *));
    due = allocate((size_t)options.publishers * options.subscribers, sizeof *due);
    poller = epoll_create1(EPOLL_CLOEXEC);
    for (uint32_t i = 0; i < options.subscribers; i++) {
        open_connection(&subscribers[i], i, false);
        subscribe(&subscribers[i]);
        watch(&subscribers[i], EPOLL_CTL_ADD);
    }
    for (uint32_t i = 0; i < options.publishers; i++) {
        open_connection(&publishers[i], i, true);
        prepare_packet(&publishers[i]);
        watch(&publishers[i], EPOLL_CTL_ADD);
    }
    run();
    return 0;
}
