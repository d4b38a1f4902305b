"""A whole broker in memory that plays one script: what arbitrary clients do, in bytes.

Byte 0 chooses the broker: table or open mode, small or ordinary bounds. Then steps follow each other until the
bytes end; the upper half of a step's first byte says what happens, the lower two bits which of four clients does
it, and what it needs follows. Every sequence of bytes is a script.

Checked at the end of each: a well-behaved client beside the others was not disturbed; what the broker wrote is
whole, decodable packets; queues kept to their bounds; nothing went wrong inside; nothing stays alive.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable

from ggfast._ext import framing
from ggfast._ext.buffers import Ring
from ggfast._ext.publication import live_message_counts
from ggfast._ext.routes import Router
from ggfast._ext.session import Session
from ggfast.errors import GgfastError, Malformed
from ggfast.mqtt.hooks import NOT_AUTHORIZED, Accepted, ConnectInfo, OpenHooks, Refused
from ggfast.mqtt.limits import BrokerLimits
from tests.fuzz import packets
from tests.model.broker import MemoryBroker, MemoryClient

CLIENTS = 4
BYSTANDER = "bystander"
SMALL = BrokerLimits(
    packet_bytes_max=20_000, payload_bytes_max=16_000, connect_timeout_s=2.0, connections_max=4, subscriptions_max=3,
    inflight_max=2, queue_bytes_max=6_000, queue_entries_max=4, output_bytes_max=9_000, retained_bytes_max=2_000,
    sessions_offline_max=2, stall_ticks_max=1,
)  # fmt: skip
ORDINARY = BrokerLimits(
    packet_bytes_max=120_000, payload_bytes_max=100_000, connect_timeout_s=2.0, output_bytes_max=200_000,
    queue_bytes_max=150_000, stall_ticks_max=1,
)  # fmt: skip
NAMES = [f"c{number}" for number in range(CLIENTS)]
RULES = [(a, "#", b) for a in NAMES for b in [*NAMES, BYSTANDER] if a != b]
OTHER_RULES = [*RULES[::2], ("c0", "a/#", "function"), ("c1", "+", "sink"), ("c2", "a/b", "cloud")]


class Complaints(logging.Handler):
    """Keeps what the product logs as an error: here nothing may go wrong inside."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text with its traceback."""
        self.texts.append(self.format(record))


class GuardedHooks(OpenHooks):
    """Everyone may come in, but nobody under the name of the bystander who is in."""

    def __init__(self) -> None:
        self.guarded = False

    def authenticate(self, info: ConnectInfo) -> Accepted | Refused:
        """See the class."""
        if self.guarded and info.client_id == BYSTANDER:
            return Refused(NOT_AUTHORIZED)
        return Accepted(info.client_id)


