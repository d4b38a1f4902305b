"""The daemon's class for the channel, on asyncio, against a real spawner and against a misbehaving one."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ggfast.errors import LinkDown, SandboxFailed
from ggfast.sandbox.channel import SpawnerChannel
from ggfast.sandbox.policy import spec_hash
from tests.sandbox.harness import Sandbox
from tests.sandbox.test_workers import ECHO

pytestmark = pytest.mark.root


def talk(
    box: Sandbox, script: Callable[[SpawnerChannel, list[dict[str, Any]]], Awaitable[None]]
) -> list[dict[str, Any]]:
    """Run a script with a channel over the harness's relay; the events it got."""
    events: list[dict[str, Any]] = []

    async def main() -> None:
        assert box._control is not None
        channel = SpawnerChannel(
            asyncio.get_running_loop(), socket.socket(fileno=os.dup(box._control.fileno())), events.append
        )
        try:
            await asyncio.wait_for(script(channel, events), 20)
        finally:
            channel.close()

    asyncio.run(main())
    return events


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.002)


def test_a_workers_life(box: Sandbox) -> None:
    spec = box.request_spec(box.write_code(ECHO))

    async def script(channel: SpawnerChannel, events: list[dict[str, Any]]) -> None:
        loop = asyncio.get_running_loop()
        worker = await channel.spawn("life", spec)
        assert not worker.ipc.getblocking()
        await loop.sock_sendall(worker.ipc, b"one")
        assert await loop.sock_recv(worker.ipc, 100) == b"one"
        assert (await channel.stat("life"))["pids"] == 1
        assert await channel.list() == [{"instance": "life", "pid": worker.pid, "spec_hash": spec_hash(spec)}]
        again = await channel.adopt("life")
        assert await loop.sock_recv(worker.ipc, 100) == b""
        await loop.sock_sendall(again.ipc, b"two")
        assert await loop.sock_recv(again.ipc, 100) == b"two"
        await channel.kill("life")
        await until(lambda: any(event["event"] == "exited" for event in events))
        for spawned in (worker, again):
            spawned.ipc.close()
            os.close(spawned.stdout)
            os.close(spawned.stderr)
        await channel.ready()

    events = talk(box, script)
    exited = next(event for event in events if event["event"] == "exited")
    assert (exited["instance"], exited["signal"], exited["error"]) == ("life", 9, None)


def test_refusals_carry_step_and_errno(box: Sandbox) -> None:
    async def script(channel: SpawnerChannel, _: list[dict[str, Any]]) -> None:
        with pytest.raises(SandboxFailed) as caught:
            await channel.spawn("x", {"uid": 4})
        assert (caught.value.step, caught.value.errno) == ("policy", 1)
        with pytest.raises(SandboxFailed) as caught:
            await channel.kill("nobody")
        assert (caught.value.step, caught.value.errno) == ("instance", 3)

    talk(box, script)


def test_a_spawn_nobody_waits_for_any_more_is_undone(box: Sandbox) -> None:
    spec = box.request_spec(box.write_code(ECHO))

    async def script(channel: SpawnerChannel, events: list[dict[str, Any]]) -> None:
        task = asyncio.ensure_future(channel.spawn("unwanted", spec))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: any(event.get("instance") == "unwanted" for event in events))
        assert await channel.list() == []

    talk(box, script)


def test_many_at_once(box: Sandbox) -> None:
    spec = box.request_spec(box.write_code(ECHO))

    async def script(channel: SpawnerChannel, events: list[dict[str, Any]]) -> None:
        workers = await asyncio.gather(*(channel.spawn(f"many{number}", spec) for number in range(8)))
        assert len({worker.pid for worker in workers}) == 8
        await asyncio.gather(*(channel.kill(f"many{number}") for number in range(8)))
        await until(lambda: sum(event["event"] == "exited" for event in events) == 8)
        for worker in workers:
            worker.ipc.close()
            os.close(worker.stdout)
            os.close(worker.stderr)

    talk(box, script)


def test_a_spawner_that_goes_away_or_talks_nonsense() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    events: list[dict[str, Any]] = []

    async def main() -> None:
        channel = SpawnerChannel(asyncio.get_running_loop(), ours, events.append)
        waiting = asyncio.ensure_future(channel.stat("x"))
        await asyncio.sleep(0.01)
        assert json.loads(theirs.recv(65536)) == {"id": 1, "verb": "stat", "instance": "x"}
        for packet in (b"{", b"[]", b'{"id":99,"ok":true}', b'{"id":[],"ok":true}'):
            theirs.send(packet)
        spare = os.open("/dev/null", os.O_RDONLY)
        socket.send_fds(theirs, [b'{"event":"stop"}'], [spare])  # descriptors nobody asked for are closed
        os.close(spare)
        await until(lambda: bool(events))
        assert channel.protocol_errors == 2
        theirs.close()
        with pytest.raises(LinkDown):
            await waiting
        with pytest.raises(LinkDown):
            await channel.list()
        channel.close()

    asyncio.run(asyncio.wait_for(main(), 20))
    assert events == [{"event": "stop"}, {"event": "closed"}]


def test_a_worker_whose_descriptors_did_not_arrive_is_killed() -> None:
    """As when this process has none left: the kernel then drops what it cannot hand over."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel = SpawnerChannel(loop, ours, lambda _: None)
        asked = asyncio.ensure_future(channel.spawn("poor", {}))
        await asyncio.sleep(0)
        number = json.loads(theirs.recv(65536))["id"]
        theirs.send(json.dumps({"id": number, "ok": True, "pid": 7}).encode())
        with pytest.raises(SandboxFailed, match="0 descriptors"):
            await asked
        kill = json.loads(theirs.recv(65536))
        assert (kill["verb"], kill["instance"], kill["signal"]) == ("kill", "poor", 9)
        channel.close()
        theirs.close()

    asyncio.run(main())
