package io.ggfast.runtime;

import java.lang.reflect.GenericArrayType;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.lang.reflect.WildcardType;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Turns what JsonReader gives into the types that need no JSON mapper: Object, maps with text keys, lists, texts,
 * numbers, booleans, and these inside of maps and lists. As JSON mappers do, numbers and texts that show a number
 * stand for each other.
 */
final class Conversion {
    private Conversion() {
    }

    /** Whether `convert` knows the type. */
    static boolean supports(Type type) {
        Class<?> raw = raw(type);
        if (raw == null) {
            return false;
        }
        if (isMap(raw)) {
            Class<?> key = raw(argument(type, 0));
            return (key == String.class || key == Object.class) && supports(argument(type, 1));
        }
        if (isList(raw)) {
            return supports(argument(type, 0));
        }
        return raw == Object.class || raw == String.class || raw == CharSequence.class || raw == boolean.class
            || raw == Boolean.class || isNumber(raw);
    }

    /** Whether decimals have to keep their digits on the way to the type. */
    static boolean exact(Type type) {
        Class<?> raw = raw(type);
        if (raw != null && isMap(raw)) {
            return exact(argument(type, 1));
        }
        return raw == BigDecimal.class || raw != null && isList(raw) && exact(argument(type, 0));
    }

    /** What an empty payload stands for: an empty object for types that can be one, else nothing. */
    static Object empty(Type type) {
        Class<?> raw = raw(type);
        return raw != null && (raw == Object.class || isMap(raw)) ? new LinkedHashMap<String, Object>()
            : convert(null, type);
    }

    /** `value` as `type`, which `supports` knows. InvalidPayloadException when it is something else. */
    static Object convert(Object value, Type type) {
        Class<?> raw = raw(type);
        if (raw == Object.class) {
            return value;
        }
        if (raw.isPrimitive() && value == null) {
            return raw == boolean.class ? (Object) Boolean.FALSE : number(Integer.valueOf(0), raw);
        }
        if (value == null) {
            return null;
        }
        if (isMap(raw)) {
            return map(value, argument(type, 1));
        }
        if (isList(raw)) {
            return list(value, argument(type, 0));
        }
        if (raw == String.class || raw == CharSequence.class) {
            if (value instanceof Map || value instanceof List) {
                throw mismatch(value, raw);
            }
            return value.toString();
        }
        return raw == boolean.class || raw == Boolean.class ? truth(value) : number(value, raw);
    }

    private static Object map(Object value, Type of) {
        if (!(value instanceof Map)) {
            throw mismatch(value, Map.class);
        }
        @SuppressWarnings("unchecked") // the reader's own
        Map<String, Object> members = (Map<String, Object>) value;
        if (raw(of) != Object.class) {
            for (Map.Entry<String, Object> member : members.entrySet()) {
                member.setValue(convert(member.getValue(), of));
            }
        }
        return members;
    }

    private static Object list(Object value, Type of) {
        if (!(value instanceof List)) {
            throw mismatch(value, List.class);
        }
        @SuppressWarnings("unchecked") // the reader's own
        List<Object> items = (List<Object>) value;
        if (raw(of) != Object.class) {
            for (int at = 0; at < items.size(); at++) {
                items.set(at, convert(items.get(at), of));
            }
        }
        return items;
    }

    private static Object truth(Object value) {
        if (value instanceof Boolean) {
            return value;
        }
        if ("true".equals(value) || "false".equals(value)) {
            return Boolean.valueOf((String) value);
        }
        throw mismatch(value, boolean.class);
    }

    private static Object number(Object value, Class<?> type) {
        if (!(value instanceof Number || value instanceof String)) {
            throw mismatch(value, type);
        }
        if (type == Number.class && value instanceof Number) {
            return value;
        }
        try {
            if (type == double.class || type == Double.class || type == Number.class) {
                return value instanceof Number ? ((Number) value).doubleValue() : Double.valueOf((String) value);
            }
            if (type == float.class || type == Float.class) {
                return value instanceof Number ? ((Number) value).floatValue() : Float.valueOf((String) value);
            }
            BigDecimal decimal = new BigDecimal(value.toString());
            if (type == BigDecimal.class) {
                return decimal;
            }
            if ((long) decimal.precision() - decimal.scale() > 400 || decimal.scale() > 400) {
                throw mismatch(value, type); // as a whole number it would be digits without end
            }
            return whole(decimal.toBigInteger(), type, value);
        } catch (NumberFormatException error) {
            throw mismatch(value, type);
        }
    }

    private static Object whole(BigInteger number, Class<?> type, Object value) {
        if (type == BigInteger.class) {
            return number;
        }
        int bits = type == byte.class || type == Byte.class ? 8 : type == short.class || type == Short.class ? 16
            : type == int.class || type == Integer.class ? 32 : 64;
        if (number.bitLength() >= bits) {
            throw new InvalidPayloadException("the payload's number " + value + " is out of the range of "
                + type.getName());
        }
        switch (bits) {
            case 8:
                return number.byteValue();
            case 16:
                return number.shortValue();
            case 32:
                return number.intValue();
            default:
                return number.longValue();
        }
    }

    private static InvalidPayloadException mismatch(Object value, Class<?> wanted) {
        String found = value instanceof Map ? "an object" : value instanceof List ? "an array"
            : value instanceof String ? "a string" : value instanceof Boolean ? "a boolean" : "a number";
        return new InvalidPayloadException("the payload holds " + found + " where the handler takes "
            + wanted.getName());
    }

    private static boolean isMap(Class<?> raw) {
        return raw == Map.class || raw == HashMap.class || raw == LinkedHashMap.class;
    }

    private static boolean isList(Class<?> raw) {
        return raw == List.class || raw == ArrayList.class || raw == Collection.class || raw == Iterable.class;
    }

    private static boolean isNumber(Class<?> raw) {
        return raw == Number.class || raw == BigDecimal.class || raw == BigInteger.class
            || raw.getSuperclass() == Number.class && raw.getName().startsWith("java.lang.")
            || raw.isPrimitive() && raw != boolean.class && raw != char.class && raw != void.class;
    }

    /** The class of a type; null for arrays of generic types, which take a JSON mapper. */
    static Class<?> raw(Type type) {
        if (type instanceof Class) {
            return (Class<?>) type;
        }
        if (type instanceof ParameterizedType) {
            return (Class<?>) ((ParameterizedType) type).getRawType();
        }
        if (type instanceof WildcardType) {
            return raw(((WildcardType) type).getUpperBounds()[0]);
        }
        return type instanceof GenericArrayType ? null : Object.class;
    }

    private static Type argument(Type type, int index) {
        return type instanceof ParameterizedType ? ((ParameterizedType) type).getActualTypeArguments()[index]
            : Object.class;
    }
}
