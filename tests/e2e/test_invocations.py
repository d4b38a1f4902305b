"""How invocations queue, run beside each other and are refused, in a whole core and in the terms of the SDK.

Acceptance rows 62-64 and 69 with their limits: greengrass-core 6.1 (life cycle), 6.7 (between functions), 6.9 (1,024
work items, 25 on-demand workers), 5.9 (queueFullPolicy).
"""

from __future__ import annotations

import json
import os
import queue
import time
from collections.abc import Iterator
from typing import Any

import pytest

from ggfast import limits
from tests.e2e.harness import Core, Device, a_core, eventually, function_arn, thing_arn

pytestmark = pytest.mark.root
PROBE = thing_arn("probe")
PINNED_IDLE = 30  # more than the spawner starts in one second

AGENT = """
import base64, json
import greengrasssdk
iot, functions = greengrasssdk.client("iot-data"), greengrasssdk.client("lambda")

def call(options, payload):
    result = functions.invoke(Payload=payload, **options)
    answer = result["Payload"]
    return [result["FunctionError"], answer.read() if hasattr(answer, "read") else answer]

def invoke(event):
    payload = json.dumps("x" * (event["size"] - 2)) if "size" in event else json.dumps(event.get("payload", {}))
    options = dict(event["options"])
    if "context" in event:
        options["ClientContext"] = base64.b64encode(json.dumps(event["context"]).encode())
    error, answer = call(options, payload)
    return [error, len(answer), answer[:300].decode()]

def binary(event):
    sent = bytes(range(256)) * 100
    error, answer = call(event["options"], sent)
    return [error, answer == sent[::-1]]

def events(event):
    for number in range(event["count"]):
        try:
            call({**event["options"], "InvocationType": "Event"}, json.dumps({"n": number}))
        except Exception as error:
            return [number, type(error).__name__, str(error)]
    return [event["count"]]

def publish(event):
    for number in range(event["count"]):
        payload = json.dumps({"n": event["first"] + number})
        iot.publish(topic=event["topic"], payload=payload, queueFullPolicy=event["policy"])
    return "published"

def handler(event, context):
    try:
        answer = globals()[event["do"]](event)
    except Exception as error:
        answer = [type(error).__name__, str(error)]
    iot.publish(topic="agent/" + event["ticket"], payload=json.dumps(answer))
"""

BLOCKED = """
import json, time
import greengrasssdk
iot = greengrasssdk.client("iot-data")
seen = []

def handler(event, context):
    if "sleep" in event:
        iot.publish(topic="blocked/asleep", payload="{}")
        time.sleep(event["sleep"])
    elif "report" in event:
        iot.publish(topic="blocked/seen", payload=json.dumps([len(seen), seen == sorted(seen), seen[-1:]]))
    else:
        seen.append(event["n"])
"""

SLEEPER = """
import os, time
import greengrasssdk
iot = greengrasssdk.client("iot-data")

def handler(event, context):
    iot.publish(topic="sleeper/started", payload=str(event["n"]))
    time.sleep(event["sleep"])
    iot.publish(topic="sleeper/done", payload=str(event["n"]))
"""

LINK = """
import base64, json
import greengrasssdk
functions = greengrasssdk.client("lambda")

def handler(event, context):
    custom = context.client_context.custom
    if not event["left"]:
        return {"custom": custom, "path": []}
    onward = base64.b64encode(json.dumps({"custom": custom}).encode())
    answer = functions.invoke(FunctionName=context.invoked_function_arn, ClientContext=onward,
                              Payload=json.dumps({"left": event["left"] - 1}))
    result = json.loads(answer["Payload"].read())
    return {"custom": result["custom"], "path": [custom["mark"]] + result["path"]}
"""

ECHO = "def handler(event, context):\n    return event\n"
REVERSE = "def handler(event, context):\n    return event[::-1]\n"
LARGE = "def handler(event, context):\n    return 'x' * event['size']\n"
SLOW = "import time\n\ndef handler(event, context):\n    time.sleep(30)\n"


