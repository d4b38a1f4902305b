"""Retained messages of MQTT 5.0: retain handling, properties, expiry; and the broker's own `$SYS`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ggfast import __version__
from ggfast._ext.framing import Ack, Packet, Publish, Suback, Subscribe, Unsubscribe, Will
from ggfast._ext.routes import Router
from ggfast.counters import Counters
from ggfast.limits import BROKER_SWEEP_RETAINED, BROKER_SWEEP_SECONDS
from ggfast.mqtt import state
from ggfast.mqtt.limits import BrokerLimits
from ggfast.mqtt.retained import Retained
from tests.model.broker import MemoryBroker, MemoryClient

NO_LOCAL, AS_PUBLISHED, IF_NEW, NOT_AT_ALL = 4, 8, 0x10, 0x20


@pytest.fixture
def world() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def writer(world: MemoryBroker) -> MemoryClient:
    """Somebody who writes."""
    return world.connect("w", level=5)


def retained(topic: bytes, payload: bytes = b"x", qos: int = 0, **properties: Any) -> Publish:
    """A message to keep."""
    return Publish(topic, payload, qos, True, False, 1 if qos else 0, properties)


def payloads(packets: list[Packet]) -> list[bytes]:
    return [packet.payload for packet in packets if isinstance(packet, Publish)]


def subscribe(client: MemoryClient, pattern: bytes, options: int, identifier: int = 0) -> list[Packet]:
    """What a SUBSCRIBE brings beside its SUBACK."""
    properties = {"subscription_identifier": identifier} if identifier else {}
    first, *rest = client.ask(Subscribe(1, ((pattern, options),), properties))
    assert first == Suback(1, (options & 3,))
    return rest


# --- handing out ---------------------------------------------------------------------------------------


def test_retain_handling(world: MemoryBroker, writer: MemoryClient) -> None:
    writer.send(retained(b"t"))
    client = world.connect("c", level=5)
    for options, known, again in ((0, 1, 1), (IF_NEW, 1, 0), (NOT_AT_ALL, 0, 0)):
        assert len(subscribe(client, b"t", options)) == known
        assert len(subscribe(client, b"t", options)) == again
        client.ask(Unsubscribe(2, (b"t",)))


def test_retain_handling_of_a_session_that_goes_on(world: MemoryBroker, writer: MemoryClient) -> None:
    writer.send(retained(b"t"))
    kept = {"session_expiry_interval": 60}
    world.connect("c", (b"t", IF_NEW), level=5, properties=kept).hang_up()
    client = world.connect("c", level=5, clean=False, properties=kept)
    assert client.waiting == []
    assert subscribe(client, b"t", IF_NEW) == []
    assert len(subscribe(client, b"t", 0)) == 1


def test_a_shared_subscription_gets_nothing_retained(world: MemoryBroker, writer: MemoryClient) -> None:
    writer.send(retained(b"t"))
    assert subscribe(world.connect("c", level=5), b"$share/g/t", 0) == []
    assert subscribe(world.connect("d", level=4), b"$share/g/t", 0) == []


def test_what_is_handed_out_is_marked_and_named(world: MemoryBroker, writer: MemoryClient) -> None:
    properties: dict[str, Any] = {"content_type": "x", "response_topic": "r", "user_property": (("a", "b"),)}
    writer.ask(retained(b"t", b"1", 2, **properties))
    client = world.connect("c", level=5)
    assert subscribe(client, b"#", 1, 268_435_455) == [
        Publish(b"t", b"1", 1, True, False, 1, {**properties, "subscription_identifier": (268_435_455,)})
    ]
    old = world.connect("old", (b"t", 2))
    assert old.waiting == [Publish(b"t", b"1", 2, True, packet_id=1)]


def test_what_is_too_large_for_the_client_stays_here(world: MemoryBroker, writer: MemoryClient) -> None:
    writer.send(retained(b"t/1", bytes(100)), retained(b"t/2", b"small"))
    client = world.connect("c", level=5, properties={"maximum_packet_size": 60})
    assert payloads(subscribe(client, b"t/#", 1)) == [b"small"]
    assert not client.closed


def test_an_unsubscribed_filter_gets_no_more(world: MemoryBroker, writer: MemoryClient) -> None:
    for number in range(600):
        writer.send(retained(b"t/%d" % number))
    client = world.connect("c", level=5)
    client.send(Subscribe(1, ((b"t/#", 0),)), Unsubscribe(2, (b"t/#",)))
    assert 200 < len(payloads(client.take())) <= 256
    world.loop.advance(1)
    assert client.take() == []


def test_a_filter_repeated_does_not_multiply_the_work(
    world: MemoryBroker, writer: MemoryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(600):
        writer.send(retained(b"t/%d" % number))
    looked = []
    original = world.broker.retained.matching
    monkeypatch.setattr(world.broker.retained, "matching", lambda pattern: looked.append(pattern) or original(pattern))
    client = world.connect("c", level=5)
    client.transport.stuck = True
    client.protocol.pause_writing()
    client.send(Subscribe(1, ((b"t/#", 0),) * 1_000), Subscribe(2, ((b"+/1", 0), (b"t/#", 0))))
    assert looked == []
    client.transport.drain()
    client.protocol.resume_writing()
    got = payloads(client.take())
    assert looked == [b"t/#", b"+/1"] and len(got) == 601
    assert world.loop.soon == type(world.loop.soon)()


def test_look_ups_are_shared_out_among_turns(world: MemoryBroker, writer: MemoryClient) -> None:
    for number in range(3_000):
        writer.send(retained(b"t/%d" % number))
    client = world.connect("c", level=5)
    client.send(Subscribe(1, tuple((b"+/none/%d" % number, 0) for number in range(50))))
    assert len(world.loop.soon) == 1
    turns = 0
    while world.loop.soon:
        callback, args = world.loop.soon.popleft()
        callback(*args)
        turns += 1
    assert turns == 8, "six look-ups of 3,000 messages fill a turn, the one of the SUBSCRIBE included"


def test_a_router_with_narrow_topics_has_fewer_figures() -> None:
    world = MemoryBroker(router=Router(True, topic_slashes_max=2))
    client = world.connect("c", level=5)
    assert figures(subscribe(client, b"$SYS/#", 0)).keys() == {"version", "uptime"}
    world.loop.advance(30)
    assert figures(client.take()).keys() == {"uptime"} and not client.closed


# --- expiry --------------------------------------------------------------------------------------------


def test_a_retained_message_counts_down_and_goes(world: MemoryBroker, writer: MemoryClient) -> None:
    writer.send(retained(b"t", message_expiry_interval=10), retained(b"u"))
    world.loop.advance(4)
    (packet,) = subscribe(world.connect("c", level=5), b"t", 0)
    assert isinstance(packet, Publish) and 5 <= packet.properties["message_expiry_interval"] <= 7
    assert subscribe(world.connect("old"), b"t", 0) == [Publish(b"t", b"x", 0, True)]
    world.loop.advance(7)
    assert subscribe(world.connect("d", level=5), b"#", 0) == [Publish(b"u", b"x", 0, True)]
    assert world.broker.retained.count == 1
    assert world.count("broker.retained.expired") == 1


def test_a_message_that_expires_at_once_takes_the_one_before_with_it(world: MemoryBroker, writer: MemoryClient) -> None:
    writer.send(retained(b"t"), retained(b"t", message_expiry_interval=0))
    world.loop.advance(2)
    assert world.broker.retained.count == 0


def test_a_newer_message_sets_the_expiry_anew() -> None:
    store = Retained(100_000, Counters())
    store.sweep(1)
    store.put("", b"a", b"1", 0, b"", 5)
    store.put("", b"a", b"2", 0, b"", 9)
    store.put("", b"b", b"1", 0, b"", 5)
    store.put("", b"b", b"2", 0)
    store.put("", b"c", b"1", 0, b"", 5)
    store.put("", b"c", b"", 0)
    assert store.sweep(5) == 0
    assert store.sweep(8) == 0 and store.count == 2
    assert store.sweep(9) == 1
    assert [message.topic for message in store.all()] == [b"b"]
    store.put("", b"b", b"", 0)
    assert (store.count, store.bytes) == (0, 0)


def test_an_expired_message_is_not_seen_before_it_is_swept() -> None:
    store = Retained(10_000_000, Counters())
    store.sweep(1)
    for number in range(BROKER_SWEEP_RETAINED + 5):
        store.put("", b"t/%d" % number, b"x", 0, b"", 2 + number % 2)
    assert store.sweep(3) == BROKER_SWEEP_RETAINED
    assert store.count == 5 and store.all() == []
    assert [store.get(message.source, message.topic) for message in store.matching(b"#")] == [None] * 5
    assert store.sweep(3) == 5
    assert (store.count, store.bytes) == (0, 0)


def test_a_long_sleep_is_caught_up_in_steps() -> None:
    store = Retained(1_000_000, Counters())
    store.sweep(1)
    late = 3 * BROKER_SWEEP_SECONDS
    store.put("", b"t", b"x", 0, b"", late)
    store.put("", b"u", b"x", 0, b"", late + 10)
    assert [store.sweep(late) for _ in range(3)] == [0, 0, 1]
    assert store.get("", b"t") is None
    assert store.get("", b"u") is not None


def test_properties_and_expiry_count_as_bytes() -> None:
    store = Retained(100_000, Counters())
    store.put("", b"t", b"x", 0)
    plain = store.bytes
    store.put("", b"t", b"x", 0, bytes(300), 9)
    assert store.bytes >= plain + 300 + 100
    store.put("", b"t", b"x", 0)
    assert store.bytes == plain


def test_retained_messages_age_across_a_restart(world: MemoryBroker, writer: MemoryClient, tmp_path: Path) -> None:
    for name, seconds in ((b"short", 20), (b"long", 100)):
        writer.send(retained(name, message_expiry_interval=seconds, content_type="x"))
    writer.send(retained(b"ever"))
    world.broker.close()
    state.save(world.broker, tmp_path)
    again = MemoryBroker()
    again.loop.wall_offset = world.loop.wall() + 50
    assert state.load(again.broker, tmp_path)
    packets = {
        packet.topic: packet.properties
        for packet in subscribe(again.connect("c", level=5), b"#", 0)
        if isinstance(packet, Publish)
    }
    assert packets == {b"long": {"content_type": "x", "message_expiry_interval": 50}, b"ever": {}}
    again.loop.advance(51)
    assert again.broker.retained.count == 1


# --- $SYS ----------------------------------------------------------------------------------------------

ROOT = b"$SYS/broker/"


def figures(packets: list[Packet]) -> dict[str, str]:
    """`$SYS` values by the rest of their topic."""
    found = {}
    for packet in packets:
        assert isinstance(packet, Publish) and packet.topic.startswith(ROOT)
        found[packet.topic.removeprefix(ROOT).decode()] = packet.payload.decode()
    return found


@pytest.mark.parametrize("level", [4, 5])
def test_the_broker_tells_about_itself(world: MemoryBroker, level: int) -> None:
    world.connect("away", (b"t", 1), clean=False).hang_up()
    world.connect("w").send(Publish(b"t", b"1", 1, packet_id=1), Publish(b"t", b"2"), retained(b"k"))
    client = world.connect("c", (b"t", 0), level=level)
    assert figures(subscribe(client, b"$SYS/#", 0)) == {
        "version": f"ggfast {__version__}",
        "uptime": "0 seconds",
        "clients/connected": "2",
        "clients/disconnected": "1",
        "clients/total": "3",
        "clients/maximum": "2",
        "messages/received": "3",
        "messages/sent": "0",
        "messages/dropped": "1",
        "subscriptions/count": "2",
        "retained messages/count": "1",
        "retained messages/bytes": bytes_of_one(),
    }


def bytes_of_one() -> str:
    """What `k` costs."""
    store = Retained(9_999, Counters())
    store.put("", b"k", b"x", 0)
    return str(store.bytes)


def test_rounds_tell_what_changed(world: MemoryBroker) -> None:
    client = world.connect("c", level=5)
    subscribe(client, b"$SYS/broker/clients/+", AS_PUBLISHED)
    world.loop.advance(25)
    assert client.take() == []
    other = world.connect("d")
    world.loop.advance(10)
    told = client.take()
    assert figures(told) == {"clients/connected": "2", "clients/total": "2", "clients/maximum": "2"}
    assert all(isinstance(packet, Publish) and packet.retain for packet in told)
    other.hang_up()
    world.loop.advance(10)
    assert figures(client.take()) == {"clients/connected": "1", "clients/total": "1"}


def test_nobody_listens_nothing_is_worked_out(world: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    client = world.connect("c", (b"#", 0), (b"+/broker/uptime", 0))
    rounds = []
    original = world.broker.system._figures
    monkeypatch.setattr(world.broker.system, "_figures", lambda: rounds.append(1) or original())
    world.loop.advance(60)
    assert rounds == [] and client.take() == []
    subscribe(client, b"$share/g/$SYS/broker/uptime", 0)
    assert rounds == [1]
    world.loop.advance(30)
    assert len(rounds) in (3, 4)
    client.ask(Unsubscribe(2, (b"$share/g/$SYS/broker/uptime",)))
    world.loop.advance(10)
    was = len(rounds)
    world.loop.advance(100)
    assert len(rounds) == was
    assert figures(subscribe(client, b"$SYS/broker/uptime", 0)) == {"uptime": f"{int(world.loop.now)} seconds"}


def test_a_listener_that_comes_back_still_listens(world: MemoryBroker) -> None:
    kept = {"session_expiry_interval": 60}
    world.connect("c", (b"$SYS/broker/uptime", 0), level=5, properties=kept).hang_up()
    world.loop.advance(15)
    client = world.connect("c", level=5, clean=False, properties=kept)
    world.loop.advance(10)
    assert len(client.take()) == 1
    client.hang_up()
    world.loop.advance(100)
    assert world.broker.system._watchers == set()


def test_sys_belongs_to_the_broker(world: MemoryBroker) -> None:
    reader = world.connect("r", (b"$SYS/#", 0))
    reader.take()
    new, old = world.connect("new", level=5), world.connect("old")
    topic = ROOT + b"version"
    assert new.ask(Publish(topic, b"fake", 1, True, packet_id=1)) == [Ack("PUBACK", 1, 0x87)]
    assert new.ask(Publish(topic, b"fake", 2, True, packet_id=1)) == [Ack("PUBREC", 1, 0x87)]
    assert old.ask(Publish(topic, b"fake", 1, True, packet_id=1)) == [Ack("PUBACK", 1)]
    for client in (new, old):
        assert client.ask(Publish(topic, b"fake")) == [] and not client.closed
    assert reader.take() == []
    assert figures(subscribe(reader, topic, 0)) == {"version": f"ggfast {__version__}"}
    assert world.count("router.dropped.not_permitted") == 5


def test_p1_there_is_no_sys_with_a_subscription_table() -> None:
    world = MemoryBroker(router=Router(False))
    client = world.connect("c", (b"$SYS/#", 0), will=Will(ROOT + b"x", b"", 0, False))
    world.loop.advance(30)
    assert client.take() == [] and world.broker.retained.count == 0


def test_sys_is_not_stored(world: MemoryBroker, tmp_path: Path) -> None:
    world.connect("c", (b"$SYS/#", 0), clean=False)
    assert world.broker.retained.count > 5
    world.broker.close()
    state.save(world.broker, tmp_path)
    again = MemoryBroker()
    state.load(again.broker, tmp_path)
    assert again.broker.retained.count == 0


def test_the_interval_is_a_setting() -> None:
    world = MemoryBroker(limits=BrokerLimits(sys_interval_s=1.0))
    client = world.connect("c", (b"$SYS/broker/uptime", 0))
    world.loop.advance(10)
    assert 9 <= len(client.take()) <= 10
