/* What the parts of the load generator share; load.c says what it is. */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum {
    SCRATCH = 256 * 1024, /* one read */
    HEAD = 24,            /* of a payload: publisher (4 bytes), padding (4), sequence number (8), time in ns (8) */
    ROUTE_BYTES = 64,     /* topic, packet id and fixed header around a payload, at most */
    PIDS_MAX = 64,
};

struct options {
    uint32_t port, publishers, subscribers, qos, size, window, rate, idle;
    double seconds, warm_up;
    clockid_t clocks[PIDS_MAX]; /* CPU clocks of the broker's processes */
    size_t clock_count;
};

struct connection {
    int fd;
    uint32_t number; /* among publishers or among subscribers */
    bool publishes, armed, marked;
    uint8_t *rest; /* begin of a packet whose end has not come */
    size_t rest_size;
    uint8_t *out;
    size_t out_start, out_end, out_capacity;
    uint8_t *packet; /* publishers: the PUBLISH; number, id and time are written into it */
    size_t packet_size, id_at, head_at;
    uint64_t sent, answered, complete, delivered; /* answered: PUBACK or PUBREC; complete: PUBACK or PUBCOMP */
};

/* What the receivers have counted. */
struct tally {
    uint64_t received, gaps, old; /* numbers skipped; messages that came again or late */
    uint64_t last_progress;       /* CLOCK_MONOTONIC, ns */
};

extern struct options options;
extern struct connection *publishers, *subscribers;
extern struct connection **ready; /* publishers that may send again */
extern size_t ready_count;
extern uint64_t *due; /* next sequence number by subscriber and publisher */
extern uint32_t fan;  /* subscribers that get each message */
extern struct tally tally;
extern int poller;
extern uint8_t scratch[SCRATCH];

/* connection.c */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t now_ns(clockid_t clock);
void *allocate(size_t count, size_t size);
const char *kind(const struct connection *c);
void watch(struct connection *c, int operation);     /* epoll_ctl; for output too while it is armed */
uint8_t *reserve(struct connection *c, size_t size); /* room at the end of the output */
void flush(struct connection *c);                    /* send what the socket takes now */
void open_connection(struct connection *c, uint32_t number, bool publishes);
void subscribe(struct connection *c);

/* packets.c */
void prepare_packet(struct connection *c);
void append_message(struct connection *c, uint64_t now);
void pump(struct connection *c); /* fill the publisher's window */
void mark(struct connection *publisher);
void take_input(struct connection *c);

/* latency.c */
void latency_record(uint64_t ns);
void latency_reset(void);
double latency_percentile_us(double share);
double latency_max_us(void);

#endif
