"""The HTTP server's connections as a whole: whose they are, how many there may be, when one has taken too long.

Everybody here has the same address, so limits are per owner: whoever a connection's first good request belongs to.
"""

from __future__ import annotations

import asyncio
import socket

from ggfast import limits
from ggfast._ext.newcomers import Newcomers
from ggfast.counters import Counters
from ggfast.net.http import Connection, Handler
from ggfast.net.listener import Acceptor, Arrivals


class Owner:
    """One known client with all its connections."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.connections: dict[Connection, None] = {}
        self.meter = Newcomers(loop, limits.HTTP_SHARE, limits.HTTP_BURST_S)
        self._loop = loop
        self._held: asyncio.TimerHandle | None = None

    @property
    def is_held(self) -> bool:
        """Whether it has used up its time and nothing of it is read."""
        return self._held is not None

    @property
    def unparsed(self) -> int:
        """Bytes read before that, which wait."""
        return sum(connection.unparsed for connection in self.connections)

    def hold(self) -> None:
        """Read from none of its connections for a while: what they send stays in the kernel, which bounds it."""
        if self._held is None:
            self._held = self._loop.call_later(limits.HTTP_PAUSE_S, self._go_on)
            for connection in list(self.connections):
                connection.hold()

    def _go_on(self) -> None:
        self._held = None
        if not self.meter.has_time():
            self._held = self._loop.call_later(limits.HTTP_PAUSE_S, self._go_on)
            return
        for connection in list(self.connections):
            if connection in self.connections:
                self.connections[connection] = self.connections.pop(connection)  # the next time it is the last
                connection.go_on()
            if self._held is not None:
                return

    @property
    def unwritten(self) -> int:
        """Bytes of answers it has not taken yet."""
        return sum(connection.unwritten for connection in self.connections)

    def close(self) -> None:
        """End all its connections."""
        if self._held is not None:
            self._held.cancel()
            self._held = None
        for connection in list(self.connections):
            connection.abort()


class HttpServer:
    """Serves a handler on sockets that listen; owns them and every connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handler: Handler, counters: Counters) -> None:
        self.loop = loop
        self.handler = handler
        self.counters = counters
        self.newcomers = Newcomers(loop, limits.HTTP_SHARE, limits.HTTP_BURST_S)
        self.strangers: dict[Connection, None] = {}
        self._owners: dict[Owner, None] = {}
        self._known = 0
        self._acceptors: list[Acceptor] = []
        self._sweep: asyncio.TimerHandle | None = None

    def serve(self, sock: socket.socket) -> None:
        """Accept from one more socket. Returns at once."""
        for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):  # connections get the listener's
            sock.setsockopt(socket.SOL_SOCKET, buffer, limits.HTTP_SOCKET_BYTES)
        everybody = Arrivals(float("inf"), 0.0, 1)  # all clients have one address: limits are per owner instead
        self._acceptors.append(
            Acceptor(self.loop, sock, lambda: Connection(self), self.counters, everybody, newcomers=self.newcomers)
        )

    def close(self) -> None:
        """Stop accepting and end every connection."""
        for acceptor in self._acceptors:
            acceptor.close()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for owner in list(self._owners):
            owner.close()
        for connection in self._all():
            connection.abort()

    def __len__(self) -> int:
        return self._known + len(self.strangers)

    def add(self, connection: Connection) -> None:
        """A new connection; where strangers are too many the oldest makes room."""
        if len(self.strangers) >= limits.HTTP_STRANGERS_MAX:
            self.counters.add("http.dropped.strangers")
            oldest = next((found for found in self.strangers if found.expendable), next(iter(self.strangers)))
            self._end(oldest)
        self.strangers[connection] = None
        if self._sweep is None:
            self._sweep = self.loop.call_later(limits.HTTP_SWEEP_S, self._look)

    def remove(self, connection: Connection) -> None:
        """A connection is over; harmless when repeated."""
        owner, connection.owner = connection.owner, None
        if owner is None:
            self.strangers.pop(connection, None)
            return
        del owner.connections[connection]
        self._known -= 1
        if not owner.connections:
            del self._owners[owner]

    def assign(self, connection: Connection, owner: Owner) -> bool:
        """A connection shows whose it is; False when the owner has enough, or all owners together."""
        if len(owner.connections) >= limits.HTTP_WORKER_CONNECTIONS_MAX:
            self.counters.add("http.refused.connections")
            return False
        if self._known >= limits.HTTP_CONNECTIONS_MAX:
            self.counters.add("http.refused.connections")
            richest = max(self._owners, key=lambda known: len(known.connections))
            if len(richest.connections) <= len(owner.connections) + 1:
                return False
            self._end(next(iter(richest.connections)))
        self.remove(connection)
        connection.owner = owner
        owner.connections[connection] = None
        self._owners[owner] = None
        self._known += 1
        return True

    def _end(self, connection: Connection) -> None:
        self.remove(connection)
        connection.abort()

    def _look(self) -> None:
        self._sweep = None
        now = self.loop.time()
        for connection in self._all():
            connection.look(now)
        if len(self):
            self._sweep = self.loop.call_later(limits.HTTP_SWEEP_S, self._look)

    def _all(self) -> list[Connection]:
        return [*self.strangers, *(connection for owner in self._owners for connection in owner.connections)]
