package com.amazonaws.greengrass.javasdk.common;

/** Stands where a published SDK says which interface it speaks. */
public class InterfaceVersion {
    public static final String INTERFACE_VERSION = System.getenv("SDK_INTERFACE_VERSION");
}
