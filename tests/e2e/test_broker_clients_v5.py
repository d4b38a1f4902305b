"""The broker as its own process with paho speaking MQTT 5.0, and with older clients beside it."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Iterator
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.e2e.test_broker_clients import BrokerProcess, Device, running

TIMEOUT_S = 10.0


@pytest.fixture(scope="module")
def shared() -> Iterator[BrokerProcess]:
    """One broker for all tests here."""
    with running() as broker:
        yield broker


def properties(packet: int, **values: Any) -> Properties:
    """paho's form of properties."""
    made = Properties(packet)
    for name, value in values.items():
        setattr(made, name, value)
    return made


class NewDevice:
    """A paho client of version 5 with its messages and events in queues."""

    def __init__(
        self, port: int, client_id: str, *, clean: bool = True, will: dict[str, Any] | None = None, **asked: Any
    ) -> None:
        self.messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self.events: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5)
        self.client.on_connect = lambda _c, _u, flags, code, answer: self.events.put(
            ("connected", (flags.session_present, code.value, answer))
        )
        self.client.on_disconnect = lambda _c, _u, _f, code, _p: self.events.put(("disconnected", code.value))
        self.client.on_subscribe = lambda _c, _u, _m, codes, _p: self.events.put(
            ("subscribed", [code.value for code in codes])
        )
        self.client.on_unsubscribe = lambda _c, _u, _m, codes, _p: self.events.put(
            ("unsubscribed", [code.value for code in codes])
        )
        self.client.on_publish = lambda _c, _u, _m, code, _p: self.events.put(("published", code.value))
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        if will is not None:
            self.client.will_set(**will)
        wanted = properties(PacketTypes.CONNECT, **asked)
        self.client.connect("127.0.0.1", port, keepalive=30, clean_start=clean, properties=wanted)
        self.client.loop_start()
        self.present, self.code, self.answer = self.expect("connected")

    def expect(self, event: str) -> Any:
        """The next event, which must be this one."""
        name, value = self.events.get(timeout=TIMEOUT_S)
        assert name == event, (name, value)
        return value

    def subscribe(self, topic: str, *, identifier: int = 0, **options: Any) -> list[int]:
        """The SUBACK's codes."""
        wanted = properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=identifier) if identifier else None
        self.client.subscribe(topic, options=SubscribeOptions(**options), properties=wanted)
        codes: list[int] = self.expect("subscribed")
        return codes

    def publish(self, topic: str, payload: str, qos: int = 1, *, retain: bool = False, **values: Any) -> int:
        """The reason code of the acknowledgement."""
        self.client.publish(topic, payload, qos, retain, properties(PacketTypes.PUBLISH, **values))
        code: int = self.expect("published")
        return code

    def message(self) -> paho.MQTTMessage:
        """The next one."""
        return self.messages.get(timeout=TIMEOUT_S)

    def payloads(self, count: int) -> list[str]:
        """The next `count` messages' payloads."""
        return [self.message().payload.decode() for _ in range(count)]

    def leave(self) -> None:
        """DISCONNECT and stop the thread."""
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self) -> None:
        """Cut the connection without DISCONNECT, and do not come back."""
        self.client.loop_stop()
        sock = self.client.socket()
        assert sock is not None
        sock.close()


@contextlib.contextmanager
def leaving(*made: NewDevice) -> Iterator[tuple[NewDevice, ...]]:
    """Devices that leave at the end, whatever happens."""
    try:
        yield made
    finally:
        for device in made:
            device.leave()


def test_what_the_broker_announces(shared: BrokerProcess) -> None:
    with leaving(NewDevice(shared.port, "")) as (device,):
        answer = device.answer
        assert (device.present, device.code) == (False, 0)
        assert answer.AssignedClientIdentifier and answer.ReceiveMaximum == 1024 and answer.TopicAliasMaximum == 32
        assert answer.MaximumPacketSize > 128 * 1024


def test_everything_a_publisher_says_arrives(shared: BrokerProcess) -> None:
    with leaving(NewDevice(shared.port, "n1r"), NewDevice(shared.port, "n1w")) as (reader, writer):
        assert reader.subscribe("n1/#", qos=2, identifier=7) == [2]
        said = {
            "PayloadFormatIndicator": 1,
            "MessageExpiryInterval": 1000,
            "ContentType": "text/plain",
            "ResponseTopic": "n1/answers",
            "CorrelationData": b"\x00\x01",
            "UserProperty": [("a", "1"), ("a", "2"), ("b", "")],
        }
        for qos in (0, 1, 2):
            assert writer.publish("n1/t", f"hello {qos}", qos, **said) == 0
            message = reader.message()
            assert (message.payload, message.qos) == (f"hello {qos}".encode(), qos)
            got = message.properties
            assert {name: getattr(got, name) for name in said} == said
            assert got.SubscriptionIdentifier == [7]


