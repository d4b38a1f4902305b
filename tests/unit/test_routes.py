"""The router: rules, targets, retained messages, what it does when a target is full or fails."""

from __future__ import annotations

import gc
import logging
import weakref

import pytest

from ggfast._ext.buffers import Ring
from ggfast._ext.framing import Ack, Connect, Packet, Publish, Subscribe, Will, encode
from ggfast._ext.routes import Router
from ggfast.errors import LimitReached, PeerError
from ggfast.mqtt.hooks import Accepted, Client, ConnectInfo, Refused
from tests.model.broker import BYE, PING, PONG, MemoryBroker


class Things:
    """Hooks of a group: the source is the thing's ARN."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def authenticate(self, info: ConnectInfo) -> Accepted | Refused:
        """Everyone but `stranger`."""
        return Refused(5) if info.client_id == "stranger" else Accepted(f"arn:{info.client_id}")

    def connected(self, client: Client) -> None:
        """Note it."""
        self.events.append(f"+{client.client_id}")

    def disconnected(self, client: Client, reason: str) -> None:
        """Note it."""
        self.events.append(f"-{client.client_id}")


class Sink:
    """A target in Python."""

    def __init__(self, takes: bool = True) -> None:
        self.got: list[tuple[str, bytes, bytes, int, bool]] = []
        self.takes = takes

    def __call__(self, source: str, topic: bytes, payload: bytes, qos: int, retain: bool) -> bool:
        self.got.append((source, topic, payload, qos, retain))
        return self.takes


@pytest.fixture
def router() -> Router:
    return Router(False)


@pytest.fixture
def world(router: Router) -> MemoryBroker:
    return MemoryBroker(router=router, hooks=Things())


# --- rules ---------------------------------------------------------------------------------------------


def test_p1_nothing_passes_without_a_rule(world: MemoryBroker) -> None:
    reader, writer = world.connect("r", (b"#", 1)), world.connect("w")
    assert writer.ask(Publish(b"t", b"x", 1, packet_id=1)) == [Ack("PUBACK", 1)]
    assert reader.take() == []
    assert world.count("router.dropped.not_permitted") == 1
    world.router.set_table([("arn:w", "t", "arn:r")])
    writer.send(Publish(b"t", b"y"), Publish(b"u", b"y"))
    assert reader.take() == [Publish(b"t", b"y")]
    reader.send(Publish(b"t", b"back"))
    assert writer.take() == []


def test_a_rule_is_not_enough_without_the_devices_own_subscription(world: MemoryBroker) -> None:
    world.router.set_table([("arn:w", "#", "arn:r")])
    reader, writer = world.connect("r"), world.connect("w")
    writer.send(Publish(b"t", b"x"))
    assert reader.take() == []


def test_several_rules_and_filters_deliver_once_with_the_best_qos(world: MemoryBroker) -> None:
    world.router.set_table([("arn:w", "a/+", "arn:r"), ("arn:w", "a/#", "arn:r"), ("arn:w", "#", "arn:r")])
    reader, writer = world.connect("r", (b"#", 0), (b"a/b", 1), (b"+/b", 0)), world.connect("w")
    writer.send(Publish(b"a/b", b"x", 2, packet_id=1))
    assert reader.take() == [Publish(b"a/b", b"x", 1, packet_id=1)]


def test_subjects_have_their_own_rule_of_the_hash(world: MemoryBroker) -> None:
    world.router.set_table([("arn:w", "sensor/#", "arn:r")])
    reader, writer = world.connect("r", (b"sensor/#", 0)), world.connect("w")
    writer.send(Publish(b"sensor", b"no"), Publish(b"sensor/", b"yes"), Publish(b"sensor/a/b", b"yes"))
    assert [packet.payload for packet in reader.take() if isinstance(packet, Publish)] == [b"yes", b"yes"]


def test_subjects_with_a_leading_wildcard_leave_shadow_topics_alone(router: Router) -> None:
    sink = Sink()
    router.add_sink("cloud", sink)
    router.set_table([("d", "#", "cloud")])
    assert router.publish("d", b"$aws/things/x/shadow/get", b"") == 0
    router.set_table([("d", "$aws/things/x/shadow/#", "cloud")])
    assert router.publish("d", b"$aws/things/x/shadow/get", b"") == 1


def test_the_cloud_never_hears_itself(router: Router) -> None:
    sink = Sink()
    router.add_sink("cloud", sink)
    router.set_table([("cloud", "t", "cloud"), ("f", "t", "cloud")])
    assert router.publish("cloud", b"t", b"x") == 0
    assert router.publish("f", b"t", b"x", 1) == 1
    assert sink.got == [("f", b"t", b"x", 1, False)]


def test_a_new_table_counts_from_the_next_message(world: MemoryBroker) -> None:
    world.router.set_table([("arn:w", "t", "arn:r")])
    reader, writer = world.connect("r", (b"#", 0)), world.connect("w")
    writer.send(Publish(b"t", b"1"))
    world.router.set_table([])
    writer.send(Publish(b"t", b"2"))
    world.router.set_table([("arn:w", "#", "arn:r")])
    writer.send(Publish(b"t", b"3"))
    assert [packet.payload for packet in reader.take() if isinstance(packet, Publish)] == [b"1", b"3"]


def test_a_table_with_a_bad_subject_changes_nothing(router: Router) -> None:
    sink = Sink()
    router.add_sink("s", sink)
    router.set_table([("d", "t", "s")])
    with pytest.raises(ValueError, match="a#"):
        router.set_table([("d", "x", "s"), ("d", "a#", "s")])
    assert router.publish("d", b"t", b"") == 1


# --- targets -------------------------------------------------------------------------------------------


def test_functions_are_notified_once_a_batch(world: MemoryBroker) -> None:
    ring, calls = Ring(100, 100_000), []
    world.router.add_function("f", ring, lambda: calls.append(len(ring)))
    world.router.set_table([("arn:w", "#", "f")])
    writer = world.connect("w")
    writer.send(*(Publish(b"t", b"%d" % n) for n in range(5)))
    assert calls == [5]
    writer.send(Publish(b"t", b"5"))
    assert calls == [5], "only when the ring stops being empty"
    assert [ring.pop() for _ in range(6)] == [(b"t", b"%d" % n, "arn:w") for n in range(6)]
    writer.send(Publish(b"t", b"6"))
    assert calls == [5, 1]


def test_a_full_function_queue_is_counted(router: Router) -> None:
    ring = Ring(1, 1_000, drop_oldest=False)
    router.add_function("f", ring, lambda: None)
    router.set_table([("d", "#", "f")])
    assert [router.publish("d", b"t", b"") for _ in range(3)] == [1, 0, 0]
    assert router.take_counts()["router.dropped.function_queue_full"] == 2
    assert router.take_counts() == {}


def test_a_failing_sink_is_counted_and_logged_once(world: MemoryBroker, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*message: object) -> bool:
        raise RuntimeError("boom")

    ok = Sink()
    world.router.add_sink("broken", broken)
    world.router.add_sink("ok", ok)
    world.router.set_table([("arn:w", "#", "broken"), ("arn:w", "#", "ok")])
    writer = world.connect("w")
    with caplog.at_level(logging.ERROR):
        assert writer.ask(*(Publish(b"t", b"", 1, packet_id=n) for n in (1, 2, 3)), PING)[-1] == PONG
    assert len(ok.got) == 3
    assert world.count("router.errors.target") == 3
    assert len([record for record in caplog.records if "target=broken" in record.getMessage()]) == 1


def test_a_failing_notify_does_not_stop_the_others(router: Router) -> None:
    ring, other, calls = Ring(9, 999), Ring(9, 999), []

    def broken() -> None:
        raise RuntimeError("boom")

    router.add_function("a", ring, broken)
    router.add_function("b", other, lambda: calls.append(1))
    router.set_table([("d", "#", "a"), ("d", "#", "b")])
    assert router.publish("d", b"t", b"") == 2
    assert calls == [1]


def test_a_sink_may_publish(world: MemoryBroker) -> None:
    def echo(source: str, topic: bytes, payload: bytes, qos: int, retain: bool) -> bool:
        return world.router.publish("shadow", topic + b"/accepted", payload, qos) == 1

    world.router.add_sink("shadow", echo)
    world.router.set_table([("arn:w", "get", "shadow"), ("shadow", "get/accepted", "arn:w"), ("arn:w", "t", "arn:w")])
    writer = world.connect("w", (b"#", 1))
    before = writer.transport.writes
    answer = writer.ask(Publish(b"t", b"1"), Publish(b"get", b"2", 1, packet_id=9), Publish(b"t", b"3"))
    assert [packet.payload for packet in answer if isinstance(packet, Publish)] == [b"1", b"2", b"3"]
    assert Ack("PUBACK", 9) in answer
    assert writer.transport.writes == before + 1


def test_a_sink_may_disconnect_the_publisher(world: MemoryBroker) -> None:
    world.router.add_sink("s", lambda *_: world.broker.disconnect("w"))
    world.router.set_table([("arn:w", "#", "s")])
    other = world.connect("o")
    for qos in (0, 1, 2):
        writer = world.connect("w", clean=False)
        frames = [Publish(b"t", bytes(100), qos, packet_id=n) for n in (1, 2)]
        half = 20
        data = b"".join(encode(frame) for frame in frames)
        writer.send(data[:half])
        writer.send(data[half:])
        assert writer.closed
    assert other.ask(PING) == [PONG]


def test_targets_can_go(router: Router) -> None:
    sink = Sink()
    router.add_sink("s", sink)
    router.set_table([("d", "#", "s")])
    router.publish("d", b"t", b"")
    router.remove_target("s")
    router.remove_target("s")
    assert router.publish("d", b"t", b"") == 0
    assert len(sink.got) == 1


# --- all or error --------------------------------------------------------------------------------------


def test_all_or_error_delivers_to_all_or_none(world: MemoryBroker) -> None:
    router = world.router
    ring, full, sink = Ring(9, 9_999), Ring(1, 9_999), Sink()
    router.add_function("f", ring, lambda: None)
    router.add_function("g", full, lambda: None)
    router.add_sink("cloud", sink, lambda size: size < 100)
    router.set_table([("d", "t", name) for name in ("f", "g", "cloud")])
    assert router.publish_all_or_error("d", b"t", b"x") == 3
    with pytest.raises(LimitReached, match="queue of g in messages"):
        router.publish_all_or_error("d", b"t", b"x")
    full.pop()
    with pytest.raises(LimitReached, match="message for cloud"):
        router.publish_all_or_error("d", b"t", bytes(100))
    assert (len(ring), len(full), len(sink.got)) == (1, 0, 1)
    assert full.dropped_oldest == 0


def test_all_or_error_sees_a_frozen_device(world: MemoryBroker) -> None:
    world.router.set_table([("d", "t", "arn:r")])
    reader = world.connect("r", (b"t", 0))
    reader.transport.stuck = True
    for _ in range(20):
        world.router.publish("d", b"t", bytes(10_000))
    world.loop.advance(3.0)
    with pytest.raises(LimitReached, match="arn:r"):
        world.router.publish_all_or_error("d", b"t", b"x")


# --- from Python ---------------------------------------------------------------------------------------


def test_publish_writes_at_once_and_says_how_many_took_it(world: MemoryBroker) -> None:
    world.router.set_table([("f", "t", "arn:a"), ("f", "t", "arn:b"), ("f", "t", "arn:away")])
    first, second = world.connect("a", (b"t", 0)), world.connect("b", (b"t", 1))
    assert world.router.publish("f", b"t", b"x", 1) == 2
    assert bytes(first.transport.written) and bytes(second.transport.written)


@pytest.mark.parametrize("topic", [b"", b"a/#", b"\xff", b"a/b/c/d/e/f/g/h/i"])
def test_bad_topics_from_python_are_refused(topic: bytes) -> None:
    with pytest.raises(PeerError):
        Router(False, topic_slashes_max=7).publish("f", topic, b"")


def test_bad_qos_is_refused(router: Router) -> None:
    with pytest.raises(ValueError, match="QoS is 3"):
        router.publish("f", b"t", b"", 3)


# --- retained messages and wills, through the table ----------------------------------------------------


def test_retained_messages_follow_the_table(world: MemoryBroker) -> None:
    world.router.set_table([("arn:w", "t", "arn:r"), ("arn:v", "u", "arn:r")])
    writer, other = world.connect("w"), world.connect("v")
    writer.send(Publish(b"t", b"mine", 0, True))
    other.send(Publish(b"t", b"not yours", 0, True), Publish(b"t", b"", 0, True))
    reader = world.open()
    reader.send(*_hello("r"))
    assert [packet for packet in reader.take() if isinstance(packet, Publish)] == [Publish(b"t", b"mine", 0, True)]
    world.router.set_table([])
    late = world.open()
    late.send(*_hello("r"))
    assert not [packet for packet in late.take() if isinstance(packet, Publish)]
    assert world.broker.retained.count == 1, "without any rule nothing is kept"


def test_wills_speak_as_their_device(world: MemoryBroker) -> None:
    world.router.set_table([("arn:w", "gone/w", "arn:r")])
    reader = world.connect("r", (b"#", 0))
    for client_id in ("w", "x"):
        world.connect(client_id, will=Will(b"gone/w", client_id.encode(), 0, False)).hang_up()
    world.connect("w", will=Will(b"gone/w", b"never", 0, False)).send(BYE)
    assert reader.take() == [Publish(b"gone/w", b"w")]


def test_the_cache_is_bounded_in_entries_and_bytes() -> None:
    router = Router(False, cache_entries_max=256, cache_bytes_max=20_000)
    sink = Sink()
    router.add_sink("s", sink)
    router.set_table([("d", "#", "s")])
    for number in range(5_000):
        assert router.publish("d", b"topic/%d" % number, b"") == 1
    routes, size = router.cache_size()
    assert 50 < routes <= 256 and size <= 20_000
    assert router.publish("d", b"x" * 6_000, b"") == 1, "too long to be cached, routed all the same"
    router.set_table([])
    assert router.publish("d", b"topic/1", b"") == 0
    assert router.cache_size()[0] == 1


def _hello(client_id: str) -> list[Packet]:
    return [Connect(4, True, 0, client_id), Subscribe(1, ((b"#", 1),))]


def test_a_router_that_is_given_up_is_collected_with_what_its_cache_knows() -> None:
    world = MemoryBroker()
    reader, writer = world.connect("r", (b"#", 1)), world.connect("w")
    writer.send(*(Publish(b"t/%d" % number, b"x") for number in range(100)))
    assert world.router.cache_size()[0] > 50 and len(reader.take()) == 100
    broker = weakref.ref(world.broker)
    del world, reader, writer
    gc.collect()
    assert broker() is None, "routes in the cache know sessions, which know the router: the collector must see them"


def test_a_filter_takes_only_its_own_routes_from_the_cache(world: MemoryBroker) -> None:
    world.router.set_table([("arn:w", "#", "arn:r"), ("arn:w", "#", "arn:other")])
    writer, reader = world.connect("w"), world.connect("r", (b"a/+", 0))
    topics = [b"a/%d" % number for number in range(6)]  # more may meet in one place of the cache
    writer.send(*(Publish(topic, b"") for topic in topics))
    assert world.router.cache_size()[0] == 6
    other = world.connect("other", (b"b/#", 0))
    assert world.router.cache_size()[0] == 6, "nobody who comes for something else costs us a route"
    other.ask(Subscribe(1, ((b"a/1", 0), (b"$share/g/a/2", 0))))
    assert world.router.cache_size()[0] == 4
    writer.send(*(Publish(topic, b"x") for topic in topics[:3]))
    assert [packet.topic for packet in other.take() if isinstance(packet, Publish)] == [b"a/1", b"a/2"]
    other.hang_up()
    assert world.router.cache_size()[0] == 4
    reader.take()
    writer.send(Publish(b"a/1", b"y"))
    assert [packet.payload for packet in reader.take() if isinstance(packet, Publish)] == [b"y"]


def test_many_changes_of_filters_empty_the_cache_once(world: MemoryBroker) -> None:
    world.router.set_table([("arn:w", "#", "arn:r")])
    writer, reader = world.connect("w"), world.connect("r", (b"#", 0))
    writer.send(*(Publish(b"a/%d" % number, b"") for number in range(200)))
    reader.ask(Subscribe(1, tuple((b"other/%d" % number, 0) for number in range(100))))
    reader.take()
    writer.send(*(Publish(b"a/%d" % number, b"x") for number in range(200)))
    assert len(reader.take()) == 200
