/* What the library knows about its process. */
#ifndef GG_RUNTIME_H
#define GG_RUNTIME_H

#include <stdbool.h>

/* The environment's words that requests need; constant once runtime_ready answers true. */
struct names {
    char *function;
    char *router;
    char *shadow;
    char *secrets;
};

extern struct names names;

/* Whether gg_global_init has succeeded in this very process: a forked child shares the parent's socket. */
bool runtime_ready(void);

#endif
