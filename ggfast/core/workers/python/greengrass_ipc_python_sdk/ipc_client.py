"""IPCClient: the calls published SDKs make, sent over the worker's own socket.

The socket is the identity: nothing a function writes into a message can make it another function. A
best-effort publish is one send without an answer; everything else waits for the daemon's word.
"""

import base64
import json
from collections import namedtuple

from ggchannel import EVENT, HANDLED, OK, REFUSED, REQUEST_RESPONSE, UNHANDLED
from greengrass_common import env_vars

WorkItem = namedtuple("WorkItem", ("invocation_id", "payload", "client_context"))
GetWorkResultOutput = namedtuple("GetWorkResultOutput", ("payload", "func_err"))
InitializationResult = namedtuple("InitializationResult", ("function_error",))

_FUNCTION_ERRORS = {OK: "", HANDLED: "Handled", UNHANDLED: "Unhandled"}
_KINDS = {"Event": EVENT, "RequestResponse": REQUEST_RESPONSE}
_DONE = "event"  # the invocation id of a call nobody waits for

_channel = None
_taken = {}


def use_channel(channel):
    """Called once by the runtime, before the function is imported."""
    global _channel
    _channel = channel


class IPCException(Exception):
    """The core refused the call, or could not be asked."""

    def __init__(self, message="", *args):
        Exception.__init__(self, message, *args)
        self.message = message

    def __str__(self):
        return str(self.message)


class IPCClient(object):
    """`endpoint` and `port` are what old SDKs pass; there is one way to the core and it needs neither."""

    def __init__(self, endpoint="localhost", port=None):
        self.endpoint = endpoint
        self.port = port

    def post_work(self, function_arn, payload, client_context, invocation_type="RequestResponse"):
        """Hand work to a function or a part of the core; returns the invocation id for `get_work_result`."""
        kind = _KINDS.get(invocation_type)
        if kind is None:
            raise IPCException('invocation type is %r, expected "Event" or "RequestResponse"' % (invocation_type,))
        context = _decoded(client_context)
        waits = kind == REQUEST_RESPONSE or function_arn != env_vars.ROUTER_FUNCTION_ARN or _all_or_error(context)
        if function_arn == env_vars.ROUTER_FUNCTION_ARN:
            kind = EVENT
        try:
            number = _open().call(function_arn.encode("utf-8"), kind, context, _encoded(payload), waits)
        except ValueError as error:
            raise IPCException(str(error))
        if not number:
            return _DONE
        if kind == REQUEST_RESPONSE:
            return str(number)
        _finish(number)
        return _DONE

    def get_work_result(self, function_arn, invocation_id):
        """Wait for the result of `post_work`; a call without one gives an empty result at once."""
        if invocation_id == _DONE:
            return GetWorkResultOutput(b"", "")
        try:
            return _finish(int(invocation_id))
        except ValueError:
            raise IPCException("invocation id %r of %s is not known" % (invocation_id, function_arn))

    def get_work(self, function_arn):
        """Wait for work: for code that runs its own loop instead of the runtime's."""
        work = _open().next_work()
        if work is None:
            raise SystemExit(0)
        _taken[str(work.invocation)] = work
        return WorkItem(str(work.invocation), work.payload, base64.b64encode(work.context).decode("ascii"))

    def post_work_result(self, function_arn, work_item):
        _open().result(_taken_work(work_item.invocation_id), _encoded(work_item.payload))

    def post_handler_err(self, function_arn, invocation_id, handler_err):
        _open().error(_taken_work(invocation_id), _encoded(handler_err))

    def put_initialization_result(self, function_arn, func_error=None):
        text = getattr(func_error, "function_error", func_error) or ""
        _open().initialised(not text, str(text))

    @staticmethod
    def set_gg_daemon_port(port):
        """Nothing to set: the worker's socket has no port."""


def _open():
    if _channel is None:
        raise IPCException("this process is not a function of the core: there is nothing to talk to")
    return _channel


def _finish(number):
    status, payload = _open().answer(number)
    if status >= REFUSED:
        raise IPCException(payload.decode("utf-8", "replace"))
    return GetWorkResultOutput(payload, _FUNCTION_ERRORS[status])


def _taken_work(invocation_id):
    work = _taken.pop(str(invocation_id), None)
    if work is None:
        raise IPCException("invocation %s was not taken with get_work, or is already answered" % (invocation_id,))
    return work


def _encoded(payload):
    """Payloads as published SDKs pass them: text, bytes-like, a file, or nothing."""
    if payload is None:
        return b""
    if isinstance(payload, bytes):
        return payload
    if isinstance(payload, str):
        return payload.encode("utf-8")
    if hasattr(payload, "read"):
        return _encoded(payload.read())
    return bytes(memoryview(payload))


def _decoded(client_context):
    """The JSON inside a base64 client context (text or bytes, may be empty)."""
    if not client_context:
        return b""
    try:
        return base64.b64decode(client_context, validate=True)
    except ValueError as error:
        raise IPCException("client context is not base64: %s" % (error,))


def _all_or_error(context):
    if b"AllOrError" not in context:
        return False
    try:
        return json.loads(context)["custom"].get("queueFullPolicy") == "AllOrError"
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
