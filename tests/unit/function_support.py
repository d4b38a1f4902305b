"""What the tests of functions share: a spawner that starts workers without a container, a router, logs, a world.

The workers are real: the shipped runtime in a process of its own, started by plain execution.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from ggfast._ext.buffers import Ring
from ggfast.clock import SystemClock
from ggfast.core.functions.environment import CoreFacts, Identity, WorkerPlan, worker_plan
from ggfast.core.functions.manager import FunctionManager, ManagerSettings
from ggfast.counters import Counters
from ggfast.errors import LimitReached, SandboxFailed
from ggfast.group.document import Function, FunctionConfiguration
from ggfast.log import Level

REPOSITORY = Path(__file__).resolve().parents[2]
uvloop.new_event_loop().close()  # the first loop makes one pipe for the whole process, which is no test's leak
SHIM = REPOSITORY / "ggfast" / "core" / "workers" / "python"
SDK_VERSIONS = ("1.3.0", "1.4.0", "1.5.0", "1.6.0", "1.6.1")
_START = f"""
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.closerange(4, 4096)
sys.dont_write_bytecode = True
sys.path.insert(0, {str(SHIM)!r})
import ggworker
ggworker.main()
"""


def sdk(version: str) -> Path:
    """The unmodified published SDK of this version, installed once into the build directory."""
    target = REPOSITORY / "build" / "sdk" / version
    with open(_lock_file(), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "greengrasssdk" / "__init__.py").exists():
            command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(target)]
            subprocess.run([*command, f"greengrasssdk=={version}"], check=True, timeout=120)
    return target


def _lock_file() -> Path:
    directory = REPOSITORY / "build"
    directory.mkdir(exist_ok=True)
    return directory / "sdk.lock"


def arn(name: str, version: str = "1") -> str:
    return f"arn:aws:lambda:eu-west-1:123456789012:function:{name}:{version}"


@dataclass
class Started:
    """What a spawn answers."""

    pid: int
    ipc: socket.socket
    stdout: int
    stderr: int


@dataclass
class _Kept:
    process: subprocess.Popen[bytes]
    near: socket.socket
    stdout: int
    stderr: int
    pidfd: int


class PlainChannel:
    """A spawner whose workers have no container. `oom` makes the next deaths look like the memory limit's."""

    def __init__(self, start: str = _START) -> None:
        self.loop = asyncio.get_running_loop()
        self.on_exited: Callable[[Mapping[str, Any]], None] = lambda _event: None
        self.oom = False
        self.refuse = ""
        self.spawned: list[str] = []
        self.start = start
        self._kept: dict[str, _Kept] = {}

    async def spawn(self, instance: str, spec: Mapping[str, Any]) -> Started:
        if self.refuse:
            raise SandboxFailed("mount", 2, self.refuse)
        near, far = socket.socketpair()
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-E", "-c", self.start, str(far.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=out_write,
            stderr=err_write,
            pass_fds=(far.fileno(),),
            env={},
        )
        far.close()
        os.close(out_write)
        os.close(err_write)
        pidfd = os.pidfd_open(process.pid)
        self._kept[instance] = _Kept(process, near, os.dup(out_read), os.dup(err_read), pidfd)
        self.spawned.append(instance)
        self.loop.add_reader(pidfd, self._ended, instance)
        return Started(process.pid, near.dup(), out_read, err_read)

    async def adopt(self, instance: str) -> Started:
        kept = self._kept[instance]
        near, far = socket.socketpair()
        socket.send_fds(kept.near, [b"\xff"], [far.fileno()])
        far.close()
        kept.near.shutdown(socket.SHUT_RDWR)
        kept.near.close()
        kept.near = near
        return Started(kept.process.pid, near.dup(), os.dup(kept.stdout), os.dup(kept.stderr))

    async def kill(self, instance: str, number: int = 9) -> None:
        if instance not in self._kept:
            raise SandboxFailed("kill", 3, f"no worker {instance}")
        self._kept[instance].process.send_signal(number)

    async def stat(self, instance: str) -> Mapping[str, Any]:
        return {"memory_kb": -1}

    async def list(self) -> list[dict[str, Any]]:
        return [{"instance": name, "pid": kept.process.pid} for name, kept in self._kept.items()]

    def _ended(self, instance: str) -> None:
        kept = self._forget(instance)
        code = kept.process.wait()
        self.on_exited(
            {
                "event": "exited",
                "instance": instance,
                "pid": kept.process.pid,
                "exit_status": code if code >= 0 else None,
                "signal": -code if code < 0 else None,
                "oom": self.oom,
                "memory_peak_kb": 16384,
                "memory_limit_kb": 16384,
                "error": None,
            }
        )

    def _forget(self, instance: str) -> _Kept:
        kept = self._kept.pop(instance)
        self.loop.remove_reader(kept.pidfd)
        kept.near.close()
        for fd in (kept.pidfd, kept.stdout, kept.stderr):
            os.close(fd)
        return kept

    def close(self) -> None:
        """End what is left."""
        for instance in list(self._kept):
            kept = self._forget(instance)
            kept.process.send_signal(signal.SIGKILL)
            kept.process.wait()