@pytest.fixture(scope="module")
def core() -> Iterator[Core]:
    with a_core() as core:
        folder = core.folder()
        folder.device("probe")
        agent = folder.function("agent", AGENT, Timeout=60, Pinned=True)
        blocked = folder.function("blocked", BLOCKED, Timeout=60, Pinned=True)
        sleeper = folder.function("sleeper", SLEEPER, Timeout=60)
        folder.function("link", LINK, Timeout=20)
        for name, source, more in (
            ("echo", ECHO, {}),
            ("old", ECHO, {}),
            ("young", ECHO, {}),
            ("large", LARGE, {}),
            ("reverse", REVERSE, {"EncodingType": "binary"}),
            ("slow-pinned", SLOW, {"Timeout": 1, "Pinned": True}),
            ("slow-demand", SLOW, {"Timeout": 1}),
        ):
            folder.function(name, source, sdk=False, **more)
        for number in range(PINNED_IDLE):
            folder.function(f"idle-{number}", ECHO, sdk=False, Pinned=True)
        for topic, function in (("agent/in", agent), ("blocked/in", blocked), ("sleeper/in", sleeper)):
            folder.subscribe(PROBE, topic, function)
        folder.subscribe(agent, "full/#", blocked)
        for function, topic in ((agent, "agent/#"), (blocked, "blocked/#"), (sleeper, "sleeper/#")):
            folder.subscribe(function, topic, PROBE)
        core.deploy(folder)
        core.start()
        yield core


@pytest.fixture
def probe(core: Core) -> Iterator[Device]:
    with Device(core, "probe") as device:
        for name in ("agent", "blocked", "sleeper"):
            device.subscribe(f"{name}/#")
        yield device


def rows(core: Core) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in core.status()["functions"]}


def ask(probe: Device, do: str, timeout_s: float = 60.0, **event: Any) -> Any:
    """Have the agent do something; what it says."""
    ticket = os.urandom(4).hex()
    probe.publish("agent/in", json.dumps({"do": do, "ticket": ticket, **event}))
    return json.loads(probe.expect_on(f"agent/{ticket}", timeout_s))


def invoke(probe: Device, name: str, **event: Any) -> Any:
    """[FunctionError, bytes of the answer, its beginning], or [exception, text]."""
    return ask(probe, "invoke", options={"FunctionName": function_arn(name)}, **event)


def test_row_61_more_pinned_functions_than_start_in_a_second(core: Core) -> None:
    """None of them is refused, none has to be started twice."""
    names = [f"idle-{number}" for number in range(PINNED_IDLE)]
    eventually(lambda: all(rows(core)[name]["instances"] == 1 for name in names), "all pinned functions", 30)
    assert {rows(core)[name]["restarts"] for name in names} == {0}
    assert "could not be created" not in core.log()


def test_row_63_twenty_five_on_demand_workers_and_the_least_used_makes_room(core: Core, probe: Device) -> None:
    """Two idle workers of other functions: 24 sleepers need one of their places, and it is the older one's."""
    for name in ("old", "young"):
        assert invoke(probe, name, payload={"a": 1})[0] == ""
    idle = {name: rows(core)[name]["pids"] for name in ("old", "young")}
    assert all(len(pids) == 1 for pids in idle.values())
    for name in ("echo", "link", "large", "reverse", "slow-demand"):
        assert rows(core)[name]["instances"] == 0, "the test counts places"
    maximum = limits.ON_DEMAND_WORKERS_MAX
    start_sleepers(probe, 0, maximum - 1, 12.0)
    assert started(probe, maximum - 1) == set(range(maximum - 1))
    found = rows(core)
    assert found["old"]["instances"] == 0
    assert found["young"]["pids"] == idle["young"]
    start_sleepers(probe, maximum - 1, 2, 0.0)
    assert started(probe, 1) == {maximum - 1}  # the place of the young one
    assert rows(core)["young"]["instances"] == 0
    assert rows(core)["sleeper"]["instances"] == maximum
    assert started(probe, 1) == {maximum}  # reused: with a place that is free again, or as soon as one is
    assert rows(core)["sleeper"]["instances"] <= maximum
    assert core.status()["counters"]["functions.evicted"] == 2
    done = {int(probe.expect_on("sleeper/done", 30)) for _ in range(maximum - 1)}
    assert len(done) == maximum - 1


def start_sleepers(probe: Device, first: int, count: int, sleep: float) -> None:
    for number in range(first, first + count):
        probe.publish("sleeper/in", json.dumps({"n": number, "sleep": sleep}), qos=1)


def started(probe: Device, count: int) -> set[int]:
    """The numbers of the next `count` sleepers."""
    found: set[int] = set()
    deadline = time.monotonic() + 30
    while len(found) < count:
        topic, payload = probe.received.get(timeout=max(0.01, deadline - time.monotonic()))
        if topic == "sleeper/started":
            found.add(int(payload))
    return found


