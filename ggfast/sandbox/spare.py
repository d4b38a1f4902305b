"""One process forked ahead of the request it will serve, with the house of the last request built.

On cgroup v1 a process that joins a group waits for every processor to pass a quiet moment (the kernel's
cgroup_threadgroup_rwsem): 4.3 of the 6.7 ms that a cold start took on two cores with Linux 6.18. A spare has been
forked, has joined the groups of a container without limits and has mounted a root; it then waits for the rest of its
plan, still as root, alone in its PID namespace, and reads nothing but the supervisor's socket. The limits are written
before that. A request for another kind of root is served without it. It is replaced every SPARE_AGE_S, so that what
it saw of the host (its resolv.conf, say) is a minute old at most.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Sequence

from ggfast import limits
from ggfast.errors import SandboxFailed
from ggfast.sandbox import plan as plans
from ggfast.sandbox.cgroups import Group, Tree
from ggfast.sandbox.zygote import Zygote, spawn_message


class Spare:
    """At most one waiting process. `due_at` says when it should be made or replaced, None: at the next request."""

    def __init__(self, zygote: Zygote, tree: Tree) -> None:
        self.due_at: float | None = 0.0
        self.pid = 0
        self._zygote = zygote
        self._tree = tree
        self.house: plans.House | None = None  # of the last request
        self._built: plans.House | None = None
        self._group: Group | None = None
        self._socket: socket.socket | None = None
        self._serial = 0
        self._made = 0

    @property
    def fits(self) -> bool:
        """Whether the one that waits, or is being made, is of the last request's house."""
        return self._socket is not None and self._built == self.house

    def make(self, serial: int, now: float) -> None:
        """Ask for one; a machine that cannot have it goes on without, and is asked again later."""
        self.due_at = None
        if self.house is None:
            return
        self._made += 1
        self._built = self.house
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            self.due_at = now + limits.SPARE_RETRY_S
            return
        try:
            self._group = self._tree.create(f".spare-{self._made}")
            self._zygote.spare(serial, plans.ahead(self._group.join_first, self.house).data, theirs.fileno())
            self._socket, self._serial = ours, serial
        except (SandboxFailed, OSError):
            ours.close()
            self.due_at = now + limits.SPARE_RETRY_S
        finally:
            theirs.close()

    def forked(self, serial: int, pid: int, now: float) -> bool:
        """News of a fork; whether it was the spare's."""
        if self._socket is None or self.pid or serial != self._serial:
            return False
        if pid > 0:
            self.pid = pid
            self.due_at = now + limits.SPARE_AGE_S
        else:
            self._close()
            self.due_at = now + limits.SPARE_RETRY_S
        return True

    def ended(self, pid: int, now: float) -> Group | None:
        """The spare died before it was used: its group, to be removed; None if `pid` is another process."""
        if not self.pid or pid != self.pid:
            return None
        self.pid = 0  # reaped: the number may be another process's by now
        group = self.drop()
        self.due_at = now + limits.SPARE_RETRY_S
        return group

    def group_for(self, house: plans.House) -> Group | None:
        """The group of a spare that is ready for a request of this house; None if there is none."""
        self.house = house
        return self._group if self.pid and house == self._built else None

    def send(self, plan: bytes, descriptors: Sequence[int]) -> int:
        """Give the waiting spare its request; its pid. It is a worker from now on. 0: it has died, or cannot be
        asked and is killed. Its group is the caller's either way."""
        assert self._socket is not None
        parts, rights = spawn_message(self._serial, plan, descriptors)
        pid = self.pid
        try:
            self._socket.sendmsg(parts, rights, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
        except OSError:
            self._kill_quietly()
            pid = 0
        self._group = None
        self._close()
        return pid

    def drop(self) -> Group | None:
        """Let it end; its group, to be removed when it has."""
        group, self._group = self._group, None
        if self.pid:
            self._kill_quietly()
        self._close()
        self.due_at = None
        return group

    def _kill_quietly(self) -> None:
        try:
            self._zygote.kill(self.pid, int(signal.SIGKILL))
        except SandboxFailed:
            pass  # no zygote: its death has killed the spare

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket, self.pid = None, 0
