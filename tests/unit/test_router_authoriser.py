"""An authoriser of the open mode: who may publish, receive, retain, subscribe, and when it is asked."""

from __future__ import annotations

import pytest

from ggfast._ext.framing import Ack, Connect, Disconnect, Publish, Suback, Subscribe, Will
from ggfast._ext.routes import Router
from tests.model.broker import MemoryBroker, Permissions

SECRET = ("w", "secret")


@pytest.fixture
def permissions() -> Permissions:
    return Permissions()


@pytest.fixture
def world(permissions: Permissions) -> MemoryBroker:
    return MemoryBroker(router=Router(True, authoriser=permissions))


def test_it_is_asked_once_for_a_route_and_again_when_permissions_change(
    world: MemoryBroker, permissions: Permissions
) -> None:
    reader, writer = world.connect("r", (b"#", 0)), world.connect("w")
    before = permissions.asked
    writer.send(*[Publish(b"t", b"%d" % number) for number in range(50)])
    assert len(reader.take()) == 50
    assert permissions.asked == before + 2
    world.router.permissions_changed()
    writer.send(Publish(b"t", b"x"))
    assert permissions.asked == before + 4


def test_every_source_has_its_own_routes(world: MemoryBroker, permissions: Permissions) -> None:
    permissions.no_publish.add(SECRET)
    reader, writer, other = world.connect("r", (b"#", 0)), world.connect("w", level=5), world.connect("o")
    other.send(Publish(b"secret", b"1"))
    writer.send(Publish(b"secret", b"2"))
    other.send(Publish(b"secret", b"3"))
    assert reader.take() == [Publish(b"secret", b"1"), Publish(b"secret", b"3")]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_an_earlier_client_that_publishes_what_it_may_not_is_disconnected_each_time(
    world: MemoryBroker, permissions: Permissions, qos: int
) -> None:
    permissions.no_publish.add(SECRET)
    reader = world.connect("r", (b"#", 0))
    for _ in range(3):
        writer = world.connect("w")
        writer.send(Publish(b"fine", b"x"), Publish(b"secret", b"x", qos, packet_id=1 if qos else 0))
        assert writer.take() == []
        assert writer.closed
        assert reader.take() == [Publish(b"fine", b"x")]
    assert world.count("router.dropped.not_permitted") == 3


def test_a_5_0_client_is_told_by_the_acknowledgement_each_time(
    world: MemoryBroker, permissions: Permissions, caplog: pytest.LogCaptureFixture
) -> None:
    permissions.no_publish.add(SECRET)
    reader, writer = world.connect("r", (b"#", 0)), world.connect("w", level=5)
    for number in (1, 2, 3):
        assert writer.ask(Publish(b"secret", b"x", 1, packet_id=number)) == [Ack("PUBACK", number, 0x87)]
        assert writer.ask(Publish(b"secret", b"x", 2, packet_id=number)) == [Ack("PUBREC", number, 0x87)]
        assert writer.ask(Publish(b"secret", b"x")) == []
    assert not writer.closed and reader.take() == []
    assert world.count("router.dropped.not_permitted") == 9
    assert caplog.text.count("client published what it may not client=w") == 1


def test_who_may_not_receive_is_left_out(world: MemoryBroker, permissions: Permissions) -> None:
    permissions.no_receive |= {("r", "t"), ("s1", "t")}
    kept, left_out = world.connect("k", (b"t", 0)), world.connect("r", (b"#", 0))
    shared = [world.connect(name, (b"$share/g/t", 0), level=5) for name in ("s1", "s2")]
    writer = world.connect("w")
    writer.send(Publish(b"t", b"1"), Publish(b"t", b"2"), Publish(b"u", b"3"))
    assert kept.take() == [Publish(b"t", b"1"), Publish(b"t", b"2")]
    assert left_out.take() == [Publish(b"u", b"3")]
    assert [len(client.take()) for client in shared] == [0, 2]


def test_realms_do_not_hear_each_other(world: MemoryBroker) -> None:
    here, there = world.connect("a:r", (b"#", 0)), world.connect("b:r", (b"#", 0))
    world.connect("a:w").send(Publish(b"t", b"1", 0, retain=True))
    world.connect("b:w").send(Publish(b"t", b"2", 0, retain=True))
    world.router.publish("a", b"u", b"3")
    assert [packet.payload for packet in here.take()] == [b"1", b"3"]  # type: ignore[union-attr]
    assert [packet.payload for packet in there.take()] == [b"2"]  # type: ignore[union-attr]
    late = world.connect("b:late")
    assert [packet.payload for packet in late.ask(Subscribe(1, ((b"#", 0),)))[1:]] == [b"2"]  # type: ignore[union-attr]


