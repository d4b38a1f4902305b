package io.ggfast.runtime;

import java.io.EOFException;
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.net.ProtocolException;
import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.HashMap;

/**
 * The worker's end of its socket (fd 0, for both directions): frames in, frames out, from any thread.
 *
 * A frame is a u32 little-endian length of (type byte + body), the type byte, the body. There is no reader thread:
 * whichever thread waits for something reads for all of them, one whole frame at a time, and the others sleep
 * meanwhile. Waiting cannot be interrupted: the core bounds every wait, and a thread's interruption is kept for it.
 */
final class Channel {
    static final int FRAME_BYTES_MAX = 1024 * 1024; // both directions; the core ends a worker that sends more
    static final int SHORT_MAX = 0xFFFF; // lengths of ARN and client context
    static final int OK = 0;
    static final int HANDLED = 1;
    static final int UNHANDLED = 2;
    static final int REFUSED = 3;

    private static final int CHUNK_BYTES = 8192; // up to here the JDK's native code takes its stack, not the heap
    private static final int OPEN_CALLS_MAX = 64; // the core's limit on answers that one worker may wait for
    private static final int UNFETCHED_MAX = 256; // results that a function has asked for and does not take
    private static final byte[] NO_BYTES = new byte[0];

    private final FileInputStream in = new FileInputStream(FileDescriptor.in);
    private final FileOutputStream out = new FileOutputStream(FileDescriptor.in); // whatever is on fd 1, frames are not
    private final Object sending = new Object(); // one frame at a time; never taken while `this` is held
    private final byte[] buffer = new byte[CHUNK_BYTES]; // this and the next two belong to the reading thread
    private int from;
    private int until;

    private boolean reading; // guarded by `this`, as is everything below
    private boolean stopping;
    private boolean ended;
    private int status;
    private int openCalls;
    private int lastCall;
    private final ArrayDeque<Work> work = new ArrayDeque<Work>();
    private final HashMap<Integer, Call> calls = new HashMap<Integer, Call>();

    /** One invocation to run. `payload` is null when the heap had no room for it. */
    static final class Work {
        int invocation;
        byte[] context;
        byte[] payload;
    }

    /** One call and, when it is there, its answer. `payload` is null when the heap had no room for it. */
    static final class Call implements Awaited {
        boolean answered;
        int status;
        byte[] payload;

        @Override
        public boolean holds() {
            return answered;
        }
    }

    /** Something to wait for; asked under the channel's lock. */
    private interface Awaited {
        boolean holds();
    }

    private final Awaited workOrEnd = new Awaited() {
        @Override
        public boolean holds() {
            return stopping || !work.isEmpty();
        }
    };

    private final Awaited roomForCall = new Awaited() {
        @Override
        public boolean holds() {
            return openCalls < OPEN_CALLS_MAX;
        }
    };

    // --- what the runtime uses ------------------------------------------------------------------------------

    /** Tells the core that the function can take work, or why it can not. */
    void initialised(boolean ok, byte[] text) {
        byte[] head = head(2, text.length, 'I');
        head[5] = (byte) (ok ? 1 : 0);
        sendOrEnd(head, text);
    }

    /** Waits for work; null when the core asks this process to end, or is gone. */
    Work next() {
        await(workOrEnd);
        synchronized (this) {
            return work.poll();
        }
    }

    /** The exit status that the end of the connection stands for, or the core's wish to end. */
    synchronized int status() {
        return status;
    }

    /** Sends a handler's result (`R`) or its error document (`E`). */
    void reply(char type, int invocation, byte[] payload) {
        byte[] head = head(5, payload.length, type);
        putInt(head, 5, invocation);
        sendOrEnd(head, payload);
    }

    // --- what the SDKs' classes use -------------------------------------------------------------------------

