"""`ggfast-core invoke FUNCTION`: run one deployed function from the command line.

Standard output is exactly what the function returned, so that it can be piped on (on a terminal with control
characters escaped); everything else goes to standard error. Exit status 0: it returned; 1: it failed, or could not be
asked.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from pathlib import Path
from typing import Any

from ggfast import limits
from ggfast.cli import control_client
from ggfast.cli.terminal import for_output
from ggfast.config import load_config
from ggfast.errors import ConfigError, OperatingError, Problem, Rejected
from ggfast.layout import DEFAULT_ROOT

WRONG = "The command line is wrong:"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of invoke."""
    parser.add_argument("function", metavar="FUNCTION", help="a name, name:version or ARN of the deployed group")
    parser.add_argument(
        "--payload", default="", metavar="TEXT", help="the event; @FILE reads a file, - standard input (default: none)"
    )
    parser.add_argument("--context", default="", metavar="JSON", help='client context, e.g. \'{"custom": {"a": 1}}\'')
    parser.add_argument("--event", action="store_true", help="do not wait for the result (invocation type Event)")
    parser.add_argument(
        "--timeout",
        type=float,
        default=limits.INVOKE_WAIT_S,
        metavar="S",
        help="how long to wait (default %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print status, payload and duration as one JSON object")
    parser.add_argument("--root", type=Path, default=DEFAULT_ROOT, help="Greengrass root (default %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Invoke and print. Raises LinkDown if no core is running, Rejected if it refuses."""
    layout = load_config(arguments.root).layout
    answer = invoke(
        layout.control_socket,
        arguments.function,
        read_payload(arguments.payload),
        context=_checked_context(arguments.context),
        event=arguments.event,
        timeout_s=arguments.timeout,
    )
    if answer["status"] == "REFUSED":
        raise Rejected(answer["payload"].decode("utf-8", "replace"))
    if arguments.json:
        print(json.dumps({**answer, "payload": answer["payload"].decode("utf-8", "backslashreplace")}))
    elif sys.stdout.isatty():
        print(for_output(answer["payload"].decode("utf-8", "backslashreplace")), end="\n" if answer["payload"] else "")
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(answer["payload"])
        sys.stdout.flush()
    if answer["function_error"]:
        print(f"ggfast-core: {arguments.function} failed: {answer['function_error']}", file=sys.stderr)
    return 0 if answer["status"] == "OK" else 1


def invoke(
    socket: Path, function: str, payload: bytes, *, context: str = "", event: bool = False, timeout_s: float
) -> dict[str, Any]:
    """The core's answer, with `payload` as bytes. Blocks until the function has answered, at most `timeout_s`."""
    request = {
        "verb": "invoke",
        "function": function,
        "payload": base64.b64encode(payload).decode("ascii"),
        "context": base64.b64encode(context.encode()).decode("ascii"),
        "type": "Event" if event else "RequestResponse",
    }
    answer = control_client.request(socket, request, timeout_s=timeout_s)
    return {**answer, "payload": base64.b64decode(answer["payload"])}


def read_payload(given: str) -> bytes:
    """The bytes that an option's text stands for. Raises OperatingError for a file that cannot be read."""
    try:
        if given == "-":
            data = sys.stdin.buffer.read(limits.INVOKE_PAYLOAD_READ_MAX + 1)
        elif given.startswith("@"):
            with open(given[1:], "rb") as file:
                data = file.read(limits.INVOKE_PAYLOAD_READ_MAX + 1)
        else:
            data = given.encode("utf-8", "surrogateescape")
    except OSError as error:
        raise OperatingError(f"{given[1:]} cannot be read: {error.strerror}.") from error
    if len(data) > limits.INVOKE_PAYLOAD_READ_MAX:
        problem = Problem("--payload", "more", f"at most {limits.INVOKE_PAYLOAD_READ_MAX} bytes")
        raise ConfigError(WRONG, [problem])
    return data


def _checked_context(text: str) -> str:
    if not text:
        return ""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(WRONG, [Problem("--context", f"no JSON: {error}", "a JSON object")]) from None
    if not isinstance(value, dict):
        raise ConfigError(WRONG, [Problem("--context", type(value).__name__, "a JSON object")])
    return text
