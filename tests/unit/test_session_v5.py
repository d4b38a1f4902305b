"""The lane's side of MQTT 5.0: acknowledgement codes, aliases, what a client takes, and what waits too long."""

from __future__ import annotations

from typing import Any

import pytest

from ggfast._ext.framing import Ack, Disconnect, Publish, Subscribe
from ggfast._ext.routes import Router
from ggfast.mqtt.limits import BrokerLimits
from tests.model.broker import PING, PONG, MemoryBroker, MemoryClient


@pytest.fixture
def world() -> MemoryBroker:
    """Small bounds, so that tests can meet them."""
    return MemoryBroker(limits=BrokerLimits(receive_max=2, aliases_max=3, alias_bytes_max=20))


def enter(world: MemoryBroker, name: str, *filters: tuple[bytes, int], **properties: Any) -> MemoryClient:
    """A connected client of level 5."""
    client = world.connect(name, *filters, level=5, properties=properties)
    client.take()
    return client


def closed_with(client: MemoryClient, *packets: Publish | Ack | Subscribe | bytes) -> int:
    """The reason code of the DISCONNECT that the packets bring on."""
    answer = client.ask(*packets)
    assert client.closed and isinstance(answer[-1], Disconnect), answer
    return answer[-1].code


# --- acknowledgement codes -----------------------------------------------------------------------------


def test_the_publisher_learns_that_nobody_was_reached(world: MemoryBroker) -> None:
    client = enter(world, "c", (b"t", 1))
    assert client.ask(Publish(b"u", b"", 1, packet_id=1)) == [Ack("PUBACK", 1, 0x10)]
    assert client.ask(Publish(b"u", b"", 2, packet_id=2)) == [Ack("PUBREC", 2, 0x10)]
    assert client.ask(Publish(b"t", b"", 1, packet_id=3))[-1] == Ack("PUBACK", 3)


def test_the_publisher_learns_that_the_table_forbids_it() -> None:
    world = MemoryBroker(router=Router(False))
    world.router.set_table([("c", "open/#", "other")])
    client = enter(world, "c")
    assert client.ask(Publish(b"t", b"", 1, packet_id=1)) == [Ack("PUBACK", 1, 0x87)]
    assert client.ask(Publish(b"t", b"", 2, packet_id=2)) == [Ack("PUBREC", 2, 0x87)]
    assert client.ask(Ack("PUBREL", 2)) == [Ack("PUBCOMP", 2, 0x92)], "a refused exchange is over"
    assert client.ask(Publish(b"open/x", b"", 1, packet_id=3)) == [Ack("PUBACK", 3, 0x10)]
    assert world.count("router.dropped.not_permitted") == 2


def test_unknown_packet_ids_are_named(world: MemoryBroker) -> None:
    client = enter(world, "c")
    assert client.ask(Ack("PUBREL", 9)) == [Ack("PUBCOMP", 9, 0x92)]
    assert client.ask(Ack("PUBREC", 9)) == [Ack("PUBREL", 9, 0x92)]
    assert client.ask(Ack("PUBREC", 9, 0x80), Ack("PUBACK", 9), Ack("PUBCOMP", 9), PING) == [PONG]


def test_a_refused_message_is_over(world: MemoryBroker) -> None:
    reader, writer = enter(world, "r", (b"t", 2)), enter(world, "w")
    writer.send(Publish(b"t", b"1", 2, packet_id=1), Publish(b"t", b"2", 1, packet_id=2))
    first, second = reader.take()
    assert isinstance(first, Publish) and isinstance(second, Publish)
    assert reader.ask(Ack("PUBREC", first.packet_id, 0x83), Ack("PUBACK", second.packet_id, 0x97), PING) == [PONG]
    assert reader.protocol.session.inflight == 0


def test_acknowledgements_may_carry_properties(world: MemoryBroker) -> None:
    reader, writer = enter(world, "r", (b"t", 1)), enter(world, "w")
    writer.send(Publish(b"t", b"1", 1, packet_id=1))
    (message,) = reader.take()
    assert isinstance(message, Publish)
    text = {"reason_string": "done", "user_property": (("a", "b"),)}
    assert reader.ask(Ack("PUBACK", message.packet_id, 0, text), PING) == [PONG]
    assert reader.protocol.session.inflight == 0


# --- what one side may have under way ------------------------------------------------------------------


def test_receive_maximum_of_the_server(world: MemoryBroker) -> None:
    client = enter(world, "c")
    three = [Publish(b"t", b"", 2, packet_id=number) for number in (1, 2, 3)]
    assert closed_with(client, *three) == 0x93
    other = enter(world, "d")
    for number in range(1, 6):
        other.ask(Publish(b"t", b"", 2, packet_id=number), Ack("PUBREL", number))
    assert not other.closed


