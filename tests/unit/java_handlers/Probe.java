package io.ggfast.runtime;

import com.amazonaws.services.lambda.runtime.Context;

import java.nio.charset.StandardCharsets;
import java.util.Map;

/** Runs any handler inside one worker: it stands in the runtime's own package and reaches its classes. */
public class Probe {
    public String run(Map<String, Object> request, Context context) throws Throwable {
        byte[] payload = ((String) request.get("payload")).getBytes(StandardCharsets.ISO_8859_1);
        Handler handler = new Handler((String) request.get("handler"), Boolean.TRUE.equals(request.get("binary")));
        return new String(handler.invoke(payload, context), StandardCharsets.ISO_8859_1);
    }
}
