#include "incoming.h"

#include <stdlib.h>
#include <string.h>

uint32_t get_u32(const uint8_t *from)
{
    return from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

void put_u32(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

void incoming_reset(struct incoming *in)
{
    free(in->frame.memory);
    memset(in, 0, sizeof *in);
}

/* Bytes before the variable part of a frame, as far as they tell; 0 for a type that the core does not send us. */
static size_t head_size(const struct incoming *in)
{
    if (in->have < 5)
        return 5;
    switch (in->head[4]) {
    case FRAME_WORK:
        return 11;
    case FRAME_ANSWER:
        return 10;
    case FRAME_END:
        return 5;
    default:
        return 0;
    }
}

/* Look at the length and the type, before anything is allocated for them. */
static const char *check_start(const struct incoming *in)
{
    uint32_t length = get_u32(in->head);
    size_t head = head_size(in);

    if (!head)
        return "a frame of a type that is not sent to a program";
    if (length > FRAME_BYTES_MAX)
        return "a frame of more than 1 MiB";
    if (length + 4 < head)
        return "a frame that is too short for its type";
    if (in->head[4] == FRAME_END && length != 1)
        return "a request to end that is longer than its type";
    return NULL;
}

static const char *begin_body(struct incoming *in)
{
    struct frame *frame = &in->frame;

    memset(frame, 0, sizeof *frame);
    frame->kind = in->head[4];
    in->body = get_u32(in->head) + 4 - in->have;
    in->filled = 0;
    in->in_body = true;
    frame->payload_size = in->body;
    if (frame->kind == FRAME_END)
        return NULL;
    frame->number = get_u32(in->head + 5);
    if (frame->kind == FRAME_ANSWER) {
        frame->status = in->head[9];
        if (frame->status > 3)
            return "an answer of an unknown status";
    } else {
        frame->context_size = (uint16_t)(in->head[9] | in->head[10] << 8);
        if (frame->context_size > in->body)
            return "work whose client context is longer than its frame";
        frame->payload_size = in->body - frame->context_size;
    }
    if (in->body || frame->kind == FRAME_WORK) {
        frame->memory = malloc(in->body + 1);
        frame->lost = !frame->memory;
    }
    return NULL;
}

/* The context's NUL goes between it and the payload. */
static void separate(struct frame *frame)
{
    uint8_t *payload = frame->memory + frame->context_size;
    memmove(payload + 1, payload, frame->payload_size);
    *payload = 0;
}

static const char *complete(struct incoming *in, const char *(*deliver)(struct frame *frame))
{
    struct frame frame = in->frame;

    if (frame.kind == FRAME_WORK && frame.memory)
        separate(&frame);
    memset(in, 0, sizeof *in);
    return deliver(&frame);
}

const char *incoming_take(struct incoming *in, const uint8_t *data, size_t size,
                          const char *(*deliver)(struct frame *frame))
{
    const char *problem = NULL;

    while (!problem && (size || (in->in_body && in->filled == in->body))) {
        if (!in->in_body) {
            in->head[in->have++] = *data++;
            size--;
            if (in->have == 5)
                problem = check_start(in);
            if (!problem && in->have == head_size(in) && in->have >= 5)
                problem = begin_body(in);
        } else if (in->filled < in->body) {
            size_t part = in->body - in->filled < size ? in->body - in->filled : size;
            if (in->frame.memory)
                memcpy(in->frame.memory + in->filled, data, part);
            in->filled += part;
            data += part;
            size -= part;
        } else {
            problem = complete(in, deliver);
        }
    }
    return problem;
}
