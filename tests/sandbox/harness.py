"""Runs a real supervisor with a small daemon in a temporary root, and given Python source as workers.

    with Sandbox() as box:
        answer = box.run("def attempt():\n    import os\n    return os.getuid()\n")      # the value, or AssertionError
        worker = box.spawn(source, uid=0, memory_kb=16384, mounts=[...], devices=[...]) # a Worker to look at
        exited = box.wait_exit(worker)

The daemon is a relay, so the test speaks the channel itself: `box.request(verb=..., ...)` gives the raw answer.
Everything is gone when the block ends: processes, cgroups, mounts (they live in dead namespaces), directories.
"""

from __future__ import annotations

import array
import json
import os
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ggfast.sandbox.cgroups import this_layout
from ggfast.sandbox.launch import DaemonLaunch, LaunchSpec, launch
from ggfast.sandbox.users import Users, ensure_users
from tests.patience import patience

IMAGE = Path(__file__).parent / "image"
DEADLINE_S = patience(20.0)


@dataclass
class Worker:
    """A running instance and the daemon's ends of its descriptors."""

    instance: str
    pid: int
    ipc: socket.socket
    stdout: int
    stderr: int

    def result(self, timeout_s: float = DEADLINE_S) -> dict[str, Any]:
        """What the worker sent: {"ok": true, "value": ...} or {"ok": false, "error": traceback}; {} at its end."""
        self.ipc.settimeout(timeout_s)
        head = self._exactly(4)
        if len(head) < 4:
            return {}
        answer: dict[str, Any] = json.loads(self._exactly(struct.unpack("<I", head)[0]))
        return answer

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (part := self.ipc.recv(size - len(data))):
            data += part
        return data

    def output(self, fd: int | None = None, timeout_s: float = 0.2) -> bytes:
        """What stands in stdout (or another descriptor), without waiting for its end."""
        fd = self.stdout if fd is None else fd
        data = b""
        while select.select([fd], [], [], timeout_s)[0] and (part := os.read(fd, 65536)):
            data += part
        return data

    def close(self) -> None:
        self.ipc.close()
        for fd in (self.stdout, self.stderr):
            os.close(fd)


