"""Accepts connections for a protocol: bounded per turn and per address, patient when the machine is short.

    listening socket -> Acceptor -> Arrivals (may this address?) -> Transport or TlsTransport -> protocol

What happens to a connection afterwards is none of its business: closing an acceptor leaves connections alone, and
several acceptors may share one socket, so that a new one can take over before the old one is closed.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import secrets
import socket
import ssl
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from ggfast import limits
from ggfast._ext.newcomers import Newcomers
from ggfast._ext.tls import Handshakes, TlsTransport, unusable
from ggfast._ext.transport import Transport, accept
from ggfast.counters import Counters

if TYPE_CHECKING:
    from ggfast._ext.transport import PeerName, TransportProtocol

logger = logging.getLogger("ggfast.broker")

# Without these the next attempt cannot go better: wait. Any other error is that one connection's.
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
CAUSES_MAX = 64  # of complaints remembered; a peer's doing has few, but their text is not ours
TLS_SHUTDOWN_TIMEOUT_S = 5.0  # for the peer's close_notify; embedded stacks often never send one
WAYS = 8  # addresses that share a place; the one unheard for longest gives way
_SEED = secrets.token_bytes(8)  # nobody outside can choose addresses that share a place
IPV6_SITE_BITS = 64  # whoever has one address of such a network has them all


class Arrivals:
    """How many connections an address may still make: a token bucket each, for the most recent addresses.

    Numbers in arrays, in sets of a few addresses: an object that outlives a storm of connections would hold on to
    the memory the storm took.
    """

    def __init__(self, burst: float, per_s: float, addresses_max: int) -> None:
        self._burst = burst
        self._per_s = per_s
        self._sets = max(1, addresses_max // WAYS)
        self._keys = array("q", bytes(8 * WAYS * self._sets))  # 0: free
        self._tokens = array("d", bytes(8 * WAYS * self._sets))
        self._counted_at = array("d", bytes(8 * WAYS * self._sets))

    def admit(self, address: object, now: float) -> bool:
        """Whether one more may come from `address` at `now` (seconds, monotonic); counts it if so."""
        key = hash((_SEED, address)) or 1
        first = key % self._sets * WAYS
        ways = range(first, first + WAYS)
        place = next((at for at in ways if self._keys[at] == key), None)
        if place is None:
            place = min(ways, key=lambda at: (self._keys[at] != 0, self._counted_at[at]))
            self._keys[place], self._tokens[place], self._counted_at[place] = key, self._burst, now
        tokens = min(self._burst, self._tokens[place] + (now - self._counted_at[place]) * self._per_s)
        admitted = tokens >= 1.0
        self._tokens[place] = tokens - 1.0 if admitted else tokens
        self._counted_at[place] = now
        return admitted

    def __len__(self) -> int:
        return sum(key != 0 for key in self._keys)


class Acceptor:
    """Takes connections from a listening socket, which it owns. Raises what the loop's `add_reader` raises."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        make_protocol: Callable[[], TransportProtocol],
        counters: Counters,
        arrivals: Arrivals | None = None,
        ssl_context: ssl.SSLContext | None = None,
        handshake_timeout_s: float = limits.BROKER_CONNECT_TIMEOUT_S,
        newcomers: Newcomers | None = None,
    ) -> None:
        self._loop = loop
        self._sock: socket.socket | None = sock
        self._fd = sock.fileno()
        self._make_protocol = make_protocol
        self._counters = counters
        if arrivals is None:
            per_s = limits.ARRIVALS_PER_S if ssl_context is None else limits.TLS_ARRIVALS_PER_S
            arrivals = Arrivals(limits.ARRIVALS_BURST, per_s, limits.ARRIVAL_ADDRESSES_MAX)
        self._arrivals = arrivals
        self._pause: asyncio.TimerHandle | None = None
        self._last_said: dict[str, float] = {}
        self._ssl_context = ssl_context
        if newcomers is None:
            newcomers = Newcomers(loop, limits.NEWCOMERS_SHARE, limits.NEWCOMERS_BURST_S)
        self._newcomers = newcomers
        self._handshakes = Handshakes(loop, self._handshake_failed, handshake_timeout_s)
        sock.setblocking(False)
        sock.listen(limits.LISTEN_BACKLOG)
        loop.add_reader(self._fd, self._acceptable)

    def close(self) -> None:
        """Accept nobody more; connections that are there stay. Safe to call twice."""
        if self._sock is None:
            return
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._fd)
        self._sock.close()
        self._sock = None

    def _acceptable(self) -> None:
        for number in range(limits.ACCEPTS_PER_TURN):
            if not self._newcomers.has_time():
                self._pause_for(limits.NEWCOMERS_PAUSE_S)
                return
            if not self._handshakes.has_room():
                if number == 0:  # that somebody knocks is sure only at the first
                    self._wait(f"{len(self._handshakes)} TLS handshakes are under way", limits.HANDSHAKE_PAUSE_S)
                return
            try:
                arrived = accept(self._fd)
            except OSError as error:
                if error.errno in SHORTAGES:
                    self._wait(error, limits.ACCEPT_PAUSE_S)
                    return
                self._counters.add("broker.refused.failed_accepts")
                continue
            if arrived is None:
                return
            began = self._newcomers.begin()
            self._take(*arrived)
            self._newcomers.end(began)

    def _take(self, fd: int, peer: PeerName) -> None:
        if not self._arrivals.admit(_site(peer), self._loop.time()):
            self._counters.add("broker.refused.too_fast")
            self._say("refused", "connections from %s come too fast; some are refused", peer)
            os.close(fd)
            return
        try:
            transport = self._make_transport(fd, peer)
            transport.meter(self._newcomers)
            transport.begin()
        except Exception:
            logger.exception("a connection could not be taken in peer=%s", peer)

    def _make_transport(self, fd: int, peer: PeerName) -> Transport:
        if self._ssl_context is None:
            try:
                protocol = self._make_protocol()
            except BaseException:
                os.close(fd)  # nobody else has it yet
                raise
            return Transport(self._loop, fd, protocol, peer)
        return TlsTransport(self._loop, fd, None, peer, self._ssl_context, self._handshakes, self._make_protocol)

    def _handshake_failed(self, peer: PeerName, reason: str) -> None:
        self._counters.add("broker.refused.handshakes")
        self._say(f"handshake: {reason}", "TLS handshake failed peer=%s: %s", peer, reason)

    def _wait(self, reason: object, pause_s: float) -> None:
        """Something is short: leave those who knock in the kernel's queue for a while."""
        self._counters.add("broker.accept_pauses")
        self._say("shortage", "no connection can be accepted at the moment: %s", reason)
        self._pause_for(pause_s)

    def _pause_for(self, pause_s: float) -> None:
        self._loop.remove_reader(self._fd)
        self._pause = self._loop.call_later(pause_s, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._fd, self._acceptable)

    def _say(self, cause: str, text: str, *values: object) -> None:
        """Log a complaint once a while; what happened in between is in the counters."""
        now = self._loop.time()
        if len(self._last_said) >= CAUSES_MAX:
            self._last_said.clear()
        if now - self._last_said.get(cause, -limits.COMPLAINT_S) >= limits.COMPLAINT_S:
            self._last_said[cause] = now
            logger.warning(text, *values)


