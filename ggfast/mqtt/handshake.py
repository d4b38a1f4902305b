"""CONNECT: who comes in, on which terms, and what the CONNACK says about them.

    CONNECT -> checks -> hooks.authenticate -> claim of the client id -> session starts -> CONNACK -> what waits

Nothing is entered before `claim`; from there on every failure takes back what was done: there is one client per
client id and no session that belongs to nobody.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING, cast

from ggfast._ext.framing import (
    ACCEPTED,
    IDENTIFIER_REJECTED,
    LEVEL_5,
    LEVEL_31,
    LEVEL_311,
    SERVER_UNAVAILABLE,
    UNACCEPTABLE_LEVEL,
    Connack,
    Connect,
)
from ggfast._ext.properties import Value
from ggfast.errors import NotAuthorized, Violation
from ggfast.limits import BROKER_CLIENT_ID_BYTES_MAX, BROKER_WILL_FREE_BYTES, MQTT_PACKET_BYTES_MAX
from ggfast.mqtt.hooks import Accepted, Client, ConnectInfo, Refused
from ggfast.mqtt.reasons import Reason
from ggfast.mqtt.sessions import NEVER
from ggfast.mqtt.wills import StoredWill, check_will, stored_will

if TYPE_CHECKING:
    from ggfast.mqtt.broker import Broker
    from ggfast.mqtt.connection import Connection

BRIDGE_MARK = 0x80
PACKET_BYTES_TOP = MQTT_PACKET_BYTES_MAX + 5  # with its fixed header

logger = logging.getLogger("ggfast.broker")


def connect(connection: Connection, packet: Connect) -> None:
    """Let the client in or turn it away. Raises PeerError for what only closing answers."""
    broker = connection.broker
    connection.level = _dialect(packet.level)
    if connection.level != packet.level:
        return connection.refuse(Refused(UNACCEPTABLE_LEVEL))
    if packet.level == LEVEL_5:
        connection.wants_reasons = bool(packet.properties.get("request_problem_information", 1))
        # No packet is larger than this, and more does not fit the lane's integers on a 32-bit machine.
        connection.packet_bytes_max = min(_number(packet, "maximum_packet_size", 0), PACKET_BYTES_TOP)
    client_id = packet.client_id or _assigned_id(packet)
    fault = _fault(packet, client_id)
    if fault is not None:
        return connection.refuse(fault)
    if packet.will is not None:
        try:
            check_will(packet.will, broker.router, broker.limits.payload_bytes_max)
        except NotAuthorized as error:
            return connection.refuse(Refused(Reason.NOT_AUTHORIZED, str(error)))
    info = ConnectInfo(
        client_id,
        packet.username,
        packet.password,
        packet.level,
        packet.clean,
        connection.peer,
        connection.certificate,
        cast(tuple[tuple[str, str], ...], packet.properties.get("user_property", ())),
    )
    try:
        verdict = broker.hooks.authenticate(info)
    except Exception:
        logger.exception("client could not be authenticated client=%s peer=%s", client_id, connection.peer)
        verdict = Refused(SERVER_UNAVAILABLE)
    if isinstance(verdict, Refused):
        return connection.refuse(verdict)
    _enter(connection, packet, client_id, verdict)
    return None


def _dialect(level: int) -> int:
    """The level to answer in: a later version than ours gets 5.0's form. From 0x80 on it is an earlier one with the
    mark of bridges, which fall back to the plain level when 3.1.1's code tells them to."""
    if LEVEL_31 <= level <= LEVEL_5:
        return level
    return LEVEL_5 if LEVEL_5 < level < BRIDGE_MARK else LEVEL_311


def _assigned_id(packet: Connect) -> str:
    """An id for a client without one: "" where it needed one [MQTT-3.1.3-8, MQTT5-3.1.3-6]."""
    if packet.level == LEVEL_31 or (packet.level == LEVEL_311 and not packet.clean):
        return ""
    return f"auto-{secrets.token_hex(12)}"


def _fault(packet: Connect, client_id: str) -> Refused | None:
    """Why this CONNECT cannot be accepted from anybody."""
    if not client_id:
        return Refused(IDENTIFIER_REJECTED)
    size = len(client_id.encode())
    if size > BROKER_CLIENT_ID_BYTES_MAX:
        return Refused(IDENTIFIER_REJECTED, f"a client id of {size} bytes, the limit is {BROKER_CLIENT_ID_BYTES_MAX}")
    method = packet.properties.get("authentication_method")
    if method is not None:
        return Refused(Reason.BAD_AUTHENTICATION_METHOD, "This server knows no enhanced authentication.")
    return None