class Script:
    """Bytes read from the front; past the end everything is 0."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def byte(self) -> int:
        """The next one."""
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def take(self, count: int) -> bytes:
        """The next `count`, fewer at the end."""
        self.at += count
        return self.data[self.at - count : self.at]

    @property
    def ended(self) -> bool:
        """Whether all bytes are used."""
        return self.at >= len(self.data)


class Player:
    """One broker, its clients and the steps they can take."""

    def __init__(self, script: Script) -> None:
        self.script = script
        flags = script.byte()
        self.limits = SMALL if flags & 2 else ORDINARY
        table = bool(flags & 1)
        router = Router(
            not table, topic_slashes_max=7 if flags & 4 else 127, topic_bytes_max=256 if flags & 4 else 65535
        )
        if table:
            router.set_table(RULES)
            router.add_function("function", Ring(4, 4_000), lambda: None)
            router.add_sink("sink", lambda *_: True)
        self.hooks = GuardedHooks()
        self.world = MemoryBroker(router=router, limits=self.limits, hooks=self.hooks)
        self.bystander = self.world.open()
        self.say(self.bystander, packets.connect(BYSTANDER.encode(), 4, True, 0, False))
        self.say(self.bystander, packets.subscribe(b"#", 1, 1, 4))
        self.hooks.guarded = True
        self.clients: list[MemoryClient | None] = [None] * CLIENTS
        self.levels = [4] * CLIENTS
        self.withheld: list[bytearray | None] = [None] * CLIENTS
        self.steps: tuple[Callable[[int, int], None], ...] = (
            self.raw, self.raw, self.frame, self.connect, self.subscribe, self.unsubscribe, self.publish, self.answer,
            self.acknowledge, self.short, self.wait, self.stick, self.line, self.turn, self.administer, self.withhold,
        )  # fmt: skip

    # --- what one client does: `who` its number, `mode` the two bits that are left -------------------------

    def raw(self, who: int, mode: int) -> None:
        """Any bytes in one read."""
        self.send(who, self.script.take(self.script.byte()))

    def frame(self, who: int, mode: int) -> None:
        """Any packet, with the length it has."""
        first = self.script.byte()
        self.send(who, packets.frame(first, self.script.take(self.script.byte())))

    def connect(self, who: int, mode: int) -> None:
        """A proper CONNECT."""
        how = self.script.byte()
        self.levels[who] = level = (4, 4, 5, 3)[mode]
        name = b"" if how & 0xC0 == 0xC0 else NAMES[(who + (how >> 6)) % CLIENTS].encode()
        self.send(who, packets.connect(name, level, bool(how & 1), (0, 2)[how >> 1 & 1], bool(how & 4), how >> 3 & 7))

    def subscribe(self, who: int, mode: int) -> None:
        """A proper SUBSCRIBE."""
        how = self.script.byte()
        pattern = packets.FILTERS[how & 15]
        options = how >> 4 if self.levels[who] == 5 else (how >> 4) % 3
        self.send(who, packets.subscribe(pattern, options, 1 + mode, self.levels[who], mode == 3))

    def unsubscribe(self, who: int, mode: int) -> None:
        """A proper UNSUBSCRIBE."""
        self.send(who, packets.unsubscribe(packets.FILTERS[self.script.byte() & 15], 1 + mode, self.levels[who]))

    def publish(self, who: int, mode: int) -> None:
        """One proper PUBLISH or many in one read."""
        how, size = self.script.byte(), self.script.byte()
        qos = (how >> 4 & 3) % 3
        payload = packets.PAYLOADS[size & 7]
        packet = packets.publish(
            packets.TOPICS[how & 15],
            payload,
            qos,
            bool(how & 64),
            bool(how & 128),
            1 + mode,
            self.levels[who],
            size >> 5,
        )
        self.send(who, packet * (30 if size & 8 and len(packet) <= 4_000 else 1))

    def answer(self, who: int, mode: int) -> None:
        """Read all there is and acknowledge what asks for it, as a good client does."""
        client = self.clients[who]
        if client is not None:
            reply = self.replies(client)
            if reply:
                self.send(who, reply)

    def acknowledge(self, who: int, mode: int) -> None:
        """Any acknowledgement."""
        how = self.script.byte()
        first = (0x40, 0x50, 0x62, 0x70)[mode]
        reason = bytes([how]) if self.levels[who] == 5 and how & 128 else b""
        self.send(who, packets.frame(first, (1 + (how & 31)).to_bytes(2, "big") + reason))

    def short(self, who: int, mode: int) -> None:
        """The packets without a body."""
        self.send(who, (b"\xc0\x00", b"\xe0\x00", b"\xc0\x00" * 300, b"\xe0\x01\x04")[mode])

    def stick(self, who: int, mode: int) -> None:
        """The client stops reading, or reads again."""
        client = self.clients[who]
        if client is not None and mode & 1:
            client.transport.stuck = True
        elif client is not None:
            client.transport.drain()

    def line(self, who: int, mode: int) -> None:
        """The network goes, or a new connection replaces the old one without a word."""
        client = self.clients[who]
        if client is not None and mode & 1:
            client.transport.close()
        self.clients[who] = None

    def withhold(self, who: int, mode: int) -> None:
        """What the client sends from now on waits and then comes as reads of other sizes."""
        held, self.withheld[who] = self.withheld[who], bytearray() if mode == 0 else None
        if held:
            cut = self.script.byte() or len(held)
            if len(held) > 200 * cut:
                cut = len(held) // 200 + 1
            for begin in range(0, len(held), cut):
                self.send(who, bytes(held[begin : begin + cut]))

    # --- what happens to the broker ------------------------------------------------------------------------

    def wait(self, who: int, mode: int) -> None:
        """Time passes; the bystander answers."""
        self.world.loop.advance((0.1, 1.0, 3.0, 8.0)[mode])
        self.attend()

    def turn(self, who: int, mode: int) -> None:
        """The loop does what is due: one callback, or all."""
        soon = self.world.loop.soon
        if mode:
            self.world.loop.run()
        elif soon:
            callback, arguments = soon.popleft()
            callback(*arguments)

    def administer(self, who: int, mode: int) -> None:
        """What the core does with its broker."""
        how = self.script.byte()
        broker, router, name = self.world.broker, self.world.router, NAMES[who]
        if mode == 0:
            publish = router.publish_all_or_error if how & 1 else router.publish
            try:
                publish(name, packets.TOPICS[how >> 4], packets.PAYLOADS[how >> 1 & 3], (how >> 3 & 1) + 1)
            except GgfastError:
                pass  # a queue is full, or the topic is bad
        elif mode == 1:
            broker.disconnect(name) if how & 1 else broker.forget(name)
        elif mode == 2:
            router.set_table(OTHER_RULES if how & 1 else RULES)
        else:
            for session in broker.sessions_away().values():
                self.check_copy(session)

    def check_copy(self, session: Session) -> None:
        """What a session exports makes an equal one."""
        state = session.export()
        copy = Session(self.world.router, self.world.broker.session_limits, None)
        copy.restore(state)
        assert copy.export() == state, (copy.export(), state)
        copy.detach(False)

    # --- the parts -----------------------------------------------------------------------------------------

    def run(self) -> None:
        """All steps."""
        while not self.script.ended:
            step = self.script.byte()
            self.steps[step >> 4](step & 3, step >> 2 & 3)

    def send(self, who: int, data: bytes) -> None:
        """One read from a client, which is connected first if it is not."""
        held = self.withheld[who]
        if held is not None:
            held += data
            return
        client = self.clients[who]
        if client is None or client.transport.closed:
            self.clients[who] = client = self.world.open()
        if data:
            self.say(client, data)

    def say(self, client: MemoryClient, data: bytes) -> None:
        """One read, as the loop makes it: not while reading is paused, not after the end."""
        if not client.transport.closed and client.transport.reading:
            client.protocol.data_received(data)

    def replies(self, client: MemoryClient) -> bytes:
        """What a good client answers to what it was sent."""
        session = client.protocol.session
        level = session.level if session.source else 0  # 0: it never came in
        data, client.transport.written = bytes(client.transport.written), bytearray()
        answers = []
        for frame, body in packets.frames(data):
            decode(frame, level)
            kind = frame[0] & 0xF0
            if kind == 0x30 and frame[0] & 6:
                at = body + 2 + int.from_bytes(frame[body : body + 2], "big")
                answers.append((b"\x40\x02" if frame[0] & 2 else b"\x50\x02") + frame[at : at + 2])
            elif kind == 0x50:
                answers.append(b"\x62\x02" + frame[body : body + 2])
            elif kind == 0x60:
                answers.append(b"\x70\x02" + frame[body : body + 2])
        return b"".join(answers)

    def attend(self) -> None:
        """The bystander reads and acknowledges until there is nothing left."""
        while reply := self.replies(self.bystander):
            self.say(self.bystander, reply)
            self.world.loop.run()

    # --- the end -------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Check the state that was reached, then end everything."""
        broker, loop = self.world.broker, self.world.loop
        for status in broker.clients():
            assert status.stored_bytes <= self.limits.queue_bytes_max, status
            assert status.waiting <= self.limits.queue_entries_max, status
            assert status.inflight <= self.limits.inflight_max, status
            assert status.output_bytes <= self.limits.output_bytes_max + 2 * self.limits.packet_bytes_max, status
        self.attend()
        loop.advance(2.0)  # who holds others back is frozen by then
        self.attend()
        self.say(self.bystander, b"\xc0\x00")
        loop.run()
        assert self.bystander.transport.written[-2:] == b"\xd0\x00", "the bystander has no answer to its PINGREQ"
        assert not self.bystander.closed, "the bystander was disconnected"
        for client in self.clients:
            if client is not None:
                self.replies(client)
                client.transport.close()
        broker.close()
        loop.advance(6.0)  # past the grace that a stuck transport has
        for name in broker.sessions_away():
            broker.forget(name)
        assert broker.connection_count == 0
        assert self.world.count("broker.closed.internal_error") == 0, COMPLAINTS.texts
        assert not COMPLAINTS.texts, COMPLAINTS.texts


