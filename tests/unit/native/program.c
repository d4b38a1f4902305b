/*
 * A function that does what its payload says, field by field (separated by 0x1f), and reports what it saw:
 * the error codes and statuses it got, then what it read. With FAILING its allocations fail when it asks for that.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "greengrasssdk.h"

enum { FIELDS_MAX = 8, ROOM = 1100000 };

static char input[ROOM + 1], output[ROOM + 1];
static size_t input_size;
static char *fields[FIELDS_MAX];
static int field_count;

#ifdef FAILING
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
static _Thread_local int countdown = -1;

static int fails(void) { return countdown >= 0 && countdown-- == 0; }
void *malloc(size_t size) { return fails() ? NULL : __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return fails() ? NULL : __libc_calloc(count, size); }
void *realloc(void *old, size_t size) { return fails() ? NULL : __libc_realloc(old, size); }
#endif

static char *field(int index) { return index < field_count && strcmp(fields[index], "-") ? fields[index] : NULL; }

/* The last field may hold anything, separators and zeroes too: everything behind the first `count` separators. */
static char *rest(int count, size_t *size)
{
    char *at = input;
    for (; count; count--)
        at = (char *)memchr(at, 0x1f, input_size - (size_t)(at - input)) + 1;
    *size = input_size - (size_t)(at - input);
    return at;
}

static void report_request(gg_request request, int error, int status)
{
    int head = sprintf(output, "%d %d ", error, status);
    size_t got, size = (size_t)head;
    if (!error)
        while (!gg_request_read(request, output + size, ROOM - size < 1000 ? ROOM - size : 1000, &got) && got)
            size += got;
    gg_lambda_handler_write_response(output, size);
}

static int one_publish(gg_request request, const char *policy, const char *topic, const void *payload, size_t size,
                       gg_request_result *result)
{
    gg_publish_options options = NULL;
    if (!strcmp(policy, "none"))
        return gg_publish(request, topic, payload, size, result);
    int error = gg_publish_options_init(&options);
    if (!error)
        error = gg_publish_options_set_queue_full_policy(options, (gg_queue_full_policy_options)atoi(policy));
    if (!error)
        error = gg_publish_with_options(request, topic, payload, size, options, result);
    if (options)
        gg_publish_options_free(options);
    return error;
}

static int one_invoke(gg_request request, const char *payload, size_t size, gg_request_result *result)
{
    gg_invoke_options options = {field(1), field(3), field(2), (gg_invoke_type)atoi(fields[4]), payload, size};
    return gg_invoke(request, &options, result);
}

/* What a command asks of the core; -1 when it is another kind of command. */
static int request_command(gg_request request, gg_request_result *result)
{
    const char *command = fields[0];
    size_t size;
    if (!strcmp(command, "publish")) {
        char *payload = rest(3, &size);
        char *topic = strndup(fields[2], strlen(fields[2]));
        int error = topic ? one_publish(request, fields[1], topic, payload, size, result) : 1;
        free(topic);
        return error;
    }
    if (!strcmp(command, "invoke")) {
        char *payload = rest(5, &size);
        return one_invoke(request, payload, size, result);
    }
    if (!strcmp(command, "get"))
        return gg_get_thing_shadow(request, field(1), result);
    if (!strcmp(command, "update"))
        return gg_update_thing_shadow(request, field(1), field(2), result);
    if (!strcmp(command, "delete"))
        return gg_delete_thing_shadow(request, field(1), result);
    if (!strcmp(command, "secret"))
        return gg_get_secret_value(request, field(1), field(2), field(3), result);
    return -1;
}

