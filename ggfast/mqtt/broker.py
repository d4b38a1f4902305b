"""The MQTT broker: listeners, the clients that are in, sessions whose client is away, retained messages, time.

    listener -> Connection -> Session -> Router -> Sessions, functions, sinks
                    |  claim / entered / left
                    v
                 Broker    (one client per client id; one sweep for keep-alives, stalls, expiries and counters)

Everything runs on one loop. Nothing here is called for an ordinary PUBLISH.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ggfast._ext.buffers import take_released
from ggfast._ext.framing import LEVEL_5
from ggfast._ext.routes import Router
from ggfast._ext.session import Session
from ggfast._ext.transport import give_back_memory
from ggfast.clock import Clock
from ggfast.counters import Counters
from ggfast.errors import PeerError
from ggfast.limits import BROKER_TRIM_AGAIN_TICKS, BROKER_TRIM_BYTES, BROKER_TRIM_CLOSED, BROKER_TRIM_TICKS
from ggfast.mqtt.connection import Connection
from ggfast.mqtt.hooks import Client, Hooks
from ggfast.mqtt.limits import BrokerLimits
from ggfast.mqtt.reasons import Reason
from ggfast.mqtt.retained import Retained
from ggfast.mqtt.sessions import NEVER, AbsentSessions
from ggfast.mqtt.status import SystemTopics
from ggfast.mqtt.subscribing import filter_cost
from ggfast.mqtt.wills import StoredWill
from ggfast.net.listener import Acceptor, listen

logger = logging.getLogger("ggfast.broker")


@dataclass(frozen=True, slots=True)
class ClientStatus:
    """One session for `status`; counts and bytes."""

    client_id: str
    source: str
    peer: str  # "" while the client is away
    state: str
    level: int  # 3, 4 or 5
    clean: bool
    keep_alive_s: int
    subscriptions: int
    inflight: int
    waiting: int
    stored_bytes: int
    output_bytes: int
    messages_in: int
    messages_out: int
    dropped: int
    congested: bool
    frozen: bool


class Listener:
    """One listening socket being served."""

    def __init__(self, broker: Broker, server: Acceptor | asyncio.AbstractServer) -> None:
        self._broker = broker
        self._server: Acceptor | asyncio.AbstractServer | None = server

    def close(self) -> None:
        """Accept nobody more; connections that are there stay. Safe to call twice."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._broker.listeners.discard(self)


