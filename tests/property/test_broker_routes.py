"""The router with its caches against the slow model, under random changes of table, targets and subscriptions."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ggfast._ext.framing import Ack, Publish, Subscribe, Unsubscribe
from ggfast._ext.routes import Router
from tests.model.broker import MemoryBroker, MemoryClient, Permissions, SlowRouter

PATTERNS = ["a", "a/#", "a/+", "+/b", "#", "a/b", "$x/#", "+", "a/b/#", "/"]
TOPICS = ["a", "a/b", "b", "a/b/c", "$x", "$x/b", "/", "c/b"]
CLIENTS = ["c1", "c2", "c3"]
SINKS = ["s1", "s2", "cloud"]
RULES = st.lists(
    st.tuples(
        st.sampled_from([*CLIENTS, "cloud", "s1", ""]), st.sampled_from(PATTERNS), st.sampled_from(CLIENTS + SINKS)
    ),
    max_size=8,
)


class RouterAgainstModel(RuleBasedStateMachine):
    """Every publication reaches exactly those the model names, at the QoS it names, once."""

    @initialize(mode=st.sampled_from(["table", "open", "authorised"]), rules=RULES)
    def begin(self, mode: str, rules: list[tuple[str, str, str]]) -> None:
        is_open = mode != "table"
        self.permissions = Permissions() if mode == "authorised" else None
        self.model = SlowRouter(is_open, rules, authoriser=self.permissions)
        # A cache of very few routes, so that eviction happens all the time.
        self.world = MemoryBroker(
            router=Router(is_open, cache_entries_max=64, cache_bytes_max=3_000, authoriser=self.permissions)
        )
        self.world.router.set_table(rules)
        self.clients: dict[str, MemoryClient] = {}
        self.persistent: frozenset[str] = frozenset()
        self.taken: list[str] = []
        self.number = 0

    @rule(rules=RULES)
    def change_the_table(self, rules: list[tuple[str, str, str]]) -> None:
        self.world.router.set_table(rules)
        self.model.rules = rules

    @rule(name=st.sampled_from(SINKS), there=st.booleans())
    def change_a_target(self, name: str, there: bool) -> None:
        if there:

            def take(*_: object) -> bool:
                self.taken.append(name)
                return True

            self.world.router.add_sink(name, take)
            self.model.targets.add(name)
        else:
            self.world.router.remove_target(name)
            self.model.targets.discard(name)

    @rule(name=st.sampled_from(CLIENTS), clean=st.booleans())
    def connect(self, name: str, clean: bool) -> None:
        level = 4
        if self.permissions is not None:  # 5.0 clients stay connected when they may not publish
            clean, level = True, 5
        if clean or name not in self.persistent:
            self.model.filters[name] = {}
        self.persistent = self.persistent - {name} if clean else self.persistent | {name}
        self.clients[name] = self.world.connect(name, clean=clean, level=level)
        self.clients[name].take()

    @rule(
        what=st.sampled_from(["no_publish", "no_receive"]),
        name=st.sampled_from([*CLIENTS, "cloud", "nobody"]),
        topic=st.sampled_from(TOPICS),
    )
    def change_a_permission(self, what: str, name: str, topic: str) -> None:
        if self.permissions is not None:
            forbidden = getattr(self.permissions, what)
            forbidden ^= {(name, topic)}
            self.world.router.permissions_changed()

    @rule(name=st.sampled_from(CLIENTS))
    def hang_up(self, name: str) -> None:
        client = self.clients.pop(name, None)
        if client is not None:
            client.hang_up()
            assert self.world.broker.forget(name) is (name in self.persistent)
            self.persistent -= {name}
            del self.model.filters[name]

    @rule(name=st.sampled_from(CLIENTS), pattern=st.sampled_from(PATTERNS), qos=st.integers(0, 2))
    def subscribe(self, name: str, pattern: str, qos: int) -> None:
        if name in self.clients:
            self.clients[name].ask(Subscribe(1, ((pattern.encode(), qos),)))
            self.model.filters[name][pattern] = qos

    @rule(name=st.sampled_from(CLIENTS), pattern=st.sampled_from(PATTERNS))
    def unsubscribe(self, name: str, pattern: str) -> None:
        if name in self.clients:
            self.clients[name].ask(Unsubscribe(1, (pattern.encode(),)))
            self.model.filters[name].pop(pattern, None)

    @rule(source=st.sampled_from(CLIENTS), topics=st.lists(st.sampled_from(TOPICS), max_size=12), qos=st.integers(0, 2))
    def publish(self, source: str, topics: list[str], qos: int) -> None:
        if source not in self.clients:
            return
        frames = []
        for topic in topics:
            self.number += 1
            frames.append(Publish(topic.encode(), b"%d" % self.number, qos, packet_id=self.number % 65_535 + 1))
        self.clients[source].send(*frames)
        self.check(source, topics, qos)

    @rule(source=st.sampled_from(["cloud", "s1", "nobody"]), topic=st.sampled_from(TOPICS), qos=st.integers(0, 2))
    def publish_from_python(self, source: str, topic: str, qos: int) -> None:
        clients, others = self.model.reached(source, topic)
        assert self.world.router.publish(source, topic.encode(), b"x", qos) == len(clients) + len(others)
        self.check(source, [topic], qos)

    def check(self, source: str, topics: list[str], qos: int) -> None:
        wanted: dict[str, list[tuple[str, int]]] = {name: [] for name in self.clients}
        sinks: list[str] = []
        for topic in topics:
            clients, others = self.model.reached(source, topic)
            for name, granted in clients.items():
                wanted[name].append((topic, min(qos, granted)))
            sinks += sorted(others)
        for name, client in self.clients.items():
            packets = [packet for packet in client.take() if isinstance(packet, Publish)]
            assert [(packet.topic.decode(), packet.qos) for packet in packets] == wanted[name]
            for packet in packets:
                if packet.qos:
                    client.send(Ack("PUBACK" if packet.qos == 1 else "PUBREC", packet.packet_id))
                    if packet.qos == 2:
                        client.send(Ack("PUBCOMP", packet.packet_id))
            client.take()
        assert sorted(self.taken) == sorted(sinks)
        self.taken.clear()

    @invariant()
    def the_cache_keeps_its_bounds(self) -> None:
        if hasattr(self, "world"):
            assert self.world.router.cache_size()[1] <= 3_000

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.broker.close()


RouterAgainstModel.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestRouter: Any = RouterAgainstModel.TestCase
