package io.ggfast.runtime;

import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** What a handler raised, as the document its caller gets and as the text the log gets. */
final class Failure {
    private static final int FRAMES_MAX = 50;
    private static final int TEXT_CHARACTERS_MAX = 8192;
    private static final int TRACE_CHARACTERS_MAX = 16384;
    private static final String OURS = "io.ggfast.runtime.";
    // Made beforehand: when it is needed there may be no room to make it.
    private static final byte[] OUT_OF_MEMORY = ("{\"errorMessage\":\"the function's memory is exhausted\","
        + "\"errorType\":\"java.lang.OutOfMemoryError\",\"stackTrace\":[]}").getBytes(StandardCharsets.US_ASCII);

    private Failure() {
    }

    /** `{"errorMessage", "errorType", "stackTrace"}`; the trace without the runtime's own frames. Never raises. */
    static byte[] document(Throwable error) {
        try {
            Map<String, Object> document = new LinkedHashMap<String, Object>();
            document.put("errorMessage", message(error));
            document.put("errorType", error.getClass().getName());
            document.put("stackTrace", frames(error));
            return JsonWriter.bytes(document);
        } catch (OutOfMemoryError full) {
            return OUT_OF_MEMORY;
        }
    }

    /** The document of an OutOfMemoryError, without needing memory. */
    static byte[] outOfMemory() {
        return OUT_OF_MEMORY;
    }

    /** The error's own text, or its class when it has none. Never raises but for want of memory. */
    static String message(Throwable error) {
        String text;
        try {
            text = error.getMessage();
        } catch (RuntimeException unshowable) {
            text = "an exception that can not be shown";
        }
        return cut(text == null ? error.getClass().getName() : text, TEXT_CHARACTERS_MAX);
    }

    /** The whole trace with its causes, as Java prints it. */
    static String trace(Throwable error) {
        StringWriter text = new StringWriter();
        try {
            error.printStackTrace(new PrintWriter(text));
        } catch (RuntimeException unshowable) {
            return error.getClass().getName();
        }
        return cut(text.toString().trim(), TRACE_CHARACTERS_MAX);
    }

    private static List<String> frames(Throwable error) {
        StackTraceElement[] trace = error.getStackTrace();
        int end = 0;
        while (end < trace.length && !trace[end].getClassName().startsWith(OURS)) {
            end++;
        }
        while (end > 0 && end < trace.length && isReflection(trace[end - 1].getClassName())) {
            end--;
        }
        List<String> frames = new ArrayList<String>();
        for (int at = 0; at < end && at < FRAMES_MAX; at++) {
            frames.add(trace[at].toString());
        }
        return frames;
    }

    private static boolean isReflection(String className) {
        return className.startsWith("java.lang.reflect.") || className.startsWith("jdk.internal.reflect.")
            || className.startsWith("sun.reflect.") || className.startsWith("java.lang.invoke.");
    }

    private static String cut(String text, int characters) {
        return text.length() <= characters ? text : text.substring(0, characters);
    }
}
