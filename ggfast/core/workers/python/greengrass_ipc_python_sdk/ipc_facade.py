"""The service client of the machine-learning SDK and its connectors."""

from collections import namedtuple

from greengrass_ipc_python_sdk.ipc_client import IPCClient, IPCException

GreengrassServiceMessage = namedtuple("GreengrassServiceMessage", ("context", "payload"))
GreengrassServiceCallOutput = namedtuple("GreengrassServiceCallOutput", ("response", "error_response"))


class GreengrassRuntimeException(Exception):
    """The core could not run the call."""


class GreengrassServiceClient(object):
    """Calls a function or connector by its ARN and tells its own errors from the core's."""

    def __init__(self):
        self._ipc = IPCClient()

    def call(self, address, message):
        """`response` on success, `error_response` when the other function raised; GreengrassRuntimeException
        for everything the core found wrong."""
        try:
            invocation_id = self._ipc.post_work(address, message.payload, message.context)
            output = self._ipc.get_work_result(address, invocation_id)
        except IPCException as error:
            raise GreengrassRuntimeException(str(error))
        if output.func_err == "Handled":
            return GreengrassServiceCallOutput(None, GreengrassServiceMessage(b"", output.payload))
        if output.func_err:
            raise GreengrassRuntimeException(output.payload.decode("utf-8", "replace"))
        return GreengrassServiceCallOutput(GreengrassServiceMessage(b"", output.payload), None)
