"""Acceptance rows 87-89 and 92 on a real core: shadows through the table, by the published SDKs, over restarts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cloud_tools import fetched
from tests.e2e.harness import Core, Device, a_core, eventually, thing_arn
from tests.patience import patience

SERVICE = "GGShadowService"
LIGHT = "$aws/things/light/shadow"
PROGRAM = Path(__file__).with_name("shadow_device_program.py")

# Asks for shadows through the SDK, which needs no entry in the table.
KEEPER = """
import json
import greengrasssdk
iot = greengrasssdk.client("iot-data")

def handler(event, context):
    try:
        if event["do"] == "update":
            answer = iot.update_thing_shadow(thingName=event["thing"], payload=json.dumps(event["document"]))
        elif event["do"] == "get":
            answer = iot.get_thing_shadow(thingName=event["thing"])
        else:
            answer = iot.delete_thing_shadow(thingName=event["thing"])
        return json.loads(answer["payload"])
    except Exception as error:
        return str(error)
"""


@pytest.fixture(scope="module")
def core() -> Iterator[Core]:
    """The guide's traffic light: a switch may update it, the light hears and answers; and a device for the SDK."""
    with a_core() as core:
        folder = core.folder()
        for name in ("switch", "light", "sdk", "stranger"):
            folder.device(name)
        folder.function("keeper", KEEPER)
        for name in ("switch", "light"):
            folder.subscribe(thing_arn(name), f"{LIGHT}/update", SERVICE)
            folder.subscribe(SERVICE, f"{LIGHT}/update/accepted", thing_arn(name))
            folder.subscribe(SERVICE, f"{LIGHT}/update/rejected", thing_arn(name))
        folder.subscribe(SERVICE, f"{LIGHT}/update/delta", thing_arn("light"))
        folder.subscribe(SERVICE, f"{LIGHT}/update/documents", thing_arn("light"))
        folder.subscribe(thing_arn("sdk"), "$aws/things/sdk/shadow/#", SERVICE)
        folder.subscribe(SERVICE, "$aws/things/sdk/shadow/#", thing_arn("sdk"))
        core.deploy(folder)
        core.start()
        yield core


def ask(core: Core, **event: Any) -> Any:
    """What the keeper says."""
    done = core.command("invoke", "keeper", "--payload", json.dumps(event))
    return json.loads(done.stdout)


def test_row_87_a_switch_turns_a_light_on(core: Core) -> None:
    with Device(core, "switch") as switch, Device(core, "light") as light:
        for device in (switch, light):
            device.subscribe(f"{LIGHT}/update/#", 1)
        switch.publish(f"{LIGHT}/update", json.dumps({"state": {"desired": {"color": "red"}}}), qos=1)
        delta = json.loads(light.expect_on(f"{LIGHT}/update/delta"))
        assert delta["state"] == {"color": "red"}
        assert switch.expect()[0] == f"{LIGHT}/update/accepted"  # nothing else: the table says so
        light.publish(f"{LIGHT}/update", json.dumps({"state": {"reported": {"color": "red"}}}), qos=1)
        documents = json.loads(light.expect_on(f"{LIGHT}/update/documents"))
        assert documents["current"]["version"] == delta["version"]
        documents = json.loads(light.expect_on(f"{LIGHT}/update/documents"))
        assert documents["current"]["state"] == {"desired": {"color": "red"}, "reported": {"color": "red"}}


def test_row_88_and_89_refusals_come_back_with_the_token(core: Core) -> None:
    with Device(core, "switch") as switch:
        switch.subscribe(f"{LIGHT}/update/rejected", 1)
        switch.publish(f"{LIGHT}/update", '{"state": {}, "version": 4711, "clientToken": "me"}', qos=1)
        refused = switch.expect_json()
        assert (refused["code"], refused["message"], refused["clientToken"]) == (409, "Version conflict", "me")
        switch.publish(f"{LIGHT}/update", "{", qos=1)
        assert switch.expect_json()["code"] == 400
        switch.publish(f"{LIGHT}/update", json.dumps({"state": {"desired": {"a": "x" * 9_000}}}), qos=1)
        assert switch.expect_json()["code"] == 413


def test_P1_who_has_no_entry_reaches_no_shadow(core: Core) -> None:
    with Device(core, "stranger") as stranger:
        stranger.publish(f"{LIGHT}/update", json.dumps({"state": {"desired": {"color": "stolen"}}}), qos=1)
        found = ask(core, do="get", thing="light")
    assert found["state"].get("desired", {}).get("color") != "stolen"


def test_row_92_functions_keep_shadows_through_the_sdk(core: Core) -> None:
    made = ask(core, do="update", thing="room", document={"state": {"reported": {"celsius": 4}}})
    assert (made["version"], made["state"]) == (1, {"reported": {"celsius": 4}})
    assert ask(core, do="get", thing="room")["state"] == {"reported": {"celsius": 4}}
    assert ask(core, do="delete", thing="room")["version"] == 1
    gone = ask(core, do="get", thing="room")
    assert gone == (
        "Request for shadow state returned error code 404 with message \"No shadow exists with name: 'room'\""
    )


def test_p2_shadows_survive_the_death_of_the_daemon(core: Core) -> None:
    before = ask(core, do="update", thing="kept", document={"state": {"reported": {"n": 1}}})
    dead = core.kill_daemon()
    eventually(lambda: core.command("status", check=False).returncode == 0 and core.daemon_pid() != dead, "it is back")
    assert ask(core, do="get", thing="kept")["version"] == before["version"]


def test_row_87_the_published_shadow_client_works_unmodified(core: Core) -> None:
    place = core.directory / "device-certificates" / "sdk"
    settings = {
        "thing": "sdk",
        "host": "127.0.0.1",
        "port": core.port,
        "ca": str(core.group_ca),
        "certificate": str(next(place.glob("*.crt"))),
        "key": str(next(place.glob("*.key"))),
    }
    done = subprocess.run(
        [sys.executable, str(PROGRAM), json.dumps(settings)],
        env={"PYTHONPATH": str(fetched("device-sdks")), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=patience(120),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == {
        "missing": "rejected",
        "update": "accepted",
        "version": 1,
        "delta": {"light": "on"},
        "conflict": "rejected",
        "code": 409,
        "got": {"desired": {"light": "on"}, "delta": {"light": "on"}},
        "deleted": "accepted",
    }
