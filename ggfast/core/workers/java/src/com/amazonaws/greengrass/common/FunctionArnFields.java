package com.amazonaws.greengrass.common;

import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** The fields of a Lambda function's ARN. System functions have an empty region and an empty account. */
public final class FunctionArnFields {
    private static final Pattern ARN = Pattern.compile(
        "arn:(aws|aws-cn|aws-us-gov):lambda:([a-z0-9-]*):([0-9]{12})?:function:"
        + "([a-zA-Z0-9_-]+)(?::(\\$LATEST|[a-zA-Z0-9_-]+))?");

    private final String partition;
    private final String region;
    private final String accountId;
    private final String name;
    private final String qualifier;

    private FunctionArnFields(Matcher matched) {
        partition = matched.group(1);
        region = matched.group(2);
        accountId = matched.group(3) == null ? "" : matched.group(3);
        name = matched.group(4);
        qualifier = matched.group(5);
    }

    /** Takes `arn` apart; InvalidArnException when it is not the ARN of a Lambda function. */
    public static FunctionArnFields fromString(String arn) throws InvalidArnException {
        Matcher matched = arn == null ? null : ARN.matcher(arn);
        if (matched == null || !matched.matches()) {
            throw new InvalidArnException("ARN \"" + arn + "\" is not the ARN of a Lambda function");
        }
        return new FunctionArnFields(matched);
    }

    /** The version or alias; null when the ARN has none. */
    public String getQualifier() {
        return qualifier;
    }

    public String getRegion() {
        return region;
    }

    public String getAccountId() {
        return accountId;
    }

    public String getName() {
        return name;
    }

    /** The ARN without its qualifier. */
    public String getUnqualifiedArn() {
        return "arn:" + partition + ":lambda:" + region + ":" + accountId + ":function:" + name;
    }

    /** The ARN as it was. */
    public String toArnString() {
        return qualifier == null ? getUnqualifiedArn() : getUnqualifiedArn() + ":" + qualifier;
    }

    @Override
    public String toString() {
        return toArnString();
    }
}
