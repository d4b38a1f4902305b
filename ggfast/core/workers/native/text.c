#include "text.h"

#include <stdlib.h>
#include <string.h>

void text_add(struct text *text, const char *data, size_t size)
{
    if (text->failed)
        return;
    if (size > text->room - text->size) {
        size_t room = text->room ? text->room : 128;
        while (size > room - text->size) {
            if (room > SIZE_MAX / 2) {
                text->failed = true;
                return;
            }
            room *= 2;
        }
        char *grown = realloc(text->data, room);
        if (!grown) {
            text->failed = true;
            return;
        }
        text->data = grown;
        text->room = room;
    }
    if (size)
        memcpy(text->data + text->size, data, size);
    text->size += size;
}

void text_add_plain(struct text *text, const char *string)
{
    text_add(text, string, strlen(string));
}

bool text_add_json(struct text *text, const char *string)
{
    static const char hex[] = "0123456789abcdef";
    const uint8_t *at = (const uint8_t *)string;
    size_t left = strlen(string);
    bool valid = true;

    text_add(text, "\"", 1);
    while (left) {
        size_t length = utf8_length(at, left);
        if (!length) {
            valid = false;
            length = 1;
            text_add(text, "\xef\xbf\xbd", 3);
        } else if (*at == '"' || *at == '\\') {
            char escaped[2] = {'\\', (char)*at};
            text_add(text, escaped, 2);
        } else if (*at < 0x20) {
            char escaped[6] = {'\\', 'u', '0', '0', hex[*at >> 4], hex[*at & 15]};
            text_add(text, escaped, 6);
        } else {
            text_add(text, (const char *)at, length);
        }
        at += length;
        left -= length;
    }
    text_add(text, "\"", 1);
    return valid;
}

void text_free(struct text *text)
{
    free(text->data);
    memset(text, 0, sizeof *text);
}

size_t utf8_length(const uint8_t *data, size_t size)
{
    uint8_t first = data[0];
    size_t length = first < 0x80 ? 1 : first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;

    if (!length || length > size)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((data[i] & 0xC0) != 0x80)
            return 0;
    if (length == 3 && ((first == 0xE0 && data[1] < 0xA0) || (first == 0xED && data[1] > 0x9F)))
        return 0; /* longer than needed; half of a surrogate pair */
    if (length == 4 && ((first == 0xF0 && data[1] < 0x90) || (first == 0xF4 && data[1] > 0x8F)))
        return 0; /* longer than needed; beyond Unicode */
    return length;
}

static int sextet(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool base64_decode(const char *data, size_t size, uint8_t *out, size_t *out_size)
{
    size_t pad = 0, made = 0;

    if (size % 4)
        return false;
    while (pad < 2 && pad < size && data[size - 1 - pad] == '=')
        pad++;
    for (size_t i = 0; i < size; i += 4) {
        size_t missing = i + 4 == size ? pad : 0;
        uint32_t bits = 0;
        for (size_t j = 0; j < 4; j++) {
            int value = j >= 4 - missing ? 0 : sextet(data[i + j]);
            if (value < 0)
                return false;
            bits = bits << 6 | (uint32_t)value;
        }
        if (bits & (missing == 2 ? 0xFFFFu : missing == 1 ? 0xFFu : 0))
            return false; /* two texts would mean the same bytes */
        for (size_t j = 0; j < 3 - missing; j++)
            out[made++] = (uint8_t)(bits >> (16 - 8 * j));
    }
    *out_size = made;
    return true;
}
