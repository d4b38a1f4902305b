package com.amazonaws.services.lambda.runtime;

import io.ggfast.runtime.FunctionLogger;

/** Reaches the function's log from code that has no Context at hand. */
public final class LambdaRuntime {
    private LambdaRuntime() {
    }

    /** The function's log. */
    public static LambdaLogger getLogger() {
        return FunctionLogger.INSTANCE;
    }
}