class TestRouter:
    """Remembers publishes; hands messages to functions the way the router does."""

    __test__ = False

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes, bytes]] = []
        self.full = False
        self.targets: dict[str, tuple[Ring, Callable[[], None]]] = {}

    def add_function(self, name: str, ring: Ring, notify: Callable[[], None]) -> None:
        assert name not in self.targets
        self.targets[name] = (ring, notify)

    def remove_target(self, name: str) -> None:
        del self.targets[name]

    def publish(self, source: str, topic: bytes, payload: bytes, qos: int = 0, retain: bool = False) -> int:
        self.published.append((source, topic, payload))
        return 1

    def publish_all_or_error(
        self, source: str, topic: bytes, payload: bytes, qos: int = 0, retain: bool = False
    ) -> int:
        if self.full:
            raise LimitReached("queued messages", 1024, 1024)
        return self.publish(source, topic, payload)

    def send(self, target: str, *messages: tuple[bytes, bytes]) -> None:
        """One batch of messages from a device."""
        ring, notify = self.targets[target]
        was_empty = not len(ring)
        for topic, payload in messages:
            ring.offer(topic, payload, "device")
        if was_empty and len(ring):
            notify()

    def payloads(self, topic: bytes) -> list[bytes]:
        return [payload for _, on, payload in self.published if on == topic]


class Lines:
    """Stands in for the runtime log and for function logs."""

    def __init__(self) -> None:
        self.lines: list[tuple[Level, str]] = []
        self.records: list[tuple[str, str, dict[str, Any]]] = []

    def write(self, level: Level, text: str) -> None:
        self.lines.append((level, text))

    def __getattr__(self, level: str) -> Callable[..., None]:
        if level.startswith("_"):
            raise AttributeError(level)
        return lambda message, /, **fields: self.records.append((level, message, fields))

    def messages(self) -> list[str]:
        return [message for _, message, _ in self.records]

    def text(self) -> str:
        return "\n".join(text for _, text in self.lines)


@dataclass
class World:
    """A manager with everything around it."""

    directory: Path
    channel: PlainChannel
    router: TestRouter
    manager: FunctionManager
    log: Lines
    counters: Counters
    logs: dict[str, Lines]
    extra_path: list[str] = field(default_factory=list)

    def plan(
        self,
        name: str,
        source: str,
        *,
        version: str = "1",
        handler: str = "main.handler",
        runtime: str = "python3.8",
        interpreter: str = "",
        file: str = "main.py",
        **more: Any,
    ) -> WorkerPlan:
        """A function of one file. `more` are fields of FunctionConfiguration."""
        code = self.directory / f"{name}-{version}"
        code.mkdir(exist_ok=True)
        (code / file).write_text(source)
        (code / file).chmod(0o755)
        function = Function(
            id=name,
            arn=arn(name, version),
            handler=handler,
            runtime=runtime,
            configuration=FunctionConfiguration(**{"timeout_s": 10, **more}),
        )
        facts = CoreFacts(thing_name="core", region="eu-west-1", account="123456789012", group_id="g")
        return worker_plan(
            function,
            facts,
            Identity(0, 0),
            str(code),
            interpreter=interpreter,
            contained=False,
            sys_path=self.extra_path,
            log_level=Level.DEBUG,
        )

    async def until(self, condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
        """Wait until `condition()` is true."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{what} did not happen\n{self.log.records}\n{self.logs}"
            await asyncio.sleep(0.005)
        return found

    def function_log(self, name: str, version: str = "1") -> Lines:
        return self.logs.setdefault(arn(name, version), Lines())


def new_manager(
    channel: PlainChannel, router: TestRouter, settings: ManagerSettings | None = None
) -> tuple[FunctionManager, Lines, Counters, dict[str, Lines]]:
    """A manager on the running loop."""
    log, counters, logs = Lines(), Counters(), dict[str, Lines]()
    manager = FunctionManager(
        asyncio.get_running_loop(),
        channel,
        router,
        counters,
        log,  # type: ignore[arg-type]  # the same methods as SystemLog
        SystemClock(),
        lambda name: logs.setdefault(name, Lines()),
        settings,
    )
    channel.on_exited = manager.exited
    return manager, log, counters, logs


@contextlib.asynccontextmanager
async def a_world(
    settings: ManagerSettings | None = None, sdk_version: str = "", start: str = _START
) -> AsyncIterator[World]:
    """A manager in a temporary directory, stopped afterwards."""
    with tempfile.TemporaryDirectory(prefix="ggfast-test-") as name:
        channel, router = PlainChannel(start), TestRouter()
        manager, log, counters, logs = new_manager(channel, router, settings)
        extra = [str(sdk(sdk_version))] if sdk_version else []
        world = World(Path(name), channel, router, manager, log, counters, logs, extra)
        try:
            yield world
        finally:
            await world.manager.stop()
            channel.close()


def run(test: Any) -> None:
    """Run a coroutine on the daemon's kind of loop."""
    uvloop.run(asyncio.wait_for(test, 60))
