/* Bytes from the core become frames: any chunking gives the same frames. Knows no socket and no lock. */
#ifndef GG_INCOMING_H
#define GG_INCOMING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FRAME_BYTES_MAX = 1024 * 1024, /* of type and body, both directions; the core ends a worker that sends more */
    FRAME_WORK = 'W',
    FRAME_ANSWER = 'A',
    FRAME_END = 'X',
};

/* A whole frame. For work: context, NUL, payload lie in `memory` in this order; for an answer: the payload. */
struct frame {
    uint8_t kind;
    uint8_t status;         /* answer */
    uint32_t number;        /* invocation or call */
    uint16_t context_size;  /* work */
    size_t payload_size;
    uint8_t *memory;        /* the receiver's, to be freed; null when empty or lost */
    bool lost;              /* there was no memory for the body */
};

struct incoming {
    uint8_t head[11];       /* length, type and the fixed part of the body */
    size_t have;            /* bytes of it */
    size_t body;            /* bytes behind it, and how many of them are here */
    size_t filled;
    bool in_body;
    struct frame frame;
};

/*
 * Take bytes; `deliver` gets every frame they complete. Returns null, or why these bytes are not the core's: nothing
 * may be taken after that. `deliver` may answer such a reason as well.
 */
const char *incoming_take(struct incoming *in, const uint8_t *data, size_t size,
                          const char *(*deliver)(struct frame *frame));

/* Forget an incomplete frame. */
void incoming_reset(struct incoming *in);

uint32_t get_u32(const uint8_t *from);
void put_u32(uint8_t *to, uint32_t value);

#endif
