package io.ggfast.runtime;

import com.amazonaws.services.lambda.runtime.Client;
import com.amazonaws.services.lambda.runtime.ClientContext;
import com.amazonaws.services.lambda.runtime.CognitoIdentity;
import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.LambdaLogger;

import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.UUID;

/** What a handler gets as its context. */
final class InvocationContext implements Context {
    private final Settings settings;
    private final long deadline; // System.nanoTime
    private final Caller caller;
    private String requestId;

    /** `clientContext` is the caller's JSON or empty; what is not an object counts as empty. */
    InvocationContext(Settings settings, byte[] clientContext) {
        this.settings = settings;
        deadline = System.nanoTime() + settings.timeoutNs;
        Object document = clientContext.length == 0 ? null :
            new JsonReader("the client context", clientContext, false).document();
        caller = new Caller(document instanceof Map ? (Map<?, ?>) document : new LinkedHashMap<String, Object>());
    }

    @Override
    public synchronized String getAwsRequestId() {
        if (requestId == null) {
            requestId = UUID.randomUUID().toString(); // made when asked for: a secure random source is 1 MB of classes
        }
        return requestId;
    }

    @Override
    public String getLogGroupName() {
        return settings.logGroup;
    }

    @Override
    public String getLogStreamName() {
        return settings.logStream;
    }

    @Override
    public String getFunctionName() {
        return settings.functionName;
    }

    @Override
    public String getFunctionVersion() {
        return settings.functionVersion;
    }

    @Override
    public String getInvokedFunctionArn() {
        return settings.functionArn;
    }

    @Override
    public CognitoIdentity getIdentity() {
        return caller;
    }

    @Override
    public ClientContext getClientContext() {
        return caller;
    }

    @Override
    public int getRemainingTimeInMillis() {
        return (int) Math.min(Integer.MAX_VALUE, Math.max(0, (deadline - System.nanoTime()) / 1000000));
    }

    @Override
    public int getMemoryLimitInMB() {
        return settings.memoryMb;
    }

    @Override
    public LambdaLogger getLogger() {
        return FunctionLogger.INSTANCE;
    }

    /** The caller as the handler sees it; no part is ever null but a client that was not described. */
    private static final class Caller implements ClientContext, CognitoIdentity {
        private final Map<String, String> custom;
        private final Map<String, String> environment;
        private final Client client;

        Caller(Map<?, ?> document) {
            custom = texts(document.get("custom") == null ? document.get("Custom") : document.get("custom"));
            environment = texts(document.get("env"));
            Object described = document.get("client");
            client = described instanceof Map ? new Application(texts(described)) : null;
        }

        @Override
        public Client getClient() {
            return client;
        }

        @Override
        public Map<String, String> getCustom() {
            return custom;
        }

        @Override
        public Map<String, String> getEnvironment() {
            return environment;
        }

        @Override
        public String getIdentityId() {
            return "";
        }

        @Override
        public String getIdentityPoolId() {
            return "";
        }

        /** The members of an object, each value as text: JSON when it is not a text already. */
        private static Map<String, String> texts(Object object) {
            Map<String, String> result = new LinkedHashMap<String, String>();
            if (object instanceof Map) {
                for (Map.Entry<?, ?> member : ((Map<?, ?>) object).entrySet()) {
                    Object value = member.getValue();
                    result.put((String) member.getKey(), value == null || value instanceof String ? (String) value
                        : new String(JsonWriter.bytes(value), StandardCharsets.UTF_8));
                }
            }
            return result;
        }
    }

    /** A calling application; mobile SDKs write the names with underscores. */
    private static final class Application implements Client {
        private final Map<String, String> fields;

        Application(Map<String, String> fields) {
            this.fields = fields;
        }

        @Override
        public String getInstallationId() {
            return field("installation_id", "installationId");
        }

        @Override
        public String getAppTitle() {
            return field("app_title", "appTitle");
        }

        @Override
        public String getAppVersionName() {
            return field("app_version_name", "appVersionName");
        }

        @Override
        public String getAppVersionCode() {
            return field("app_version_code", "appVersionCode");
        }

        @Override
        public String getAppPackageName() {
            return field("app_package_name", "appPackageName");
        }

        private String field(String name, String otherName) {
            String value = fields.get(name);
            return value == null ? fields.get(otherName) : value;
        }
    }
}