def test_a_resent_publish_does_not_count_twice(world: MemoryBroker) -> None:
    client = enter(world, "c")
    client.send(Publish(b"t", b"", 2, packet_id=1), Publish(b"t", b"", 2, packet_id=2))
    client.send(Publish(b"t", b"", 2, dup=True, packet_id=1))
    assert not client.closed


def test_receive_maximum_of_the_client(world: MemoryBroker) -> None:
    reader, writer = enter(world, "r", (b"t", 2), receive_maximum=2), enter(world, "w")
    writer.send(*(Publish(b"t", b"%d" % number, 1, packet_id=number) for number in range(1, 6)))
    assert [packet.payload for packet in reader.take() if isinstance(packet, Publish)] == [b"1", b"2"]
    assert [packet.payload for packet in reader.ask(Ack("PUBACK", 1)) if isinstance(packet, Publish)] == [b"3"]
    writer.send(Publish(b"t", b"free", 0))
    assert [packet.payload for packet in reader.take() if isinstance(packet, Publish)] == [b"free"]


def test_receive_maximum_holds_for_what_is_sent_again(world: MemoryBroker) -> None:
    keep = {"session_expiry_interval": 100}
    reader, writer = enter(world, "r", (b"t", 1), receive_maximum=4, **keep), enter(world, "w")
    writer.send(*(Publish(b"t", b"%d" % number, 1, packet_id=number) for number in range(1, 7)))
    assert len(reader.take()) == 4
    reader.hang_up()
    again = world.connect("r", level=5, clean=False, properties={"receive_maximum": 2, **keep})
    got = [packet for packet in again.waiting if isinstance(packet, Publish)]
    assert [(packet.payload, packet.dup) for packet in got] == [(b"1", True), (b"2", True)]
    seen = []
    for _ in range(6):
        packets = again.ask(Ack("PUBACK", got.pop(0).packet_id))
        got += [packet for packet in packets if isinstance(packet, Publish)]
        seen += [(packet.payload, packet.dup) for packet in packets if isinstance(packet, Publish)]
    assert seen == [(b"3", True), (b"4", True), (b"5", False), (b"6", False)]
    assert again.protocol.session.inflight == 0


def test_packets_larger_than_the_client_takes_are_left_out(world: MemoryBroker) -> None:
    reader, writer = enter(world, "r", (b"t", 1), maximum_packet_size=30), enter(world, "w")
    other = enter(world, "o", (b"t", 1))
    sizes = (10, 20, 40, 10)
    writer.send(*(Publish(b"t", bytes(size), number % 2, packet_id=number) for number, size in enumerate(sizes, 1)))
    assert [len(packet.payload) for packet in reader.take() if isinstance(packet, Publish)] == [10, 20, 10]
    assert len(other.take()) == 4
    assert world.count("broker.dropped.packet_too_large") == 1
    exact = 30 - len(b"\x30\x1c\x00\x01t\x00")
    writer.send(Publish(b"t", bytes(exact)), Publish(b"t", bytes(exact + 1)))
    assert [len(packet.payload) for packet in reader.take() if isinstance(packet, Publish)] == [exact]


def test_what_waited_for_a_client_that_takes_less_now(world: MemoryBroker) -> None:
    keep = {"session_expiry_interval": 100}
    reader, writer = enter(world, "r", (b"t", 1), **keep), enter(world, "w")
    writer.send(Publish(b"t", bytes(50), 1, packet_id=1))
    reader.take()
    reader.hang_up()
    writer.send(Publish(b"t", bytes(60), 1, packet_id=1), Publish(b"t", b"small", 1, packet_id=2))
    again = world.connect("r", level=5, clean=False, properties={"maximum_packet_size": 40, **keep})
    got = [packet for packet in again.waiting if isinstance(packet, Publish)]
    assert [packet.payload for packet in got] == [b"small"]
    assert world.count("broker.dropped.packet_too_large") == 2
    again.send(Ack("PUBACK", got[0].packet_id))
    assert (again.protocol.session.inflight, again.protocol.session.stored_bytes) == (0, 0)


# --- aliases -------------------------------------------------------------------------------------------


