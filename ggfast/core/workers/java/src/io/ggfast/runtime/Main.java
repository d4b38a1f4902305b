package io.ggfast.runtime;

import java.lang.reflect.Field;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * Runs one Java function: {@code java <flags> -cp <path> io.ggfast.runtime.Main --handler=package.Class::method}.
 *
 * The core's socket is fd 0, because Java cannot take over a descriptor beyond the standard ones; frames go both ways
 * through it. fd 2 is the log pipe: what the function prints goes there as records. The runtime leaves fd 1 alone.
 *
 * The class path is, in this order: this jar, the package's folder, every {@code *.jar} at the folder's top (a package
 * may be one jar with everything in it), {@code lib/*}. Runtime and function share the one class loader, so that the
 * types of the interfaces agree whether a package brings its own copies of them or not.
 *
 * Ends with status 0 when the core asks for it (after the running handler) or is gone, with 1 when the function cannot
 * be started or the socket carries something that is not frames; shutdown hooks run in every case, and threads that the function left running do not hold it up.
 */
public final class Main {
    private static final int TEXT_BYTES_MAX = 4096; // of what the core is told about a failed start
    private static final int EXIT_INITIALISATION = 1;
    // Where published SDKs keep their interface version.
    private static final String[] INTERFACE_CLASSES = {
        "com.amazonaws.greengrass.javasdk.InterfaceVersion",
        "com.amazonaws.greengrass.javasdk.common.InterfaceVersion",
        "com.amazonaws.greengrass.javasdk.model.InterfaceVersion",
        "com.amazonaws.greengrass.javasdk.util.InterfaceVersion",
        "com.amazonaws.greengrass.javasdk.utils.InterfaceVersion",
    };

    private final Channel channel;
    private final Settings settings;
    private Handler handler;

    private Main(Channel channel, Settings settings) {
        this.channel = channel;
        this.settings = settings;
    }

    /** Never returns: the process ends with the function. */
    public static void main(String[] arguments) {
        Channel channel = new Channel();
        Settings settings = new Settings(arguments);
        Output.install(settings.logLevel);
        Calls.use(channel);
        Runtime.getRuntime().addShutdownHook(new Thread("ggfast-flush") {
            @Override
            public void run() {
                Output.flush();
            }
        });
        Main runtime = new Main(channel, settings);
        if (!runtime.load()) {
            System.exit(EXIT_INITIALISATION);
        }
        runtime.run();
        System.exit(channel.status());
    }

    private boolean load() {
        String text = "";
        try {
            handler = new Handler(settings.handler, settings.binary);
            checkInterface(System.getenv("GGC_MAX_INTERFACE_VERSION"));
        } catch (Throwable error) {
            Throwable shown = error instanceof ExceptionInInitializerError && error.getCause() != null
                ? error.getCause() : error;
            text = "Failed to import handler function \"" + settings.handler + "\" due to exception: " + shown;
            log('F', text);
            log('E', Failure.trace(error));
        }
        Output.flush();
        channel.initialised(handler != null && text.isEmpty(), start(text.getBytes(StandardCharsets.UTF_8)));
        return text.isEmpty();
    }

    private static byte[] start(byte[] text) {
        int end = Math.min(text.length, TEXT_BYTES_MAX);
        while (end < text.length && end > 0 && (text[end] & 0xC0) == 0x80) {
            end--; // not inside a character
        }
        return Arrays.copyOf(text, end);
    }

    private void run() {
        for (Channel.Work work = channel.next(); work != null; work = channel.next()) {
            invoke(work);
        }
    }

    private void invoke(Channel.Work work) {
        byte[] result = null;
        byte[] failure = null;
        try {
            if (work.payload == null) {
                throw new OutOfMemoryError("the payload does not fit into the function's memory");
            }
            result = handler.invoke(work.payload, new InvocationContext(settings, work.context));
            if (result.length > Channel.FRAME_BYTES_MAX - 5) {
                throw new InvalidPayloadException("result is " + result.length + " bytes, the limit is "
                    + (Channel.FRAME_BYTES_MAX - 5));
            }
        } catch (Throwable error) {
            result = null;
            failure = failed(error);
        }
        Output.flush();
        channel.reply(failure == null ? 'R' : 'E', work.invocation, failure == null ? result : failure);
    }

    private byte[] failed(Throwable error) {
        try {
            log('E', "Failed to run handler function \"" + settings.handler + "\" due to exception: "
                + Failure.message(error) + "\n" + Failure.trace(error));
            return Failure.document(error);
        } catch (OutOfMemoryError full) {
            return Failure.outOfMemory();
        }
    }

    /** Refuses an SDK that is newer than the core; no SDK at all is fine, one without a version counts as 1.0. */
    private static void checkInterface(String offered) throws ReflectiveOperationException {
        String ours = offered == null ? "1.0" : offered;
        for (String name : INTERFACE_CLASSES) {
            Field field;
            try {
                field = Class.forName(name).getField("INTERFACE_VERSION");
            } catch (ClassNotFoundException | NoSuchFieldException none) {
                continue;
            }
            String found = String.valueOf(field.get(null));
            if (part(found, 0) != part(ours, 0) || part(found, 1) > part(ours, 1)) {
                throw new IllegalStateException("the function's Greengrass SDK speaks interface version " + found
                    + ", this core speaks " + ours + ": package the function with an older SDK or update the core");
            }
        }
    }

    private static int part(String version, int index) {
        String[] parts = version.split("\\.");
        if (parts.length < 2) {
            throw new IllegalStateException("version \"" + version + "\" is not <major>.<minor>");
        }
        return Integer.parseInt(parts[index]);
    }

    /** A record of our own, in V1's form `file:line,text`. */
    private static void log(char letter, String text) {
        StackTraceElement caller = new Throwable().getStackTrace()[1];
        Output.record(letter, caller.getFileName() + ":" + caller.getLineNumber() + "," + text);
    }
}