def _enter(connection: Connection, packet: Connect, client_id: str, accepted_as: Accepted) -> None:
    """The client is in: its session starts or goes on, and its CONNACK is the first it hears."""
    broker, session = connection.broker, connection.session
    source, name = accepted_as.source, accepted_as.session or client_id
    if connection.is_closing:  # by a hook
        return None
    asked_s = _number(packet, "session_expiry_interval", 0)
    if packet.level < LEVEL_5:
        connection.expiry_s = 0 if packet.clean else NEVER
    else:
        connection.expiry_s = min(asked_s, broker.limits.session_expiry_max_s)
    keep_alive_s = _keep_alive(packet, broker)
    accepted = Connack(False, ACCEPTED, {})
    if packet.level == LEVEL_5:
        accepted = accepted._replace(properties=_terms(connection, packet, client_id, asked_s, keep_alive_s))
    if not connection.fits(accepted):
        raise Violation(
            f"a Maximum Packet Size of {connection.packet_bytes_max} bytes leaves no room for the CONNACK",
            reason_code=Reason.PACKET_TOO_LARGE,
        )
    will = None if packet.will is None else stored_will(packet.will, source)
    if will is not None and _too_much(will, broker):
        most = broker.limits.will_bytes_max
        text = f"a will of {will.size} bytes; those of all clients together may have {most}"
        return connection.refuse(Refused(Reason.QUOTA_EXCEEDED, text))
    client = Client(name, source, connection.peer, connection.expiry_s == 0, packet.level)
    stored = broker.claim(connection, client, packet.clean)
    try:
        if connection.is_closing:  # by a hook or a sink that heard of the one taken over
            return None
        session.start(
            name,
            source,
            packet.level,
            client.clean,
            keep_alive_s,
            broker.clock.monotonic(),
            receive_maximum=_number(packet, "receive_maximum", 65535),
            packet_bytes_max=connection.packet_bytes_max,
            topic_alias_max=_number(packet, "topic_alias_maximum", 0),
            problem_info=connection.wants_reasons,
        )
        resumed = stored is not None and packet.level != LEVEL_31
        connection.answer(accepted._replace(session_present=resumed))
        connection.will = will
        if stored is not None:
            session.adopt(stored)
            broker.router.replace(stored, session)
            stored = None
            session.replay()
        else:
            broker.router.join(session)
    finally:
        if stored is not None:
            broker.absent.discard(stored)
    broker.entered(connection)
    return None


def _too_much(will: StoredWill, broker: Broker) -> bool:
    """Whether the wills of all would pass their bound with this one. Counted only for a large one: it takes a while."""
    return will.size > BROKER_WILL_FREE_BYTES and broker.will_bytes() + will.size > broker.limits.will_bytes_max


def _keep_alive(packet: Connect, broker: Broker) -> int:
    """Seconds; only MQTT 5.0 has a way to tell the client of another value than its own."""
    most = broker.limits.keep_alive_max_s
    if packet.level < LEVEL_5 or not most or 0 < packet.keep_alive_s <= most:
        return packet.keep_alive_s
    return most


def _terms(
    connection: Connection, packet: Connect, client_id: str, asked_s: int, keep_alive_s: int
) -> dict[str, Value]:
    """What the CONNACK says: every bound of ours, and whatever differs from what the client asked for."""
    limits = connection.broker.limits
    terms: dict[str, Value] = {}
    if connection.expiry_s != asked_s:
        terms["session_expiry_interval"] = connection.expiry_s  # [MQTT5-3.2.2.3.2]
    terms["receive_maximum"] = limits.receive_max
    if limits.packet_bytes_max < MQTT_PACKET_BYTES_MAX:
        terms["maximum_packet_size"] = limits.packet_bytes_max
    if not packet.client_id:
        terms["assigned_client_identifier"] = client_id  # [MQTT5-3.1.3-7]
    if limits.aliases_max:
        terms["topic_alias_maximum"] = limits.aliases_max
    if keep_alive_s != packet.keep_alive_s:
        terms["server_keep_alive"] = keep_alive_s  # [MQTT5-3.1.2-21]
    return terms


def _number(packet: Connect, name: str, default: int) -> int:
    return cast(int, packet.properties.get(name, default))
