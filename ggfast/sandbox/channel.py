"""The daemon's end of its channel to the spawner: requests as coroutines, events as one callback.

One packet is one JSON object; descriptors arrive beside it. Works on any asyncio loop (add_reader only).
"""

from __future__ import annotations

import array
import asyncio
import errno
import json
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ggfast import limits
from ggfast.errors import LimitReached, LinkDown, SandboxFailed

DESCRIPTORS_MAX: Final = 8  # a packet's
DESCRIPTORS_OF_WORKER: Final = 3

# Named here because inside the class `list` is the verb.
Descriptors = list[int]
Instances = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Spawned:
    """A worker and the daemon's three descriptors of it, all non-blocking; the receiver closes them."""

    pid: int
    ipc: socket.socket
    stdout: int
    stderr: int


class SpawnerChannel:
    """`sock` is the descriptor given as --channel-fd. `on_event` gets every `exited` and `stop` event, and
    `{"event": "closed"}` when the supervisor is gone. Requests raise SandboxFailed (refused or failed: step,
    errno), LinkDown (closed) or LimitReached (too many waiting to be sent). Never blocks."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        on_event: Callable[[dict[str, Any]], None],
    ) -> None:
        sock.setblocking(False)
        self.protocol_errors = 0
        self._loop = loop
        self._sock = sock
        self._on_event = on_event
        self._next = 0
        self._waiting: dict[int, asyncio.Future[tuple[dict[str, Any], Descriptors]]] = {}
        self._spawning: dict[int, str] = {}
        self._outgoing: deque[bytes] = deque()
        self._closed = False
        loop.add_reader(sock.fileno(), self._readable)

    async def spawn(self, instance: str, spec: Mapping[str, Any]) -> Spawned:
        """Start a worker; returns when its container stands. A cancelled caller's worker is killed."""
        message = {"verb": "spawn", "instance": instance, "spec": dict(spec)}
        answer, fds = await self._request(message, spawning=instance)
        if len(fds) != DESCRIPTORS_OF_WORKER:
            self._kill_unwanted(instance)  # this process has no descriptor left for it
        return _spawned(answer, fds)

    async def adopt(self, instance: str) -> Spawned:
        """A fresh socket to a worker that an earlier daemon started; the old one ends."""
        return _spawned(*await self._request({"verb": "adopt", "instance": instance}))

    async def kill(self, instance: str, number: int = 9) -> None:
        """Send a signal; from SIGKILL on, wait for the `exited` event."""
        await self._simple({"verb": "kill", "instance": instance, "signal": number})

    async def stat(self, instance: str) -> dict[str, Any]:
        """memory_kb, memory_peak_kb, memory_limit_kb, oom_kills, cpu_ms, pids; -1 where unknown."""
        return await self._simple({"verb": "stat", "instance": instance})

    async def list(self) -> Instances:
        """Running workers: instance, pid, spec_hash (policy.spec_hash of the request)."""
        instances: Instances = (await self._simple({"verb": "list"}))["instances"]
        return instances

    async def ready(self) -> None:
        """Tell the supervisor that the daemon serves."""
        await self._simple({"verb": "ready"})

    async def stop(self) -> None:
        """Ask for an orderly end of everything; a `stop` event follows."""
        await self._simple({"verb": "stop"})

    def close(self) -> None:
        """Forget the channel; everything that waits gets LinkDown."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(LinkDown("the spawner's channel is closed"))
        self._waiting.clear()

    async def _simple(self, message: dict[str, Any]) -> dict[str, Any]:
        answer, fds = await self._request(message)
        _close_all(fds)
        return answer

    async def _request(
        self, message: dict[str, Any], *, spawning: str | None = None
    ) -> tuple[dict[str, Any], Descriptors]:
        if self._closed:
            raise LinkDown("the spawner's channel is closed")
        if len(self._outgoing) >= limits.CHANNEL_BACKLOG_MAX:
            raise LimitReached("spawner requests waiting", len(self._outgoing) + 1, limits.CHANNEL_BACKLOG_MAX)
        self._next += 1
        number = self._next
        packet = json.dumps({"id": number, **message}, separators=(",", ":")).encode()
        if len(packet) > limits.CHANNEL_PACKET_BYTES_MAX:
            raise LimitReached("spawner request in bytes", len(packet), limits.CHANNEL_PACKET_BYTES_MAX)
        future = self._waiting[number] = self._loop.create_future()
        if spawning is not None:
            self._spawning[number] = spawning
        self._outgoing.append(packet)
        self._writable()
        answer, fds = await future
        if answer.get("ok") is True:
            return answer, fds
        _close_all(fds)
        raise SandboxFailed(str(answer.get("step")), int(answer.get("errno", 0)), str(answer.get("error")))

    def _writable(self) -> None:
        while self._outgoing:
            try:
                self._sock.send(self._outgoing[0])
            except BlockingIOError:
                self._loop.add_writer(self._sock.fileno(), self._writable)
                return
            except OSError:
                self._lost()
                return
            self._outgoing.popleft()
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        for _ in range(64):
            if self._closed:
                return
            try:
                data, fds = _receive(self._sock)
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            if not data:
                _close_all(fds)
                self._lost()
                return
            try:
                message = json.loads(data)
            except ValueError:
                message = None
            if not isinstance(message, dict):
                self.protocol_errors += 1
                _close_all(fds)
            elif "event" in message:
                _close_all(fds)
                self._on_event(message)
            else:
                self._answer(message, fds)

    def _answer(self, message: dict[str, Any], fds: Descriptors) -> None:
        number = message.get("id")
        future = self._waiting.pop(number, None) if isinstance(number, int) else None
        instance = self._spawning.pop(number, None) if isinstance(number, int) else None
        if future is not None and not future.done():
            future.set_result((message, fds))
            return
        _close_all(fds)
        if instance is not None and message.get("ok") is True:  # nobody waits for this worker any more
            self._kill_unwanted(instance)

    def _kill_unwanted(self, instance: str) -> None:
        self._next += 1
        kill = {"id": self._next, "verb": "kill", "instance": instance, "signal": 9}
        self._outgoing.append(json.dumps(kill, separators=(",", ":")).encode())
        self._writable()

    def _lost(self) -> None:
        if not self._closed:
            self.close()
            self._on_event({"event": "closed"})


def _receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    space = socket.CMSG_SPACE(DESCRIPTORS_MAX * array.array("i").itemsize)
    data, ancillary, _, _ = sock.recvmsg(limits.CHANNEL_PACKET_BYTES_MAX, space, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, list(fds)


def _spawned(answer: dict[str, Any], fds: list[int]) -> Spawned:
    if len(fds) != DESCRIPTORS_OF_WORKER:
        _close_all(fds)
        raise SandboxFailed("channel", errno.EMFILE, f"a worker came with {len(fds)} descriptors, expected 3")
    ipc, stdout, stderr = socket.socket(fileno=fds[0]), fds[1], fds[2]
    ipc.setblocking(False)
    for fd in (stdout, stderr):
        os.set_blocking(fd, False)
    return Spawned(int(answer["pid"]), ipc, stdout, stderr)


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
