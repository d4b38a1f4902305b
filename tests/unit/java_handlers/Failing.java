package handlers;

import com.amazonaws.services.lambda.runtime.Context;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** Every way to fail. */
public class Failing {
    public static class Own extends Exception {
        public Own(String message, Throwable cause) {
            super(message, cause);
        }
    }

    public static class Unshowable extends RuntimeException {
        @Override
        public String getMessage() {
            throw new IllegalStateException("no");
        }
    }

    private static List<byte[]> kept;

    /** Leaves a quarter of a megabyte of the heap. */
    private static void hog() {
        kept = new ArrayList<>();
        byte[] room = new byte[262144];
        try {
            while (room.length > 0) {
                kept.add(new byte[65536]);
            }
        } catch (OutOfMemoryError full) {
            room = null;
        }
    }

    public String handleRequest(Map<String, Object> input, Context context) throws Exception {
        switch (String.valueOf(input.get("how"))) {
            case "own":
                throw deep(3);
            case "silent":
                throw new NullPointerException();
            case "unshowable":
                throw new Unshowable();
            case "long":
                throw new IllegalStateException(new String(new char[100000]).replace('\0', 'y'));
            case "memory":
                List<byte[]> all = new ArrayList<>();
                while (true) {
                    all.add(new byte[65536]);
                }
            case "hog":
                hog();
                return "full";
            case "free":
                kept = null;
                return "free";
            case "stack":
                return String.valueOf(down(0));
            case "thread":
                Thread thread = new Thread(() -> {
                    throw new IllegalStateException("in a thread");
                });
                thread.start();
                thread.join();
                return "survived";
            case "exit":
                System.exit(7);
                return "";
            default:
                return "well";
        }
    }

    private static Own deep(int levels) {
        return levels == 0 ? new Own("it broke", new RuntimeException("the cause")) : deep(levels - 1);
    }

    private static int down(int depth) {
        return down(depth + 1) + 1;
    }

    public static class AtLoad {
        static final int VALUE = Integer.parseInt("no number");

        public String handleRequest(String input) {
            return input;
        }
    }

    public static class AtConstruction {
        public AtConstruction() {
            throw new IllegalStateException("will not be made");
        }

        public String handleRequest(String input) {
            return input;
        }
    }

    public static class NeedsArgument {
        public NeedsArgument(String argument) {
        }

        public String handleRequest(String input) {
            return input;
        }
    }
}
