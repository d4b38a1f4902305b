"""One client's connection: the transport on one side, the session on the other, and the rare packets.

The loop calls `data_received`, which is the session's own C method: no Python runs for PUBLISH and
acknowledgements. What needs policy (CONNECT, SUBSCRIBE, UNSUBSCRIBE, DISCONNECT, errors) comes back here through
the session's `owner` calls (see SessionOwner in ggfast/_ext/session.pyi).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from ggfast._ext.framing import (
    ACCEPTED,
    IDENTIFIER_REJECTED,
    LEVEL_31,
    LEVEL_311,
    NOT_AUTHORIZED,
    SERVER_UNAVAILABLE,
    SUBACK_FAILURE,
    UNACCEPTABLE_LEVEL,
    Ack,
    Bare,
    Connack,
    Connect,
    Suback,
    Subscribe,
    Unsubscribe,
    Will,
    encode,
)
from ggfast._ext.session import Session
from ggfast._ext.topics import check_topic
from ggfast._ext.wire import Wire
from ggfast.errors import PeerError, Violation
from ggfast.mqtt.hooks import Client, ConnectInfo, Refused
from ggfast.mqtt.retained import RetainedMessage

if TYPE_CHECKING:
    from ggfast.mqtt.broker import Broker

logger = logging.getLogger("ggfast.broker")

RETAINED_AT_ONCE = 256  # retained messages handed out in one turn of the loop
CLOSE_GRACE_S = 5.0  # a peer that does not take its last bytes by then is cut off


class Connection(asyncio.Protocol):
    """From accept to close. `client` is set while the client is in."""

    __slots__ = (
        "_broker",
        "_closing",
        "_resume_due",
        "_retained",
        "_transport",
        "certificate",
        "client",
        "data_received",
        "made_at",
        "peer",
        "session",
        "will",
    )

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._transport: asyncio.Transport | None = None
        self._closing = False
        self._resume_due = False
        self._retained: deque[tuple[Iterator[RetainedMessage], int]] | None = None
        self.session = Session(broker.router, broker.session_limits, self)
        # uvloop looks this up once per connection: from then on a read goes straight into C.
        self.data_received = self.session.data_received  # type: ignore[method-assign]
        self.client: Client | None = None
        self.will: Will | None = None
        self.certificate: bytes | None = None
        self.peer = ""
        self.made_at = 0.0

    # --- called by the transport -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is done."""
        self._transport = cast(asyncio.Transport, transport)
        self.made_at = self._broker.clock.monotonic()
        self.peer = _address(transport.get_extra_info("peername"))
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self.certificate = tls.getpeercert(binary_form=True)
        self._transport.set_write_buffer_limits(high=self._broker.limits.write_high_bytes)
        self.session.attach(transport if isinstance(transport, Wire) else self._transport.write)
        if not self._broker.opened(self):
            self._closing = True
            self.session.detach(False)
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, by whosever doing."""
        self._leave("connection lost" if exc is None else f"connection lost: {exc}")
        self._transport = None

    def pause_writing(self) -> None:
        """The transport's buffer is above its high water mark."""
        self.session.pause_writing()

    def resume_writing(self) -> None:
        """The transport has drained."""
        self.session.resume_writing()

    # --- called by the session -------------------------------------------------------------------------

    def packet(self, packet: Connect | Subscribe | Unsubscribe | Bare) -> None:
        """A packet that needs policy; a PeerError ends in `failed`."""
        if isinstance(packet, Connect):
            self._connect(packet)
        elif isinstance(packet, Subscribe):
            self._subscribe(packet)
        elif isinstance(packet, Unsubscribe):
            for pattern in packet.filters:
                self._broker.router.unsubscribe(self.session, pattern)
            self.session.send(encode(Ack("UNSUBACK", packet.packet_id)))
        else:
            self.will = None  # [MQTT-3.14.4-3]
            self.drop("disconnected by the client")

    def failed(self, error: Exception) -> None:
        """The client broke the protocol, or handling it broke: the connection ends, nobody else is touched."""
        if isinstance(error, PeerError):
            self._broker.counters.add("broker.closed.protocol_error")
            logger.info("client broke the protocol client=%s peer=%s: %s", self._name(), self.peer, error)
        else:
            self._broker.counters.add("broker.closed.internal_error")
            logger.error("packet could not be handled client=%s", self._name(), exc_info=error)
        self.drop(str(error))

    def pause_reading(self) -> None:
        """Back-pressure: take nothing more from this client."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take from this client again."""
        if self._transport is not None and not self._closing:
            self._transport.resume_reading()

    def resume_soon(self) -> None:
        """Handle the input that waits, on the loop's next turn."""
        if not self._resume_due:
            self._resume_due = True
            self._broker.loop.call_soon(self._resume)

    def relieved(self) -> None:
        """The client takes messages again: go on handing out retained ones."""
        if self._retained:
            self._broker.loop.call_soon(self._hand_out_retained)

    def _resume(self) -> None:
        self._resume_due = False
        self.session.resume()

    # --- the rare packets ------------------------------------------------------------------------------

    def _connect(self, packet: Connect) -> None:
        if packet.level not in (LEVEL_31, LEVEL_311):
            return self._refuse(UNACCEPTABLE_LEVEL)  # [MQTT-3.1.2-2]
        client_id = packet.client_id
        if not client_id:
            if not packet.clean or packet.level == LEVEL_31:
                return self._refuse(IDENTIFIER_REJECTED)  # [MQTT-3.1.3-8]
            client_id = f"auto-{secrets.token_hex(12)}"  # [MQTT-3.1.3-6]
        if packet.will is not None:
            self._check_will(packet.will)
        info = ConnectInfo(
            client_id,
            packet.username,
            packet.password,
            packet.level,
            packet.clean,
            self.peer,
            self.certificate,
        )
        try:
            verdict = self._broker.hooks.authenticate(info)
        except Exception:
            logger.exception("client could not be authenticated client=%s peer=%s", client_id, self.peer)
            verdict = Refused(SERVER_UNAVAILABLE)
        if isinstance(verdict, Refused):
            return self._refuse(verdict.code)
        self.will = packet.will
        self.client = Client(client_id, verdict.source, self.peer, packet.clean)
        stored = self._broker.claim(self)
        session = self.session
        now = self._broker.clock.monotonic()
        session.start(client_id, verdict.source, packet.level, packet.clean, packet.keep_alive_s, now)
        session.send(encode(Connack(stored is not None and packet.level != LEVEL_31, ACCEPTED)))
        if stored is not None:
            session.adopt(stored)
            self._broker.router.replace(stored, session)
            session.replay()
        else:
            self._broker.router.join(session)
        self._broker.entered(self)
        return None

    def _check_will(self, will: Will) -> None:
        router = self._broker.router
        fault = check_topic(will.topic, router.topic_bytes_max, router.topic_slashes_max)
        if fault is not None:
            raise Violation(f"will topic {will.topic[:256]!r} is not valid: {fault}")
        if len(will.payload) > self._broker.limits.payload_bytes_max:
            raise Violation(
                f"a will of {len(will.payload)} bytes, the limit is {self._broker.limits.payload_bytes_max}"
            )

    def _refuse(self, code: int) -> None:
        """Say why not, and close [MQTT-3.2.2-5]."""
        self._broker.counters.add("broker.refused.connects")
        if code == NOT_AUTHORIZED:
            logger.info("client is not authorised peer=%s", self.peer)
        self.session.send(encode(Connack(False, code)))
        self.drop(f"refused with return code {code}")

    def _subscribe(self, packet: Subscribe) -> None:
        session = self.session
        codes = []
        for pattern, qos in packet.filters:
            if (
                len(session.subscriptions) >= self._broker.limits.subscriptions_max
                and pattern not in session.subscriptions
            ):
                self._broker.counters.add("broker.refused.subscriptions")
                codes.append(SUBACK_FAILURE)
                continue
            self._broker.router.subscribe(session, pattern, qos)
            codes.append(qos)
        session.send(encode(Suback(packet.packet_id, tuple(codes))))
        for (pattern, qos), code in zip(packet.filters, codes, strict=True):
            if code != SUBACK_FAILURE and self._broker.retained.count:
                if self._retained is None:
                    self._retained = deque()
                self._retained.append((iter(self._broker.retained.matching(pattern)), qos))
        if self._retained:
            self._hand_out_retained()

    def _hand_out_retained(self) -> None:
        """Send retained messages while the client takes them; `relieved` goes on [MQTT-3.3.1-6]."""
        left = RETAINED_AT_ONCE
        while self._retained and self.client is not None and not self.session.is_congested:
            if left == 0:
                self._broker.loop.call_soon(self._hand_out_retained)
                break
            message = next(self._retained[0][0], None)
            if message is None:
                self._retained.popleft()
                continue
            left -= 1
            # What is kept there now, which may be newer than when the client subscribed.
            current = self._broker.retained.get(message.source, message.topic)
            if current is not None and self._broker.router.allows(current.source, current.topic, self.session.source):
                qos = min(current.qos, self._retained[0][1])
                self.session.offer(current.topic, current.payload, qos, True)
        self.session.flush()

    # --- the end ---------------------------------------------------------------------------------------

    def drop(self, reason: str) -> None:
        """End the connection now: the session leaves, the will goes out, what was written is still sent."""
        if self._closing:
            return
        self.session.flush()
        self._leave(reason)
        transport = self._transport
        if transport is None:
            return
        unsent = transport.get_write_buffer_size() > 0
        transport.close()
        if unsent:
            self._broker.loop.call_later(CLOSE_GRACE_S, transport.abort)

    def _leave(self, reason: str) -> None:
        if self._closing:
            return
        self._closing = True
        self._retained = None
        will, self.will = self.will, None
        self._broker.left(self, reason)
        if will is not None and self.session.source:
            self._broker.router.publish(self.session.source, *will)

    def _name(self) -> str:
        return self.client.client_id if self.client is not None else "-"


def _address(peer: object) -> str:
    """`address:port` of what the transport calls its peer."""
    if isinstance(peer, tuple) and len(peer) >= 2:
        return f"[{peer[0]}]:{peer[1]}" if ":" in str(peer[0]) else f"{peer[0]}:{peer[1]}"
    return str(peer)
