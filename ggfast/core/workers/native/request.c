/*
 * The life of a gg_request:   init ─► OPEN ─call─► ANSWERED ─read…─► ANSWERED     close from either
 *                                      ▲─────────reuse────┘  ─call─► ANSWERED
 *
 * All open requests are in one list, so that a handle that was closed, or never was one, is recognised.
 */
#include "request.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "runtime.h"

struct _gg_request {
    struct _gg_request *next;
    bool busy; /* a thread is in a function with it */
    bool answered;
    uint8_t *answer;
    size_t size;
    size_t read;
};

static pthread_mutex_t listing = PTHREAD_MUTEX_INITIALIZER;
static struct _gg_request *requests;

/* The link that leads to `ggreq`, null when it is not open. Called with the lock held. */
static struct _gg_request **find(gg_request ggreq)
{
    for (struct _gg_request **at = &requests; *at; at = &(*at)->next)
        if (*at == ggreq)
            return at;
    return NULL;
}

gg_error request_acquire(gg_request ggreq)
{
    gg_error error = GGE_INVALID_STATE;

    if (!ggreq)
        return GGE_INVALID_PARAMETER;
    if (!runtime_ready())
        return GGE_INVALID_STATE;
    pthread_mutex_lock(&listing);
    if (find(ggreq) && !ggreq->busy) {
        ggreq->busy = true;
        error = GGE_SUCCESS;
    }
    pthread_mutex_unlock(&listing);
    return error;
}

void request_release(gg_request ggreq)
{
    pthread_mutex_lock(&listing);
    ggreq->busy = false;
    pthread_mutex_unlock(&listing);
}

void request_set_answer(gg_request ggreq, uint8_t *answer, size_t size)
{
    free(ggreq->answer);
    ggreq->answer = answer;
    ggreq->size = size;
    ggreq->read = 0;
    ggreq->answered = true;
}

gg_error gg_request_init(gg_request *ggreq)
{
    if (!ggreq)
        return GGE_INVALID_PARAMETER;
    if (!runtime_ready())
        return GGE_INVALID_STATE;
    struct _gg_request *made = calloc(1, sizeof *made);
    if (!made)
        return GGE_OUT_OF_MEMORY;
    pthread_mutex_lock(&listing);
    made->next = requests;
    requests = made;
    pthread_mutex_unlock(&listing);
    *ggreq = made;
    return GGE_SUCCESS;
}

gg_error gg_request_reuse(gg_request ggreq)
{
    gg_error error = request_acquire(ggreq);

    if (error != GGE_SUCCESS)
        return error;
    request_set_answer(ggreq, NULL, 0);
    ggreq->answered = false;
    request_release(ggreq);
    return GGE_SUCCESS;
}

gg_error gg_request_close(gg_request ggreq)
{
    gg_error error = request_acquire(ggreq);

    if (error != GGE_SUCCESS)
        return error;
    pthread_mutex_lock(&listing);
    *find(ggreq) = ggreq->next;
    pthread_mutex_unlock(&listing);
    free(ggreq->answer);
    free(ggreq);
    return GGE_SUCCESS;
}

gg_error gg_request_read(gg_request ggreq, void *buffer, size_t buffer_size, size_t *amount_read)
{
    if (!buffer || !amount_read)
        return GGE_INVALID_PARAMETER;
    gg_error error = request_acquire(ggreq);
    if (error != GGE_SUCCESS)
        return error;
    if (!ggreq->answered) {
        error = GGE_INVALID_STATE;
    } else {
        size_t left = ggreq->size - ggreq->read;
        size_t part = left < buffer_size ? left : buffer_size;
        if (part)
            memcpy(buffer, ggreq->answer + ggreq->read, part);
        ggreq->read += part;
        *amount_read = part;
    }
    request_release(ggreq);
    return error;
}
