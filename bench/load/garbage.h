/* What an attacker sends: garbage.c plays it, scripts.c writes it. */
#ifndef BENCH_GARBAGE_H
#define BENCH_GARBAGE_H

#include "load.h"

#include <string.h>

enum { SCRIPT_BYTES = 8192 };

struct script {
    uint8_t bytes[SCRIPT_BYTES];
    size_t size, step;  /* step: most in one write */
    size_t repeat_from; /* endless: after the last byte go on from here */
    bool endless;
    uint32_t pause_ms, stay_ms; /* between writes; until the attacker leaves by itself */
};

uint64_t sequence_of(uint32_t seed, uint32_t number); /* an attacker's own, so that timing does not change it */
void draw_from(uint64_t *sequence);
uint32_t draw(uint32_t below); /* the sequence's next number, 0 to below - 1 */
void write_script(struct script *s);

#endif
