/* The scripts of the attackers. None sets a retained message or a session that outlives its connection: what a broker
 * rightly keeps would look like what it leaks. */
#include "garbage.h"

#include <stdio.h>

static uint64_t *state;

void draw_from(uint64_t *sequence) { state = sequence; }

uint64_t sequence_of(uint32_t seed, uint32_t number) {
    return (seed * UINT64_C(0x100000001B3) + number) * UINT64_C(0x9E3779B97F4A7C15) + 1;
}

uint32_t draw(uint32_t below) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)((*state >> 32) % below);
}

static void put(struct script *s, const void *bytes, size_t size) {
    memcpy(s->bytes + s->size, bytes, size);
    s->size += size;
}

static void put_random(struct script *s, size_t size) {
    while (size-- && s->size < SCRIPT_BYTES)
        s->bytes[s->size++] = (uint8_t)draw(256);
}

static void put_connect(struct script *s) {
    uint8_t packet[32] = "\x10\0\0\x04MQTT\x04\x02\0\x3c\0";
    int text = snprintf((char *)packet + 14, 18, "junk-%08x", draw(UINT32_MAX));
    packet[1] = (uint8_t)(12 + text);
    packet[13] = (uint8_t)text;
    put(s, packet, 14 + (size_t)text);
}

static void put_session(struct script *s) {
    put_connect(s);
    put(s, "\x82\x0b\0\1\0\6junk/#\1", 13);
    for (uint32_t i = 0, count = 1 + draw(8); i < count; i++) {
        put(s, "\x32\x4a\0\6junk/a\0\1", 12);
        for (int k = 0; k < 64; k++) /* bytes that begin no PUBLISH, should a changed length make them packets */
            s->bytes[s->size++] = (uint8_t)draw(0x30);
    }
}

static void random_bytes(struct script *s) { put_random(s, 1 + draw(4096)); }

static void broken_packet(struct script *s) {
    static const struct {
        const char *bytes;
        size_t size;
    } broken[] = {
        {"\0\0", 2},                               /* packet type 0 */
        {"\x36\7\0\2ab\0\1x", 9},                  /* QoS 3 */
        {"\x80\6\0\1\0\1a\0", 8},                  /* SUBSCRIBE with the flags of nothing */
        {"\x82\2\0\1", 4},                         /* SUBSCRIBE without a filter */
        {"\x82\6\0\1\0\1a\3", 8},                  /* asks for QoS 3 */
        {"\x82\x08\0\1\0\3a#b\0", 10},             /* no such filter */
        {"\x30\5\0\3a\xff\xfe", 7},                /* no UTF-8 */
        {"\x30\5\0\3a\0b", 7},                     /* U+0000 in a topic */
        {"\x30\3\0\1#", 5},                        /* a wildcard in a topic */
        {"\x30\4\x7f\xff"                          /* a topic longer than its packet */
         "ab",
         6},
        {"\x32\5\0\1a\0\0", 7},                    /* packet id 0 */
        {"\x40\2\x12\x34", 4},                     /* answers to what was never sent */
        {"\x62\2\x12\x34", 4},
        {"\x10\x0c\0\4MQTT\4\2\0\0\0\0", 14},      /* a second CONNECT */
        {"\xc0\1x", 3},                            /* PINGREQ with a body */
        {"\x30\xff\xff\xff\xff\xff\1", 7},         /* a length that does not end */
    };
    uint32_t which = draw(sizeof broken / sizeof *broken);
    put_connect(s);
    put(s, broken[which].bytes, broken[which].size);
}

static void huge_length(struct script *s) {
    if (draw(2))
        put_connect(s);
    uint8_t type = (uint8_t)(draw(2) ? 0x10 : 0x30);
    put(s, &type, 1);
    if (draw(2))
        put(s, "\xff\xff\xff\x7f", 4);
    else
        put(s, "\xff\xff\x0f", 3);
    s->repeat_from = s->size;
    put_random(s, 4096);
    s->endless = true;
}

static void half_packet(struct script *s) {
    if (draw(2)) {
        put_connect(s);
        s->size = 1 + draw((uint32_t)s->size - 1);
    } else {
        put_connect(s);
        put(s, "\x30\x80\x40\0\6junk/a", 11);
        put_random(s, draw(2048));
    }
}

static void slow_drip(struct script *s) {
    put_session(s);
    s->step = 1;
    s->pause_ms = 20 + draw(60);
}

/* A good session with some bytes changed, but not those that say what is kept: CONNECT's flags, first bytes. */
static void mutated(struct script *s) {
    put_session(s);
    for (uint32_t i = 0, count = 1 + draw(6); i < count; i++) {
        uint32_t at = 12 + draw((uint32_t)s->size - 12);
        if ((s->bytes[at] & 0xF0) != 0x30)
            s->bytes[at] ^= (uint8_t)(1u << draw(8));
    }
}

void write_script(struct script *s) {
    static void (*const kinds[])(struct script *) = {random_bytes, broken_packet, huge_length,
                                                     half_packet,  slow_drip,     mutated};
    s->size = s->repeat_from = 0;
    s->endless = false;
    s->step = draw(3) ? SCRIPT_BYTES : 1 + draw(64); /* some are cut into small writes */
    s->pause_ms = 1;
    s->stay_ms = 200 + draw(1800);
    kinds[draw(sizeof kinds / sizeof *kinds)](s);
}
