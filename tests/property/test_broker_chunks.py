"""How the bytes are cut into reads changes nothing; bytes that are not the protocol hurt nobody else."""

from __future__ import annotations

import gc
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from ggfast._ext.framing import Ack, Bare, Connect, Packet, Publish, Subscribe, Unsubscribe, Will, encode
from ggfast._ext.publication import live_message_counts
from ggfast.mqtt.limits import BrokerLimits
from tests.model.broker import PING, PONG, MemoryBroker, MemoryClient

TOPIC = st.sampled_from([b"a", b"a/b", b"b", "ü".encode()])
FILTER = st.sampled_from([b"a", b"#", b"a/+", b"+"])
ID = st.integers(1, 4)
PACKET: st.SearchStrategy[Packet] = st.one_of(
    st.builds(
        lambda topic, payload, qos, retain, packet_id: Publish(topic, payload, qos, retain, False, packet_id),
        TOPIC,
        st.binary(max_size=40) | st.integers(100, 20_000).map(bytes),
        st.integers(0, 2),
        st.booleans(),
        ID,
    ),
    st.builds(Subscribe, ID, st.lists(st.tuples(FILTER, st.integers(0, 2)), min_size=1, max_size=2).map(tuple)),
    st.builds(Unsubscribe, ID, st.lists(FILTER, min_size=1, max_size=2).map(tuple)),
    st.builds(Ack, st.sampled_from(["PUBACK", "PUBREL", "PUBREC", "PUBCOMP"]), ID),
    st.just(PING),
    st.just(Bare("DISCONNECT")),
)
HELLO = Connect(4, True, 0, "subject", Will(b"a", b"gone", 1, False))


def play(stream: bytes, cuts: list[int]) -> tuple[list[Packet], list[Packet], bool]:
    """What the subject and a bystander are sent when `stream` arrives cut at `cuts`, and whether it was closed."""
    world = MemoryBroker(limits=BrokerLimits(payload_bytes_max=30_000, packet_bytes_max=40_000))
    bystander = world.connect("bystander", (b"#", 1))
    subject = world.open()
    edges = [0, *sorted({cut % (len(stream) + 1) for cut in cuts} - {0}), len(stream)]
    for begin, end in itertools.pairwise(edges):
        if end > begin:
            subject.send(stream[begin:end])
    world.loop.run()
    result = bytes(subject.transport.written), bystander.take(), subject.closed  # damage may have changed its level
    assert bystander.ask(PING)[-1] == PONG
    world.broker.close()
    return result


@settings(max_examples=150, deadline=None)
@given(st.lists(PACKET, max_size=12), st.lists(st.integers(0, 200_000), max_size=30))
def test_cutting_changes_nothing(packets: list[Packet], cuts: list[int]) -> None:
    stream = encode(HELLO) + b"".join(encode(packet) for packet in packets)
    assert play(stream, cuts) == play(stream, [])


@settings(max_examples=40, deadline=None)
@given(st.lists(PACKET, max_size=6))
def test_byte_by_byte_changes_nothing(packets: list[Packet]) -> None:
    stream = (encode(HELLO) + b"".join(encode(packet) for packet in packets))[:3_000]
    assert play(stream, list(range(len(stream)))) == play(stream, [])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(PACKET, max_size=6),
    st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 255)), max_size=5),
    st.lists(st.integers(0, 5_000), max_size=5),
)
def test_damage_is_contained_and_leaves_nothing(
    packets: list[Packet], damage: list[tuple[int, int]], cuts: list[int]
) -> None:
    gc.collect()
    before = live_message_counts()
    stream = bytearray(encode(HELLO) + b"".join(encode(packet) for packet in packets))
    for position, value in damage:
        stream[position % len(stream)] = value
    assert play(bytes(stream), cuts) == play(bytes(stream), [])
    gc.collect()
    assert live_message_counts() == before


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_noise_is_contained(noise: bytes, after_connect: bool) -> None:
    play((encode(HELLO) if after_connect else b"") + noise, [])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6_000)), max_size=60), st.lists(st.booleans(), max_size=30))
def test_congestion_neither_loses_nor_reorders(messages: list[tuple[int, int]], drains: list[bool]) -> None:
    """A reader that takes its bytes now and then gets every message of each QoS in order."""
    world = MemoryBroker(
        limits=BrokerLimits(inflight_max=3, queue_entries_max=40, queue_bytes_max=400_000, output_bytes_max=300_000)
    )
    reader, writer = world.connect("r", (b"t", 2)), world.connect("w")
    got: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
    wanted: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
    pending = list(drains)
    for number, (qos, size) in enumerate(messages):
        reader.transport.stuck = True
        payload = b"%d:" % number + bytes(size)
        wanted[qos].append(payload)
        writer.send(Publish(b"t", payload, qos, packet_id=number + 1))
        if pending and pending.pop():
            collect(reader, got)
    for _ in range(len(messages) + 5):
        collect(reader, got)
    assert world.count("broker.dropped.queue_full") == world.count("broker.dropped.slow_reader") == 0
    assert got == wanted
    assert writer.transport.reading
    world.broker.close()


def collect(reader: MemoryClient, got: dict[int, list[bytes]]) -> None:
    """Read everything there is, and acknowledge it."""
    reader.transport.drain()
    for packet in reader.take():
        if isinstance(packet, Publish):
            got[packet.qos].append(packet.payload)
            if packet.qos:
                reader.send(Ack("PUBACK" if packet.qos == 1 else "PUBREC", packet.packet_id))
        elif isinstance(packet, Ack) and packet.kind == "PUBREL":
            reader.send(Ack("PUBCOMP", packet.packet_id))
