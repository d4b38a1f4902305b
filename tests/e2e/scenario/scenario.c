/* The scenario in C: does what the message asks and publishes what came of it. Every function is binary here, so the
 * wish is looked for in the text, and anything that is no wish is turned around. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "greengrasssdk.h"

static char topic[256];

static const char *out(const char *name) {
    snprintf(topic, sizeof topic, "%s/%s", getenv("OUT"), name);
    return topic;
}

static void publish(const char *name, const void *payload, size_t size) {
    gg_request request = NULL;
    gg_request_result result;
    if (gg_request_init(&request) != GGE_SUCCESS) exit(10);
    if (gg_publish(request, out(name), payload, size, &result) != GGE_SUCCESS) exit(11);
    if (result.request_status != GG_REQUEST_SUCCESS) exit(12);
    gg_request_close(request);
}

static void say(const char *name, const char *text) { publish(name, text, strlen(text)); }

/* Invokes the callee and publishes {"error": ..., "payload": ...}. */
static void invoke(const char *name, const char *payload, int event) {
    gg_request request = NULL;
    gg_request_result result;
    char body[4096], text[8192];
    size_t size = 0, got = 0;
    gg_invoke_options options;
    memset(&options, 0, sizeof options);
    options.function_arn = getenv("CALLEE");
    options.type = event ? GG_INVOKE_EVENT : GG_INVOKE_REQUEST_RESPONSE;
    options.payload = payload;
    options.payload_size = strlen(payload);
    if (gg_request_init(&request) != GGE_SUCCESS) exit(13);
    if (gg_invoke(request, &options, &result) != GGE_SUCCESS) exit(14);
    while (!event && gg_request_read(request, body + size, sizeof body - 1 - size, &got) == GGE_SUCCESS && got > 0)
        size += got;
    body[size] = 0;
    gg_request_close(request);
    const char *error = result.request_status == GG_REQUEST_HANDLED     ? "Handled"
                        : result.request_status == GG_REQUEST_UNHANDLED ? "Unhandled"
                        : result.request_status == GG_REQUEST_SUCCESS   ? ""
                                                                        : "other";
    snprintf(text, sizeof text, "{\"error\": \"%s\", \"payload\": %s}", error, size ? body : "null");
    say(name, text);
}

static void grow(void) {
    for (;;) {
        char *block = malloc(1 << 20);
        if (block != NULL) memset(block, 1, 1 << 20);
    }
}

static void respond(const char *text) {
    if (gg_lambda_handler_write_response(text, strlen(text)) != GGE_SUCCESS) exit(15);
}

static void turn_around(char *event, size_t size) {
    for (size_t at = 0; at < size / 2; at++) {
        char other = event[at];
        event[at] = event[size - 1 - at];
        event[size - 1 - at] = other;
    }
    publish("bytes", event, size);
    gg_lambda_handler_write_response(event, size);
}

static int wants(const char *event, const char *wish) {
    char text[64];
    snprintf(text, sizeof text, "\"do\": \"%s\"", wish);
    return strstr(event, text) != NULL;
}

static void handler(const gg_lambda_context *context) {
    static char event[1 << 18], text[1 << 12];
    size_t size = 0, got = 0;
    while (gg_lambda_handler_read(event + size, sizeof event - 1 - size, &got) == GGE_SUCCESS && got > 0) size += got;
    event[size] = 0;
    if (wants(event, "echo")) {
        snprintf(text, sizeof text, "{\"context\": %s, \"event\": %s}", context->client_context, event);
        say("echo", text);
    } else if (wants(event, "invoke event")) {
        invoke("event", "{\"n\": 1}", 1);
    } else if (wants(event, "invoke failing")) {
        invoke("failing", "{\"fail\": 1}", 0);
    } else if (wants(event, "invoke")) {
        invoke("invoke", "{\"n\": 20}", 0);
    } else if (wants(event, "raise")) {
        gg_lambda_handler_write_error("raised on purpose");
        return;
    } else if (wants(event, "sleep")) {
        sleep(60);
    } else if (wants(event, "grow")) {
        grow();
    } else {
        turn_around(event, size);
        return;
    }
    snprintf(text, sizeof text, "{\"did\": 1}");
    respond(text);
}

int main(void) {
    if (gg_global_init(0) != GGE_SUCCESS) return 20;
    return gg_runtime_start(handler, 0) == GGE_SUCCESS ? 0 : 21;
}
