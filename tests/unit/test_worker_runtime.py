"""What a Python handler gets and what becomes of what it returns, raises and prints."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from function_support import SHIM, World, a_world, arn, run

from ggfast.core.functions.environment import CoreFacts, function_environment
from ggfast.core.functions.invocations import InvokeResult, InvokeStatus
from ggfast.group.document import Encoding, Function, FunctionConfiguration
from ggfast.log import Level


async def call(world: World, source: str, payload: bytes = b"{}", context: bytes = b"", **more: Any) -> InvokeResult:
    """Deploy one function and invoke it once."""
    plan = world.plan("f", source, **more)
    await world.manager.apply([plan])
    return await world.manager.invoke(plan.arn, payload, context)


def test_the_runtime_keeps_to_python_3_7() -> None:
    for path in SHIM.rglob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 7))


def test_context_and_environment() -> None:
    source = """
import os, sys

def handler(event, context):
    names = ("function_name", "function_version", "invoked_function_arn", "memory_limit_in_mb", "log_group_name",
             "log_stream_name", "identity")
    client = context.client_context
    return {
        "context": {name: getattr(context, name) for name in names},
        "ids": [context.aws_request_id, context.aws_request_id],
        "left": context.get_remaining_time_in_millis(),
        "client": [client.custom, client.client, client.env],
        "environment": dict(os.environ),
        "cwd": os.getcwd(),
        "path": sys.path,
        "main": sys.modules["__main__"].__dict__.get("ggworker") is None,
    }
