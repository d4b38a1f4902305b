/* A histogram of latencies: 64 steps to each power of two, so a step is at most 1.6 % wide. */
#include "load.h"

#include <string.h>

enum { BUCKETS = 64 * 60 };

static uint64_t histogram[BUCKETS], latency_max;

void latency_record(uint64_t ns) {
    if (ns > latency_max)
        latency_max = ns;
    if (ns < 64) {
        histogram[ns]++;
        return;
    }
    unsigned power = 63 - (unsigned)__builtin_clzll(ns);
    histogram[(power - 6) * 64 + (ns >> (power - 6))]++;
}

double latency_percentile_us(double share) {
    uint64_t total = 0, sum = 0;
    for (size_t i = 0; i < BUCKETS; i++)
        total += histogram[i];
    for (size_t i = 0; i < BUCKETS; i++) {
        sum += histogram[i];
        if (histogram[i] && (double)sum >= share * (double)total) {
            size_t power = i < 128 ? 6 : i / 64 + 5;
            uint64_t low = i < 128 ? i : (uint64_t)(i % 64 + 64) << (power - 6);
            double middle = (double)low + (double)((1ull << (power - 6)) - 1) / 2;
            return (middle < (double)latency_max ? middle : (double)latency_max) / 1000.0;
        }
    }
    return 0.0;
}

void latency_reset(void) {
    memset(histogram, 0, sizeof histogram);
    latency_max = 0;
}

double latency_max_us(void) { return (double)latency_max / 1000.0; }