    /**
     * Sends a call; returns its number for {@link #answer}, or 0 when no answer is wanted. Waits while the core's
     * limit on open calls is reached. IOException, with a text for people, when it cannot be sent.
     */
    int call(byte[] arn, int kind, byte[] context, byte[] payload, boolean answered) throws IOException {
        long size = 10L + arn.length + context.length + payload.length;
        if (arn.length > SHORT_MAX || context.length > SHORT_MAX) {
            throw new IOException("client context is " + context.length + " bytes, the limit is " + SHORT_MAX);
        }
        if (size > FRAME_BYTES_MAX) {
            throw new IOException("payload is " + payload.length + " bytes, the limit is " + (FRAME_BYTES_MAX - 1024));
        }
        byte[] head = new byte[14 + arn.length + context.length];
        putInt(head, 0, (int) size);
        head[4] = 'P';
        head[9] = (byte) kind;
        putShort(head, 10, arn.length);
        System.arraycopy(arn, 0, head, 12, arn.length);
        putShort(head, 12 + arn.length, context.length);
        System.arraycopy(context, 0, head, 14 + arn.length, context.length);
        int number = answered ? open() : 0;
        putInt(head, 5, number);
        send(head, payload);
        return number;
    }

    /** Waits for the answer to call `number`; null when there is no such call. IOException when the core is gone. */
    Call answer(int number) throws IOException {
        Call call;
        synchronized (this) {
            call = calls.get(number);
        }
        if (call == null) {
            return null;
        }
        await(call);
        synchronized (this) {
            calls.remove(number);
            if (!call.answered) {
                throw gone();
            }
        }
        return call;
    }

    private int open() throws IOException {
        while (true) {
            await(roomForCall);
            synchronized (this) {
                if (ended) {
                    throw gone();
                }
                if (calls.size() - openCalls >= UNFETCHED_MAX) {
                    throw new IOException(UNFETCHED_MAX + " results of earlier calls have not been fetched");
                }
                if (openCalls < OPEN_CALLS_MAX) {
                    do {
                        lastCall++;
                    } while (lastCall == 0 || calls.containsKey(lastCall));
                    calls.put(lastCall, new Call());
                    openCalls++;
                    return lastCall;
                }
            }
        }
    }

    private static IOException gone() {
        return new IOException("the core has closed this function's connection");
    }

    // --- sending --------------------------------------------------------------------------------------------

    private static byte[] head(int headBytes, int restBytes, char type) {
        byte[] head = new byte[4 + headBytes];
        putInt(head, 0, headBytes + restBytes);
        head[4] = (byte) type;
        return head;
    }

    private void sendOrEnd(byte[] head, byte[] rest) {
        try {
            send(head, rest);
        } catch (IOException ignored) {
            return; // `next` says it
        }
    }

    private void send(byte[] head, byte[] rest) throws IOException {
        byte[] first = head;
        int sent = 0;
        if (head.length + rest.length <= CHUNK_BYTES) { // one frame, one system call
            first = new byte[head.length + rest.length];
            System.arraycopy(head, 0, first, 0, head.length);
            System.arraycopy(rest, 0, first, head.length, rest.length);
            sent = rest.length;
        }
        synchronized (sending) {
            boolean whole = false;
            try {
                write(first, 0);
                write(rest, sent);
                whole = true;
            } catch (IOException error) {
                throw gone();
            } finally {
                if (!whole) {
                    end(0); // what is left of the frame would be read as another one
                }
            }
        }
    }

    private void write(byte[] bytes, int at) throws IOException {
        while (at < bytes.length) {
            int length = Math.min(CHUNK_BYTES, bytes.length - at);
            out.write(bytes, at, length);
            at += length;
        }
    }

    // --- reading --------------------------------------------------------------------------------------------

    /** Returns when `what` holds or the connection has ended. */
    private void await(Awaited what) {
        boolean interrupted = false;
        try {
            while (true) {
                synchronized (this) {
                    while (reading && !ended && !what.holds()) {
                        try {
                            wait();
                        } catch (InterruptedException kept) {
                            interrupted = true;
                        }
                    }
                    if (ended || what.holds()) {
                        return;
                    }
                    reading = true;
                }
                readForAll();
            }
        } finally {
            if (interrupted) {
                Thread.currentThread().interrupt();
            }
        }
    }

    private void readForAll() {
        boolean read = false;
        try {
            readFrame();
            read = true;
        } catch (ProtocolException error) {
            Output.record('F', "Channel.java:" + error.getStackTrace()[0].getLineNumber() + "," + error.getMessage());
        } catch (IOException gone) {
            end(0);
        } finally {
            if (!read) { // whatever the reason, the stream has lost its place
                end(1);
            }
            synchronized (this) {
                reading = false;
                notifyAll();
            }
        }
    }

