"""How fast and how small functions are: round trips, cold starts, memory of an idle worker.

Real supervisor, spawner, containers, broker, router, function manager and the published SDK; the device is a
blocking socket that speaks MQTT over plain TCP on the loopback. Needs root.
"""

from __future__ import annotations

import argparse
import compileall
import importlib.metadata
import json
import os
import py_compile
import re
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import runtimes
from bench.function_device import DEVICE, Device, copy_sdk, running_core, worker_memory
from bench.machine import machine

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
                    "machine": machine() | {"greengrasssdk": importlib.metadata.version("greengrasssdk")},
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
    parser.add_argument("--starts", type=int, default=10, help="cold starts of each runtime")
    parser.add_argument("--json", type=Path, help="write the result here")
    given = parser.parse_args(arguments)
    if os.geteuid() != 0:
        print("bench functions: found an ordinary user, expected root: containers need it", file=sys.stderr)
        return 2
    result = measure(given.seconds)
    result["by_runtime"] = runtimes.measure(given.starts)
    print(report(result))
    print("\n".join(("", *runtimes.report(result["by_runtime"]))))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0
