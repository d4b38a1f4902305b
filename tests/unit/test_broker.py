"""The broker around the lane: who comes in, who leaves, what is kept, and the file it is kept in."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from ggfast._ext.buffers import crc32c
from ggfast._ext.framing import Connack, Connect, Publish, Suback, Subscribe, Will, decode, encode
from ggfast._ext.routes import Router
from ggfast.clock import SystemClock
from ggfast.counters import Counters
from ggfast.errors import StorageFailed
from ggfast.mqtt import state
from ggfast.mqtt.broker import Broker
from ggfast.mqtt.hooks import Accepted, Client, ConnectInfo, OpenHooks, Refused
from ggfast.mqtt.limits import V1_LIMITS, BrokerLimits
from ggfast.mqtt.retained import Retained
from tests.model.broker import BYE, PING, PONG, MemoryBroker
from tests.model.topics import matches


class Doorman:
    """Hooks that write down what they see and decide by client id."""

    def __init__(self) -> None:
        self.seen: list[ConnectInfo] = []
        self.events: list[str] = []

    def authenticate(self, info: ConnectInfo) -> Accepted | Refused:
        """Codes in the client id refuse; `broken` fails."""
        self.seen.append(info)
        if info.client_id == "broken":
            raise RuntimeError("no")
        if info.client_id.isdigit():
            return Refused(int(info.client_id))
        return Accepted(f"thing/{info.client_id}")

    def connected(self, client: Client) -> None:
        """Note it."""
        self.events.append(f"+{client.client_id}")

    def disconnected(self, client: Client, reason: str) -> None:
        """Note it."""
        self.events.append(f"-{client.client_id}: {reason}")


@pytest.mark.parametrize(("client_id", "code"), [("5", 5), ("4", 4), ("broken", 3)])
def test_hooks_turn_clients_away(client_id: str, code: int) -> None:
    doorman = Doorman()
    world = MemoryBroker(hooks=doorman)
    client = world.open()
    assert client.ask(Connect(4, True, 0, client_id, Will(b"t", b"", 0, False))) == [Connack(False, code)]
    assert client.closed
    assert doorman.events == []
    assert world.broker.clients() == []


def test_hooks_see_what_connect_says() -> None:
    doorman = Doorman()
    world = MemoryBroker(hooks=doorman)
    world.connect("a", username="u").send(BYE)
    world.connect("b", clean=False, username="u", password=b"p").hang_up()
    first, second = doorman.seen
    assert (first.username, first.password, first.clean, first.peer) == ("u", None, True, "192.0.2.1:40000")
    assert (second.password, second.clean, second.level, second.certificate) == (b"p", False, 4, None)
    assert [event.split(":")[0] for event in doorman.events] == ["+a", "-a", "+b", "-b"]
    assert "disconnected by the client" in doorman.events[1]


def test_too_many_connections_are_cut() -> None:
    world = MemoryBroker(limits=BrokerLimits(connections_max=2))
    first, second = world.connect("a"), world.connect("b")
    third = world.open()
    assert third.closed and not first.closed and not second.closed
    assert world.count("broker.refused.connections") == 1
    first.hang_up()
    world.connect("c")


def test_who_only_occupies_a_place_gives_way() -> None:
    world = MemoryBroker(limits=BrokerLimits(connections_max=3))
    inside, silent, patient = world.connect("a"), world.open(), world.open()
    late = world.connect("b")
    assert silent.closed and not inside.closed and not patient.closed and not late.closed
    assert (world.count("broker.closed.gave_way"), world.count("broker.refused.connections")) == (1, 0)
    assert patient.ask(Connect(4, True, 0, "c")) == [Connack(False, 0)]
    assert world.open().closed
    assert world.count("broker.refused.connections") == 1


def test_disconnect_by_client_id_and_by_source() -> None:
    world = MemoryBroker(hooks=Doorman())
    one, two = world.connect("one"), world.connect("two")
    assert world.broker.disconnect("one")
    assert world.broker.disconnect("thing/two")
    assert not world.broker.disconnect("three")
    assert one.closed and two.closed


def test_status_shows_connected_and_absent_clients() -> None:
    world = MemoryBroker(hooks=Doorman())
    here = world.connect("here", (b"#", 1), keep_alive_s=30)
    world.connect("away", (b"t", 1), clean=False).hang_up()
    here.send(Publish(b"t", b"x", 1, packet_id=1))
    first, second = world.broker.clients()
    assert (first.source, first.state, first.peer, first.keep_alive_s) == (
        "thing/here",
        "connected",
        "192.0.2.1:40000",
        30,
    )
    assert (first.messages_in, first.messages_out, first.inflight, first.subscriptions) == (1, 1, 1, 1)
    assert (second.client_id, second.state, second.peer, second.waiting, second.clean) == (
        "away",
        "offline",
        "",
        1,
        False,
    )
    assert world.broker.forget("thing/away")
    assert len(world.broker.clients()) == 1


def test_absent_sessions_are_bounded() -> None:
    world = MemoryBroker(limits=BrokerLimits(sessions_offline_max=3))
    for number in range(5):
        world.connect(f"c{number}", (b"t", 1), clean=False).hang_up()
    assert list(world.broker.sessions_away()) == ["c2", "c3", "c4"]
    assert world.count("broker.dropped.oldest_session") == 2
    assert world.router.publish("x", b"t", b"", 1) == 3


def test_a_session_of_another_source_is_not_handed_over() -> None:
    """The client id alone gives nobody what was queued for another thing."""

    class Changing(OpenHooks):
        source = "thing/a"

        def authenticate(self, info: ConnectInfo) -> Accepted | Refused:
            return Accepted(self.source if info.client_id == "x" else info.client_id)

    hooks = Changing()
    world = MemoryBroker(hooks=hooks)
    world.connect("x", (b"t", 1), clean=False).hang_up()
    world.router.publish("w", b"t", b"secret", 1)
    hooks.source = "thing/b"
    assert world.open().ask(Connect(4, False, 0, "x")) == [Connack(False, 0)]


def test_take_over_of_a_persistent_session_keeps_it() -> None:
    world = MemoryBroker(hooks=Doorman())
    older = world.connect("x", (b"t", 1), clean=False, will=Will(b"w", b"gone", 0, False))
    reader = world.connect("r", (b"w", 0))
    newer = world.open()
    assert newer.ask(Connect(4, False, 0, "x")) == [Connack(True, 0)]
    assert older.closed
    assert reader.take() == [Publish(b"w", b"gone")]
    world.router.publish("f", b"t", b"x", 1)
    assert newer.take() == [Publish(b"t", b"x", 1, packet_id=1)]
    assert world.count("broker.closed.taken_over") == 1


def test_retained_messages_wait_for_a_slow_subscriber() -> None:
    world = MemoryBroker()
    writer = world.connect("w")
    for number in range(1_000):
        writer.send(Publish(b"k/%d" % number, bytes(1_000), 0, True))
    reader = world.connect("r")
    reader.transport.stuck = True
    reader.send(Subscribe(1, ((b"#", 0),)))
    world.loop.run()
    assert len(reader.transport.written) < 300_000
    writer.send(Publish(b"k/0", b"newer", 0, True), Publish(b"k/1", b"", 0, True))
    got = []
    for _ in range(40):
        reader.transport.drain()
        got += [packet for packet in reader.take() if isinstance(packet, Publish)]
    kept = [packet for packet in got if packet.retain]
    assert len(kept) == 999
    assert [packet.payload for packet in kept if packet.topic == b"k/0"] == [b"newer"]
    assert world.count("broker.dropped.slow_reader") == 0


def test_the_broker_closes_in_order() -> None:
    doorman = Doorman()
    world = MemoryBroker(hooks=doorman)
    reader = world.connect("r", (b"#", 0))
    writer = world.connect("w", will=Will(b"t", b"never", 0, False))
    world.broker.close()
    world.broker.close()
    assert reader.closed and writer.closed
    assert reader.take() == []
    late = world.open()
    assert late.closed


# --- retained messages ---------------------------------------------------------------------------------


def test_retained_store_finds_by_filter() -> None:
    store = Retained(1_000_000, Counters())
    topics = ["a", "a/b", "a/b/c", "/", "a/", "$x/a", "b/b"]
    for topic in topics:
        assert store.put("", topic.encode(), topic.encode(), 1)
    for pattern in ["#", "+", "a/#", "a/+", "+/b", "$x/#", "+/+", "/", "a", "none", "a/b/c/#", "+/+/#"]:
        found = sorted(message.topic.decode() for message in store.matching(pattern.encode()))
        assert found == sorted(topic for topic in topics if matches(pattern, topic)), pattern
    assert len(store.all()) == store.count == len(topics)


def test_retained_store_is_bounded_and_gives_everything_back() -> None:
    counters = Counters()
    store = Retained(10_000, counters)
    kept = [number for number in range(100) if store.put("", b"t/%d" % number, bytes(500), 0)]
    assert 3 < len(kept) < 20 and store.bytes <= 10_000
    assert counters.get("broker.dropped.retained_full") == 100 - len(kept)
    assert store.put("", b"t/0", bytes(400), 0), "a smaller one in its place fits"
    assert not store.put("", b"t/0", bytes(9_000), 0)
    assert store.get("", b"t/0") is not None
    for number in range(100):
        assert store.put("", b"t/%d" % number, b"", 0)
    assert (store.count, store.bytes, store.all()) == (0, 0, [])


def test_sources_do_not_overwrite_each_other() -> None:
    store = Retained(10_000, Counters())
    store.put("a", b"t", b"1", 0)
    store.put("b", b"t", b"2", 0)
    store.put("a", b"t", b"", 0)
    assert [message.source for message in store.matching(b"t")] == ["b"]


# --- the file ------------------------------------------------------------------------------------------


def test_state_file_keeps_sessions_and_retained_messages(tmp_path: Path) -> None:
    world = MemoryBroker()
    client = world.connect("p", (b"#", 2), clean=False)
    client.send(Publish(b"t\xc3\xbc", b"\0\xff", 2, True, packet_id=5))
    client.take()
    world.broker.close()
    state.save(world.broker, tmp_path)
    again = MemoryBroker()
    assert state.load(again.broker, tmp_path)
    assert again.broker.retained.all() == world.broker.retained.all()
    resumed = again.open()
    assert resumed.ask(Connect(4, False, 0, "p")) == [
        Connack(True, 0),
        Publish(b"t\xc3\xbc", b"\0\xff", 2, dup=True, packet_id=1),
    ]
    assert not state.load(MemoryBroker().broker, tmp_path), "a state is used once"


def test_an_unwritable_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="could not be written"):
        state.save(MemoryBroker().broker, tmp_path / "absent")


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b'{"sessions":[{}],"retained":[]}', b'{"sessions":[],"retained":[{"topic":1}]}']
)
def test_a_well_sealed_wrong_file_is_set_aside(tmp_path: Path, body: bytes) -> None:
    (tmp_path / state.FILE_NAME).write_bytes(state.MAGIC + crc32c(body).to_bytes(4, "little") + body)
    world = MemoryBroker()
    assert not state.load(world.broker, tmp_path)
    assert (tmp_path / "broker-state.corrupt").read_bytes().endswith(body)
    assert world.count("broker.corrupt_state") == 1


# --- listeners -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def warm_loop() -> None:
    """libuv's first loop opens a pipe for signals that stays for the life of the process."""
    uvloop.run(asyncio.sleep(0))


