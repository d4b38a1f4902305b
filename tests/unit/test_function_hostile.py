"""P5, P7: what a hostile function does to its socket and its pipes ends that function and harms nobody else."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import time

import pytest
from function_support import Lines, World, a_world, arn, run

from ggfast import limits
from ggfast.clock import SystemClock
from ggfast.core.functions.invocations import InvokeStatus
from ggfast.core.functions.logs import LogPipe
from ggfast.counters import Counters
from ggfast.log import Level

RAW = """
import os, struct, sys, time

def frame(kind, body):
    return struct.pack("<I", 1 + len(body)) + kind + body

def call(number, kind, arn, context, payload):
    return frame(b"P", struct.pack("<IBH", number, kind, len(arn)) + arn + struct.pack("<H", len(context)) + context
        + payload)

def write(data):
    while data:
        data = data[os.write(3, data):]

def handler(event, context):
    {body}
    time.sleep(30)
"""
ECHO = "def handler(e, c): return e"
ROUTER = b"arn:aws:lambda:::function:GGRouter"


async def attack(world: World, body: str, reason: str) -> None:
    """Run a hostile handler; it must be ended with `reason` while another function works as ever."""
    await world.manager.apply([world.plan("bad", RAW.replace("{body}", body)), world.plan("good", ECHO, pinned=True)])
    hostile = asyncio.ensure_future(world.manager.invoke(arn("bad"), b"{}"))
    for _ in range(20):
        assert (await world.manager.invoke(arn("good"), b"1")).payload == b"1"
    result = await hostile
    assert result.status is InvokeStatus.UNHANDLED
    assert reason in json.loads(result.payload)["errorMessage"]
    await world.until(lambda: len(world.channel._kept) == 1, "the end of the worker")
    assert (await world.manager.invoke(arn("good"), b"2")).payload == b"2"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("os.write(3, os.urandom(100000) + bytes(5))", "it sent a frame of"),
        ("write(b'\\0' * 100)", "it sent a frame of 0 bytes"),
        ("write(b'\\xff\\xff\\xff\\xffR')", "it sent a frame of 4294967295 bytes, allowed are 1 to 1048576"),
        ("write(frame(b'Q', b''))", "it sent a frame of type 0x51, expected P, R, E or I"),
        ("write(call(1, 0, b'x' * 9, b'', b'')[:20]); os.close(3)", "it closed its socket inside a frame"),
        ("os.close(3)", "it closed its socket"),
        ("write(frame(b'R', b'12')); time.sleep(1)", "expected at least 4"),
    ],
)
def test_row_50_garbage_ends_the_worker_with_a_reason(body: str, reason: str) -> None:
    async def test() -> None:
        async with a_world() as world:
            await attack(world, body, reason)

    run(test())


def test_row_50_a_frame_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async with a_world() as world:
            await attack(
                world,
                "os.write(3, struct.pack('<I', 1000000) + b'R' + bytes(4))\n"
                "    while True:\n        os.write(3, b'x'); time.sleep(0.05)",
                "it sent a frame that does not end",
            )

    monkeypatch.setattr(limits, "WORKER_FRAME_SWEEP_S", 0.3)
    run(test())


def test_row_50_a_worker_that_stops_reading_costs_a_bounded_amount() -> None:
    async def test() -> None:
        async with a_world() as world:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            echo = arn("good").encode()
            await attack(
                world,
                f"data = b''.join(call(n, 1, {echo!r}, b'', b'7' * 60000) for n in range(1, 9))\n"
                "    while True: write(data)",
                "it does not read its socket",
            )
            grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert grown_kb < 40_000
            rows = {row.name: row for row in await world.manager.status()}
            assert rows["good"].invocations > 20  # its calls were served until nothing was read any more

    run(test())


def test_more_calls_than_allowed_are_refused() -> None:
    async def test() -> None:
        async with a_world() as world:
            slow = "import time\ndef handler(e, c): time.sleep(20)"
            source = """
import threading, time
from greengrass_ipc_python_sdk.ipc_client import IPCClient
ipc, answers = IPCClient(), []

def handler(event, context):
    ids = [ipc.post_work(event["callee"], "{}", "") for _ in range(event["n"])]
    try:
        ipc.get_work_result(event["callee"], ids[-1])
    except Exception as error:
        return str(error)
"""
            await world.manager.apply([world.plan("f", source), world.plan("slow", slow, pinned=True)])
            event = {"callee": arn("slow"), "n": limits.WORKER_CALLS_MAX + 1}
            result = await world.manager.invoke(arn("f"), json.dumps(event).encode())
            assert json.loads(result.payload) == f"More than {limits.WORKER_CALLS_MAX} calls wait for an answer"

    run(test())


def test_p1_row_49_the_source_of_a_message_is_the_socket_not_the_claim() -> None:
    async def test() -> None:
        async with a_world() as world:
            forged = json.dumps({"custom": {"source": arn("other"), "subject": "t"}}).encode()
            body = f"write(call(0, 0, {ROUTER!r}, {forged!r}, b'x')); return"
            await world.manager.apply([world.plan("bad", RAW.replace("{body}", body))])
            await world.manager.invoke(arn("bad"), b"{}")
            assert world.router.published == [(arn("bad"), b"t", b"x")]

    run(test())


@pytest.mark.parametrize(
    ("topic", "payload", "problem"),
    [
        ("a", 128 * 1024 + 1, "the payload is 131073 bytes, the limit is 131072"),
        ("t" * 257, 1, "the topic is 257 bytes"),
        ("", 1, "the topic is 0 bytes"),
        ("a/+/b", 1, "wildcard"),
        ("a/#", 1, "wildcard"),
        ("a\x00b", 1, "null character"),
        ("a/b/c/d/e/f/g/h/i", 1, "8 slashes, the limit is 7"),
    ],
)
def test_messages_beyond_the_limits_are_dropped_with_one_error_line(topic: str, payload: int, problem: str) -> None:
    async def test() -> None:
        async with a_world(sdk_version="1.6.1") as world:
            source = f"""
