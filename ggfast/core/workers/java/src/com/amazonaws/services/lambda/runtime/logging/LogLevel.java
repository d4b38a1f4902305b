package com.amazonaws.services.lambda.runtime.logging;

import java.util.Locale;

/** Levels that a handler may name to its logger. */
public enum LogLevel {
    UNDEFINED,
    TRACE,
    DEBUG,
    INFO,
    WARN,
    ERROR,
    FATAL;

    /** The level of that name in any case; IllegalArgumentException for any other text. */
    public static LogLevel fromString(String name) {
        return valueOf(name.toUpperCase(Locale.ROOT));
    }
}
