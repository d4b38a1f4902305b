"""Functions in real containers of a whole core: every published SDK, hostile functions, the daemon's death."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.harness import Core, Device, GroupFolder, a_core, eventually, function_arn, thing_arn
from tests.unit.function_support import SDK_VERSIONS, sdk

PROBE = thing_arn("probe")

SDK_USER = """
import base64, json
import greengrasssdk
iot, functions = greengrasssdk.client("iot-data"), greengrasssdk.client("lambda")

def text(result):
    payload = result["Payload"]
    return [result["FunctionError"], (payload.read() if hasattr(payload, "read") else payload).decode()]

def handler(event, context):
    topic = context.client_context.custom["subject"].replace("in", "out")
    answers = {"version": greengrasssdk.__version__, "echo": text(functions.invoke(
        FunctionName=event["callee"], Payload=json.dumps({"a": 1}),
        ClientContext=base64.b64encode(b'{"custom": {"mark": "x"}}')))}
    try:
        iot.get_thing_shadow(thingName="lamp")
    except Exception as error:
        answers["shadow"] = type(error).__name__
    try:
        functions.invoke(FunctionName=event["callee"][:-1] + "77", Payload="{}")
    except Exception as error:
        answers["unknown"] = type(error).__name__
    iot.publish(topic=topic, payload=json.dumps(answers))
"""

ECHO = """
import threading, time
import greengrasssdk
iot = greengrasssdk.client("iot-data")
count = 0

def beat():
    number = 0
    while True:
        time.sleep(0.1)
        number += 1
        iot.publish(topic="echo/beat", payload=str(number))

threading.Thread(target=beat, daemon=True).start()

def handler(event, context):
    global count
    count += 1
    iot.publish(topic="echo/count", payload=str(count))
    return {"event": event, "custom": context.client_context.custom}
"""

HOSTILE = """
import array, os, socket, struct, time

def frame(kind, body):
    return struct.pack("<I", 1 + len(body)) + kind + body

def call(arn, context, payload=b""):
    arn, context = arn.encode(), context.encode()
    return frame(b"P", struct.pack("<IBH", 0, 0, len(arn)) + arn + struct.pack("<H", len(context)) + context + payload)

