/* A gg_request while a function of the interface uses it. */
#ifndef GG_REQUEST_H
#define GG_REQUEST_H

#include "channel.h"
#include "greengrasssdk.h"

/* Make `ggreq` this thread's until request_release; refuses what is not open or is another thread's. */
gg_error request_acquire(gg_request ggreq);
void request_release(gg_request ggreq);

/* Replace the answer; `answer` is the request's from here on. The request must be acquired. */
void request_set_answer(gg_request ggreq, uint8_t *answer, size_t size);

#endif
