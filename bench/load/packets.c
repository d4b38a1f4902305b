/* The messages of a running load. */
#include "load.h"

#include <stdio.h>
#include <string.h>

enum {
    BATCH = 256 * 1024, /* most that one publisher puts into one write */
    SCATTER = 7919,     /* a prime: neighbours in time are no neighbours among the topics */
};

static void put_number(uint8_t *place, size_t number) {
    place[0] = (uint8_t)(number >> 8);
    place[1] = (uint8_t)number;
}

/* Write a PUBLISH up to its payload (packet id 1); returns where the payload begins. */
size_t put_publish(uint8_t *packet, uint8_t flags, const char *topic, size_t topic_size, size_t payload_size) {
    bool id = flags & 6;
    size_t at = 0;
    packet[at++] = (uint8_t)(0x30 | flags);
    for (size_t left = 2 + topic_size + (id ? 2 : 0) + payload_size; left; left >>= 7)
        packet[at++] = (uint8_t)((left & 0x7F) | (left > 0x7F ? 0x80 : 0));
    put_number(packet + at, topic_size);
    memcpy(packet + at + 2, topic, topic_size);
    at += 2 + topic_size;
    if (id)
        put_number(packet + at, 1);
    return at + (id ? 2 : 0);
}

/* With filters: their names and subscribers in the order in which messages go to them, scattered over all. */
static struct target {
    char name[TOPIC_BYTES];
    uint32_t subscriber;
} *targets;

static void prepare_targets(void) {
    targets = allocate(options.topics, sizeof *targets);
    for (uint64_t i = 0; i < options.topics; i++) {
        uint32_t filter = (uint32_t)(i * SCATTER % options.topics * options.filters / options.topics);
        filter_name(filter, targets[i].name);
        targets[i].subscriber = filter / (options.filters / options.subscribers);
    }
}

void prepare_packet(struct connection *c) {
    char topic[TOPIC_BYTES];
    size_t text = options.filters ? filter_name(0, topic) : (size_t)snprintf(topic, sizeof topic, "%s/%u", options.name, c->number);
    c->packet = allocate(options.size + ROUTE_BYTES, 1);
    c->head_at = put_publish(c->packet, (uint8_t)(options.qos << 1), topic, text, options.size);
    c->id_at = c->head_at - 2;
    c->topic_at = c->head_at - (options.qos ? 2 : 0) - text;
    memcpy(c->packet + c->head_at, &c->number, 4);
    memset(c->packet + c->head_at + HEAD, 'x', options.size - HEAD);
    c->packet_size = c->head_at + options.size;
    c->topic_size = text;
    if (options.filters) {
        c->sequences = allocate(options.subscribers, sizeof *c->sequences);
        prepare_targets();
    }
}

/* Write the next topic; returns the number for its subscriber. */
static uint64_t next_topic(struct connection *c, uint8_t *place) {
    const struct target *to = &targets[c->sent % options.topics];
    memcpy(place + c->topic_at, to->name, c->topic_size);
    return c->sequences[to->subscriber]++;
}

uint16_t id_of(uint64_t sequence) { return (uint16_t)(sequence % 65535 + 1); }

void append_message(struct connection *c, uint64_t now) {
    uint8_t *place = reserve(c, c->packet_size);
    memcpy(place, c->packet, c->packet_size);
    uint64_t sequence = options.filters ? next_topic(c, place) : c->sent;
    if (options.qos > 0)
        put_number(place + c->id_at, id_of(c->sent));
    memcpy(place + c->head_at + 8, &sequence, 8);
    memcpy(place + c->head_at + 16, &now, 8);
    c->sent++;
}

/* Fill the window of a publisher; a message is under way until every subscriber has it and the broker's last
 * acknowledgement is there. */
void pump(struct connection *c) {
    uint64_t done = c->delivered / fan;
    if (options.qos > 0 && c->complete < done)
        done = c->complete;
    uint64_t now = now_ns(CLOCK_MONOTONIC);
    uint64_t last = options.messages ? options.messages / options.publishers : UINT64_MAX;
    while ((options.flood || c->sent - done < options.window) && c->sent < last && c->out_end - c->out_start < BATCH)
        append_message(c, now);
    flush(c);
}

void mark(struct connection *publisher) {
    if (!publisher->marked) {
        publisher->marked = true;
        ready[ready_count++] = publisher;
    }
}

