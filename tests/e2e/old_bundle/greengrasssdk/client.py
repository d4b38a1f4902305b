"""Clients by name."""

import base64
import json
import logging

from greengrass_common.common_log_appender import local_cloudwatch_handler
from greengrass_common.env_vars import MY_FUNCTION_ARN, ROUTER_FUNCTION_ARN, SHADOW_FUNCTION_ARN
from greengrass_ipc_python_sdk.ipc_client import IPCClient

logger = logging.getLogger("old_bundle")
logger.addHandler(local_cloudwatch_handler)
logger.setLevel(logging.INFO)
logger.propagate = False


def client(name):
    """`lambda` or `iot-data`."""
    return {"lambda": Lambda, "iot-data": IotData}[name]()


class Lambda:
    """Invocations."""

    def __init__(self):
        self.ipc = IPCClient(endpoint="localhost", port=8000)

    def invoke(self, FunctionName, Payload=b"", ClientContext="", InvocationType="RequestResponse"):
        """Run a function."""
        logger.info("invoking %s", FunctionName)
        invocation = self.ipc.post_work(FunctionName, Payload, ClientContext, InvocationType)
        if InvocationType == "Event":
            return {"Payload": b"", "FunctionError": ""}
        output = self.ipc.get_work_result(FunctionName, invocation)
        return {"Payload": output.payload, "FunctionError": output.func_err}


class IotData:
    """Messages and shadows."""

    def __init__(self):
        self.functions = Lambda()

    def publish(self, topic, payload):
        """Send a message into the table."""
        custom = {"source": MY_FUNCTION_ARN, "subject": topic}
        self.functions.invoke(ROUTER_FUNCTION_ARN, payload, _context(custom), "Event")

    def get_thing_shadow(self, thingName):
        """A shadow's document."""
        custom = {"subject": f"$aws/things/{thingName}/shadow/get"}
        return self.functions.invoke(SHADOW_FUNCTION_ARN, b"", _context(custom))


def _context(custom):
    return base64.b64encode(json.dumps({"custom": custom}).encode()).decode()
