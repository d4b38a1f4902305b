/*
 * The program's end of its socket to the core (fd 3): frames out, frames in, from any thread.
 *
 * There is no reader thread: whichever thread waits for something reads for all of them, and the others sleep until
 * what they wait for is there or the reading is theirs. An idle function so needs one thread and no hand-over between
 * two, and a function whose every thread computes leaves its input in the socket, where the core's bounds hold it.
 *
 * When the core's daemon has been replaced, a single byte with a descriptor arrives: the new socket. Input that was
 * incomplete, work that had not begun and calls without an answer belonged to the old daemon and are given up; a
 * frame whose sending failed is sent again on the new socket.
 *
 * Locks: `sending` (one frame at a time) before `state` (everything else), never after it.
 */
#ifndef GG_CHANNEL_H
#define GG_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CHANNEL_FD = 3,
    CONTEXT_BYTES_MAX = 65535, /* its length field */
    RESULT_BYTES_MAX = 1024 * 1024 - 5,
    CALLS_MAX = 64, /* the core refuses further ones; threads beyond that wait for their turn */
};

enum answer_status { ANSWER_OK, ANSWER_HANDLED, ANSWER_UNHANDLED, ANSWER_REFUSED };

/* One invocation to run; `context` ends with a NUL. `memory` holds both and is the taker's. */
struct work {
    uint32_t epoch;
    uint32_t invocation;
    uint8_t *memory;
    const char *context;
    const uint8_t *payload;
    size_t payload_size;
    bool lost; /* there was no memory for it */
};

/* A request to the core and, after channel_call, its answer. `answer` is the caller's. */
struct call {
    const char *arn;
    uint8_t kind; /* 0 Event, 1 RequestResponse */
    const void *context;
    size_t context_size;
    const void *payload;
    size_t payload_size;

    enum answer_status status;
    uint8_t *answer;
    size_t answer_size;
    bool lost; /* there was no memory for the answer */

    uint32_t number; /* from here on: the channel's */
    bool answered;
    struct call *next;
};

/* Set up the descriptor. Returns null or why the channel can not be used. Once, before all else. */
const char *channel_open(void);

/* Whether the call's frame is within the core's bounds. */
bool channel_fits(const struct call *call);

/* Send a call that gets no answer. Blocks only while the socket is full. */
void channel_send(const struct call *call);

/* Send a call and wait for its answer. */
void channel_call(struct call *call);

/* Say that the function is ready (once for each daemon) and wait for work; false: please end. */
bool channel_next_work(struct work *work);

/* Send a result or an error document; dropped when the daemon that asked for it is gone. */
void channel_result(const struct work *work, const void *result, size_t size);
void channel_error(const struct work *work, const void *document, size_t size);

/* Ask for the end as the core's own request would: may be called in a signal handler. */
void channel_ask_to_end(void);

#endif
