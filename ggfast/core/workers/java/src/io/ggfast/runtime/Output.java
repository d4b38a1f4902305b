package io.ggfast.runtime;

import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.io.UnsupportedEncodingException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/**
 * What a function prints and logs, as records on fd 2, in the order in which it happens.
 *
 * A record is RECORD, the first letter of its level, the text with its line ends written as LINE_END, a line end.
 * Each printed line is a record of its own, each logged text is one record however many lines it has. Every record
 * is one write, whichever threads print at the same time.
 */
public final class Output {
    private static final char RECORD = '\u001e';
    private static final char LINE_END = '\u001d';
    private static final String LETTERS = "DIWEF";
    private static final int LINE_BYTES_MAX = 60 * 1024; // the core reads records of up to 64 KiB
    private static final int KEPT_BYTES = 4096; // of a buffer that a long line has made grow

    private static final FileOutputStream DESCRIPTOR = new FileOutputStream(FileDescriptor.err);
    private static final Lines PRINTED = new Lines('I');
    private static final Lines COMPLAINED = new Lines('E');
    private static int threshold = LETTERS.indexOf('I');

    private Output() {
    }

    /** Points System.in, System.out and System.err away from the socket; `level` is the lowest that is written. */
    static void install(String level) {
        threshold = LETTERS.indexOf(letter(level));
        System.setIn(new Nothing());
        System.setOut(stream(PRINTED));
        System.setErr(stream(COMPLAINED));
    }

    /** The letter of a level's name in any of the vocabularies that functions use; `I` for a name unheard of. */
    public static char letter(String level) {
        if (level == null || level.isEmpty() || level.equals("NOTSET") || level.equals("UNDEFINED")) {
            return 'I';
        }
        char first = level.equals("TRACE") ? 'D' : level.charAt(0);
        return LETTERS.indexOf(first) < 0 ? 'I' : first;
    }

    /** One record. Never raises: a log that nobody reads any more is no reason for a function to fail. */
    public static void record(char letter, String text) {
        if (LETTERS.indexOf(letter) < threshold) {
            return;
        }
        String shown = String.valueOf(text).replace('\n', LINE_END);
        write(("" + RECORD + letter + shown + "\n").getBytes(StandardCharsets.UTF_8));
    }

    /** Writes what was printed without a line end as a line. */
    static void flush() {
        PRINTED.end();
        COMPLAINED.end();
    }

    private static synchronized void write(byte[] bytes) {
        try {
            DESCRIPTOR.write(bytes, 0, bytes.length);
        } catch (IOException ignored) {
            return;
        }
    }

    private static PrintStream stream(Lines lines) {
        try {
            return new PrintStream(lines, false, "UTF-8");
        } catch (UnsupportedEncodingException impossible) {
            throw new AssertionError(impossible);
        }
    }

    /** Cuts what is printed into lines, each a record of one level. */
    private static final class Lines extends OutputStream {
        private final char letter;
        private byte[] buffer = new byte[256];
        private int count;

        Lines(char letter) {
            this.letter = letter;
            begin();
        }

        @Override
        public synchronized void write(int value) {
            if (value == '\n') {
                emit(count);
            } else {
                append((byte) value);
            }
        }

        @Override
        public synchronized void write(byte[] bytes, int from, int length) {
            if (LETTERS.indexOf(letter) < threshold) {
                return;
            }
            for (int at = from; at < from + length; at++) {
                write(bytes[at]);
            }
        }

        synchronized void end() {
            if (count > 2) {
                emit(count);
            }
        }

        private void append(byte value) {
            if (count >= LINE_BYTES_MAX) {
                int cut = count;
                while (cut > count - 4 && (buffer[cut - 1] & 0xC0) == 0x80) {
                    cut--; // not inside a character
                }
                cut = (buffer[cut - 1] & 0x80) != 0 ? cut - 1 : count;
                byte[] rest = Arrays.copyOfRange(buffer, cut, count);
                emit(cut);
                for (byte left : rest) {
                    append(left);
                }
            }
            if (count + 1 >= buffer.length) {
                buffer = Arrays.copyOf(buffer, buffer.length * 2);
            }
            buffer[count++] = value;
        }

        private void emit(int end) {
            if (end > 2 && buffer[end - 1] == '\r') {
                end--;
            }
            if (LETTERS.indexOf(letter) >= threshold) {
                buffer[end] = '\n';
                Output.write(Arrays.copyOf(buffer, end + 1));
            }
            begin();
        }

        private void begin() {
            if (buffer.length > KEPT_BYTES) {
                buffer = new byte[KEPT_BYTES];
            }
            buffer[0] = (byte) RECORD;
            buffer[1] = (byte) letter;
            count = 2;
        }
    }

    /** The standard input of a function: at its end from the start. */
    private static final class Nothing extends InputStream {
        @Override
        public int read() {
            return -1;
        }
    }
}
