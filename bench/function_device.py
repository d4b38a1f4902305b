"""A core for the functions' benchmarks, a device for it, and how much memory its workers take.

Real supervisor, spawner, containers, broker, router and function manager, nothing else of a core; the device is a
blocking socket that speaks MQTT over plain TCP on the loopback.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import shutil
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggfast.core.functions.runtimes import RUNTIME_FILES
from ggfast.sandbox.launch import DaemonLaunch, LaunchSpec, launch

REPOSITORY = Path(__file__).resolve().parent.parent
DEVICE = "bench-device"
FUNCTION_ID = 65_534  # nobody: exists on every machine and owns nothing
DAEMON_ID = 65_533


class Device:
    """A QoS 0 MQTT client on a blocking socket."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 20)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._input = bytearray()
        name = _text(DEVICE)
        self._send(b"\x10", _text("MQTT") + b"\x04\x02\x00\x00" + name)
        self._packet()
        self._send(b"\x82", b"\x00\x01" + _text("#") + b"\x00")
        self._packet()

    def publish(self, topic: str, payload: bytes) -> None:
        """Send one message."""
        self._send(b"\x30", _text(topic) + payload)

    def expect(self) -> bytes:
        """Wait for one message; returns its packet body."""
        kind, body = self._packet()
        if kind >> 4 != 3:
            raise RuntimeError(f"a packet of type {kind >> 4}, expected a message")
        return body

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def _send(self, kind: bytes, body: bytes) -> None:
        length, size = bytearray(), len(body)
        while True:
            size, low = divmod(size, 128)
            length.append(low | (0x80 if size else 0))
            if not size:
                break
        self._socket.sendall(kind + length + body)

    def _packet(self) -> tuple[int, bytes]:
        while True:
            found = self._complete()
            if found is not None:
                return found
            data = self._socket.recv(65_536)
            if not data:
                raise RuntimeError("the broker closed the connection")
            self._input += data

    def _complete(self) -> tuple[int, bytes] | None:
        size = shift = 0
        for at in range(1, min(len(self._input), 5)):
            size |= (self._input[at] & 0x7F) << shift
            shift += 7
            if self._input[at] < 0x80:
                end = at + 1 + size
                if len(self._input) < end:
                    return None
                found = self._input[0], bytes(self._input[at + 1 : end])
                del self._input[:end]
                return found
        return None


@dataclass(frozen=True)
class RunningCore:
    """A supervisor with the benchmark's daemon."""

    pid: int
    port: int


@contextlib.contextmanager
def running_core(directory: Path, functions: list[dict[str, Any]], table: list[list[str]]) -> Iterator[RunningCore]:
    """Start supervisor and daemon in the background; end them afterwards."""
    (directory / "state").mkdir()
    (directory / "log").mkdir()
    os.chown(directory / "log", DAEMON_ID, DAEMON_ID)
    document = {"functions": functions, "table": table, "log": str(directory / "log" / "runtime.log")}
    (directory / "core.json").write_text(json.dumps(document))
    listener = socket.create_server(("127.0.0.1", 0))
    ids = ("--uid", str(FUNCTION_ID), "--gid", str(FUNCTION_ID))
    spec = LaunchSpec(
        name=f"bench{os.getpid()}",
        title="ggfast-bench",
        daemon=DaemonLaunch(
            (sys.executable, "-m", "bench.function_core", "--document", str(directory / "core.json"), *ids),
            DAEMON_ID,
            DAEMON_ID,
            environment={"PYTHONPATH": str(REPOSITORY), "LANG": "C.UTF-8"},
        ),
        pid_file=str(directory / "state" / "core.pid"),
        state_dir=str(directory / "state"),
        crash_log=str(directory / "log" / "crash.log"),
        policy={
            "uids": [[FUNCTION_ID, FUNCTION_ID]],
            "gids": [[FUNCTION_ID, FUNCTION_ID]],
            "code_prefixes": [str(directory)],
            "spawns_per_second": 1_000.0,
        },
        worker={
            "python_path": [str(RUNTIME_FILES / "python")],
            "module": "ggworker",
            "runtime_dir": str(RUNTIME_FILES),
        },
        listeners={"mqtt": listener.fileno()},
    )
    pid = launch(spec, background=True)
    try:
        yield RunningCore(pid, listener.getsockname()[1])
    finally:
        listener.close()
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def copy_sdk(target: Path) -> None:
    """Bundle the installed SDK as users' packages do."""
    for file in importlib.metadata.files("greengrasssdk") or ():
        if file.parts[0] == "greengrasssdk" and file.suffix == ".py":
            destination = target / file
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), destination)


def worker_memory(supervisor: int, name: str) -> dict[str, int]:
    """Kilobytes of the worker of function `name` that no other process shares, and its proportional share."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            zygote = _parent(int(entry.name))
            if _parent(zygote) == supervisor and _runs(entry, name):
                return _memory_of(entry / "smaps_rollup")
    raise RuntimeError(f"no running worker of {name} under process {supervisor}")


def _runs(process: Path, name: str) -> bool:
    """Whether a process is a worker of this function: by its title, or as another program by its environment."""
    if f"ggfast-worker {name}-" in (process / "cmdline").read_text():
        return True
    return f":function:{name}:1\0" in (process / "environ").read_text()


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _memory_of(path: Path) -> dict[str, int]:
    fields = {}
    for line in path.read_text().splitlines()[1:]:
        key, _, value = line.partition(":")
        fields[key] = int(value.split()[0])
    return {"unique_kb": fields["Private_Clean"] + fields["Private_Dirty"], "pss_kb": fields["Pss"]}


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack(">H", len(data)) + data


def tree_memory(supervisor: int) -> int:
    """Proportional kilobytes of a core's processes, all that descend from its supervisor."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = _parent(int(entry.name))
    total = 0
    for pid in parents:
        above = pid
        while above not in (0, supervisor):
            above = parents.get(above, 0)
        if above == supervisor:
            with contextlib.suppress(OSError):
                total += _memory_of(Path(f"/proc/{pid}/smaps_rollup"))["pss_kb"]
    return total
