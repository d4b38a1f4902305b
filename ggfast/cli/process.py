"""The running core as a process: found by its PID file, recognised by its title, stopped by signal.

A PID file may be stale and its number reused by a stranger, so nothing is signalled unless the process shows the
title that the supervisor gives itself (`<root>/ggc/packages/<version>/bin/daemon`). Signals go through a pidfd:
between the check and the signal the number cannot change hands.
"""

from __future__ import annotations

import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path

from ggfast.errors import OperatingError
from ggfast.layout import Layout


@dataclass(frozen=True, slots=True)
class RunningCore:
    """A live supervisor: its PID and a pidfd that stays valid for it alone."""

    pid: int
    pidfd: int

    def close(self) -> None:
        os.close(self.pidfd)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; a process that has just ended is no error."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            pass

    def wait(self, timeout_s: float) -> bool:
        """Wait for the process to end; False if it has not after `timeout_s`. Blocking."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))


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
    except (OSError, OverflowError):  # gone, or no process number at all
        return None
    if not _is_core(int(text), layout):
        os.close(pidfd)
        return None
    return RunningCore(int(text), pidfd)


def _is_core(pid: int, layout: Layout) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return command.startswith(os.fsencode(layout.base) + b"/packages/")
