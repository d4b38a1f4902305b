package com.amazonaws.services.lambda.runtime;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;

/** A handler of bytes. */
public interface RequestStreamHandler {
    /** Called once for each invocation, never twice at the same time in one process. */
    void handleRequest(InputStream input, OutputStream output, Context context) throws IOException;
}
