"""P4 with a whole core: a deployment under load loses nothing, cuts nobody off, touches what it names alone."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.harness import Core, Device, GroupFolder, a_core, eventually, free_port, function_arn, thing_arn
from tests.patience import patience

RATE = 200  # messages a second of each publisher
PUBLISHERS = ("left", "right")
COUNTER = thing_arn("counter")

RELAY = """
import json, os
import greengrasssdk
iot = greengrasssdk.client("iot-data")

def handler(event, context):
    iot.publish(topic="{out}", payload=json.dumps([event["from"], event["n"], "{label}"]))
"""

LISTENER = """
import socket
import greengrasssdk
iot = greengrasssdk.client("iot-data")
door = socket.create_server(("127.0.0.1", {port}), reuse_port=False)

def handler(event, context):
    iot.publish(topic="heard", payload="{label} %s" % event["n"])
"""

QUIET = "def handler(event, context):\n    pass\n"


@pytest.fixture
def core() -> Iterator[Core]:
    with a_core() as core:
        yield core


def load_group(core: Core, label: str, out: str = "out/a") -> GroupFolder:
    folder = core.folder()
    for name in (*PUBLISHERS, "counter"):
        folder.device(name)
    relay = folder.function("relay", RELAY.format(label=label, out=out), Pinned=True)
    folder.function("quiet", QUIET, Pinned=True, sdk=False)
    for name in PUBLISHERS:
        folder.subscribe(thing_arn(name), "in", relay)
    folder.subscribe(relay, out, COUNTER)
    return folder


def row(core: Core, name: str) -> dict[str, Any]:
    return next(row for row in core.status()["functions"] if row["arn"] == function_arn(name))


class Publisher(threading.Thread):
    """Sends numbered messages with QoS 1 at RATE until told to stop."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device = device
        self.sent = 0
        self.stopping = threading.Event()

    def run(self) -> None:
        begun = time.monotonic()
        while not self.stopping.wait(max(begun + self.sent / RATE - time.monotonic(), 0)):
            message = json.dumps({"from": self.device.name, "n": self.sent})
            self.device._client.publish("in", message, 1)
            self.sent += 1


def test_P4_a_deployment_under_load_loses_nothing_and_cuts_nobody_off(core: Core) -> None:
    core.deploy(load_group(core, "old"))
    core.start()
    quiet = eventually(lambda: row(core, "quiet")["pids"], "the untouched function")
    with Device(core, "left") as left, Device(core, "right") as right, Device(core, "counter") as counter:
        counter.subscribe("out/#", 1)
        publishers = [Publisher(left), Publisher(right)]
        for publisher in publishers:
            publisher.start()
        try:
            eventually(lambda: counter.received.qsize() > RATE, "messages through the first group")
            core.deploy(load_group(core, "new", "out/b"))
            seen = counter.received.qsize()
            eventually(lambda: counter.received.qsize() > seen + RATE, "messages through the second group")
        finally:
            for publisher in publishers:
                publisher.stopping.set()
                publisher.join()
        expected = {(p.device.name, n) for p in publishers for n in range(p.sent)}
        eventually(lambda: counter.received.qsize() >= len(expected), "the last messages", patience(10.0))
        found = [(topic, *json.loads(payload)) for topic, payload in (counter.expect() for _ in expected)]
        assert Counter((name, n) for _, name, n, _ in found) == Counter(expected)
        for name in PUBLISHERS:
            assert [n for _, who, n, _ in found if who == name] == list(
                range(len([e for e in expected if e[0] == name]))
            )
        assert {(topic, label) for topic, _, _, label in found} == {("out/a", "old"), ("out/b", "new")}
        assert [device.disconnects for device in (left, right, counter)] == [0, 0, 0]
    assert row(core, "quiet")["pids"] == quiet


def listening_group(core: Core, source: str) -> GroupFolder:
    folder = core.folder()
    folder.device("counter")
    listener = folder.function("listener", source, Pinned=True)
    folder.function("quiet", QUIET, Pinned=True, sdk=False)
    folder.subscribe(COUNTER, "say", listener)
    folder.subscribe(listener, "heard", COUNTER)
    return folder


def test_P4_a_function_that_holds_a_port_is_updated_and_a_broken_one_is_taken_back(core: Core) -> None:
    port = free_port()
    core.deploy(listening_group(core, LISTENER.format(port=port, label="old")))
    core.start()
    with Device(core, "counter") as device:
        device.subscribe("heard")
        device.publish("say", '{"n": 1}')
        assert device.expect_on("heard") == b"old 1"
        before = row(core, "listener")["pids"], row(core, "quiet")["pids"]
        core.deploy(listening_group(core, LISTENER.format(port=port, label="new")))
        device.publish("say", '{"n": 2}')
        assert device.expect_on("heard") == b"new 2"
        running = row(core, "listener")["pids"], row(core, "quiet")["pids"]
        assert running[0] != before[0] and running[1] == before[1]

        refused = core.deploy(listening_group(core, "import no_such_module\n"), check=False)
        assert refused.returncode != 0
        assert f"worker with {function_arn('listener')} failed to initialize: " in refused.stderr
        assert "no_such_module" in refused.stderr
        device.publish("say", '{"n": 3}')
        assert device.expect_on("heard") == b"new 3"
        assert row(core, "quiet")["pids"] == before[1]
        assert device.disconnects == 0
