/* The load of the broker benchmark: MQTT 3.1.1 publishers and subscribers, plain or mutual TLS, one thread, epoll.
 *
 * Equal numbers of publishers and subscribers are pairs with a topic each; otherwise every subscriber gets the
 * messages of every publisher; with --filters each message has one of many subscriptions. A payload starts with
 * publisher, sequence number and time; the receiver checks the numbers of each publisher, so a message lost, repeated
 * or overtaken fails the run. Prints one JSON object: figures, or {"error": sentence} with exit status 1.
 *
 * Other modes: --idle N only connects N clients, prints {"connected": N}, and hangs up when its input ends;
 * --connects N connects and leaves N times; --garbage N is N clients that send anything but MQTT.
 */
#include "load.h"

#include <sys/epoll.h>

struct connection *publishers, *subscribers;
struct connection **ready;
size_t ready_count;
uint64_t *due;
uint32_t fan;
struct tally tally;
int poller;
uint8_t scratch[SCRATCH];

static void connect_all(void) {
    fan = options.publishers == options.subscribers || options.filters ? 1 : options.subscribers;
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
}

int main(int count, char **arguments) {
    read_options(count, arguments);
    if (options.idle) {
        stay_idle();
    } else if (options.connects) {
        connect_repeatedly();
    } else if (options.garbage) {
        send_garbage();
    } else {
        connect_all();
        counters_open();
        run();
    }
    return 0;
}