import greengrasssdk
iot = greengrasssdk.client("iot-data")

def handler(event, context):
    for _ in range(5):
        iot.publish(topic={topic!r}, payload="x" * {payload})
    iot.publish(topic="good", payload="x")
    try:
        iot.publish(topic={topic!r}, payload="x" * {payload}, queueFullPolicy="AllOrException")
    except Exception as error:
        return str(error)
"""
            await world.manager.apply([world.plan("f", source)])
            result = await world.manager.invoke(arn("f"), b"{}")
            assert problem in json.loads(result.payload)
            assert [topic for _, topic, _ in world.router.published] == [b"good"]
            complaints = [r for r in world.log.records if r[0] == "error"]
            assert len(complaints) == 1
            assert problem in complaints[0][2]["reason"]
            assert world.counters.get("functions.dropped.bad_message") == 6

    run(test())


def test_a_publish_without_a_topic_is_refused() -> None:
    async def test() -> None:
        async with a_world() as world:
            body = (
                f"[write(call(0, 0, {ROUTER!r}, c, b'x')) for c in (b'', b'[]', b'{{}}', b'{{\"custom\": 1}}', "
                f"b'{{\"custom\": {{\"subject\": 7}}}}', b'\\xff')]; return"
            )
            await world.manager.apply([world.plan("bad", RAW.replace("{body}", body))])
            assert (await world.manager.invoke(arn("bad"), b"{}")).status is InvokeStatus.OK
            assert world.router.published == []
            assert world.counters.get("functions.dropped.bad_message") == 6

    run(test())


def test_a_late_or_invented_result_is_dropped() -> None:
    async def test() -> None:
        async with a_world() as world:
            body = "write(frame(b'R', struct.pack('<I', 12345) + b'x') + frame(b'I', b'\\x01') * 3); return 7"
            await world.manager.apply([world.plan("bad", RAW.replace("{body}", body))])
            assert (await world.manager.invoke(arn("bad"), b"{}")).payload == b"7"
            assert world.counters.get("functions.dropped.late_result") == 1

    run(test())


# --- pipes ---------------------------------------------------------------------------------------------------


def test_a_flood_of_prints_is_bounded_counted_and_disturbs_nobody() -> None:
    async def test() -> None:
        async with a_world() as world:
            flood = "def handler(e, c):\n    while True: print('x' * 1000)"
            await world.manager.apply([world.plan("bad", flood, timeout_s=3), world.plan("good", ECHO, pinned=True)])
            hostile = asyncio.ensure_future(world.manager.invoke(arn("bad"), b"{}"))
            await asyncio.sleep(0.5)
            cpu, started, waits = time.process_time(), time.monotonic(), []
            while time.monotonic() - started < 2.0:
                asked = time.perf_counter()
                assert (await world.manager.invoke(arn("good"), b"1")).payload == b"1"
                waits.append(time.perf_counter() - asked)
                await asyncio.sleep(0.01)
            assert time.process_time() - cpu < 1.2  # of two seconds, on behalf of both functions
            assert sorted(waits)[len(waits) // 2] < 0.05
            assert (await hostile).function_error == "Unhandled"
            lines = world.logs[arn("bad")].lines
            written = sum(len(text) for _, text in lines)
            assert written < 6 * limits.LOG_PIPE_BYTES_PER_S
            notes = [text for level, text in lines if level is Level.WARN]
            assert notes
            assert "lines dropped: the function prints faster than its log is written" in notes[0]
            assert world.counters.get("functions.log.dropped_lines") > 1000

    run(test())


def with_pipe(data: list[bytes]) -> list[tuple[Level, str]]:
    """What a pipe makes of these writes."""
    lines = Lines()

    async def test() -> None:
        read, write = os.pipe()
        pipe = LogPipe(asyncio.get_running_loop(), SystemClock(), Counters(), read, Level.INFO, lines)
        for piece in data:
            os.write(write, piece)
            await asyncio.sleep(0.002)
        os.close(write)
        await asyncio.sleep(0.01)
        pipe.drain()
        pipe.close()

    run(test())
    return lines.lines


def test_lines_are_put_together_from_pieces() -> None:
    assert with_pipe([b"on", b"e\ntw", b"o\n\nrest"]) == [
        (Level.INFO, "one"),
        (Level.INFO, "two"),
        (Level.INFO, ""),
        (Level.INFO, "rest"),
    ]


def test_long_lines_are_cut_and_the_next_line_is_whole() -> None:
    maximum = limits.LOG_PIPE_LINE_BYTES_MAX
    pieces = [b"x" * 50_000] * 4 + [b"tail\nnext\n"]
    lines = with_pipe(pieces)
    assert [len(text) for _, text in lines] == [maximum, 4]
    assert lines[1] == (Level.INFO, "next")


def test_records_are_told_from_text() -> None:
    assert with_pipe([b"\x1eWa\x1db\n\x1e\n\x1eZx\nt\x1eEerr\n\x1eD\n"]) == [
        (Level.WARN, "a\nb"),
        (Level.INFO, ""),
        (Level.INFO, "Zx"),
        (Level.INFO, "t"),
        (Level.ERROR, "err"),
        (Level.DEBUG, ""),
    ]