def test_a_filter_that_is_not_granted_is_answered_in_the_clients_own_way(
    world: MemoryBroker, permissions: Permissions
) -> None:
    permissions.no_subscribe |= {("r", "no"), ("r5", "no")}
    reader = world.connect("r")
    assert reader.ask(Subscribe(1, ((b"no", 0), (b"yes", 1)))) == [Suback(1, (0x80, 1))]
    newer = world.connect("r5", level=5)
    answer = newer.ask(Subscribe(1, ((b"no", 0), (b"$share/g/no", 0), (b"yes", 1))))[0]
    assert isinstance(answer, Suback) and answer.codes == (0x87, 0x87, 1)
    world.connect("w").send(Publish(b"no", b"x"), Publish(b"yes", b"y"))
    assert reader.take() == [Publish(b"yes", b"y")]
    assert world.count("broker.refused.subscriptions") == 3


def test_retained_messages_need_their_own_permission_and_obey_receive(
    world: MemoryBroker, permissions: Permissions
) -> None:
    permissions.no_retain.add(("w", "t"))
    permissions.no_receive.add(("r", "u"))
    writer = world.connect("w", level=5)
    assert writer.ask(Publish(b"t", b"x", 1, retain=True, packet_id=1)) == [Ack("PUBACK", 1, 0x87)]
    assert writer.ask(Publish(b"t", b"x", 1, packet_id=2)) == [Ack("PUBACK", 2, 0x10)]
    writer.send(Publish(b"u", b"x", 0, retain=True), Publish(b"v", b"x", 0, retain=True))
    assert world.broker.retained.count == 2
    reader = world.connect("r")
    assert reader.ask(Subscribe(1, ((b"#", 0),)))[1:] == [Publish(b"v", b"x", 0, retain=True)]


def test_a_will_obeys_also_after_its_session_has_ended(world: MemoryBroker, permissions: Permissions) -> None:
    permissions.no_publish.add(SECRET)
    permissions.no_retain.add(("w", "kept"))
    reader = world.connect("r", (b"#", 0))
    for topic, retain, arrives in ((b"secret", False, False), (b"kept", True, False), (b"kept", False, True)):
        client = world.open()
        client.ask(Connect(4, True, 0, "w", will=Will(topic, b"gone", 0, retain)))
        client.hang_up()
        assert reader.take() == ([Publish(topic, b"gone")] if arrives else [])


def test_rules_for_everybody_reach_sinks_whoever_speaks(world: MemoryBroker, permissions: Permissions) -> None:
    got: list[tuple[str, bytes]] = []

    def take(source: str, topic: bytes, _payload: bytes, _qos: int, _retain: bool) -> bool:
        got.append((source, topic))
        return True

    world.router.add_sink("requests", take)
    world.router.set_table([("", "$aws/things/+/shadow/#", "requests")])
    permissions.no_publish.add(("w", "$aws/things/b/shadow/get"))
    reader, writer = world.connect("r", (b"$aws/things/a/shadow/get", 0)), world.connect("w", level=5)
    writer.send(Publish(b"$aws/things/a/shadow/get", b""), Publish(b"$aws/things/b/shadow/get", b""))
    writer.send(Publish(b"other", b""))
    assert got == [("w", b"$aws/things/a/shadow/get")]
    assert reader.take() == [Publish(b"$aws/things/a/shadow/get", b"")]


def test_an_authoriser_that_fails_permits_nothing(
    world: MemoryBroker, permissions: Permissions, caplog: pytest.LogCaptureFixture
) -> None:
    writer = world.connect("w", level=5)
    permissions.no_publish = None  # type: ignore[assignment]
    assert writer.ask(Publish(b"t", b"x", 1, packet_id=1)) == [Ack("PUBACK", 1, 0x87)]
    assert "the authoriser failed" in caplog.text


def test_it_belongs_to_the_open_mode(permissions: Permissions) -> None:
    with pytest.raises(ValueError, match="table mode"):
        Router(False, authoriser=permissions)


def test_permissions_count_from_the_next_message_and_a_told_end_is_a_disconnect(
    world: MemoryBroker, permissions: Permissions
) -> None:
    reader, writer = world.connect("r", (b"#", 0)), world.connect("w", level=5)
    writer.send(Publish(b"secret", b"1"))
    permissions.no_publish.add(SECRET)
    world.router.permissions_changed()
    writer.send(Publish(b"secret", b"2"))
    assert reader.take() == [Publish(b"secret", b"1")]
    assert world.broker.disconnect("w")
    assert isinstance(writer.take()[0], Disconnect)
