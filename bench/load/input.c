/* Messages and acknowledgements that come in. */
#include "load.h"

#include <errno.h>
#include <string.h>

static void answer(struct connection *c, uint8_t type, uint16_t id) {
    uint8_t *place = reserve(c, 4);
    place[0] = type;
    place[1] = 2;
    place[2] = (uint8_t)(id >> 8);
    place[3] = (uint8_t)id;
}

static void take_message(struct connection *c, uint8_t flags, const uint8_t *body, size_t size, uint64_t now) {
    unsigned qos = (flags >> 1) & 3;
    size_t topic = size < 2 ? size : (size_t)body[0] << 8 | body[1];
    size_t at = 2 + topic + (qos ? 2 : 0);
    if (at + options.size != size || qos != options.qos)
        fail("subscriber %u got a PUBLISH of %zu bytes with QoS %u, expected %u bytes after the topic with QoS %u",
             c->number, size, qos, options.size, options.qos);
    uint32_t from;
    uint64_t sequence, time;
    memcpy(&from, body + at, 4);
    memcpy(&sequence, body + at + 8, 8);
    memcpy(&time, body + at + 16, 8);
    if (from >= options.publishers || (options.publishers == options.subscribers && from != c->number))
        fail("subscriber %u got a message of publisher %u, which it has not subscribed to", c->number, from);
    uint64_t *expected = &due[(size_t)c->number * options.publishers + from];
    if (sequence < *expected) {
        tally.old++;
    } else {
        tally.gaps += sequence - *expected;
        *expected = sequence + 1;
        tally.received++;
        latency_record(now > time ? now - time : 0);
        publishers[from].delivered++;
        mark(&publishers[from]);
    }
    if (qos)
        answer(c, qos == 1 ? 0x40 : 0x50, (uint16_t)(body[at - 2] << 8 | body[at - 1]));
}

static void take_answer(struct connection *c, uint8_t type, const uint8_t *body, size_t size) {
    uint16_t id = size >= 2 ? (uint16_t)(body[0] << 8 | body[1]) : 0;
    if (type == 0x60 && !c->publishes) { /* PUBREL */
        answer(c, 0x70, id);
    } else if (type == 0x70 && c->publishes) { /* PUBCOMP */
        c->complete++;
        mark(c);
    } else if ((type == 0x40 || type == 0x50) && c->publishes) { /* PUBACK, PUBREC */
        if (id != id_of(c->answered))
            fail("publisher %u got the acknowledgement of packet %u where %u was next", c->number, id,
                 id_of(c->answered));
        c->answered++;
        if (type == 0x50)
            answer(c, 0x62, id);
        else
            c->complete++;
        mark(c);
    } else {
        fail("%s %u got an unexpected packet of type %u", kind(c), c->number, type >> 4);
    }
}

/* Take all whole packets; returns the bytes used up. */
static size_t take_packets(struct connection *c, const uint8_t *data, size_t size, uint64_t now) {
    size_t at = 0;
    while (size - at >= 2) {
        size_t length = 0, head = 1;
        for (unsigned shift = 0;; shift += 7) {
            if (at + head >= size)
                return at;
            uint8_t byte = data[at + head++];
            length |= (size_t)(byte & 0x7F) << shift;
            if (byte < 0x80)
                break;
            if (shift == 21)
                fail("%s %u got a packet length of more than four bytes", kind(c), c->number);
        }
        if (length > options.size + ROUTE_BYTES)
            fail("%s %u got a packet of %zu bytes, which nobody sent", kind(c), c->number, length);
        if (size - at < head + length)
            return at;
        const uint8_t *body = data + at + head;
        if ((data[at] & 0xF0) == 0x30)
            take_message(c, data[at] & 0x0F, body, length, now);
        else
            take_answer(c, data[at] & 0xF0, body, length);
        at += head + length;
    }
    return at;
}

static bool take_one_read(struct connection *c) {
    if (c->rest_size)
        memcpy(scratch, c->rest, c->rest_size);
    ssize_t got = receive_some(c, scratch + c->rest_size, SCRATCH - c->rest_size);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (got < 0)
        fail("the connection of %s %u broke: %s", kind(c), c->number, strerror(errno));
    if (got == 0)
        fail("the broker closed the connection of %s %u", kind(c), c->number);
    tally.last_progress = now_ns(CLOCK_MONOTONIC);
    size_t size = c->rest_size + (size_t)got;
    size_t used = take_packets(c, scratch, size, tally.last_progress);
    c->rest_size = size - used;
    if (c->rest_size)
        memcpy(c->rest, scratch + used, c->rest_size);
    return true;
}

void take_input(struct connection *c) {
    while (take_one_read(c) && c->tls && tls_holds_data(c))
        ; /* epoll knows nothing of what is inside OpenSSL */
    if (c->out_end)
        flush(c);
}
