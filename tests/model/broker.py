"""The router's answers worked out from scratch each time (the slow twin of ext/routes.pyx), and a broker in memory:
the real connections and sessions on a loop, a clock and transports that tests hold in their hands."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ggfast._ext.framing import Bare, Connack, Connect, Packet, Suback, Subscribe, decode, encode
from ggfast._ext.routes import Router
from ggfast.counters import Counters
from ggfast.mqtt.broker import Broker
from ggfast.mqtt.connection import Connection
from ggfast.mqtt.hooks import Hooks, OpenHooks
from ggfast.mqtt.limits import BrokerLimits
from tests.model.topics import matches


@dataclass
class Permissions:
    """An authoriser that lets everything pass but what is in its sets; `asked` counts."""

    no_publish: set[tuple[str, str]] = field(default_factory=set)
    no_receive: set[tuple[str, str]] = field(default_factory=set)
    no_retain: set[tuple[str, str]] = field(default_factory=set)
    no_subscribe: set[tuple[str, str]] = field(default_factory=set)
    asked: int = 0

    def realm(self, source: str) -> str:
        """What stands before a colon."""
        return source.partition(":")[0] if ":" in source else ""

    def may_publish(self, source: str, topic: str) -> bool:
        """Unless forbidden."""
        self.asked += 1
        return (source, topic) not in self.no_publish

    def may_receive(self, target: str, topic: str, source: str) -> bool:
        """Unless forbidden, or the source is of another realm."""
        self.asked += 1
        return (target, topic) not in self.no_receive and self.realm(target) == (
            source if ":" not in source and self.realm(target) else self.realm(source)
        )

    def may_retain(self, source: str, topic: str) -> bool:
        """Unless forbidden."""
        self.asked += 1
        return (source, topic) not in self.no_retain

    def may_subscribe(self, source: str, pattern: str) -> bool:
        """Unless forbidden."""
        self.asked += 1
        return (source, pattern) not in self.no_subscribe


@dataclass
class SlowRouter:
    """Who gets a message of (source, topic): clients with QoS, and other targets."""

    open: bool
    rules: list[tuple[str, str, str]] = field(default_factory=list)
    targets: set[str] = field(default_factory=set)
    filters: dict[str, dict[str, int]] = field(default_factory=dict)
    authoriser: Permissions | None = None

    def reached(self, source: str, topic: str) -> tuple[dict[str, int], set[str]]:
        """(client name -> granted QoS, names of functions and sinks)."""
        allowed = {
            target
            for who, subject, target in self.rules
            if (who == source or (self.open and who == "")) and matches(subject, topic, hash_takes_parent=False)
        }
        if source == "cloud":
            allowed.discard("cloud")
        if self.authoriser is not None and not self.authoriser.may_publish(source, topic):
            return {}, set()
        clients = {}
        for name, filters in self.filters.items():
            granted = [qos for pattern, qos in filters.items() if matches(pattern, topic)]
            if self.authoriser is not None and not self.authoriser.may_receive(name, topic, source):
                continue
            if granted and (self.open or name in allowed):
                clients[name] = max(granted)
        return clients, allowed & self.targets


# --- a broker in memory --------------------------------------------------------------------------------


class Handle:
    """What call_later gives back."""

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        """Never call it."""
        self.cancelled = True


class MemoryLoop:
    """The two scheduling calls the broker makes; time moves when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.wall_offset = 0.0
        self.soon: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self.later: list[tuple[float, Handle, Callable[..., Any], tuple[Any, ...]]] = []

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> None:
        """Queue for the next `run`."""
        self.soon.append((callback, args))

    def call_later(self, delay_s: float, callback: Callable[..., Any], *args: Any) -> Handle:
        """Queue for `advance`."""
        handle = Handle()
        self.later.append((self.now + delay_s, handle, callback, args))
        return handle

    def run(self) -> None:
        """Everything that is due now."""
        while self.soon:
            callback, args = self.soon.popleft()
            callback(*args)

    def advance(self, seconds: float) -> None:
        """Let time pass, in order."""
        end = self.now + seconds
        while True:
            self.run()
            due = [entry for entry in self.later if entry[0] <= end]
            if not due:
                break
            entry = min(due, key=lambda item: item[0])
            self.later.remove(entry)
            self.now = entry[0]
            if not entry[1].cancelled:
                entry[2](*entry[3])
        self.now = end

    def monotonic(self) -> float:
        """The broker's clock."""
        return self.now

    def wall(self) -> float:
        """The clock on the wall, which a test may set apart."""
        return self.now + self.wall_offset


