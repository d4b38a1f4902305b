/* What the parts of the load generator share; load.c says what it is. */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

enum {
    SCRATCH = 256 * 1024, /* one read */
    HEAD = 24,            /* of a payload: publisher (4 bytes), padding (4), sequence number (8), time in ns (8) */
    ROUTE_BYTES = 64,     /* topic, packet id and fixed header around a payload, at most */
    TOPIC_BYTES = 32,     /* of a topic, at most */
    NAME_BYTES = 12,
    PIDS_MAX = 64,
};

struct options {
    uint32_t port, publishers, subscribers, qos, size, window, rate;
    uint32_t filters, topics; /* with filters: distinct subscriptions in all; topics: how many of them get messages */
    uint64_t messages;        /* instead of a time: so many in all */
    bool flood;               /* publishers send what their sockets take, and losses are no matter */
    double seconds, warm_up;
    const char *name; /* begin of topics and client ids: loads beside each other have different ones */

    uint32_t idle, burst, connects, garbage, seed; /* other modes; burst: bytes through each idle connection */

    const char *certificate, *key, *authority; /* PEM files; with them everything runs over mutual TLS 1.3 */
    pid_t pids[PIDS_MAX];                      /* the broker's processes */
    clockid_t clocks[PIDS_MAX];                /* and their CPU clocks */
    size_t clock_count;
    bool count_instructions;
    uint32_t syscalls_event; /* number of the kernel's tracepoint of system calls; 0: they are not counted */
};

struct connection {
    int fd;
    uint32_t number; /* among publishers or among subscribers */
    bool publishes, armed, marked;
    void *tls;     /* SSL, or NULL */
    uint8_t *rest; /* begin of a packet whose end has not come */
    size_t rest_size;
    uint8_t *out;
    size_t out_start, out_end, out_capacity;
    uint8_t *packet; /* publishers: the PUBLISH; topic, number, id and time are written into it */
    size_t packet_size, topic_at, topic_size, id_at, head_at;
    uint64_t sent, answered, complete, delivered; /* answered: PUBACK or PUBREC; complete: PUBACK or PUBCOMP */
    uint64_t *sequences; /* with filters: next number for each subscriber */
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

/* options.c */
void read_options(int count, char **arguments);

/* connection.c */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t now_ns(clockid_t clock);
void *allocate(size_t count, size_t size);
const char *kind(const struct connection *c);
void watch(struct connection *c, int operation);     /* epoll_ctl; for output too while it is armed */
uint8_t *reserve(struct connection *c, size_t size); /* room at the end of the output */
void flush(struct connection *c);                    /* send what the socket takes now */
void open_connection(struct connection *c, uint32_t number, bool publishes);
void send_all(struct connection *c, const uint8_t *data, size_t size); /* blocking, as are the two below */
void receive_all(struct connection *c, uint8_t *data, size_t size);
void hang_up(struct connection *c); /* DISCONNECT and close */
ssize_t receive_some(struct connection *c, uint8_t *data, size_t size); /* as recv() without waiting */

/* subscribe.c */
void subscribe(struct connection *c);
size_t filter_name(uint32_t filter, char name[TOPIC_BYTES]); /* same length for all; returns it */

/* tls.c */
void tls_open(struct connection *c);
ssize_t tls_send(struct connection *c, const uint8_t *data, size_t size);
ssize_t tls_receive(struct connection *c, uint8_t *data, size_t size);
bool tls_holds_data(const struct connection *c);
void tls_close(struct connection *c);

/* packets.c */
size_t put_publish(uint8_t *packet, uint8_t flags, const char *topic, size_t topic_size, size_t payload_size);
void prepare_packet(struct connection *c);
uint16_t id_of(uint64_t sequence); /* packet id of a publisher's message */
void append_message(struct connection *c, uint64_t now);
void pump(struct connection *c); /* fill the publisher's window */
void mark(struct connection *publisher);

/* input.c */
void take_input(struct connection *c);

/* latency.c */
void latency_record(uint64_t ns);
void latency_reset(void);
double latency_percentile_us(double share);
double latency_max_us(void);

/* counters.c */
uint64_t broker_cpu_ns(void);
void counters_open(void);
void counters_start(void);
void counters_stop(void);
void counters_print(void); /* as members of a JSON object, each with a comma before it */

/* run.c */
void run(void);

/* idle.c */
void stay_idle(void);
void connect_repeatedly(void);

/* garbage.c */
void send_garbage(void);

#endif
