package io.ggfast.runtime;

import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestHandler;
import com.amazonaws.services.lambda.runtime.RequestStreamHandler;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.lang.reflect.Constructor;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.lang.reflect.Type;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/**
 * One function's handler: `package.Class::method`, or `package.Class` for its `handleRequest`.
 *
 * Of several public methods of that name the one with the most parameters is taken, of these the one whose last
 * parameter is the Context. Parameters, each optional and in this order: the input, an OutputStream, the Context.
 * An input of type InputStream or byte[] is the payload as it is; every other type is JSON, which a function of
 * encoding `binary` does not have. The result is what was written to the OutputStream, else the returned value: JSON,
 * except that byte[] is the result as it is.
 */
final class Handler {
    private static final String DEFAULT_METHOD = "handleRequest";
    private static final byte[] NULL = "null".getBytes(StandardCharsets.US_ASCII);
    private static final byte[] NO_BYTES = new byte[0];

    private final Object instance; // null for a static method
    private final Method method;
    private final boolean binary;
    private Type input; // null without such a parameter
    private boolean hasOutput;
    private boolean hasContext;

    /** Loads, initialises and instantiates the class. Raises whatever that raises. */
    Handler(String name, boolean binary) throws Throwable {
        int colons = name.indexOf("::");
        String className = colons < 0 ? name : name.substring(0, colons);
        String methodName = colons < 0 ? DEFAULT_METHOD : name.substring(colons + 2);
        if (className.isEmpty() || methodName.isEmpty()) {
            throw new IllegalArgumentException("the handler must be named <package>.<Class>::<method>");
        }
        Class<?> type = Class.forName(className, true, ClassLoader.getSystemClassLoader());
        this.binary = binary;
        method = choose(type, methodName);
        describe(new GenericTypes(type));
        if (!Modifier.isPublic(method.getDeclaringClass().getModifiers())) {
            method.setAccessible(true);
        }
        instance = Modifier.isStatic(method.getModifiers()) ? null : instantiate(type);
    }

    private static Method choose(Class<?> type, String name) {
        List<Method> best = new ArrayList<Method>();
        boolean bridged = false; // a bridge counts only where nothing else is visible
        for (int pass = 0; best.isEmpty() && pass < 2; pass++) {
            for (Method method : type.getMethods()) {
                if (method.getName().equals(name) && method.isBridge() == bridged) {
                    int better = best.isEmpty() ? 1 : rank(method) - rank(best.get(0));
                    if (better > 0) {
                        best.clear();
                    }
                    if (better >= 0) {
                        best.add(method);
                    }
                }
            }
            bridged = true;
        }
        if (best.isEmpty()) {
            throw new IllegalArgumentException("class " + type.getName() + " has no public method " + name);
        }
        if (best.size() > 1) {
            throw new IllegalArgumentException("class " + type.getName() + " has " + best.size() + " methods " + name
                + " that could be meant: " + best.get(0) + " and " + best.get(1)
                + "; name the handler's method differently from the others");
        }
        return best.get(0);
    }

    private static int rank(Method method) {
        Class<?>[] types = method.getParameterTypes();
        return 2 * types.length + (types.length > 0 && types[types.length - 1] == Context.class ? 1 : 0);
    }

    private void describe(GenericTypes generics) {
        Class<?>[] types = method.getParameterTypes();
        int at = 0;
        if (at < types.length && types[at] != OutputStream.class && types[at] != Context.class) {
            input = generics.resolve(method.getGenericParameterTypes()[at++]);
        }
        if (at < types.length && types[at] == OutputStream.class) {
            hasOutput = true;
            at++;
        }
        if (at < types.length && types[at] == Context.class) {
            hasContext = true;
            at++;
        }
        if (at < types.length) {
            throw new IllegalArgumentException(method + " takes parameters that the core can not give: expected an"
                + " input, an OutputStream, the Context, each optional and in this order");
        }
        boolean rawResult = method.getReturnType() == void.class || method.getReturnType() == byte[].class;
        if (binary && !(input == null || isRaw(input)) || binary && !rawResult) {
            throw new IllegalArgumentException(method + " is not a handler for the encoding `binary`: expected an"
                + " input of type InputStream or byte[], and a result written to an OutputStream or of type byte[]");
        }
    }

    private static boolean isRaw(Type type) {
        return type == InputStream.class || type == byte[].class;
    }

    private static Object instantiate(Class<?> type) throws Throwable {
        try {
            Constructor<?> constructor = type.getDeclaredConstructor();
            constructor.setAccessible(true);
            return constructor.newInstance();
        } catch (NoSuchMethodException error) {
            throw new IllegalArgumentException("class " + type.getName() + " has no constructor without parameters");
        } catch (InvocationTargetException error) {
            throw error.getCause();
        }
    }

    /** Runs the handler; returns the result's bytes. Raises what the handler raises, and InvalidPayloadException. */
    byte[] invoke(byte[] payload, Context context) throws Throwable {
        Object value = input == null ? null : read(payload);
        ByteArrayOutputStream output = hasOutput ? new ByteArrayOutputStream() : null;
        Object result = call(value, output, context);
        if (output != null) {
            return output.toByteArray();
        }
        if (method.getReturnType() == byte[].class) {
            return result == null ? NO_BYTES : (byte[]) result;
        }
        if (binary) {
            return NO_BYTES;
        }
        if (result == null) {
            return NULL;
        }
        byte[] written = JsonWriter.bytes(result);
        return written != null ? written
            : Jackson.wanted("a result of type " + result.getClass().getName()).write(result);
    }

    private Object read(byte[] payload) throws Throwable {
        if (input == byte[].class) {
            return payload;
        }
        if (input == InputStream.class) {
            return new ByteArrayInputStream(payload);
        }
        if (Conversion.supports(input)) {
            return payload.length == 0 ? Conversion.empty(input)
                : Conversion.convert(
                    new JsonReader("the payload", payload, Conversion.exact(input)).document(), input);
        }
        byte[] document = payload.length == 0 ? "{}".getBytes(StandardCharsets.US_ASCII) : payload;
        return Jackson.wanted("a parameter of type " + input).read(document, input);
    }

    @SuppressWarnings("unchecked") // the type was read from the very class that is called
    private Object call(Object value, OutputStream output, Context context) throws Throwable {
        if (method.getName().equals(DEFAULT_METHOD)) { // without reflection where the type allows it
            if (instance instanceof RequestHandler && input != null && !hasOutput && hasContext) {
                return ((RequestHandler<Object, Object>) instance).handleRequest(value, context);
            }
            if (instance instanceof RequestStreamHandler && input == InputStream.class && hasOutput && hasContext) {
                ((RequestStreamHandler) instance).handleRequest((InputStream) value, output, context);
                return null;
            }
        }
        Object[] arguments = new Object[method.getParameterTypes().length];
        int at = 0;
        if (input != null) {
            arguments[at++] = value;
        }
        if (hasOutput) {
            arguments[at++] = output;
        }
        if (hasContext) {
            arguments[at] = context;
        }
        try {
            return method.invoke(instance, arguments);
        } catch (InvocationTargetException error) {
            throw error.getCause();
        }
    }
}
