"""SUBSCRIBE and UNSUBSCRIBE, and retained messages on their way to a new subscription."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from ggfast._ext.framing import LEVEL_5, SUBACK_FAILURE, Ack, Suback, Subscribe, Unsuback, Unsubscribe
from ggfast._ext.routes import Router
from ggfast.errors import Violation
from ggfast.limits import BROKER_PACKET_FILTERS_MAX
from ggfast.mqtt.reasons import Reason
from ggfast.mqtt.retained import RetainedMessage

if TYPE_CHECKING:
    from ggfast.mqtt.connection import Connection

RETAINED_AT_ONCE = 256  # retained messages handed out in one turn of the loop
FILTER_COST = 200  # bytes of the objects around one subscription
LEVEL_COST = 320  # and of a level in the tree
LOOKED_AT_FOR_ONE_SENT = 64  # a look-up passes at most every message, each at this part of what sending one costs

QOS = 3  # the bits of subscription options [MQTT5-3.8.3.1]
RETAIN_HANDLING = 0x30
SEND_IF_NEW = 0x10
SEND_NEVER = 0x20
IDENTIFIER_SHIFT = 8  # in the lane's form the subscription identifier stands above the options

SHARED = b"$share/"


def subscribe(connection: Connection, packet: Subscribe) -> None:
    """Grant the filters, answer, then hand out what is retained for them [MQTT-3.8.4, MQTT5-3.8.4]."""
    _check_count("SUBSCRIBE", len(packet.filters))
    identifier = cast(int, packet.properties.get("subscription_identifier", 0))
    codes, wanted = [], []
    for pattern, flags in packet.filters:
        options = flags | identifier << IDENTIFIER_SHIFT
        code, new = _grant(connection, pattern, options)
        codes.append(code)
        if code <= QOS and _retained_wanted(pattern, options, new):
            wanted.append((pattern, options))
    if not connection.answer(Suback(packet.packet_id, tuple(codes), {})):
        raise _too_large("SUBACK", connection)
    for pattern, options in wanted:
        if connection.broker.retained.count:
            if connection.hand_out is None:
                connection.hand_out = HandOut(connection)
            connection.hand_out.add(pattern, options)
    if connection.hand_out is not None:
        connection.hand_out.begin()


def unsubscribe(connection: Connection, packet: Unsubscribe) -> None:
    """Take the filters away and answer, for MQTT 5.0 filter by filter [MQTT-3.10.4-4, MQTT5-3.11.3-1]."""
    _check_count("UNSUBSCRIBE", len(packet.filters))
    codes = tuple(
        Reason.SUCCESS if _withdraw(connection, pattern) else Reason.NO_SUBSCRIPTION_EXISTED
        for pattern in packet.filters
    )
    if connection.level < LEVEL_5:
        connection.answer(Ack("UNSUBACK", packet.packet_id))
    elif not connection.answer(Unsuback(packet.packet_id, codes, {})):
        raise _too_large("UNSUBACK", connection)


def filter_cost(router: Router, pattern: bytes) -> int:
    """What a subscription costs in memory, about; the open mode has a tree of all filters."""
    return FILTER_COST + len(pattern) + (LEVEL_COST * (pattern.count(b"/") + 1) if router.open else 0)


def _withdraw(connection: Connection, pattern: bytes) -> bool:
    router = connection.broker.router
    known = router.unsubscribe(connection.session, pattern)
    if known:
        connection.filter_bytes -= filter_cost(router, pattern)
    return known


def _check_count(name: str, count: int) -> None:
    if count > BROKER_PACKET_FILTERS_MAX:
        raise Violation(
            f"{name} with {count} topic filters, the limit is {BROKER_PACKET_FILTERS_MAX}",
            reason_code=Reason.QUOTA_EXCEEDED,
        )


def _too_large(name: str, connection: Connection) -> Violation:
    return Violation(
        f"the {name} does not fit the client's Maximum Packet Size of {connection.packet_bytes_max} bytes",
        reason_code=Reason.PACKET_TOO_LARGE,
    )


def _grant(connection: Connection, pattern: bytes, options: int) -> tuple[int, bool]:
    """(code for the SUBACK, whether the subscription is new). Raises Malformed for what is no filter at all."""
    broker, session = connection.broker, connection.session
    known, cost = session.subscriptions, filter_cost(broker.router, pattern)
    if pattern not in known and (
        len(known) >= broker.limits.subscriptions_max or connection.filter_bytes + cost > broker.limits.filter_bytes_max
    ):
        broker.counters.add("broker.refused.subscriptions")
        return (SUBACK_FAILURE if connection.level < LEVEL_5 else Reason.QUOTA_EXCEEDED), False
    try:
        if not broker.router.may_subscribe(session.source, pattern):
            broker.counters.add("broker.refused.subscriptions")
            return (SUBACK_FAILURE if connection.level < LEVEL_5 else Reason.NOT_AUTHORIZED), False
        broker.system.notice(session, pattern)
        new = broker.router.subscribe(session, pattern, options)
        connection.filter_bytes += cost if new else 0
        return options & QOS, new
    except Violation as error:
        # A filter past our bounds costs a 5.0 client that one subscription only.
        if connection.level < LEVEL_5 or error.reason_code != Reason.TOPIC_FILTER_INVALID:
            raise
        broker.counters.add("broker.refused.subscriptions")
        return Reason.TOPIC_FILTER_INVALID, False


def _retained_wanted(pattern: bytes, options: int, new: bool) -> bool:
    """By Retain Handling, and never for shared subscriptions [MQTT5-3.3.1-9 to -11, MQTT5-4.8.2]."""
    if pattern.startswith(SHARED):
        return False
    handling = options & RETAIN_HANDLING
    return handling == 0 or (handling == SEND_IF_NEW and new)


class HandOut:
    """Retained messages for one client: sent while it takes them, a bounded piece in each turn of the loop.

    A filter waits as itself and is looked up when its turn comes, so that neither many filters nor one filter many
    times cost more than their names meanwhile.
    """

    __slots__ = ("_connection", "_due", "_found", "_options", "_pattern", "_waiting")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: dict[bytes, int] = {}  # filter -> options, first come first
        self._found: Iterator[RetainedMessage] | None = None  # what is left of the filter whose turn it is
        self._pattern = b""
        self._options = 0
        self._due = False

    def add(self, pattern: bytes, options: int) -> None:
        """What is retained for a filter shall be handed out."""
        self._waiting[pattern] = options

    def begin(self) -> None:
        """Hand out now what one turn of the loop allows; asking again within the turn adds nothing to that."""
        if not self._due:
            self.go_on_soon()
            self.go_on()

    def go_on_soon(self) -> None:
        """Go on with the loop's next turn."""
        if not self._due:
            self._due = True
            self._connection.broker.loop.call_soon(self._turn)

    def go_on(self) -> None:
        """Send while the client takes them; `relieved` goes on [MQTT-3.3.1-6]."""
        connection = self._connection
        session = connection.session
        left = RETAINED_AT_ONCE
        while connection.client is not None and not session.congested and (self._found or self._waiting):
            if left <= 0:
                self.go_on_soon()
                break
            if self._found is None:
                left -= self._look_up()
            message = next(self._found, None) if self._found and self._pattern in session.subscriptions else None
            if message is None:
                self._found = None
                continue
            left -= 1
            self._send(message)
        session.flush()
        if self._found is None and not self._waiting and not self._due and connection.hand_out is self:
            connection.hand_out = None

    def _look_up(self) -> int:
        """Find what is retained for the next filter; what that counts as, in messages sent."""
        retained = self._connection.broker.retained
        self._pattern = next(iter(self._waiting))
        self._options = self._waiting.pop(self._pattern)
        self._found = iter(retained.matching(self._pattern))
        return 1 + retained.count // LOOKED_AT_FOR_ONE_SENT

    def _turn(self) -> None:
        self._due = False
        self.go_on()

    def _send(self, message: RetainedMessage) -> None:
        """What is kept there now, which may be newer than when the client subscribed, or gone."""
        broker, session = self._connection.broker, self._connection.session
        current = broker.retained.get(message.source, message.topic)
        if current is None or not broker.router.allows(current.source, current.topic, session.source):
            return
        session.offer(
            current.topic,
            current.payload,
            min(current.qos, self._options & QOS),
            True,
            current.properties,
            current.expires,
            self._options,
        )
