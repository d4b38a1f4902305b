package com.amazonaws.greengrass.ipcsdk;

/** What became of handed-over work. */
public class WorkResult {
    private final int statusCode;
    private final byte[] payload;
    private final String functionErr;

    public WorkResult(int statusCode, byte[] payload, String functionErr) {
        this.statusCode = statusCode;
        this.payload = payload;
        this.functionErr = functionErr;
    }

    /** 200: the function was run. Whether it succeeded is said by {@link #getFunctionErr}. */
    public int getStatusCode() {
        return statusCode;
    }

    /** The result, or the error document; never null. */
    public byte[] getPayload() {
        return payload;
    }

    /** Empty, `Handled` or `Unhandled`; never null. */
    public String getFunctionErr() {
        return functionErr;
    }
}
