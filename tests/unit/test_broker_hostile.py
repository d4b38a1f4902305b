"""Clients that mean harm: what one of them may take of the broker's time and memory, and from the others."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest

from ggfast._ext.framing import (
    Ack,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Publish,
    Suback,
    Subscribe,
    Unsubscribe,
    Will,
    encode,
)
from ggfast._ext.publication import live_message_counts
from ggfast._ext.routes import Router
from ggfast.counters import Counters
from ggfast.limits import BROKER_CLIENT_ID_BYTES_MAX, BROKER_PACKET_FILTERS_MAX
from ggfast.mqtt.limits import BrokerLimits
from ggfast.mqtt.retained import Retained
from tests.model.broker import MemoryBroker, MemoryClient

READ_BYTES = 256 * 1024  # the most one read brings
LARGEST_ID = 268_435_455  # subscription identifier; five bytes as a property


@pytest.fixture
def world() -> MemoryBroker:
    return MemoryBroker()


def one_read(make: Callable[[int], Packet], level: int = 4) -> list[Packet]:
    """As many packets as one read holds."""
    packets, size = list[Packet](), 0
    while True:
        packet = make(len(packets))
        size += len(encode(packet, level))
        if size > READ_BYTES:
            return packets
        packets.append(packet)


def all_forms(names: bytes) -> list[bytes]:
    """Every filter that matches the topic with these one-letter levels and anything behind them."""
    return [b"/".join(levels) + b"/+" for levels in product(*((bytes([name]), b"+") for name in names))]


# --- time: a turn of the loop is shared ------------------------------------------------------------------


def handled_at_once(client: MemoryClient, packets: list[Packet], done: Callable[[], int]) -> int:
    """Send all in one read; how many were handled before the others had their turn. In the end all are."""
    client.send(*packets)
    at_once = done()
    assert not client.transport.reading
    client.take()
    assert done() == len(packets)
    assert client.transport.reading and not client.closed
    return at_once


def test_P7_topics_never_heard_of_before_wait_their_turn(world: MemoryBroker) -> None:
    client = world.connect("a")
    packets = one_read(lambda number: Publish(b"%d" % number, b""))
    assert handled_at_once(client, packets, lambda: client.protocol.session.messages_in) < len(packets) // 4


def test_P7_a_topic_that_matches_many_filters_counts_as_many(world: MemoryBroker) -> None:
    client = world.connect("a", level=5)
    client.ask(Subscribe(1, tuple((pattern, 0) for pattern in all_forms(b"abcdefghij"))))
    client.send(*(Publish(b"a/b/c/d/e/f/g/h/i/j/%d" % number, b"") for number in range(200)))
    assert client.protocol.session.messages_in < 50
    client.take()
    assert client.protocol.session.messages_in == 200


def test_P7_filters_that_are_only_looked_at_count_too() -> None:
    world = MemoryBroker(router=Router(False))
    world.router.set_table([("a", "#", "b"), ("b", "#", "b")])
    reader = world.connect("b")
    reader.ask(Subscribe(1, tuple((b"never/%d" % number, 0) for number in range(1000))))
    client = world.connect("a")
    client.send(*(Publish(b"%d" % number, b"") for number in range(2000)))
    assert client.protocol.session.messages_in < 400
    client.take()
    assert client.protocol.session.messages_in == 2000


def test_P7_packets_for_the_slow_lane_wait_their_turn(world: MemoryBroker) -> None:
    client = world.connect("a")
    packets = one_read(lambda number: Unsubscribe(1 + number, (b"%d" % number,)))
    client.send(*packets)
    assert len(client.transport.written) < 4 * len(packets) // 4  # an UNSUBACK has four bytes
    assert not client.transport.reading
    assert client.take() == [Ack("UNSUBACK", packet.packet_id) for packet in packets]  # type: ignore[union-attr]


def test_P7_retained_messages_wait_their_turn(world: MemoryBroker) -> None:
    client = world.connect("a")
    packets = one_read(lambda _: Publish(b"a", b"x", 0, True))
    assert handled_at_once(client, packets, lambda: client.protocol.session.messages_in) < len(packets) // 4


def test_P7_messages_for_a_sink_wait_their_turn() -> None:
    world = MemoryBroker(router=Router(False))
    offered = list[bytes]()
    world.router.add_sink("cloud", lambda *message: offered.append(message[1]) is None)
    world.router.set_table([("a", "#", "cloud")])
    client = world.connect("a")
    packets = one_read(lambda _: Publish(b"a", b""))
    assert handled_at_once(client, packets, lambda: len(offered)) < len(packets) // 4


@pytest.mark.parametrize(
    "make",
    [
        lambda filters: Subscribe(1, tuple((each, 0) for each in filters)),
        lambda filters: Unsubscribe(1, tuple(filters)),
    ],
)
def test_P7_a_packet_with_too_many_filters_is_refused_as_a_whole(
    world: MemoryBroker, make: Callable[[list[bytes]], Packet]
) -> None:
    client = world.connect("a", level=5)
    client.ask(make([b"t"] * BROKER_PACKET_FILTERS_MAX))
    assert not client.closed
    client.ask(make([b"u"] * BROKER_PACKET_FILTERS_MAX))
    gone = client.ask(make([b"u"] * (BROKER_PACKET_FILTERS_MAX + 1)))[0]
    assert isinstance(gone, Disconnect) and gone.code == 0x97
    assert f"{BROKER_PACKET_FILTERS_MAX + 1} topic filters, the limit is {BROKER_PACKET_FILTERS_MAX}" in str(
        gone.properties["reason_string"]
    )
    assert client.closed


def test_P7_asking_often_for_retained_messages_looks_them_up_once_a_turn(
    world: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20_000):
        world.broker.retained.put("", b"%d" % number, b"x", 0)
    real, looked_up = world.broker.retained.matching, list[bytes]()
    monkeypatch.setattr(
        world.broker.retained, "matching", lambda pattern: (looked_up.append(pattern), real(pattern))[1]
    )
    client = world.connect("a")
    client.send(*(Subscribe(1, ((b"+/%d" % number, 0),)) for number in range(100)))
    assert len(looked_up) == 1
    client.take()
    assert looked_up == [b"+/%d" % number for number in range(100)]


# --- memory: what is counted is what it costs ------------------------------------------------------------


def test_P8_subscription_identifiers_in_routes_count(world: MemoryBroker) -> None:
    client = world.connect("a", level=5)
    filters = tuple((pattern, 0) for pattern in all_forms(b"abcdefgh"))
    client.ask(Subscribe(1, filters, {"subscription_identifier": LARGEST_ID}))
    writer = world.connect("w")
    writer.send(*(Publish(b"a/b/c/d/e/f/g/h/%d" % number, b"") for number in range(20)))
    writer.take()
    routes, size = world.router.cache_size()
    assert routes == 20
    assert size > 20 * 5 * len(filters)


def test_P8_connects_that_are_never_finished_are_bounded_together() -> None:
    world = MemoryBroker(limits=BrokerLimits(strangers_bytes_max=100_000))
    will = Will(b"t", bytes(30_000), 0, False)
    begun = encode(Connect(5, True, 0, "a", will), 5)[:-1]
    clients = [world.open() for _ in range(50)]
    for client in clients:
        client.send(begun)
    assert sum(not client.closed for client in clients) == 3
    refused = clients[-1].take()
    small = [world.open() for _ in range(50)]
    for client in small:
        client.send(b"\x10\x7f" + bytes(100))
    assert not any(client.closed for client in small)
    assert world.connect("b", level=5)
    for client in clients + small:
        client.hang_up()
    again = [world.open() for _ in range(3)]
    for client in again:
        client.send(begun)
    assert not any(client.closed for client in again)
    assert not refused  # nobody knows yet in which dialect
    again[0].level = 5
    again[0].send(b"\0")
    assert again[0].take() and not again[0].closed
    again.append(world.open())
    again[-1].send(begun)
    assert not again[-1].closed  # who is in has made room


def test_P8_the_queues_of_all_are_bounded_together_and_each_keeps_a_share() -> None:
    limits = BrokerLimits(stored_bytes_max=200_000, queue_share_bytes=5_000, queue_bytes_max=150_000)
    world = MemoryBroker(limits=limits)
    for name in ("a", "b", "c"):
        world.connect(name, (name.encode(), 1), clean=False).hang_up()
    writer = world.connect("w")

    def write(topic: bytes, count: int) -> None:
        for _ in range(count):
            writer.send(Publish(topic, bytes(1_000), 1, packet_id=1))
            writer.take()

    kept, before = world.broker.sessions_away(), live_message_counts()[1]
    write(b"a", 300)
    write(b"b", 300)
    write(b"c", 300)
    assert 140_000 < kept["a"].stored_bytes <= 150_000
    assert kept["a"].stored_bytes + kept["b"].stored_bytes <= 210_000
    assert 3_000 < kept["c"].stored_bytes <= 5_000
    assert live_message_counts()[1] - before <= 205_000
    assert world.count("broker.dropped.queue_full") == 900 - sum(each.waiting for each in kept.values())
    world.broker.forget("a")
    write(b"c", 10)
    assert kept["c"].stored_bytes > 10_000
    for name in ("b", "c"):
        world.broker.forget(name)


@pytest.mark.parametrize("pattern", [b"%d/" + b"x" * 60_000, b"%d" + b"/x" * 120])
def test_P8_the_filters_of_a_client_are_bounded_in_bytes(pattern: bytes) -> None:
    world = MemoryBroker(limits=BrokerLimits(filter_bytes_max=200_000))
    client = world.connect("a", level=5, clean=False, properties={"session_expiry_interval": 100})
    asked = [pattern.replace(b"%d", b"%d" % number) for number in range(20)]
    codes = list[int]()
    for each in asked:
        suback = client.ask(Subscribe(1, ((each, 0),)))[0]
        assert isinstance(suback, Suback)
        codes += suback.codes
    granted = codes.count(0)
    assert 1 < granted < 6 and codes == [0] * granted + [0x97] * (20 - granted)
    assert world.count("broker.refused.subscriptions") == 20 - granted
    client.ask(Subscribe(1, ((asked[0], 1),)))  # again is not one more
    client.ask(Unsubscribe(1, (asked[0], asked[-1])))
    assert client.ask(Subscribe(1, ((asked[-1], 0),))) == [Suback(1, (0,))]
    client.hang_up()
    again = world.connect("a", level=5, clean=False, properties={"session_expiry_interval": 100})
    assert again.protocol.filter_bytes == client.protocol.filter_bytes > 0
    assert again.ask(Subscribe(1, ((asked[0], 0),))) == [Suback(1, (0x97,))]


def test_P8_a_long_client_id_is_refused(world: MemoryBroker) -> None:
    most = "\u00e9" * (BROKER_CLIENT_ID_BYTES_MAX // 2)
    world.connect(most, clean=False)
    world.connect(most, clean=False, level=5)
    assert world.open().ask(Connect(4, False, 0, most + "x")) == [Connack(False, 2)]
    refused = world.open().ask(Connect(5, False, 0, most + "x"))[0]
    assert isinstance(refused, Connack) and refused.code == 0x85
    found = f"{BROKER_CLIENT_ID_BYTES_MAX + 1} bytes, the limit is {BROKER_CLIENT_ID_BYTES_MAX}"
    assert found in str(refused.properties["reason_string"])


def test_P8_wills_are_bounded_together() -> None:
    world = MemoryBroker(limits=BrokerLimits(will_bytes_max=100_000))
    large, small = Will(b"t", bytes(30_000), 0, False), Will(b"t", bytes(1_000), 0, False)
    late = large._replace(properties={"will_delay_interval": 1000})
    expiry = {"session_expiry_interval": 1000}
    world.connect("here", will=large)
    for name in ("away", "away too"):
        world.connect(name, level=5, will=late, properties=expiry).hang_up()
    assert world.broker.will_bytes() == 3 * 30_001
    refused = world.open().ask(Connect(5, True, 0, "x", large))[0]
    assert isinstance(refused, Connack) and refused.code == 0x97
    assert world.open().ask(Connect(4, True, 0, "x", large)) == [Connack(False, 3)]
    world.connect("x", will=small)
    world.connect("away", level=5, clean=False, properties=expiry)  # back, and its will is forgotten
    world.connect("y", will=large)


def test_P7_one_source_does_not_fill_the_retained_messages_of_all() -> None:
    counters = Counters()
    store = Retained(100_000, counters)
    for number in range(1000):
        store.put("greedy", b"%d" % number, b"x", 0)
    greedy = store.bytes
    assert 20_000 < greedy <= 25_000
    assert counters.get("broker.dropped.retained_full") == 1000 - store.count
    assert store.put("modest", b"t", b"x" * 10_000, 0)
    assert not store.put("greedy", b"t", b"x", 0)
    assert store.put("greedy", b"0", b"", 0)
    assert store.put("greedy", b"t", b"x", 0)
    for number in range(1000):
        store.put("greedy", b"%d" % number, b"", 0)
    store.put("greedy", b"t", b"", 0)
    store.put("modest", b"t", b"", 0)
    assert store.bytes == store.count == 0


# --- promises to others ----------------------------------------------------------------------------------


def test_a_short_topic_gets_no_alias_that_would_make_its_packets_longer(world: MemoryBroker) -> None:
    most = 100
    reader = world.connect("r", (b"#", 0), level=5, properties={"topic_alias_maximum": 5, "maximum_packet_size": most})
    writer = world.connect("w")
    for topic in (b"a", b"ab", b"abc", b"abcd", b"abcde"):
        for size in (1, *range(80, most)):
            writer.send(Publish(topic, b"x" * size))
            assert len(reader.transport.written) <= most, (topic, size)
            reader.take()


def test_the_largest_packet_size_fits_the_lane_of_a_32_bit_machine(world: MemoryBroker) -> None:
    client = world.connect("a", level=5, properties={"maximum_packet_size": 0xFFFFFFFF})
    assert 268_435_460 <= client.protocol.packet_bytes_max < 2**31


def test_P2_a_message_that_could_not_be_handled_is_no_duplicate_when_it_comes_again(world: MemoryBroker) -> None:
    reader = world.connect("r", (b"#", 2))
    keep = world.router.retain

    def broken(*message: object) -> None:
        raise MemoryError("for this test")

    writer = world.connect("w", clean=False)
    world.router.retain = broken
    writer.ask(Publish(b"t", b"x", 2, True, False, 1))
    assert writer.closed and reader.take() == []
    world.router.retain = keep
    writer = world.connect("w", clean=False)
    assert writer.ask(Publish(b"t", b"x", 2, True, True, 1)) == [Ack("PUBREC", 1)]
    assert [packet.payload for packet in reader.take() if isinstance(packet, Publish)] == [b"x"]