async def listen(
    loop: asyncio.AbstractEventLoop,
    sock: socket.socket,
    make_protocol: Callable[[], TransportProtocol],
    counters: Counters,
    ssl_context: ssl.SSLContext | None,
    handshake_timeout_s: float,
) -> Acceptor | asyncio.AbstractServer:
    """Accept on a bound socket, which is owned from the successful return on.

    Our own transports where the loop and the Python allow it; else the loop's, with the reason logged.
    """
    reason = None if ssl_context is None else unusable(ssl_context)
    if reason is None:
        try:
            return Acceptor(
                loop, sock, make_protocol, counters, ssl_context=ssl_context, handshake_timeout_s=handshake_timeout_s
            )
        except NotImplementedError:
            reason = "the loop cannot watch descriptors"
    logger.warning("connections use the event loop's own, slower transports: %s", reason)
    return await loop.create_server(
        cast("Callable[[], asyncio.Protocol]", make_protocol),
        sock=sock,
        ssl=ssl_context,
        backlog=limits.LISTEN_BACKLOG,
        ssl_handshake_timeout=handshake_timeout_s if ssl_context else None,
        ssl_shutdown_timeout=TLS_SHUTDOWN_TIMEOUT_S if ssl_context else None,
    )


def _site(peer: PeerName) -> object:
    """What of a peer's address is counted: an IPv4 address, an IPv6 network."""
    if not isinstance(peer, tuple):
        return peer
    if ":" not in peer[0]:
        return peer[0]
    address = ipaddress.IPv6Address(peer[0].partition("%")[0])
    return str(address.ipv4_mapped) if address.ipv4_mapped else int(address) >> (128 - IPV6_SITE_BITS)
