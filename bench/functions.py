"""How fast and how small functions are: round trips, cold starts, memory of an idle worker.

Real supervisor, spawner, containers, broker, router, function manager and the published SDK; the device is a
blocking socket that speaks MQTT over plain TCP on the loopback. Needs root.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import importlib.metadata
import json
import os
import platform
import py_compile
import re
import shutil
import signal
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggfast.sandbox.launch import DaemonLaunch, LaunchSpec, launch

REPOSITORY = Path(__file__).resolve().parent.parent
WORKERS = REPOSITORY / "ggfast" / "core" / "workers" / "python"
DEVICE = "bench-device"
FUNCTION_ID = 65_534  # nobody: exists on every machine and owns nothing
DAEMON_ID = 65_533
COLD_STARTS = 10  # of each kind, one function each; both together below the 25 on-demand workers that may live
COLD_PAUSE_S = 0.2  # between two cold starts: each is a single one
WINDOW = 64  # messages in flight when the rate is measured
WARM_UP = 500
PAYLOAD = json.dumps({"sensor": "temperature-3", "value": 21.5, "unit": "C", "sequence": 0, "text": "x" * 50})

ECHO = """
import json
import greengrasssdk
client = greengrasssdk.client("iot-data")

def handler(event, context):
    client.publish(topic="out/" + context.client_context.custom["subject"], payload=json.dumps(event))
"""
CALLER = """
import json, time
import greengrasssdk
functions = greengrasssdk.client("lambda")
iot = greengrasssdk.client("iot-data")

def handler(event, context):
    samples = []
    for arn in event["arns"]:
        time.sleep(event["pause_s"])
        started = time.perf_counter()
        result = functions.invoke(FunctionName=arn, Payload="{}")
        samples.append((time.perf_counter() - started) * 1e3)
        assert result["FunctionError"] == "", result
    iot.publish(topic="out/" + context.client_context.custom["subject"], payload=json.dumps(samples))
"""
REPLY = "def handler(event, context):\n    return event\n"
REPLY_SDK = "import greengrasssdk\nclient = greengrasssdk.client('iot-data')\n" + REPLY
IDLE = "def handler(event, context):\n    pass\n"
IDLE_SDK = "import greengrasssdk\nclient = greengrasssdk.client('iot-data')\n" + IDLE


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
        worker={"python_path": [str(WORKERS)], "module": "ggworker", "runtime_dir": str(WORKERS)},
        listeners={"mqtt": listener.fileno()},
    )
    pid = launch(spec, background=True)
    try:
        yield RunningCore(pid, listener.getsockname()[1])
    finally:
        listener.close()
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)


def make_functions(directory: Path) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """The echo function, two idle ones and the cold ones, with the table between them and the device."""
    sources = {"echo": (ECHO, True), "idle": (IDLE, True), "idlesdk": (IDLE_SDK, True), "caller": (CALLER, True)}
    for number in range(COLD_STARTS):
        sources |= {f"cold{number}": (REPLY, False), f"coldsdk{number}": (REPLY_SDK, False)}
    functions, table = [], []
    for name, (source, pinned) in sources.items():
        code = directory / "code" / name
        code.mkdir(parents=True)
        (code / "main.py").write_text(source)
        if "sdk" in source:
            copy_sdk(code)
        compileall.compile_dir(code, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
        arn = f"arn:aws:lambda:eu-west-1:123456789012:function:{name}:1"
        functions.append({"name": name, "arn": arn, "code": str(code), "pinned": pinned})
        table += [[DEVICE, f"{name}/in", arn], [arn, f"out/{name}/in", DEVICE]]
    return functions, table


def copy_sdk(target: Path) -> None:
    """Bundle the installed SDK as users' packages do."""
    for file in importlib.metadata.files("greengrasssdk") or ():
        if file.parts[0] == "greengrasssdk" and file.suffix == ".py":
            destination = target / file
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), destination)


