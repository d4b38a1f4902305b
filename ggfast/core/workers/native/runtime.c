#include "runtime.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "channel.h"
#include "greengrasssdk.h"
#include "log.h"
#include "text.h"

enum life { UNUSED, READY, FORKED };

/* The invocation that this thread's handler runs. */
struct invocation {
    const struct work *work;
    size_t read;
    char *answer; /* response or error document */
    size_t answer_size;
    bool answered;
    bool is_error;
};

struct names names;
static _Atomic int life = UNUSED;
static pthread_mutex_t starting = PTHREAD_MUTEX_INITIALIZER;
static bool started;
static gg_lambda_handler handler_of_all;
static _Thread_local struct invocation *current;

bool runtime_ready(void)
{
    return atomic_load(&life) == READY;
}

/* --- the process ------------------------------------------------------------------------------------------ */

static void forked(void)
{
    atomic_store(&life, FORKED);
    log_reset_lock();
}

static char *environment(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return strdup(value && *value ? value : otherwise);
}

static gg_error take_names(void)
{
    struct names taken = {
        environment("MY_FUNCTION_ARN", ""),
        environment("ROUTER_FUNCTION_ARN", "arn:aws:lambda:::function:GGRouter"),
        environment("SHADOW_FUNCTION_ARN", "arn:aws:lambda:::function:GGShadowService"),
        environment("SECRETS_MANAGER_FUNCTION_ARN", "arn:aws:lambda:::function:GGSecretManager:1"),
    };

    if (taken.function && taken.router && taken.shadow && taken.secrets) {
        names = taken;
        return GGE_SUCCESS;
    }
    free(taken.function);
    free(taken.router);
    free(taken.shadow);
    free(taken.secrets);
    return GGE_OUT_OF_MEMORY;
}

/* What only the runtime is told is no business of the function's code. */
static void hide_our_variables(void)
{
    static const char *const ours[] = {"GGFAST_HANDLER",    "GGFAST_TIMEOUT_S", "GGFAST_MEMORY_KB",
                                       "GGFAST_LOG_LEVEL",  "GGFAST_LOG_GROUP", "GGFAST_LOG_STREAM",
                                       "GGFAST_CODE_DIR"};

    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        unsetenv(ours[i]);
}

static gg_error initialise(void)
{
    gg_error error = take_names();

    if (error != GGE_SUCCESS)
        return error;
    const char *problem = channel_open();
    if (problem) {
        gg_log(GG_LOG_FATAL, "libaws-greengrass-core-sdk-c: %s", problem);
        return GGE_INTERNAL_FAILURE;
    }
    if (pthread_atfork(NULL, NULL, forked))
        return GGE_OUT_OF_MEMORY;
    log_prepare();
    hide_our_variables();
    setvbuf(stdout, NULL, _IOLBF, 0); /* it is a pipe to the log: lines are to arrive when they are written */
    atomic_store(&life, READY);
    return GGE_SUCCESS;
}

gg_error gg_global_init(uint32_t opt)
{
    gg_error error = GGE_SUCCESS;

    if (opt)
        return GGE_INVALID_PARAMETER;
    if (atomic_load(&life) == FORKED)
        return GGE_INVALID_STATE;
    pthread_mutex_lock(&starting);
    if (atomic_load(&life) == UNUSED)
        error = initialise();
    pthread_mutex_unlock(&starting);
    return error;
}

/* --- the loop --------------------------------------------------------------------------------------------- */

static void add_error(struct text *document, const char *message)
{
    text_add_plain(document, "{\"errorMessage\":");
    text_add_json(document, message);
    text_add_plain(document, ",\"errorType\":\"Error\",\"stackTrace\":[]}");
}

static void send_error(const struct work *work, const char *text)
{
    static const char last_resort[] = "{\"errorMessage\":\"The function is out of memory\",\"errorType\":\"Error\","
                                      "\"stackTrace\":[]}";
    struct text document = {0};

    add_error(&document, text);
    if (document.failed)
        channel_error(work, last_resort, sizeof last_resort - 1);
    else
        channel_error(work, document.data, document.size);
    text_free(&document);
}

