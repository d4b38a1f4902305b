"""The process that workers are forked from, seen from the supervisor.

It is forked once, after everything that workers share has been imported, and then stays in C
(ext/kernel_zygote.pxi), so that its memory does not move on from what its children share with it: a worker
forked from a process that thinks in Python has a megabyte more for itself alone.

Its children are not the supervisor's. Their ends are told here, and signals to them go through it, because only
their parent knows that a number has not been given to somebody else yet.
"""

from __future__ import annotations

import array
import errno
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from ggfast._ext import kernel
from ggfast.errors import SandboxFailed
from ggfast.sandbox import privileges

HEAD: Final = struct.Struct("=II")
RECORD: Final = struct.Struct("=IIi")
SOCKET, NAMESPACE, SIGNALS, FIRST_FREE = 10, 11, 12, 13


@dataclass(frozen=True, slots=True)
class Forked:
    """A plan was given to a new process: its pid, or minus errno."""

    serial: int
    pid: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A worker is dead and its number free again; a status as wait(2) gives it."""

    pid: int
    status: int


class Zygote:
    """Start, spawn, kill, read the news. Nothing here blocks longer than the zygote takes to read a packet."""

    def __init__(self, become_image: Callable[[], None], worker_main: Callable[[], NoReturn]) -> None:
        self.pid = 0
        self._become_image = become_image
        self._worker_main = worker_main
        self._socket: socket.socket | None = None

    @property
    def descriptor(self) -> int:
        """What to poll for reading; -1 while there is no zygote."""
        return self._socket.fileno() if self._socket is not None else -1

    def start(self) -> None:
        """Fork it from this process as it is now; raises OSError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            self._live(theirs)
        theirs.close()
        self.pid, self._socket = pid, ours

    def _live(self, sock: socket.socket) -> NoReturn:
        """In the child. Whatever happens, the supervisor's code above must not go on here."""
        try:
            kernel.prctl(privileges.PR_SET_PDEATHSIG, signal.SIGKILL)
            kernel.set_title(b"ggfast-zygote")
            kernel.drop_bounding(0)  # nothing here is ever executed; workers find nothing left to drop
            namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
            signals = kernel.signal_descriptor(1 << signal.SIGCHLD)
            moved = [os.dup(fd) for fd in (sock.fileno(), namespace, signals)]
            spare = max(*moved, FIRST_FREE) + 1
            moved = [os.dup2(fd, spare + place, inheritable=False) for place, fd in enumerate(moved)]
            for place, fd in zip((SOCKET, NAMESPACE, SIGNALS), moved, strict=True):
                os.dup2(fd, place, inheritable=False)
            close_from(FIRST_FREE)
            self._become_image()
            kernel.serve_zygote(SOCKET, NAMESPACE, SIGNALS)
            self._worker_main()
        finally:
            os._exit(1)

    def died(self) -> None:
        """It was reaped: forget its socket. Its workers have died with it."""
        self.pid = 0
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def spawn(self, serial: int, plan: bytes, descriptors: Sequence[int]) -> None:
        """Ask for a worker; `descriptors` are ipc, stdout, stderr and the error pipe. The answer is a Forked."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        self._send([HEAD.pack(kernel.SPAWN, serial), plan], rights)

    def kill(self, pid: int, number: int) -> None:
        """Send a signal to a worker; without effect when it is dead."""
        self._send([RECORD.pack(kernel.KILL, pid, number)], [])

    def _send(self, parts: list[bytes], rights: list[tuple[int, int, array.array[int]]]) -> None:
        if self._socket is None:
            raise SandboxFailed("zygote", errno.EAGAIN, "the zygote is being started anew", hint="Try again.")
        try:
            self._socket.sendmsg(parts, rights, socket.MSG_NOSIGNAL)
        except OSError as error:
            raise SandboxFailed("zygote", error.errno or 0, f"the zygote cannot be asked: {error.strerror}") from None

    def news(self) -> Iterator[Forked | Ended]:
        """Everything it has said."""
        while self._socket is not None:
            try:
                data = self._socket.recv(RECORD.size, socket.MSG_DONTWAIT)
            except OSError:
                return
            if len(data) != RECORD.size:
                return  # its end; it is reaped like any child
            kind, first, second = RECORD.unpack(data)
            yield Forked(first, second) if kind == kernel.SPAWN else Ended(first, second)


def close_from(first: int) -> None:
    """Close every descriptor from this number on."""
    try:
        kernel.close_range(first, 0xFFFFFFFF)
    except OSError:  # before Linux 5.9
        os.closerange(first, max(map(int, os.listdir("/proc/self/fd"))) + 1)
