package io.ggfast.runtime;

/** A payload is not JSON, not of the type that the handler asks for, or a result cannot be written as JSON. */
public final class InvalidPayloadException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    InvalidPayloadException(String message) {
        super(message);
    }
}