class Broker:
    """See the module. `limits` bound it, `hooks` decide who comes in, `router` who gets what."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        router: Router,
        hooks: Hooks,
        limits: BrokerLimits,
        clock: Clock,
        counters: Counters,
    ) -> None:
        self.loop = loop
        self.router = router
        self.hooks = hooks
        self.limits = limits
        self.clock = clock
        self.counters = counters
        self.session_limits = limits.for_sessions()
        self.retained = Retained(limits.retained_bytes_max, counters)
        self.absent = AbsentSessions(router, limits.sessions_offline_max, counters, self.publish_will)
        self.system = SystemTopics(self)
        # Asked with the certificate (DER) of each new connection: False, and nothing of it is handled before the
        # callback is called. For owners that look clients up elsewhere: `hooks.authenticate` must not wait.
        self.prepare: Callable[[bytes | None, Callable[[], None]], bool] | None = None
        self.started_at = clock.monotonic()
        self.clients_most = 0
        self.listeners: set[Listener] = set()
        self._connections: set[Connection] = set()
        self._strangers: dict[Connection, None] = {}  # not in yet, oldest first
        self._clients: dict[str, Connection] = {}
        self._closed = False
        self._ended = 0  # connections since memory was given back,
        self._released = 0  # and bytes of large buffers
        self._ticks_since_trim = BROKER_TRIM_AGAIN_TICKS
        self._set_time(self.started_at)
        self.retained.sweep(router.now)
        router.retain = self._retain
        self._timer = loop.call_later(limits.tick_s, self._tick)

    # --- serving ---------------------------------------------------------------------------------------

    async def serve(self, sock: socket.socket, ssl_context: ssl.SSLContext | None = None) -> Listener:
        """Accept clients on a bound socket. The socket stays the caller's and open: it is duplicated here, so a
        second `serve` with a new context can take over before the first listener is closed."""
        own = sock.dup()
        try:
            server = await listen(
                self.loop, own, lambda: Connection(self), self.counters, ssl_context, self.limits.connect_timeout_s
            )
        except BaseException:
            own.close()
            raise
        listener = Listener(self, server)
        self.listeners.add(listener)
        return listener

    def close(self) -> None:
        """Stop listening, tell every client and close its connection, stop the sweep.

        Wills do not go out: whoever would get them is told goodbye too. Those of MQTT 5.0 sessions that outlive
        their connection wait with their session, for the next start [MQTT5-3.1.2.5].
        """
        if self._closed:
            return
        self._closed = True
        self._timer.cancel()
        for listener in list(self.listeners):
            listener.close()
        for connection in list(self._connections):
            connection.drop("the broker stops", Reason.SERVER_SHUTTING_DOWN)
        self.count()

    def disconnect(self, name: str) -> bool:
        """Close the connections of a client id or source name; False if there is none."""
        found = [
            connection
            for connection in self._clients.values()
            if connection.client is not None and name in (connection.client.client_id, connection.client.source)
        ]
        for connection in found:
            connection.drop("disconnected by the core", Reason.ADMINISTRATIVE_ACTION)
        return bool(found)

    def forget(self, name: str) -> bool:
        """Discard what is kept for an absent client (client id or source name), queue and subscriptions."""
        found = [key for key, entry in self.absent.items() if name in (key, entry.session.source)]
        for key in found:
            self.absent.end(key)
        return bool(found)

    # --- called by connections -------------------------------------------------------------------------

    def opened(self, connection: Connection) -> bool:
        """A transport is there; False if there are too many. The one that has kept silent longest gives way first:
        who only occupies places must not keep clients out."""
        if not self._closed and len(self._connections) >= self.limits.connections_max and self._strangers:
            self.counters.add("broker.closed.gave_way")
            next(iter(self._strangers)).drop("others were waiting and no CONNECT had come", Reason.SERVER_BUSY)
        if self._closed or len(self._connections) >= self.limits.connections_max:
            self.counters.add("broker.refused.connections")
            return False
        self._connections.add(connection)
        self._strangers[connection] = None
        return True

    def claim(self, connection: Connection, client: Client, clean_start: bool) -> Session | None:
        """Make the client id this connection's: the older connection is dropped [MQTT-3.1.4-2, MQTT5-3.1.4-3],
        and what is kept of a session is handed out, or ended for a clean start [MQTT-3.1.2-6, MQTT5-3.1.2-4]."""
        older = self._clients.get(client.client_id)
        if older is not None:
            self.counters.add("broker.closed.taken_over")
            older.drop("taken over by a newer connection", Reason.SESSION_TAKEN_OVER)
        if connection.is_closing:
            return None
        connection.client = client
        self._clients[client.client_id] = connection
        stored = self.absent.take(client.client_id)
        if stored is not None and (clean_start or stored.session.source != client.source):
            self.absent.finish(stored)
            stored = None
        return None if stored is None else stored.session

    def entered(self, connection: Connection) -> None:
        """The client is in."""
        assert connection.client is not None
        self.counters.add("broker.clients.connected")
        self._strangers.pop(connection, None)
        self.clients_most = max(self.clients_most, len(self._clients))
        for pattern in list(connection.session.subscriptions):
            self.system.notice(connection.session, pattern)
            connection.filter_bytes += filter_cost(self.router, pattern)
        self.hooks.connected(connection.client)

    def left(self, connection: Connection, reason: str) -> None:
        """The connection ends: its session ends too or waits for the client to come back, and its will goes out
        or waits with the session."""
        self._connections.discard(connection)
        self._strangers.pop(connection, None)
        self._ended += 1
        client, session, will = connection.client, connection.session, connection.will
        connection.client = connection.will = None
        if client is not None and self._clients.get(client.client_id) is connection:
            del self._clients[client.client_id]
        if client is None or not session.source:
            session.detach(False)
            return
        if self._closed and (session.level < LEVEL_5 or not connection.expiry_s):
            will = None
        if connection.expiry_s:
            waits = will is not None and (will.delay_s > 0 or self._closed)
            session.detach(True)
            self.absent.keep(
                client.client_id,
                session,
                self.clock.monotonic(),
                connection.expiry_s,
                will if waits else None,
                will.delay_s if will is not None else 0,
            )
            will = None if waits else will
        else:
            self.absent.discard(session)
        try:
            self.hooks.disconnected(client, reason)
        except Exception:
            logger.exception("a hook failed when a client left client=%s", client.client_id)
        if will is not None:
            self.publish_will(will)

    def publish_will(self, will: StoredWill) -> None:
        """Send a will to whom it reaches. Never raises: it is nobody's fault any more."""
        try:
            self.router.publish(
                will.source, will.topic, will.payload, will.qos, will.retain, will.properties, will.expiry_s
            )
        except Exception:
            self.counters.add("broker.dropped.will")
            logger.exception("a will could not be published source=%s", will.source)

    def will_bytes(self) -> int:
        """The wills of all clients, those that wait included. Looks at every session."""
        here = (connection.will for connection in self._clients.values())
        away = (entry.will for _, entry in self.absent.items())
        return sum(will.size for will in (*here, *away) if will is not None)

    # --- sessions whose client is away -----------------------------------------------------------------

    def restore_session(
        self,
        client_id: str,
        source: str,
        session: Session,
        filters: Iterable[tuple[bytes, int]],
        *,
        level: int = 4,
        expiry_s: float = NEVER,
        will: StoredWill | None = None,
        will_in_s: float = 0.0,
    ) -> None:
        """Take in a stored session at start: it gets messages until its client comes back or it expires."""
        now = self.clock.monotonic()
        session.start(client_id, source, level, False, 0, now)
        session.detach(True)
        self.router.join(session)
        for pattern, options in filters:
            try:
                self.router.subscribe(session, pattern, options)
            except PeerError as error:  # the bounds are narrower than when it was stored
                self.counters.add("broker.refused.subscriptions")
                logger.warning("a stored subscription is not taken over client=%s: %s", client_id, error)
        self.absent.keep(client_id, session, now, expiry_s, will, will_in_s)

    def session_of(self, client_id: str) -> Session | None:
        """The session kept under a name, its client here or away."""
        connection = self._clients.get(client_id)
        if connection is not None:
            return connection.session
        return self.absent.session_of(client_id)

    def sessions_away(self) -> dict[str, Session]:
        """The sessions that have no connection, by client id."""
        return {client_id: entry.session for client_id, entry in self.absent.items()}

    # --- looking in ------------------------------------------------------------------------------------

    @property
    def connection_count(self) -> int:
        """Connections, clients not yet in included."""
        return len(self._connections)

    @property
    def client_count(self) -> int:
        """Clients that are in."""
        return len(self._clients)

    def sessions(self) -> list[Session]:
        """Every session, those of connected clients first."""
        here = [connection.session for connection in self._clients.values()]
        return here + [entry.session for _, entry in self.absent.items()]

    def clients(self) -> list[ClientStatus]:
        """Every session, connected ones first."""
        here = [_status(connection.session, connection.peer) for connection in self._clients.values()]
        return here + [_status(entry.session, "") for _, entry in self.absent.items()]

    # --- the sweep -------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self.clock.monotonic()
        self._timer = self.loop.call_later(self.limits.tick_s, self._tick)
        self._set_time(now)
        for connection in list(self._connections):
            if connection.session.tick(now):
                self.counters.add("broker.closed.keep_alive")
                connection.drop("nothing was heard for one and a half times the keep-alive", Reason.KEEP_ALIVE_TIMEOUT)
            elif connection.client is None and now - connection.made_at > self.limits.connect_timeout_s:
                self.counters.add("broker.closed.no_connect")
                connection.drop("no CONNECT came in time")
        self.absent.sweep(now)
        expired = self.retained.sweep(self.router.now)
        if expired:
            self.counters.add("broker.retained.expired", expired)
        self.system.tick(now)
        self.count()
        self._give_back_memory()

    def _give_back_memory(self) -> None:
        """After many connections have ended or large buffers have shrunk, and once more when the last bytes of the
        slowest are gone too."""
        self.router.forget_stale()
        self._released += take_released()
        self._ticks_since_trim += 1
        due = self._ended >= BROKER_TRIM_CLOSED or self._released >= BROKER_TRIM_BYTES
        if (due and self._ticks_since_trim >= BROKER_TRIM_TICKS) or self._ticks_since_trim == BROKER_TRIM_AGAIN_TICKS:
            if due:
                self._ended = self._released = self._ticks_since_trim = 0
            give_back_memory()

    def _retain(self, source: str, topic: bytes, payload: bytes, qos: int, properties: bytes, expires: int) -> None:
        self.retained.put(source, topic, payload, qos, properties, expires)

    def _set_time(self, now: float) -> None:
        """Lane time: whole seconds since the start, beginning with 1."""
        self.router.set_time(1 + int(now - self.started_at))

    def count(self) -> None:
        """Take over what the lane has counted."""
        for name, amount in self.router.take_counts().items():
            self.counters.add(name, amount)


def _status(session: Session, peer: str) -> ClientStatus:
    return ClientStatus(
        client_id=session.client_id,
        source=session.source,
        peer=peer,
        state=session.state_name,
        level=session.level,
        clean=session.clean,
        keep_alive_s=session.keep_alive_s,
        subscriptions=len(session.subscriptions),
        inflight=session.inflight,
        waiting=session.waiting,
        stored_bytes=session.stored_bytes,
        output_bytes=session.output_bytes,
        messages_in=session.messages_in,
        messages_out=session.messages_out,
        dropped=session.dropped,
        congested=session.congested,
        frozen=session.frozen,
    )
