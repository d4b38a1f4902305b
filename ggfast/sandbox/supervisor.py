"""The root process of a core: is the spawner, keeps the listeners, starts the daemon and starts it again.

boot.py becomes it, in isolated mode (no environment, no site packages), inside its own mount namespace where the
host's tree is read-only. One thread, one poll(2). It reads two things from others:
requests of the daemon (schema-checked by the spawner) and bytes of the daemon's stderr (copied, not looked at).

    launch ──memfd──► Supervisor ──SEQPACKET──► daemon
                          └──fork + plan──► workers

Nothing survives it: daemon and workers have a parent-death signal, and the next start sweeps the cgroups.
"""

from __future__ import annotations

import array
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from ggfast import limits
from ggfast._ext import kernel
from ggfast.errors import GgfastError, SandboxFailed
from ggfast.sandbox.boot import report
from ggfast.sandbox.cgroups import Group, read_text
from ggfast.sandbox.crashlog import CrashLog
from ggfast.sandbox.daemon import Daemon, DaemonSpec
from ggfast.sandbox.machine import Machine
from ggfast.sandbox.policy import Policy, refuse
from ggfast.sandbox.spawner import Spawner
from ggfast.sandbox.zygote import Zygote

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
DAEMON_OUTPUT_BYTES: Final = 65536  # taken at once: a full pipe
PR_SET_CHILD_SUBREAPER: Final = 36
SIGNAL_RECORD: Final = 128  # bytes of one signalfd_siginfo