def test_a_client_may_abbreviate(world: MemoryBroker) -> None:
    reader, writer = enter(world, "r", (b"#", 0)), enter(world, "w")
    one, two = {"topic_alias": 1}, {"topic_alias": 3}
    writer.send(
        Publish(b"a", b"1", properties=one),
        Publish(b"", b"2", properties=one),
        Publish(b"b", b"3", properties=two),
        Publish(b"", b"4", properties=one),
        Publish(b"c", b"5", properties=one),
        Publish(b"", b"6", properties=one),
    )
    got = [(packet.topic, packet.payload) for packet in reader.take() if isinstance(packet, Publish)]
    assert got == [(b"a", b"1"), (b"a", b"2"), (b"b", b"3"), (b"a", b"4"), (b"c", b"5"), (b"c", b"6")]


@pytest.mark.parametrize(
    ("topic", "alias", "code"),
    [(b"", 2, 0x82), (b"t", 4, 0x94), (b"", 4, 0x94), (bytes(b"x" * 21), 1, 0x97), (b"", 0, 0x82)],
)
def test_wrong_aliases_end_the_connection(world: MemoryBroker, topic: bytes, alias: int, code: int) -> None:
    client = enter(world, "c")
    client.send(Publish(b"t", b"", properties={"topic_alias": 1}))
    assert closed_with(client, Publish(topic, b"", properties={"topic_alias": alias} if alias else {})) == code


def test_an_alias_may_change_within_the_bound(world: MemoryBroker) -> None:
    client = enter(world, "c")
    for number in range(10):
        client.send(Publish(b"long/topic/%d" % number, b"", properties={"topic_alias": 1}))
    assert not client.closed


def test_an_alias_dies_with_its_connection(world: MemoryBroker) -> None:
    keep = {"session_expiry_interval": 100}
    client = enter(world, "c", **keep)
    client.send(Publish(b"t", b"", properties={"topic_alias": 1}))
    client.hang_up()
    again = world.connect("c", level=5, clean=False, properties=keep)
    assert closed_with(again, Publish(b"", b"", properties={"topic_alias": 1})) == 0x82


def test_the_server_abbreviates_where_the_client_allows_it(world: MemoryBroker) -> None:
    reader, writer = enter(world, "r", (b"#", 1), topic_alias_maximum=2), enter(world, "w")
    topics = [b"t/aa", b"t/bb", b"t/aa", b"t/cc", b"t/bb", b"t/cc"]
    writer.send(*(Publish(topic, b"", number % 2, packet_id=number) for number, topic in enumerate(topics, 1)))
    got = [(packet.topic, packet.properties) for packet in reader.take() if isinstance(packet, Publish)]
    one, two = {"topic_alias": 1}, {"topic_alias": 2}
    assert got == [(b"t/aa", one), (b"t/bb", two), (b"", one), (b"t/cc", {}), (b"", two), (b"t/cc", {})]


# --- waiting -------------------------------------------------------------------------------------------


def test_a_message_expires_while_it_waits(world: MemoryBroker) -> None:
    keep = {"session_expiry_interval": 100}
    enter(world, "r", (b"t", 1), **keep).hang_up()
    writer = enter(world, "w")
    for payload, seconds in ((b"short", 3), (b"long", 30), (b"never", None)):
        properties = {} if seconds is None else {"message_expiry_interval": seconds}
        writer.send(Publish(b"t", payload, 1, packet_id=1, properties=properties))
    world.loop.advance(10)
    again = world.connect("r", level=5, clean=False, properties=keep)
    got = {packet.payload: packet.properties for packet in again.waiting if isinstance(packet, Publish)}
    assert list(got) == [b"long", b"never"]
    assert 19 <= got[b"long"]["message_expiry_interval"] <= 21 and got[b"never"] == {}
    assert world.count("broker.dropped.expired") == 1


def test_a_second_is_never_cut_short(world: MemoryBroker) -> None:
    keep = {"session_expiry_interval": 100}
    reader, writer = enter(world, "r", (b"t", 1), receive_maximum=1, **keep), enter(world, "w")
    world.loop.advance(0.9)
    for number in (1, 2, 3):
        writer.send(Publish(b"t", b"%d" % number, 1, packet_id=1, properties={"message_expiry_interval": 1}))
    reader.take()
    world.loop.advance(0.9)
    assert [packet.payload for packet in reader.ask(Ack("PUBACK", 1)) if isinstance(packet, Publish)] == [b"2"]
    world.loop.advance(1.7)
    assert reader.ask(Ack("PUBACK", 2), PING) == [PONG]


def test_an_older_client_comes_back_to_what_a_newer_one_left(world: MemoryBroker) -> None:
    writer = enter(world, "w")
    enter(world, "r", (b"t", 9 | 4), session_expiry_interval=100).hang_up()
    writer.send(Publish(b"t", b"x", 1, packet_id=1, properties={"content_type": "a", "user_property": (("k", "v"),)}))
    old = world.connect("r", clean=False)
    assert [packet._replace(packet_id=0) for packet in old.waiting if isinstance(packet, Publish)] == [
        Publish(b"t", b"x", 1)
    ]


