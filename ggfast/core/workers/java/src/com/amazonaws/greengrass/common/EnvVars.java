package com.amazonaws.greengrass.common;

/** What the core tells a function in its environment; null when a variable is not set. */
public final class EnvVars {
    public static final String AUTH_TOKEN = System.getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    public static final String MY_FUNCTION_ARN = System.getenv("MY_FUNCTION_ARN");
    public static final String SHADOW_FUNCTION_ARN = System.getenv("SHADOW_FUNCTION_ARN");
    public static final String ROUTER_FUNCTION_ARN = System.getenv("ROUTER_FUNCTION_ARN");
    public static final String SECRETS_MANAGER_FUNCTION_ARN = System.getenv("SECRETS_MANAGER_FUNCTION_ARN");
    public static final String GG_DAEMON_PORT = System.getenv("GG_DAEMON_PORT");
    public static final String ENCODING_TYPE = System.getenv("ENCODING_TYPE");
    public static final String GGC_MAX_INTERFACE_VERSION = System.getenv("GGC_MAX_INTERFACE_VERSION");

    private EnvVars() {
    }
}
