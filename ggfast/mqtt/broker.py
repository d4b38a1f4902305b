"""The MQTT broker: listeners, the clients that are in, sessions whose client is away, retained messages, time.

    listener -> Connection -> Session -> Router -> Sessions, functions, sinks
                    |  claim / entered / left
                    v
                 Broker    (one client per client id; one sweep for keep-alives, stalls and counters)

Everything runs on one loop. Nothing here is called for an ordinary PUBLISH.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass

from ggfast._ext.routes import Router
from ggfast._ext.session import Session
from ggfast.clock import Clock
from ggfast.counters import Counters
from ggfast.mqtt.connection import Connection
from ggfast.mqtt.hooks import Hooks
from ggfast.mqtt.limits import BrokerLimits
from ggfast.mqtt.retained import Retained
from ggfast.net.listener import Acceptor, listen

logger = logging.getLogger("ggfast.broker")


@dataclass(frozen=True, slots=True)
class ClientStatus:
    """One session for `status`; counts and bytes."""

    client_id: str
    source: str
    peer: str  # "" while the client is away
    state: str
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
        self.listeners: set[Listener] = set()
        self._connections: set[Connection] = set()
        self._clients: dict[str, Connection] = {}
        self._away: dict[str, Session] = {}
        self._closed = False
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
        """Stop listening, close every connection without its will, stop the sweep."""
        if self._closed:
            return
        self._closed = True
        self._timer.cancel()
        for listener in list(self.listeners):
            listener.close()
        for connection in list(self._connections):
            connection.will = None
            connection.drop("the broker stops")
        self._count()

    def disconnect(self, name: str) -> bool:
        """Close the connections of a client id or source name; False if there is none."""
        found = [
            connection
            for connection in self._clients.values()
            if connection.client is not None and name in (connection.client.client_id, connection.client.source)
        ]
        for connection in found:
            connection.drop("disconnected by the core")
        return bool(found)

    def forget(self, name: str) -> bool:
        """Discard what is kept for an absent client (client id or source name), queue and subscriptions."""
        found = [key for key, session in self._away.items() if name in (key, session.source)]
        for key in found:
            self._discard(self._away.pop(key))
        return bool(found)

    # --- called by connections -------------------------------------------------------------------------

    def opened(self, connection: Connection) -> bool:
        """A transport is there; False if there are too many."""
        if self._closed or len(self._connections) >= self.limits.connections_max:
            self.counters.add("broker.refused.connections")
            return False
        self._connections.add(connection)
        return True

    def claim(self, connection: Connection) -> Session | None:
        """Make the client id this connection's: the older connection is dropped [MQTT-3.1.4-2], and what is
        kept of a persistent session is handed out, or discarded for a clean start [MQTT-3.1.2-6]."""
        client = connection.client
        assert client is not None
        older = self._clients.get(client.client_id)
        if older is not None:
            self.counters.add("broker.closed.taken_over")
            older.drop("taken over by a newer connection")
        self._clients[client.client_id] = connection
        stored = self._away.pop(client.client_id, None)
        if stored is not None and (client.clean or stored.source != client.source):
            self._discard(stored)
            stored = None
        return stored

    def entered(self, connection: Connection) -> None:
        """The client is in."""
        assert connection.client is not None
        self.counters.add("broker.clients.connected")
        self.hooks.connected(connection.client)

    def left(self, connection: Connection, reason: str) -> None:
        """The connection ends; its session goes away or waits for the client to come back."""
        self._connections.discard(connection)
        client, session = connection.client, connection.session
        if client is not None and self._clients.get(client.client_id) is connection:
            del self._clients[client.client_id]
        if client is None or not session.source:
            session.detach(False)
            return
        if session.clean:
            self._discard(session)
        else:
            session.detach(True)
            self._keep_away(client.client_id, session)
        connection.client = None
        try:
            self.hooks.disconnected(client, reason)
        except Exception:
            logger.exception("a hook failed when a client left client=%s", client.client_id)

    # --- sessions whose client is away -----------------------------------------------------------------

    def restore_session(
        self, client_id: str, source: str, session: Session, filters: Iterable[tuple[bytes, int]]
    ) -> None:
        """Take in a stored session at start: it gets messages until its client comes back."""
        session.start(client_id, source, 4, False, 0, self.clock.monotonic())
        session.detach(True)
        self.router.join(session)
        for pattern, qos in filters:
            self.router.subscribe(session, pattern, qos)
        self._keep_away(client_id, session)

    def sessions_away(self) -> dict[str, Session]:
        """The persistent sessions that have no connection, by client id."""
        return dict(self._away)

    def _keep_away(self, client_id: str, session: Session) -> None:
        self._away[client_id] = session
        if len(self._away) > self.limits.sessions_offline_max:
            oldest = next(iter(self._away))
            self.counters.add("broker.dropped.oldest_session")
            self._discard(self._away.pop(oldest))

    def _discard(self, session: Session) -> None:
        self.router.leave(session)
        session.detach(False)

    # --- looking in ------------------------------------------------------------------------------------

    @property
    def connection_count(self) -> int:
        """Connections, clients not yet in included."""
        return len(self._connections)

    def clients(self) -> list[ClientStatus]:
        """Every session, connected ones first."""
        here = [_status(connection.session, connection.peer) for connection in self._clients.values()]
        return here + [_status(session, "") for session in self._away.values()]

    # --- the sweep -------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self.clock.monotonic()
        self._timer = self.loop.call_later(self.limits.tick_s, self._tick)
        for connection in list(self._connections):
            if connection.session.tick(now):
                self.counters.add("broker.closed.keep_alive")
                connection.drop("nothing was heard for one and a half times the keep-alive")
            elif connection.client is None and now - connection.made_at > self.limits.connect_timeout_s:
                self.counters.add("broker.closed.no_connect")
                connection.drop("no CONNECT came in time")
        self._count()

    def _count(self) -> None:
        for name, amount in self.router.take_counts().items():
            self.counters.add(name, amount)

    def _retain(self, source: str, topic: bytes, payload: bytes, qos: int) -> None:
        self.retained.put(source, topic, payload, qos)


def _status(session: Session, peer: str) -> ClientStatus:
    return ClientStatus(
        client_id=session.client_id,
        source=session.source,
        peer=peer,
        state=session.state_name,
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
        congested=session.is_congested,
        frozen=session.is_frozen,
    )
