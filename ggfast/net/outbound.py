"""Connections to servers elsewhere: names, TCP, an HTTP proxy where one is set, TLS; each step with its own time limit.

    connect ──TCP──► [proxy: TLS if it is https, CONNECT] ──TLS──► Pipe

Every failure is a LinkDown that says what failed and why, certificates in the words of V1 (greengrass-core Appendix
B, 17.6). A new Pipe begins with each layer, so that nothing said in clear is taken for something said in TLS.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import os
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, cast
from urllib.parse import urlsplit

from ggfast import limits
from ggfast.config import NetworkProxy
from ggfast.errors import LinkDown, Malformed
from ggfast.net.httpanswer import AnswerReader

EXPIRED_TEXT: Final = "x509: certificate has expired or is not yet valid"
UNKNOWN_AUTHORITY_TEXT: Final = "x509: certificate signed by unknown authority"
# OpenSSL's numbers of verification results.
_DATES: Final = frozenset({9, 10})
_NO_AUTHORITY: Final = frozenset({2, 18, 19, 20, 21})
_OTHER_NAME: Final = frozenset({62, 64})


@asynccontextmanager
async def within(seconds: float, what: str) -> AsyncIterator[None]:
    """Raise LinkDown when the block takes longer."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise LinkDown(f"{what} took longer than {seconds:g} s.") from None


class Pipe(asyncio.Protocol):
    """The bytes of one connection, read when they are wanted. What waits unread is bounded."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.ended = False
        self._error: Exception | None = None
        self._parts: deque[bytes] = deque()
        self._held = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None

    # --- what the loop calls ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Keep it, and stop reading while too much is kept."""
        self._parts.append(data)
        self._held += len(data)
        if self._held > limits.LINK_UNREAD_BYTES_MAX and self.transport is not None:
            self.transport.pause_reading()
            self._paused = True
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """No more bytes will come."""
        self.ended, self._error = True, error
        self._wake()

    def eof_received(self) -> None:
        """The other side says no more; the transport closes itself."""
        self.ended = True
        self._wake()

    # --- what the client calls --------------------------------------------------------------------------

    @property
    def is_quiet(self) -> bool:
        """Whether the connection stands and nothing has come that was not asked for."""
        return not self.ended and not self._parts

    async def read(self) -> bytes:
        """The next bytes, b"" at the end. Raises OSError (ssl.SSLError among them) if the connection broke."""
        while not self._parts:
            if self.ended:
                if self._error is not None:
                    raise self._error
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = self._parts.popleft()
        self._held -= len(data)
        if self._paused and not self._held and self.transport is not None:
            self._paused = False
            self.transport.resume_reading()
        return data

    def write(self, data: bytes) -> None:
        """Send; never blocks. Nothing happens on a connection that is gone: reading tells."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def abort(self) -> None:
        """End it at once."""
        self.ended = True
        self._parts.clear()
        if self.transport is not None:
            self.transport.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy and whom it is not for. `context` proves an https proxy; it carries no certificate of ours."""

    host: str
    port: int
    authorization: str = field(repr=False)
    exempt: tuple[str, ...] = ()
    context: ssl.SSLContext | None = None

    @classmethod
    def of(cls, settings: NetworkProxy, context: ssl.SSLContext) -> Proxy:
        """From coreThing.networkProxy; `context` is used if the proxy's address begins with https."""
        parts = urlsplit(settings.url)
        secure = parts.scheme == "https"
        authorization = ""
        if settings.username:
            pair = f"{settings.username}:{settings.password}".encode()
            authorization = f"Basic {base64.b64encode(pair).decode()}"
        return cls(
            host=parts.hostname or "",
            port=parts.port or (443 if secure else 80),
            authorization=authorization,
            exempt=settings.no_proxy_addresses,
            context=context if secure else None,
        )

    def is_for(self, host: str, port: int) -> bool:
        """Whether this host is reached through the proxy. A name in noProxyAddresses stands for its subdomains too."""
        return not any(_matches(entry.lower(), host.lower(), port) for entry in self.exempt)

    @property
    def address(self) -> str:
        """For people."""
        return f"{'http' if self.context is None else 'https'}://{self.host}:{self.port}"


