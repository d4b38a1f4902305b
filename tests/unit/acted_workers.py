"""Workers that are tasks of the test: they import, handle, hang and die as their function's variables say, in no time.

    ACT        import: ok, fail, slow (SLOW_S), lock (fails while another worker of that function's name lives)
    payload    {"n": number, "s": seconds the handler takes, "die": whether the process ends instead of returning}

`Stage.begun` and `Stage.done` remember what was handled, in order, over all workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from function_support import Started, TestRouter, World, new_manager

from ggfast.core.functions.environment import WorkerPlan

SLOW_S = 0.3


@dataclass(frozen=True)
class Handled:
    """One message in one handler."""

    name: str
    label: str
    number: int
    instance: str


def frame(kind: bytes, body: bytes) -> bytes:
    return struct.pack("<I", 1 + len(body)) + kind + body


class Actor:
    """The far end of one worker."""

    def __init__(self, stage: Stage, instance: str) -> None:
        self.near, self.sock = socket.socketpair()
        self.sock.setblocking(False)
        self.pipes = (os.pipe(), os.pipe())
        self.stage, self.instance = stage, instance
        self.name = self.version = self.label = ""
        self.data = b""
        self.task = asyncio.get_running_loop().create_task(self._live())

    async def _frames(self) -> AsyncIterator[tuple[bytes, bytes]]:
        while part := await asyncio.get_running_loop().sock_recv(self.sock, 1 << 20):
            self.data += part
            while found := self._next():
                yield found

    def _next(self) -> tuple[bytes, bytes] | None:
        data = self.data
        if len(data) < 4 or len(data) < 4 + (size := struct.unpack_from("<I", data)[0]):
            return None
        self.data = data[4 + size :]
        return data[4:5], data[5 : 4 + size]

    async def _live(self) -> None:
        with contextlib.suppress(OSError):  # the manager has closed its end
            async for kind, body in self._frames():
                if kind == b"X" or not await self._act(kind, body):
                    break
        self.die()

    async def _act(self, kind: bytes, body: bytes) -> bool:
        loop = asyncio.get_running_loop()
        if kind == b"C":
            config = json.loads(body)
            self.name, self.version = config["name"], config["version"]
            self.label = config["environment"].get("LABEL", "")
            problem = await self._import(config["environment"].get("ACT", "ok"))
            await loop.sock_sendall(self.sock, frame(b"I", bytes([not problem]) + problem.encode()))
            return not problem
        if kind != b"W":
            return True
        number, event, handled = self._begin(body)
        self.stage.running.append(handled)
        try:
            await asyncio.sleep(event.get("s", 0))
        finally:
            self.stage.running.remove(handled)
        if event.get("die"):
            return False
        self.stage.done.append(handled)
        await loop.sock_sendall(self.sock, frame(b"R", struct.pack("<I", number) + self.label.encode()))
        return True

    def _begin(self, body: bytes) -> tuple[int, dict[str, Any], Handled]:
        number, size = struct.unpack_from("<IH", body)
        event = json.loads(body[6 + size :])
        handled = Handled(self.name, self.label, event["n"], self.instance)
        self.stage.begun.append(handled)
        return number, event, handled

    async def _import(self, act: str) -> str:
        if act == "slow":
            await asyncio.sleep(SLOW_S)
        if act == "fail":
            return "no module"
        if act == "lock" and self.stage.locks.setdefault(self.name, self.instance) != self.instance:
            return "address already in use"
        return ""

    def die(self) -> None:
        """The process is dead: the spawner says so."""
        stage = self.stage
        if stage.actors.pop(self.instance, None) is None:
            return
        if stage.locks.get(self.name) == self.instance:
            del stage.locks[self.name]
        self.sock.close()
        self.near.close()
        for _, write in self.pipes:
            os.close(write)
        event = {"event": "exited", "instance": self.instance, "exit_status": 0, "signal": None, "oom": False}
        asyncio.get_running_loop().call_soon(stage.on_exited, event)

    def kill(self) -> None:
        """As SIGKILL."""
        self.task.cancel()
        self.die()


class Stage:
    """A spawner whose workers are actors."""

    def __init__(self) -> None:
        self.actors: dict[str, Actor] = {}
        self.locks: dict[str, str] = {}
        self.begun: list[Handled] = []
        self.done: list[Handled] = []
        self.running: list[Handled] = []
        self.specs: dict[str, Mapping[str, Any]] = {}
        self.on_exited: Callable[[Mapping[str, Any]], None] = lambda _event: None

    async def spawn(self, instance: str, spec: Mapping[str, Any]) -> Started:
        actor = self.actors[instance] = Actor(self, instance)
        self.specs[instance] = spec
        return Started(len(self.specs), actor.near.dup(), actor.pipes[0][0], actor.pipes[1][0])

    async def kill(self, instance: str, number: int = 9) -> None:
        if (actor := self.actors.get(instance)) is not None:
            actor.kill()

    async def stat(self, instance: str) -> Mapping[str, Any]:
        return {"memory_kb": 0}

    async def list(self) -> list[dict[str, Any]]:
        return [{"instance": instance, "pid": 1} for instance in self.actors]

    def of(self, name: str) -> list[Actor]:
        """The living workers of a function, all versions."""
        return [actor for actor in self.actors.values() if actor.name == name]


class Theatre(World):
    """A world whose workers are actors."""

    @property
    def stage(self) -> Stage:
        return self.channel  # type: ignore[return-value]  # the same methods as PlainChannel

    def act(
        self, name: str, act: str = "ok", *, label: str = "", version: str = "1", pinned: bool = True, device: str = ""
    ) -> WorkerPlan:
        """A plan; another `label` is another plan."""
        variables = {"ACT": act, "LABEL": label}
        plan = self.plan(name, "", version=version, pinned=pinned, variables=variables)
        return replace(plan, spec={**plan.spec, "devices": [{"path": device, "access": "rw"}]}) if device else plan

    def send(self, target: str, *numbers: int, seconds: float = 0.0, die: bool = False) -> None:
        """Messages of a device, all at once."""
        events = [json.dumps({"n": number, "s": seconds, "die": die}).encode() for number in numbers]
        self.router.send(target, *((b"t", event) for event in events))

    def numbers(self) -> list[tuple[str, int]]:
        """What has begun: by which label, which number."""
        return [(handled.label, handled.number) for handled in self.stage.begun]


@contextlib.asynccontextmanager
async def a_theatre() -> AsyncIterator[Theatre]:
    """A manager in a temporary directory, stopped afterwards."""
    with tempfile.TemporaryDirectory(prefix="ggfast-test-") as name:
        stage, router = Stage(), TestRouter()
        manager, log, counters, logs = new_manager(stage, router)  # type: ignore[arg-type]  # the methods it needs
        world = Theatre(Path(name), stage, router, manager, log, counters, logs)  # type: ignore[arg-type]
        try:
            yield world
        finally:
            await manager.stop()
            assert stage.actors == {}, "workers outlive the manager"