class Sandbox:
    """A supervisor for one test; see the module. `policy` entries replace the defaults."""

    def __init__(
        self,
        *,
        policy: Mapping[str, Any] | None = None,
        image: Mapping[str, Any] | None = None,
        daemon_arguments: Sequence[str] = (),
        name: str = "",
        without: Sequence[str] = (),
    ) -> None:
        self.users: Users = ensure_users()
        self.root = Path(tempfile.mkdtemp(prefix="ggfast-test-"))
        self.root.chmod(0o755)
        self.name = name or self.root.name
        self.code = self.root / "code"
        self.data = self.root / "data"  # for volumes; not hidden
        self.secret = self.root / "secret"  # hidden from functions
        for directory in (self.code, self.data, self.secret, self.root / "log", self.root / "run"):
            directory.mkdir()
        (self.secret / "key").write_text("secret")
        os.chown(self.data, self.users.function_uid, self.users.function_gid)
        self.policy: dict[str, Any] = {
            "uids": [self.users.function_uid],
            "gids": [self.users.function_gid, [20000, 20100]],
            "allow_root": True,
            "code_prefixes": [str(self.code)],
            "hidden": [str(self.secret), str(self.root / "state")],
            "denied_sources": [],
            "memory_kb_max": 1_048_576,
            "instances_max": 64,
            "spawns_per_second": 1000,
        }
        self.policy.update(policy or {})
        self.image: dict[str, Any] = {"python_path": [str(IMAGE)], "module": "testworker", "runtime_dir": str(IMAGE)}
        self.image.update(image or {})
        self.daemon_arguments = tuple(daemon_arguments)
        self.without = tuple(without)
        self.events: list[dict[str, Any]] = []
        self.workers: list[Worker] = []
        self.pid = 0
        self._answers: dict[int, tuple[dict[str, Any], list[int]]] = {}
        self._next = 0
        self._serial = 0
        self._control: socket.socket | None = None

    # --- life -------------------------------------------------------------------------------------------

    def __enter__(self) -> Sandbox:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        finally:
            self.remove()

    def spec(self, ready_fd: int | None = None, listener: int = -1) -> LaunchSpec:
        """What is launched."""
        users = self.users
        argv = (sys.executable, "-I", "-S", str(IMAGE / "relay.py"), *self.daemon_arguments)
        return LaunchSpec(
            name=self.name,
            title=f"{self.root}/ggc/packages/0.1.0/bin/daemon -core-dir {self.root}",
            daemon=DaemonLaunch(argv, users.daemon_uid, users.daemon_gid, (), {"LANG": "C.UTF-8"}),
            pid_file=str(self.root / "run" / "daemon.pid"),
            state_dir=str(self.root / "state"),
            crash_log=str(self.root / "log" / "crash.log"),
            policy=self.policy,
            worker=self.image,
            listeners={"control": listener} if listener >= 0 else {},
            ready_fd=ready_fd,
            without=self.without,
        )

    def start(self) -> None:
        """Launch in the background; the harness says `ready` for the daemon while `launch` waits for it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control = ours
        ours.send(json.dumps({"id": 0, "verb": "ready"}).encode())
        try:
            self.pid = launch(self.spec(listener=theirs.fileno()), background=True)
        finally:
            theirs.close()
        self.wait_for(lambda: 0 in self._answers)
        self._answers.pop(0)

    def stop(self) -> int | None:
        """SIGTERM and wait; the supervisor's exit status."""
        for worker in self.workers:
            worker.close()
        self.workers.clear()
        if not self.pid:
            return None
        os.kill(self.pid, signal.SIGTERM)
        return self.wait_supervisor()

    def kill_supervisor(self) -> None:
        """SIGKILL; nothing may survive it."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait_supervisor()

    def wait_supervisor(self, timeout_s: float = DEADLINE_S) -> int:
        """Reap the supervisor."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.pid = 0
        raise AssertionError("the supervisor did not end")

    def remove(self) -> None:
        """Take the directories and left-over cgroups away."""
        if self.pid:
            self.kill_supervisor()
        if self._control is not None:
            self._control.close()
        shutil.rmtree(self.root, ignore_errors=True)

    # --- the channel ------------------------------------------------------------------------------------

    def request(self, **message: Any) -> dict[str, Any]:
        """One verb; the raw answer (its descriptors are closed unless it is a spawn or adopt)."""
        answer, fds = self._exchange(message)
        for fd in fds:
            os.close(fd)
        return answer

    def _exchange(self, message: Mapping[str, Any]) -> tuple[dict[str, Any], list[int]]:
        self._next += 1
        assert self._control is not None
        self._control.send(json.dumps({"id": self._next, **message}).encode())
        number = self._next
        self.wait_for(lambda: number in self._answers)
        return self._answers.pop(number)

    def tell_daemon(self, word: str) -> None:
        """`die`, `flood` or `whoami`."""
        assert self._control is not None
        self._control.send(word.encode())

    def pump(self, timeout_s: float = 0.05) -> bool:
        """Take what has arrived."""
        assert self._control is not None
        if not select.select([self._control], [], [], timeout_s)[0]:
            return False
        data, ancillary, _, _ = self._control.recvmsg(65536, socket.CMSG_SPACE(32), socket.MSG_CMSG_CLOEXEC)
        fds = array.array("i")
        for _, _, content in ancillary:
            fds.frombytes(content)
        message = json.loads(data) if data else {"event": "control closed"}
        if "id" in message:
            self._answers[message["id"]] = (message, list(fds))
        else:
            self.events.append(message)
        return bool(data)

    def wait_for(self, condition: Any, timeout_s: float = DEADLINE_S) -> None:
        """Pump until `condition()`."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {timeout_s} s; events {self.events}; crash log: {self.crash_log()}")
            self.pump()

    def wait_event(self, timeout_s: float = DEADLINE_S, **fields: Any) -> dict[str, Any]:
        """The first event with these fields, taken out of the list."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            for event in self.events:
                if all(event.get(name) == value for name, value in fields.items()):
                    found.append(event)
                    self.events.remove(event)
                    return True
            return False

        self.wait_for(look, timeout_s)
        return found[0]

    def crash_log(self) -> str:
        """What the supervisor and the daemon said."""
        try:
            return (self.root / "log" / "crash.log").read_text(errors="replace")
        except OSError:
            return ""

    # --- workers ----------------------------------------------------------------------------------------

    def write_code(self, source: str) -> Path:
        """A code directory with fn.py."""
        self._serial += 1
        directory = self.code / f"fn{self._serial}"
        directory.mkdir()
        (directory / "fn.py").write_text(source)
        return directory

    def request_spec(self, code: Path | str, **spec: Any) -> dict[str, Any]:
        """A spawn request's spec with the usual defaults; pass a field as None to leave it out."""
        user = self.users
        defaults: dict[str, Any] = {
            "code_dir": str(code),
            "uid": user.function_uid,
            "gid": user.function_gid if spec.get("uid", 1) else 0,
            "memory_kb": 32_768 if spec.get("contained", True) else None,
            "pids_max": 64,
        }
        return {name: value for name, value in {**defaults, **spec}.items() if value is not None}

    def spawn(self, source: str = "", *, instance: str = "", code: Path | None = None, **spec: Any) -> Worker:
        """Start a worker from Python source; AssertionError with the refusal when it fails."""
        code = self.write_code(source) if code is None else code
        instance = instance or f"i{self._next}"
        message = {"verb": "spawn", "instance": instance, "spec": self.request_spec(code, **spec)}
        answer, fds = self._exchange(message)
        assert answer["ok"], answer
        worker = Worker(instance, answer["pid"], socket.socket(fileno=fds[0]), fds[1], fds[2])
        self.workers.append(worker)
        return worker

    def adopt(self, worker: Worker) -> Worker:
        """The same worker over new descriptors; the old ones are closed."""
        answer, fds = self._exchange({"verb": "adopt", "instance": worker.instance})
        assert answer["ok"], answer
        if worker in self.workers:
            self.workers.remove(worker)
            worker.close()
        fresh = Worker(worker.instance, answer["pid"], socket.socket(fileno=fds[0]), fds[1], fds[2])
        self.workers.append(fresh)
        return fresh

    def run(self, source: str, **spec: Any) -> Any:
        """Spawn, take the result of `attempt()`, end the worker; AssertionError with the traceback if it raised."""
        worker = self.spawn(source, **spec)
        answer = worker.result()
        errors = "" if answer else worker.output(worker.stderr).decode(errors="replace")
        self.end(worker)
        assert answer.get("ok"), answer.get("error") or f"no result: {errors}; {self.events}"
        return answer["value"]

    def end(self, worker: Worker) -> dict[str, Any]:
        """Kill (if it still lives) and wait for the exit event."""
        self.request(verb="kill", instance=worker.instance, signal=9)
        return self.wait_exit(worker)

    def wait_exit(self, worker: Worker, timeout_s: float = DEADLINE_S) -> dict[str, Any]:
        """The `exited` event of a worker; its descriptors are closed."""
        event = self.wait_event(timeout_s, event="exited", instance=worker.instance)
        if worker in self.workers:
            self.workers.remove(worker)
            worker.close()
        return event

    # --- looking around ---------------------------------------------------------------------------------

    def wait_spare(self) -> None:
        """Until the process for the next request has been forked: then descriptors and groups stand still."""
        self.wait_for(lambda: any("/.spare-" in path for path in self.cgroups()))
        self.wait_for(lambda: self.request(verb="list")["ok"])

    def cgroups(self) -> list[str]:
        """Every directory of this core's subtree, in all hierarchies."""
        found = []
        for hierarchy in this_layout().hierarchies:
            for top, _, _ in os.walk(hierarchy.mount):
                if top.endswith(f"/ggfast-{self.name}"):
                    found += [path for path, _, _ in os.walk(top)]
        return found