static void wrong_orders(void)
{
    gg_request request = NULL, other = NULL;
    gg_request_result result;
    char buffer[8];
    size_t got;
    int size = 0;
#define TRY(call) size += sprintf(output + size, "%d ", (int)(call))
    TRY(gg_request_init(NULL));                             /* 2 */
    TRY(gg_request_close(NULL));                            /* 2 */
    TRY(gg_request_init(&request));                         /* 0 */
    TRY(gg_request_read(request, buffer, 8, &got));         /* 3: nothing was asked */
    TRY(gg_request_read(request, NULL, 8, &got));           /* 2 */
    TRY(gg_request_read(request, buffer, 8, NULL));         /* 2 */
    TRY(gg_publish(request, "a", "b", 1, &result));         /* 0 */
    TRY(gg_request_read(request, buffer, 8, &got));         /* 0 */
    TRY(got);                                               /* 0 */
    TRY(gg_request_reuse(request));                         /* 0 */
    TRY(gg_request_read(request, buffer, 8, &got));         /* 3 */
    TRY(gg_request_init(&other));                           /* 0 */
    TRY(gg_request_close(request));                         /* 0 */
    TRY(gg_request_close(request));                         /* 3 */
    TRY(gg_publish(request, "a", "b", 1, &result));         /* 3 */
    TRY(gg_request_reuse(request));                         /* 3 */
    TRY(gg_publish(other, NULL, "b", 1, &result));          /* 2 */
    TRY(gg_publish(other, "", "b", 1, &result));            /* 2 */
    TRY(gg_publish(other, "a", NULL, 1, &result));          /* 2 */
    TRY(gg_publish(other, "a", "b", 1, NULL));              /* 2 */
    TRY(gg_publish(other, "\xff", "b", 1, &result));        /* 2 */
    TRY(gg_publish(NULL, "a", "b", 1, &result));            /* 2 */
    TRY(gg_invoke(other, NULL, &result));                   /* 2 */
    TRY(gg_get_thing_shadow(other, NULL, &result));         /* 2 */
    TRY(gg_update_thing_shadow(other, "t", NULL, &result)); /* 2 */
    TRY(gg_get_secret_value(other, NULL, "", "", &result)); /* 2 */
    TRY(gg_request_close(other));                           /* 0 */
    TRY(gg_publish_options_init(NULL));                     /* 2 */
    TRY(gg_publish_options_free(NULL));                     /* 2 */
    TRY(gg_global_init(0));                                 /* 0: nothing changes */
    TRY(gg_global_init(1));                                 /* 2 */
    TRY(gg_runtime_start(NULL, 0));                         /* 2 */
    TRY(gg_runtime_start((gg_lambda_handler)1, 2));         /* 2 */
    TRY(gg_runtime_start((gg_lambda_handler)1, 0));         /* 3 */
    TRY(gg_log(GG_LOG_INFO, NULL));                         /* 2 */
    TRY(gg_log((gg_log_level)6, "x"));                      /* 2 */
    TRY(gg_lambda_handler_read(NULL, 1, &got));             /* 2 */
    TRY(gg_lambda_handler_write_response(NULL, 1));         /* 2 */
    TRY(gg_lambda_handler_write_response("", 1048572));     /* 2 */
    TRY(gg_lambda_handler_write_error(NULL));               /* 2 */
    TRY(gg_lambda_handler_write_response(output, size));    /* 0 */
    TRY(gg_lambda_handler_write_response(output, size));    /* 3 */
    TRY(gg_lambda_handler_write_error("late"));             /* 3 */
#undef TRY
    gg_log(GG_LOG_INFO, "%s", output);
}

static void *outside(void *codes)
{
    size_t got;
    char buffer[4];
    sprintf((char *)codes, "%d %d %d", gg_lambda_handler_read(buffer, 4, &got),
            gg_lambda_handler_write_response("x", 1), gg_lambda_handler_write_error("x"));
    return NULL;
}