    private void readFrame() throws IOException {
        need(5);
        int size = getInt(buffer, from) - 1;
        int type = buffer[from + 4];
        from += 5;
        if (size < 0 || size >= FRAME_BYTES_MAX) {
            throw new ProtocolException("the core has sent a frame of " + (size + 1L) + " bytes");
        }
        int number = 0;
        if (type == 'W' || type == 'A') {
            if (size < (type == 'W' ? 6 : 5)) {
                throw new ProtocolException("the core has sent a frame that ends too early");
            }
            need(4);
            number = getInt(buffer, from);
            from += 4;
            size -= 4;
        }
        byte[] body = null;
        try {
            body = new byte[size];
        } catch (OutOfMemoryError full) {
            skip(size);
        }
        if (body != null) {
            read(body);
        }
        take(type, number, body);
    }

    private synchronized void take(int type, int number, byte[] body) throws IOException {
        if (type == 'W') {
            work.add(work(number, body));
        } else if (type == 'A') {
            Call call = calls.get(number);
            if (call != null && !call.answered) {
                openCalls--;
                call.answered = true;
                call.status = body == null ? UNHANDLED : body[0];
                call.payload = body == null ? null : Arrays.copyOfRange(body, 1, body.length);
            }
        } else if (type == 'X') {
            stopping = true;
        }
    }

    private static Work work(int number, byte[] body) throws IOException {
        Work work = new Work();
        work.invocation = number;
        work.context = NO_BYTES;
        if (body == null) {
            return work;
        }
        int length = (body[0] & 0xFF) | (body[1] & 0xFF) << 8;
        if (length > body.length - 2) {
            throw new ProtocolException("the core has sent a frame that ends too early");
        }
        try {
            work.context = Arrays.copyOfRange(body, 2, 2 + length);
            work.payload = Arrays.copyOfRange(body, 2 + length, body.length);
        } catch (OutOfMemoryError full) {
            work.payload = null;
        }
        return work;
    }

    /** Makes the buffer hold `count` bytes at `from`. */
    private void need(int count) throws IOException {
        while (until - from < count) {
            System.arraycopy(buffer, from, buffer, 0, until - from);
            until -= from;
            from = 0;
            int read = in.read(buffer, until, buffer.length - until);
            if (read < 0) {
                throw new EOFException();
            }
            until += read;
        }
    }

    private void read(byte[] body) throws IOException {
        int at = Math.min(body.length, until - from);
        System.arraycopy(buffer, from, body, 0, at);
        from += at;
        while (at < body.length) {
            int read = in.read(body, at, Math.min(CHUNK_BYTES, body.length - at));
            if (read < 0) {
                throw new EOFException();
            }
            at += read;
        }
    }

    private void skip(int count) throws IOException {
        while (count > 0) {
            need(1);
            int here = Math.min(count, until - from);
            from += here;
            count -= here;
        }
    }

    /** Nobody is left to work for, or to be understood by: the process ends, after its shutdown hooks. */
    private void end(final int reason) {
        synchronized (this) {
            if (ended) {
                return;
            }
            ended = true;
            status = reason;
            notifyAll();
        }
        Thread last = new Thread("ggfast-end") {
            @Override
            public void run() {
                System.exit(reason);
            }
        };
        last.setDaemon(true); // inside a shutdown hook this thread waits for ever, which must hold up nothing
        last.start();
    }

    // --- numbers --------------------------------------------------------------------------------------------

    private static int getInt(byte[] bytes, int at) {
        return (bytes[at] & 0xFF) | (bytes[at + 1] & 0xFF) << 8 | (bytes[at + 2] & 0xFF) << 16 | bytes[at + 3] << 24;
    }

    private static void putInt(byte[] bytes, int at, int value) {
        putShort(bytes, at, value);
        putShort(bytes, at + 2, value >>> 16);
    }

    private static void putShort(byte[] bytes, int at, int value) {
        bytes[at] = (byte) value;
        bytes[at + 1] = (byte) (value >>> 8);
    }
}
