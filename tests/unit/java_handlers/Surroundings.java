package handlers;

import com.amazonaws.services.lambda.runtime.Client;
import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.LambdaRuntime;
import com.amazonaws.services.lambda.runtime.RequestHandler;
import com.amazonaws.services.lambda.runtime.logging.LogLevel;

import java.io.IOException;
import java.nio.charset.Charset;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;

/** Tells what a handler finds around itself, and prints in every way there is. */
public class Surroundings implements RequestHandler<Map<String, Object>, Map<String, Object>> {
    @Override
    public Map<String, Object> handleRequest(Map<String, Object> input, Context context) {
        Map<String, Object> seen = new LinkedHashMap<>();
        seen.put("ids", context.getAwsRequestId().length() + " " + context.getAwsRequestId().equals(context.getAwsRequestId()));
        seen.put("log", context.getLogGroupName() + " " + context.getLogStreamName());
        seen.put("name", context.getFunctionName());
        seen.put("version", context.getFunctionVersion());
        seen.put("arn", context.getInvokedFunctionArn());
        seen.put("memory", context.getMemoryLimitInMB());
        seen.put("left", context.getRemainingTimeInMillis());
        seen.put("identity", context.getIdentity().getIdentityId() + context.getIdentity().getIdentityPoolId());
        seen.put("custom", context.getClientContext().getCustom());
        seen.put("environment", context.getClientContext().getEnvironment());
        Client client = context.getClientContext().getClient();
        seen.put("client", client == null ? null : new String[] {client.getInstallationId(), client.getAppTitle(),
            client.getAppVersionName(), client.getAppVersionCode(), client.getAppPackageName()});
        seen.put("charset", Charset.defaultCharset().name());
        try {
            seen.put("standard input", System.in.read());
        } catch (IOException error) {
            seen.put("standard input", error.toString());
        }
        return seen;
    }

    public void print(Context context) {
        System.out.println("one line, grün");
        System.out.print("two\nlines\r\n");
        System.out.print("in ");
        System.out.print("pieces\n");
        System.err.println("complaint");
        System.err.write('x');
        System.err.println();
        context.getLogger().log("a record\nof two lines\n");
        context.getLogger().log("bytes, grün".getBytes(java.nio.charset.StandardCharsets.UTF_8));
        context.getLogger().log("careful", LogLevel.WARN);
        context.getLogger().log("detail".getBytes(), LogLevel.DEBUG);
        LambdaRuntime.getLogger().log("without a context");
        new com.amazonaws.greengrass.common.GreengrassLogger().debug("hidden");
        new com.amazonaws.greengrass.common.GreengrassLogger()
            .log("from the SDK".getBytes(), com.amazonaws.greengrass.common.LogLevel.ERROR);
        System.out.print("without an end");
    }

    /** `count` threads print `count` lines each. */
    public void crowd(int count) throws InterruptedException {
        Thread[] threads = new Thread[count];
        for (int number = 0; number < count; number++) {
            final int mine = number;
            threads[number] = new Thread(() -> {
                for (int line = 0; line < count; line++) {
                    System.out.println("thread " + mine + " line " + line);
                }
            });
            threads[number].start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
    }

    public void printLong(int length) {
        StringBuilder text = new StringBuilder();
        while (text.length() < length) {
            text.append('ü');
        }
        System.out.println(text);
    }
}
