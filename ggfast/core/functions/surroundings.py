"""What a worker's surroundings are: whom it asks, whom it tells, what all workers of a core share.

Protocols for the most part: `worker.py` depends on this file alone, and tests put their own parts in.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ggfast.clock import Clock
from ggfast.core.functions.invocations import Invocation, InvokeResult
from ggfast.core.functions.logs import LineSink
from ggfast.counters import Counters
from ggfast.log import SystemLog

if TYPE_CHECKING:
    from ggfast.core.functions.worker import Worker


class Spawned(Protocol):
    """A started worker: its pid, the near ends of its socket and log pipes, now owned by the receiver."""

    @property
    def pid(self) -> int: ...
    @property
    def ipc(self) -> socket.socket: ...
    @property
    def stdout(self) -> int: ...
    @property
    def stderr(self) -> int: ...


class Channel(Protocol):
    """What the daemon can ask the spawner. Failures raise OperatingError."""

    async def spawn(self, instance: str, spec: Mapping[str, Any]) -> Spawned: ...
    async def adopt(self, instance: str) -> Spawned: ...
    async def kill(self, instance: str, number: int = signal.SIGKILL) -> None: ...
    async def stat(self, instance: str) -> Mapping[str, Any]: ...
    async def list(self) -> list[dict[str, Any]]: ...


class Caller(Protocol):
    """Who asks something of the core: a worker by its socket, or the same worker by HTTP. `open_calls` counts both."""

    @property
    def arn(self) -> str: ...
    @property
    def open_calls(self) -> int: ...
    @open_calls.setter
    def open_calls(self, number: int) -> None: ...
    def answer(self, call: int, result: InvokeResult) -> None: ...
    def run_beside(self, work: Coroutine[Any, Any, None]) -> None: ...


class CallHandler(Protocol):
    """Where a worker's own calls go."""

    def publish(self, caller: Caller, call: int, context: bytes, payload: bytes) -> None: ...
    def call(self, caller: Caller, call: int, kind: int, arn: str, context: bytes, payload: bytes) -> None: ...


class Side(Protocol):
    """What the core keeps of a worker that speaks HTTP, beside its socket."""

    def give(self, number: int, invocation: Invocation) -> None: ...
    def retire(self) -> None: ...
    def close(self) -> None: ...


class Owner(Protocol):
    """Told about everything that happens to a worker; `gone` is the last call."""

    def ready(self, worker: Worker) -> None: ...
    def freed(self, worker: Worker) -> None: ...
    def away(self, worker: Worker) -> None: ...
    def finished(self, worker: Worker, result: InvokeResult, seconds: float) -> None: ...
    def ending(self, worker: Worker) -> None: ...
    def gone(self, worker: Worker, problem: str) -> None: ...


@dataclass(slots=True)
class Surroundings:
    """What every worker of the core shares."""

    loop: asyncio.AbstractEventLoop
    clock: Clock
    channel: Channel
    counters: Counters
    log: SystemLog
    function_log: Callable[[str], LineSink]
    calls: CallHandler
    tasks: set[asyncio.Task[None]]
    number: int = 0
    workers: dict[bytes, Worker] = field(default_factory=dict)  # by the digest of their token

    def next_number(self) -> int:
        """An invocation number no running worker has."""
        self.number = (self.number + 1) & 0xFFFFFFFF
        return self.number

    def whose(self, token: bytes) -> Worker | None:
        """The worker that was given this token; takes the same time for every wrong one."""
        worker = self.workers.get(token_digest(token))
        return worker if worker is not None and hmac.compare_digest(worker.token.encode(), token) else None

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine beside; it is kept until it ends."""
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended, as the spawner saw it."""

    status: int | None = None
    signal: int | None = None
    oom: bool = False
    peak_kb: int = 0
    limit_kb: int = 0
    error: str = ""

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Exit:
        """Read the spawner's `exited` event."""
        problem = event.get("error")
        text = f"{problem.get('step')} failed: errno {problem.get('errno')}" if isinstance(problem, dict) else ""
        return cls(
            event.get("exit_status"),
            event.get("signal"),
            bool(event.get("oom")),
            int(event.get("memory_peak_kb") or 0),
            int(event.get("memory_limit_kb") or 0),
            text,
        )

    @property
    def state(self) -> str:
        """V1's words: `signal: killed`, `exit status 1`."""
        if self.error:
            return f"container set-up: {self.error}"
        if self.signal is not None:
            return f"signal: {(signal.strsignal(self.signal) or str(self.signal)).lower()}"
        return f"exit status {self.status if self.status is not None else 'unknown'}"


def token_digest(token: bytes) -> bytes:
    """What a token is looked up by: how long the look-up takes tells nothing about a token."""
    return hashlib.sha256(token).digest()
