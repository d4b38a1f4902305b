/* What a function asks of the core: publish, invoke, shadows, secrets. Each is one frame and, mostly, one answer. */
#include <stdlib.h>
#include <string.h>

#include "channel.h"
#include "greengrasssdk.h"
#include "request.h"
#include "runtime.h"
#include "text.h"

enum { EVENT, REQUEST_RESPONSE };

struct _gg_publish_options {
    gg_queue_full_policy_options policy;
};

/* What the core's text says when a queue was full; no other reason for a refusal holds these words. */
static const char QUEUE_FULL[] = "a queue is full";

static bool is_queue_full(const struct call *call)
{
    return call->answer && memmem(call->answer, call->answer_size, QUEUE_FULL, sizeof QUEUE_FULL - 1);
}

/*
 * The status of an answer. The shadow and the secrets answer a failure with a document: the two keys that only such
 * a document has are given (null: none).
 */
static gg_request_status status_of(const struct call *call, const char *code_key, const char *message_key)
{
    bool is_failure = false;

    switch (call->status) {
    case ANSWER_OK:
        if (code_key)
            json_object(call->answer, call->answer_size, code_key, message_key, &is_failure);
        return is_failure ? GG_REQUEST_HANDLED : GG_REQUEST_SUCCESS;
    case ANSWER_HANDLED:
        return GG_REQUEST_HANDLED;
    case ANSWER_UNHANDLED:
        return GG_REQUEST_UNHANDLED;
    default:
        return GG_REQUEST_UNKNOWN;
    }
}

/* Send the call and give the request its answer. The request is acquired already. */
static gg_error ask(gg_request ggreq, struct call *call)
{
    if (!channel_fits(call))
        return GGE_INVALID_PARAMETER;
    channel_call(call);
    request_set_answer(ggreq, call->answer, call->lost ? 0 : call->answer_size);
    return call->lost ? GGE_OUT_OF_MEMORY : GGE_SUCCESS;
}

/* The error of a text that was made from the program's strings. */
static gg_error made(const struct text *text, bool valid)
{
    return !valid ? GGE_INVALID_PARAMETER : text->failed ? GGE_OUT_OF_MEMORY : GGE_SUCCESS;
}

/* --- publish -------------------------------------------------------------------------------------------------- */

gg_error gg_publish(gg_request ggreq, const char *topic, const void *payload, size_t payload_size,
                    gg_request_result *result)
{
    return gg_publish_with_options(ggreq, topic, payload, payload_size, NULL, result);
}

static gg_error publish(gg_request ggreq, struct call *call, bool all_or_error, gg_request_result *result)
{
    gg_error error = GGE_SUCCESS;

    if (!channel_fits(call))
        return GGE_INVALID_PARAMETER;
    if (all_or_error) {
        error = ask(ggreq, call);
        result->request_status = status_of(call, NULL, NULL);
        if (call->status == ANSWER_REFUSED && is_queue_full(call))
            result->request_status = GG_REQUEST_AGAIN;
    } else {
        channel_send(call);
        request_set_answer(ggreq, NULL, 0);
        result->request_status = GG_REQUEST_SUCCESS;
    }
    return error;
}

gg_error gg_publish_with_options(gg_request ggreq, const char *topic, const void *payload, size_t payload_size,
                                 const gg_publish_options opts, gg_request_result *result)
{
    struct text context = {0};
    bool all_or_error = opts && opts->policy == GG_QUEUE_FULL_POLICY_ALL_OR_ERROR;

    if (!topic || !*topic || (!payload && payload_size) || !result)
        return GGE_INVALID_PARAMETER;
    gg_error error = request_acquire(ggreq);
    if (error != GGE_SUCCESS)
        return error;
    text_add_plain(&context, "{\"custom\":{\"source\":");
    text_add_json(&context, names.function);
    text_add_plain(&context, ",\"subject\":");
    bool valid = text_add_json(&context, topic);
    text_add_plain(&context, ",\"queueFullPolicy\":");
    text_add_json(&context, all_or_error ? "AllOrError" : opts ? "BestEffort" : "");
    text_add_plain(&context, "}}");
    error = made(&context, valid);
    if (error == GGE_SUCCESS) {
        struct call call = {.arn = names.router, .kind = EVENT, .context = context.data, .context_size = context.size,
                            .payload = payload, .payload_size = payload_size};
        error = publish(ggreq, &call, all_or_error, result);
    }
    text_free(&context);
    request_release(ggreq);
    return error;
}

