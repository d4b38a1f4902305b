"""Acceptance rows 61-65 and 69-74: how functions start, run, fail and what they see."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.harness import Core, Device, a_core, eventually, function_arn, thing_arn

PROBE = thing_arn("probe")

HELLO = """
import greengrasssdk
client = greengrasssdk.client("iot-data")
client.publish(topic="hello/world", payload="up")

def handler(event, context):
    pass
"""

COUNTER = """
import time
import greengrasssdk
client = greengrasssdk.client("iot-data")
count = 0

def handler(event, context):
    global count
    count += 1
    client.publish(topic="{topic}", payload=str(count))
    time.sleep(event["sleep"])
"""

CALLEES = """
import os, sys, time

def handler(event, context):
    kind = event["do"]
    if kind == "return":
        return {"got": event, "custom": context.client_context.custom}
    if kind == "raise":
        raise ValueError("asked to")
    if kind == "sleep":
        time.sleep(30)
    if kind == "hog":
        blocks = []
        while True:
            blocks.append(bytearray(1 << 20))
    if kind == "exit":
        os._exit(3)
"""

CALLER = """
import base64, json, time
import greengrasssdk
iot = greengrasssdk.client("iot-data")
functions = greengrasssdk.client("lambda")

def handler(event, context):
    started = time.monotonic()
    answer = {}
    try:
        result = functions.invoke(
            FunctionName=event["arn"],
            InvocationType=event.get("type", "RequestResponse"),
            Payload=json.dumps({"do": event["do"]}),
            ClientContext=base64.b64encode(json.dumps({"custom": {"mark": "x"}}).encode()),
        )
        payload = result["Payload"]
        answer = {
            "error": result["FunctionError"],
            "payload": (payload.read() if hasattr(payload, "read") else payload).decode(),
        }
    except Exception as error:
        answer = {"exception": type(error).__name__ + ": " + str(error)}
    answer["seconds"] = time.monotonic() - started
    iot.publish(topic="caller/answer", payload=json.dumps(answer))
"""

INSPECTOR = """
import json, logging, os
import greengrasssdk
iot = greengrasssdk.client("iot-data")

def attempt(call, *arguments):
    try:
        return repr(call(*arguments))
    except OSError as error:
        return error.strerror

def write(path):
    with open(path, "w") as file:
        file.write("x")
    return "written"

def handler(event, context):
    print("printed line")
    logging.getLogger().warning("logged line")
    iot.publish(topic="inspector/answer", payload=json.dumps({
        "event": event,
        "subject": context.client_context.custom.get("subject"),
        "context": {name: getattr(context, name) for name in (
            "aws_request_id", "function_name", "function_version", "invoked_function_arn")},
        "environment": dict(os.environ),
        "root_list": attempt(os.listdir, "/root"),
        "pids": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        "uid": os.getuid(),
        "write_code": attempt(write, "/lambda/main.py"),
        "write_new_code": attempt(write, "/lambda/other.py"),
        "write_root": attempt(write, "/file"),
        "write_etc": attempt(write, "/etc/file"),
        "cwd": os.getcwd(),
    }))
