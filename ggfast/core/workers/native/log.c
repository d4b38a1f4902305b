#include "log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "greengrasssdk.h"

enum {
    RECORD = 0x1e,
    LINE_END = 0x1d,
    SHORT_BYTES = 1024,      /* on the stack: most records need no more */
    TEXT_BYTES_MAX = 65536,  /* the core cuts far below that */
};

static const char LETTERS[] = "?DIWEF";
static pthread_once_t prepared = PTHREAD_ONCE_INIT;
static pthread_mutex_t writing = PTHREAD_MUTEX_INITIALIZER; /* what a pipe can not take at once stays together */
static gg_log_level threshold = GG_LOG_INFO;

static void read_threshold(void)
{
    static const char *const names[] = {"DEBUG", "INFO", "WARN", "ERROR", "FATAL"};
    const char *wanted = getenv("GGFAST_LOG_LEVEL");

    for (int i = 0; wanted && i < 5; i++)
        if (!strcmp(wanted, names[i]))
            threshold = (gg_log_level)(i + 1);
}

void log_prepare(void)
{
    pthread_once(&prepared, read_threshold);
}

void log_reset_lock(void)
{
    pthread_mutex_init(&writing, NULL);
}

static bool write_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t written = write(fd, data, size);
        if (written < 0 && errno == EAGAIN) {
            struct pollfd ready = {.fd = fd, .events = POLLOUT};
            poll(&ready, 1, -1);
        } else if (written < 0 && errno != EINTR) {
            return false;
        } else if (written > 0) {
            data += written;
            size -= (size_t)written;
        }
    }
    return true;
}

/* `line` has two bytes before the text of `size` bytes and one after it. */
static gg_error write_record(gg_log_level level, char *line, size_t size)
{
    if (size && line[2 + size - 1] == '\n')
        size--; /* a habit of printf, not an empty line */
    for (char *at = line + 2; at < line + 2 + size; at++)
        if (*at == '\n')
            *at = LINE_END;
    line[0] = RECORD;
    line[1] = LETTERS[level];
    line[2 + size] = '\n';
    pthread_mutex_lock(&writing);
    bool written = write_all(level >= GG_LOG_ERROR ? STDERR_FILENO : STDOUT_FILENO, line, size + 3);
    pthread_mutex_unlock(&writing);
    return written ? GGE_SUCCESS : GGE_INTERNAL_FAILURE;
}

gg_error gg_log(gg_log_level level, const char *format, ...)
{
    char line[SHORT_BYTES + 3], *longer = NULL;
    va_list arguments;

    if (!format || level < GG_LOG_DEBUG || level > GG_LOG_FATAL)
        return GGE_INVALID_PARAMETER;
    log_prepare();
    if (level < threshold)
        return GGE_SUCCESS;
    va_start(arguments, format);
    int size = vsnprintf(line + 2, SHORT_BYTES + 1, format, arguments);
    va_end(arguments);
    if (size > SHORT_BYTES) {
        size_t room = (size_t)size < TEXT_BYTES_MAX ? (size_t)size : TEXT_BYTES_MAX;
        longer = malloc(room + 3);
        if (!longer)
            return GGE_OUT_OF_MEMORY;
        va_start(arguments, format);
        size = vsnprintf(longer + 2, room + 1, format, arguments);
        va_end(arguments);
        if (size > (int)room)
            size = (int)room;
    }
    gg_error error = GGE_INTERNAL_FAILURE;
    if (size >= 0)
        error = write_record(level, longer ? longer : line, (size_t)size);
    free(longer);
    return error;
}

_Noreturn void log_fatal(const char *text, int number)
{
    char line[512 + 3];
    const char *before = number < 0 ? "the core sent " : "", *after = number > 0 ? ": errno " : "";
    int size = snprintf(line + 2, 513, "libaws-greengrass-core-sdk-c: %s%s%s", before, text, after);

    if (number > 0 && size < 500)
        size += snprintf(line + 2 + size, (size_t)(513 - size), "%d", number);
    line[0] = RECORD;
    line[1] = 'F';
    line[2 + size] = '\n';
    write_all(STDERR_FILENO, line, (size_t)size + 3); /* without the lock: a stuck thread must not keep us */
    _exit(1);
}
