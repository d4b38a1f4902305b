"""One worker as the spawner keeps it, from the request on."""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from typing import Final

from ggfast.errors import SandboxFailed
from ggfast.sandbox.cgroups import Group
from ggfast.sandbox.policy import WorkerSpec

RECORD: Final = struct.Struct("=II")  # what a plan writes to its error pipe: operation index or DONE, errno


@dataclass(slots=True)
class Worker:
    """One instance. `ipc`, `stdout`, `stderr` are our copies of the daemon's ends, never read, kept for adopt."""

    instance: str
    spec: WorkerSpec
    serial: int  # of the request to the zygote
    pid: int  # 0 until the zygote has forked
    group: Group
    steps: tuple[str, ...]
    ipc: int
    stdout: int
    stderr: int
    error_pipe: int
    oom_event: int | None
    request: int | None  # None: nobody waits for the answer any more
    records: bytes = b""
    started: bool = False

    @property
    def last_record(self) -> tuple[int, int] | None:
        """The executor's last word: (operation index or DONE, errno)."""
        if len(self.records) < RECORD.size:
            return None
        index, number = RECORD.unpack(self.records[-RECORD.size :])
        return index, number

    @property
    def descriptors(self) -> list[int]:
        """What the daemon gets."""
        return [self.ipc, self.stdout, self.stderr]

    def set_up_failure(self) -> SandboxFailed:
        """Why it died before its plan was done."""
        if self.last_record is None:
            text = f"killed while its container was set up (memory limit {self.spec.memory_kb} KB)"
            return SandboxFailed("set-up", errno.ENOMEM, text)
        index, number = self.last_record
        step = self.steps[index] if index < len(self.steps) else str(index)
        return SandboxFailed(step, number, f"{step}: {os.strerror(number)}")
