"""The daemon as the supervisor sees it: a child of another user that may die and is started again.

Its listeners stay open here, so that no client is refused in between, and so do the files that root has read for it:
their content is never looked at here. Deaths before the first `ready` are counted: a daemon that never comes up is a
failed start, not a reason to try for ever.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from ggfast import limits
from ggfast._ext import kernel
from ggfast.sandbox import privileges
from ggfast.sandbox.cgroups import write_text

CLONE_NEWNS: Final = 0x20000


@dataclass(frozen=True, slots=True)
class DaemonSpec:
    """Who the daemon is."""

    argv: tuple[str, ...]
    uid: int
    gid: int
    groups: tuple[int, ...]
    environment: Mapping[str, str]

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> DaemonSpec:
        """From the launch spec."""
        return cls(
            tuple(document["argv"]),
            int(document["uid"]),
            int(document["gid"]),
            tuple(document.get("groups", ())),
            dict(document.get("environment", {})),
        )


class Daemon:
    """Start, death, delay, start again. Knows no sockets but the channel it makes for each life."""

    def __init__(
        self,
        spec: DaemonSpec,
        listeners: Mapping[str, int],
        host_mounts: int | None,
        clock: Callable[[], float],
        files: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.pid = 0
        self.channel: socket.socket | None = None
        self.output = -1
        self.starts = 0
        self.ever_ready = False
        self.restart_at: float | None = None
        self._spec = spec
        self._handed = (("--listener", listeners), ("--file", files))
        self._host_mounts = host_mounts
        self._clock = clock
        self._ready_since: float | None = None
        self._delay = limits.DAEMON_RESTART_FIRST_S

    def start(self, join: Sequence[str] = ()) -> None:
        """Fork and exec; afterwards `pid`, `channel` and `output` (its stdout and stderr) are set. `join` are files
        of control groups to enter, so that its children can be found. Raises OSError where memory or descriptors are
        short; it counts as a start that failed."""
        self.restart_at, self._ready_since = None, None
        self.starts += 1
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        output, their_output = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(output, False)
        try:
            pid = os.fork()
        except OSError:
            os.close(output)
            os.close(their_output)
            raise
        if pid == 0:
            self._exec(theirs.fileno(), their_output, join)
        theirs.close()
        os.close(their_output)
        self.pid, self.channel, self.output = pid, ours, output

    def _exec(self, channel: int, output: int, join: Sequence[str]) -> None:
        """In the child: the host's mounts, no privileges, exactly the descriptors of the contract."""
        try:
            os.setsid()  # a terminal that the core was started from is not the daemon's to type into
            os.dup2(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            _join(join)
            if self._host_mounts is not None:
                kernel.setns(self._host_mounts, CLONE_NEWNS)
            os.chdir("/")
            os.umask(0o022)
            kernel.reset_signals(True)
            arguments = [*self._spec.argv, "--channel-fd", str(channel)]
            os.set_inheritable(channel, True)
            for option, descriptors in self._handed:
                for name, fd in sorted(descriptors.items()):
                    os.set_inheritable(fd, True)
                    arguments += [option, f"{name}={fd}"]
            parent = os.getppid()
            privileges.become_daemon_user(self._spec.uid, self._spec.gid, list(self._spec.groups))
            if os.getppid() != parent:
                os._exit(1)
            os.execve(arguments[0], arguments, dict(self._spec.environment))
        except BaseException as error:
            os.write(2, f"daemon not started: {type(error).__name__}: {error}\n".encode("utf-8", "replace"))
        finally:
            os._exit(127)

    def ready(self) -> bool:
        """The daemon serves; True the first time ever."""
        first = not self.ever_ready
        self.ever_ready = True
        self._ready_since = self._clock()
        return first

    def died(self) -> None:
        """Plan the next start: 0.1 s, doubling to 10 s, small again after a healthy minute."""
        now = self._clock()
        if self._ready_since is not None and now - self._ready_since >= limits.DAEMON_HEALTHY_S:
            self._delay = limits.DAEMON_RESTART_FIRST_S
        self.restart_at = now + self._delay
        self._delay = min(self._delay * 2, limits.DAEMON_RESTART_MAX_S)
        self.pid = 0

    @property
    def hopeless(self) -> bool:
        """Died too often without ever having served."""
        return not self.ever_ready and self.starts >= limits.DAEMON_START_ATTEMPTS

    def kill(self) -> None:
        """SIGKILL, if it lives."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)


def _join(files: Sequence[str]) -> None:
    for path in files:
        try:
            write_text(path, "0")
        except OSError as error:
            text = f"daemon: what it starts may outlive it: {path}: {error.strerror}\n"
            os.write(2, text.encode("utf-8", "replace"))
