"""An HTTPS client for programs of ours: HTTP/1.1 on one kept connection, everything bounded in bytes and in time.

Requests are done one after the other. An idle connection that turns out dead is replaced once, and only while
nothing of an answer has come. Redirects are answers like any other: nothing is ever followed to another place.
Works on uvloop and on asyncio's own loop.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from ggfast import limits
from ggfast.errors import ConfigError, LinkDown
from ggfast.net.httpanswer import Answer, AnswerReader
from ggfast.net.outbound import Pipe, Proxy, connect, os_reason, within

ALPN_PORT: Final = 443
ALPN_PROTOCOL: Final = "x-amzn-http-ca"  # how AWS IoT tells mutual TLS from the rest of what is behind this port
_METHODS: Final = frozenset({"GET", "PUT", "POST", "DELETE"})
_TARGET: Final = re.compile(r"/[\x21-\x7e]*")
_FIELD: Final = re.compile(r"[\x20-\x7e\t]*")
_STREAMED: Final = frozenset({200, 206})

Sink = Callable[[bytes], None]
Begin = Callable[[int, Mapping[str, str]], None]


def client_context(authorities: Path, identity: Path | None = None) -> ssl.SSLContext:
    """Trust every certificate of a PEM file, as V1 did (row 7), and show the certificate of another one, if any, which
    holds the key too. Raises ConfigError. Blocks for reading the files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # An anchor need not be self-signed, and roots older than RFC 5280 are not strict.
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT
    what: tuple[str, Path | None] = "the trusted certificates", authorities
    try:
        context.load_verify_locations(authorities)
        if identity is not None:
            what = "the certificate with its key", identity
            context.load_cert_chain(identity, identity, password="")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{what[0]} in {what[1]} cannot be used: {error}.", hint="Expected a PEM file.") from error
    return context


class HttpClient:
    """See the module. One per server and purpose: a long poll holds its connection as long as it waits.

    `context` is changed for port 443, where the protocol x-amzn-http-ca is offered.
    """

    def __init__(
        self,
        host: str,
        port: int,
        context: ssl.SSLContext,
        *,
        proxy: Proxy | None = None,
        connect_timeout_s: float = limits.LINK_CONNECT_S,
    ) -> None:
        self._host = host
        self._port = port
        self._context = context
        self._proxy = proxy
        self._connect_timeout_s = connect_timeout_s
        self._place = f"{host}:{port}"
        self._authority = f"[{host}]:{port}" if ":" in host else self._place
        self._lock = asyncio.Lock()
        self._pipe: Pipe | None = None  # idle, or in use by the request that has the lock
        self._idle_end: asyncio.TimerHandle | None = None
        if port == ALPN_PORT:
            context.set_alpn_protocols([ALPN_PROTOCOL])

    async def request(
        self,
        method: str,
        target: str,
        *,
        body: bytes = b"",
        headers: Iterable[tuple[str, str]] = (),
        timeout_s: float,
        body_max: int,
        first_byte_s: float = limits.LINK_FIRST_BYTE_S,
        sink: Sink | None = None,
        begin: Begin | None = None,
    ) -> Answer:
        """Ask, and return the whole answer whatever its status.

        `timeout_s` bounds everything, waiting for earlier requests included; `first_byte_s` the silence before the
        answer, LINK_SILENCE_S the one inside it. The body of a 200 or 206 goes to `sink` piece by piece if there is
        one; before the first piece `begin` gets status and headers. What the two raise ends the request. Raises
        LinkDown, Malformed, LimitReached.
        """
        message = self._message(method, target, body, headers)
        async with within(timeout_s, f"the request {method} {target[:80]} to {self._place}"), self._lock:
            while True:
                pipe, kept = self._take_idle(), True
                if pipe is None:
                    pipe, kept = await self._open(), False
                reader = AnswerReader(self._place, body_max)
                try:
                    answer = await self._exchange(pipe, message, reader, first_byte_s, sink, begin)
                    self._keep(pipe if reader.keeps and pipe.is_quiet else None)
                    return answer
                except LinkDown:
                    if not kept or reader.begun or not pipe.ended:
                        raise
                finally:
                    if self._idle_end is None:  # not kept for the next one
                        self._drop()

    def close(self) -> None:
        """End the connection at once; a request under way fails. Another request would open a new one."""
        self._drop()

    # --- one request --------------------------------------------------------------------------------------

    async def _open(self) -> Pipe:
        self._pipe = await connect(
            self._host, self._port, self._context, self._proxy, connect_timeout_s=self._connect_timeout_s
        )
        return self._pipe

    async def _exchange(
        self,
        pipe: Pipe,
        message: bytes,
        reader: AnswerReader,
        first_byte_s: float,
        sink: Sink | None,
        begin: Begin | None,
    ) -> Answer:
        pipe.write(message)
        parts: list[bytes] = []
        announced = False
        while not reader.complete:
            data = await self._read(pipe, reader, first_byte_s)
            if data:
                reader.feed(data)
            else:
                reader.end()
            streamed = sink is not None and reader.has_head and reader.status in _STREAMED
            if streamed and not announced:
                announced = True
                if begin is not None:
                    begin(reader.status, reader.headers)
            found = reader.take()
            if found and streamed and sink is not None:
                sink(found)
            elif found:
                parts.append(found)
        return Answer(reader.status, reader.headers, b"".join(parts))

    async def _read(self, pipe: Pipe, reader: AnswerReader, first_byte_s: float) -> bytes:
        seconds = limits.LINK_SILENCE_S if reader.begun else first_byte_s
        what = "the next part of the answer" if reader.begun else "the answer"
        async with within(seconds, f"waiting for {what} of {self._place}"):
            try:
                return await pipe.read()
            except OSError as error:
                raise LinkDown(f"the connection to {self._place} broke: {os_reason(error)}.") from error

    def _message(self, method: str, target: str, body: bytes, headers: Iterable[tuple[str, str]]) -> bytes:
        assert method in _METHODS, method
        assert _TARGET.fullmatch(target), target
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._authority}", "Accept-Encoding: identity"]
        if body or method in ("PUT", "POST"):
            lines.append(f"Content-Length: {len(body)}")
        for name, value in headers:
            assert _FIELD.fullmatch(name) and _FIELD.fullmatch(value), name
            lines.append(f"{name}: {value}")
        return "\r\n".join([*lines, "", ""]).encode("ascii") + body

    # --- the kept connection --------------------------------------------------------------------------------

    def _take_idle(self) -> Pipe | None:
        """The connection of the last request if it can still be used."""
        if self._idle_end is not None:
            self._idle_end.cancel()
            self._idle_end = None
        if self._pipe is not None and not self._pipe.is_quiet:
            self._drop()
        return self._pipe

    def _keep(self, pipe: Pipe | None) -> None:
        """Keep it for the next request, for a while: what stands between forgets idle connections without a word."""
        if pipe is not None and pipe is self._pipe:
            self._idle_end = asyncio.get_running_loop().call_later(limits.LINK_IDLE_S, self._drop)

    def _drop(self) -> None:
        if self._idle_end is not None:
            self._idle_end.cancel()
            self._idle_end = None
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.abort()
