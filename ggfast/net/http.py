"""An HTTP/1.1 server for programs of this machine: httptools parses, everything that a client can make grow is bounded.

    Acceptor -> Transport -> Connection ─ head ─► handler.begin(exchange)   how many body bytes it takes, or its answer
                                        ─ body ─► handler.run(exchange)     exchange.answer(...) now or later

Requests of one connection are answered in order, each exactly once and with a Content-Length. A client is a stranger
until the handler says whom it belongs to; connections, and the time that requests take, are limited per owner. The
end of a client's sending is its end: an answer that is not there by then is not sent.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol

import httptools
import orjson

from ggfast import limits
from ggfast._ext.newcomers import Newcomers
from ggfast._ext.transport import Transport

if TYPE_CHECKING:
    from ggfast.net.httpserver import HttpServer, Owner

logger = logging.getLogger("ggfast.http")

Headers = Iterable[tuple[str, str]]
REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_PIECE_BYTES: Final = 16_384  # parsed at a time: between two pieces others have their turn
_RAW_HEAD_BYTES_MAX: Final = 2 * limits.HTTP_HEAD_BYTES_MAX  # as sent, with the blanks that the parser leaves out


class Handler(Protocol):
    """Who answers. Neither method may block; what they raise becomes a 500.

    `begin` sees the head and returns how many bytes of body it takes; -1 says that its answer will come without
    `run`, whatever the body is.
    """

    def begin(self, exchange: Exchange) -> int: ...
    def run(self, exchange: Exchange) -> None: ...


class Exchange:
    """One request and its answer. Header names are in lower case; `length` is -1 for a body in chunks.

    `ended` is called once, when the answer is given or the client is gone. `about` is the handler's own. Target and
    headers are gone when `run` has returned or the answer is given: who waits for long does not hold them.
    """

    __slots__ = (
        "_answer",
        "_body",
        "_connection",
        "_keep",
        "_limit",
        "about",
        "complete",
        "ended",
        "head_bytes",
        "headers",
        "length",
        "method",
        "started",
        "target",
    )

    def __init__(self, connection: Connection, method: str, target: bytes, headers: dict[bytes, bytes]) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.length = self.head_bytes = 0
        self.complete = False
        self.started = False
        self.about: Any = None
        self.ended: Callable[[], None] | None = None
        self._connection: Connection | None = connection
        self._answer: bytes | None = None
        self._body = bytearray()
        self._limit = 0
        self._keep = False

    @property
    def body(self) -> bytes:
        """The whole body once `run` is called."""
        return bytes(self._body)

    @property
    def answered(self) -> bool:
        """Whether nothing more can be answered: done, or the client is gone."""
        return self._connection is None or self._answer is not None

    def answer(self, status: int, body: bytes = b"", headers: Headers = (), *, close: bool = False) -> bool:
        """Give the answer; `close` ends the connection after it. False when it is too late."""
        connection = self._connection
        if connection is None or self._answer is not None:
            return False
        self._keep = self._keep and not close and (self.complete or self._cheap)
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers]
        lines += ["Connection: keep-alive" if self._keep else "Connection: close", "", ""]
        head = "\r\n".join(lines).encode("latin-1")
        self._answer = head if self.method == "HEAD" else head + body
        self._finish()
        connection.pump(runs=False)  # whoever answers is in the middle of something else
        return True

    def refuse(self, status: int, text: str, headers: Headers = (), *, close: bool = False) -> bool:
        """Answer with a status and `{"message": text}`."""
        body = orjson.dumps({"message": text.encode("utf-8", "replace").decode()})
        return self.answer(status, body, (("Content-Type", "application/json"), *headers), close=close)

    def belongs_to(self, owner: Owner) -> bool:
        """Say whose connection this is; False when the owner has too many."""
        return self._connection is None or self._connection.belongs_to(owner)

    @property
    def _cheap(self) -> bool:
        """Whether reading a body that nobody wants costs less than a new connection."""
        return b"expect" not in self.headers and 0 <= self.length <= limits.HTTP_DISCARD_BYTES

    def _finish(self) -> None:
        self._body = bytearray()
        self._drop_head()
        ended, self.ended = self.ended, None
        if ended is not None:
            ended()

    def _drop_head(self) -> None:
        self.target, self.headers = b"", {}


class Connection:
    """One client's connection: a protocol of a Transport and the callbacks of a parser."""

    def __init__(self, server: HttpServer) -> None:
        self.owner: Owner | None = None
        self._server = server
        self._transport: Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Exchange] = deque()
        self._current: Exchange | None = None
        self._target = self._rest = b""
        self._headers: dict[bytes, bytes] = {}
        self._head_bytes = self._raw_bytes = self._header_count = self._discarded = 0
        self._in_head = True
        self._in_message = self._deaf = self._unknown = self._pumping = self._choked = False
        self._request_until: float | None = None
        self._write_until: float | None = None
        self._linger_until: float | None = None
        self._idle_until = server.loop.time() + limits.HTTP_REQUEST_S

    # --- transport ------------------------------------------------------------------------------------

    def connection_made(self, transport: Transport) -> None:
        """A client is here."""
        self._transport = transport
        transport.set_write_buffer_limits(high=0, low=0)
        self._server.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or has ended its side."""
        self._transport = None
        self._server.remove(self)
        self._deaf = True
        self._rest = b""
        for exchange in (*self._queue, *filter(None, (self._current,))):
            exchange._connection = None
            exchange._finish()
        self._queue.clear()
        self._current = None

    def data_received(self, data: bytes) -> None:
        """Parse, at the expense of whom it comes from."""
        if not self._deaf:
            self._rest += data
            self._work()
            return
        self._discarded += len(data)
        if self._discarded > limits.HTTP_LINGER_BYTES:
            self.abort()
        elif self.owner is None and self._discarded > limits.HTTP_DISCARD_BYTES and self._transport is not None:
            self._transport.pause_reading()  # nobody's time pays for it: it waits for its end

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered: nothing more until it has."""
        self._choked = True
        self._write_until = self._server.loop.time() + limits.HTTP_WRITE_S

    def resume_writing(self) -> None:
        """It has taken everything."""
        self._choked = False
        self._write_until = None
        self.pump()
        self._say_end()

    # --- what the server and exchanges ask ---------------------------------------------------------------

    @property
    def unwritten(self) -> int:
        """Bytes the client has not taken."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def unparsed(self) -> int:
        """Bytes that were read and wait for their owner's time."""
        return len(self._rest)

    @property
    def expendable(self) -> bool:
        """Whether it was refused already and only waits for its end."""
        return self._deaf or self._unknown

    def hold(self) -> None:
        """Read nothing until `go_on`; a client that has sent too much ahead of that is ended."""
        transport, owner = self._transport, self.owner
        if transport is None or transport.is_closing():
            return
        transport.pause_reading()
        if owner is not None and owner.unparsed > limits.HTTP_HELD_BYTES_MAX and self._rest:
            self._server.counters.add("http.dropped.floods")
            self.abort()

    def go_on(self) -> None:
        """The owner has time again."""
        self._work()
        transport, owner = self._transport, self.owner
        if transport is not None and not transport.is_closing() and (owner is None or not owner.is_held):
            transport.resume_reading()

    def abort(self) -> None:
        """End at once."""
        self._deaf = True
        if self._transport is not None:
            self._transport.abort()

    def belongs_to(self, owner: Owner) -> bool:
        """See Exchange.belongs_to."""
        return self.owner is owner or self._server.assign(self, owner)

    def look(self, now: float) -> None:
        """End what takes too long."""
        if self._linger_until is not None and now >= self._linger_until and not self._choked:
            self.abort()
        elif self._write_until is not None and now >= self._write_until:
            self._server.counters.add("http.dropped.slow_readers")
            self.abort()
        elif self._request_until is not None and now >= self._request_until:
            self._server.counters.add("http.refused.slow_requests")
            self._request_until = None
            self._reject(408, f"The request was not complete within {limits.HTTP_REQUEST_S:g} seconds")
        elif not self._queue and not self._in_message and not self._deaf and now >= self._idle_until:
            self._close()

    def pump(self, *, runs: bool = True) -> None:
        """Send the answers that are next and run what is complete; with `runs` false that is done on a later turn."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._queue and not self._choked and self._transport is not None:
                exchange = self._queue[0]
                if exchange._answer is None and exchange.complete and not exchange.started:
                    if not runs:
                        self._server.loop.call_soon(self._run_next)
                        return
                    exchange.started = True
                    self._guarded(exchange, self._server.handler.run)
                    exchange._drop_head()
                answer = exchange._answer
                if answer is None:
                    return
                self._queue.popleft()
                exchange._connection = None
                self._transport.write(answer)
                if not exchange._keep:
                    self._close()
                    return
                self._idle_until = self._server.loop.time() + limits.HTTP_IDLE_S
        finally:
            self._pumping = False

    # --- parser callbacks ----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self._deaf:
            return
        self._target, self._headers = b"", {}
        self._head_bytes = self._raw_bytes = self._header_count = 0
        self._in_head = self._in_message = True
        self._request_until = self._server.loop.time() + limits.HTTP_REQUEST_S

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._head_bytes += len(url)
        if self._head_bytes <= limits.HTTP_HEAD_BYTES_MAX:
            self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; after a body in chunks also a trailer, which means nothing here."""
        self._head_bytes += len(name) + len(value)
        self._header_count += 1
        if self._header_count > limits.HTTP_HEADERS_MAX or self._head_bytes > limits.HTTP_HEAD_BYTES_MAX:
            most = f"{limits.HTTP_HEAD_BYTES_MAX} bytes or {limits.HTTP_HEADERS_MAX} headers"
            self._reject(431, f"The head of the request exceeds {most}")
        elif self._in_head:
            key, value = name.lower(), value.strip()
            self._headers[key] = self._headers[key] + b", " + value if key in self._headers else value

    def on_headers_complete(self) -> None:
        """The head is there: the handler decides about the body before any of it is kept."""
        self._in_head = False
        if self._deaf:
            return
        method = self._parser.get_method().decode("ascii", "replace")
        exchange = self._current = Exchange(self, method, self._target, self._headers)
        self._queue.append(exchange)
        if len(self._queue) > limits.HTTP_PIPELINED_MAX:
            self._reject(503, f"More than {limits.HTTP_PIPELINED_MAX} requests wait on this connection")
            return
        if self._head_bytes > limits.HTTP_HEAD_BYTES_MAX:  # of the target alone; headers are counted as they come
            self._reject(431, f"The head of the request exceeds {limits.HTTP_HEAD_BYTES_MAX} bytes")
            return
        if problem := self._problem(method):
            self._reject(*problem)
            return
        exchange._keep = self._parser.should_keep_alive()
        exchange.length, exchange.head_bytes = _body_length(self._headers), self._head_bytes
        exchange._limit = self._guarded(exchange, self._server.handler.begin)
        if exchange.answered:
            return
        if exchange._limit < 0:
            exchange.started = self._unknown = True
        elif exchange.length > exchange._limit:
            self._too_large(exchange)
        elif self._headers.get(b"expect", b"").lower() != b"100-continue" or self._queue[0] is not exchange:
            return
        elif self._transport is not None and not self._choked:
            self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        exchange = self._current
        if exchange is None or exchange.answered or exchange._limit < 0 or self._deaf:
            return
        if len(exchange._body) + len(body) > exchange._limit:
            self._too_large(exchange)
            return
        exchange._body += body

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._in_message = False
        self._in_head = True
        self._request_until = None
        self._raw_bytes = 0
        exchange, self._current = self._current, None
        if exchange is not None and not self._deaf:
            exchange.complete = True
            self.pump()

    # --- inside -------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Parse what is there, at the expense of whom it comes from; who has used up the time waits."""
        while self._rest and not self._deaf:
            owner, transport = self.owner, self._transport
            if self._unknown and transport is not None:  # all that it will get is its answer, soon
                self._rest = b""
                self._in_message = True
                transport.pause_reading()
                return
            if owner is not None and (owner.is_held or not owner.meter.has_time()):
                self._server.counters.add("http.pauses")
                owner.hold()
                self.hold()
                return
            piece, self._rest = self._rest[:_PIECE_BYTES], self._rest[_PIECE_BYTES:]
            meter = self._meter
            began = meter.begin()
            self._feed(piece)
            meter.end(began)
        if self._deaf:
            self._rest = b""

    def _run_next(self) -> None:
        meter = self._meter
        began = meter.begin()
        self.pump()
        meter.end(began)

    @property
    def _meter(self) -> Newcomers:
        """Whose time it costs: a stranger's is taken from accepting more of them."""
        return self._server.newcomers if self.owner is None else self.owner.meter

    def _feed(self, data: bytes) -> None:
        if self._in_head:
            self._raw_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # refused with its head
        except httptools.HttpParserCallbackError:
            logger.exception("a request could not be handled")
            self.abort()
            return
        except httptools.HttpParserError as error:
            if not self._deaf and not (self._queue and not self._queue[-1]._keep and self._queue[-1].complete):
                self._server.counters.add("http.refused.malformed")
                self._reject(400, f"This is not an HTTP request: {error}")
            self._deaf = True
            return
        if self._in_head and self._raw_bytes > _RAW_HEAD_BYTES_MAX:
            self._reject(431, f"The head of the request exceeds {limits.HTTP_HEAD_BYTES_MAX} bytes")

    def _problem(self, method: str) -> tuple[int, str] | None:
        """What is wrong with a head, whoever sends it."""
        if self._parser.get_http_version() not in ("1.0", "1.1"):
            return 505, "Found another version of HTTP, expected 1.1 or 1.0"
        if method == "CONNECT":
            return 405, "CONNECT is not served here"
        if self._parser.should_upgrade():
            return 400, "Found the header Upgrade; this interface speaks HTTP/1.1 only"
        if b"transfer-encoding" in self._headers and self._parser.get_http_version() == "1.0":
            return 400, "Found Transfer-Encoding in HTTP/1.0, expected Content-Length"
        return None

    def _guarded(self, exchange: Exchange, call: Callable[[Exchange], int | None]) -> int:
        try:
            return call(exchange) or 0
        except Exception:
            logger.exception("a request could not be answered")
            exchange.refuse(500, "The core could not answer: see its runtime log", close=True)
            return 0

    def _too_large(self, exchange: Exchange) -> None:
        self._server.counters.add("http.refused.too_large")
        found = f"{exchange.length} bytes" if exchange.length >= 0 else "longer"
        exchange.refuse(413, f"The body is {found}, the limit is {exchange._limit} bytes")

    def _reject(self, status: int, text: str) -> None:
        """Answer the request that arrives with an error, in its turn, and take nothing more."""
        if self._deaf:
            return
        exchange = self._current
        if exchange is None or exchange.answered:
            if exchange is not None and exchange._answer is not None:
                self._deaf = True  # its answer is given, only the end remains
                self._request_until = None
                if not self._queue:
                    self._close()
                else:
                    self._queue[-1]._keep = False
                return
            exchange = Exchange(self, "", b"", {})
            self._queue.append(exchange)
        self._deaf = True
        self._request_until = None
        exchange.complete = exchange.started = True
        exchange.refuse(status, text, close=True)

    def _close(self) -> None:
        """Nothing more is answered. What the client still sends is read for a while: to reset the connection now
        could take the answer away from it."""
        transport = self._transport
        if transport is None:
            return
        if not self._in_message and not self._deaf:
            self._deaf = True
            transport.close()
            return
        self._deaf = True
        self._linger_until = self._server.loop.time() + limits.HTTP_LINGER_S
        if self._unknown:
            transport.resume_reading()
        self._say_end()

    def _say_end(self) -> None:
        """Nothing more comes from here: who has read the answer can go."""
        if self._linger_until is None or self._choked or self._transport is None:
            return
        try:
            with socket.socket(fileno=os.dup(self._transport.fileno())) as sock:
                sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.abort()  # the client is gone already


def _body_length(headers: dict[bytes, bytes]) -> int:
    """Content-Length, which the parser has checked; -1 for chunks, 0 for no body."""
    return -1 if b"transfer-encoding" in headers else int(headers.get(b"content-length", b"0"))