gg_error gg_publish_options_init(gg_publish_options *opts)
{
    if (!opts)
        return GGE_INVALID_PARAMETER;
    struct _gg_publish_options *made_options = calloc(1, sizeof *made_options);
    if (!made_options)
        return GGE_OUT_OF_MEMORY;
    made_options->policy = GG_QUEUE_FULL_POLICY_BEST_EFFORT;
    *opts = made_options;
    return GGE_SUCCESS;
}

gg_error gg_publish_options_free(gg_publish_options opts)
{
    if (!opts)
        return GGE_INVALID_PARAMETER;
    free(opts);
    return GGE_SUCCESS;
}

gg_error gg_publish_options_set_queue_full_policy(gg_publish_options opts, gg_queue_full_policy_options policy)
{
    if (!opts || (policy != GG_QUEUE_FULL_POLICY_BEST_EFFORT && policy != GG_QUEUE_FULL_POLICY_ALL_OR_ERROR))
        return GGE_INVALID_PARAMETER;
    opts->policy = policy;
    return GGE_SUCCESS;
}

/* --- invoke --------------------------------------------------------------------------------------------------- */

/* The version inside an ARN (arn:aws:lambda:REGION:ACCOUNT:function:NAME:VERSION), null when there is none. */
static const char *version_in(const char *arn)
{
    for (int colons = 0; colons < 7; colons++) {
        arn = strchr(arn, ':');
        if (!arn)
            return NULL;
        arn++;
    }
    return arn;
}

static gg_error add_target(struct text *target, const gg_invoke_options *opts)
{
    const char *version = version_in(opts->function_arn);
    bool qualified = opts->qualifier && *opts->qualifier;

    if (version && qualified && strcmp(version, opts->qualifier) != 0)
        return GGE_INVALID_PARAMETER;
    text_add_plain(target, opts->function_arn);
    if (!version && qualified) {
        text_add_plain(target, ":");
        text_add_plain(target, opts->qualifier);
    }
    text_add(target, "", 1);
    return made(target, true);
}

/* base64 of a JSON object → the object; the caller frees `*context`. */
static gg_error decode_context(const char *encoded, uint8_t **context, size_t *size)
{
    size_t encoded_size = encoded ? strlen(encoded) : 0;
    bool ignored;

    *context = NULL;
    *size = 0;
    if (!encoded_size)
        return GGE_SUCCESS;
    if (encoded_size / 4 * 3 > CONTEXT_BYTES_MAX + 2)
        return GGE_INVALID_PARAMETER;
    *context = malloc(encoded_size / 4 * 3 + 1);
    if (!*context)
        return GGE_OUT_OF_MEMORY;
    if (!base64_decode(encoded, encoded_size, *context, size) || !json_object(*context, *size, NULL, NULL, &ignored)) {
        free(*context);
        *context = NULL;
        return GGE_INVALID_PARAMETER;
    }
    return GGE_SUCCESS;
}