class Supervisor:
    """Builds everything from the launch spec and runs until told to stop; `run` returns the exit status."""

    def __init__(self, spec: Mapping[str, Any], module: Any, zygote: tuple[int, int]) -> None:
        listeners, files = ({str(name): int(fd) for name, fd in spec[key].items()} for key in ("listeners", "files"))
        self._ready_fd: int | None = spec["ready_fd"]
        self._pid_directory, self._pid_name = int(spec["pid_dir_fd"]), str(spec["pid_name"])
        self._log = CrashLog(int(spec["crash_dir_fd"]), str(spec["crash_name"]))
        self._poll = select.poll()
        self._signals = kernel.signal_descriptor(sum(1 << number for number in SIGNALS))
        self._outgoing: deque[tuple[bytes, list[int]]] = deque()
        # The daemon's words may hold secrets, and what is once in this heap is in every later worker: so they pass
        # through one buffer that is emptied each time.
        self._copied = bytearray(DAEMON_OUTPUT_BYTES)
        self._stop_at: float | None = None
        self._status = 0
        for warning in spec.get("warnings", ()):
            self._log.line(str(warning))
        machine = Machine(spec)
        for line in machine.lines:
            self._log.line(line)
        self._tree = machine.tree
        host_mounts = spec["host_mounts_fd"]
        self._daemon = Daemon(DaemonSpec.from_json(spec["daemon"]), listeners, host_mounts, time.monotonic, files)
        self._daemon_group: Group | None = None
        self._spawner = Spawner(
            Policy.from_json(spec["policy"]),
            Zygote(module, *zygote),
            str(spec["worker"].get("runtime_dir", "")),
            machine.tree,
            machine.host,
            host_mounts=host_mounts,
            refusal=machine.refusal,
            send=self._send,
            watch=self._watch,
            unwatch=self._unwatch,
        )
        self._watch(self._signals)
        kernel.prctl(PR_SET_CHILD_SUBREAPER, 1)

    # --- the loop ---------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until stopped; the process's exit status."""
        self._start_daemon()
        while True:
            for fd, events in self._poll.poll(self._timeout_ms()):
                self._dispatch(fd, events)
            self._on_time()
            if self._stop_at is not None and not self._daemon.pid:
                return self._finish()

    def _dispatch(self, fd: int, events: int) -> None:
        channel = self._daemon.channel
        if fd == self._signals:
            self._on_signals()
        elif channel is not None and fd == channel.fileno():
            if events & select.POLLOUT:
                self._flush()
            if events & ~select.POLLOUT:
                self._on_channel(channel)
        elif fd == self._daemon.output:
            self._copy_output()
        else:
            living = len(self._spawner.workers)
            self._spawner.ready(fd)
            if len(self._spawner.workers) < living:
                self._end_strays()

    def _timeout_ms(self) -> int | None:
        spare_at = self._spawner.spare_due_at if self._stop_at is None else None
        moments = [moment for moment in (self._daemon.restart_at, self._stop_at, spare_at) if moment is not None]
        if self._spawner.unremoved or self._spawner.watch_memory():
            moments.append(time.monotonic() + 0.02)
        if self._spawner.zygote.has_news:
            moments.append(time.monotonic())
        return max(0, int((min(moments) - time.monotonic()) * 1000) + 1) if moments else None

    def _on_time(self) -> None:
        now = time.monotonic()
        if self._spawner.zygote.has_news:
            self._spawner.ready(self._spawner.zygote.descriptor)
        if self._spawner.unremoved:
            self._spawner.remove_groups()
        if self._stop_at is None:
            self._spawner.make_spare()
        if self._daemon.restart_at is not None and now >= self._daemon.restart_at and self._stop_at is None:
            self._start_daemon()
        if self._stop_at is not None and now >= self._stop_at:
            self._daemon.kill()

    def _watch(self, fd: int) -> None:
        self._poll.register(fd, select.POLLIN)

    def _unwatch(self, fd: int) -> None:
        self._poll.unregister(fd)

    # --- signals and children ---------------------------------------------------------------------------

    def _on_signals(self) -> None:
        data = os.read(self._signals, SIGNAL_RECORD * 16)
        numbers = {struct.unpack_from("=I", data, at)[0] for at in range(0, len(data), SIGNAL_RECORD)}
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._stop()
        if signal.SIGCHLD in numbers:
            self._reap()
            self._end_strays()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._daemon.pid:
                self._daemon_died(status)
            elif pid == self._spawner.zygote.pid:
                self._log.line(f"zygote ended with status {os.waitstatus_to_exitcode(status)}, its workers with it")
                self._spawner.zygote_died()

    def _end_strays(self) -> None:
        """Those who lost their parents are our children (a subreaper's): a dead daemon's, or a function's whose keeper
        was killed. Where there are control groups these end them too. Each end is a SIGCHLD, which looks for more."""
        try:
            children = read_text(f"/proc/self/task/{os.getpid()}/children")  # CONFIG_PROC_CHILDREN
            for pid in map(int, children.split()):
                if pid not in (self._daemon.pid, self._spawner.zygote.pid):
                    os.kill(pid, signal.SIGKILL)
        except OSError:
            pass

    def _stop(self) -> None:
        if self._stop_at is None:
            self._stop_at = time.monotonic() + limits.DAEMON_STOP_S
            self._daemon.restart_at = None
            self._send({"event": "stop"}, [])

    def _finish(self) -> int:
        """The daemon is gone: end the workers, clean up."""
        self._spawner.kill_all()
        deadline = time.monotonic() + limits.DAEMON_STOP_S
        while (self._spawner.workers or not self._spawner.remove_groups()) and time.monotonic() < deadline:
            for fd, events in self._poll.poll(5):
                self._dispatch(fd, events)
        self._tree.close()
        try:
            os.unlink(self._pid_name, dir_fd=self._pid_directory)
        except OSError:
            pass
        return self._status

    # --- the daemon -------------------------------------------------------------------------------------

    def _start_daemon(self) -> None:
        self._drop_outgoing()
        try:
            self._daemon.start(self._make_daemon_group())
        except OSError as error:
            self._plan_restart(f"daemon cannot be forked: {error.strerror}")
            return
        assert self._daemon.channel is not None
        self._watch(self._daemon.channel.fileno())
        self._watch(self._daemon.output)
        self._flush()

    def _daemon_died(self, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        self._copy_output()
        if self._daemon.channel is not None:
            self._unwatch(self._daemon.channel.fileno())
            self._daemon.channel.close()
            self._daemon.channel = None
        if self._daemon.output >= 0:
            self._close_output()
        self._drop_outgoing()
        self._spawner.disown()
        self._plan_restart(f"daemon ended with status {code}")

    def _make_daemon_group(self) -> list[str]:
        """A control group for the daemon, where there can be one; a name of its own for each life, because what is left
        of the last one is still being ended. The files to join."""
        try:
            self._daemon_group = self._tree.create_members(f".daemon-{self._daemon.starts}")
        except SandboxFailed as error:
            self._log.line(f"what the daemon starts may outlive it: {error}")
            return []
        return self._daemon_group.join_first

    def _end_daemon_group(self) -> None:
        """What it has started and left ends with it."""
        group, self._daemon_group = self._daemon_group, None
        if group is not None and not group.remove():
            self._spawner.unremoved.append(group)

    def _plan_restart(self, reason: str) -> None:
        self._end_daemon_group()
        self._daemon.died()
        if self._stop_at is not None:
            return
        self._log.line(reason)
        if self._daemon.hopeless:
            error = f"daemon ended {self._daemon.starts} times before it was ready, at last: {reason}"
            self._report({"ok": False, "error": error})
            self._status = 1
            self._stop_at = time.monotonic()

    def _copy_output(self) -> None:
        try:
            for _ in range(16):  # then the poll again: a flood must not keep the loop
                size = os.readv(self._daemon.output, [self._copied])
                if not size:
                    self._close_output()
                    return
                self._log.write(memoryview(self._copied)[:size])
                self._copied[:size] = bytes(size)
        except (BlockingIOError, OSError):
            pass

    def _close_output(self) -> None:
        self._unwatch(self._daemon.output)
        os.close(self._daemon.output)
        self._daemon.output = -1

    # --- the channel ------------------------------------------------------------------------------------

    def _on_channel(self, channel: socket.socket) -> None:
        for _ in range(64):  # bounded: workers' events come in between
            try:
                # No ancillary space: descriptors that the daemon sends are dropped by the kernel.
                data, _, flags, _ = channel.recvmsg(limits.CHANNEL_PACKET_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError:
                data, flags = b"", 0
            if not data:
                # Half-dead daemons help nobody; its death is then reaped as any other.
                self._daemon.kill()
                return
            self._on_packet(data, bool(flags & socket.MSG_TRUNC))

    def _on_packet(self, data: bytes, truncated: bool) -> None:
        try:
            message = None if truncated else json.loads(data)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            text = f"request: found {len(data)} bytes that are no JSON object, expected one within the limit"
            error = refuse(text)
            self._send({"id": -1, "ok": False, "step": error.step, "errno": error.errno, "error": str(error)}, [])
        elif message.get("verb") == "ready":
            self._on_ready()
            self._send({"id": _number(message), "ok": True}, [])
        elif message.get("verb") == "stop":
            self._send({"id": _number(message), "ok": True}, [])
            self._stop()
        else:
            self._spawner.handle(message)

    def _on_ready(self) -> None:
        if self._daemon.ready():
            self._write_pid()
            self._report({"ok": True, "pid": os.getpid()})

    def _send(self, message: dict[str, Any], fds: list[int]) -> None:
        """Send one packet, or queue it; the descriptors of what waits are copied until it is gone."""
        packet = json.dumps(message, separators=(",", ":")).encode()
        if len(packet) > limits.CHANNEL_PACKET_BYTES_MAX:
            text = f"answer of {len(packet)} bytes is larger than {limits.CHANNEL_PACKET_BYTES_MAX}"
            message = {"id": message.get("id"), "ok": False, "step": "channel", "errno": 90, "error": text}
            packet, fds = json.dumps(message).encode(), []
        if len(self._outgoing) >= limits.CHANNEL_BACKLOG_MAX:
            self._log.line("the daemon does not read its channel: killed")
            self._drop_outgoing()
            self._daemon.kill()
        if self._outgoing or not self._send_now(packet, fds):
            self._outgoing.append((packet, [os.dup(fd) for fd in fds]))

    def _send_now(self, packet: bytes, fds: list[int]) -> bool:
        """False while the channel takes no more, or there is none; POLLOUT then tells when it does."""
        channel = self._daemon.channel
        if channel is None:
            return False
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            channel.sendmsg([packet], rights, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            self._poll.modify(channel.fileno(), select.POLLIN | select.POLLOUT)
            return False
        except OSError:
            return False  # its death is on the way
        return True

    def _flush(self) -> None:
        while self._outgoing:
            packet, fds = self._outgoing[0]
            if not self._send_now(packet, fds):
                return
            self._outgoing.popleft()
            _close_all(fds)
        if self._daemon.channel is not None:
            self._poll.modify(self._daemon.channel.fileno(), select.POLLIN)

    def _drop_outgoing(self) -> None:
        """Answers die with the daemon that asked; events without descriptors are kept for the next one."""
        kept = []
        for packet, fds in self._outgoing:
            _close_all(fds)
            if packet.startswith(b'{"event":"exited"'):
                kept.append((packet, fds[:0]))
        self._outgoing = deque(kept)

    # --- start-up news ----------------------------------------------------------------------------------

    def _report(self, message: dict[str, Any]) -> None:
        if self._ready_fd is not None:
            report(self._ready_fd, message)
            os.close(self._ready_fd)
            self._ready_fd = None

    def _write_pid(self) -> None:
        """Whole or not at all: a reader never sees half a number."""
        temporary = f".{self._pid_name}.{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(temporary, flags, 0o644, dir_fd=self._pid_directory)
            os.write(fd, f"{os.getpid()}\n".encode())
            os.close(fd)
            os.rename(temporary, self._pid_name, src_dir_fd=self._pid_directory, dst_dir_fd=self._pid_directory)
        except OSError as error:
            self._log.line(f"pid file {self._pid_name}: {error.strerror}")


def _number(message: Mapping[str, Any]) -> int:
    """The request's id. Anything else is not repeated: it may be as deep or as long as a packet allows."""
    found = message.get("id")
    return found if isinstance(found, int) else -1


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def supervise(spec: dict[str, Any], module: Any, zygote: tuple[int, int]) -> int:
    """Be the supervisor of this launch spec, with the image's module and the zygote's (pid, socket); exit status."""
    try:
        supervisor = Supervisor(spec, module, zygote)
    except (GgfastError, OSError, ValueError, KeyError) as error:
        step = error.step if isinstance(error, SandboxFailed) else "start"
        report(spec["ready_fd"], {"ok": False, "step": step, "error": str(error)})
        print(f"supervisor: {step}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1
    return supervisor.run()
