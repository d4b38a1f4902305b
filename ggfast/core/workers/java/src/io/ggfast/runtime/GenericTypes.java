package io.ggfast.runtime;

import java.lang.reflect.ParameterizedType;
import java.lang.reflect.Type;
import java.lang.reflect.TypeVariable;
import java.util.HashMap;
import java.util.Map;

/** What the type variables of a class's ancestors stand for in that class. */
final class GenericTypes {
    private final Map<TypeVariable<?>, Type> meanings = new HashMap<TypeVariable<?>, Type>();

    GenericTypes(Class<?> concrete) {
        look(concrete);
    }

    private void look(Class<?> at) {
        for (Class<?> here = at; here != null && here != Object.class; here = here.getSuperclass()) {
            note(here.getGenericSuperclass());
            for (Type implemented : here.getGenericInterfaces()) {
                note(implemented);
                look(Conversion.raw(implemented));
            }
        }
    }

    private void note(Type ancestor) {
        if (ancestor instanceof ParameterizedType) {
            TypeVariable<?>[] variables = Conversion.raw(ancestor).getTypeParameters();
            Type[] arguments = ((ParameterizedType) ancestor).getActualTypeArguments();
            for (int at = 0; at < variables.length; at++) {
                meanings.put(variables[at], arguments[at]);
            }
        }
    }

    /** `type` without type variables; a variable that nothing is known of becomes its bound. */
    Type resolve(Type type) {
        if (type instanceof TypeVariable) {
            Type meaning = meanings.get(type);
            return meaning == null ? Conversion.raw(((TypeVariable<?>) type).getBounds()[0]) : resolve(meaning);
        }
        if (!(type instanceof ParameterizedType)) {
            return type;
        }
        Type[] arguments = ((ParameterizedType) type).getActualTypeArguments().clone();
        for (int at = 0; at < arguments.length; at++) {
            arguments[at] = resolve(arguments[at]);
        }
        return new Applied((ParameterizedType) type, arguments);
    }

    /** A generic type with its arguments filled in. */
    private static final class Applied implements ParameterizedType {
        private final ParameterizedType origin;
        private final Type[] arguments;

        Applied(ParameterizedType origin, Type[] arguments) {
            this.origin = origin;
            this.arguments = arguments;
        }

        @Override
        public Type[] getActualTypeArguments() {
            return arguments.clone();
        }

        @Override
        public Type getRawType() {
            return origin.getRawType();
        }

        @Override
        public Type getOwnerType() {
            return origin.getOwnerType();
        }
    }
}
