"""One client's connection: the transport on one side, the session on the other, and the rare packets.

The loop calls `data_received`, which is the session's own C method: no Python runs for PUBLISH and
acknowledgements. What needs policy comes back here through the session's `owner` calls (see SessionOwner in
ggfast/_ext/recipient.pyi): CONNECT goes to handshake.py, SUBSCRIBE and UNSUBSCRIBE to subscribing.py; how a
connection ends is decided here.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, cast

from ggfast._ext.framing import (
    LEVEL_5,
    Auth,
    Bare,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Subscribe,
    Unsubscribe,
    encode,
)
from ggfast._ext.session import Session
from ggfast._ext.wire import Wire
from ggfast.errors import NotAuthorized, PeerError, Violation
from ggfast.mqtt import handshake, subscribing
from ggfast.mqtt.hooks import NOT_AUTHORIZED, Client, Refused
from ggfast.mqtt.reasons import Reason, connack_code, disconnect_code, reason_of
from ggfast.mqtt.wills import StoredWill

if TYPE_CHECKING:
    from ggfast.mqtt.broker import Broker

logger = logging.getLogger("ggfast.broker")

CLOSE_GRACE_S = 5.0  # a peer that does not take its last bytes by then is cut off
REASON_CHARACTERS_MAX = 1_024  # of a reason string; it is for people
OUR_FAULT = "The server could not handle the packet."


class Connection(asyncio.Protocol):
    """From accept to close. `client` is set while the client is in."""

    __slots__ = (
        "_closing",
        "_left",
        "_resume_due",
        "_transport",
        "broker",
        "certificate",
        "client",
        "data_received",
        "expiry_s",
        "filter_bytes",
        "hand_out",
        "level",
        "made_at",
        "packet_bytes_max",
        "peer",
        "session",
        "wants_reasons",
        "will",
    )

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._transport: asyncio.Transport | None = None
        self._closing = False
        self._left = False
        self._resume_due = False
        self.session = Session(broker.router, broker.session_limits, self)
        # uvloop looks this up once per connection: from then on a read goes straight into C.
        self.data_received = self.session.data_received  # type: ignore[method-assign]
        self.client: Client | None = None
        self.certificate: bytes | None = None
        self.peer = ""
        self.made_at = 0.0
        # What the CONNECT says; handshake.py fills it in.
        self.level = 0  # 0: no CONNECT yet
        self.wants_reasons = True
        self.packet_bytes_max = 0  # the client's Maximum Packet Size; 0: none
        self.expiry_s = 0  # how long the session outlives the connection
        self.will: StoredWill | None = None
        self.hand_out: subscribing.HandOut | None = None
        self.filter_bytes = 0  # what its subscriptions cost

    # --- called by the transport -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is done."""
        self._transport = cast(asyncio.Transport, transport)
        self.made_at = self.broker.clock.monotonic()
        self.peer = _address(transport.get_extra_info("peername"))
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self.certificate = tls.getpeercert(binary_form=True)
        self._transport.set_write_buffer_limits(high=self.broker.limits.write_high_bytes)
        self.session.attach(transport if isinstance(transport, Wire) else self._transport.write)
        if not self.broker.opened(self):
            self._closing = self._left = True
            self.session.detach(False)
            self._transport.abort()
        elif self.broker.prepare is not None and not self.broker.prepare(self.certificate, self._let_in):
            self.session.wait(True)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, by whosever doing."""
        self._closing = True
        self._leave("connection lost" if exc is None else f"connection lost: {exc}")
        self._transport = None

    def pause_writing(self) -> None:
        """The transport's buffer is above its high water mark."""
        self.session.pause_writing()

    def resume_writing(self) -> None:
        """The transport has drained."""
        self.session.resume_writing()

    # --- called by the session -------------------------------------------------------------------------

    def packet(self, packet: Connect | Subscribe | Unsubscribe | Bare | Disconnect | Auth) -> None:
        """A packet that needs policy; a PeerError ends in `failed`."""
        if isinstance(packet, Connect):
            handshake.connect(self, packet)
        elif isinstance(packet, Subscribe):
            subscribing.subscribe(self, packet)
        elif isinstance(packet, Unsubscribe):
            subscribing.unsubscribe(self, packet)
        elif isinstance(packet, Auth):
            raise Violation(
                "AUTH, but the CONNECT named no authentication method [MQTT5-4.12.0-6]",
                reason_code=Reason.PROTOCOL_ERROR,
            )
        else:
            self._disconnected(packet)

    def failed(self, error: Exception) -> None:
        """The client broke the protocol, or handling it broke: the connection ends, nobody else is touched."""
        if self._closing:
            return
        if isinstance(error, PeerError):
            denied = isinstance(error, NotAuthorized)
            self.broker.counters.add(f"broker.closed.{'not_authorized' if denied else 'protocol_error'}")
            logger.info("client broke the protocol client=%s peer=%s: %s", self._name(), self.peer, error)
        else:
            self.broker.counters.add("broker.closed.internal_error")
            logger.error("packet could not be handled client=%s", self._name(), exc_info=error)
        if not self.level and self.session.level == LEVEL_5:  # it is the CONNECT that cannot be read
            self.level = LEVEL_5
        self.drop(str(error), reason_of(error), None if isinstance(error, PeerError) else OUR_FAULT)

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
            self.broker.loop.call_soon(self._resume)

    def relieved(self) -> None:
        """The client takes messages again: go on handing out retained ones."""
        if self.hand_out is not None:
            self.hand_out.go_on_soon()

    def _let_in(self) -> None:
        """The broker's owner can decide about this client now."""
        self.session.wait(False)

    def _resume(self) -> None:
        self._resume_due = False
        self.session.resume()

    # --- answers ---------------------------------------------------------------------------------------

    def fits(self, packet: Packet) -> bool:
        """Whether the client's Maximum Packet Size lets it have this packet."""
        return not 0 < self.packet_bytes_max < len(encode(packet, self.level))

    def answer(self, packet: Packet) -> bool:
        """Send in the client's dialect; False, and nothing sent, past its Maximum Packet Size [MQTT5-3.1.2-24]."""
        data = encode(packet, self.level)
        if 0 < self.packet_bytes_max < len(data):
            return False
        self.session.send(data)
        return True

    def _tell(self, packet: Connack | Disconnect, text: str) -> None:
        """Answer with a reason string if the client wants it and it fits [MQTT5-3.2.2-19, MQTT5-3.14.2-3]."""
        if text and self.wants_reasons:
            clean = text[:REASON_CHARACTERS_MAX].replace("\0", "").encode(errors="replace").decode()
            if self.answer(packet._replace(properties={**packet.properties, "reason_string": clean})):
                return
        self.answer(packet)

    # --- the end ---------------------------------------------------------------------------------------

    def refuse(self, refused: Refused) -> None:
        """Answer the CONNECT with why not, and close [MQTT-3.2.2-5, MQTT5-3.2.2-7]."""
        if self._closing:
            return
        self.broker.counters.add("broker.refused.connects")
        if refused.code in (NOT_AUTHORIZED, Reason.NOT_AUTHORIZED):
            logger.info("client is not authorised peer=%s", self.peer)
        code = connack_code(refused.code, self.level)
        if self.level < LEVEL_5:
            self.answer(Connack(False, code))
        else:
            moved = refused.server_reference and code in (Reason.USE_ANOTHER_SERVER, Reason.SERVER_MOVED)
            self._tell(
                Connack(False, code, {"server_reference": refused.server_reference} if moved else {}), refused.reason
            )
        self._end(f"refused with code {code}")

    def drop(self, reason: str, code: int | None = None, text: str | None = None) -> None:
        """End the connection now: the session leaves, the will goes out, what was written is still sent.

        MQTT 5.0 clients are told `code` with `text` (or `reason`): by CONNACK before they are in, else by
        DISCONNECT [MQTT5-4.13.1-1, MQTT5-4.13.2-1]. No code: the client has ended it and is told nothing.
        """
        if self._closing:
            return
        if code is not None and self.level >= LEVEL_5:
            if self.client is None:
                self._tell(Connack(False, connack_code(code, self.level), {}), reason if text is None else text)
            else:
                self._tell(Disconnect(disconnect_code(code), {}), reason if text is None else text)
        self._end(reason)

    def _disconnected(self, packet: Bare | Disconnect) -> None:
        """The client says goodbye; only a normal one takes its will back [MQTT-3.14.4-3, MQTT5-3.14.4-3]."""
        if isinstance(packet, Disconnect):
            expiry_s = cast(int | None, packet.properties.get("session_expiry_interval"))
            most_s = self.broker.limits.session_expiry_max_s
            if expiry_s is not None:
                if expiry_s and most_s and not self.expiry_s:
                    raise Violation(
                        f"DISCONNECT asks for a session expiry of {expiry_s} s, CONNECT for none [MQTT5-3.14.2.2.2]",
                        reason_code=Reason.PROTOCOL_ERROR,
                    )
                self.expiry_s = min(expiry_s, most_s)
            if packet.code != Reason.SUCCESS:
                self.drop(f"disconnected by the client with reason 0x{packet.code:02x}")
                return
        self.will = None
        self.drop("disconnected by the client")

    def _end(self, reason: str) -> None:
        if self._closing:
            return
        self._closing = True
        self.session.flush()
        self._leave(reason)
        transport = self._transport
        if transport is None:
            return
        unsent = transport.get_write_buffer_size() > 0
        transport.close()
        if unsent:
            self.broker.loop.call_later(CLOSE_GRACE_S, transport.abort)

    def _leave(self, reason: str) -> None:
        if self._left:
            return
        self._left = True
        self.hand_out = None
        self.broker.left(self, reason)

    @property
    def is_closing(self) -> bool:
        """Whether the end has begun."""
        return self._closing

    def _name(self) -> str:
        return self.client.client_id if self.client is not None else "-"


def _address(peer: object) -> str:
    """`address:port` of what the transport calls its peer."""
    if isinstance(peer, tuple) and len(peer) >= 2:
        return f"[{peer[0]}]:{peer[1]}" if ":" in str(peer[0]) else f"{peer[0]}:{peer[1]}"
    return str(peer)
