package io.ggfast.runtime;

import java.lang.reflect.Array;
import java.nio.charset.StandardCharsets;
import java.util.Iterator;
import java.util.Map;

/**
 * Writes maps, iterables, arrays, texts, numbers, booleans and enums as JSON. Numbers that JSON does not have
 * (infinities, NaN) are written as texts, as Jackson writes them.
 */
final class JsonWriter {
    private static final int DEPTH_MAX = 128; // a structure that contains itself ends here

    private final StringBuilder text = new StringBuilder(64);

    private JsonWriter() {
    }

    /** The JSON of `value` in UTF-8; null when it contains an object of a class that only a JSON mapper knows. */
    static byte[] bytes(Object value) {
        JsonWriter writer = new JsonWriter();
        return writer.write(value, 0) ? writer.text.toString().getBytes(StandardCharsets.UTF_8) : null;
    }

    private boolean write(Object value, int depth) {
        if (depth > DEPTH_MAX) {
            throw new InvalidPayloadException("the result is nested deeper than " + DEPTH_MAX + " levels");
        }
        if (value == null || value instanceof Boolean) {
            text.append(value);
        } else if (value instanceof CharSequence || value instanceof Character) {
            string(value.toString());
        } else if (value instanceof Enum) {
            string(((Enum<?>) value).name());
        } else if (isPlainNumber(value)) {
            number(value);
        } else if (value instanceof Map) {
            return map((Map<?, ?>) value, depth);
        } else if (value instanceof Iterable && value.getClass().getName().startsWith("java.util.")) {
            return items(((Iterable<?>) value).iterator(), depth);
        } else if (value.getClass().isArray() && !(value instanceof byte[])) {
            return array(value, depth);
        } else {
            return false;
        }
        return true;
    }

    private static boolean isPlainNumber(Object value) {
        return value instanceof Number && value.getClass().getName().startsWith("java.");
    }

    private void number(Object value) {
        boolean finite = !(value instanceof Double || value instanceof Float)
            || !Double.isNaN(((Number) value).doubleValue()) && !Double.isInfinite(((Number) value).doubleValue());
        if (finite) {
            text.append(value);
        } else {
            string(value.toString());
        }
    }

    private boolean map(Map<?, ?> members, int depth) {
        char before = '{';
        for (Map.Entry<?, ?> member : members.entrySet()) {
            text.append(before);
            string(String.valueOf(member.getKey()));
            text.append(':');
            if (!write(member.getValue(), depth + 1)) {
                return false;
            }
            before = ',';
        }
        text.append(before == '{' ? "{}" : "}");
        return true;
    }

    private boolean items(Iterator<?> items, int depth) {
        char before = '[';
        while (items.hasNext()) {
            text.append(before);
            if (!write(items.next(), depth + 1)) {
                return false;
            }
            before = ',';
        }
        text.append(before == '[' ? "[]" : "]");
        return true;
    }

    private boolean array(Object items, int depth) {
        int length = Array.getLength(items);
        text.append('[');
        for (int at = 0; at < length; at++) {
            if (at > 0) {
                text.append(',');
            }
            if (!write(Array.get(items, at), depth + 1)) {
                return false;
            }
        }
        text.append(']');
        return true;
    }

    private void string(String value) {
        text.append('"');
        for (int at = 0; at < value.length(); at++) {
            char character = value.charAt(at);
            if (character == '"' || character == '\\') {
                text.append('\\').append(character);
            } else if (character >= ' ' && !Character.isSurrogate(character)) {
                text.append(character);
            } else if (isPair(value, at)) {
                text.append(character).append(value.charAt(++at));
            } else {
                escape(character);
            }
        }
        text.append('"');
    }

    private static boolean isPair(String value, int at) {
        return Character.isHighSurrogate(value.charAt(at)) && at + 1 < value.length()
            && Character.isLowSurrogate(value.charAt(at + 1));
    }

    private void escape(char character) {
        int which = "\b\t\n\f\r".indexOf(character);
        if (which >= 0) {
            text.append('\\').append("btnfr".charAt(which));
            return;
        }
        text.append("\\u");
        for (int shift = 12; shift >= 0; shift -= 4) {
            text.append("0123456789abcdef".charAt(character >> shift & 15));
        }
    }
}
