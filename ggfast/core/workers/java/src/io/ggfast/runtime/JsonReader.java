package io.ggfast.runtime;

import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Reads JSON (RFC 8259) strictly: objects become LinkedHashMap, arrays ArrayList, whole numbers Integer, Long or
 * BigInteger, the others Double, or BigDecimal where `exact` is asked for. Of equal names the last one counts.
 */
final class JsonReader {
    private static final int DEPTH_MAX = 128; // deeper than any real document; a frame of it is about 150 bytes
    private static final int NUMBER_CHARACTERS_MAX = 1000; // reading a longer one takes quadratic time

    private final String what;
    private final String text;
    private final boolean exact;
    private int at;

    /** `what` names the bytes in complaints. InvalidPayloadException when they are not UTF-8. */
    JsonReader(String what, byte[] bytes, boolean exact) {
        this.what = what;
        try {
            text = StandardCharsets.UTF_8.newDecoder().onMalformedInput(CodingErrorAction.REPORT)
                .decode(ByteBuffer.wrap(bytes)).toString();
        } catch (CharacterCodingException error) {
            throw new InvalidPayloadException(what + " is not JSON: not UTF-8");
        }
        this.exact = exact;
    }

    /** The one value that the text is. InvalidPayloadException, with the place, when it is not JSON. */
    Object document() {
        Object value = value(0);
        skipSpace();
        if (at < text.length()) {
            throw fault("the end expected");
        }
        return value;
    }

    private Object value(int depth) {
        if (depth > DEPTH_MAX) {
            throw fault("nested deeper than " + DEPTH_MAX + " levels");
        }
        skipSpace();
        switch (peek()) {
            case '{':
                return object(depth);
            case '[':
                return array(depth);
            case '"':
                return string();
            case 't':
                return word("true", Boolean.TRUE);
            case 'f':
                return word("false", Boolean.FALSE);
            case 'n':
                return word("null", null);
            default:
                return number();
        }
    }

    private Map<String, Object> object(int depth) {
        Map<String, Object> members = new LinkedHashMap<String, Object>();
        at++;
        skipSpace();
        if (peek() == '}') {
            at++;
            return members;
        }
        while (true) {
            skipSpace();
            if (peek() != '"') {
                throw fault("a name expected");
            }
            String name = string();
            skipSpace();
            if (peek() != ':') {
                throw fault("':' expected");
            }
            at++;
            members.put(name, value(depth + 1));
            if (last('}')) {
                return members;
            }
        }
    }

    private List<Object> array(int depth) {
        List<Object> items = new ArrayList<Object>();
        at++;
        skipSpace();
        if (peek() == ']') {
            at++;
            return items;
        }
        while (true) {
            items.add(value(depth + 1));
            if (last(']')) {
                return items;
            }
        }
    }

    /** Passes a comma (false) or the closing bracket (true). */
    private boolean last(char close) {
        skipSpace();
        char found = peek();
        if (found != ',' && found != close) {
            throw fault("',' or '" + close + "' expected");
        }
        at++;
        return found == close;
    }

    private String string() {
        int begin = ++at;
        while (peek() != '"' && peek() != '\\') {
            plain();
        }
        if (peek() == '"') {
            return text.substring(begin, at++);
        }
        StringBuilder result = new StringBuilder(text.substring(begin, at));
        while (peek() != '"') {
            result.append(peek() == '\\' ? escape() : plain());
        }
        at++;
        return result.toString();
    }

    private char plain() {
        char found = peek();
        if (found < ' ') {
            throw fault(at < text.length() ? "a control character inside a string" : "the string does not end");
        }
        at++;
        return found;
    }

    private char escape() {
        at++;
        int which = "\"\\/bfnrt".indexOf(peek());
        if (which >= 0) {
            at++;
            return "\"\\/\b\f\n\r\t".charAt(which);
        }
        if (peek() != 'u' || at + 5 > text.length()) {
            throw fault("an escape that JSON does not have");
        }
        int code = 0;
        for (int end = at + 5; ++at < end;) {
            int digit = "0123456789abcdef".indexOf(Character.toLowerCase(text.charAt(at)));
            if (digit < 0) {
                throw fault("four hexadecimal digits expected");
            }
            code = code << 4 | digit;
        }
        return (char) code;
    }

    private Object word(String word, Object value) {
        if (!text.startsWith(word, at)) {
            throw fault("a value expected");
        }
        at += word.length();
        return value;
    }

    private Object number() {
        int begin = at;
        boolean whole = true;
        if (peek() == '-') {
            at++;
        }
        if (peek() == '0') {
            at++;
        } else {
            digits();
        }
        if (peek() == '.') {
            whole = false;
            at++;
            digits();
        }
        if (peek() == 'e' || peek() == 'E') {
            whole = false;
            at++;
            if (peek() == '+' || peek() == '-') {
                at++;
            }
            digits();
        }
        if (at - begin > NUMBER_CHARACTERS_MAX) {
            throw fault("a number of more than " + NUMBER_CHARACTERS_MAX + " characters");
        }
        return whole ? whole(text.substring(begin, at)) : fraction(text.substring(begin, at));
    }

    private void digits() {
        if (peek() < '0' || peek() > '9') {
            throw fault("a value expected");
        }
        while (peek() >= '0' && peek() <= '9') {
            at++;
        }
    }

    private static Object whole(String digits) {
        if (digits.length() > 18) {
            BigInteger big = new BigInteger(digits);
            return big.bitLength() < 64 ? (Object) big.longValue() : big;
        }
        long value = Long.parseLong(digits);
        return value == (int) value ? (Object) (int) value : (Object) value;
    }

    private Object fraction(String digits) {
        if (!exact) {
            return Double.valueOf(digits);
        }
        try {
            return new BigDecimal(digits);
        } catch (NumberFormatException error) {
            throw fault("a number with an exponent out of range");
        }
    }

    private void skipSpace() {
        while (at < text.length() && " \t\n\r".indexOf(text.charAt(at)) >= 0) {
            at++;
        }
    }

    /** The next character; at the end one that JSON has no use for. */
    private char peek() {
        return at < text.length() ? text.charAt(at) : '\0';
    }

    private InvalidPayloadException fault(String fault) {
        return new InvalidPayloadException(what + " is not JSON: " + fault + " at character " + at);
    }
}
