"""What a device's MQTT connection may outlive, and what is on disk when it is acknowledged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud_clients import Client, Clients, der_of
from cloud_desk import ACCOUNT, REGION, Desk

from ggfast._ext.framing import Connack, Publish, Will
from ggfast.cloud.iot import IOT
from ggfast.cloud.limits import DEVICE_REQUESTS_BYTES_MAX
from ggfast.cloud.shadows import messages as _messages  # noqa: F401  # registers the operations of IOT_DATA
from ggfast.cloud.shadows import retained as stored
from ggfast.cloud.shadows import store as shadows
from ggfast.cloud.shadows.service import IOT_DATA
from ggfast.errors import StorageFailed

HOME = f"{ACCOUNT}/{REGION}"
UPDATE = b"$aws/things/lamp/shadow/update"
EVERYTHING = {"Effect": "Allow", "Action": "iot:*", "Resource": "*"}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path, IOT, IOT_DATA)
    yield made
    made.close()


@pytest.fixture
def world(desk: Desk) -> Iterator[Clients]:
    made = Clients(desk)
    yield made
    made.close()


def register(desk: Desk, *statements: dict[str, Any], region: str = REGION) -> tuple[str, bytes]:
    """A certificate with a policy, everything unless said otherwise: its id and DER form."""
    made = desk.call("CreateKeysAndCertificate", setAsActive=True, region=region)
    allow(desk, made["certificateArn"], *(statements or (EVERYTHING,)), region=region)
    return made["certificateId"], der_of(made["certificatePem"])


def allow(desk: Desk, arn: str, *statements: dict[str, Any], region: str = REGION) -> None:
    """Attach a policy of its own to a certificate."""
    name = arn.rpartition("/")[2]
    text = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    desk.call("CreatePolicy", policyName=name, policyDocument=text, region=region)
    desk.call("AttachPolicy", policyName=name, target=arn, region=region)


def shadow_update(number: int, padding: int = 0) -> bytes:
    return json.dumps({"state": {"desired": {"n": number}}}).encode() + b" " * padding


def one(packet_id: int, topic: bytes, payload: bytes, *, retain: bool = False) -> Publish:
    """With QoS 1."""
    return Publish(topic, payload, 1, retain, packet_id=packet_id)


class Valve:
    """Holds the store's writes back, or breaks them."""

    def __init__(self, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = asyncio.Event()
        self.broken = False
        self.waiting = 0
        write = desk.store.write

        async def held(work: Any) -> Any:
            self.waiting += 1
            await self.open.wait()
            self.waiting -= 1
            if self.broken:
                raise StorageFailed("the disk is full")
            return await write(work)

        monkeypatch.setattr(desk.store, "write", held)


# --- acknowledged means kept (P2) ----------------------------------------------------------------------


def test_p2_a_shadow_update_and_a_retained_message_are_acknowledged_when_they_are_on_disk(
    desk: Desk, world: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, der = register(desk)
    valve = Valve(desk, monkeypatch)

    async def scenario() -> None:
        lamp, reader = await world.connect(der, "lamp"), await world.connect(der, "reader")
        await reader.subscribe(b"news")
        lamp.send(one(1, UPDATE, shadow_update(1)), one(2, b"news", b"x", retain=True), one(3, b"plain", b"y"))
        await reader.until(lambda: reader.messages)
        await lamp.until(lambda: valve.waiting == 2)
        assert lamp.acknowledged == []
        assert await desk.store.read(lambda tx: shadows.get(tx, HOME, "lamp")) is None
        valve.open.set()
        await lamp.until(lambda: lamp.acknowledged == [1, 2, 3])
        found = await desk.store.read(lambda tx: (shadows.get(tx, HOME, "lamp"), stored.get(tx, HOME, "news")))
        assert found[0] is not None and found[1] is not None and found[1].payload == b"x"

    world.run(scenario())


def test_p2_what_could_not_be_stored_is_not_acknowledged(
    desk: Desk, world: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, der = register(desk)
    valve = Valve(desk, monkeypatch)
    valve.broken = True
    valve.open.set()

    async def scenario() -> None:
        for packet in (one(1, UPDATE, shadow_update(1)), one(1, b"news", b"x", retain=True)):
            old, modern = await world.connect(der, "old"), await world.connect(der, "modern", level=5)
            old.send(packet)
            await old.until(lambda old=old: old.closed)
            assert old.acknowledged == []
            modern.send(packet)
            await modern.until(lambda modern=modern: modern.acknowledged)
            assert modern.packets[-1].code == 0x80 and not modern.closed

    world.run(scenario())


def test_large_requests_of_one_client_wait_in_bounded_memory(
    desk: Desk, world: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, der = register(desk)
    valve = Valve(desk, monkeypatch)

    async def scenario() -> None:
        lamp = await world.connect(der, "lamp")
        sent = 0
        while lamp.transport.reading:
            sent += 1
            lamp.send(one(sent, UPDATE, shadow_update(sent, 60_000)))
        assert sent <= DEVICE_REQUESTS_BYTES_MAX // 60_000 + 2
        await lamp.leave()
        again = await world.connect(der, "lamp")
        again.send(one(1, UPDATE, shadow_update(99)))
        assert not again.transport.reading, "coming back makes no room"
        valve.open.set()
        await again.until(lambda: again.acknowledged == [1] and again.transport.reading)

    world.run(scenario())


# --- retained messages ---------------------------------------------------------------------------------


def test_a_retained_message_leaves_the_store_when_it_expires(desk: Desk, world: Clients) -> None:
    _, der = register(desk)

    async def kept(*topics: str) -> list[bool]:
        return await desk.store.read(lambda tx: [stored.get(tx, HOME, topic) is not None for topic in topics])

    async def scenario() -> None:
        lamp = await world.connect(der, "lamp", level=5)
        short = Publish(b"short", b"x", 1, True, packet_id=1, properties={"message_expiry_interval": 5})
        long = Publish(b"long", b"x", 1, True, packet_id=2, properties={"message_expiry_interval": 500})
        lamp.send(short, long)
        await lamp.until(lambda: lamp.acknowledged == [1, 2])
        assert await kept("short", "long") == [True, True]
        desk.clock.now += 10
        async with asyncio.timeout(10):
            while await kept("short", "long") != [False, True]:
                await asyncio.sleep(0.05)

    world.run(scenario())
    again = Clients(desk)

    async def later() -> None:
        desk.clock.now += 300
        reader = await again.connect(der, "reader", level=5)
        await reader.subscribe(b"long")
        await reader.until(lambda: reader.messages)
        message = next(packet for packet in reader.packets if isinstance(packet, Publish))
        assert 150 <= message.properties["message_expiry_interval"] <= 190

    again.run(later())
    again.close()


def test_a_retained_message_of_the_api_is_not_replaced_by_an_older_one_of_a_device(
    desk: Desk, world: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, der = register(desk)
    straight = desk.store.write
    valve = Valve(desk, monkeypatch)

    async def scenario() -> None:
        lamp = await world.connect(der, "lamp")
        lamp.send(one(1, b"news", b"old", retain=True))
        await lamp.until(lambda: valve.waiting == 1)
        monkeypatch.setattr(desk.dispatcher.store, "write", straight)

    world.run(scenario())
    desk.call("Publish", topic="news", payload=b"new", retain=True)

    async def later() -> None:
        valve.open.set()
        await world.devices._retained.close()
        found = await desk.store.read(lambda tx: stored.get(tx, HOME, "news"))
        assert found is not None and found.payload == b"new"

    world.run(later())


# --- certificates --------------------------------------------------------------------------------------


def test_a_revoked_certificates_will_does_not_go_out_by_a_remembered_permission(desk: Desk, world: Clients) -> None:
    doomed_id, doomed = register(desk)
    _, other = register(desk)

    async def before() -> tuple[Client, Client]:
        reader = await world.connect(other, "reader")
        await reader.subscribe(b"#")
        client = await world.connect(doomed, "doomed", clean=False, will=Will(b"news", b"the will", 1, False))
        client.send(one(1, b"news", b"alive"))
        await reader.until(lambda: reader.messages)
        return client, reader

    client, reader = world.run(before())
    desk.call("UpdateCertificate", certificateId=doomed_id, newStatus="REVOKED")

    async def after() -> None:
        await client.until(lambda: client.closed)
        await asyncio.sleep(0.02)
        assert reader.messages == [(b"news", b"alive")]

    world.run(after())


def test_a_session_is_not_handed_to_another_certificate(desk: Desk, world: Clients) -> None:
    _, first = register(desk)
    narrow = {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}
    _, second = register(desk, narrow)
    _, writer_der = register(desk)

    async def scenario() -> None:
        owner = await world.connect(first, "x", clean=False)
        await owner.subscribe(b"secret/#")
        await owner.leave()
        writer = await world.connect(writer_der, "writer")
        writer.send(one(1, b"secret/a", b"hidden"))
        await writer.until(lambda: writer.acknowledged)
        thief = await world.connect(second, "x", clean=False)
        await asyncio.sleep(0.02)
        assert thief.packets == [Connack(False, 0, {})]
        back = await world.connect(first, "x", clean=False)
        assert back.packets == [Connack(False, 0, {})]
        await back.subscribe(b"secret/#")
        await back.leave()
        again = await world.connect(first, "x", clean=False)
        assert isinstance(again.packets[0], Connack) and again.packets[0].session_present

    world.run(scenario())


def test_a_certificate_that_moves_to_another_region_takes_no_permission_with_it(desk: Desk, world: Clients) -> None:
    here_id, der = register(desk)
    pem = desk.call("DescribeCertificate", certificateId=here_id)["certificateDescription"]["certificatePem"]
    made = desk.call("RegisterCertificateWithoutCA", certificatePem=pem, status="ACTIVE", region="us-east-1")
    allow(
        desk, made["certificateArn"], {"Effect": "Allow", "Action": "iot:Connect", "Resource": "*"}, region="us-east-1"
    )
    desk.call("UpdateCertificate", certificateId=here_id, newStatus="INACTIVE")

    async def before() -> Client:
        client = await world.connect(der, "x")
        assert await client.subscribe(b"#") == (0x80,)
        return client

    client = world.run(before())
    desk.call("UpdateCertificate", certificateId=here_id, newStatus="ACTIVE")
    world.run(client.until(lambda: client.closed))


# --- what policies forbid, by every way a message may come -----------------------------------------------


def test_nothing_forbidden_comes_by_wildcards_shares_retained_messages_or_kept_sessions(
    desk: Desk, world: Clients
) -> None:
    statements = [
        {"Effect": "Allow", "Action": ["iot:Connect", "iot:Subscribe"], "Resource": "*"},
        {"Effect": "Allow", "Action": "iot:Receive", "Resource": f"arn:aws:iot:{REGION}:{ACCOUNT}:topic/open/*"},
    ]
    _, narrow = register(desk, *statements)
    _, strict = register(desk, statements[0] | {"Resource": f"arn:aws:iot:{REGION}:{ACCOUNT}:client/*"})
    _, writer_der = register(desk)
    _, away_der = register(desk, region="us-east-1")
    filters = (b"#", b"+/a", b"$aws/#", b"$aws/things/+/shadow/#", b"$SYS/#", b"$share/g/secret/#", b"secret/a")

    async def scenario() -> None:
        writer, away = await world.connect(writer_der, "writer"), await world.connect(away_der, "away")
        writer.send(one(1, b"secret/a", b"retained", retain=True), one(2, b"open/a", b"retained", retain=True))
        await writer.until(lambda: writer.acknowledged == [1, 2])
        sleeper = await world.connect(narrow, "sleeper", clean=False)
        await sleeper.subscribe(*filters)
        await sleeper.leave()
        spy = await world.connect(narrow, "spy")
        assert await spy.subscribe(*filters) == (1,) * len(filters)
        await away.subscribe(b"$share/g/secret/#", b"#")
        none = await world.connect(strict, "none")
        assert await none.subscribe(b"#", b"$share/g/#", b"$share/g/open/a") == (0x80,) * 3
        rightful = await world.connect(writer_der, "rightful")
        await rightful.subscribe(b"$share/g/secret/#")
        for number in range(3, 9):
            writer.send(one(number, b"secret/a", b"s"), one(100 + number, UPDATE, shadow_update(number)))
        writer.send(one(50, b"open/a", b"end"))
        await spy.until(lambda: (b"open/a", b"end") in spy.messages)
        await rightful.until(lambda: len(rightful.messages) == 6)
        await writer.until(lambda: 108 in writer.acknowledged)
        back = await world.connect(narrow, "sleeper", clean=False)
        await back.until(lambda: (b"open/a", b"end") in back.messages)
        for client in (spy, back, sleeper, away, none):
            assert {topic for topic, _ in client.messages} <= {b"open/a"}
        assert away.messages == [] and none.messages == []

    world.run(scenario())


def test_a_message_of_a_kept_session_obeys_a_policy_that_changed_meanwhile(desk: Desk, world: Clients) -> None:
    certificate_id, der = register(desk)
    _, writer_der = register(desk)

    async def before() -> None:
        client = await world.connect(der, "sleeper", clean=False)
        await client.subscribe(b"#")
        await client.leave()

    world.run(before())
    deny = {"Effect": "Deny", "Action": "iot:Receive", "Resource": f"arn:aws:iot:{REGION}:{ACCOUNT}:topic/secret"}
    text = json.dumps({"Version": "2012-10-17", "Statement": [EVERYTHING, deny]})
    desk.call("CreatePolicyVersion", policyName=certificate_id, policyDocument=text, setAsDefault=True)

    async def after() -> None:
        known = world.devices.identities
        async with asyncio.timeout(10):
            while len(known.get(certificate_id).own[0].statements) < 2:
                await asyncio.sleep(0.002)
        writer = await world.connect(writer_der, "writer")
        writer.send(one(1, b"secret", b"x"), one(2, b"open", b"y"))
        await writer.until(lambda: writer.acknowledged == [1, 2])
        back = await world.connect(der, "sleeper", clean=False)
        await back.until(lambda: back.messages)
        assert back.messages == [(b"open", b"y")]

    world.run(after())


# --- over a restart ------------------------------------------------------------------------------------


def test_sessions_outlive_an_orderly_stop_with_the_permissions_of_their_certificates(
    desk: Desk, tmp_path: Path
) -> None:
    _, der = register(desk)
    doomed_id, doomed = register(desk)
    first = Clients(desk, tmp_path)

    async def before() -> None:
        for certificate, name in ((der, "lamp"), (doomed, "doomed")):
            client = await first.connect(certificate, name, clean=False)
            await client.subscribe(b"news/#")
            await client.leave()
        staying = await first.connect(der, "staying", clean=False)
        await staying.subscribe(b"news/#")
        writer = await first.connect(der, "writer")
        writer.send(one(1, b"news/a", b"before"))
        await writer.until(lambda: writer.acknowledged)

    first.run(before())
    first.close()
    desk.call("UpdateCertificate", certificateId=doomed_id, newStatus="REVOKED")
    second = Clients(desk, tmp_path)
    assert sorted(second.devices.broker.sessions_away()) == [f"{HOME}/lamp", f"{HOME}/staying"]

    async def after() -> None:
        writer = await second.connect(der, "writer")
        writer.send(one(1, b"news/a", b"after"))
        await writer.until(lambda: writer.acknowledged)
        for name, topics in (("lamp", [b"before", b"after"]), ("staying", [b"after"])):
            client = await second.connect(der, name, clean=False)
            await client.until(lambda client=client: (b"news/a", b"after") in client.messages)
            assert isinstance(client.packets[0], Connack) and client.packets[0].session_present
            assert [payload for _, payload in client.messages][-len(topics) :] == topics

    second.run(after())
    second.close()
    desk.call("UpdateCertificate", certificateId=doomed_id, newStatus="ACTIVE")
