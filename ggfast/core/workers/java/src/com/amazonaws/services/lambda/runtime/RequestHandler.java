package com.amazonaws.services.lambda.runtime;

/** A handler of values: JSON in, JSON out. */
public interface RequestHandler<I, O> {
    /** Called once for each invocation, never twice at the same time in one process. */
    O handleRequest(I input, Context context);
}
