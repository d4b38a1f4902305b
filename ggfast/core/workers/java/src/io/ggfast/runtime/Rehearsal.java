package io.ggfast.runtime;

import com.amazonaws.greengrass.common.EnvVars;
import com.amazonaws.greengrass.ipcsdk.DefaultIPCClient;
import com.amazonaws.greengrass.ipcsdk.IPCClient;
import com.amazonaws.greengrass.ipcsdk.IPCException;
import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestHandler;

import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.Map;

/** A handler that does what most handlers do, so that the class-data archive holds the classes they need. */
public final class Rehearsal implements RequestHandler<Map<String, Object>, Map<String, Object>> {
    @Override
    public Map<String, Object> handleRequest(Map<String, Object> input, Context context) {
        Map<String, Object> result = new LinkedHashMap<String, Object>(input);
        result.put("topic", context.getClientContext().getCustom().get("subject"));
        result.put("left", context.getRemainingTimeInMillis());
        result.put("ratio", String.format("%.1f", 0.5));
        System.out.println("rehearsal " + result);
        context.getLogger().log("rehearsal of " + context.getFunctionName());
        try {
            String publish = "{\"custom\":{\"subject\":\"rehearsal\",\"queueFullPolicy\":\"\"}}";
            IPCClient client = new DefaultIPCClient();
            client.postWork(EnvVars.ROUTER_FUNCTION_ARN, "Event", publish.getBytes(StandardCharsets.UTF_8),
                Base64.getEncoder().encodeToString(publish.getBytes(StandardCharsets.UTF_8)));
        } catch (IPCException error) {
            throw new IllegalStateException(error);
        }
        return result;
    }
}
