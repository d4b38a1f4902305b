/* Answers every invocation with its own payload and publishes that on echo/answer as well. */
#include <greengrasssdk.h>

enum { PAYLOAD_BYTES_MAX = 128 * 1024 }; /* what the core lets through */

static char payload[PAYLOAD_BYTES_MAX];

static void handler(const gg_lambda_context *context)
{
    gg_request request = NULL;
    gg_request_result result = {GG_REQUEST_UNKNOWN};
    size_t size = 0, got = 0;

    while (size < sizeof payload &&
           gg_lambda_handler_read(payload + size, sizeof payload - size, &got) == GGE_SUCCESS && got > 0)
        size += got;
    gg_log(GG_LOG_INFO, "%u bytes, client context %s", (unsigned)size, context->client_context);

    if (gg_request_init(&request) != GGE_SUCCESS ||
        gg_publish(request, "echo/answer", payload, size, &result) != GGE_SUCCESS ||
        result.request_status != GG_REQUEST_SUCCESS)
        gg_log(GG_LOG_WARN, "the payload could not be published");
    if (request)
        gg_request_close(request);
    gg_lambda_handler_write_response(payload, size);
}

int main(void)
{
    if (gg_global_init(0) != GGE_SUCCESS)
        return 1;
    gg_runtime_start(handler, 0); /* does not return: the library ends the process when the core asks for it */
    return 1;
}
