/* The command line. */
#include "load.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

struct options options = {.port = 1883, .publishers = 1, .subscribers = 1, .size = 64, .seconds = 1.0,
                          .warm_up = 0.2, .name = "bench"};

enum { FIRST = 256 };

/* Options that are a whole number, and where each goes. */
static const struct {
    const char *name;
    uint32_t *place;
} numbers[] = {
    {"port", &options.port},         {"publishers", &options.publishers},
    {"qos", &options.qos},           {"subscribers", &options.subscribers},
    {"size", &options.size},         {"window", &options.window},
    {"rate", &options.rate},         {"filters", &options.filters},
    {"topics", &options.topics},     {"idle", &options.idle},
    {"burst", &options.burst},       {"connects", &options.connects},
    {"garbage", &options.garbage},   {"seed", &options.seed},
    {"syscalls-event", &options.syscalls_event},
};
enum { NUMBERS = sizeof numbers / sizeof *numbers };

static void add_process(uint32_t pid) {
    if (options.clock_count == PIDS_MAX)
        fail("found more than %d --cpu-of", PIDS_MAX);
    options.pids[options.clock_count] = (pid_t)pid;
    if (clock_getcpuclockid((pid_t)pid, &options.clocks[options.clock_count++]) != 0)
        fail("no process %u to measure", pid);
}

static void check(void) {
    if (options.publishers < 1 || options.subscribers < 1 || options.qos > 2)
        fail("expected publishers and subscribers of 1 or more, and a QoS of 0, 1 or 2");
    if (options.size < HEAD || options.size > SCRATCH / 2)
        fail("found a payload of %u bytes, expected %d to %d", options.size, HEAD, SCRATCH / 2);
    if (strlen(options.name) > NAME_BYTES)
        fail("found a --name of more than %d bytes", NAME_BYTES);
    if (!options.certificate != !options.key || !options.key != !options.authority)
        fail("expected --cert, --key and --ca together");
    if (options.idle || options.connects || options.garbage)
        return;
    if ((options.window > 0) + (options.rate > 0) + options.flood != 1)
        fail("expected either --window or --rate or --flood");
    if (options.window > 65535 || options.rate > 1000000000)
        fail("expected a window of at most 65535 and a rate of at most 1000000000");
    if (options.messages && (options.rate || options.messages % options.publishers))
        fail("expected --messages with a window, and the same number for each publisher");
    if (options.filters &&
        (options.publishers != 1 || options.filters % options.subscribers || options.filters > 99999 * options.subscribers ||
         options.topics < 1 || options.topics > options.filters))
        fail("expected one publisher, as many filters for each subscriber, and 1 topic to as many as there are filters");
}

void read_options(int count, char **arguments) {
    struct option known[NUMBERS + 11] = {
        {"seconds", 1, 0, 't'}, {"warm-up", 1, 0, 'u'},      {"cpu-of", 1, 0, 'c'},
        {"cert", 1, 0, 'C'},    {"key", 1, 0, 'K'},          {"ca", 1, 0, 'A'},
        {"flood", 0, 0, 'f'},   {"instructions", 0, 0, 'i'}, {"messages", 1, 0, 'm'},
        {"name", 1, 0, 'n'},
    };
    for (int i = 0; i < NUMBERS; i++)
        known[i + 10] = (struct option){numbers[i].name, 1, 0, FIRST + i};
    for (int found; (found = getopt_long(count, arguments, "", known, NULL)) != -1;) {
        if (found >= FIRST) {
            *numbers[found - FIRST].place = (uint32_t)strtoul(optarg, NULL, 10);
            continue;
        }
        switch (found) {
        case 't': options.seconds = atof(optarg); break;
        case 'u': options.warm_up = atof(optarg); break;
        case 'c': add_process((uint32_t)strtoul(optarg, NULL, 10)); break;
        case 'C': options.certificate = optarg; break;
        case 'K': options.key = optarg; break;
        case 'A': options.authority = optarg; break;
        case 'n': options.name = optarg; break;
        case 'f': options.flood = true; break;
        case 'i': options.count_instructions = true; break;
        case 'm': options.messages = strtoull(optarg, NULL, 10); break;
        default: fail("unknown option; expected those of read_options");
        }
    }
    if (optind < count)
        fail("found %s, expected options only", arguments[optind]);
    check();
}
