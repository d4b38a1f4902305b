package io.ggfast.runtime;

import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Type;

/** The JSON mapper in the function's own package, reached by reflection: the runtime itself brings none. */
final class Jackson {
    private static final String PACKAGE = "com.fasterxml.jackson.databind.";
    private static Jackson found;
    private static boolean sought;

    private final Object mapper;
    private final Object types;
    private final Method constructType;
    private final Method readValue;
    private final Method writeValue;

    private Jackson() throws ReflectiveOperationException {
        Class<?> mapperClass = Class.forName(PACKAGE + "ObjectMapper");
        mapper = mapperClass.getConstructor().newInstance();
        types = mapperClass.getMethod("getTypeFactory").invoke(mapper);
        constructType = types.getClass().getMethod("constructType", Type.class);
        readValue = mapperClass.getMethod("readValue", byte[].class, Class.forName(PACKAGE + "JavaType"));
        writeValue = mapperClass.getMethod("writeValueAsBytes", Object.class);
        Class<?> feature = Class.forName(PACKAGE + "DeserializationFeature");
        // A message may say more than the handler's class has fields for, as in the cloud.
        mapperClass.getMethod("configure", feature, boolean.class)
            .invoke(mapper, feature.getField("FAIL_ON_UNKNOWN_PROPERTIES").get(null), false);
    }

    /** The mapper; InvalidPayloadException, naming `what` it is wanted for, when the package has none. */
    static synchronized Jackson wanted(String what) {
        if (!sought) {
            sought = true;
            try {
                found = new Jackson();
            } catch (ClassNotFoundException none) {
                found = null;
            } catch (ReflectiveOperationException | LinkageError unusable) {
                Output.record('W', "Jackson.java,the package's Jackson can not be used: " + unusable);
            }
        }
        if (found == null) {
            throw new InvalidPayloadException(what + " needs a JSON mapper and the package holds none: add Jackson's "
                + "jackson-databind with what it needs to lib/, or use Map, List, String, numbers and booleans");
        }
        return found;
    }

    /** The payload as `type`; raises what Jackson raises. */
    Object read(byte[] payload, Type type) throws Throwable {
        return call(readValue, mapper, payload, call(constructType, types, type));
    }

    /** `value` as JSON; raises what Jackson raises. */
    byte[] write(Object value) throws Throwable {
        return (byte[]) call(writeValue, mapper, value);
    }

    private static Object call(Method method, Object on, Object... arguments) throws Throwable {
        try {
            return method.invoke(on, arguments);
        } catch (InvocationTargetException error) {
            throw error.getCause();
        }
    }
}