static void *invoke_often(void *about)
{
    long number = (long)about, wrong = 0, rounds = atol(fields[2]);
    for (long i = 0; i < rounds; i++) {
        gg_request request;
        gg_request_result result = {GG_REQUEST_UNKNOWN};
        char text[64], answer[64];
        size_t got = 0;
        int size = sprintf(text, "%ld/%ld", number, i);
        gg_invoke_options options = {"arn:f", NULL, NULL, GG_INVOKE_REQUEST_RESPONSE, text, (size_t)size};
        wrong += gg_request_init(&request) != GGE_SUCCESS;
        wrong += gg_invoke(request, &options, &result) != GGE_SUCCESS || result.request_status != GG_REQUEST_SUCCESS;
        gg_request_read(request, answer, sizeof answer, &got);
        wrong += got != (size_t)size + 1 || answer[0] != '=' || memcmp(answer + 1, text, (size_t)size);
        wrong += gg_publish(request, "t", text, (size_t)size, &result) != GGE_SUCCESS;
        gg_log(GG_LOG_INFO, "%s", text);
        wrong += gg_request_close(request) != GGE_SUCCESS;
    }
    return (void *)wrong;
}

static void many_threads(void)
{
    pthread_t threads[128];
    long wrong = 0, count = atol(fields[1]);
    for (long i = 0; i < count; i++)
        wrong += pthread_create(&threads[i], NULL, invoke_often, (void *)i) != 0;
    for (long i = 0; i < count; i++) {
        void *one;
        pthread_join(threads[i], &one);
        wrong += (long)one;
    }
    gg_lambda_handler_write_response(output, (size_t)sprintf(output, "%ld", wrong));
}

static void invoke_plainly(gg_request request, const char *payload)
{
    gg_request_result result;
    gg_invoke_options options = {"arn:f", NULL, NULL, GG_INVOKE_REQUEST_RESPONSE, payload, strlen(payload)};
    gg_invoke(request, &options, &result);
}

static void *invoke_beside(void *request)
{
    invoke_plainly((gg_request)request, "theirs");
    return NULL;
}

/* Try to use a request that another thread waits with. */
static void busy_request(void)
{
    gg_request request, other;
    gg_request_result result;
    pthread_t thread;
    size_t got;
    char codes[64], byte;
    gg_request_init(&request);
    gg_request_init(&other);
    pthread_create(&thread, NULL, invoke_beside, request);
    invoke_plainly(other, "mine"); /* answered when both have been sent */
    int size = sprintf(codes, "%d %d %d %d", gg_request_read(request, &byte, 1, &got), gg_request_reuse(request),
                       gg_request_close(request), gg_publish(request, "t", "", 0, &result));
    gg_publish(other, "codes", codes, (size_t)size, &result);
    pthread_join(thread, NULL);
    size = sprintf(codes, "%d ", gg_request_read(request, &byte, 1, &got)); /* arguments have no order */
    size += sprintf(codes + size, "%d %d", gg_request_close(request), gg_request_close(other));
    gg_lambda_handler_write_response(codes, (size_t)size);
}

static void in_a_child(void)
{
    gg_request request;
    int status;
    pid_t child = fork();
    if (!child)
        _exit(10 * gg_request_init(&request) + gg_global_init(0));
    waitpid(child, &status, 0);
    gg_lambda_handler_write_response(output, (size_t)sprintf(output, "%d", WEXITSTATUS(status)));
}

#ifdef FAILING
/* Let the first, second, … allocation of the rest of the payload fail until all went well. */
static void starve(void)
{
    gg_request request;
    gg_request_result result;
    int attempt, error = 1;
    memmove(fields, fields + 1, sizeof fields - sizeof *fields);
    field_count--;
    for (attempt = 0; error == 1 && attempt < 50; attempt++) {
        countdown = attempt;
        error = gg_request_init(&request);
        if (!error) {
            error = request_command(request, &result);
            countdown = -1;
            gg_request_close(request);
        }
    }
    countdown = 0;
    int refused = gg_lambda_handler_write_response(output, 100);
    countdown = 0;
    int refused_error = gg_lambda_handler_write_error("text");
    countdown = -1;
    gg_lambda_handler_write_response(output, (size_t)sprintf(output, "%d %d %d %d", attempt > 2, error, refused,
                                                             refused_error));
}
#endif

