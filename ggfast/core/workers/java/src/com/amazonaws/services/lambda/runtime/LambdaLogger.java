package com.amazonaws.services.lambda.runtime;

import com.amazonaws.services.lambda.runtime.logging.LogLevel;

/** Writes into the function's log; a text of several lines stays one record. */
public interface LambdaLogger {
    /** One record of level INFO. */
    void log(String message);

    /** One record of level INFO; the bytes are UTF-8. */
    void log(byte[] message);

    /** One record of the given level. */
    default void log(String message, LogLevel level) {
        log(message);
    }

    /** One record of the given level; the bytes are UTF-8. */
    default void log(byte[] message, LogLevel level) {
        log(message);
    }
}