def round_trips(device: Device, seconds: float) -> dict[str, float]:
    """One message at a time: microseconds from send to reply."""
    payload = PAYLOAD.encode()
    for _ in range(WARM_UP):
        device.publish("echo/in", payload)
        device.expect()
    samples = []
    until = time.perf_counter() + seconds
    while (started := time.perf_counter()) < until:
        device.publish("echo/in", payload)
        device.expect()
        samples.append(time.perf_counter() - started)
    samples.sort()
    return {
        "p50_us": samples[len(samples) // 2] * 1e6,
        "p99_us": samples[len(samples) * 99 // 100] * 1e6,
        "samples": len(samples),
    }


def rate(device: Device, seconds: float) -> dict[str, float]:
    """WINDOW messages in flight: replies per second. Every message must come back."""
    payload = PAYLOAD.encode()
    for _ in range(WINDOW):
        device.publish("echo/in", payload)
    received, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        device.expect()
        received += 1
        device.publish("echo/in", payload)
    elapsed = time.perf_counter() - started
    for _ in range(WINDOW):
        device.expect()
    return {"per_s": received / elapsed, "window": WINDOW}


def cold_starts(device: Device, functions: list[dict[str, Any]], prefix: str) -> dict[str, Any]:
    """A function invokes others that have no worker: milliseconds from the call to the value it returns."""
    arns = [found["arn"] for found in functions if re.fullmatch(rf"{prefix}\d+", found["name"])]
    device.publish("caller/in", json.dumps({"arns": arns, "pause_s": COLD_PAUSE_S}).encode())
    body = device.expect()
    samples = json.loads(body[2 + int.from_bytes(body[:2], "big") :])
    return {"p50_ms": statistics.median(samples), "min_ms": min(samples), "max_ms": max(samples), "samples": samples}


def worker_memory(supervisor: int, name: str) -> dict[str, int]:
    """Kilobytes of the worker of function `name` that no other process shares, and its proportional share."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            zygote = _parent(int(entry.name))
            if _parent(zygote) == supervisor and f"ggfast-worker {name}-" in (entry / "cmdline").read_text():
                return _memory_of(entry / "smaps_rollup")
    raise RuntimeError(f"no running worker of {name} under process {supervisor}")


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _memory_of(path: Path) -> dict[str, int]:
    fields = {}
    for line in path.read_text().splitlines()[1:]:
        key, _, value = line.partition(":")
        fields[key] = int(value.split()[0])
    return {"unique_kb": fields["Private_Clean"] + fields["Private_Dirty"], "pss_kb": fields["Pss"]}


def machine() -> dict[str, Any]:
    """What the figures belong to."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "uvloop": importlib.metadata.version("uvloop"),
        "greengrasssdk": importlib.metadata.version("greengrasssdk"),
    }


def measure(seconds: float) -> dict[str, Any]:
    """Run everything once. Raises SandboxFailed where the machine can not hold functions."""
    directory = Path(tempfile.mkdtemp(prefix="ggfast-bench-"))
    directory.chmod(0o755)
    try:
        functions, table = make_functions(directory)
        with running_core(directory, functions, table) as core:
            device = Device(core.port)
            try:
                time.sleep(1.0)  # pinned functions have been imported and are idle
                memory = {name: worker_memory(core.pid, name) for name in ("idle", "idlesdk")}
                cold = cold_starts(device, functions, "cold")
                cold_sdk = cold_starts(device, functions, "coldsdk")
                trips = round_trips(device, seconds)
                return {
                    "machine": machine(),
                    "round_trip": trips,
                    "rate": rate(device, seconds),
                    "cold_start": cold,
                    "cold_start_sdk": cold_sdk,
                    "memory": memory | {"busy": worker_memory(core.pid, "echo")},
                }
            finally:
                device.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def report(result: dict[str, Any]) -> str:
    """The figures for people."""
    trip, cold, memory = result["round_trip"], result["cold_start"], result["memory"]
    cold_sdk = result["cold_start_sdk"]
    about = result["machine"]
    rows = (
        ("device -> function -> device, one at a time", f"p50 {trip['p50_us']:.0f} us   p99 {trip['p99_us']:.0f} us"),
        (f"device -> function -> device, {WINDOW} in flight", f"{result['rate']['per_s']:.0f} per second"),
        ("cold start: invoke, spawn, reply", f"p50 {cold['p50_ms']:.1f} ms   max {cold['max_ms']:.1f} ms"),
        ("the same, handler imports the SDK", f"p50 {cold_sdk['p50_ms']:.1f} ms   max {cold_sdk['max_ms']:.1f} ms"),
        ("unshared memory of an idle worker", f"{memory['idle']['unique_kb']} KB"),
        ("the same with the SDK imported", f"{memory['idlesdk']['unique_kb']} KB"),
        ("the same after the load", f"{memory['busy']['unique_kb']} KB"),
    )
    head = (
        f"{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}, Python {about['python']}",
        f"JSON message of {len(PAYLOAD)} bytes, QoS 0, plain TCP, one device, pinned function with the SDK",
        "",
    )
    return "\n".join((*head, *(f"{what:<46} {figure}" for what, figure in rows)))


def main(arguments: list[str]) -> int:
    """Print the figures; `--json` keeps them with all samples."""
    parser = argparse.ArgumentParser(prog="python -m bench functions", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each timed part")
    parser.add_argument("--json", type=Path, help="write the result here")
    given = parser.parse_args(arguments)
    if os.geteuid() != 0:
        print("bench functions: found an ordinary user, expected root: containers need it", file=sys.stderr)
        return 2
    result = measure(given.seconds)
    print(report(result))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack(">H", len(data)) + data
