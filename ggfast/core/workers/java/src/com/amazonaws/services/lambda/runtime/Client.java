package com.amazonaws.services.lambda.runtime;

/** A calling application's description of itself; each field may be null. */
public interface Client {
    String getInstallationId();

    String getAppTitle();

    String getAppVersionName();

    String getAppVersionCode();

    String getAppPackageName();
}
