/*
 * What a function written in C or C++ may call: the interface of libaws-greengrass-core-sdk-c.so.
 *
 * Order of use: gg_global_init(0), then anything else, then gg_runtime_start. All functions may be called from any
 * thread unless they say otherwise; one gg_request serves one thread at a time. A function that answers
 * GGE_INVALID_STATE or GGE_INVALID_PARAMETER has done nothing.
 */
#ifndef GREENGRASSSDK_H
#define GREENGRASSSDK_H

#include <stdint.h>
#include <stdlib.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifdef __GNUC__
#pragma GCC visibility push(default)
#endif

/* Whether a call of this interface worked. Every enumeration here is 32 bits wide. */
typedef enum gg_error {
    GGE_SUCCESS = 0,
    GGE_OUT_OF_MEMORY = 1,
    GGE_INVALID_PARAMETER = 2,
    GGE_INVALID_STATE = 3,    /* called in the wrong order, or by the wrong thread */
    GGE_INTERNAL_FAILURE = 4, /* the machine refused: no socket, no thread */
    GGE_TERMINATE = 5,        /* never answered: the library ends the process itself */
    GGE_RESERVED_PAD = 0x7FFFFFFF
} gg_error;

/* What the core made of a request that was sent. */
typedef enum gg_request_status {
    GG_REQUEST_SUCCESS = 0,
    GG_REQUEST_HANDLED = 1,   /* the other function, the shadow or the secret answered with an error document */
    GG_REQUEST_UNHANDLED = 2, /* the other function crashed or took too long */
    GG_REQUEST_UNKNOWN = 3,   /* the core refused: gg_request_read gives its reason as text */
    GG_REQUEST_AGAIN = 4,     /* a queue is full and the policy is all or error */
    GG_REQUEST_RESERVED_PAD = 0x7FFFFFFF
} gg_request_status;

typedef struct gg_request_result {
    gg_request_status request_status;
} gg_request_result;

typedef struct _gg_request *gg_request;

/* Both texts belong to the library and are gone when the handler returns. */
typedef struct gg_lambda_context {
    const char *function_arn;
    const char *client_context; /* JSON text; "{}" when the caller sent none */
} gg_lambda_context;

/* Called on the runtime's thread, once for each invocation. */
typedef void (*gg_lambda_handler)(const gg_lambda_context *context);

typedef enum gg_invoke_type {
    GG_INVOKE_EVENT = 0,
    GG_INVOKE_REQUEST_RESPONSE = 1,
    GG_INVOKE_RESERVED_PAD = 0x7FFFFFFF
} gg_invoke_type;

typedef struct gg_invoke_options {
    const char *function_arn;
    const char *customer_context; /* base64 of a JSON object; null or empty: none */
    const char *qualifier;        /* a version, when function_arn names none; may be null */
    gg_invoke_type type;
    const void *payload;
    size_t payload_size;
} gg_invoke_options;

typedef enum gg_runtime_opt {
    GG_RT_OPT_ASYNC = 0x1, /* run handlers on a thread of their own and return */
    GG_RT_OPT_RESERVED_PAD = 0x7FFFFFFF
} gg_runtime_opt;

typedef enum gg_queue_full_policy_options {
    GG_QUEUE_FULL_POLICY_BEST_EFFORT = 0,
    GG_QUEUE_FULL_POLICY_ALL_OR_ERROR = 1,
    GG_QUEUE_FULL_POLICY_RESERVED_PAD = 0x7FFFFFFF
} gg_queue_full_policy_options;

typedef struct _gg_publish_options *gg_publish_options;

typedef enum gg_log_level {
    GG_LOG_DEBUG = 1,
    GG_LOG_INFO = 2,
    GG_LOG_WARN = 3,
    GG_LOG_ERROR = 4,
    GG_LOG_FATAL = 5,
    GG_LOG_RESERVED_PAD = 0x7FFFFFFF
} gg_log_level;

/* --- the process ------------------------------------------------------------------------------------------ */

/* Before anything else; `opt` is 0. A second call changes nothing and succeeds. */
gg_error gg_global_init(uint32_t opt);

/*
 * Take work from the core and call `handler` for each. Blocks for good with `opt` 0; with GG_RT_OPT_ASYNC it returns.
 * SIGTERM is the library's from here on: it ends the process with status 0 after the running handler, by exit().
 */
gg_error gg_runtime_start(gg_lambda_handler handler, uint32_t opt);

/* A record of the function's log, formatted like printf; works before gg_global_init too. */
gg_error gg_log(gg_log_level level, const char *format, ...);

/* --- inside a handler, on its thread ------------------------------------------------------------------------ */

/* The next bytes of the payload; `*amount_read` is 0 when all have been read. */
gg_error gg_lambda_handler_read(void *buffer, size_t buffer_size, size_t *amount_read);

/* Either one response or one error, copied; without any the response is empty. */
gg_error gg_lambda_handler_write_response(const void *response, size_t response_size);
gg_error gg_lambda_handler_write_error(const char *error_message);

/* --- requests to the core ----------------------------------------------------------------------------------- */

gg_error gg_request_init(gg_request *ggreq);

/* Forget the answer, as if the request were new. A new request on an old handle does the same. */
gg_error gg_request_reuse(gg_request ggreq);

gg_error gg_request_close(gg_request ggreq);

/* The next bytes of the answer, whatever its status; `*amount_read` is 0 when all have been read. */
gg_error gg_request_read(gg_request ggreq, void *buffer, size_t buffer_size, size_t *amount_read);

/* Wait for the other function's answer, or for the core's word that it will be called (GG_INVOKE_EVENT). */
gg_error gg_invoke(gg_request ggreq, const gg_invoke_options *opts, gg_request_result *result);

/* gg_publish_with_options without options: best effort, does not wait. */
gg_error gg_publish(gg_request ggreq, const char *topic, const void *payload, size_t payload_size,
                    gg_request_result *result);

/* `opts` may be null. With GG_QUEUE_FULL_POLICY_ALL_OR_ERROR it waits for the core's word. */
gg_error gg_publish_with_options(gg_request ggreq, const char *topic, const void *payload, size_t payload_size,
                                 const gg_publish_options opts, gg_request_result *result);
gg_error gg_publish_options_init(gg_publish_options *opts);
gg_error gg_publish_options_free(gg_publish_options opts);
gg_error gg_publish_options_set_queue_full_policy(gg_publish_options opts, gg_queue_full_policy_options policy);

gg_error gg_get_thing_shadow(gg_request ggreq, const char *thing_name, gg_request_result *result);
gg_error gg_update_thing_shadow(gg_request ggreq, const char *thing_name, const char *update_payload,
                                gg_request_result *result);
gg_error gg_delete_thing_shadow(gg_request ggreq, const char *thing_name, gg_request_result *result);

/* `version_id` and `version_stage` may be null. */
gg_error gg_get_secret_value(gg_request ggreq, const char *secret_id, const char *version_id,
                             const char *version_stage, gg_request_result *result);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif

#endif