gg_error gg_invoke(gg_request ggreq, const gg_invoke_options *opts, gg_request_result *result)
{
    struct text target = {0};
    uint8_t *context;
    size_t context_size;

    if (!opts || !result || !opts->function_arn || !*opts->function_arn || (!opts->payload && opts->payload_size) ||
        (opts->type != GG_INVOKE_EVENT && opts->type != GG_INVOKE_REQUEST_RESPONSE))
        return GGE_INVALID_PARAMETER;
    gg_error error = request_acquire(ggreq);
    if (error != GGE_SUCCESS)
        return error;
    error = decode_context(opts->customer_context, &context, &context_size);
    if (error == GGE_SUCCESS)
        error = add_target(&target, opts);
    if (error == GGE_SUCCESS) {
        struct call call = {.arn = target.data, .kind = opts->type == GG_INVOKE_EVENT ? EVENT : REQUEST_RESPONSE,
                            .context = context, .context_size = context_size,
                            .payload = opts->payload, .payload_size = opts->payload_size};
        error = ask(ggreq, &call);
        if (error == GGE_SUCCESS)
            result->request_status = status_of(&call, NULL, NULL);
    }
    text_free(&target);
    free(context);
    request_release(ggreq);
    return error;
}

/* --- shadows and secrets ---------------------------------------------------------------------------------------- */

static gg_error ask_shadow(gg_request ggreq, const char *thing_name, const char *operation, const char *payload,
                           gg_request_result *result)
{
    struct text topic = {0}, context = {0};

    if (!thing_name || !*thing_name || !payload || !result)
        return GGE_INVALID_PARAMETER;
    gg_error error = request_acquire(ggreq);
    if (error != GGE_SUCCESS)
        return error;
    text_add_plain(&topic, "$aws/things/");
    text_add_plain(&topic, thing_name);
    text_add_plain(&topic, "/shadow/");
    text_add_plain(&topic, operation);
    text_add(&topic, "", 1);
    text_add_plain(&context, "{\"custom\":{\"subject\":");
    bool valid = topic.failed || text_add_json(&context, topic.data);
    text_add_plain(&context, "}}");
    error = topic.failed ? GGE_OUT_OF_MEMORY : made(&context, valid);
    if (error == GGE_SUCCESS) {
        struct call call = {.arn = names.shadow, .kind = REQUEST_RESPONSE, .context = context.data,
                            .context_size = context.size, .payload = payload, .payload_size = strlen(payload)};
        error = ask(ggreq, &call);
        if (error == GGE_SUCCESS)
            result->request_status = status_of(&call, "code", "message");
    }
    text_free(&topic);
    text_free(&context);
    request_release(ggreq);
    return error;
}

gg_error gg_get_thing_shadow(gg_request ggreq, const char *thing_name, gg_request_result *result)
{
    return ask_shadow(ggreq, thing_name, "get", "", result);
}

gg_error gg_update_thing_shadow(gg_request ggreq, const char *thing_name, const char *update_payload,
                                gg_request_result *result)
{
    return ask_shadow(ggreq, thing_name, "update", update_payload, result);
}

gg_error gg_delete_thing_shadow(gg_request ggreq, const char *thing_name, gg_request_result *result)
{
    return ask_shadow(ggreq, thing_name, "delete", "", result);
}

static bool add_member(struct text *document, const char *key, const char *value)
{
    if (!value)
        return true;
    text_add_plain(document, document->size > 1 ? "," : "");
    text_add_json(document, key);
    text_add_plain(document, ":");
    return text_add_json(document, value);
}

gg_error gg_get_secret_value(gg_request ggreq, const char *secret_id, const char *version_id,
                             const char *version_stage, gg_request_result *result)
{
    struct text document = {0};

    if (!secret_id || !*secret_id || !result)
        return GGE_INVALID_PARAMETER;
    gg_error error = request_acquire(ggreq);
    if (error != GGE_SUCCESS)
        return error;
    text_add_plain(&document, "{");
    bool valid = add_member(&document, "SecretId", secret_id);
    valid &= add_member(&document, "VersionId", version_id);
    valid &= add_member(&document, "VersionStage", version_stage);
    text_add_plain(&document, "}");
    error = made(&document, valid);
    if (error == GGE_SUCCESS) {
        struct call call = {.arn = names.secrets, .kind = REQUEST_RESPONSE, .payload = document.data,
                            .payload_size = document.size};
        error = ask(ggreq, &call);
        if (error == GGE_SUCCESS)
            result->request_status = status_of(&call, "Status", "Message");
    }
    text_free(&document);
    request_release(ggreq);
    return error;
}
