/* What the subscribers ask for. */
#include "load.h"

#include <stdio.h>
#include <string.h>

enum { FILTERS_A_PACKET = 100 }; /* so a SUBACK has one byte of length */

size_t filter_name(uint32_t filter, char name[TOPIC_BYTES]) {
    uint32_t each = options.filters / options.subscribers;
    return (size_t)snprintf(name, TOPIC_BYTES, "%s/%05u/%05u", options.name, filter / each, filter % each);
}

/* One SUBSCRIBE with `count` filters of `names` (each `size` bytes, TOPIC_BYTES apart), and its SUBACK. */
static void request(struct connection *c, const char *names, size_t size, size_t count) {
    uint8_t packet[FILTERS_A_PACKET * (TOPIC_BYTES + 3) + 8], answer[FILTERS_A_PACKET + 8];
    size_t length = 2 + count * (3 + size), at = 0;
    packet[at++] = 0x82;
    for (size_t left = length; left; left >>= 7)
        packet[at++] = (uint8_t)((left & 0x7F) | (left > 0x7F ? 0x80 : 0));
    packet[at++] = 0;
    packet[at++] = 1;
    for (size_t i = 0; i < count; i++) {
        packet[at++] = 0;
        packet[at++] = (uint8_t)size;
        memcpy(packet + at, names + i * TOPIC_BYTES, size);
        at += size;
        packet[at++] = (uint8_t)options.qos;
    }
    send_all(c, packet, at);
    receive_all(c, answer, 4 + count);
    if (answer[0] != 0x90)
        fail("subscriber %u got a packet of type %u instead of a SUBACK", c->number, answer[0] >> 4);
    for (size_t i = 0; i < count; i++)
        if (answer[4 + i] != options.qos)
            fail("subscriber %u asked for QoS %u and was granted %u", c->number, options.qos, answer[4 + i]);
}

void subscribe(struct connection *c) {
    char names[FILTERS_A_PACKET][TOPIC_BYTES];
    size_t size = 0, count = 0;
    if (options.filters) {
        uint32_t each = options.filters / options.subscribers;
        for (uint32_t i = 0; i < each; i++) {
            size = filter_name(c->number * each + i, names[count++]);
            if (count == FILTERS_A_PACKET) {
                request(c, names[0], size, count);
                count = 0;
            }
        }
        if (count == 0)
            return;
    } else {
        bool all = options.publishers != options.subscribers && options.publishers > 1;
        uint32_t topic = options.publishers == options.subscribers ? c->number : 0;
        size = (size_t)(all ? snprintf(names[0], TOPIC_BYTES, "%s/+", options.name)
                            : snprintf(names[0], TOPIC_BYTES, "%s/%u", options.name, topic));
        count = 1;
    }
    request(c, names[0], size, count);
}
