/* JSON and base64, as little of them as the library needs. Nothing here knows of sockets, locks or threads. */
#ifndef GG_TEXT_H
#define GG_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A growing text. `failed` stays set once memory was short; what is added afterwards is dropped. Starts as zeroes. */
struct text {
    char *data;
    size_t size;
    size_t room;
    bool failed;
};

void text_add(struct text *text, const char *data, size_t size);
void text_add_plain(struct text *text, const char *string);

/*
 * Add `string` as a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD.
 * Returns false when there were such bytes.
 */
bool text_add_json(struct text *text, const char *string);
void text_free(struct text *text);

/* Bytes that the UTF-8 character at `data` takes, 0 when it is not one. `size` is at least 1. */
size_t utf8_length(const uint8_t *data, size_t size);

/*
 * Whether `data` is one JSON object and nothing else. `*both` tells whether it has the keys `one` and `other` on its
 * top level, however they are escaped; keys of more than 15 characters can not be asked for.
 */
bool json_object(const uint8_t *data, size_t size, const char *one, const char *other, bool *both);

/* Decode padded base64 without white space into `out` (room for 3/4 of `size`). False when it is anything else. */
bool base64_decode(const char *data, size_t size, uint8_t *out, size_t *out_size);

#endif
