"""The IoT data plane: shadows by HTTP and MQTT alike, messages, retained messages."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud_desk import ACCOUNT, REGION, Desk
from cloud_shapes_check import conforms

from ggfast.cloud.events import Publish
from ggfast.cloud.limits import PUBLISH_BYTES_MAX, SHADOW_TOMBSTONE_S
from ggfast.cloud.operations import Principal
from ggfast.cloud.shadows import retained, store, topics
from ggfast.cloud.shadows.service import IOT_DATA

HOME = f"{ACCOUNT}/{REGION}"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    found = Desk(tmp_path, IOT_DATA)
    yield found
    found.close()


def change(desk: Desk, thing: str = "lamp", **members: Any) -> dict[str, Any]:
    name = {"shadowName": members.pop("shadowName")} if "shadowName" in members else {}
    reply = desk.reply("UpdateThingShadow", thingName=thing, payload=json.dumps(members).encode(), **name)
    assert reply.raw is not None
    return json.loads(reply.raw)


def read(desk: Desk, thing: str = "lamp", **members: Any) -> dict[str, Any]:
    reply = desk.reply("GetThingShadow", thingName=thing, **members)
    assert reply.raw is not None
    return json.loads(reply.raw)


def told(desk: Desk) -> list[tuple[str, dict[str, Any]]]:
    """Topics and documents told since the last look."""
    found = [(event.topic, json.loads(event.payload)) for event in desk.events if isinstance(event, Publish)]
    assert all(event.home == HOME for event in desk.events if isinstance(event, Publish))
    desk.events.clear()
    return found


def send(desk: Desk, topic: str, payload: bytes) -> None:
    desk.change(lambda tx: topics.handle(tx, desk.cloud, HOME, topic, payload))


def test_a_shadow_by_http(desk: Desk) -> None:
    accepted = change(desk, state={"desired": {"on": True}}, clientToken="t")
    assert (accepted["version"], accepted["clientToken"]) == (1, "t")
    # A client that has seen the version in `accepted` drops the delta: the delta comes first.
    assert [topic for topic, _ in told(desk)] == [
        f"$aws/things/lamp/shadow/update/{answer}" for answer in ("delta", "accepted", "documents")
    ]
    assert read(desk)["state"] == {"desired": {"on": True}, "delta": {"on": True}}
    assert told(desk) == []
    reply = desk.reply("DeleteThingShadow", thingName="lamp")
    assert reply.content_type == "application/json"
    assert json.loads(reply.raw or b"")["version"] == 1
    assert [topic for topic, _ in told(desk)] == ["$aws/things/lamp/shadow/delete/accepted"]


@pytest.mark.parametrize("operation", ["GetThingShadow", "DeleteThingShadow"])
def test_what_does_not_exist(desk: Desk, operation: str) -> None:
    fault = desk.refused(operation, thingName="lamp")
    assert (fault.code, fault.status) == ("ResourceNotFoundException", 404)
    assert fault.message == "No shadow exists with name: 'lamp'"
    assert "lamp~night" in desk.refused(operation, thingName="lamp", shadowName="night").message


@pytest.mark.parametrize(
    ("payload", "code", "status"),
    [
        (b"{", "InvalidRequestException", 400),
        (b'{"state":{},"version":7}', "ConflictException", 409),
        (b'{"state":{}}' + b" " * 131_072, "RequestEntityTooLargeException", 413),
        (b'{"state":"\xff"}', "UnsupportedDocumentEncodingException", 415),
    ],
)
def test_refusals_have_the_models_codes(desk: Desk, payload: bytes, code: str, status: int) -> None:
    fault = desk.refused("UpdateThingShadow", thingName="lamp", payload=payload)
    assert (fault.code, fault.status) == (code, status)
    assert told(desk) == []


def test_versions_go_on_after_a_deletion_for_two_days(desk: Desk) -> None:
    change(desk, state={"desired": {"a": 1}})
    assert change(desk, state={"desired": {"a": 2}})["version"] == 2
    desk.call("DeleteThingShadow", thingName="lamp")
    stale = desk.refused("UpdateThingShadow", thingName="lamp", payload=b'{"state":{},"version":1}')
    assert stale.status == 409
    made = change(desk, state={"desired": {"b": 1}})
    assert (made["version"], read(desk)["state"]["desired"]) == (3, {"b": 1})
    desk.call("DeleteThingShadow", thingName="lamp")
    desk.clock.now += SHADOW_TOMBSTONE_S
    assert change(desk, state={})["version"] == 1


def test_old_tombstones_are_forgotten(desk: Desk) -> None:
    change(desk, state={})
    desk.call("DeleteThingShadow", thingName="lamp")
    assert desk.change(lambda tx: store.forget(tx, desk.clock.now)) == 0
    desk.clock.now += SHADOW_TOMBSTONE_S + 7_200
    assert desk.change(lambda tx: store.forget(tx, desk.clock.now)) == 1
    assert desk.look(lambda tx: tx.count(store.TOMBSTONES, HOME)) == 0


def test_named_shadows_are_their_own_and_listed(desk: Desk) -> None:
    change(desk, state={"desired": {"a": 0}})
    for name in ("n1", "n2", "n3"):
        change(desk, shadowName=name, state={"desired": {"a": 1}})
    assert told(desk)[-1][0] == "$aws/things/lamp/shadow/name/n3/update/documents"
    assert read(desk)["state"]["desired"] == {"a": 0}
    assert read(desk, shadowName="n2")["state"]["desired"] == {"a": 1}
    page = desk.call("ListNamedShadowsForThing", thingName="lamp", pageSize=2)
    conforms("iot-data", "ListNamedShadowsForThing", page)
    assert page["results"] == ["n1", "n2"]
    rest = desk.call("ListNamedShadowsForThing", thingName="lamp", pageSize=2, nextToken=page["nextToken"])
    assert (rest["results"], "nextToken" in rest) == (["n3"], False)
    desk.call("DeleteThingShadow", thingName="lamp", shadowName="n1")
    assert desk.all("ListNamedShadowsForThing", "results", "nextToken", thingName="lamp") == ["n2", "n3"]
    assert desk.call("ListNamedShadowsForThing", thingName="other")["results"] == []
    assert desk.refused("ListNamedShadowsForThing", thingName="lamp", nextToken="x").status == 400


def test_regions_know_nothing_of_each_other(desk: Desk) -> None:
    change(desk, state={})
    assert desk.refused("GetThingShadow", thingName="lamp", region="us-east-1").status == 404


@pytest.mark.parametrize("name", ["", "a/b", "..", "ä", "x" * 129, "a\0b", "a b"])
def test_odd_names_are_refused(desk: Desk, name: str) -> None:
    assert desk.refused("GetThingShadow", thingName=name).code == "InvalidRequestException"
    assert desk.refused("GetThingShadow", thingName="lamp", shadowName=name).code == "InvalidRequestException"


def test_by_mqtt_as_by_http(desk: Desk) -> None:
    base = "$aws/things/lamp/shadow/name/night"
    send(desk, f"{base}/update", b'{"state":{"desired":{"a":1}},"clientToken":"t"}')
    by_mqtt = told(desk)
    change(desk, "other", shadowName="night", state={"desired": {"a": 1}}, clientToken="t")
    by_http = told(desk)
    assert [document for _, document in by_mqtt] == [document for _, document in by_http]
    send(desk, f"{base}/get", b'{"clientToken":"u"}')
    assert told(desk) == [(f"{base}/get/accepted", read(desk, shadowName="night") | {"clientToken": "u"})]
    send(desk, f"{base}/delete", b"")
    send(desk, f"{base}/delete", b'{"clientToken":"v"}')
    now = int(desk.clock.now)
    refusal = {"code": 404, "message": "No shadow exists with name: 'lamp~night'", "timestamp": now, "clientToken": "v"}
    assert told(desk) == [
        (f"{base}/delete/accepted", {"version": 1, "timestamp": now}),
        (f"{base}/delete/rejected", refusal),
    ]
    send(desk, f"{base}/get", b"")
    send(desk, f"{base}/get", b"{")
    send(desk, f"{base}/update", b'{"state":{},"version":9}')
    assert [(topic, document["code"]) for topic, document in told(desk)] == [
        (f"{base}/get/rejected", 404),
        (f"{base}/get/rejected", 400),
        (f"{base}/update/rejected", 409),
    ]
    send(desk, f"{base}/get/accepted", b"{}")
    send(desk, "other", b"{}")
    assert told(desk) == []


def test_permission_is_asked_for_the_thing_and_shadow(desk: Desk) -> None:
    asked = []

    def allows(action: str, resource: str) -> bool:
        asked.append((action, resource))
        return False

    who = Principal("arn:aws:iam::1:user/u", "A", allows)
    arn = f"arn:aws:iot:{REGION}:{ACCOUNT}"
    for operation, members, resource in (
        ("GetThingShadow", {"thingName": "t"}, "thing/t"),
        ("UpdateThingShadow", {"thingName": "t", "shadowName": "n", "payload": b"{}"}, "thing/t/n"),
        ("DeleteThingShadow", {"thingName": "t"}, "thing/t"),
        ("ListNamedShadowsForThing", {"thingName": "t"}, "thing/t"),
        ("Publish", {"topic": "a/b"}, "topic/a/b"),
        ("GetRetainedMessage", {"topic": "a/b"}, "topic/a/b"),
    ):
        fault = desk.refused(operation, who=who, **members)
        assert (fault.code, fault.status) == ("AccessDeniedException", 403)
        assert asked[-1] == (f"iot:{operation}", f"{arn}:{resource}")
    assert desk.refused("ListRetainedMessages", who=who).status == 403
    publisher = Principal("arn:aws:iam::1:user/u", "A", lambda action, _: action == "iot:Publish")
    assert "iot:RetainPublish" in desk.refused("Publish", who=publisher, topic="a", retain=True).message


def test_publish(desk: Desk) -> None:
    conforms("iot-data", "Publish", desk.call("Publish", topic="a/b", payload=b"x", qos=1, contentType="text/plain"))
    assert desk.events == [Publish("a/b", b"x", 1, False, HOME)]
    desk.events.clear()
    desk.call("Publish", topic="a/b")
    assert desk.events == [Publish("a/b", b"", 0, False, HOME)]


def test_publish_to_a_shadow_asks_it(desk: Desk) -> None:
    desk.call("Publish", topic="$aws/things/lamp/shadow/update", payload=b'{"state":{"reported":{"a":1}}}')
    assert [topic.rpartition("/")[2] for topic, _ in told(desk)] == ["update", "accepted", "documents"]
    assert read(desk)["state"] == {"reported": {"a": 1}}
    desk.call("Publish", topic="$aws/things/lamp/jobs/get", payload=b"")
    assert [event.topic for event in desk.events if isinstance(event, Publish)][-1].endswith("jobs/get/accepted")


@pytest.mark.parametrize(
    "members",
    [
        {"topic": "a/+/b"},
        {"topic": "#"},
        {"topic": ""},
        {"topic": "a/b/c/d/e/f/g/h/i"},
        {"topic": "ä" * 129},
        {"topic": "a\0b"},
        {"topic": "$aws/things/lamp/shadow/update/accepted"},
        {"topic": "$SYS/x"},
        {"topic": "a", "qos": 2},
        {"topic": "a", "payload": b"x" * (PUBLISH_BYTES_MAX + 1)},
        {"topic": "$aws/things/lamp/shadow/update", "retain": True},
    ],
)
def test_publish_refuses(desk: Desk, members: dict[str, Any]) -> None:
    fault = desk.refused("Publish", **members)
    assert (fault.code, fault.status) == ("InvalidRequestException", 400)
    assert desk.events == []


def test_retained_messages(desk: Desk) -> None:
    for topic in ("a", "b/ä", "c"):
        desk.call("Publish", topic=topic, payload=topic.encode() * 2, qos=1, retain=True)
    assert desk.events[0] == Publish("a", b"aa", 1, True, HOME)
    page = desk.call("ListRetainedMessages", maxResults=2)
    conforms("iot-data", "ListRetainedMessages", page)
    assert [entry["topic"] for entry in page["retainedTopics"]] == ["a", "b/ä"]
    assert page["retainedTopics"][1]["payloadSize"] == 8
    found = desk.call("GetRetainedMessage", topic="b/ä")
    conforms("iot-data", "GetRetainedMessage", found)
    assert base64.b64decode(found["payload"]) == "b/äb/ä".encode()
    assert found["lastModifiedTime"] == int(desk.clock.now * 1_000)
    desk.call("Publish", topic="a", retain=True)  # empty: removes it
    assert len(desk.all("ListRetainedMessages", "retainedTopics", "nextToken", maxResults=1)) == 2
    fault = desk.refused("GetRetainedMessage", topic="a")
    assert (fault.code, fault.status) == ("ResourceNotFoundException", 404)


def test_what_the_broker_keeps_is_what_the_api_shows(desk: Desk) -> None:
    desk.change(lambda tx: retained.put(tx, HOME, "t", b"\x00\xff", 1, 5.0))
    message = desk.look(lambda tx: retained.get(tx, HOME, "t"))
    assert message == retained.RetainedMessage("t", b"\x00\xff", 1, 5.0)
    assert desk.call("GetRetainedMessage", topic="t")["qos"] == 1
    page = desk.look(lambda tx: retained.list_page(tx, HOME, limit=10))
    assert [retained.from_body(found.name, found.body) for found in page.documents] == [message]
    assert desk.change(lambda tx: retained.delete(tx, HOME, "t"))
    assert not desk.change(lambda tx: retained.delete(tx, HOME, "t"))
    assert desk.look(lambda tx: retained.get(tx, HOME, "t")) is None


def test_a_thing_has_a_bounded_number_of_named_shadows(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SHADOWS_OF_THING_MAX", 2)
    for name in ("a", "b"):
        change(desk, shadowName=name, state={})
    fault = desk.refused("UpdateThingShadow", thingName="lamp", shadowName="c", payload=b'{"state":{}}')
    assert (fault.status, fault.code) == (429, "ThrottlingException")
    send(desk, "$aws/things/lamp/shadow/name/c/update", b'{"state":{},"clientToken":"t"}')
    topic, answer = told(desk)[-1]
    assert topic.endswith("/c/update/rejected") and (answer["code"], answer["clientToken"]) == (429, "t")
    change(desk, shadowName="b", state={})
    change(desk, thing="other", shadowName="c", state={})
    change(desk, state={})
    desk.call("DeleteThingShadow", thingName="lamp", shadowName="a")
    change(desk, shadowName="c", state={})
