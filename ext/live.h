/* Counts the blocks a module's own malloc and free have under way; force-included into debug builds alone.
 *
 * Each module has its counter, and a block that one module takes and another gives back leaves both wrong by
 * one, in opposite directions: only the sum over all modules (ggfast._ext.live) means something.
 */
#ifndef GGFAST_LIVE_H
#define GGFAST_LIVE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1 /* as Python.h would, which comes later */
#endif
#include <stdlib.h>
#include <string.h>

__attribute__((weak, visibility("default"))) long ggfast_live_blocks = 0;

static inline void *ggfast_counted(void *block)
{
    if (block != NULL)
        __atomic_add_fetch(&ggfast_live_blocks, 1, __ATOMIC_RELAXED);
    return block;
}

static inline void *ggfast_malloc(size_t count)
{
    return ggfast_counted(malloc(count));
}

static inline void *ggfast_calloc(size_t members, size_t size)
{
    return ggfast_counted(calloc(members, size));
}

static inline void *ggfast_realloc(void *block, size_t count)
{
    return block == NULL ? ggfast_counted(malloc(count)) : realloc(block, count);
}

static inline void ggfast_free(void *block)
{
    if (block != NULL)
        __atomic_sub_fetch(&ggfast_live_blocks, 1, __ATOMIC_RELAXED);
    free(block);
}

#define malloc ggfast_malloc
#define calloc ggfast_calloc
#define realloc ggfast_realloc
#define free ggfast_free

#endif