class MemoryTransport:
    """Takes what is written; a test may make it stop taking."""

    def __init__(self, loop: MemoryLoop, protocol: Connection) -> None:
        self.loop = loop
        self.protocol = protocol
        self.written = bytearray()
        self.writes = 0
        self.reading = True
        self.closed = False
        self.stuck = False
        self.unsent = 0

    def write(self, data: bytes) -> None:
        """As a socket that is always ready, or, when `stuck`, one that never is."""
        assert isinstance(data, bytes) and data
        self.writes += 1
        self.written += data
        if self.stuck:
            was = self.unsent
            self.unsent += len(data)
            if was <= 65536 < self.unsent:
                self.protocol.pause_writing()

    def drain(self) -> None:
        """The peer reads again."""
        was, self.unsent, self.stuck = self.unsent, 0, False
        if was > 65536:
            self.protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        """Bytes the peer has not taken."""
        return self.unsent

    def set_write_buffer_limits(self, high: int) -> None:
        """Fixed at 64 KiB here."""
        assert high == 65536

    def get_extra_info(self, name: str) -> Any:
        """A peer, no TLS."""
        return ("192.0.2.1", 40000) if name == "peername" else None

    def pause_reading(self) -> None:
        """Back-pressure."""
        self.reading = False

    def resume_reading(self) -> None:
        """No more of it."""
        self.reading = True

    def close(self) -> None:
        """The loop reports the end on a later turn."""
        if not self.closed:
            self.closed = True
            self.loop.call_soon(self.protocol.connection_lost, None)

    abort = close


class MemoryClient:
    """One client of a broker in memory."""

    def __init__(self, world: MemoryBroker) -> None:
        self.level = 4
        self.connack: Connack | None = None
        self.waiting: list[Packet] = []
        self.protocol = Connection(world.broker)
        self.transport = MemoryTransport(world.loop, self.protocol)
        self.loop = world.loop
        self.protocol.connection_made(self.transport)  # type: ignore[arg-type]

    def send(self, *packets: Packet | bytes) -> None:
        """All in one read of the broker; a CONNECT settles the level of what follows."""
        parts = []
        for packet in packets:
            if isinstance(packet, Connect):
                self.level = 4 if packet.level < 5 else 5
            parts.append(packet if isinstance(packet, bytes) else encode(packet, self.level))
        if not self.transport.closed:
            self.protocol.data_received(b"".join(parts))

    def take(self) -> list[Packet]:
        """What the broker has written since the last time."""
        self.loop.run()
        data, self.transport.written = bytes(self.transport.written), bytearray()
        return split(data, self.level)

    def ask(self, *packets: Packet | bytes) -> list[Packet]:
        """Send, and what is written then."""
        self.send(*packets)
        return self.take()

    def hang_up(self) -> None:
        """The network is gone, without DISCONNECT."""
        self.transport.close()
        self.loop.run()

    @property
    def closed(self) -> bool:
        """Whether the broker (or the test) has closed the connection."""
        return self.transport.closed


class MemoryBroker:
    """The real broker on memory transports and virtual time."""

    def __init__(
        self,
        *,
        router: Router | None = None,
        limits: BrokerLimits | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        self.loop = MemoryLoop()
        self.router = router or Router(True, topic_slashes_max=127)
        self.counters = Counters()
        self.broker = Broker(
            self.loop,  # type: ignore[arg-type]
            self.router,
            hooks or OpenHooks(),
            limits or BrokerLimits(),
            self.loop,
            self.counters,
        )

    def open(self) -> MemoryClient:
        """A connection that has said nothing yet."""
        return MemoryClient(self)

    def connect(
        self, client_id: str, *filters: tuple[bytes, int], clean: bool = True, level: int = 4, **fields: Any
    ) -> MemoryClient:
        """A client that is in and has its subscriptions; later `take` starts after the SUBACK.

        A session that was kept sends what waits behind the CONNACK: `waiting` has it.
        """
        client = self.open()
        answer = client.ask(Connect(level, clean, fields.pop("keep_alive_s", 0), client_id, **fields))
        assert isinstance(answer[0], Connack) and answer[0].code == 0, answer
        client.connack, client.waiting = answer[0], answer[1:]
        if filters:
            suback = client.ask(Subscribe(1, filters))
            assert suback[:1] == [Suback(1, tuple(options & 3 for _, options in filters))], suback
            client.waiting += suback[1:]
        return client

    def count(self, name: str) -> int:
        """A counter, the lane's included."""
        for key, amount in self.router.take_counts().items():
            self.counters.add(key, amount)
        return self.counters.get(name)


def split(data: bytes, level: int = 4) -> list[Packet]:
    """The packets in a stream that must end with a whole one."""
    packets: list[Packet] = []
    while data:
        length, shift, at = 0, 0, 1
        while True:
            length |= (data[at] & 127) << shift
            shift += 7
            at += 1
            if data[at - 1] < 128:
                break
        assert at + length <= len(data), "the broker wrote part of a packet"
        packets.append(decode(data[: at + length], level))
        data = data[at + length :]
    return packets


PING = Bare("PINGREQ")
PONG = Bare("PINGRESP")
BYE = Bare("DISCONNECT")
