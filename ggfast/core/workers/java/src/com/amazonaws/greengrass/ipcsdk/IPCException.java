package com.amazonaws.greengrass.ipcsdk;

/** The core refused a call, or could not be asked. */
public class IPCException extends Exception {
    private static final long serialVersionUID = 1L;

    public IPCException(String message) {
        super(message);
    }

    public IPCException(String message, Throwable cause) {
        super(message, cause);
    }

    @Override
    public synchronized Throwable getCause() { // declared here because published SDKs link against it
        return super.getCause();
    }
}
