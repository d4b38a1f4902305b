package io.ggfast.runtime;

import com.amazonaws.greengrass.common.EnvVars;
import com.amazonaws.greengrass.ipcsdk.IPCException;
import com.amazonaws.greengrass.ipcsdk.WorkResult;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Map;

/**
 * The calls of published SDKs as frames. The socket is the identity: nothing that a function writes into a message
 * can make it another function. A best-effort publish is one send; everything else waits for the core's word.
 */
public final class Calls {
    private static final String DONE = "event"; // the invocation id of a call that nobody waits for
    private static final int EVENT = 0;
    private static final int REQUEST_RESPONSE = 1;
    private static final int STATUS_RUN = 200; // the function was run, whatever became of it
    private static final byte[] NO_BYTES = new byte[0];

    private static volatile Channel channel;

    private Calls() {
    }

    /** Called once by the runtime, before the function's class is loaded. */
    static void use(Channel opened) {
        channel = opened;
    }

    /** Hands over work; see IPCClient.postWork. */
    public static String post(String arn, String invocationType, byte[] payload, String clientContext)
            throws IPCException {
        boolean event = "Event".equals(invocationType);
        if (!event && !"RequestResponse".equals(invocationType)) {
            throw new IPCException("invocation type is \"" + invocationType
                + "\", expected \"Event\" or \"RequestResponse\"");
        }
        if (arn == null) {
            throw new IPCException("no function ARN is given");
        }
        byte[] context = decoded(clientContext);
        boolean publish = arn.equals(EnvVars.ROUTER_FUNCTION_ARN);
        event = event || publish;
        boolean waits = !publish || allOrError(context);
        int number;
        try {
            number = channel().call(arn.getBytes(StandardCharsets.UTF_8), event ? EVENT : REQUEST_RESPONSE, context,
                payload == null ? NO_BYTES : payload, waits);
        } catch (IOException error) {
            throw new IPCException(error.getMessage(), error);
        }
        if (!event) {
            return Integer.toUnsignedString(number);
        }
        if (waits) {
            finish(arn, number);
        }
        return DONE;
    }

    /** Waits for the result of work; see IPCClient.getWorkResult. */
    public static WorkResult result(String arn, String invocationId) throws IPCException {
        if (DONE.equals(invocationId)) {
            return new WorkResult(STATUS_RUN, NO_BYTES, "");
        }
        try {
            return finish(arn, Integer.parseUnsignedInt(invocationId));
        } catch (NumberFormatException error) {
            throw unknown(arn, invocationId);
        }
    }

    private static WorkResult finish(String arn, int number) throws IPCException {
        Channel.Call call;
        try {
            call = channel().answer(number);
        } catch (IOException error) {
            throw new IPCException(error.getMessage(), error);
        }
        if (call == null) {
            throw unknown(arn, Integer.toUnsignedString(number));
        }
        if (call.payload == null) {
            throw new IPCException("the answer of " + arn + " does not fit into this function's memory");
        }
        switch (call.status) {
            case Channel.OK:
                return new WorkResult(STATUS_RUN, call.payload, "");
            case Channel.HANDLED:
                return new WorkResult(STATUS_RUN, call.payload, "Handled");
            case Channel.UNHANDLED:
                return new WorkResult(STATUS_RUN, call.payload, "Unhandled");
            default:
                throw new IPCException(new String(call.payload, StandardCharsets.UTF_8));
        }
    }

    private static IPCException unknown(String arn, String invocationId) {
        return new IPCException("invocation id \"" + invocationId + "\" of " + arn + " is not known");
    }

    private static Channel channel() throws IPCException {
        Channel opened = channel;
        if (opened == null) {
            throw new IPCException("this process is not a function of the core: there is nothing to talk to");
        }
        return opened;
    }

    /** The JSON in a client context, which SDKs encode in base64; what begins with a brace is the JSON itself. */
    private static byte[] decoded(String clientContext) throws IPCException {
        if (clientContext == null || clientContext.isEmpty()) {
            return NO_BYTES;
        }
        if (clientContext.charAt(0) == '{') {
            return clientContext.getBytes(StandardCharsets.UTF_8);
        }
        try {
            return Base64.getDecoder().decode(clientContext);
        } catch (IllegalArgumentException error) {
            throw new IPCException("client context is not base64: " + error.getMessage(), error);
        }
    }

    private static boolean allOrError(byte[] context) {
        if (context.length == 0) {
            return false;
        }
        try {
            Object document = new JsonReader("the client context", context, false).document();
            Object custom = document instanceof Map ? ((Map<?, ?>) document).get("custom") : null;
            return custom instanceof Map && "AllOrError".equals(((Map<?, ?>) custom).get("queueFullPolicy"));
        } catch (InvalidPayloadException notJson) {
            return true; // the core says what is wrong with it
        }
    }
}