static void handle(const struct work *work)
{
    struct invocation invocation = {.work = work};
    gg_lambda_context context = {names.function, "{}"};

    if (work->lost) {
        send_error(work, "The function had no memory left for its input");
        return;
    }
    if (*work->context)
        context.client_context = work->context;
    current = &invocation;
    handler_of_all(&context);
    current = NULL;
    if (invocation.is_error)
        channel_error(work, invocation.answer, invocation.answer_size);
    else
        channel_result(work, invocation.answer, invocation.answer_size);
    free(invocation.answer);
}

static void *loop(void *unused)
{
    struct work work;

    (void)unused;
    while (channel_next_work(&work)) {
        handle(&work);
        free(work.memory);
    }
    exit(0);
}

static void on_sigterm(int number)
{
    (void)number;
    channel_ask_to_end();
}

static gg_error start_thread(void)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, loop, NULL))
        return GGE_INTERNAL_FAILURE;
    pthread_detach(thread);
    return GGE_SUCCESS;
}

gg_error gg_runtime_start(gg_lambda_handler handler, uint32_t opt)
{
    struct sigaction action = {.sa_handler = on_sigterm, .sa_flags = SA_RESTART}, before;
    gg_error error = GGE_SUCCESS;

    if (!handler || (opt & ~(uint32_t)GG_RT_OPT_ASYNC))
        return GGE_INVALID_PARAMETER;
    if (!runtime_ready())
        return GGE_INVALID_STATE;
    pthread_mutex_lock(&starting);
    bool first = !started;
    if (first) {
        handler_of_all = handler;
        sigaction(SIGTERM, &action, &before);
        if (opt & GG_RT_OPT_ASYNC)
            error = start_thread();
        if (error != GGE_SUCCESS)
            sigaction(SIGTERM, &before, NULL);
        started = error == GGE_SUCCESS;
    }
    pthread_mutex_unlock(&starting);
    if (!first)
        return GGE_INVALID_STATE;
    if (!(opt & GG_RT_OPT_ASYNC))
        loop(NULL);
    return error;
}

/* --- inside a handler --------------------------------------------------------------------------------------- */

gg_error gg_lambda_handler_read(void *buffer, size_t buffer_size, size_t *amount_read)
{
    struct invocation *invocation = current;

    if (!buffer || !amount_read)
        return GGE_INVALID_PARAMETER;
    if (!invocation)
        return GGE_INVALID_STATE;
    size_t left = invocation->work->payload_size - invocation->read;
    size_t part = left < buffer_size ? left : buffer_size;
    memcpy(buffer, invocation->work->payload + invocation->read, part);
    invocation->read += part;
    *amount_read = part;
    return GGE_SUCCESS;
}

gg_error gg_lambda_handler_write_response(const void *response, size_t response_size)
{
    struct invocation *invocation = current;

    if ((!response && response_size) || response_size > RESULT_BYTES_MAX)
        return GGE_INVALID_PARAMETER;
    if (!invocation || invocation->answered)
        return GGE_INVALID_STATE;
    if (response_size) {
        invocation->answer = malloc(response_size);
        if (!invocation->answer)
            return GGE_OUT_OF_MEMORY;
        memcpy(invocation->answer, response, response_size);
    }
    invocation->answer_size = response_size;
    invocation->answered = true;
    return GGE_SUCCESS;
}

gg_error gg_lambda_handler_write_error(const char *error_message)
{
    struct invocation *invocation = current;
    struct text document = {0};

    if (!error_message)
        return GGE_INVALID_PARAMETER;
    if (!invocation || invocation->answered)
        return GGE_INVALID_STATE;
    add_error(&document, error_message);
    if (document.failed || document.size > RESULT_BYTES_MAX) {
        gg_error error = document.failed ? GGE_OUT_OF_MEMORY : GGE_INVALID_PARAMETER;
        text_free(&document);
        return error;
    }
    invocation->answer = document.data;
    invocation->answer_size = document.size;
    invocation->answered = true;
    invocation->is_error = true;
    return GGE_SUCCESS;
}
