"""What outlives an MQTT 5.0 connection: sessions until they expire, wills until their delay is over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ggfast._ext.buffers import crc32c
from ggfast._ext.framing import Ack, Connack, Connect, Disconnect, Packet, Publish, Subscribe, Will
from ggfast._ext.routes import Router
from ggfast.limits import BROKER_SWEEP_SESSIONS
from ggfast.mqtt import state
from ggfast.mqtt.hooks import Accepted, ConnectInfo, OpenHooks, Refused
from ggfast.mqtt.limits import BrokerLimits
from ggfast.mqtt.reasons import Reason
from ggfast.mqtt.sessions import STALE_FREE
from tests.model.broker import BYE, MemoryBroker, MemoryClient

NEVER = 0xFFFF_FFFF


def kept(seconds: int, **more: Any) -> dict[str, Any]:
    """CONNECT properties that keep the session."""
    return {"session_expiry_interval": seconds, **more}


def mortal(delay_s: int | None = None, **more: Any) -> Will:
    """A will on `w`."""
    properties = {**({} if delay_s is None else {"will_delay_interval": delay_s}), **more}
    return Will(b"w", b"gone", 0, False, properties)


def present(world: MemoryBroker, client_id: str = "c", level: int = 5, clean: bool = False, **properties: Any) -> bool:
    """Whether a client that connects now finds its session; it leaves again without a word."""
    client = world.connect(client_id, level=level, clean=clean, properties=properties)
    assert client.connack is not None
    client.hang_up()
    return bool(client.connack.session_present)


# --- expiry --------------------------------------------------------------------------------------------


def test_a_session_without_expiry_ends_with_its_connection() -> None:
    world = MemoryBroker()
    world.connect("c", (b"t", 1), level=5, clean=False).hang_up()
    assert world.broker.clients() == []
    assert world.router.publish("x", b"t", b"", 1) == 0
    assert not present(world)


def test_a_session_expires_counted_from_the_disconnect() -> None:
    world = MemoryBroker()
    client = world.connect("c", (b"t", 1), level=5, properties=kept(60))
    world.loop.advance(1_000)
    client.hang_up()
    world.loop.advance(59)
    assert world.router.publish("x", b"t", b"", 1) == 1
    assert present(world, **kept(60))
    world.loop.advance(61)
    assert world.broker.clients() == []
    assert world.router.publish("x", b"t", b"", 1) == 0
    assert world.count("broker.sessions.expired") == 1
    assert not present(world)


def test_a_session_that_never_expires_stays() -> None:
    world = MemoryBroker()
    world.connect("c", level=5, properties=kept(NEVER)).hang_up()
    world.loop.advance(100_000)
    assert present(world)


def test_a_311_session_has_no_expiry() -> None:
    world = MemoryBroker(limits=BrokerLimits(session_expiry_max_s=10))
    world.connect("c", clean=False).hang_up()
    world.loop.advance(10_000)
    assert present(world, level=4)


def test_a_clean_start_ends_the_old_session_and_may_keep_the_new_one() -> None:
    world = MemoryBroker()
    world.connect("c", (b"t", 1), level=5, properties=kept(60)).hang_up()
    client = world.connect("c", level=5, clean=True, properties=kept(60))
    assert client.connack is not None and not client.connack.session_present
    assert world.router.publish("x", b"t", b"", 1) == 0
    client.hang_up()
    assert present(world, **kept(60))


def test_what_waited_is_sent_after_the_connack() -> None:
    world = MemoryBroker()
    first = world.connect("c", (b"t", 2), level=5, properties=kept(60))
    world.router.publish("x", b"t", b"1", 1)
    assert len(first.take()) == 1
    first.hang_up()
    world.router.publish("x", b"t", b"2", 1)
    second = world.connect("c", level=5, clean=False, properties=kept(60))
    assert second.waiting == [
        Publish(b"t", b"1", 1, dup=True, packet_id=1),
        Publish(b"t", b"2", 1, packet_id=2),
    ]


@pytest.mark.parametrize(("said", "stays_s"), [(None, 60), (0, 0), (5, 5), (600, 100)])
def test_a_disconnect_may_change_the_expiry(said: int | None, stays_s: int) -> None:
    world = MemoryBroker(limits=BrokerLimits(session_expiry_max_s=100))
    client = world.connect("c", level=5, properties=kept(60))
    client.send(Disconnect(0, {} if said is None else kept(said)))
    assert client.closed and client.take() == []
    assert len(world.broker.clients()) == (stays_s > 0)
    world.loop.advance(stays_s - 1 if stays_s else 0)
    assert len(world.broker.clients()) == (stays_s > 0)
    world.loop.advance(2)
    assert world.broker.clients() == []


def test_a_disconnect_cannot_ask_for_an_expiry_the_connect_had_not() -> None:
    world = MemoryBroker()
    client = world.connect("c", level=5, will=mortal())
    reader = world.connect("r", (b"w", 0))
    client.send(Disconnect(0, kept(60)))
    (told,) = client.take()
    assert isinstance(told, Disconnect) and told.code == Reason.PROTOCOL_ERROR
    assert len(reader.take()) == 1, "it has not said a proper goodbye"
    assert len(world.broker.clients()) == 1


def test_where_nothing_is_kept_a_disconnect_may_still_ask() -> None:
    world = MemoryBroker(limits=BrokerLimits(session_expiry_max_s=0))
    client = world.connect("c", level=5, properties=kept(60))
    client.send(Disconnect(0, kept(60)))
    assert client.take() == [] and world.broker.clients() == []


def test_many_sessions_expire_in_steps() -> None:
    world = MemoryBroker()
    for number in range(BROKER_SWEEP_SESSIONS + 10):
        world.connect(f"c{number}", level=5, properties=kept(1)).hang_up()
    world.loop.advance(1.0)
    assert len(world.broker.clients()) == 10
    world.loop.advance(0.5)
    assert world.broker.clients() == []


def test_alarms_of_clients_that_came_back_do_not_pile_up() -> None:
    world = MemoryBroker()
    for _ in range(5 * STALE_FREE):
        present(world, **kept(10_000))
    assert len(world.broker.absent._alarms) <= STALE_FREE + 4


def test_past_the_bound_the_longest_absent_session_ends_with_its_will() -> None:
    world = MemoryBroker(limits=BrokerLimits(sessions_offline_max=2))
    reader = world.connect("r", (b"w", 0))
    for number in range(3):
        world.connect(f"c{number}", level=5, will=mortal(1_000), properties=kept(2_000)).hang_up()
    assert list(world.broker.sessions_away()) == ["c1", "c2"]
    assert reader.take() == [Publish(b"w", b"gone")]


# --- versions on one session ---------------------------------------------------------------------------


def test_a_5_client_goes_on_where_a_311_client_left() -> None:
    world = MemoryBroker()
    world.connect("c", (b"t", 1), clean=False).hang_up()
    world.router.publish("x", b"t", b"1", 1)
    client = world.connect("c", level=5, clean=False, properties=kept(60))
    assert client.connack is not None and client.connack.session_present
    assert client.waiting == [Publish(b"t", b"1", 1, packet_id=1)]
    client.hang_up()
    world.loop.advance(61)
    assert world.broker.clients() == [], "it has the expiry of its last connection"


def test_a_311_client_goes_on_where_a_5_client_left() -> None:
    world = MemoryBroker()
    world.connect("c", (b"t", 1 | 8), level=5, properties=kept(60)).hang_up()
    writer = world.connect("w", level=5)
    writer.send(Publish(b"t", b"1", 1, True, packet_id=1, properties={"content_type": "a/b"}))
    client = world.connect("c", clean=False)
    assert client.connack == Connack(True, 0)
    assert client.waiting == [Publish(b"t", b"1", 1, True, packet_id=1)]
    client.hang_up()
    world.loop.advance(1_000)
    assert list(world.broker.sessions_away()) == ["c"]


# --- wills ---------------------------------------------------------------------------------------------


@pytest.fixture
def world() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def reader(world: MemoryBroker) -> MemoryClient:
    """Somebody who wants to know."""
    return world.connect("r", (b"w", 2), level=5)


def wills(reader: MemoryClient) -> list[Packet]:
    """What has come, which is wills."""
    packets = reader.take()
    assert all(isinstance(packet, Publish) and packet.topic == b"w" for packet in packets)
    return packets


GONE = [Publish(b"w", b"gone")]


def test_a_will_without_delay_goes_out_at_once(world: MemoryBroker, reader: MemoryClient) -> None:
    world.connect("c", level=5, will=mortal(0), properties=kept(60)).hang_up()
    assert wills(reader) == GONE


def test_a_will_carries_its_properties(world: MemoryBroker, reader: MemoryClient) -> None:
    properties: dict[str, Any] = {
        "payload_format_indicator": 1,
        "content_type": "text/plain",
        "response_topic": "back",
        "correlation_data": b"7",
        "user_property": (("a", "1"), ("a", "2")),
    }
    will = Will(b"w", b"gone", 2, True, {**properties, "message_expiry_interval": 30})
    world.connect("c", level=5, will=will).hang_up()
    (found,) = wills(reader)
    assert found == Publish(b"w", b"gone", 2, False, False, 1, {**properties, "message_expiry_interval": 30})
    late = world.connect("late", (b"w", 0), level=5)
    (retained,) = late.waiting
    assert isinstance(retained, Publish) and retained.retain
    assert retained.properties == {**properties, "message_expiry_interval": 30}


def test_a_delayed_will_waits_while_the_session_lasts(world: MemoryBroker, reader: MemoryClient) -> None:
    world.connect("c", (b"t", 0), level=5, will=mortal(10), properties=kept(60)).hang_up()
    world.loop.advance(9)
    assert wills(reader) == []
    world.loop.advance(2)
    assert wills(reader) == GONE
    assert present(world, **kept(60)), "the session is still there"
    world.loop.advance(100)
    assert wills(reader) == []


@pytest.mark.parametrize("delay_s", [5, 6, 1_000, NEVER])
def test_a_will_goes_out_with_the_session_at_the_latest(
    world: MemoryBroker, reader: MemoryClient, delay_s: int
) -> None:
    world.connect("c", level=5, will=mortal(delay_s), properties=kept(5)).hang_up()
    world.loop.advance(4)
    assert wills(reader) == []
    world.loop.advance(2)
    assert wills(reader) == GONE
    world.loop.advance(5_000)
    assert wills(reader) == []


def test_a_will_of_a_session_that_ends_at_once_does_not_wait(world: MemoryBroker, reader: MemoryClient) -> None:
    world.connect("c", level=5, will=mortal(1_000)).hang_up()
    assert wills(reader) == GONE


@pytest.mark.parametrize("level", [4, 5])
def test_who_is_back_in_time_is_not_mourned(world: MemoryBroker, reader: MemoryClient, level: int) -> None:
    world.connect("c", level=5, will=mortal(10), properties=kept(60)).hang_up()
    world.loop.advance(9)
    world.connect("c", level=level, clean=False)
    world.loop.advance(100)
    assert wills(reader) == []


def test_who_is_back_too_late_was_mourned_once(world: MemoryBroker, reader: MemoryClient) -> None:
    world.connect("c", level=5, will=mortal(10), properties=kept(60)).hang_up()
    world.loop.advance(11)
    world.connect("c", level=5, clean=False)
    world.loop.advance(100)
    assert wills(reader) == GONE


def test_a_clean_start_ends_the_session_and_sends_its_will(world: MemoryBroker, reader: MemoryClient) -> None:
    world.connect("c", level=5, will=mortal(10), properties=kept(60)).hang_up()
    world.connect("c", level=5, clean=True)
    assert wills(reader) == GONE
    world.loop.advance(100)
    assert wills(reader) == []


@pytest.mark.parametrize(
    ("delay_s", "expiry_s", "clean", "sent"),
    [(0, 60, False, True), (10, 60, False, False), (10, 60, True, True), (10, 0, False, True)],
)
def test_a_will_at_take_over(
    world: MemoryBroker, reader: MemoryClient, delay_s: int, expiry_s: int, clean: bool, sent: bool
) -> None:
    older = world.connect("c", level=5, will=mortal(delay_s), properties=kept(expiry_s))
    world.connect("c", level=5, clean=clean, properties=kept(60))
    assert older.closed
    world.loop.advance(100)
    assert wills(reader) == (GONE if sent else [])


def test_a_will_goes_out_when_another_source_takes_the_client_id() -> None:
    class Changing(OpenHooks):
        source = "a"

        def authenticate(self, info: ConnectInfo) -> Accepted | Refused:
            return Accepted(self.source if info.client_id == "c" else info.client_id)

    hooks = Changing()
    world = MemoryBroker(hooks=hooks)
    reader = world.connect("r", (b"w", 0), level=5)
    world.connect("c", level=5, will=mortal(10), properties=kept(60)).hang_up()
    hooks.source = "b"
    assert not present(world)
    assert wills(reader) == GONE


@pytest.mark.parametrize(
    ("packet", "sent"),
    [(Disconnect(0x00), False), (Disconnect(0x04), True), (Disconnect(0x82), True), (Disconnect(0, kept(0)), False)],
)
def test_only_a_normal_goodbye_takes_the_will_back(
    world: MemoryBroker, reader: MemoryClient, packet: Disconnect, sent: bool
) -> None:
    world.connect("c", level=5, will=mortal(), properties=kept(60)).send(packet)
    world.loop.advance(100)
    assert wills(reader) == (GONE if sent else [])


def test_a_disconnect_with_will_still_waits_for_the_delay(world: MemoryBroker, reader: MemoryClient) -> None:
    world.connect("c", level=5, will=mortal(10), properties=kept(60)).send(Disconnect(0x04))
    world.loop.advance(9)
    assert wills(reader) == []
    world.loop.advance(2)
    assert wills(reader) == GONE


def test_a_disconnect_that_ends_the_session_does_not_wait(world: MemoryBroker, reader: MemoryClient) -> None:
    world.connect("c", level=5, will=mortal(10), properties=kept(60)).send(Disconnect(0x04, kept(0)))
    assert wills(reader) == GONE


@pytest.mark.parametrize("level", [4, 5])
def test_wills_at_the_server_s_own_doing(world: MemoryBroker, reader: MemoryClient, level: int) -> None:
    world.connect("c", level=level, will=Will(b"w", b"gone", 0, False))
    world.broker.disconnect("c")
    assert wills(reader) == GONE
    world.connect("c", level=level, will=Will(b"w", b"gone", 0, False), keep_alive_s=2)
    world.loop.advance(5)
    assert wills(reader) == GONE


def test_a_session_that_is_forgotten_leaves_its_will(world: MemoryBroker, reader: MemoryClient) -> None:
    world.connect("c", level=5, will=mortal(10), properties=kept(60)).hang_up()
    assert world.broker.forget("c")
    assert wills(reader) == GONE


def test_a_will_that_cannot_be_published_harms_nobody(
    world: MemoryBroker, reader: MemoryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = world.connect("c", level=5, will=mortal())
    assert client.protocol.will is not None
    object.__setattr__(client.protocol.will, "topic", b"a/#")
    client.hang_up()
    assert world.count("broker.dropped.will") == 1
    assert len(world.broker.clients()) == 1


def test_p1_a_will_needs_a_rule_when_it_goes_out() -> None:
    world = MemoryBroker(router=Router(False))
    reader = world.connect("r", (b"w", 0), level=5)
    world.router.set_table([("c", "w", "r")])
    for _ in range(2):
        world.connect("c", level=5, will=mortal(10), properties=kept(60)).hang_up()
        world.loop.advance(11)
        found = wills(reader)
        assert found == (GONE if world.router.allows("c", b"w", "r") else [])
        world.router.set_table([])


# --- across a restart ----------------------------------------------------------------------------------


def restart(world: MemoryBroker, folder: Path, away_s: float = 0.0) -> MemoryBroker:
    """Close, save, load into a new broker whose wall clock is `away_s` later and whose other clock is not."""
    world.broker.close()
    state.save(world.broker, folder)
    again = MemoryBroker()
    again.loop.wall_offset = world.loop.wall() + away_s
    assert state.load(again.broker, folder)
    return again


def test_sessions_expire_while_the_broker_is_stopped(world: MemoryBroker, tmp_path: Path) -> None:
    for name, seconds in (("short", 60), ("long", 600), ("ever", NEVER)):
        world.connect(name, (b"t", 1), level=5, properties=kept(seconds)).hang_up()
    world.loop.advance(30)
    again = restart(world, tmp_path, away_s=31)
    again.loop.advance(0.5)
    assert list(again.broker.sessions_away()) == ["long", "ever"]
    again.loop.advance(538)
    assert list(again.broker.sessions_away()) == ["long", "ever"]
    again.loop.advance(2)
    assert list(again.broker.sessions_away()) == ["ever"]


def test_connected_clients_find_their_sessions_after_a_restart(world: MemoryBroker, tmp_path: Path) -> None:
    client = world.connect("c", (b"t", 2 | 8), level=5, properties=kept(60))
    writer = world.connect("w", level=5)
    properties = {"content_type": "x", "user_property": (("k", "v"),)}
    writer.send(
        Publish(b"t", b"1", 2, True, False, 1, properties),
        Publish(b"t", b"2", 1, False, False, 2, {"message_expiry_interval": 100}),
    )
    assert len(client.take()) == 2
    again = restart(world, tmp_path, away_s=20)
    back = again.connect("c", level=5, clean=False, properties=kept(60))
    first, second = back.waiting
    assert first == Publish(b"t", b"1", 2, True, True, 1, properties)
    assert isinstance(second, Publish) and second.payload == b"2"
    assert 75 <= second.properties["message_expiry_interval"] <= 80
    assert back.ask(Ack("PUBREC", 1), Ack("PUBACK", 2)) == [Ack("PUBREL", 1)]


def test_messages_that_wait_expire_while_the_broker_is_stopped(world: MemoryBroker, tmp_path: Path) -> None:
    world.connect("c", (b"t", 1), level=5, properties=kept(600)).hang_up()
    writer = world.connect("w", level=5)
    for seconds in (10, 100):
        writer.send(Publish(b"t", b"%d" % seconds, 1, False, False, 1, {"message_expiry_interval": seconds}))
    again = restart(world, tmp_path, away_s=50)
    back = again.connect("c", level=5, clean=False)
    assert [packet.payload for packet in back.waiting if isinstance(packet, Publish)] == [b"100"]


def test_a_delayed_will_survives_a_restart(world: MemoryBroker, tmp_path: Path) -> None:
    will = Will(b"w", b"gone", 1, False, {"will_delay_interval": 100, "content_type": "x"})
    world.connect("c", level=5, will=will, properties=kept(600)).hang_up()
    world.connect("r", (b"w", 1), level=5, properties=kept(600))
    world.loop.advance(30)
    again = restart(world, tmp_path, away_s=50)
    again.loop.advance(18)
    assert not again.broker.clients()[1].waiting
    again.loop.advance(3)
    waited = again.connect("r", level=5, clean=False).waiting
    assert waited == [Publish(b"w", b"gone", 1, packet_id=1, properties={"content_type": "x"})]


def test_the_wills_of_kept_sessions_wait_for_the_next_start(world: MemoryBroker, tmp_path: Path) -> None:
    for name, level, expiry_s in (("kept", 5, 600), ("back", 5, 600), ("ends", 5, 0), ("old", 4, 0)):
        properties = kept(expiry_s) if level == 5 else {}
        world.connect(name, level=level, clean=False, will=Will(b"w", name.encode(), 0, False), properties=properties)
    again = restart(world, tmp_path)
    reader = again.connect("r", (b"w", 0), level=5)
    again.connect("back", level=5, clean=False)
    again.loop.advance(1)
    assert [packet.payload for packet in wills(reader) if isinstance(packet, Publish)] == [b"kept"]


def test_subscriptions_keep_their_options_and_identifiers(world: MemoryBroker, tmp_path: Path) -> None:
    client = world.connect("c", level=5, properties=kept(600))
    client.send(Subscribe(1, ((b"t/#", 1 | 4 | 8 | 0x20),), {"subscription_identifier": 268_435_455}))
    again = restart(world, tmp_path)
    back = again.connect("c", level=5, clean=False, properties=kept(600))
    writer = again.connect("w", level=5)
    back.send(Publish(b"t/x", b"own"))
    writer.send(Publish(b"t/x", b"other", 0, True))
    assert back.take() == [Publish(b"t/x", b"other", 0, True, properties={"subscription_identifier": (268_435_455,)})]


def test_a_clock_that_went_back_ages_nothing(world: MemoryBroker, tmp_path: Path) -> None:
    world.loop.wall_offset = 1_000_000.0
    world.connect("c", level=5, properties=kept(60)).hang_up()
    again = restart(world, tmp_path, away_s=-900_000.0)
    again.loop.advance(59)
    assert list(again.broker.sessions_away()) == ["c"]
    again.loop.advance(2)
    assert again.broker.clients() == []


def test_the_earlier_form_of_the_file_is_read(tmp_path: Path) -> None:
    body = (
        b'{"retained":[{"source":"","topic":"dA==","payload":"cg==","qos":1}],"sessions":[{"client_id":"c",'
        b'"source":"c","filters":[["dA==",1]],"state":{"first_id":5,"flights":[[1,false,"dA==","MQ=="]],'
        b'"queued":[[1,false,"dA==","Mg=="]],"receipts":[7]}}]}'
    )
    (tmp_path / state.FILE_NAME).write_bytes(b"ggfmqtt1" + crc32c(body).to_bytes(4, "little") + body)
    world = MemoryBroker()
    assert state.load(world.broker, tmp_path)
    world.loop.advance(50_000)
    old = world.open()
    assert old.ask(Connect(4, False, 0, "c")) == [
        Connack(True, 0),
        Publish(b"t", b"1", 1, dup=True, packet_id=5),
        Publish(b"t", b"2", 1, packet_id=6),
    ]
    old.send(BYE)
    assert world.connect("n", (b"t", 1)).waiting == [Publish(b"t", b"r", 1, True, packet_id=1)]


def test_a_filter_past_narrower_bounds_is_not_taken_over(world: MemoryBroker, tmp_path: Path) -> None:
    world.connect("c", (b"a/b/c/d", 1), (b"a", 1), level=5, properties=kept(600))
    world.broker.close()
    state.save(world.broker, tmp_path)
    again = MemoryBroker(router=Router(True, topic_slashes_max=1))
    assert state.load(again.broker, tmp_path)
    assert list(again.broker.sessions_away()["c"].subscriptions) == [b"a"]
    assert again.count("broker.refused.subscriptions") == 1
