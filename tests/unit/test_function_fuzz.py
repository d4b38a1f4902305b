"""P5, P7: thousands of hostile byte streams against the daemon's real side of a worker: manager, worker, link, reader.

Nothing is started: the spawner here hands out socket pairs, and the test is what sits at the other end. Every stream
is told by its seed, so a failure names the one that shows it. What must hold for each of them, whatever it is: the
invocation is settled once, a stream that breaks the rules ends its worker and tells why, no worker or descriptor is
left behind, another function works as ever, and memory does not grow.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from function_support import Started, TestRouter, World, arn, new_manager, run

from ggfast import limits
from ggfast.core.functions.invocations import InvokeResult, InvokeStatus
from ggfast.core.functions.manager import ManagerSettings

STREAMS = 2_400
BATCH = 160  # streams under way at a time; more than there are workers, so that some wait and some are reused
WORKERS = 120
PATIENCE_S = 30.0  # for a batch; one takes some milliseconds
GROWTH_KB_MAX = 4_096  # over all streams after the first batches; they send some 60 MB
ROUTER = b"arn:aws:lambda:::function:GGRouter"
ECHO = arn("echo").encode()


def frame(kind: bytes, body: bytes) -> bytes:
    return struct.pack("<I", 1 + len(body)) + kind + body


def call(chance: random.Random, target: bytes, context: bytes, payload: bytes) -> bytes:
    head = struct.pack("<IBH", chance.randrange(5), chance.randrange(2), len(target)) + target
    return frame(b"P", head + struct.pack("<H", len(context)) + context + payload)


class Stream:
    """What one worker sends after it got its work: pieces, then silence, a closed socket or a death."""

    def __init__(self, seed: int) -> None:
        chance = self.chance = random.Random(seed)
        self.number = 0  # of the invocation, once it is known
        self.ends = chance.choice(["close", "die", "result", "result", "error"])
        self.count = chance.randrange(1, 12)

    def data(self) -> bytes:
        """All of it; the last frame is a true answer when the stream ends that way."""
        pieces = [self._piece() for _ in range(self.count)]
        if self.ends == "result":
            pieces.append(frame(b"R", struct.pack("<I", self.number) + b"1"))
        elif self.ends == "error":
            pieces.append(frame(b"E", struct.pack("<I", self.number) + b'{"errorMessage": "x"}'))
        data = bytearray(b"".join(pieces))
        if self.chance.random() < 0.15:  # a bit here and there
            for _ in range(self.chance.randrange(1, 4)):
                data[self.chance.randrange(len(data))] ^= 1 << self.chance.randrange(8)
        if self.chance.random() < 0.1:
            del data[self.chance.randrange(len(data)) :]
        return bytes(data)

    def _piece(self) -> bytes:
        chance = self.chance
        near = (self.number + chance.choice([-1, 1, 2, 0x7FFFFFFF])) & 0xFFFFFFFF
        subject = json.dumps({"custom": {"subject": "t" * chance.randrange(300), "source": "x"}}).encode()
        context = chance.choice([b"", b"{}", b"\xff\xfe", subject, b"[" * 500, b'{"custom": 1}'])
        payload = chance.randbytes(chance.choice([0, 1, 100, 5_000, 140_000 if chance.random() < 0.1 else 10]))
        kinds: list[Callable[[], bytes]] = [
            lambda: call(chance, ROUTER, context, payload),
            lambda: call(chance, chance.choice([ECHO, b"", b"\xff" * 9, arn("nobody").encode()]), context, payload),
            lambda: frame(b"R", struct.pack("<I", near) + payload),
            lambda: frame(b"E", struct.pack("<I", near) + payload),
            lambda: frame(b"I", bytes([chance.randrange(2)]) + payload[:50]),
        ]
        rare: list[Callable[[], bytes]] = [
            lambda: frame(chance.choice([b"I", b"R", b"E", b"P"]), payload[: chance.randrange(8)]),
            lambda: frame(b"P", struct.pack("<IBH", 1, chance.randrange(256), chance.randrange(65536)) + payload),
            lambda: frame(bytes([chance.randrange(256)]), payload),
            lambda: struct.pack("<I", chance.choice([0, 1, 1 << 20, (1 << 20) + 1, 1 << 31, 0xFFFFFFFF])),
            lambda: chance.randbytes(chance.randrange(1, 200)),
        ]
        return chance.choice(rare if chance.random() < 0.06 else kinds)()


class Far:
    """The other end of one worker: plays the process. An `echo` worker answers; any other plays its stream."""

    def __init__(self, channel: FuzzChannel, instance: str) -> None:
        self.near, self.sock = socket.socketpair()
        self.sock.setblocking(False)
        self.pipes = (os.pipe(), os.pipe())
        self.channel = channel
        self.instance = instance
        self.task = asyncio.get_running_loop().create_task(self._live())

    async def _frames(self) -> Any:
        loop, data = asyncio.get_running_loop(), b""
        while part := await loop.sock_recv(self.sock, 1 << 20):
            data += part
            while len(data) >= 4 and len(data) >= 4 + (size := struct.unpack_from("<I", data)[0]):
                yield data[4:5], data[5 : 4 + size]
                data = data[4 + size :]

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async for kind, body in self._frames():
                if kind == b"C":
                    await loop.sock_sendall(self.sock, frame(b"I", b"\x01"))
                elif kind == b"X":
                    break
                elif kind == b"W":
                    number, size = struct.unpack_from("<IH", body)
                    if self.instance.startswith("echo"):
                        await loop.sock_sendall(self.sock, frame(b"R", body[:4] + body[6 + size :]))
                    elif await self._play(Stream(int(body[6 + size :])), number):
                        break
        except OSError:
            pass  # the daemon has closed its end
        self.die()

    async def _play(self, stream: Stream, number: int) -> bool:
        """Send a stream in pieces of its own choosing; whether the process ends with it."""
        stream.number = number
        data, loop = stream.data(), asyncio.get_running_loop()
        while data:
            size = stream.chance.choice([1, 3, 70, 4_096, 1 << 20]) if len(data) < 20_000 else 1 << 16
            await loop.sock_sendall(self.sock, data[:size])
            data = data[size:]
            if stream.chance.random() < 0.3:
                await asyncio.sleep(0)
        if stream.ends == "close":
            self.sock.shutdown(socket.SHUT_RDWR)
        return stream.ends in ("close", "die")

    def die(self) -> None:
        """The process is dead: the spawner says so."""
        if self.channel.lives.pop(self.instance, None) is None:
            return
        self.sock.close()
        self.near.close()
        for _, write in self.pipes:
            os.close(write)
        event = {"event": "exited", "instance": self.instance, "exit_status": 0, "signal": None, "oom": False}
        asyncio.get_running_loop().call_soon(self.channel.on_exited, event)


class FuzzChannel:
    """A spawner whose workers are tasks of the test."""

    def __init__(self) -> None:
        self.lives: dict[str, Far] = {}
        self.spawned = 0
        self.on_exited: Callable[[Mapping[str, Any]], None] = lambda _event: None

    async def spawn(self, instance: str, spec: Mapping[str, Any]) -> Started:
        far = self.lives[instance] = Far(self, instance)
        self.spawned += 1
        return Started(1, far.near.dup(), far.pipes[0][0], far.pipes[1][0])

    async def kill(self, instance: str, number: int = 9) -> None:
        if (far := self.lives.get(instance)) is not None:
            far.task.cancel()
            far.die()

    async def stat(self, instance: str) -> Mapping[str, Any]:
        return {"memory_kb": 0}


def resident_kb() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * (os.sysconf("SC_PAGE_SIZE") // 1024)


async def settle(world: World, seed: int) -> InvokeResult:
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await world.manager.invoke(arn("fuzz"), str(seed).encode())
    except TimeoutError:
        raise AssertionError(f"the invocation of stream {seed} is not settled") from None


@pytest.mark.slow
def test_p5_row_50_thousands_of_hostile_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WORKER_STOP_S", 0.05)  # a worker that closes its socket is given this long to end
    monkeypatch.setattr(limits, "WORKER_FRAME_SWEEP_S", 0.2)  # a frame cut in its middle is noticed after two of them

    async def test() -> None:
        channel, router = FuzzChannel(), TestRouter()
        settings = ManagerSettings(concurrent_max=WORKERS)
        manager, log, counters, logs = new_manager(channel, router, settings)  # type: ignore[arg-type]  # no list or adopt
        world = World(tmp_path, channel, router, manager, log, counters, logs)  # type: ignore[arg-type]
        await manager.apply([world.plan("fuzz", "", timeout_s=1), world.plan("echo", "", pinned=True, timeout_s=60)])
        outcomes: dict[str, int] = {}
        before_kb = 0
        for first in range(0, STREAMS, BATCH):
            results = await asyncio.gather(*(settle(world, seed) for seed in range(first, first + BATCH)))
            for result in results:
                outcomes[result.status.name] = outcomes.get(result.status.name, 0) + 1
                if result.status is InvokeStatus.UNHANDLED:
                    assert len(json.loads(result.payload)["errorMessage"]) > 20
            assert (await manager.invoke(arn("echo"), b"7")).payload == b"7"
            router.published.clear()
            log.records.clear()
            before_kb = before_kb or (resident_kb() if first >= STREAMS // 4 else 0)
        grown_kb = resident_kb() - before_kb
        rows = {row.name: row for row in await manager.status()}
        assert sum(outcomes.values()) == STREAMS == rows["fuzz"].invocations
        assert min(outcomes[name] for name in ("OK", "HANDLED", "UNHANDLED")) > STREAMS // 20, outcomes
        assert (rows["echo"].restarts, rows["echo"].instances) == (0, 1)
        await manager.stop()
        assert channel.lives == {}
        assert grown_kb < GROWTH_KB_MAX, outcomes
        assert counters.get("functions.dropped.late_result") > STREAMS // 2

    run(test())
