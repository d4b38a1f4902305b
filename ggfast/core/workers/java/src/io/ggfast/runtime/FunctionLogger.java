package io.ggfast.runtime;

import com.amazonaws.services.lambda.runtime.LambdaLogger;
import com.amazonaws.services.lambda.runtime.logging.LogLevel;

import java.nio.charset.StandardCharsets;

/** The logger that handlers get from their context. */
public final class FunctionLogger implements LambdaLogger {
    public static final FunctionLogger INSTANCE = new FunctionLogger();

    private FunctionLogger() {
    }

    @Override
    public void log(String message) {
        Output.record('I', ended(message));
    }

    @Override
    public void log(byte[] message) {
        log(text(message));
    }

    @Override
    public void log(String message, LogLevel level) {
        Output.record(Output.letter(level == null ? "" : level.name()), ended(message));
    }

    @Override
    public void log(byte[] message, LogLevel level) {
        log(text(message), level);
    }

    private static String text(byte[] message) {
        return message == null ? "null" : new String(message, StandardCharsets.UTF_8);
    }

    /** Handlers often end their text with a line end, as a terminal needs it; a record does not. */
    private static String ended(String message) {
        return message != null && message.endsWith("\n") ? message.substring(0, message.length() - 1) : message;
    }
}