"""


@pytest.fixture(scope="module")
def core() -> Iterator[Core]:
    with a_core() as core:
        folder = core.folder()
        folder.device("probe")
        hello = folder.function("hello", HELLO, Pinned=True)
        pinned = folder.function("counter-pinned", COUNTER.replace("{topic}", "pinned/count"), Pinned=True)
        demand = folder.function("counter-demand", COUNTER.replace("{topic}", "demand/count"))
        slow = folder.function("slow-pinned", CALLEES, Pinned=True, Timeout=1, sdk=False)
        folder.function("callee", CALLEES, Timeout=1, MemorySize=16384, sdk=False)
        caller = folder.function("caller", CALLER, Timeout=20)
        inspector = folder.function(
            "inspector", INSPECTOR, Environment={"Variables": {"COLOUR": "green", "MY_FUNCTION_ARN": "forged"}}
        )
        for function, output in (
            (hello, "hello/world"),
            (pinned, "pinned/count"),
            (demand, "demand/count"),
            (caller, "caller/answer"),
            (inspector, "inspector/answer"),
        ):
            folder.subscribe(function, output, PROBE)
        for topic, function in (
            ("pinned/trigger", pinned),
            ("demand/trigger", demand),
            ("slow/trigger", slow),
            ("caller/trigger", caller),
            ("inspector/+/trigger", inspector),
        ):
            folder.subscribe(PROBE, topic, function)
        core.deploy(folder)
        core.start()
        yield core


@pytest.fixture
def probe(core: Core) -> Iterator[Device]:
    with Device(core, "probe") as device:
        device.subscribe("#")
        yield device


def ask(probe: Device, callee: str, do: str, **more: Any) -> dict[str, Any]:
    probe.publish("caller/trigger", json.dumps({"arn": callee, "do": do, **more}))
    answer: dict[str, Any] = json.loads(probe.expect_on("caller/answer", 20))
    return answer


def row(core: Core, name: str) -> dict[str, Any]:
    rows = {row["arn"]: row for row in core.status()["functions"]}
    found: dict[str, Any] = rows[function_arn(name)]
    return found


def test_row_61_a_pinned_function_starts_without_a_trigger(core: Core) -> None:
    eventually(lambda: row(core, "hello")["instances"] == 1, "the pinned function runs")
    core.command("-i", "restart")
    eventually(lambda: row(core, "hello")["instances"] == 1, "the pinned function runs after a restart")


def test_row_62_pinned_requests_queue_in_one_process(probe: Device) -> None:
    for _ in range(3):
        probe.publish("pinned/trigger", json.dumps({"sleep": 0.7}))
    times = []
    for expected in (b"1", b"2", b"3"):
        assert probe.expect_on("pinned/count") == expected
        times.append(time.monotonic())
    assert times[1] - times[0] > 0.6
    assert times[2] - times[1] > 0.6


def test_row_63_on_demand_requests_run_beside_each_other_and_containers_are_reused(probe: Device) -> None:
    for _ in range(3):
        probe.publish("demand/trigger", json.dumps({"sleep": 1.5}))
    assert [probe.expect_on("demand/count") for _ in range(3)] == [b"1", b"1", b"1"]
    time.sleep(2.0)  # the handlers' own sleep ends: the containers are free
    probe.publish("demand/trigger", json.dumps({"sleep": 0}))
    assert probe.expect_on("demand/count") == b"2"


def test_row_64_a_handler_over_its_timeout_is_ended(core: Core, probe: Device) -> None:
    answer = ask(probe, function_arn("callee"), "sleep")
    assert answer["error"] == "Unhandled"
    assert "1 second" in json.loads(answer["payload"])["errorMessage"]
    assert 0.9 < answer["seconds"] < 4
    before = eventually(lambda: row(core, "slow-pinned")["pids"], "the pinned function runs")
    probe.publish("slow/trigger", json.dumps({"do": "sleep"}))
    eventually(
        lambda: (pids := row(core, "slow-pinned")["pids"]) and pids != before, "the pinned function is started again"
    )


def test_row_65_a_function_over_its_memory_is_killed_and_reported(core: Core, probe: Device) -> None:
    hello = row(core, "hello")["pids"]
    answer = ask(probe, function_arn("callee"), "hog")
    assert answer["error"] == "Unhandled"
    message = json.loads(answer["payload"])["errorMessage"]
    assert "16384 KB" in message
    eventually(lambda: "Worker consumed all allocated memory!" in core.log(), "the known log line")
    assert row(core, "hello")["pids"] == hello


def test_row_69_invoke_returns_the_value(probe: Device) -> None:
    answer = ask(probe, function_arn("callee"), "return")
    assert answer["error"] == ""
    assert json.loads(answer["payload"]) == {"got": {"do": "return"}, "custom": {"mark": "x"}}


def test_row_69_a_raising_handler_is_handled(probe: Device) -> None:
    answer = ask(probe, function_arn("callee"), "raise")
    assert answer["error"] == "Handled"
    assert json.loads(answer["payload"])["errorMessage"] == "asked to"


def test_row_69_a_crash_is_unhandled_and_named(probe: Device) -> None:
    answer = ask(probe, function_arn("callee"), "exit")
    assert answer["error"] == "Unhandled"
    assert "exit status 3" in json.loads(answer["payload"])["errorMessage"]


def test_row_69_an_event_invocation_returns_at_once(probe: Device) -> None:
    answer = ask(probe, function_arn("callee"), "sleep", type="Event")
    assert answer["error"] == ""
    assert answer["payload"] == ""
    assert answer["seconds"] < 0.5


def test_row_69_an_unknown_function_is_an_error_for_the_caller_only(probe: Device) -> None:
    answer = ask(probe, function_arn("nobody"), "return")
    assert "InvocationException" in answer["exception"]
    assert ask(probe, function_arn("callee"), "return")["error"] == ""


@pytest.fixture
def seen(core: Core, probe: Device) -> dict[str, Any]:
    probe.publish("inspector/7/trigger", json.dumps({"a": [1, "two"]}))
    answer: dict[str, Any] = json.loads(probe.expect_on("inspector/answer"))
    return answer


def test_row_70_context(seen: dict[str, Any]) -> None:
    assert seen["event"] == {"a": [1, "two"]}
    assert seen["subject"] == "inspector/7/trigger"
    context = seen["context"]
    assert context.pop("aws_request_id")
    assert context == {
        "function_name": "inspector",
        "function_version": "1",
        "invoked_function_arn": function_arn("inspector"),
    }


def test_row_71_environment(core: Core, seen: dict[str, Any]) -> None:
    environment = seen["environment"]
    expected = {
        "MY_FUNCTION_ARN": function_arn("inspector"),
        "ENCODING_TYPE": "json",
        "ROUTER_FUNCTION_ARN": "arn:aws:lambda:::function:GGRouter",
        "SHADOW_FUNCTION_ARN": "arn:aws:lambda:::function:GGShadowService",
        "SECRETS_MANAGER_FUNCTION_ARN": "arn:aws:lambda:::function:GGSecretManager:1",
        "AWS_IOT_THING_NAME": "test_core",
        "AWS_IOT_THING_ARN": thing_arn("test_core"),
        "AWS_GREENGRASS_GROUP_NAME": "test group",
        "GGC_MAX_INTERFACE_VERSION": "1.5",
        "GG_MQTT_KEEP_ALIVE": "600",
        "AWS_GG_RESOURCE_PREFIX": "/",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "COLOUR": "green",
    }
    assert {name: environment.get(name) for name in expected} == expected
    for name in ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "GROUP_ID", "GG_DAEMON_PORT", "PATH", "HOME"):
        assert environment.get(name), name
    assert re.fullmatch(
        r"http://localhost:\d+/2016-11-01/credentialprovider/", environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    )


def test_row_72_isolation(seen: dict[str, Any]) -> None:
    assert seen["root_list"] in ("No such file or directory", "Permission denied")
    assert seen["pids"] == [1]
    assert seen["uid"] != 0


def test_row_73_the_root_is_read_only(seen: dict[str, Any]) -> None:
    refusals = ("Read-only file system", "Permission denied")
    assert seen["write_code"] in refusals
    assert seen["write_new_code"] in refusals
    assert seen["write_root"] in refusals
    assert seen["write_etc"] in refusals
    assert seen["cwd"] == "/lambda"


def test_row_74_print_is_one_line_in_the_function_log(core: Core, seen: dict[str, Any]) -> None:
    stamp = r"\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,3})?Z\]"
    log = eventually(lambda: "logged line" in core.function_log("inspector") and core.function_log("inspector"), "log")
    assert re.search(rf"^{stamp}\[INFO\]-printed line$", log, re.MULTILINE)
    assert re.search(rf"^{stamp}\[WARN\]-.*logged line$", log, re.MULTILINE)
