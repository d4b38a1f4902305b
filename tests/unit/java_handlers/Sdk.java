package handlers;

import com.amazonaws.greengrass.common.EnvVars;
import com.amazonaws.greengrass.common.FunctionArnFields;
import com.amazonaws.greengrass.common.InvalidArnException;
import com.amazonaws.greengrass.ipcsdk.DefaultIPCClient;
import com.amazonaws.greengrass.ipcsdk.IPCClient;
import com.amazonaws.greengrass.ipcsdk.IPCException;
import com.amazonaws.greengrass.ipcsdk.WorkResult;
import com.amazonaws.services.lambda.runtime.Context;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Uses the runtime's classes as the published SDK does, with the very members it links against. */
public class Sdk {
    private final IPCClient client = new DefaultIPCClient();
    private final IPCClient old = new DefaultIPCClient("localhost", 8000);

    public Object handleRequest(Map<String, String> input, Context context) throws Exception {
        int times = Integer.parseInt(input.getOrDefault("times", "1"));
        String text = String.join("", Collections.nCopies(times, String.valueOf(input.get("text"))));
        switch (input.get("do")) {
            case "publish":
                return post(client, EnvVars.ROUTER_FUNCTION_ARN, "Event", text, "{\"custom\":{\"source\":\""
                    + EnvVars.MY_FUNCTION_ARN + "\",\"subject\":\"a/b\",\"queueFullPolicy\":\"" + input.get("policy") + "\"}}");
            case "old publish":
                return post(old, EnvVars.ROUTER_FUNCTION_ARN, "Event", text, "{\"custom\":{\"subject\":\"a/b\"}}");
            case "shadow":
                return post(client, EnvVars.SHADOW_FUNCTION_ARN, "RequestResponse", "{}",
                    "{\"custom\":{\"subject\":\"$aws/things/t/shadow/get\"}}");
            case "secret":
                return post(client, EnvVars.SECRETS_MANAGER_FUNCTION_ARN, "RequestResponse", "{\"SecretId\":\"s\"}", "");
            case "invoke":
                return post(client, input.get("arn"), input.get("type"), text, "{\"custom\":{\"a\":\"ü\"}}");
            case "raw context":
                return client.getWorkResult("x", client.postWork("arn", "RequestResponse", null, text)).getStatusCode();
            case "unknown":
                return client.getWorkResult("x", text).getStatusCode();
            case "arn":
                FunctionArnFields fields = FunctionArnFields.fromString(text);
                return new String[] {fields.getQualifier(), fields.getName(), fields.getUnqualifiedArn(), fields.toArnString()};
            default:
                throw new IllegalArgumentException(input.get("do"));
        }
    }

    /** What the SDK makes of an answer, as one list. */
    private static List<Object> post(IPCClient client, String arn, String type, String text, String context)
            throws IPCException, InvalidArnException {
        String encoded = Base64.getEncoder().encodeToString(context.getBytes(StandardCharsets.UTF_8));
        FunctionArnFields.fromString(arn).getQualifier();
        try {
            String id = client.postWork(arn, type, text.getBytes(StandardCharsets.UTF_8), encoded);
            WorkResult result = client.getWorkResult(arn, id);
            List<Object> seen = new ArrayList<>();
            seen.add(result.getStatusCode());
            seen.add(new String(result.getPayload(), StandardCharsets.UTF_8));
            seen.add(result.getFunctionErr());
            return seen;
        } catch (IPCException error) {
            return Collections.<Object>singletonList(error.getMessage() + "|" + error.getCause());
        }
    }

    /** Each of `threads` threads makes `calls` calls and gets back what it sent. */
    public Map<String, Object> crowd(Map<String, Integer> input) throws InterruptedException {
        Map<String, Object> wrong = Collections.synchronizedMap(new LinkedHashMap<>());
        List<Thread> threads = new ArrayList<>();
        for (int number = 0; number < input.get("threads"); number++) {
            final int mine = number;
            Thread thread = new Thread(() -> {
                for (int call = 0; call < input.get("calls"); call++) {
                    String sent = mine + "/" + call;
                    try {
                        Object back = post(client, EnvVars.SHADOW_FUNCTION_ARN, "RequestResponse", sent, "{}").get(1);
                        if (!sent.equals(back)) {
                            wrong.put(sent, back);
                        }
                    } catch (IPCException | InvalidArnException error) {
                        wrong.put(sent, error.toString());
                    }
                }
            });
            thread.start();
            threads.add(thread);
        }
        for (Thread thread : threads) {
            thread.join();
        }
        return wrong;
    }

    /** Posts without ever taking a result. */
    public String careless(int count) {
        try {
            for (int call = 0; call < count; call++) {
                client.postWork(EnvVars.SHADOW_FUNCTION_ARN, "RequestResponse", new byte[0], "");
            }
        } catch (IPCException error) {
            return error.getMessage();
        }
        return "all";
    }
}
