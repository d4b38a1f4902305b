"""Functions in real containers of a whole core: every published SDK, the daemon's death."""

from __future__ import annotations

import json
import shutil
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
        for topic in ("echo/count", "echo/beat"):
            folder.subscribe(echo, topic, PROBE)
        folder.subscribe(PROBE, "echo/in", echo)
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
