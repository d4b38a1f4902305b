package com.amazonaws.greengrass.ipcsdk;

/** A function's way to other functions and to the core's own services. */
public interface IPCClient {
    /**
     * Hands work to `arn`; the answer identifies it for {@link #getWorkResult}.
     *
     * @param invocationType `Event` or `RequestResponse`
     * @param payload null counts as empty
     * @param clientContext base64 of a JSON object, or the JSON itself; may be null or empty
     * @throws IPCException when the core refuses the work, or nobody is left to ask
     */
    String postWork(String arn, String invocationType, byte[] payload, String clientContext) throws IPCException;

    /** Waits for the result of {@link #postWork}; at once and empty for an `Event`. */
    WorkResult getWorkResult(String arn, String invocationId) throws IPCException;
}
