"""One worker as the spawner keeps it, from the request on."""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass, field
from typing import Any, Final

from ggfast._ext import kernel
from ggfast.errors import SandboxFailed
from ggfast.sandbox.cgroups import Group, Statistics
from ggfast.sandbox.policy import WorkerSpec

Steps = tuple[str, ...]
RECORD: Final = struct.Struct("=II")  # what a plan writes to its error pipe: operation index or DONE, errno


@dataclass(slots=True)
class Worker:
    """One instance. `ipc`, `stdout`, `stderr` are our copies of the daemon's ends, never read, kept for adopt."""

    instance: str
    spec: WorkerSpec
    serial: int  # of the request to the zygote
    pid: int  # the zygote's child: the worker, or its keeper; 0 until the zygote has forked
    group: Group
    steps: Steps
    ipc: int
    stdout: int
    stderr: int
    error_pipe: int
    oom_event: int | None
    request: int | None  # None: nobody waits for the answer any more
    records: bytes = b""
    started: bool = False
    by_spare: bool = False

    @property
    def _told(self) -> list[tuple[int, int]]:
        whole = len(self.records) - len(self.records) % RECORD.size
        return list(RECORD.iter_unpack(self.records[:whole]))

    @property
    def last_record(self) -> tuple[int, int] | None:
        """The executor's last word: (operation index or DONE, errno)."""
        return next((record for record in reversed(self._told) if record[0] != kernel.NUMBER), None)

    @property
    def number(self) -> int:
        """The worker's own pid, which is not the keeper's."""
        return next((value for index, value in self._told if index == kernel.NUMBER), self.pid)

    @property
    def failed_as_spare(self) -> bool:
        """Whether it died before a word of its request was looked at."""
        return self.by_spare and not self.records

    @property
    def descriptors(self) -> list[int]:
        """What the daemon gets."""
        return [self.ipc, self.stdout, self.stderr]

    def exited(self, status: int, statistics: Statistics) -> dict[str, Any]:
        """The event that tells of its end."""
        code = os.waitstatus_to_exitcode(status)
        return {
            "event": "exited",
            "instance": self.instance,
            "pid": self.number,
            "exit_status": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
            "oom": statistics.oom_kills > 0,
            "memory_peak_kb": statistics.memory_peak_kb,
            "memory_limit_kb": statistics.memory_limit_kb,
            "cpu_ms": statistics.cpu_ms,
            "error": None,
        }

    def set_up_failure(self, status: int, out_of_memory: bool) -> SandboxFailed:
        """Why it died before its plan was done; `status` as wait(2) gives it."""
        if self.last_record is None and out_of_memory:
            text = f"killed while its container was set up (memory limit {self.spec.memory_kb} KB)"
            return SandboxFailed("set-up", errno.ENOMEM, text)
        if self.last_record is None:
            code = os.waitstatus_to_exitcode(status)
            how = f"killed by signal {-code}" if code < 0 else f"ended with status {code}"
            return SandboxFailed("set-up", errno.EIO, f"{how} before its set-up had begun", hint="Try again.")
        index, number = self.last_record
        step = "fork" if index == kernel.FORK else self.steps[index] if index < len(self.steps) else str(index)
        return SandboxFailed(step, number, f"{step}: {os.strerror(number)}")


@dataclass(slots=True)
class Opened:
    """Everything opened for one spawn, closed again when it fails: our ends, in the order ipc, stdout, stderr, error
    pipe and possibly the group's event, and the worker's."""

    near: list[int] = field(default_factory=list)
    far: list[int] = field(default_factory=list)

    def open(self) -> None:
        """Make the socket and the pipes."""
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self.near.append(near.detach())
        self.far.append(far.detach())
        for _ in range(3):  # stdout, stderr, error pipe
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
            self.near.append(read_end)
            self.far.append(write_end)
        os.set_blocking(self.near[3], False)


def worker_of(
    instance: str, spec: WorkerSpec, serial: int, pid: int, group: Group, steps: Steps, opened: Opened, request: int
) -> Worker:
    """A worker that was asked for with what was opened for it."""
    ipc, stdout, stderr, errors, *event = opened.near
    event_fd = event[0] if event else None
    made = Worker(instance, spec, serial, pid, group, steps, ipc, stdout, stderr, errors, event_fd, request)
    made.by_spare = pid != 0
    return made
