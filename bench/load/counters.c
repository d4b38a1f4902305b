/* What the broker has used: CPU time, and system calls and instructions where the kernel counts them for us. */
#include "load.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { THREADS_MAX = 1024 };

struct counter {
    const char *name, *what;
    int events[THREADS_MAX];
    size_t count;
    uint64_t start, total;
};

static struct counter calls = {.name = "system_calls", .what = "system calls"};
static struct counter instructions = {.name = "instructions", .what = "instructions"};

uint64_t broker_cpu_ns(void) {
    uint64_t sum = 0;
    for (size_t i = 0; i < options.clock_count; i++)
        sum += now_ns(options.clocks[i]);
    return sum;
}

static void count_thread(struct counter *counter, uint32_t type, uint64_t event, pid_t thread) {
    struct perf_event_attr wanted = {.size = sizeof wanted, .type = type, .config = event, .inherit = 1};
    wanted.exclude_kernel = type == PERF_TYPE_HARDWARE;
    if (counter->count == THREADS_MAX)
        fail("the broker has more than %d threads", THREADS_MAX);
    long opened = syscall(SYS_perf_event_open, &wanted, thread, -1, -1, PERF_FLAG_FD_CLOEXEC);
    if (opened < 0)
        fail("%s cannot be counted: %s", counter->what, strerror(errno));
    counter->events[counter->count++] = (int)opened;
}

static void count_broker(struct counter *counter, uint32_t type, uint64_t event) {
    for (size_t i = 0; i < options.clock_count; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/task", (int)options.pids[i]);
        DIR *threads = opendir(path);
        if (threads == NULL)
            fail("no process %d to count", (int)options.pids[i]);
        for (struct dirent *entry; (entry = readdir(threads)) != NULL;)
            if (entry->d_name[0] != '.')
                count_thread(counter, type, event, (pid_t)strtol(entry->d_name, NULL, 10));
        closedir(threads);
    }
}

static uint64_t value(const struct counter *counter) {
    uint64_t sum = 0, one;
    for (size_t i = 0; i < counter->count; i++) {
        if (read(counter->events[i], &one, sizeof one) != sizeof one)
            fail("%s cannot be read: %s", counter->what, strerror(errno));
        sum += one;
    }
    return sum;
}

void counters_open(void) {
    if (options.syscalls_event)
        count_broker(&calls, PERF_TYPE_TRACEPOINT, options.syscalls_event);
    if (options.count_instructions)
        count_broker(&instructions, PERF_TYPE_HARDWARE, PERF_COUNT_HW_INSTRUCTIONS);
}

void counters_start(void) {
    calls.start = value(&calls);
    instructions.start = value(&instructions);
}

void counters_stop(void) {
    calls.total = value(&calls) - calls.start;
    instructions.total = value(&instructions) - instructions.start;
}

void counters_print(void) {
    if (calls.count)
        printf(", \"%s\": %" PRIu64, calls.name, calls.total);
    if (instructions.count)
        printf(", \"%s\": %" PRIu64, instructions.name, instructions.total);
}
