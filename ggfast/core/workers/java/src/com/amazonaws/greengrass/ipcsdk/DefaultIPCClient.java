package com.amazonaws.greengrass.ipcsdk;

import io.ggfast.runtime.Calls;

/** The IPC client over the worker's own socket: no address, no port, no token is needed to be who we are. */
public class DefaultIPCClient implements IPCClient {
    public DefaultIPCClient() {
    }

    /** What SDKs up to 1.4.1 use; there is one way to the core, so both values are without meaning. */
    public DefaultIPCClient(String host, int port) {
    }

    @Override
    public String postWork(String arn, String invocationType, byte[] payload, String clientContext)
            throws IPCException {
        return Calls.post(arn, invocationType, payload, clientContext);
    }

    @Override
    public WorkResult getWorkResult(String arn, String invocationId) throws IPCException {
        return Calls.result(arn, invocationId);
    }
}
