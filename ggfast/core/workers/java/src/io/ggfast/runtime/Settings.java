package io.ggfast.runtime;

import com.amazonaws.greengrass.common.EnvVars;
import com.amazonaws.greengrass.common.FunctionArnFields;
import com.amazonaws.greengrass.common.InvalidArnException;

/** What the core tells the runtime in its arguments and its environment, read once. */
final class Settings {
    private static final String HANDLER = "--handler=";
    private static final double SECOND_NS = 1e9;

    final String handler;
    final boolean binary;
    final String functionArn = EnvVars.MY_FUNCTION_ARN == null ? "" : EnvVars.MY_FUNCTION_ARN;
    final String functionName;
    final String functionVersion;
    final String logGroup = variable("GGFAST_LOG_GROUP", "");
    final String logStream = variable("GGFAST_LOG_STREAM", "");
    final String logLevel = variable("GGFAST_LOG_LEVEL", "INFO");
    final long timeoutNs = (long) (number("GGFAST_TIMEOUT_S", 3) * SECOND_NS); // the default of a function's Timeout
    final int memoryMb = (int) (number("GGFAST_MEMORY_KB", 0) / 1024);

    Settings(String[] arguments) {
        String named = variable("GGFAST_HANDLER", "");
        for (String argument : arguments) {
            named = argument.startsWith(HANDLER) ? argument.substring(HANDLER.length()) : named;
        }
        handler = named;
        binary = "binary".equals(EnvVars.ENCODING_TYPE);
        String name = "";
        String version = "";
        try {
            FunctionArnFields fields = FunctionArnFields.fromString(functionArn);
            name = fields.getName();
            version = fields.getQualifier() == null ? "" : fields.getQualifier();
        } catch (InvalidArnException notGiven) {
            name = "";
        }
        functionName = name;
        functionVersion = version;
    }

    private static String variable(String name, String otherwise) {
        String value = System.getenv(name);
        return value == null ? otherwise : value;
    }

    private static double number(String name, double otherwise) {
        try {
            return Double.parseDouble(variable(name, ""));
        } catch (NumberFormatException notGiven) {
            return otherwise;
        }
    }
}
