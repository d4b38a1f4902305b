package handlers;

import com.amazonaws.greengrass.common.EnvVars;
import com.amazonaws.greengrass.ipcsdk.DefaultIPCClient;
import com.amazonaws.greengrass.ipcsdk.IPCException;
import com.amazonaws.services.lambda.runtime.Context;

import java.util.concurrent.CountDownLatch;

/** A function with threads and shutdown hooks of its own. */
public class Living {
    private static int invocations;

    static {
        Thread endless = new Thread(() -> {
            while (true) {
                try {
                    Thread.sleep(1000000);
                } catch (InterruptedException again) {
                    continue;
                }
            }
        });
        endless.start();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            System.out.println("hook");
            try {
                new DefaultIPCClient().postWork(EnvVars.ROUTER_FUNCTION_ARN, "Event", "bye".getBytes(),
                    "{\"custom\":{\"subject\":\"end\"}}");
            } catch (IPCException error) {
                System.out.println("too late");
            }
        }));
        System.out.println("loaded");
    }

    public int handleRequest(Integer waitMs, Context context) throws InterruptedException {
        new CountDownLatch(1).await(waitMs, java.util.concurrent.TimeUnit.MILLISECONDS);
        return ++invocations;
    }

    /** Interrupts itself and then waits for the core. */
    public String interrupted() throws Exception {
        Thread.currentThread().interrupt();
        DefaultIPCClient client = new DefaultIPCClient();
        String id = client.postWork(EnvVars.SHADOW_FUNCTION_ARN, "RequestResponse", null, null);
        String result = new String(client.getWorkResult("", id).getPayload());
        return result + Thread.interrupted();
    }
}
