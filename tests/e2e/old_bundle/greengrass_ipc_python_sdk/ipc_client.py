"""The bundle's HTTP client: a new connection for each request, nothing configurable but what a test must."""

import collections
import os
import urllib.error
import urllib.request

from greengrass_common.env_vars import AUTH_TOKEN

WorkItem = collections.namedtuple("WorkItem", ["invocation_id", "payload", "client_context"])
GetWorkResultOutput = collections.namedtuple("GetWorkResultOutput", ["payload", "func_err"])


class IPCException(Exception):
    """A request failed."""


def base_url(endpoint="localhost", port=8000):
    """Where the core listens."""
    return "http://{}:{}/2016-11-01".format(endpoint, os.getenv("GG_DAEMON_PORT") or port)


class IPCClient:
    """The requests a function makes."""

    def __init__(self, endpoint="localhost", port=8000):
        self.url = base_url(endpoint, port)

    def post_work(self, function_arn, payload, client_context, invocation_type="RequestResponse"):
        """Begin an invocation; returns its id."""
        headers = {"X-Amz-Client-Context": client_context, "X-Amz-Invocation-Type": invocation_type}
        return self._send("/functions/" + function_arn, payload or b"", headers).info()["X-Amz-InvocationId"]

    def get_work_result(self, function_arn, invocation_id):
        """Wait for the result."""
        answer = self._send("/functions/" + function_arn, None, {"X-Amz-InvocationId": invocation_id})
        return GetWorkResultOutput(answer.read(), answer.info()["X-Amz-Function-Error"])

    def get_work(self, function_arn):
        """Wait for work."""
        answer = self._send("/functions/" + function_arn + "/work", None, {})
        headers = answer.info()
        return WorkItem(headers["X-Amz-InvocationId"], answer.read(), headers["X-Amz-Client-Context"])

    def post_work_result(self, function_arn, work_item):
        """Bring a result."""
        headers = {"X-Amz-InvocationId": work_item.invocation_id}
        self._send("/functions/" + function_arn + "/work", work_item.payload, headers).read()

    def post_handler_err(self, function_arn, invocation_id, handler_err):
        """Bring an error."""
        headers = {"X-Amz-InvocationId": invocation_id, "X-Amz-Function-Error": "Handled"}
        self._send("/functions/" + function_arn + "/work", handler_err, headers).read()

    def _send(self, path, data, headers):
        request = urllib.request.Request(self.url + path, data, dict(headers, Authorization=AUTH_TOKEN))
        try:
            return urllib.request.urlopen(request)
        except urllib.error.HTTPError as error:
            raise IPCException(f"{error.code} {error.read().decode()}") from error
        except urllib.error.URLError as error:
            raise IPCException(str(error)) from error