"""

    async def body() -> None:
        async with a_world() as world:
            client = {"custom": {"a": 1}, "client": {"app": "x"}, "env": {"b": "c"}}
            variables = {"COLOUR": "green", "MY_FUNCTION_ARN": "forged", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "forged"}
            result = await call(world, source, context=json.dumps(client).encode(), variables=variables)
            assert result.status is InvokeStatus.OK, result
            seen = json.loads(result.payload)
            assert seen["context"] == {
                "function_name": "f",
                "function_version": "1",
                "invoked_function_arn": arn("f"),
                "memory_limit_in_mb": "0",  # none without a container
                "log_group_name": "/aws/greengrass/Lambda/eu-west-1/123456789012/f",
                "log_stream_name": "123456789012/g/core",
                "identity": None,
            }
            assert seen["ids"][0] == seen["ids"][1]
            assert len(seen["ids"][0]) == 36
            assert 9000 < seen["left"] <= 10_000
            assert seen["client"] == [{"a": 1}, {"app": "x"}, {"b": "c"}]
            environment = seen["environment"]
            assert environment["COLOUR"] == "green"
            assert environment["MY_FUNCTION_ARN"] == arn("f")
            token = environment["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
            worker = world.manager.identify(token.encode())
            assert worker is not None and worker.arn == arn("f")
            assert world.manager.identify((token[:-1] + "x").encode()) is None
            assert seen["cwd"] == seen["path"][0] == str(world.directory / "f-1")
            assert (
                any(entry.endswith("/dist-packages") for entry in seen["path"])
                or not Path("/usr/lib/python3/dist-packages").exists()
            )
            assert seen["main"]

    run(body())


def test_reserved_names_win_and_a_users_proxy_wins() -> None:
    function = Function("f", arn("f"), configuration=FunctionConfiguration(encoding=Encoding.BINARY))
    facts = CoreFacts(proxies={"http_proxy": "http://core:1"}, daemon_port=8001)
    variables = {"http_proxy": "http://mine:2", "ENCODING_TYPE": "json", "PATH": "/lambda/bin"}
    environment = function_environment(function, facts, variables, resource_prefix="/")
    assert environment["http_proxy"] == "http://mine:2"
    assert environment["PATH"] == "/lambda/bin"
    assert environment["ENCODING_TYPE"] == "binary"
    assert environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"] == ("http://localhost:8001/2016-11-01/credentialprovider/")
    assert all(isinstance(value, str) for value in environment.values())


@pytest.mark.parametrize(
    ("source", "payload", "expected"),
    [
        ("def handler(e, c): return e", b'{"a": [1, null, "gr\xc3\xbcn"]}', {"a": [1, None, "grün"]}),
        ("def handler(e, c): return e", b"", {}),
        ("def handler(e, c): return e", b"7", 7),
        ("def handler(e, c): pass", b"{}", None),
        ("def handler(e, c): return c.client_context.custom.get('subject')", b"{}", None),
    ],
)
def test_json_in_and_out(source: str, payload: bytes, expected: Any) -> None:
    async def body() -> None:
        async with a_world() as world:
            result = await call(world, source, payload)
            assert result.status is InvokeStatus.OK, result
            assert json.loads(result.payload) == expected

    run(body())


@pytest.mark.parametrize(
    ("source", "payload", "kind", "text"),
    [
        ("def handler(e, c): return e", b"{not json", "JSONDecodeError", "Expecting property name"),
        ("def handler(e, c): return e", b'"\xff"', "UnicodeDecodeError", "invalid start byte"),
        ("def handler(e, c): return {1, 2}", b"{}", "TypeError", "not JSON serializable"),
        ("def handler(e, c): return 'x' * (1 << 20)", b"{}", "ValueError", "the limit is 1048571"),
        ("def handler(e, c): raise ValueError('gr\\u00fcn\\n2')", b"{}", "ValueError", "grün\n2"),
        ("def handler(e): pass", b"{}", "TypeError", "positional argument"),
        ("class E(Exception):\n    def __str__(self): 1/0\ndef handler(e, c): raise E()", b"", "E", "can not be shown"),
        ("import sys\ndef handler(e, c): handler(e, c)", b"{}", "RecursionError", "maximum recursion depth"),
    ],
)
def test_what_a_handler_does_wrong_is_handled(source: str, payload: bytes, kind: str, text: str) -> None:
    async def body() -> None:
        async with a_world() as world:
            result = await call(world, source, payload)
            assert result.function_error == "Handled"
            document = json.loads(result.payload)
            assert document["errorType"] == kind
            assert text in document["errorMessage"]
            assert isinstance(document["stackTrace"], list)
            errors = [line for level, line in world.logs[arn("f")].lines if level is Level.ERROR]
            assert 'Failed to run handler function "main.handler"' in errors[0]
            again = await world.manager.invoke(arn("f"), payload)
            assert again.function_error == "Handled"  # the worker lives on
            assert len(world.channel.spawned) == 1

    run(body())


@pytest.mark.parametrize(
    ("result", "expected"),
    [("e", b"\x00\xff\xfe"), ("bytearray(e)", b"\x00\xff\xfe"), ("memoryview(e)[1:]", b"\xff\xfe"), ("None", b"")],
)
def test_binary_in_and_out(result: str, expected: bytes) -> None:
    async def body() -> None:
        async with a_world() as world:
            source = f"def handler(e, c):\n    assert type(e) is bytes\n    return {result}"
            assert await call(world, source, b"\x00\xff\xfe", encoding=Encoding.BINARY) == (InvokeStatus.OK, expected)

    run(body())


def test_binary_results_must_be_bytes_like() -> None:
    async def body() -> None:
        async with a_world() as world:
            result = await call(world, "def handler(e, c): return 'text'", encoding=Encoding.BINARY)
            assert result.function_error == "Handled"
            assert "bytes-like" in json.loads(result.payload)["errorMessage"]

    run(body())


@pytest.mark.parametrize("handler", ["pkg.mod.entry", "pkg/mod.entry"])
def test_handlers_in_packages(handler: str) -> None:
    async def body() -> None:
        async with a_world() as world:
            plan = world.plan("f", "", handler=handler)
            package = world.directory / "f-1" / "pkg"
            package.mkdir()
            (package / "mod.py").write_text("def entry(e, c): return __name__")
            await world.manager.apply([plan])
            assert (await world.manager.invoke(plan.arn, b"{}")).payload == b'"pkg.mod"'

    run(body())


@pytest.mark.parametrize(
    ("source", "handler", "text"),
    [
        ("x = 1", "main.handler", "has no attribute 'handler'"),
        ("def handler(e, c): pass", "nothing.handler", "No module named 'nothing'"),
        ("def handler(e, c): pass", "handler", "must be named <module>.<function>"),
        ("def handler(e, c) pass", "main.handler", "expected ':'"),
        ("raise SystemExit(4)", "main.handler", "4"),
    ],
)
def test_a_function_that_can_not_be_imported(source: str, handler: str, text: str) -> None:
    async def body() -> None:
        async with a_world() as world:
            result = await call(world, source, handler=handler)
            assert result.function_error == "Unhandled"
            found = json.loads(result.payload)["errorMessage"]
            assert f'Failed to import handler function "{handler}" due to exception: ' in found
            assert text in found
            fatal = [line for level, line in world.logs[arn("f")].lines if level is Level.FATAL]
            assert len(fatal) == 1
            assert text in fatal[0]

    run(body())


def test_a_handler_that_exits_ends_its_worker_only() -> None:
    async def body() -> None:
        async with a_world() as world:
            source = "import sys\ndef handler(e, c):\n    print('bye', end='')\n    sys.exit(7)"
            result = await call(world, source)
            assert result.function_error == "Unhandled"
            assert "exit status 7" in json.loads(result.payload)["errorMessage"]
            assert world.logs[arn("f")].lines == [(Level.INFO, "bye")]

    run(body())


def test_print_and_logging_keep_their_order_and_level() -> None:
    source = """
