"""One client's protocol state: acknowledgements, window, backlog, bounds, back-pressure, time."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence

import pytest

from ggfast._ext.framing import Ack, Connack, Connect, Publish, Suback, Subscribe, Unsubscribe, encode
from ggfast._ext.publication import live_message_counts
from ggfast._ext.routes import Router
from ggfast._ext.session import Session
from ggfast.mqtt.limits import BrokerLimits
from tests.model.broker import BYE, PING, PONG, MemoryBroker, MemoryClient

LIMITS = BrokerLimits(
    inflight_max=4,
    queue_bytes_max=20_000,
    queue_entries_max=8,
    output_bytes_max=100_000,
    payload_bytes_max=10_000,
    packet_bytes_max=70_000,
)


@pytest.fixture
def world() -> Iterator[MemoryBroker]:
    """A broker with small bounds; every stored message must be gone when it is."""
    gc.collect()  # what earlier tests left in cycles
    before = live_message_counts()
    broker = MemoryBroker(limits=LIMITS)
    yield broker
    broker.broker.close()
    for session in list(broker.broker.sessions_away()):
        broker.broker.forget(session)
    gc.collect()
    assert live_message_counts() == before


def ids(packets: Sequence[object]) -> list[int]:
    return [packet.packet_id for packet in packets if isinstance(packet, Publish)]


# --- the three qualities of service --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("qos", "granted", "arrives"), [(0, 2, 0), (1, 2, 1), (2, 2, 2), (2, 1, 1), (2, 0, 0), (1, 0, 0)]
)
def test_messages_arrive_with_the_smaller_qos(world: MemoryBroker, qos: int, granted: int, arrives: int) -> None:
    reader, writer = world.connect("r", (b"t", granted)), world.connect("w")
    answer = writer.ask(Publish(b"t", b"x", qos, packet_id=7))
    assert answer == [[], [Ack("PUBACK", 7)], [Ack("PUBREC", 7)]][qos]
    assert reader.take() == [Publish(b"t", b"x", arrives, packet_id=1 if arrives else 0)]


def test_qos_2_is_delivered_once_however_often_it_is_sent(world: MemoryBroker) -> None:
    reader, writer = world.connect("r", (b"t", 0)), world.connect("w")
    first = Publish(b"t", b"x", 2, packet_id=7)
    again = Publish(b"t", b"x", 2, dup=True, packet_id=7)
    assert writer.ask(first, again, again) == [Ack("PUBREC", 7)] * 3
    assert len(reader.take()) == 1
    assert writer.ask(Ack("PUBREL", 7), Ack("PUBREL", 7)) == [Ack("PUBCOMP", 7)] * 2
    assert writer.ask(first) == [Ack("PUBREC", 7)]
    assert len(reader.take()) == 1


def test_outgoing_qos_2_takes_its_four_steps(world: MemoryBroker) -> None:
    reader, writer = world.connect("r", (b"t", 2)), world.connect("w")
    writer.send(Publish(b"t", b"x"), Publish(b"t", b"y", 1, packet_id=1), Publish(b"t", b"z", 2, packet_id=2))
    assert ids(reader.take()) == [0, 1, 2]
    assert reader.ask(Ack("PUBACK", 1), Ack("PUBREC", 2), Ack("PUBREC", 2)) == [Ack("PUBREL", 2)] * 2
    assert reader.ask(Ack("PUBCOMP", 2), PING) == [PONG]
    assert reader.protocol.session.inflight == 0


@pytest.mark.parametrize(("qos", "wrong"), [(1, "PUBREC"), (1, "PUBCOMP"), (2, "PUBACK"), (2, "PUBCOMP")])
def test_the_wrong_acknowledgement_ends_the_connection(world: MemoryBroker, qos: int, wrong: str) -> None:
    reader, writer = world.connect("r", (b"t", 2)), world.connect("w")
    writer.ask(Publish(b"t", b"x", qos, packet_id=1))
    reader.take()
    reader.send(Ack(wrong, 1))
    assert reader.closed
    assert writer.ask(PING) == [PONG]


def test_unknown_acknowledgements_are_harmless(world: MemoryBroker) -> None:
    client = world.connect("c")
    assert client.ask(Ack("PUBACK", 9), Ack("PUBCOMP", 9), PING) == [PONG]
    assert client.ask(Ack("PUBREC", 9)) == [Ack("PUBREL", 9)]


# --- window and backlog --------------------------------------------------------------------------------


def test_window_bounds_what_is_unacknowledged(world: MemoryBroker) -> None:
    reader, writer = world.connect("r", (b"t", 1)), world.connect("w")
    writer.send(*(Publish(b"t", b"%d" % n, 1, packet_id=n) for n in range(1, 8)))
    assert [packet.payload for packet in reader.take() if isinstance(packet, Publish)] == [b"1", b"2", b"3", b"4"]
    assert (reader.protocol.session.inflight, reader.protocol.session.waiting) == (4, 3)
    assert reader.ask(Ack("PUBACK", 3)) == []  # the oldest is still out: ids stay consecutive
    assert ids(reader.ask(Ack("PUBACK", 1))) == [5]
    assert ids(reader.ask(Ack("PUBACK", 2))) == [6, 7]
    assert reader.ask(*(Ack("PUBACK", n) for n in (7, 5, 6, 4))) == []
    assert (reader.protocol.session.inflight, reader.protocol.session.stored_bytes) == (0, 0)


def test_packet_ids_wrap_around(world: MemoryBroker) -> None:
    reader, writer = world.connect("r", (b"t", 1)), world.connect("w")
    expected = 1
    for _ in range(65_600 // 4):
        writer.send(*(Publish(b"t", b"", 1, packet_id=n) for n in range(1, 5)))
        got = ids(reader.take())
        for packet_id in got:
            assert packet_id == expected
            expected = expected % 65_535 + 1
        reader.send(*(Ack("PUBACK", packet_id) for packet_id in reversed(got)))
    assert expected < 100


def test_full_backlog_drops_the_newest_and_counts(world: MemoryBroker) -> None:
    reader, writer = world.connect("r", (b"t", 1), clean=False), world.connect("w")
    reader.hang_up()
    for n in range(1, 12):
        assert writer.ask(Publish(b"t", b"%d" % n, 1, packet_id=n)) == [Ack("PUBACK", n)]
    assert world.count("broker.dropped.queue_full") == 3
    assert writer.transport.reading, "nobody waits for a client that is away"
    again = world.open()
    answer = again.ask(Connect(4, False, 0, "r"))
    assert answer[0] == Connack(True, 0)
    assert [packet.payload for packet in answer if isinstance(packet, Publish)] == [b"1", b"2", b"3", b"4"]
    assert ids(again.ask(*(Ack("PUBACK", n) for n in range(1, 5)))) == [5, 6, 7, 8]


def test_backlog_is_bounded_in_bytes(world: MemoryBroker) -> None:
    reader, writer = world.connect("r", (b"t", 2), clean=False), world.connect("w")
    reader.hang_up()
    writer.send(*(Publish(b"t", bytes(6_000), 2, packet_id=n) for n in range(1, 6)))
    assert world.broker.sessions_away()["r"].stored_bytes <= LIMITS.queue_bytes_max
    assert world.count("broker.dropped.queue_full") == 2


def test_unacknowledged_messages_are_sent_again_in_order(world: MemoryBroker) -> None:
    reader, writer = world.connect("r", (b"t", 2), clean=False), world.connect("w")
    writer.send(*(Publish(b"t", b"%d" % n, 2 - n % 2, packet_id=n) for n in range(1, 5)))
    assert ids(reader.take()) == [1, 2, 3, 4]
    assert reader.ask(Ack("PUBREC", 2)) == [Ack("PUBREL", 2)]
    assert reader.ask(Ack("PUBACK", 3)) == []
    reader.hang_up()
    writer.send(Publish(b"t", b"5", 1, packet_id=9))
    again = world.open()
    assert again.ask(Connect(4, False, 0, "r")) == [
        Connack(True, 0),
        Publish(b"t", b"1", 1, dup=True, packet_id=1),
        Ack("PUBREL", 2),
        Publish(b"t", b"4", 2, dup=True, packet_id=4),
    ]
    assert ids(again.ask(Ack("PUBACK", 1), Ack("PUBCOMP", 2))) == [5]


def test_received_qos_2_ids_survive_a_reconnect(world: MemoryBroker) -> None:
    reader, writer = world.connect("r", (b"t", 0)), world.connect("w", clean=False)
    writer.send(Publish(b"t", b"x", 2, packet_id=7))
    writer.hang_up()
    again = world.connect("w", clean=False)
    assert again.ask(Publish(b"t", b"x", 2, dup=True, packet_id=7)) == [Ack("PUBREC", 7)]
    assert len(reader.take()) == 1


def test_what_is_exported_can_be_restored(world: MemoryBroker) -> None:
    reader, writer = world.connect("r", (b"t", 2), clean=False), world.connect("w")
    writer.send(*(Publish(b"t", b"%d" % n, 2, packet_id=n) for n in range(1, 7)))
    reader.take()
    reader.ask(Ack("PUBREC", 2), Publish(b"o", b"", 2, packet_id=77))
    state = reader.protocol.session.export()
    assert state["receipts"] == [77]
    copy = Session(world.router, world.broker.session_limits, None)
    copy.restore(state)
    assert copy.export() == state
    assert (copy.inflight, copy.waiting) == (4, 2)
    for broken in (
        {"first_id": 0},
        {"flights": [(9, False, b"", b"", b"", 0)]},
        {"queued": [(0, False, b"t", b"", b"", 0)]},
        {"receipts": [0]},
    ):
        with pytest.raises(ValueError, match=r"stored|window"):
            copy.restore({**state, **broken})


# --- input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        b"\x30\x01\x00",
        b"\x30\x02\x00\x05",
        b"\x36\x06\x00\x01t\x00\x01x",
        b"\x38\x03\x00\x01t",
        b"\x32\x05\x00\x01t\x00\x00",
        b"\x30\x02\x00\x00",
        b"\x30\x03\x00\x01+",
        b"\x30\x04\x00\x02\xc3(",
        b"\x00\x00",
        b"\xf0\x00",
        b"\x20\x02\x00\x00",
        b"\xd0\x00",
        b"\xc1\x00",
        b"\xc0\x01\x00",
        b"\x40\x03\x00\x01\x00",
        b"\x41\x02\x00\x01",
        b"\x60\x02\x00\x01",
        b"\x40\x02\x00\x00",
        b"\xe1\x00",
        b"\x80\x06\x00\x01\x00\x01t\x00",
        b"\xc0\xff\xff\xff\xff",
        b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00",
    ],
)
def test_violations_end_this_connection_only(world: MemoryBroker, broken: bytes) -> None:
    other = world.connect("other", (b"t", 1))
    client = world.connect("bad")
    client.send(Publish(b"t", b"before"), broken, Publish(b"t", b"after"))
    assert client.closed
    assert other.ask(PING) == [Publish(b"t", b"before"), PONG]
    assert world.count("broker.closed.protocol_error") == 1


def test_packets_and_payloads_are_bounded(world: MemoryBroker) -> None:
    client = world.connect("c", (b"t", 0))
    assert client.ask(Publish(b"t", bytes(10_000))) == [Publish(b"t", bytes(10_000))]
    client.send(Publish(b"t", bytes(10_001)))
    assert client.closed
    early = world.connect("d")
    early.send(b"\x30\xff\xff\x7f")  # a length beyond the limit is refused before its bytes come
    assert early.closed


def test_nothing_is_read_after_disconnect(world: MemoryBroker) -> None:
    reader, writer = world.connect("r", (b"t", 0)), world.connect("w")
    writer.send(BYE, Publish(b"t", b"late"))
    assert writer.closed
    assert reader.take() == []


def test_one_write_for_one_read(world: MemoryBroker) -> None:
    reader, writer = world.connect("r", (b"#", 1)), world.connect("w")
    before = reader.transport.writes, writer.transport.writes
    writer.send(*(Publish(b"t%d" % (n % 3), b"x", n % 2, packet_id=n) for n in range(1, 5)))
    assert (reader.transport.writes - before[0], writer.transport.writes - before[1]) == (1, 1)


def test_a_transport_that_raises_ends_its_own_session(world: MemoryBroker) -> None:
    reader, other, writer = world.connect("r", (b"t", 0)), world.connect("o", (b"t", 0)), world.connect("w")

    def broken(data: bytes) -> None:
        raise OSError("gone")

    reader.protocol.session.attach(broken)
    assert writer.ask(Publish(b"t", b"x"), PING) == [PONG]
    assert other.take() == [Publish(b"t", b"x")]
    assert reader.closed


# --- back-pressure -------------------------------------------------------------------------------------


def fill(world: MemoryBroker) -> tuple[MemoryClient, MemoryClient]:
    """A reader that takes nothing and a writer that has just been held back because of it."""
    reader, writer = world.connect("r", (b"t", 0)), world.connect("w")
    reader.transport.stuck = True
    message = encode(Publish(b"t", bytes(5_000)))
    for _ in range(3):
        writer.send(message * 10)
    return reader, writer


def test_stalling_on_and_off_does_not_pay(world: MemoryBroker) -> None:
    reader, writer = world.connect("r", (b"t", 0)), world.connect("w")
    held = 0
    for tick in range(60):
        if tick % 2:
            reader.transport.drain()
        else:
            reader.transport.stuck = True
            for _ in range(4):
                writer.send(encode(Publish(b"t", bytes(9_000))) * 10)
        world.loop.advance(0.5)
        held += not writer.transport.reading
    assert held <= 4, "a reader that stops again and again is not waited for any more"
    for _ in range(60):
        world.loop.advance(0.5)
    assert not reader.protocol.session.frozen


def test_a_slow_reader_holds_its_publisher_and_loses_nothing(world: MemoryBroker) -> None:
    reader, writer = world.connect("r", (b"t", 0)), world.connect("w")
    reader.transport.stuck = True
    sent = 0
    while writer.transport.reading:
        for _ in range(10):
            writer.send(Publish(b"t", b"%d" % sent + bytes(5_000)))
            sent += 1
        assert sent < 1_000, "the publisher was never held back"
    got = 0
    for _ in range(50):
        reader.transport.drain()
        got += len(reader.take())
    assert writer.transport.reading
    assert got == sent
    assert world.count("broker.dropped.slow_reader") == 0


def test_a_frozen_reader_is_given_up_and_counted(world: MemoryBroker) -> None:
    reader, writer = fill(world)
    assert not writer.transport.reading
    world.loop.advance(2.0)
    assert writer.transport.reading
    assert reader.protocol.session.frozen
    writer.send(*(Publish(b"t", bytes(5_000)) for _ in range(200)))
    assert world.count("broker.dropped.slow_reader") >= 200
    assert reader.protocol.session.output_bytes <= LIMITS.output_bytes_max + 64 * 1024
    reader.transport.drain()
    reader.take()
    assert not reader.protocol.session.frozen
    writer.send(Publish(b"t", b"again"))
    assert reader.take() == [Publish(b"t", b"again")]


def test_other_publishers_do_not_wait_for_a_reader_they_do_not_reach(world: MemoryBroker) -> None:
    fill(world)
    other, friend = world.connect("o"), world.connect("f", (b"u", 0))
    for _ in range(100):
        other.send(Publish(b"u", bytes(5_000)))
    assert len(friend.take()) == 100
    assert other.transport.reading


def test_a_reader_that_does_not_acknowledge_holds_its_publisher(world: MemoryBroker) -> None:
    reader, writer = world.connect("r", (b"t", 1)), world.connect("w")
    sent = 0
    while writer.transport.reading and sent < 100:
        sent += 1
        writer.send(Publish(b"t", b"%d" % sent, 1, packet_id=sent))
    assert sent < 12, "held back before anything had to be dropped"
    got = 0
    for _ in range(20):
        answer = [packet for packet in reader.take() if isinstance(packet, Publish)]
        got += len(answer)
        reader.send(*(Ack("PUBACK", packet.packet_id) for packet in answer))
    world.loop.run()
    assert (got, writer.transport.reading, world.count("broker.dropped.queue_full")) == (sent, True, 0)


def test_a_held_publisher_keeps_what_it_sent_and_goes_on_in_order(world: MemoryBroker) -> None:
    reader, writer = world.connect("r", (b"t", 0)), world.connect("w")
    reader.transport.stuck = True
    whole = b"".join(encode(Publish(b"t", b"%06d" % n + bytes(2_000))) for n in range(400))
    writer.send(whole)
    got: list[bytes] = []
    for _ in range(60):
        reader.transport.drain()
        reader.transport.stuck = True
        got += [packet.payload[:6] for packet in reader.take() if isinstance(packet, Publish)]
    assert got == [b"%06d" % n for n in range(400)]


def test_a_client_that_never_reads_its_answers_is_not_read(world: MemoryBroker) -> None:
    client = world.connect("c")
    client.transport.stuck = True
    pings = encode(PING) * 20_000
    for _ in range(20):
        client.send(pings)
        if not client.transport.reading:
            break
    assert not client.transport.reading
    assert client.protocol.session.output_bytes < 300_000
    client.transport.drain()
    world.loop.run()
    assert client.transport.reading


def test_a_held_client_may_vanish(world: MemoryBroker) -> None:
    reader, writer = fill(world)
    writer.hang_up()
    reader.transport.drain()
    reader.hang_up()
    assert world.broker.connection_count == 0


def test_a_vanished_reader_frees_its_publishers(world: MemoryBroker) -> None:
    reader, writer = fill(world)
    reader.hang_up()
    assert writer.transport.reading
    assert writer.ask(PING) == [PONG]


# --- time ----------------------------------------------------------------------------------------------


def test_keep_alive_ends_at_one_and_a_half(world: MemoryBroker) -> None:
    client = world.connect("c", keep_alive_s=10)
    for _ in range(5):
        world.loop.advance(9.0)
        assert client.ask(PING) == [PONG]
    world.loop.advance(14.5)
    assert not client.closed
    world.loop.advance(1.6)
    assert client.closed
    assert world.count("broker.closed.keep_alive") == 1


def test_no_keep_alive_means_none(world: MemoryBroker) -> None:
    client = world.connect("c", keep_alive_s=0)
    world.loop.advance(10_000.0)
    assert client.ask(PING) == [PONG]


def test_time_held_back_does_not_count(world: MemoryBroker) -> None:
    reader = world.connect("r", (b"t", 0))
    writer = world.connect("w", keep_alive_s=1)
    reader.transport.stuck = True
    writer.send(encode(Publish(b"t", bytes(5_000))) * 40)
    assert not writer.transport.reading
    world.loop.advance(1.0)
    assert not writer.closed


def test_connect_must_come_in_time(world: MemoryBroker) -> None:
    silent = world.open()
    silent.send(b"\x10")
    world.loop.advance(9.0)
    assert not silent.closed
    world.loop.advance(2.0)
    assert silent.closed
    assert world.count("broker.closed.no_connect") == 1


def test_unsubscribe_and_limits_on_filters() -> None:
    world = MemoryBroker(limits=BrokerLimits(subscriptions_max=2))
    client = world.connect("c", (b"a", 0), (b"b", 0))
    assert client.ask(Subscribe(2, ((b"c", 0), (b"a", 1)))) == [Suback(2, (128, 1))]
    assert client.ask(Unsubscribe(3, (b"a", b"zzz"))) == [Ack("UNSUBACK", 3)]
    assert client.ask(Subscribe(4, ((b"c", 2),))) == [Suback(4, (2,))]
    assert client.protocol.session.subscriptions == {b"b": 0, b"c": 2}


def test_topic_bounds_of_a_profile_end_the_connection() -> None:
    for topic in (b"x" * 257, b"a/b/c/d/e/f/g/h/i"):
        world = MemoryBroker(router=Router(True, topic_bytes_max=256, topic_slashes_max=7))
        client, other = world.connect("c"), world.connect("o")
        client.send(Publish(topic, b""))
        other.send(Subscribe(1, ((topic, 0),)))
        assert (client.closed, other.closed) == (True, True)
