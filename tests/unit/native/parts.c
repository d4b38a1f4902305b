/*
 * The library's parts that touch bytes from elsewhere, without their sockets.
 *
 *   parts json        texts on stdin (u32 length + bytes each) → a line each: "object" or "other", and whether it has
 *                     both "code" and "message"
 *   parts base64      words on stdin, a line each → hexadecimal or "invalid"
 *   parts chunks N    N random streams: however they are cut, the same frames come out
 *   parts random N    N random and damaged streams and texts: nothing is read that is not there
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "incoming.h"
#include "text.h"

static uint64_t seed = 88172645463325252u;
static uint64_t seen;

static uint32_t chance(uint32_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 20) % below;
}

static void remember(const void *data, size_t size)
{
    const uint8_t *at = data;
    for (size_t i = 0; i < size; i++)
        seen = (seen ^ at[i]) * 1099511628211u;
}

static const char *deliver(struct frame *frame)
{
    remember(&frame->kind, 1);
    remember(&frame->number, 4);
    remember(&frame->status, 1);
    remember(&frame->context_size, 2);
    remember(&frame->payload_size, sizeof frame->payload_size);
    if (frame->memory)
        remember(frame->memory, frame->context_size + frame->payload_size + (frame->kind == FRAME_WORK));
    free(frame->memory);
    return NULL;
}

static size_t make_stream(uint8_t *to)
{
    size_t size = 0;
    for (uint32_t frames = 1 + chance(6); frames; frames--) {
        uint8_t kind = (uint8_t) "WAX"[chance(3)];
        size_t head = kind == 'W' ? 11 : kind == 'A' ? 10 : 5;
        size_t body = kind == 'X' ? 0 : chance(2) ? chance(20) : chance(3000);
        put_u32(to + size, (uint32_t)(head - 4 + body));
        to[size + 4] = kind;
        for (size_t i = 5; i < head + body; i++)
            to[size + i] = (uint8_t)chance(256);
        if (kind == 'A')
            to[size + 9] &= 3;
        if (kind == 'W') {
            uint32_t context = chance((uint32_t)body + 1);
            to[size + 9] = (uint8_t)context;
            to[size + 10] = (uint8_t)(context >> 8);
        }
        size += head + body;
    }
    return size;
}

/* Give the stream in pieces of up to `most` bytes, each in memory of exactly its size. */
static uint64_t play(const uint8_t *stream, size_t size, uint32_t most, const char **problem)
{
    struct incoming in = {0};
    seen = 14695981039346656037u;
    *problem = NULL;
    for (size_t at = 0; at < size && !*problem;) {
        size_t part = 1 + chance(most);
        if (part > size - at)
            part = size - at;
        uint8_t *piece = malloc(part);
        if (!piece)
            abort();
        memcpy(piece, stream + at, part);
        *problem = incoming_take(&in, piece, part, deliver);
        free(piece);
        at += part;
    }
    incoming_reset(&in);
    return seen;
}

static int chunks(long count)
{
    static uint8_t stream[32768];
    const uint32_t cuts[] = {1, 2, 7, 100, 4000};
    for (long i = 0; i < count; i++) {
        const char *problem;
        size_t size = make_stream(stream);
        uint64_t whole = play(stream, size, 1u << 30, &problem);
        for (size_t j = 0; j < sizeof cuts / sizeof *cuts; j++)
            if (problem || play(stream, size, cuts[j], &problem) != whole) {
                printf("stream %ld, pieces of up to %u: %s\n", i, cuts[j], problem ? problem : "other frames");
                return 1;
            }
    }
    return 0;
}

static int random_bytes(long count)
{
    static uint8_t stream[32768];
    long refused = 0;
    for (long i = 0; i < count; i++) {
        const char *problem;
        bool both;
        size_t made;
        size_t size = make_stream(stream);
        for (uint32_t damage = chance(8); damage; damage--)
            stream[chance((uint32_t)size)] = chance(2) ? (uint8_t)chance(256) : (uint8_t) "{}[]\":,\\u0e-"[chance(12)];
        play(stream, size, 1 + chance(5000), &problem);
        refused += problem != NULL;
        size = chance(64);
        uint8_t *text = malloc(size + 1), *out = malloc(size + 1);
        if (!text || !out)
            abort();
        for (size_t j = 0; j < size; j++)
            text[j] = chance(3) ? (uint8_t) "{}[]\":,\\u0e-tf A=/"[chance(18)] : (uint8_t)chance(256);
        uint8_t *exact = realloc(text, size ? size : 1);
        json_object(exact, size, "code", "message", &both);
        base64_decode((const char *)exact, size, out, &made);
        free(exact);
        free(out);
    }
    printf("%ld\n", refused);
    return 0;
}

static int json_texts(void)
{
    uint8_t head[4];
    while (fread(head, 1, 4, stdin) == 4) {
        size_t size = get_u32(head);
        uint8_t *text = malloc(size ? size : 1);
        bool both;
        if (!text || fread(text, 1, size, stdin) != size)
            abort();
        bool object = json_object(text, size, "code", "message", &both);
        printf("%s %d\n", object ? "object" : "other", object && both);
        free(text);
    }
    return 0;
}

static int base64_words(void)
{
    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        uint8_t out[256];
        size_t made;
        line[strcspn(line, "\n")] = 0;
        if (!base64_decode(line, strlen(line), out, &made)) {
            puts("invalid");
            continue;
        }
        for (size_t i = 0; i < made; i++)
            printf("%02x", out[i]);
        puts("");
    }
    return 0;
}

int main(int count, char **words)
{
    if (count > 2 && !strcmp(words[1], "chunks"))
        return chunks(atol(words[2]));
    if (count > 2 && !strcmp(words[1], "random"))
        return random_bytes(atol(words[2]));
    return count > 1 && !strcmp(words[1], "json") ? json_texts() : base64_words();
}
