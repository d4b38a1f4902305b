"""The running core as a process: found by its PID file, recognised by its title, stopped by signal.

A PID file may be stale and its number reused by a stranger, so nothing is signalled unless the process shows the
title that the supervisor gives itself (`<root>/ggc/packages/<version>/bin/daemon`). Signals go through a pidfd:
between the check and the signal the number cannot change hands.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from ggfast.errors import OperatingError
from ggfast.layout import Layout


@dataclass(frozen=True, slots=True)
class RunningCore:
    """A live supervisor: its PID and a pidfd that stays valid for it alone; -1 on kernels without (before 5.3), where
    the title has to do, looked at again before each signal."""

    pid: int
    pidfd: int
    title: bytes = b""

    def close(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; a process that has just ended is no error."""
        try:
            if self.pidfd >= 0:
                signal.pidfd_send_signal(self.pidfd, number)
            elif _shows(self.pid, self.title):
                os.kill(self.pid, number)
        except ProcessLookupError:
            pass

    def wait(self, timeout_s: float) -> bool:
        """Wait for the process to end; False if it has not after `timeout_s`. Blocking."""
        if self.pidfd < 0:
            return self._watch(timeout_s)
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def _watch(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while _shows(self.pid, self.title):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


def find(layout: Layout) -> RunningCore | None:
    """The core named by the layout's PID file, or None if there is none (no file, dead, or a stranger's PID).

    Raises OperatingError if the PID file holds something else than a number.
    """
    pid_file = layout.pid_file
    try:
        text = pid_file.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    if not text.isdecimal():
        raise OperatingError(
            f"{pid_file} holds {text[:40]!r}, expected a process number.",
            hint=f"Remove {pid_file} and start again.",
        )
    try:
        pidfd = os.pidfd_open(int(text))
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):  # a kernel without, or a filter of an outer container's
            return None
        pidfd = -1
    except OverflowError:  # no process number at all
        return None
    running = RunningCore(int(text), pidfd, os.fsencode(layout.base) + b"/packages/")
    if not _shows(running.pid, running.title):
        running.close()
        return None
    return running


def _shows(pid: int, title: bytes) -> bool:
    """Whether a process lives whose command line begins so; one that waits to be reaped shows none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(title)
    except OSError:
        return False
