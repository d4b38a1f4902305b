import com.amazonaws.greengrass.common.EnvVars;
import com.amazonaws.greengrass.ipcsdk.DefaultIPCClient;
import com.amazonaws.greengrass.ipcsdk.IPCClient;
import com.amazonaws.greengrass.ipcsdk.WorkResult;
import com.amazonaws.services.lambda.runtime.Context;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Collections;
import java.util.Map;

/** The scenario in Java: does what the message asks and publishes what came of it. */
public class Scenario {
    private final IPCClient core = new DefaultIPCClient();

    public Map<String, String> handle(Map<String, Object> event, Context context) throws Exception {
        String wish = (String) event.get("do");
        if (wish.equals("echo")) {
            String subject = context.getClientContext().getCustom().get("subject");
            say("echo", "{\"subject\": " + quoted(subject) + ", \"event\": {\"do\": \"echo\", \"text\": "
                + quoted((String) event.get("text")) + "}}");
        } else if (wish.equals("invoke")) {
            say("invoke", answer(invoke("{\"n\": 20}")));
        } else if (wish.equals("invoke event")) {
            core.postWork(System.getenv("CALLEE"), "Event", bytes("{\"n\": 1}"), "");
            say("event", "{\"error\": \"\"}");
        } else if (wish.equals("invoke failing")) {
            say("failing", answer(invoke("{\"fail\": 1}")));
        } else if (wish.equals("raise")) {
            throw new IllegalArgumentException("raised on purpose");
        } else if (wish.equals("sleep")) {
            Thread.sleep(60_000);
        } else if (wish.equals("grow")) {
            grow();
        }
        return Collections.singletonMap("did", wish);
    }

    public void bytes(InputStream input, OutputStream output, Context context) throws Exception {
        ByteArrayOutputStream all = new ByteArrayOutputStream();
        byte[] part = new byte[8192];
        for (int count; (count = input.read(part)) > 0; ) {
            all.write(part, 0, count);
        }
        byte[] event = all.toByteArray();
        byte[] turned = new byte[event.length];
        for (int at = 0; at < event.length; at++) {
            turned[at] = event[event.length - 1 - at];
        }
        publish("bytes", turned);
        output.write(turned);
    }

    /** Memory outside the heap, which the virtual machine does not bound: only the function's limit does. */
    private static void grow() throws Exception {
        Class<?> type = Class.forName("sun.misc.Unsafe");
        Field field = type.getDeclaredField("theUnsafe");
        field.setAccessible(true);
        Object unsafe = field.get(null);
        Method allocate = type.getMethod("allocateMemory", long.class);
        Method fill = type.getMethod("setMemory", long.class, long.class, byte.class);
        for (;;) {
            fill.invoke(unsafe, allocate.invoke(unsafe, 1L << 20), 1L << 20, (byte) 1);
        }
    }

    private WorkResult invoke(String payload) throws Exception {
        String arn = System.getenv("CALLEE");
        return core.getWorkResult(arn, core.postWork(arn, "RequestResponse", bytes(payload), ""));
    }

    private static String answer(WorkResult result) {
        return "{\"error\": " + quoted(result.getFunctionErr() == null ? "" : result.getFunctionErr())
            + ", \"payload\": " + new String(result.getPayload(), StandardCharsets.UTF_8) + "}";
    }

    private void say(String name, String document) throws Exception {
        publish(name, bytes(document));
    }

    private void publish(String name, byte[] payload) throws Exception {
        String context = "{\"custom\": {\"source\": " + quoted(EnvVars.MY_FUNCTION_ARN) + ", \"subject\": "
            + quoted(System.getenv("OUT") + "/" + name) + "}}";
        core.postWork(EnvVars.ROUTER_FUNCTION_ARN, "Event", payload,
            Base64.getEncoder().encodeToString(bytes(context)));
    }

    private static String quoted(String text) {
        return "\"" + text.replace("\\", "\\\\").replace("\"", "\\\"") + "\"";
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
