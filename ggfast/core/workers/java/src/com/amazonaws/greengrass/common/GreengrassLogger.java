package com.amazonaws.greengrass.common;

import io.ggfast.runtime.Output;

import java.nio.charset.StandardCharsets;

/** Writes into the function's log; a text of several lines stays one record. */
public class GreengrassLogger {
    public GreengrassLogger() {
    }

    public void debug(String message) {
        Output.record('D', message);
    }

    public void info(String message) {
        Output.record('I', message);
    }

    public void warn(String message) {
        Output.record('W', message);
    }

    public void error(String message) {
        Output.record('E', message);
    }

    public void fatal(String message) {
        Output.record('F', message);
    }

    /** One record; the bytes are UTF-8. Without a level it counts as INFO. */
    public void log(byte[] message, LogLevel level) {
        log(message == null ? "null" : new String(message, StandardCharsets.UTF_8), level);
    }

    /** One record. Without a level it counts as INFO. */
    public void log(String message, LogLevel level) {
        Output.record(Output.letter(level == null ? "" : level.name()), message);
    }
}