def decode(frame: bytes, level: int) -> None:
    """The broker wrote a packet that can be read; before a client is in, in either dialect."""
    for dialect in (level,) if level else (4, 5):
        try:
            framing.decode(frame, dialect)
        except Malformed as error:
            fault = error
        else:
            return
    raise AssertionError(f"the broker wrote {frame[:200].hex()} at level {level}: {fault}")


def play(data: bytes) -> None:
    """Play one script; AssertionError, or whatever was raised, if something is wrong."""
    COMPLAINTS.texts.clear()
    player = Player(Script(data))
    player.run()
    player.finish()
    del player
    gc.collect()
    alive = live()
    assert alive == EMPTY, f"alive after everything was closed: {alive}, before: {EMPTY}"


def live() -> dict[str, int]:
    """What of the compiled part is alive: in ordinary builds only stored messages are counted."""
    module = sys.modules.get("ggfast._ext.live")
    counts = dict(module.live_counts()) if module is not None else {}
    return counts | dict(zip(("messages", "message bytes"), live_message_counts(), strict=True))


def prepare() -> None:
    """Count from here on: first one script for what is made once and stays, then what there is is not looked at."""
    try:
        from ggfast._ext.live import watch  # only special builds have it
    except ImportError:
        pass
    else:
        watch()
    logging.getLogger("ggfast").addHandler(COMPLAINTS)
    logging.getLogger("ggfast").propagate = False
    EMPTY.update(live())
    play(b"\x01")
    gc.collect()
    gc.freeze()


COMPLAINTS = Complaints()
EMPTY: dict[str, int] = {}