def test_the_largest_identifier_is_carried(world: MemoryBroker) -> None:
    reader, writer = enter(world, "r"), enter(world, "w")
    largest = 268_435_455
    writer.send(Publish(b"t", b"kept", retain=True))
    first = reader.ask(Subscribe(1, ((b"t", 0),), {"subscription_identifier": largest}))[-1]
    writer.send(Publish(b"t", b"live"))
    second = reader.take()[-1]
    for packet in (first, second):
        assert isinstance(packet, Publish) and packet.properties == {"subscription_identifier": (largest,)}


# --- shared subscriptions ------------------------------------------------------------------------------


def payloads(*clients: MemoryClient) -> list[list[bytes]]:
    """What each has received since the last time."""
    return [[packet.payload for packet in client.take() if isinstance(packet, Publish)] for client in clients]


@pytest.mark.parametrize("open_mode", [True, False])
def test_members_of_a_share_take_turns(open_mode: bool) -> None:
    world = MemoryBroker(router=Router(open_mode))
    world.router.set_table([("w", "#", name) for name in "abo"])
    a, b = enter(world, "a", (b"$share/g/t/#", 1)), enter(world, "b", (b"$share/g/t/#", 0))
    other = enter(world, "o", (b"$share/h/t/#", 0), (b"t/#", 0))
    writer = enter(world, "w")
    writer.send(*(Publish(b"t/x", b"%d" % number, number % 2, packet_id=number) for number in range(1, 7)))
    one, two, both = payloads(a, b, other)
    assert sorted(one + two) == [b"1", b"2", b"3", b"4", b"5", b"6"] and len(one) == len(two) == 3
    assert len(both) == 12, "a share and a filter of one's own are two subscriptions"
    a.hang_up()
    writer.send(Publish(b"t/x", b"7"), Publish(b"t/x", b"8"))
    assert payloads(b) == [[b"7", b"8"]]


def test_a_share_prefers_members_that_can_take_it(world: MemoryBroker) -> None:
    keep = {"session_expiry_interval": 100}
    full, away = enter(world, "f", (b"$share/g/t", 1), receive_maximum=1), enter(world, "y", (b"$share/g/t", 1), **keep)
    away.hang_up()
    writer = enter(world, "w")
    writer.send(Publish(b"t", b"1", 1, packet_id=1))
    assert payloads(full) == [[b"1"]]
    free = enter(world, "r", (b"$share/g/t", 1))
    writer.send(*(Publish(b"t", b"%d" % number, 1, packet_id=number) for number in (2, 3)))
    assert payloads(full, free) == [[], [b"2", b"3"]]
    full.hang_up()
    free.hang_up()
    writer.send(Publish(b"t", b"4", 1, packet_id=4))
    back = world.connect("y", level=5, clean=False, properties=keep)
    assert [packet.payload for packet in back.waiting if isinstance(packet, Publish)] == [b"4"]


def test_the_table_rules_over_shares() -> None:
    world = MemoryBroker(router=Router(False))
    world.router.set_table([("w", "#", "a")])
    a, b, writer = enter(world, "a", (b"$share/g/t", 0)), enter(world, "b", (b"$share/g/t", 0)), enter(world, "w")
    writer.send(*(Publish(b"t", b"%d" % number) for number in range(4)))
    assert payloads(a, b) == [[b"0", b"1", b"2", b"3"], []]


@pytest.mark.parametrize("pattern", [b"$share/g", b"$share//t", b"$share/g/", b"$share/a+/t", b"$share/#/t"])
def test_broken_shares_are_refused(world: MemoryBroker, pattern: bytes) -> None:
    assert closed_with(enter(world, "c"), Subscribe(1, ((pattern, 0),))) == 0x8F


def test_a_share_leaves_nothing_behind(world: MemoryBroker) -> None:
    client = enter(world, "c", (b"$share/g/t", 5 & 3))
    assert closed_with(client, Subscribe(1, ((b"$share/g/u", 4),))) == 0x82
    writer = enter(world, "w")
    assert writer.ask(Publish(b"t", b"", 1, packet_id=1)) == [Ack("PUBACK", 1, 0x10)]


def test_a_remaining_length_must_be_as_short_as_it_can(world: MemoryBroker) -> None:
    assert closed_with(enter(world, "c"), b"\xc0\x80\x00") == 0x81
    old = world.connect("d")
    assert old.ask(b"\xc0\x80\x00") == [PONG]