def handler(event, context):
    do = event["do"]
    if do == "garbage":
        os.write(3, os.urandom(65536))
    elif do == "huge":
        os.write(3, bytes([255, 255, 255, 127]) + b"R")
    elif do == "truncated":
        os.write(3, struct.pack("<I", 100) + b"R")
        os._exit(0)
    elif do == "forge":
        custom = '{"custom": {"source": "%s", "subject": "echo/count"}}' % event["victim"]
        os.write(3, call("arn:aws:lambda:::function:GGRouter", custom, b"forged"))
        return
    elif do == "descriptors":
        with socket.socket(fileno=os.dup(3)) as ipc:
            fds = array.array("i", [1] * 100)
            ipc.sendmsg([frame(b"I", bytes([1]))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        return
    elif do == "print":
        while True:
            print("x" * 500)
    elif do == "hang":
        import signal
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            pass
    time.sleep(30)
"""


def bundle_sdk(folder: GroupFolder, name: str, version: str) -> None:
    """Put this version of the SDK beside the function's module, as users' packages do."""
    shutil.copytree(
        sdk(version) / "greengrasssdk",
        folder.path / "functions" / name / "greengrasssdk",
        ignore=shutil.ignore_patterns("__pycache__"),
    )


@pytest.fixture(scope="module")
def core() -> Iterator[Core]:
    with a_core() as core:
        folder = core.folder()
        folder.device("probe")
        echo = folder.function("echo", ECHO, Pinned=True)
        folder.function("hostile", HOSTILE, Timeout=1, sdk=False)
        folder.function("endless", "while True:\n    pass", Timeout=1, sdk=False)
        for topic in ("echo/count", "echo/beat"):
            folder.subscribe(echo, topic, PROBE)
        folder.subscribe(PROBE, "echo/in", echo)
        for name in ("hostile", "endless"):
            folder.subscribe(PROBE, f"{name}/in", function_arn(name))
        for version in SDK_VERSIONS:
            name = "sdk-" + version.replace(".", "-")
            user = folder.function(name, SDK_USER, sdk=False)
            bundle_sdk(folder, name, version)
            folder.subscribe(PROBE, f"{name}/in", user)
            folder.subscribe(user, f"{name}/out", PROBE)
        core.deploy(folder)
        core.start()
        yield core


@pytest.fixture
def probe(core: Core) -> Iterator[Device]:
    with Device(core, "probe") as device:
        device.subscribe("+/out")
        device.subscribe("echo/#")
        yield device


def row(core: Core, name: str) -> dict[str, Any]:
    rows = {row["arn"]: row for row in core.status()["functions"]}
    found: dict[str, Any] = rows[function_arn(name)]
    return found


def count(probe: Device) -> int:
    probe.publish("echo/in", "{}")
    return int(probe.expect_on("echo/count"))


@pytest.mark.parametrize("version", SDK_VERSIONS)
def test_p9_every_published_sdk_works_in_a_container(probe: Device, version: str) -> None:
    name = "sdk-" + version.replace(".", "-")
    probe.publish(f"{name}/in", json.dumps({"callee": function_arn("echo")}))
    answers = json.loads(probe.expect_on(f"{name}/out", 20))
    assert answers.pop("version") == version
    assert answers == {
        "echo": ["", json.dumps({"event": {"a": 1}, "custom": {"mark": "x"}})],
        "shadow": "ShadowError",
        "unknown": "InvocationException",
    }


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        ("garbage", "it sent a frame of"),
        ("huge", "it sent a frame of 2147483647 bytes, allowed are 1 to 1048576"),
        ("truncated", "exit status 0"),
        ("hang", "Task timed out after 1 seconds"),
    ],
)
def test_p5_rows_50_53_a_hostile_function_ends_itself_only(core: Core, probe: Device, do: str, reason: str) -> None:
    before = count(probe)
    pids = row(core, "echo")["pids"]
    errors = row(core, "hostile")["errors"]
    probe.publish("hostile/in", json.dumps({"do": do}))
    found = eventually(lambda: (r := row(core, "hostile"))["errors"] == errors + 1 and r, "the end of the invocation")
    assert reason in found["last_error"]
    assert count(probe) == before + 1
    assert row(core, "echo")["pids"] == pids


def test_row_53_an_endless_import_is_ended(core: Core, probe: Device) -> None:
    probe.publish("endless/in", "{}")
    found = eventually(lambda: (r := row(core, "endless"))["last_error"] and r, "the end of the import")
    assert "its initialisation took more than 10 seconds" in found["last_error"]
    assert found["instances"] == 0


def test_p1_row_49_a_claimed_source_is_not_believed(core: Core, probe: Device) -> None:
    done = row(core, "hostile")["invocations"]
    before = count(probe)
    probe.publish("hostile/in", json.dumps({"do": "forge", "victim": function_arn("echo")}))
    eventually(lambda: row(core, "hostile")["invocations"] == done + 1, "the forgery")
    assert count(probe) == before + 1  # the next message on the topic is ours, not the forged one


def test_row_51_descriptors_over_the_socket_are_dropped(core: Core, probe: Device) -> None:
    done = row(core, "hostile")["invocations"]
    daemon = core.daemon_pid()
    before = len(os.listdir(f"/proc/{daemon}/fd"))
    for _ in range(3):
        probe.publish("hostile/in", json.dumps({"do": "descriptors"}))
    eventually(lambda: row(core, "hostile")["invocations"] == done + 3, "three invocations")
    assert len(os.listdir(f"/proc/{daemon}/fd")) < before + 50  # three hundred were sent


def test_row_25_a_flood_of_prints_disturbs_nobody(core: Core, probe: Device) -> None:
    probe.publish("hostile/in", json.dumps({"do": "print"}))
    waits = []
    until = time.monotonic() + 0.8
    while time.monotonic() < until:
        started = time.monotonic()
        count(probe)
        waits.append(time.monotonic() - started)
    assert sorted(waits)[len(waits) // 2] < 0.1
    eventually(lambda: "lines dropped" in core.function_log("hostile"), "the note about dropped lines")


def test_p4_functions_run_through_the_death_of_the_daemon(core: Core, probe: Device) -> None:
    before = count(probe)
    pids = row(core, "echo")["pids"]
    assert pids
    lost = probe.disconnects
    core.kill_daemon()
    eventually(lambda: probe.disconnects > lost, "the end of the connection")
    probe.wait_connected()
    probe.subscribe("echo/#")
    after = eventually(lambda: row(core, "echo"), "the function in the new daemon's status")
    assert after["pids"] == pids
    assert count(probe) == before + 1  # its memory is what it was
    first = int(probe.expect_on("echo/beat"))
    assert int(probe.expect_on("echo/beat")) > first  # its thread publishes again
