"""MQTT 5.0 clients coming in and going: the terms of a CONNACK, and the reason at every end."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from ggfast._ext.framing import (
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
    decode,
)
from ggfast._ext.routes import Router
from ggfast.cli import broker as command
from ggfast.mqtt.hooks import Accepted, Client, ConnectInfo, OpenHooks, Refused
from ggfast.mqtt.limits import BrokerLimits
from ggfast.mqtt.reasons import Reason, connack_code, disconnect_code
from tests.model.broker import PING, PONG, MemoryBroker, MemoryClient

NEVER = 0xFFFF_FFFF


def connect(world: MemoryBroker, client_id: str = "c", **properties: Any) -> tuple[MemoryClient, Connack]:
    """A 5.0 client and its CONNACK, whatever that says."""
    client = world.open()
    answer = client.ask(Connect(5, True, 0, client_id, properties=properties))
    assert len(answer) == 1 and isinstance(answer[0], Connack), answer
    return client, answer[0]


def goodbye(client: MemoryClient) -> tuple[int, str]:
    """The reason of the DISCONNECT that ends what the broker wrote, and its text."""
    assert client.closed
    *_, last = client.take()
    assert isinstance(last, Disconnect), last
    return last.code, str(last.properties.get("reason_string", ""))


# --- the terms -----------------------------------------------------------------------------------------


def test_connack_names_the_bounds_of_the_broker() -> None:
    limits = BrokerLimits(receive_max=7, packet_bytes_max=70_000, aliases_max=3)
    _, connack = connect(MemoryBroker(limits=limits))
    assert connack == Connack(False, 0, {"receive_maximum": 7, "maximum_packet_size": 70_000, "topic_alias_maximum": 3})


def test_connack_says_nothing_of_aliases_where_there_are_none() -> None:
    _, connack = connect(MemoryBroker(limits=BrokerLimits(aliases_max=0)))
    assert "topic_alias_maximum" not in connack.properties


@pytest.mark.parametrize("clean", [True, False])
def test_a_client_without_an_id_is_given_one(clean: bool) -> None:
    world = MemoryBroker()
    client = world.open()
    (connack,) = client.ask(Connect(5, clean, 0, ""))
    assert isinstance(connack, Connack) and connack.code == 0
    assigned = connack.properties["assigned_client_identifier"]
    assert [status.client_id for status in world.broker.clients()] == [assigned]


@pytest.mark.parametrize(
    ("asked", "most", "told", "kept"),
    [
        (None, NEVER, None, 0),
        (0, NEVER, None, 0),
        (60, NEVER, None, 60),
        (60, 60, None, 60),
        (61, 60, 60, 60),
        (NEVER, 60, 60, 60),
        (NEVER, NEVER, None, NEVER),
        (5, 0, 0, 0),
    ],
)
def test_session_expiry_is_bounded_and_told_when_it_differs(
    asked: int | None, most: int, told: int | None, kept: int
) -> None:
    world = MemoryBroker(limits=BrokerLimits(session_expiry_max_s=most))
    client, connack = connect(world, **({} if asked is None else {"session_expiry_interval": asked}))
    assert connack.properties.get("session_expiry_interval") == told
    assert client.protocol.expiry_s == kept
    assert world.broker.clients()[0].clean == (kept == 0)


@pytest.mark.parametrize(
    ("asked", "most", "told"), [(0, 0, None), (9, 0, None), (30, 30, None), (0, 30, 30), (31, 30, 30)]
)
def test_the_server_may_set_the_keep_alive(asked: int, most: int, told: int | None) -> None:
    world = MemoryBroker(limits=BrokerLimits(keep_alive_max_s=most))
    client = world.open()
    (connack,) = client.ask(Connect(5, True, asked, "c"))
    assert isinstance(connack, Connack)
    assert connack.properties.get("server_keep_alive") == told
    in_force = asked if told is None else told
    assert world.broker.clients()[0].keep_alive_s == in_force
    world.loop.advance(1.5 * in_force + 2)
    assert client.closed == (in_force > 0)


def test_a_311_client_keeps_its_own_keep_alive() -> None:
    world = MemoryBroker(limits=BrokerLimits(keep_alive_max_s=30))
    client = world.connect("old")
    world.loop.advance(100)
    assert not client.closed


def test_response_information_is_asked_for_in_vain() -> None:
    _, connack = connect(MemoryBroker(), request_response_information=1)
    assert connack.code == 0 and "response_information" not in connack.properties


def test_hooks_see_level_and_user_properties() -> None:
    seen: list[ConnectInfo] = []

    class Seeing(OpenHooks):
        def authenticate(self, info: ConnectInfo) -> Accepted | Refused:
            seen.append(info)
            return Accepted(info.client_id)

        def connected(self, client: Client) -> None:
            assert (client.level, client.clean) == (5, True)

    connect(MemoryBroker(hooks=Seeing()), user_property=(("a", "1"), ("a", "2")))
    assert (seen[0].level, seen[0].user_properties) == (5, (("a", "1"), ("a", "2")))


# --- refusals ------------------------------------------------------------------------------------------


class Refusing(OpenHooks):
    """Refuses with what the test wants."""

    def __init__(self, verdict: Refused | Exception) -> None:
        self.verdict = verdict

    def authenticate(self, info: ConnectInfo) -> Accepted | Refused:
        """The verdict."""
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict


@pytest.mark.parametrize(
    ("code", "in_311", "in_5"),
    [
        (1, 1, 0x84),
        (2, 2, 0x85),
        (3, 3, 0x88),
        (4, 4, 0x86),
        (5, 5, 0x87),
        (Reason.UNSUPPORTED_VERSION, 1, 0x84),
        (Reason.CLIENT_ID_NOT_VALID, 2, 0x85),
        (Reason.BAD_CREDENTIALS, 4, 0x86),
        (Reason.NOT_AUTHORIZED, 5, 0x87),
        (Reason.BANNED, 5, 0x8A),
        (Reason.BAD_AUTHENTICATION_METHOD, 5, 0x8C),
        (Reason.SERVER_BUSY, 3, 0x89),
        (Reason.QUOTA_EXCEEDED, 3, 0x97),
        (Reason.CONNECTION_RATE_EXCEEDED, 3, 0x9F),
        (0x42, 3, 0x82),
    ],
)
def test_a_refusal_speaks_the_clients_version(code: int, in_311: int, in_5: int) -> None:
    world = MemoryBroker(hooks=Refusing(Refused(code)))
    old, new = world.open(), world.open()
    assert old.ask(Connect(4, True, 0, "c")) == [Connack(False, in_311)]
    assert new.ask(Connect(5, True, 0, "c")) == [Connack(False, in_5)]
    assert old.closed and new.closed
    assert world.broker.connection_count == 0


def test_a_refusal_may_explain_itself_and_name_another_server() -> None:
    refused = Refused(Reason.SERVER_MOVED, "moved to the cellar", "broker2:1883")
    world = MemoryBroker(hooks=Refusing(refused))
    _, told = connect(world)
    assert told == Connack(False, 0x9D, {"server_reference": "broker2:1883", "reason_string": "moved to the cellar"})
    _, silent = connect(world, request_problem_information=0)
    assert silent == Connack(False, 0x9D, {"server_reference": "broker2:1883"})
    _, small = connect(world, maximum_packet_size=30)
    assert small == Connack(False, 0x9D, {"server_reference": "broker2:1883"})


def test_a_server_reference_needs_a_reason_that_has_one() -> None:
    _, told = connect(MemoryBroker(hooks=Refusing(Refused(5, "", "elsewhere"))))
    assert told == Connack(False, 0x87)


def test_a_failing_hook_refuses() -> None:
    world = MemoryBroker(hooks=Refusing(RuntimeError("no")))
    client, told = connect(world)
    assert told == Connack(False, 0x88) and client.closed


def test_a_level_above_5_is_answered_in_5s_form() -> None:
    world = MemoryBroker()
    client = world.open()
    client.level = 5
    client.send(b"\x10\x0d\x00\x04MQTT\x06\x02\x00\x00\x00\x01c")
    (connack,) = client.take()
    assert isinstance(connack, Connack) and connack.code == 0x84 and client.closed


@pytest.mark.parametrize("level", [1, 2])
def test_a_level_below_3_is_answered_in_311s_form(level: int) -> None:
    client = MemoryBroker().open()
    client.send(b"\x10\x0d\x00\x04MQTT" + bytes((level,)) + b"\x02\x00\x00\x00\x01c")
    assert client.take() == [Connack(False, 1)]
    assert client.closed


def test_enhanced_authentication_is_not_spoken() -> None:
    client, connack = connect(MemoryBroker(), authentication_method="SCRAM", authentication_data=b"x")
    assert connack.code == 0x8C and client.closed


def test_authentication_data_needs_a_method() -> None:
    client, connack = connect(MemoryBroker(), authentication_data=b"x")
    assert connack.code == 0x82 and client.closed


@pytest.mark.parametrize(
    ("will", "code"),
    [
        (Will(b"a/#", b"", 0, False), 0x90),
        (Will(b"", b"", 0, False), 0x90),
        (Will(b"t", bytes(2_000), 0, False), 0x95),
        (Will(b"$SYS/broker/uptime", b"", 0, False), 0x87),
    ],
)
def test_a_will_that_could_not_go_out_keeps_the_client_out(will: Will, code: int) -> None:
    world = MemoryBroker(limits=BrokerLimits(payload_bytes_max=1_000))
    new, old = world.open(), world.open()
    (connack,) = new.ask(Connect(5, True, 0, "c", will))
    assert isinstance(connack, Connack) and connack.code == code
    assert old.ask(Connect(4, True, 0, "c", will)) == ([Connack(False, 5)] if code == 0x87 else [])
    assert new.closed and old.closed
    assert world.broker.clients() == []


def test_a_connect_that_cannot_be_read_gets_its_reason() -> None:
    world = MemoryBroker()
    client = world.open()
    client.level = 5
    client.send(b"\x10\x0d\x00\x04MQTT\x05\x03\x00\x00\x00\x00\x00")  # the reserved flag
    (connack,) = client.take()
    assert isinstance(connack, Connack) and connack.code == 0x81 and client.closed


def test_a_connack_that_does_not_fit_the_client() -> None:
    world = MemoryBroker()
    client, connack = connect(world, maximum_packet_size=8)
    assert connack == Connack(False, 0x95) and client.closed
    tiny = world.open()
    assert tiny.ask(Connect(5, True, 0, "c", properties={"maximum_packet_size": 4})) == []
    assert tiny.closed and world.broker.clients() == []


# --- the end -------------------------------------------------------------------------------------------


def test_every_client_hears_that_the_broker_stops() -> None:
    world = MemoryBroker()
    new, old = world.connect("new", level=5), world.connect("old")
    world.broker.close()
    assert goodbye(new)[0] == Reason.SERVER_SHUTTING_DOWN
    assert old.take() == [] and old.closed


def test_administrators_may_end_a_connection() -> None:
    world = MemoryBroker()
    client = world.connect("c", level=5)
    world.broker.disconnect("c")
    assert goodbye(client)[0] == Reason.ADMINISTRATIVE_ACTION


def test_a_silent_client_is_told_so() -> None:
    world = MemoryBroker()
    client = world.connect("c", level=5, keep_alive_s=10)
    world.loop.advance(14)
    assert not client.closed
    world.loop.advance(2)
    assert goodbye(client)[0] == Reason.KEEP_ALIVE_TIMEOUT


@pytest.mark.parametrize("older_level", [4, 5])
@pytest.mark.parametrize("newer_level", [4, 5])
def test_the_older_connection_hears_of_the_newer(older_level: int, newer_level: int) -> None:
    world = MemoryBroker()
    older = world.connect("c", level=older_level)
    newer = world.connect("c", level=newer_level)
    assert older.closed and not newer.closed
    if older_level == 5:
        assert goodbye(older)[0] == Reason.SESSION_TAKEN_OVER
    else:
        assert older.take() == []
    assert newer.ask(PING) == [PONG]
    assert len(world.broker.clients()) == 1


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (b"\x30\x03\x00\x05t", 0x81),  # topic longer than its packet
        (b"\x36\x06\x00\x01t\x00\x01\x00", 0x81),  # QoS 3
        (b"\x90\x05\x00\x01\x00\x00\x00", 0x82),  # a server's packet
        (Connect(5, True, 0, "c"), 0x82),
        (Auth(0x18), 0x82),
        (Auth(0x19, {"authentication_method": "x"}), 0x82),
        (Publish(b"a/#", b""), 0x90),
        (Publish(b"", b""), 0x82),  # neither topic nor alias
        (Publish(b"t", b"", properties={"topic_alias": 33}), 0x94),
        (Publish(b"t", bytes(2_000)), 0x95),
        (Publish(b"t", bytes(20_000)), 0x95),
        (Subscribe(1, ((b"a/#/b", 0),)), 0x8F),
        (Subscribe(1, ((b"$share/g/t", 4),)), 0x82),  # shared and no-local
        (Unsubscribe(1, (b"#/a",)), 0x8F),
        (Disconnect(0, {"session_expiry_interval": 5}), 0x82),  # there was none
    ],
)
def test_mistakes_are_answered_with_their_reason(packet: Packet | bytes, code: int) -> None:
    world = MemoryBroker(limits=BrokerLimits(payload_bytes_max=1_000, packet_bytes_max=10_000))
    client, silent = (
        world.connect("c", level=5),
        world.connect("s", level=5, properties={"request_problem_information": 0}),
    )
    for one in (client, silent):
        one.send(packet)
    found, text = goodbye(client)
    assert found == code and text
    assert goodbye(silent) == (code, "")
    assert world.broker.clients() == []
    assert world.count("broker.closed.protocol_error") == 2


def test_too_many_unfinished_qos_2_messages() -> None:
    world = MemoryBroker(limits=BrokerLimits(receive_max=2))
    client = world.connect("c", level=5)
    assert len(client.ask(*(Publish(b"t", b"", 2, packet_id=number) for number in (1, 2)))) == 2
    client.send(Publish(b"t", b"", 2, packet_id=3))
    assert goodbye(client)[0] == Reason.RECEIVE_MAXIMUM_EXCEEDED


def test_a_reason_string_must_fit() -> None:
    world = MemoryBroker()
    client = world.connect("c", level=5, properties={"maximum_packet_size": 24})
    client.send(Auth(0x18))
    assert goodbye(client) == (0x82, "")


def test_answers_that_do_not_fit_end_the_connection() -> None:
    world = MemoryBroker()
    filters = tuple((b"t/%d" % number, 0) for number in range(40))
    for request in (Subscribe(1, filters), Unsubscribe(1, tuple(pattern for pattern, _ in filters))):
        client = world.connect("c", level=5, properties={"maximum_packet_size": 24})
        client.send(request)
        assert goodbye(client) == (0x95, "")


def test_our_own_failure_is_not_explained_to_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(OpenHooks):
        def connected(self, client: Client) -> None:
            raise RuntimeError("secret")

    world = MemoryBroker(hooks=Broken())
    client = world.open()
    client.send(Connect(5, False, 0, "c", properties={"session_expiry_interval": 9}))
    code, text = goodbye(client)
    assert code == Reason.IMPLEMENTATION_ERROR and "secret" not in text
    assert world.count("broker.closed.internal_error") == 1
    assert world.broker.connection_count == world.broker.client_count == 0


def test_a_client_that_says_goodbye_is_told_nothing() -> None:
    world = MemoryBroker()
    client = world.connect("c", level=5)
    client.send(Disconnect())
    assert client.closed and client.take() == []


def test_reasons_stay_within_what_their_packets_may_say() -> None:
    world = MemoryBroker(hooks=Refusing(Refused(Reason.SESSION_TAKEN_OVER)))
    assert connect(world)[1].code == 0x82
    for reason in (reason for reason in Reason if reason >= Reason.UNSPECIFIED_ERROR):
        assert connack_code(reason, 5) in (reason, Reason.PROTOCOL_ERROR)
        assert disconnect_code(reason) in (reason, Reason.PROTOCOL_ERROR)
        assert 1 <= connack_code(reason, 4) <= 5
    assert disconnect_code(Reason.BAD_AUTHENTICATION_METHOD) == Reason.PROTOCOL_ERROR


# --- nothing half entered ------------------------------------------------------------------------------


def test_a_hook_may_stop_the_broker_while_a_client_comes_in() -> None:
    class Stopping(OpenHooks):
        world: MemoryBroker

        def authenticate(self, info: ConnectInfo) -> Accepted | Refused:
            if info.client_id == "last":
                self.world.broker.close()
            return Accepted(info.client_id)

    hooks = Stopping()
    hooks.world = MemoryBroker(hooks=hooks)
    client = hooks.world.open()
    client.send(Connect(5, True, 0, "last"))
    assert client.closed
    assert hooks.world.broker.connection_count == hooks.world.broker.client_count == 0
    assert hooks.world.router.publish("x", b"t", b"") == 0


def test_a_hook_may_stop_the_broker_while_a_client_is_taken_over() -> None:
    class Stopping(OpenHooks):
        world: MemoryBroker

        def disconnected(self, client: Client, reason: str) -> None:
            self.world.broker.close()

    hooks = Stopping()
    hooks.world = MemoryBroker(hooks=hooks)
    kept = {"session_expiry_interval": 60}
    older = hooks.world.connect("c", (b"t", 1), level=5, properties=kept)
    newer = hooks.world.open()
    newer.send(Connect(5, False, 0, "c", properties=kept))
    assert older.closed and newer.closed
    assert hooks.world.broker.client_count == hooks.world.broker.connection_count == 0
    assert list(hooks.world.broker.sessions_away()) == ["c"]


def test_a_failure_while_a_session_is_taken_over_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    world = MemoryBroker()
    world.connect("c", (b"t", 1), level=5, properties={"session_expiry_interval": 60}).hang_up()

    class Failing(type(world.broker)):  # type: ignore[misc]
        def entered(self, connection: object) -> None:
            raise MemoryError("no")

    world.broker.__class__ = Failing
    client = world.open()
    client.send(Connect(5, False, 0, "c"))
    assert client.closed
    assert world.broker.clients() == []
    assert world.router.publish("x", b"t", b"", 1) == 0


def test_subscription_past_the_limit_is_refused_by_itself() -> None:
    world = MemoryBroker(limits=BrokerLimits(subscriptions_max=2))
    new, old = world.connect("new", level=5), world.connect("old")
    filters = tuple((pattern, 1) for pattern in (b"a", b"b", b"c", b"a"))
    assert new.ask(Subscribe(1, filters)) == [Suback(1, (1, 1, 0x97, 1))]
    assert old.ask(Subscribe(1, filters)) == [Suback(1, (1, 1, 0x80, 1))]
    assert world.count("broker.refused.subscriptions") == 2


def test_a_filter_past_our_bounds_costs_that_subscription_only() -> None:
    world = MemoryBroker(router=Router(True, topic_slashes_max=2))
    new, old = world.connect("new", level=5), world.connect("old")
    filters = ((b"a/b/c/d/e", 1), (b"a", 2))
    assert new.ask(Subscribe(1, filters)) == [Suback(1, (0x8F, 2))]
    old.send(Subscribe(1, filters))
    assert old.closed and not new.closed


def test_unsubscribe_answers_filter_by_filter() -> None:
    world = MemoryBroker()
    new, old = world.connect("new", (b"a", 0), level=5), world.connect("old", (b"a", 0))
    request = Unsubscribe(7, (b"a", b"b", b"a"))
    assert new.ask(request) == [Unsuback(7, (0, 0x11, 0x11))]
    assert old.ask(request) == [Ack("UNSUBACK", 7)]


def test_connack_bytes_as_the_specification_lays_them_out() -> None:
    client = MemoryBroker(limits=BrokerLimits(aliases_max=0, receive_max=3, packet_bytes_max=0x1234)).open()
    client.send(Connect(5, True, 0, "c"))
    data = bytes(client.transport.written)
    assert data == b"\x20\x0b\x00\x00\x08\x21\x00\x03\x27\x00\x00\x12\x34"
    assert decode(data, 5) == Connack(False, 0, {"receive_maximum": 3, "maximum_packet_size": 0x1234})


# --- the command's options -----------------------------------------------------------------------------


def parsed(*options: str) -> BrokerLimits:
    """The limits that options of `ggfast-core broker` make."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.broker_limits(parser.parse_args(options))


def test_options_set_the_terms() -> None:
    default, found = BrokerLimits(), parsed()
    for name in ("receive_max", "aliases_max", "session_expiry_max_s", "keep_alive_max_s"):
        assert getattr(found, name) == getattr(default, name)
    found = parsed(
        "--receive-max=7", "--topic-aliases=0", "--session-expiry-max=3600", "--keep-alive-max=60"
    )  # fmt: skip
    assert (found.receive_max, found.aliases_max) == (7, 0)
    assert (found.session_expiry_max_s, found.keep_alive_max_s) == (3600, 60)


@pytest.mark.parametrize(
    "option",
    [
        "--receive-max=0",
        "--receive-max=65536",
        "--topic-aliases=-1",
        "--session-expiry-max=4294967296",
        "--keep-alive-max=x",
    ],
)
def test_options_out_of_range_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(option)
    assert option.split("=")[0] in capsys.readouterr().err
