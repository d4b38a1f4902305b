/* A strict reader of JSON that keeps nothing: it tells whether a text is an object and which keys it has. */
#include <string.h>

#include "text.h"

enum {
    DEPTH_MAX = 128, /* each level costs a frame of a stack that may be a small one of the program's own */
    KEY_ROOM = 16,
};

struct reader {
    const uint8_t *at;
    const uint8_t *end;
    const char *wanted[2];
    bool found[2];
};

static bool value(struct reader *in, int depth);

static void skip_space(struct reader *in)
{
    while (in->at < in->end && (*in->at == ' ' || *in->at == '\t' || *in->at == '\n' || *in->at == '\r'))
        in->at++;
}

static bool take(struct reader *in, char c)
{
    if (in->at == in->end || *in->at != (uint8_t)c)
        return false;
    in->at++;
    return true;
}

static bool hex4(struct reader *in, uint32_t *code)
{
    *code = 0;
    for (int i = 0; i < 4; i++) {
        if (in->at == in->end)
            return false;
        uint8_t c = *in->at++;
        uint8_t low = c | 0x20;
        if (c >= '0' && c <= '9')
            *code = *code << 4 | (uint32_t)(c - '0');
        else if (low >= 'a' && low <= 'f')
            *code = *code << 4 | (uint32_t)(low - 'a' + 10);
        else
            return false;
    }
    return true;
}

/* The character behind a backslash; what is not ASCII becomes 0xFF, which no key that is asked for holds. */
static bool escape(struct reader *in, uint8_t *out)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    uint32_t code;

    if (in->at == in->end)
        return false;
    uint8_t c = *in->at++;
    if (c == 'u') {
        if (!hex4(in, &code))
            return false;
        *out = code && code < 0x80 ? (uint8_t)code : 0xFF;
        return true;
    }
    const char *known = c ? strchr(from, c) : NULL;
    if (!known)
        return false;
    *out = (uint8_t)to[known - from];
    return true;
}

/* A string; its beginning goes to `key` (KEY_ROOM bytes) unless that is null. A longer one is no key we look for. */
static bool string(struct reader *in, char *key)
{
    size_t size = 0;

    if (!take(in, '"'))
        return false;
    while (in->at < in->end) {
        uint8_t c = *in->at;
        if (c < 0x20)
            return false;
        if (c == '"') {
            in->at++;
            if (key)
                key[size < KEY_ROOM ? size : 0] = 0;
            return true;
        }
        if (c == '\\') {
            in->at++;
            if (!escape(in, &c))
                return false;
        } else {
            size_t length = utf8_length(in->at, (size_t)(in->end - in->at));
            if (!length)
                return false;
            in->at += length;
        }
        if (key && size < KEY_ROOM)
            key[size++] = (char)c;
    }
    return false;
}

static bool digits(struct reader *in)
{
    const uint8_t *from = in->at;
    while (in->at < in->end && *in->at >= '0' && *in->at <= '9')
        in->at++;
    return in->at > from;
}

static bool number(struct reader *in)
{
    take(in, '-');
    if (!take(in, '0') && !digits(in))
        return false;
    if (take(in, '.') && !digits(in))
        return false;
    if (take(in, 'e') || take(in, 'E')) {
        if (!take(in, '+'))
            take(in, '-');
        return digits(in);
    }
    return true;
}

static bool word(struct reader *in, const char *text)
{
    size_t size = strlen(text);
    if ((size_t)(in->end - in->at) < size || memcmp(in->at, text, size))
        return false;
    in->at += size;
    return true;
}

static bool object(struct reader *in, int depth)
{
    char key[KEY_ROOM];

    if (!take(in, '{'))
        return false;
    skip_space(in);
    if (take(in, '}'))
        return true;
    do {
        skip_space(in);
        if (!string(in, key))
            return false;
        for (int i = 0; depth == 0 && i < 2; i++)
            if (in->wanted[i] && !strcmp(key, in->wanted[i]))
                in->found[i] = true;
        skip_space(in);
        if (!take(in, ':') || !value(in, depth + 1))
            return false;
        skip_space(in);
    } while (take(in, ','));
    return take(in, '}');
}

static bool array(struct reader *in, int depth)
{
    if (!take(in, '['))
        return false;
    skip_space(in);
    if (take(in, ']'))
        return true;
    do {
        if (!value(in, depth + 1))
            return false;
        skip_space(in);
    } while (take(in, ','));
    return take(in, ']');
}

static bool value(struct reader *in, int depth)
{
    skip_space(in);
    if (depth > DEPTH_MAX || in->at == in->end)
        return false;
    switch (*in->at) {
    case '{':
        return object(in, depth);
    case '[':
        return array(in, depth);
    case '"':
        return string(in, NULL);
    case 't':
        return word(in, "true");
    case 'f':
        return word(in, "false");
    case 'n':
        return word(in, "null");
    default:
        return number(in);
    }
}

bool json_object(const uint8_t *data, size_t size, const char *one, const char *other, bool *both)
{
    *both = false;
    if (!size)
        return false;
    struct reader in = {data, data + size, {one, other}, {false, false}};
    skip_space(&in);
    if (!object(&in, 0))
        return false;
    skip_space(&in);
    *both = in.found[0] && in.found[1];
    return in.at == in.end;
}