static void simple_command(const gg_lambda_context *context)
{
    const char *command = fields[0];
    size_t size;
    if (!strcmp(command, "echo")) {
        char *payload = rest(1, &size);
        gg_lambda_handler_write_response(payload, size);
    } else if (!strcmp(command, "error")) {
        gg_lambda_handler_write_error(fields[1]);
    } else if (!strcmp(command, "context")) {
        int made = sprintf(output, "%s %s", context->function_arn, context->client_context);
        gg_lambda_handler_write_response(output, (size_t)made);
    } else if (!strcmp(command, "log")) {
        int error = gg_log((gg_log_level)atoi(fields[1]), "%s", fields[2]);
        gg_lambda_handler_write_response(output, (size_t)sprintf(output, "%d", error));
    } else if (!strcmp(command, "print")) {
        printf("%s\n", fields[1]);
    } else if (!strcmp(command, "getenv")) {
        const char *value = getenv(fields[1]);
        gg_lambda_handler_write_response(value ? value : "", value ? strlen(value) : 0);
    } else if (!strcmp(command, "wrong")) {
        wrong_orders();
    } else if (!strcmp(command, "outside")) {
        pthread_t thread;
        pthread_create(&thread, NULL, outside, output);
        pthread_join(thread, NULL);
        gg_lambda_handler_write_response(output, strlen(output));
    } else if (!strcmp(command, "threads")) {
        many_threads();
    } else if (!strcmp(command, "busy")) {
        busy_request();
    } else if (!strcmp(command, "fork")) {
        in_a_child();
    } else if (!strcmp(command, "terminate")) {
        raise(SIGTERM);
        gg_lambda_handler_write_response("still here", 10);
    }
#ifdef FAILING
    if (!strcmp(command, "starve"))
        starve();
    if (!strcmp(command, "starve-next"))
        countdown = 0; /* the answer to this invocation allocates nothing: the next one's input is the first */
#endif
}

static void handler(const gg_lambda_context *context)
{
    static char copy[ROOM + 1];
    size_t got;
    input_size = 0;
    while (!gg_lambda_handler_read(input + input_size, ROOM - input_size < 4000 ? ROOM - input_size : 4000, &got) &&
           got)
        input_size += got;
    memcpy(copy, input, input_size);
    copy[input_size] = 0;
    field_count = 0;
    for (char *at = copy; at && field_count < FIELDS_MAX; field_count++) {
        fields[field_count] = at;
        at = strchr(at, 0x1f);
        if (at)
            *at++ = 0;
    }
    gg_request request;
    gg_request_result result = {GG_REQUEST_RESERVED_PAD};
    if (*fields[0] && strchr("pigusd", *fields[0])) {
        gg_request_init(&request);
        int error = request_command(request, &result);
        if (error >= 0)
            report_request(request, error, error ? -1 : (int)result.request_status);
        gg_request_close(request);
        if (error >= 0)
            return;
    }
    simple_command(context);
}

static void at_end(void) { gg_log(GG_LOG_INFO, "the end"); }

int main(int count, char **words)
{
    gg_request request;
    char buffer[4];
    size_t got;
    const char *mode = count > 1 ? words[1] : "";
    atexit(at_end);
    if (!strcmp(mode, "early"))
        gg_log(GG_LOG_INFO, "%d %d %d", gg_request_init(&request), gg_runtime_start(handler, 0),
               gg_lambda_handler_read(buffer, 4, &got));
    if (gg_global_init(0))
        return 7;
    if (!strcmp(mode, "async") || !strcmp(mode, "asking")) {
        gg_invoke_options options = {"arn:f", NULL, NULL, GG_INVOKE_REQUEST_RESPONSE, NULL, 0};
        gg_request_result result;
        if (gg_runtime_start(handler, GG_RT_OPT_ASYNC))
            return 8;
        if (!strcmp(mode, "asking") && (gg_request_init(&request) || gg_invoke(request, &options, &result)))
            return 6;
        for (;;)
            pause();
    }
    gg_runtime_start(handler, 0);
    return 9;
}
