"""Sessions and wills of both versions against the slow model, under random comings, goings, pauses and restarts."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ggfast._ext.framing import Ack, Bare, Connect, Disconnect, Packet, Publish, Suback, Subscribe, Will
from ggfast.mqtt import state
from tests.model.broker import MemoryBroker, MemoryClient
from tests.model.sessions import SlowSessions

NAMES = st.sampled_from(["a", "b", "c"])
SECONDS = st.sampled_from([0, 1, 2, 5, 9])
NEVER = 0xFFFF_FFFF
# Ticks of the broker fall between the instants at which anything here becomes due: nothing depends on which is first.
OFFSET_S = 0.25


class SessionsAgainstModel(RuleBasedStateMachine):
    """Session present, what waited and which wills went out are what the model says, step by step."""

    @initialize()
    def begin(self) -> None:
        self.model = SlowSessions()
        self.clients: dict[str, MemoryClient] = {}
        self.number = 0
        self.start(MemoryBroker(), OFFSET_S)

    def start(self, world: MemoryBroker, seconds: float) -> None:
        """Go on with a broker that has just begun."""
        self.world = world
        self.observer = world.connect("observer", (b"w/#", 0), level=5)
        world.loop.advance(seconds)

    def next_number(self) -> int:
        self.number += 1
        return self.number

    def expect_wills(self, wills: list[int]) -> None:
        found = [int(packet.payload) for packet in self.observer.take() if isinstance(packet, Publish)]
        assert sorted(found) == sorted(wills)

    def answer(self, name: str, packets: list[Packet]) -> list[int]:
        """The messages among packets, acknowledged."""
        found = [packet for packet in packets if isinstance(packet, Publish)]
        self.clients[name].send(*(Ack("PUBACK", packet.packet_id) for packet in found))
        return [int(packet.payload) for packet in found]

    @rule(
        name=NAMES,
        level=st.sampled_from([4, 5, 5]),
        clean=st.booleans(),
        expiry_s=st.sampled_from([0, 1, 3, 8, NEVER]),
        has_will=st.booleans(),
        delay_s=SECONDS,
    )
    def connect(self, name: str, level: int, clean: bool, expiry_s: int, has_will: bool, delay_s: int) -> None:
        number = self.next_number() if has_will else None
        will = None
        if number is not None:
            will = Will(
                b"w/" + name.encode(), b"%d" % number, 0, False, {"will_delay_interval": delay_s} if level == 5 else {}
            )
        properties = {"session_expiry_interval": expiry_s} if level == 5 else {}
        older = self.clients.get(name)
        client = self.clients[name] = self.world.open()
        connack, *waiting = client.ask(Connect(level, clean, 0, name, will, properties=properties))
        present, waited, wills = self.model.connect(
            name, level, clean, math.inf if expiry_s == NEVER else expiry_s, number, delay_s
        )
        assert (connack.session_present, connack.code) == (present, 0)
        assert self.answer(name, waiting) == waited
        assert older is None or older.closed
        if not present:
            assert client.ask(Subscribe(1, ((b"q/" + name.encode(), 1),))) == [Suback(1, (1,))]
        self.expect_wills(wills)

    def leaving(self, name: str) -> MemoryClient | None:
        """The client, if it is connected."""
        return self.clients.pop(name, None)

    @rule(name=NAMES)
    def hang_up(self, name: str) -> None:
        client = self.leaving(name)
        if client is not None:
            client.hang_up()
            self.expect_wills(self.model.leave(name))

    @rule(name=NAMES)
    def administrator(self, name: str) -> None:
        assert self.world.broker.disconnect(name) == (name in self.clients)
        if self.leaving(name) is not None:
            self.expect_wills(self.model.leave(name))

    @rule(name=NAMES, with_will=st.booleans(), expiry_s=st.sampled_from([None, 0, 2, 6]))
    def goodbye(self, name: str, with_will: bool, expiry_s: int | None) -> None:
        client = self.leaving(name)
        if client is None:
            return
        if client.level < 5:
            client.send(Bare("DISCONNECT"))
            self.expect_wills(self.model.leave(name, True))
            return
        refused = bool(expiry_s) and self.model.kept[name].expiry_s == 0
        client.send(
            Disconnect(4 if with_will else 0, {} if expiry_s is None else {"session_expiry_interval": expiry_s})
        )
        if refused:
            expiry_s = None
        self.expect_wills(self.model.leave(name, not with_will and not refused, expiry_s))

    @rule(name=NAMES)
    def publish(self, name: str) -> None:
        number = self.next_number()
        taken = self.world.router.publish("x", b"q/" + name.encode(), b"%d" % number, 1)
        assert taken == (name in self.model.kept)
        if not self.model.publish(name, number) and taken:
            assert self.answer(name, self.clients[name].take()) == [number]

    @rule(name=NAMES)
    def forget(self, name: str) -> None:
        session = self.model.kept.get(name)
        known = session is not None and not session.connected
        assert self.world.broker.forget(name) == known
        if session is not None and known:
            del self.model.kept[name]
            self.expect_wills([] if session.will is None else [session.will])

    @rule(seconds=SECONDS)
    def pause(self, seconds: int) -> None:
        self.world.loop.advance(seconds)
        self.expect_wills(self.model.advance(seconds))

    @rule(seconds=SECONDS)
    def restart(self, seconds: int) -> None:
        """Stop, and start again after a while."""
        self.world.broker.close()
        again = MemoryBroker()
        again.loop.wall_offset = self.world.loop.wall() + seconds
        with tempfile.TemporaryDirectory() as folder:
            state.save(self.world.broker, Path(folder))
            assert state.load(again.broker, Path(folder))
        self.clients.clear()
        self.model.restart()
        self.start(again, 0.5 + OFFSET_S)
        self.expect_wills(self.model.advance(seconds + 0.5 + OFFSET_S))

    @invariant()
    def everybody_is_accounted_for(self) -> None:
        """One session for each client id, here or away, and no connection of nobody."""
        broker = self.world.broker
        ids = [status.client_id for status in broker.clients() if status.client_id != "observer"]
        assert sorted(ids) == sorted(self.model.kept)
        connected = {name for name, session in self.model.kept.items() if session.connected}
        assert broker.client_count == broker.connection_count == len(connected) + 1
        assert connected == set(self.clients)


SessionsAgainstModel.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestSessionsAgainstModel = SessionsAgainstModel.TestCase
