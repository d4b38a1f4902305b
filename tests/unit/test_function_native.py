"""Executables as functions of a core: the real manager starts them, and they call each other and Python."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

from function_support import World, a_world, arn, run
from native_support import LIBRARY, NATIVE, PLAIN, build, built
from test_function_manager import restart_daemon

from ggfast.core.functions.environment import WorkerPlan
from ggfast.core.functions.invocations import InvokeStatus
from ggfast.group.document import Encoding

EXECUTABLE = "arn:aws:greengrass:::runtime/function/executable"
PYTHON = "def handler(event, context):\n    return {'seen': event, 'custom': context.client_context.custom}\n"


def executable(world: World, name: str, **more: Any) -> WorkerPlan:
    """A deployed function whose program is tests/unit/native/program.c."""
    done = build(NATIVE / LIBRARY)
    assert done.returncode == 0, done.stderr
    plan = world.plan(name, "", handler="program", runtime=EXECUTABLE, file="x", encoding=Encoding.BINARY, **more)
    shutil.copy(built(PLAIN).program, Path(world.directory, f"{name}-1", "program"))
    return plan


def say(*fields: str) -> bytes:
    return "\x1f".join(fields).encode()


def test_invoked_published_and_logged() -> None:
    async def body() -> None:
        async with a_world() as world:
            plan = executable(world, "c")
            await world.manager.apply([plan])
            result = await world.manager.invoke(plan.arn, b"echo\x1f\0\xff\x1f", b"")
            assert (result.status, result.payload) == (InvokeStatus.OK, b"\0\xff\x1f")
            result = await world.manager.invoke(plan.arn, say("context"), b'{"custom":{"subject":"a"}}')
            assert result.payload == plan.arn.encode() + b' {"custom":{"subject":"a"}}'
            result = await world.manager.invoke(plan.arn, say("error", "no"), b"")
            assert result.status is InvokeStatus.HANDLED
            assert json.loads(result.payload)["errorMessage"] == "no"
            for policy in ("none", "0", "1"):
                result = await world.manager.invoke(plan.arn, say("publish", policy, "t", policy), b"")
                assert result.payload == b"0 0 "
            assert world.router.payloads(b"t") == [b"none", b"0", b"1"]
            world.router.full = True
            result = await world.manager.invoke(plan.arn, say("publish", "1", "t", ""), b"")
            assert result.payload.startswith(b"0 4 The message is not published, a queue is full")
            result = await world.manager.invoke(plan.arn, say("publish", "1", "a/+", ""), b"")
            assert result.payload.startswith(b"0 3 The message is not published: the topic holds a wildcard")
            await world.manager.invoke(plan.arn, say("log", "3", "a record\nof two lines"), b"")
            await world.until(lambda: "a record\nof two lines" in world.function_log("c").text(), "the record")

    run(body())


def test_calls_between_languages() -> None:
    async def body() -> None:
        async with a_world() as world:
            c, python = executable(world, "c"), world.plan("python", PYTHON)
            await world.manager.apply([c, python])
            context = "eyJjdXN0b20iOnsiYSI6MX19"  # {"custom":{"a":1}}
            result = await world.manager.invoke(c.arn, say("invoke", arn("python"), "-", context, "1", "[2]"), b"")
            assert result.payload.startswith(b"0 0 ")
            assert json.loads(result.payload[4:]) == {"seen": [2], "custom": {"a": 1}}
            result = await world.manager.invoke(c.arn, say("invoke", arn("nobody"), "-", "-", "1", ""), b"")
            assert result.payload.startswith(b"0 3 "), result.payload

    run(body())


def test_a_new_daemon_keeps_the_process() -> None:
    async def body() -> None:
        async with a_world() as world:
            plan = executable(world, "c", pinned=True)
            await world.manager.apply([plan])
            await world.manager.invoke(plan.arn, say("echo", "before"), b"")
            (pid,) = (kept.process.pid for kept in world.channel._kept.values())
            await restart_daemon(world, [plan])
            result = await world.manager.invoke(plan.arn, say("echo", "after"), b"")
            assert (result.status, result.payload) == (InvokeStatus.OK, b"after")
            assert [kept.process.pid for kept in world.channel._kept.values()] == [pid]

    run(body())


def test_a_pinned_one_that_ends_is_started_anew() -> None:
    async def body() -> None:
        async with a_world() as world:
            plan = executable(world, "c", pinned=True)
            await world.manager.apply([plan])
            await world.manager.invoke(plan.arn, say("echo", ""), b"")
            (pid,) = (kept.process.pid for kept in world.channel._kept.values())
            os.kill(pid, signal.SIGTERM)
            await world.until(lambda: len(world.channel.spawned) == 2, "the next start")
            result = await world.manager.invoke(plan.arn, say("echo", "again"), b"")
            assert result.payload == b"again"

    run(body())
