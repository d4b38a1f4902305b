package com.amazonaws.services.lambda.runtime;

/** What a handler is told about its invocation. */
public interface Context {
    /** An identifier of this invocation, a UUID. */
    String getAwsRequestId();

    /** The CloudWatch log group of the function. */
    String getLogGroupName();

    /** The CloudWatch log stream of the function. */
    String getLogStreamName();

    /** The function's name, without version. */
    String getFunctionName();

    /** The function's version. */
    String getFunctionVersion();

    /** The ARN by which the function runs. */
    String getInvokedFunctionArn();

    /** Never null; a core has no Cognito identities, so its fields are empty. */
    CognitoIdentity getIdentity();

    /** Never null; without a client context from the caller its maps are empty. */
    ClientContext getClientContext();

    /** Milliseconds until the core ends the invocation; never negative. */
    int getRemainingTimeInMillis();

    /** The function's memory limit in MiB; 0 when it has none. */
    int getMemoryLimitInMB();

    /** The function's log. */
    LambdaLogger getLogger();
}
