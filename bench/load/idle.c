/* Connections that do nothing, after a burst or not, and connections that only come and go. */
#include "load.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTS_FIRST = 20 }; /* before the measuring: what the first clients cost is not a cost of each */

static size_t prepare_burst(uint8_t *packet, uint32_t number, size_t *head) {
    char topic[TOPIC_BYTES];
    size_t text = (size_t)snprintf(topic, sizeof topic, "%s/%u", options.name, number);
    *head = put_publish(packet, 0, topic, text, options.burst);
    memset(packet + *head, (int)(number & 0xFF), options.burst);
    return *head + options.burst;
}

/* A message of that size by each client to itself. All have sent half of it before any sends the rest, so the broker
 * holds a part of every message at the same time. */
static void burst(struct connection *all) {
    uint8_t *packet = allocate(options.burst + ROUTE_BYTES, 1), *back = allocate(options.burst + ROUTE_BYTES, 1);
    size_t head, half = options.burst / 2;
    options.publishers = options.subscribers = options.idle; /* a topic each */
    for (uint32_t i = 0; i < options.idle; i++)
        subscribe(&all[i]);
    for (uint32_t i = 0; i < options.idle; i++) {
        prepare_burst(packet, i, &head);
        send_all(&all[i], packet, half);
    }
    for (uint32_t i = 0; i < options.idle; i++) {
        size_t size = prepare_burst(packet, i, &head);
        send_all(&all[i], packet + half, size - half);
        receive_all(&all[i], back, size);
        if (memcmp(packet, back, size) != 0)
            fail("client %u got another message than it sent", i);
    }
}

void stay_idle(void) {
    struct connection *all = allocate(options.idle, sizeof *all);
    uint32_t closed = 0;
    for (uint32_t i = 0; i < options.idle; i++)
        open_connection(&all[i], i, true);
    if (options.burst)
        burst(all);
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

void connect_repeatedly(void) {
    struct connection client;
    uint64_t cpu = 0, own = 0, start = 0;
    for (uint32_t i = 0; i < CONNECTS_FIRST + options.connects; i++) {
        if (i == CONNECTS_FIRST) {
            cpu = broker_cpu_ns();
            own = now_ns(CLOCK_PROCESS_CPUTIME_ID);
            start = now_ns(CLOCK_MONOTONIC);
        }
        memset(&client, 0, sizeof client);
        open_connection(&client, i, true);
        hang_up(&client);
    }
    double seconds = (double)(now_ns(CLOCK_MONOTONIC) - start) / 1e9;
    cpu = broker_cpu_ns() - cpu;
    own = now_ns(CLOCK_PROCESS_CPUTIME_ID) - own;
    printf("{\"connects\": %u, \"seconds\": %.6f, \"broker_cpu_seconds\": %.9f, \"load_cpu_seconds\": %.9f}\n",
           options.connects, seconds, (double)cpu / 1e9, (double)own / 1e9);
}
