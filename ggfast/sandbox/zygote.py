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
import select
import socket
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ggfast._ext import kernel
from ggfast.errors import SandboxFailed
from ggfast.sandbox import image

HEAD: Final = struct.Struct("=II")
RECORD: Final = struct.Struct("=IIi")
Rights = tuple[int, int, "array.array[int]"]


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

    def __init__(self, module: Any, pid: int, descriptor: int) -> None:
        """The zygote that image.fork_zygote has made of `module`."""
        self.pid = pid
        self._module = module
        self._early: deque[bytes] = deque()
        self._socket: socket.socket | None = socket.socket(fileno=descriptor)

    @property
    def has_image(self) -> bool:
        """Whether Python workers can be forked."""
        return self._module is not None

    @property
    def descriptor(self) -> int:
        """What to poll for reading; -1 while there is no zygote."""
        return self._socket.fileno() if self._socket is not None else -1

    @property
    def has_news(self) -> bool:
        """Whether `news` has something that polling does not tell of: it was read while there was no room to ask."""
        return bool(self._early)

    def start(self) -> None:
        """Fork another one, after the first has died. It has more of the supervisor's heap in it, and what requests
        said (names and paths, no secrets). Raises OSError."""
        self.pid, descriptor = image.fork_zygote(self._module)
        self._socket = socket.socket(fileno=descriptor)

    def died(self) -> None:
        """It was reaped: forget its socket. Its workers have died with it."""
        self.pid = 0
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def spawn(self, serial: int, plan: bytes, descriptors: Sequence[int]) -> None:
        """Ask for a worker; `descriptors` are ipc, stdout, stderr and the error pipe. The answer is a Forked."""
        self._send(*spawn_message(serial, plan, descriptors))

    def keep(self, serial: int, plan: bytes, descriptors: Sequence[int]) -> None:
        """Ask for a worker outside of PID namespaces, below a keeper; its number is the keeper's, which ends with all
        that the worker started. `descriptors` as of `spawn`, then that of the mount namespace the plan enters."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        self._send([HEAD.pack(kernel.KEEP, serial), plan], rights)

    def spare(self, serial: int, plan: bytes, descriptor: int) -> None:
        """Ask for a process that runs this beginning of a plan and waits for its request on the other end of
        `descriptor` (`spawn_message`). The answer is a Forked."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        self._send([HEAD.pack(kernel.SPARE, serial), plan], rights)

    def kill(self, pid: int, number: int) -> None:
        """Send a signal to a worker; without effect when it is dead."""
        self._send([RECORD.pack(kernel.KILL, pid, number)], [])

    def _send(self, parts: list[bytes], rights: list[Rights]) -> None:
        if self._socket is None:
            raise SandboxFailed("zygote", errno.EAGAIN, "the zygote is being started anew", hint="Try again.")
        try:
            while not self._sent(parts, rights):
                self._make_room()
        except OSError as error:
            raise SandboxFailed("zygote", error.errno or 0, f"the zygote cannot be asked: {error.strerror}") from None

    def _sent(self, parts: list[bytes], rights: list[Rights]) -> bool:
        assert self._socket is not None
        try:
            self._socket.sendmsg(parts, rights, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        return True

    def _make_room(self) -> None:
        """It does not read while it waits for us to: hundreds of deaths at once fill its side of the socket."""
        assert self._socket is not None
        while record := self._record():
            self._early.append(record)
        room = select.poll()
        room.register(self._socket, select.POLLIN | select.POLLOUT)
        room.poll()

    def _record(self) -> bytes:
        """The next packet; empty when there is none now, or none any more."""
        assert self._socket is not None
        try:
            data = self._socket.recv(RECORD.size, socket.MSG_DONTWAIT)
        except OSError:
            return b""
        return data if len(data) == RECORD.size else b""  # its end; it is reaped like any child

    def news(self) -> Iterator[Forked | Ended]:
        """Everything it has said."""
        while self._socket is not None and (data := self._early.popleft() if self._early else self._record()):
            kind, first, second = RECORD.unpack(data)
            yield Forked(first, second) if kind == kernel.SPAWN else Ended(first, second)


def spawn_message(serial: int, plan: bytes, descriptors: Sequence[int]) -> tuple[list[bytes], list[Rights]]:
    """The request for a worker, as sendmsg takes it."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    return [HEAD.pack(kernel.SPAWN, serial), plan], rights