def test_options_of_subscriptions(shared: BrokerProcess) -> None:
    with leaving(NewDevice(shared.port, "n2a"), NewDevice(shared.port, "n2b")) as (a, b):
        a.publish("n2/kept", "old", retain=True)
        assert a.subscribe("n2/#", qos=1, noLocal=True, retainAsPublished=True, retainHandling=2) == [1]
        assert b.subscribe("n2/#", qos=1, retainHandling=1) == [1]
        assert b.message().retain
        assert b.subscribe("n2/#", qos=1, retainHandling=1) == [1]
        a.publish("n2/kept", "mine", retain=True)
        b.publish("n2/kept", "", retain=True)
        first = a.message()
        assert (first.payload, first.retain) == (b"", True)
        assert [b.message().retain, b.message().retain] == [False, False]
        assert b.messages.empty()


def test_a_group_shares_its_messages(shared: BrokerProcess) -> None:
    names = [NewDevice(shared.port, name) for name in ("n3a", "n3b", "n3w")]
    with leaving(*names) as (a, b, writer):
        assert a.subscribe("$share/g/n3/+", qos=1) == b.subscribe("$share/g/n3/+", qos=1) == [1]
        for number in range(10):
            writer.publish("n3/t", str(number))
        assert sorted(a.payloads(5) + b.payloads(5)) == [str(number) for number in range(10)]


def test_request_and_response(shared: BrokerProcess) -> None:
    with leaving(NewDevice(shared.port, "n4c"), NewDevice(shared.port, "n4s")) as (caller, server):
        server.subscribe("n4/ask", qos=1)
        caller.subscribe("n4/answer", qos=1)
        caller.publish("n4/ask", "6 * 7", ResponseTopic="n4/answer", CorrelationData=b"17")
        question = server.message().properties
        server.publish(question.ResponseTopic, "42", CorrelationData=question.CorrelationData)
        answer = caller.message()
        assert (answer.payload, answer.properties.CorrelationData) == (b"42", b"17")


def test_reasons_reach_the_client(shared: BrokerProcess) -> None:
    with leaving(NewDevice(shared.port, "n5")) as (device,):
        assert device.publish("n5/nobody", "x") == 0x10
        device.client.unsubscribe("n5/never")
        assert device.expect("unsubscribed") == [0x11]
        other = NewDevice(shared.port, "n5")
        assert device.expect("disconnected") == 0x8E
        other.leave()


def test_a_session_lives_as_long_as_asked_for(shared: BrokerProcess) -> None:
    writer = NewDevice(shared.port, "n6w")
    reader = NewDevice(shared.port, "n6r", SessionExpiryInterval=60)
    reader.subscribe("n6/#", qos=1)
    reader.leave()
    assert writer.publish("n6/t", "kept") == 0
    back = NewDevice(shared.port, "n6r", clean=False, SessionExpiryInterval=1)
    assert back.present and back.payloads(1) == ["kept"]
    back.leave()
    time.sleep(2.5)
    last = NewDevice(shared.port, "n6r", clean=False)
    assert not last.present
    assert writer.publish("n6/t", "nobody") == 0x10
    last.leave()
    writer.leave()


def test_a_will_waits_for_its_client(shared: BrokerProcess) -> None:
    with leaving(NewDevice(shared.port, "n7w")) as (watcher,):
        watcher.subscribe("n7/#", qos=1)
        will = {
            "topic": "n7/gone",
            "payload": "gone",
            "qos": 1,
            "properties": properties(PacketTypes.WILLMESSAGE, WillDelayInterval=2, UserProperty=[("why", "cut")]),
        }
        NewDevice(shared.port, "n7", will=will, SessionExpiryInterval=60).vanish()
        back = NewDevice(shared.port, "n7", clean=False, will=will, SessionExpiryInterval=60)
        time.sleep(3.0)
        assert back.present and watcher.messages.empty()
        begin = time.monotonic()
        back.vanish()
        message = watcher.message()
        assert (message.payload, message.properties.UserProperty) == (b"gone", [("why", "cut")])
        assert time.monotonic() - begin >= 1.9


def test_old_and_new_clients_understand_each_other(shared: BrokerProcess) -> None:
    old = Device(shared.port, "n8o")
    try:
        with leaving(NewDevice(shared.port, "n8n")) as (new,):
            assert old.subscribe("n8/#", 1) == [1]
            new.subscribe("n8/#", qos=1, noLocal=True)
            new.publish("n8/t", "from new", ContentType="x", UserProperty=[("k", "v")])
            assert old.messages.get(timeout=TIMEOUT_S).payload == b"from new"
            old.client.publish("n8/t", "from old", 1)
            message = new.message()
            assert message.payload == b"from old" and message.properties.isEmpty()
    finally:
        old.client.disconnect()
        old.client.loop_stop()