def test_work_items_are_limited_and_policies_differ_when_the_queue_is_full(core: Core, probe: Device) -> None:
    """A pinned function is busy. Callers are refused from the 1,025th waiting item on; messages have room of their
    own behind it, and beyond that best effort drops and counts while all-or-exception raises. All that was accepted
    is done in order."""
    maximum = limits.WORK_ITEMS_MAX
    before = rows(core)["blocked"]["dropped"]
    probe.publish("blocked/in", json.dumps({"sleep": 12}), qos=1)
    probe.expect_on("blocked/asleep")
    started_at = time.monotonic()
    accepted, kind, text = ask(probe, "events", options={"FunctionName": function_arn("blocked")}, count=maximum + 80)
    assert (accepted, kind) == (maximum, "InvocationException")
    assert f"work items is {maximum + 1}, the limit is {maximum}" in text
    publish = {"topic": "full/x", "first": 10_000}
    assert ask(probe, "publish", policy="BestEffort", count=maximum + 50, **publish) == "published"
    answer = ask(probe, "publish", policy="AllOrException", count=1, **publish)
    assert answer[0] != "p" and "queue is full" in answer[1], answer
    eventually(lambda: rows(core)["blocked"]["dropped"] - before >= 50, "the count of what was dropped")
    row = rows(core)["blocked"]
    assert time.monotonic() - started_at < 12, "too slow to see a full queue"
    assert (row["queued"], row["dropped"] - before) == (2 * maximum, 50)  # the one that was told is no dropped one
    assert core.status()["counters"]["functions.refused.queue_full"] == 1
    eventually(lambda: rows(core)["blocked"]["queued"] == 0, "the end of the queue", 60)
    probe.publish("blocked/in", json.dumps({"report": 1}), qos=1)
    assert json.loads(probe.expect_on("blocked/seen", 20)) == [2 * maximum, True, [10_000 + maximum - 1]]
    assert ask(probe, "publish", policy="AllOrException", topic="full/x", first=20_000, count=1) == "published"


@pytest.mark.parametrize("name", ["slow-pinned", "slow-demand"])
def test_row_64_what_callers_see_of_a_timeout(core: Core, probe: Device, name: str) -> None:
    started_at = time.monotonic()
    error, _, payload = invoke(probe, name)
    assert (error, json.loads(payload)) == ("Unhandled", {"errorMessage": "Task timed out after 1 seconds"})
    assert 0.9 < time.monotonic() - started_at < 10
    if name == "slow-pinned":
        eventually(lambda: rows(core)[name]["pids"], "it runs again")


def test_row_69_payload_limits(core: Core, probe: Device) -> None:
    """128 KiB each way in the V1 profile's messages; a result may fill one worker frame."""
    maximum = limits.V1_PAYLOAD_BYTES_MAX
    assert invoke(probe, "echo", size=maximum)[:2] == ["", maximum]
    kind, text = invoke(probe, "echo", size=maximum + 1)
    assert (kind, f"{maximum + 1} bytes, the limit is {maximum}" in text) == ("InvocationException", True), text
    largest = limits.INVOKE_RESULT_BYTES_MAX
    assert invoke(probe, "large", payload={"size": largest - 2})[:2] == ["", largest]
    error, _, payload = invoke(probe, "large", payload={"size": largest + 1})
    assert error == "Unhandled", payload
    assert f"limit is {largest}" in payload or "bytes" in payload


def test_row_69_qualifiers(probe: Device) -> None:
    """The version in the ARN, in Qualifier, in both; a version that is not deployed, and none at all."""
    full, bare = function_arn("echo"), function_arn("echo").rpartition(":")[0]

    def answer(**options: str) -> Any:
        return ask(probe, "invoke", options=options, payload={"a": 1})

    for options in ({"FunctionName": full}, {"FunctionName": bare, "Qualifier": "1"},
                    {"FunctionName": full, "Qualifier": "1"}):  # fmt: skip
        assert answer(**options) == ["", 8, '{"a": 1}'], options
    assert answer(FunctionName=full, Qualifier="2")[0] == "ValueError"
    kind, text = answer(FunctionName=bare, Qualifier="2")
    assert (kind, "not deployed" in text, full in text) == ("InvocationException", True, True), text
    kind, text = answer(FunctionName=bare)
    assert kind == "InvocationException", text


def test_row_68_binary_between_functions(probe: Device) -> None:
    """Every byte, from a function that reads JSON to one that reads bytes, and back."""
    assert ask(probe, "binary", options={"FunctionName": function_arn("reverse")}) == ["", True]


def test_row_69_client_context_through_a_chain(probe: Device) -> None:
    """Four of one on-demand function call each other: each sees what its caller passed on."""
    context = {"custom": {"mark": "\u00fc", "deep": {"a": [1, None]}}}
    answer = invoke(probe, "link", payload={"left": 3}, context=context)
    assert answer[0] == "", answer
    payload = answer[2]
    assert json.loads(payload) == {"custom": context["custom"], "path": ["\u00fc"] * 3}


def test_nothing_else_was_said(probe: Device) -> None:
    """Every answer above was asked for: no invocation ran twice."""
    with pytest.raises(queue.Empty):
        probe.received.get(timeout=0.5)
