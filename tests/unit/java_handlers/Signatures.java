package handlers;

import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestHandler;
import com.amazonaws.services.lambda.runtime.RequestStreamHandler;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** One method for each shape that a handler may have. */
public class Signatures {
    public static int count;

    public String nothing() {
        return "nothing";
    }

    public static String atClass(String text) {
        return "static " + text;
    }

    public String contextOnly(Context context) {
        return context.getFunctionName();
    }

    public Object any(Object value) {
        return value;
    }

    public Map<String, Object> map(Map<String, Object> value, Context context) {
        value.put("function", context.getFunctionName());
        return value;
    }

    public long longs(HashMap<String, Long> values) {
        long sum = 0;
        for (Long value : values.values()) {
            sum += value;
        }
        return sum;
    }

    public int integers(List<Integer> values, Context context) {
        int sum = 0;
        for (int value : values) {
            sum += value;
        }
        return sum;
    }

    public List<List<String>> texts(List<List<String>> values) {
        return values;
    }

    public String text(String value) {
        return value == null ? "none" : value.toUpperCase();
    }

    public int number(int value) {
        return value + 1;
    }

    public byte small(byte value) {
        return value;
    }

    public Double real(Double value) {
        return value;
    }

    public BigDecimal exact(BigDecimal value) {
        return value;
    }

    public BigInteger big(BigInteger value) {
        return value;
    }

    public boolean truth(boolean value) {
        return !value;
    }

    public byte[] bytes(byte[] payload) {
        return reversed(payload);
    }

    public int length(InputStream input) throws IOException {
        return read(input).length;
    }

    public void silent(String value) {
        count++;
    }

    public Object odd() {
        Map<Object, Object> map = new HashMap<>();
        map.put(7, new Object[] {'c', 1.5f, Double.NaN, null, new int[] {1, 2}, Thread.State.NEW, "\u0001\ud800\"\\/\n"});
        return map;
    }

    public Object endless() {
        Object[] self = new Object[1];
        self[0] = self;
        return self;
    }

    public void inOutContext(InputStream input, OutputStream output, Context context) throws IOException {
        output.write(reversed(read(input)));
        output.write(context.getFunctionName().getBytes());
    }

    public void inOut(InputStream input, OutputStream output) throws IOException {
        output.write(reversed(read(input)));
    }

    public void outContext(OutputStream output, Context context) throws IOException {
        output.write(context.getFunctionName().getBytes());
    }

    public void inContext(InputStream input, Context context) throws IOException {
        count += read(input).length;
    }

    public void in(InputStream input) throws IOException {
        count += read(input).length;
    }

    public void out(OutputStream output) throws IOException {
        output.write(new byte[] {0, 1, (byte) 255});
    }

    public String strange(Context context, String value) {
        return value;
    }

    public String pick(String one) {
        return "one";
    }

    public String pick(InputStream one, OutputStream two) {
        return "streams";
    }

    public String pick(Map<String, Object> one, Context two) {
        return "with context";
    }

    public String unclear(String one, Context two) {
        return "a";
    }

    public String unclear(Integer one, Context two) {
        return "b";
    }

    String hidden(String value) {
        return value;
    }

    static byte[] reversed(byte[] bytes) {
        byte[] result = Arrays.copyOf(bytes, bytes.length);
        for (int at = 0; at < bytes.length; at++) {
            result[at] = bytes[bytes.length - 1 - at];
        }
        return result;
    }

    static byte[] read(InputStream input) throws IOException {
        ByteArrayOutputStream all = new ByteArrayOutputStream();
        for (int value = input.read(); value >= 0; value = input.read()) {
            all.write(value);
        }
        return all.toByteArray();
    }

    /** `package.Class` alone; the types come from the interface. */
    public static class Typed implements RequestHandler<List<Long>, String> {
        @Override
        public String handleRequest(List<Long> input, Context context) {
            long sum = 0;
            for (Long value : input) {
                sum += value;
            }
            return context.getFunctionName() + sum;
        }
    }

    /** What many projects have: a base class that the type is given to further down. */
    public abstract static class Base<T> implements RequestHandler<T, Map<String, Object>> {
        @Override
        public Map<String, Object> handleRequest(T input, Context context) {
            Map<String, Object> result = new HashMap<>();
            result.put("type", input.getClass().getSimpleName());
            result.put("text", input.toString());
            return result;
        }
    }

    public static class OfLong extends Base<Long> {
    }

    public static class OfReading extends Base<Reading> {
    }

    public static class Streams implements RequestStreamHandler {
        @Override
        public void handleRequest(InputStream input, OutputStream output, Context context) throws IOException {
            output.write(reversed(read(input)));
        }
    }

    static class Hidden {
        public String handleRequest(String value) {
            return "from a hidden class: " + value;
        }
    }

    /** A plain class with fields: only a JSON mapper knows how to make one. */
    public static class Reading {
        public String sensor;
        public double value;
        public List<Integer> samples;

        @Override
        public String toString() {
            return sensor + "=" + value + samples;
        }
    }

    public Reading reading(Reading input, Context context) {
        input.value *= 2;
        return input;
    }

    public List<Reading> readings(List<Reading> inputs) {
        inputs.get(0).sensor += "!";
        return inputs;
    }
}
