"""Publications of both protocol versions through the lane against the slow model of what each client receives."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from ggfast._ext.framing import Ack, Packet, Publish, Subscribe, Unsubscribe
from ggfast._ext.routes import Router
from tests.model.broker import MemoryBroker, MemoryClient
from tests.model.publications import Subscriber, expected

NAMES = ["a", "b", "c"]
PATTERNS = ["t", "t/#", "+", "#", "t/x", "+/x"]
TOPICS = ["t", "t/x", "u", "u/x"]
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "payload_format_indicator": st.just(1),
        "message_expiry_interval": st.integers(1, 0xFFFFFFFF),
        "content_type": st.sampled_from(["", "text/plain"]),
        "response_topic": st.just("r/1"),
        "correlation_data": st.binary(max_size=5),
        "user_property": st.lists(st.tuples(st.sampled_from("kl"), st.sampled_from("vw")), min_size=1, max_size=3).map(
            tuple
        ),
    },
)
MESSAGE = st.tuples(
    st.sampled_from(TOPICS), st.integers(0, 2), st.booleans(), st.sampled_from([0, 0, 0, 1, 2]), PROPERTIES
)


class PublicationsAgainstModel(RuleBasedStateMachine):
    """Each client gets exactly what the model says, in the order it was published."""

    @initialize(is_open=st.booleans(), levels=st.tuples(*(st.sampled_from([4, 5]) for _ in NAMES)), alias=st.booleans())
    def begin(self, is_open: bool, levels: tuple[int, ...], alias: bool) -> None:
        self.world = MemoryBroker(router=Router(is_open))
        self.world.router.set_table([(source, "#", target) for source in NAMES for target in NAMES])
        self.model: dict[str, Subscriber] = {}
        self.clients: dict[str, MemoryClient] = {}
        self.given: dict[str, dict[int, bytes]] = {name: {} for name in NAMES}
        self.number = 0
        for name, level in zip(NAMES, levels, strict=True):
            fields = {"properties": {"topic_alias_maximum": 2}} if level == 5 and alias else {}
            self.clients[name] = self.world.connect(name, level=level, **fields)
            self.model[name] = Subscriber(level)

    @rule(
        name=st.sampled_from(NAMES),
        pattern=st.sampled_from(PATTERNS),
        options=st.sampled_from([0, 1, 2, 4, 5, 8, 10, 14]),
        identifier=st.sampled_from([0, 0, 1, 200]),
    )
    def subscribe(self, name: str, pattern: str, options: int, identifier: int) -> None:
        if self.model[name].level < 5:
            options, identifier = options & 3, 0
        properties = {"subscription_identifier": identifier} if identifier else {}
        # Retained messages are the business of other tests: none are wanted here.
        wanted = options | (0x20 if self.model[name].level == 5 else 0)
        self.clients[name].ask(Subscribe(1, ((pattern.encode(), wanted),), properties))
        self.settle(name, self.clients[name].take())
        self.model[name].filters[pattern] = (options, identifier)

    @rule(name=st.sampled_from(NAMES), pattern=st.sampled_from(PATTERNS))
    def unsubscribe(self, name: str, pattern: str) -> None:
        self.clients[name].ask(Unsubscribe(1, (pattern.encode(),)))
        self.model[name].filters.pop(pattern, None)

    @rule(source=st.sampled_from(NAMES), messages=st.lists(MESSAGE, min_size=1, max_size=8))
    def publish(self, source: str, messages: list[tuple[str, int, bool, int, dict[str, Any]]]) -> None:
        level = self.model[source].level
        frames: list[Packet | bytes] = []
        meant: list[Publish] = []
        for topic, qos, retain, alias, properties in messages:
            self.number += 1
            packet_id = self.number % 60_000 + 1 if qos else 0
            message = Publish(
                topic.encode(),
                b"%d" % self.number,
                qos,
                retain and self.model[source].level == 5,
                False,
                packet_id,
                properties if level == 5 else {},
            )
            meant.append(message)
            if alias and level == 5:
                known = self.given[source].get(alias) == message.topic
                self.given[source][alias] = message.topic
                message = message._replace(
                    topic=b"" if known else message.topic, properties={**properties, "topic_alias": alias}
                )
            frames.append(message)
            if qos == 2:
                frames.append(Ack("PUBREL", packet_id))
        self.clients[source].send(*frames)
        for name, client in self.clients.items():
            wanted = [packet for packet in (expected(name, self.model[name], source, each) for each in meant) if packet]
            assert self.settle(name, client.take()) == wanted

    def settle(self, name: str, packets: list[Packet]) -> list[Publish]:
        """Acknowledge, and put the topics that aliases stand for in their place."""
        client, got = self.clients[name], []
        names = client.__dict__.setdefault("names", {})
        for packet in packets:
            if not isinstance(packet, Publish):
                continue
            if packet.qos:
                client.send(Ack("PUBACK" if packet.qos == 1 else "PUBREC", packet.packet_id))
                if packet.qos == 2:
                    client.send(Ack("PUBCOMP", packet.packet_id))
            properties = dict(packet.properties)
            alias = properties.pop("topic_alias", 0)
            topic = packet.topic or names[alias]
            if alias:
                names[alias] = topic
            got.append(packet._replace(topic=topic, packet_id=0, properties=properties))
        client.take()
        return got

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.broker.close()


PublicationsAgainstModel.TestCase.settings = settings(max_examples=250, stateful_step_count=30, deadline=None)
TestPublications: Any = PublicationsAgainstModel.TestCase