def test_a_second_listener_takes_over_without_a_gap(warm_loop: None) -> None:
    async def scenario() -> None:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        loop = asyncio.get_running_loop()
        broker = Broker(loop, Router(True), OpenHooks(), V1_LIMITS, SystemClock(), Counters())
        first = await broker.serve(sock)
        reader, writer = await hello(port, "one")
        second = await broker.serve(sock)
        first.close()
        first.close()
        writer.write(encode(PING))
        assert decode(await reader.readexactly(2)) == PONG, "the connection outlives its listener"
        for name in ("two", "three"):
            _, other = await hello(port, name)
            other.close()
        second.close()
        broker.close()
        assert await reader.read() == b""
        writer.close()
        assert sock.fileno() >= 0, "the caller's socket is still the caller's"
        sock.close()
        await asyncio.sleep(0.05)

    uvloop.run(scenario())


async def hello(port: int, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection with its CONNACK."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(encode(Connect(4, True, 0, name)))
    assert decode(await reader.readexactly(4)) == Connack(False, 0)
    return reader, writer


# --- owners that must look clients up first --------------------------------------------------------------


def test_nothing_of_a_connection_is_handled_before_its_owner_knows_the_client() -> None:
    world = MemoryBroker()
    waiting: list[Callable[[], None]] = []

    def prepare(certificate: bytes | None, ready: Callable[[], None]) -> bool:
        assert certificate is None
        waiting.append(ready)
        return len(waiting) > 2

    world.broker.prepare = prepare
    client = world.open()
    assert client.ask(encode(Connect(4, True, 0, "a")) + encode(Subscribe(1, ((b"t", 0),)))) == []
    assert not client.transport.reading
    waiting[0]()
    assert client.take() == [Connack(False, 0), Suback(1, (0,))]
    assert client.transport.reading
    gone = world.open()
    gone.hang_up()
    waiting[1]()
    assert gone.take() == []
    assert world.connect("known").connack == Connack(False, 0)


def test_client_ids_may_be_unique_within_something_smaller_than_the_broker() -> None:
    class Regions(OpenHooks):
        """The user name is the region."""

        def authenticate(self, info: ConnectInfo) -> Accepted | Refused:
            name = f"{info.username}/{info.client_id}"
            return Accepted(name, name)

    world = MemoryBroker(hooks=Regions())
    first = world.connect("a", username="x", clean=False)
    second = world.connect("a", username="y")
    again = world.connect("a", username="x", clean=False)
    assert (first.closed, second.closed, again.closed) == (True, False, False)
    assert again.connack == Connack(True, 0)
    session = world.broker.session_of("x/a")
    again.hang_up()
    assert world.broker.session_of("x/a") is session and world.broker.session_of("a") is None
    assert world.connect("", username="x", level=5).connack.properties["assigned_client_identifier"][:5] == "auto-"  # type: ignore[union-attr, index]
