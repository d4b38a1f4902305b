package com.amazonaws.services.lambda.runtime;

import java.util.Map;

/** What the caller sent beside the payload. */
public interface ClientContext {
    /** The calling application; null when the caller did not describe it. */
    Client getClient();

    /** The caller's own values; for messages `subject` is the topic. Never null. */
    Map<String, String> getCustom();

    /** The caller's environment. Never null. */
    Map<String, String> getEnvironment();
}