def _matches(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        pass
    name, _, number = entry.rpartition(":")
    if name and number.isdecimal():
        if int(number) != port:
            return False
        entry = name.strip("[]")
    entry = entry.removeprefix("*").removeprefix(".")
    return bool(entry) and (host == entry or host.endswith("." + entry))


async def connect(
    host: str, port: int, context: ssl.SSLContext, proxy: Proxy | None, *, connect_timeout_s: float
) -> Pipe:
    """A TLS connection to the server, proven to be `host`. Raises LinkDown, or Malformed for a proxy that speaks
    something else. Every step is bounded by `connect_timeout_s` or TLS_HANDSHAKE_S."""
    if proxy is None or not proxy.is_for(host, port):
        return await _secure(await _connect(host, port, connect_timeout_s), context, host, f"{host}:{port}")
    try:
        pipe = await _connect(proxy.host, proxy.port, connect_timeout_s)
        if proxy.context is not None:
            pipe = await _secure(pipe, proxy.context, proxy.host, proxy.address)
    except LinkDown as error:
        raise LinkDown(f"proxyconnect tcp: {error}") from error
    try:
        await _tunnel(pipe, host, port, proxy)
    except BaseException:
        pipe.abort()
        raise
    return await _secure(pipe, context, host, f"{host}:{port}")


async def _connect(host: str, port: int, seconds: float) -> Pipe:
    """TCP to the first of the name's addresses that answers. Those that keep silent share the time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    async with within(seconds, f"finding the address of {host}"):
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise LinkDown(f"cannot find the address of {host}: {reason}.") from error
    places = list(dict.fromkeys(str(entry[4][0]) for entry in found))[: limits.LINK_ADDRESSES_MAX]
    refusals = []
    for number, address in enumerate(places):
        share = max(deadline - loop.time(), 0.0) / (len(places) - number)
        try:
            async with within(share, f"connecting to {address} port {port}"):
                try:
                    return (await loop.create_connection(Pipe, address, port))[1]
                except OSError as error:
                    raise LinkDown(f"cannot connect to {address} port {port}: {os_reason(error)}.") from error
        except LinkDown as error:
            refusals.append(str(error))
    raise LinkDown(f"{host} cannot be reached: {' '.join(refusals)}")


async def _secure(pipe: Pipe, context: ssl.SSLContext, name: str, place: str) -> Pipe:
    """The same connection with TLS; `name` must be in the server's certificate."""
    below = pipe.transport
    assert below is not None
    secured = Pipe()
    try:
        async with within(limits.TLS_HANDSHAKE_S, f"the TLS handshake with {place}"):
            try:
                transport = await asyncio.get_running_loop().start_tls(
                    below,
                    secured,
                    context,
                    server_hostname=name,
                    ssl_handshake_timeout=2 * limits.TLS_HANDSHAKE_S,  # ours ends first and says so
                )
            except OSError as error:
                raise LinkDown(f"no TLS connection to {place}: {os_reason(error)}.") from error
    except BaseException:
        pipe.abort()
        raise
    assert transport is not None
    secured.connection_made(transport)
    return secured


async def _tunnel(pipe: Pipe, host: str, port: int, proxy: Proxy) -> None:
    """Ask the proxy for a way to the server (CONNECT)."""
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    pipe.write("\r\n".join([*lines, "", ""]).encode())
    answer = AnswerReader(f"the proxy {proxy.address}", limits.CONTROLPLANE_ANSWER_BYTES_MAX)
    async with within(limits.LINK_PROXY_S, f"asking the proxy {proxy.address} for {place}"):
        while not answer.has_head:
            try:
                data = await pipe.read()
            except OSError as error:
                raise LinkDown(f"the proxy {proxy.address} broke off: {os_reason(error)}.") from error
            if not data:
                raise LinkDown(f"the proxy {proxy.address} ended the connection without an answer.")
            answer.feed(data)
    if answer.status != 200:
        hint = "Check coreThing.networkProxy.proxy.username and password." if answer.status == 407 else ""
        text = f"the proxy {proxy.address} answered CONNECT {place} with status {answer.status}, expected 200."
        raise LinkDown(text, hint=hint)
    if answer.take() or answer.excess or not pipe.is_quiet:
        raise Malformed(f"the proxy {proxy.address} sent bytes behind its answer, before anything was asked for.")


def os_reason(error: OSError) -> str:
    """Why a connection failed, in words; certificates in V1's (greengrass-core Appendix B)."""
    if isinstance(error, ssl.SSLCertVerificationError):
        detail = error.verify_message or "not trusted"
        if error.verify_code in _DATES:
            return f"{EXPIRED_TEXT} ({detail}; this machine's clock counts)"
        if error.verify_code in _NO_AUTHORITY:
            return f"{UNKNOWN_AUTHORITY_TEXT} ({detail})"
        if error.verify_code in _OTHER_NAME:
            return f"x509: certificate is for another name ({detail})"
        return f"x509: certificate not accepted ({detail})"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).replace("_", " ").lower()
        if ("alert" in reason and "certificate" in reason) or "unknown ca" in reason:
            return f"the other side refuses our certificate ({reason})"
        return f"TLS failed ({reason})"
    # asyncio words some of them itself; the number stays the kernel's.
    return os.strerror(error.errno) if error.errno else str(error) or type(error).__name__