import logging, os, sys
log = logging.getLogger("mine")
log.setLevel(logging.DEBUG)
logging.basicConfig(stream=sys.stdout, level=logging.ERROR)

def handler(event, context):
    print("one", 1)
    log.debug("two")
    log.info("three")
    print("four\\nfive")
    log.warning("six\\nseven")
    log.critical("eight")
    print("nine", end="")
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("ten")
    os.system("echo eleven")
    os.write(1, b"\\xff\\x1eQ twelve\\n")
    sys.stderr.write("oops\\n")
    context.log("thirteen")
"""

    async def body() -> None:
        async with a_world() as world:
            assert (await call(world, source)).status is InvokeStatus.OK
            lines = world.logs[arn("f")].lines
            await world.until(
                lambda: (Level.ERROR, "oops") in lines and (Level.INFO, "thirteen") in lines, "the output"
            )
            lines.remove((Level.ERROR, "oops"))  # another pipe: no order towards the rest
            texts = [(level, text.split(",", 1)[-1]) for level, text in lines]
            assert texts[:7] == [
                (Level.INFO, "one 1"),
                (Level.DEBUG, "two"),
                (Level.INFO, "three"),
                (Level.INFO, "four"),
                (Level.INFO, "five"),
                (Level.WARN, "six\nseven"),
                (Level.FATAL, "eight"),
            ]
            assert texts[7] == (Level.INFO, "nine")
            assert lines[8][0] is Level.ERROR
            assert lines[8][1].startswith("main.py:18,ten\nTraceback (most recent call last):\n")
            assert lines[8][1].endswith("ZeroDivisionError: division by zero")
            assert texts[9:] == [
                (Level.INFO, "eleven"),
                (Level.INFO, "\\xff"),
                (Level.INFO, "Q twelve"),
                (Level.INFO, "thirteen"),
            ]
            assert lines[1][1].startswith("main.py:")

    run(body())


def test_a_function_may_run_its_own_loop() -> None:
    """Some connectors take work with the IPC client instead of a handler."""
    source = """
import os
from greengrass_ipc_python_sdk.ipc_client import IPCClient, WorkItem
ipc, me = IPCClient(), os.environ["MY_FUNCTION_ARN"]
ipc.put_initialization_result(me)
while True:
    item = ipc.get_work(me)
    if item.payload == b"bad":
        ipc.post_handler_err(me, item.invocation_id, '{"errorMessage": "bad"}')
    else:
        ipc.post_work_result(me, WorkItem(item.invocation_id, item.payload.upper(), None))
"""

    async def body() -> None:
        async with a_world() as world:
            assert await call(world, source, b"abc", pinned=True) == (InvokeStatus.OK, b"ABC")
            assert await world.manager.invoke(arn("f"), b"bad") == (InvokeStatus.HANDLED, b'{"errorMessage": "bad"}')

    run(body())
