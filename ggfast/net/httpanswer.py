"""One HTTP/1.1 answer, read from bytes as they come: httptools parses, everything a server can make grow is bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httptools

from ggfast import limits
from ggfast.errors import GgfastError, LimitReached, LinkDown, Malformed

_PIECE_BYTES: Final = 16_384  # parsed at a time: between two the bounds are looked at
_BODILESS: Final = frozenset({204, 304})


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. Header names are in lower case; repeated ones are joined by commas. `body` is empty if a sink
    took it."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class AnswerReader:
    """Feed it what arrives; `take` gives the body bytes found so far. `place` is the server, for errors.

    Answers of the 1xx kind are read over. Raises Malformed for what is no answer, LimitReached for too much of it.
    """

    def __init__(self, place: str, body_max: int) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.has_head = False  # of the final answer
        self.complete = False
        self.begun = False  # whether any byte has come
        self._place = place
        self._body_max = body_max
        self._body_bytes = self._unbodied = self._head_bytes = self._interim = 0
        self.excess = False  # whether bytes came behind its end
        self._until_end = self._stays = False
        self._parts: list[bytes] = []
        self._failure: GgfastError | None = None
        self._parser = httptools.HttpResponseParser(self)

    @property
    def keeps(self) -> bool:
        """Whether another request may be sent on the same connection."""
        return self.complete and self._stays and not self.excess

    def feed(self, data: bytes) -> None:
        """Parse. Blocks for nothing."""
        self.begun = True
        view = memoryview(data)
        for start in range(0, len(view), _PIECE_BYTES):
            if self.complete:
                self.excess = True
                return
            self._feed(view[start : start + _PIECE_BYTES])

    def take(self) -> bytes:
        """The body bytes since the last call."""
        found = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        return found

    def end(self) -> None:
        """The connection has ended. Raises LinkDown if the answer has not."""
        if self.complete:
            return
        if self.has_head and self._until_end:
            self.complete = True
            return
        told = f"after {self._body_bytes} bytes of body" if self.has_head else "within the head"
        expected = self.headers.get("content-length", "")
        of = f" of {expected}" if self.has_head and expected else ""
        text = f"{self._place} ended the connection " + (f"{told}{of}." if self.begun else "without an answer.")
        raise LinkDown(text)

    def _feed(self, piece: memoryview) -> None:
        self._unbodied += len(piece)
        before = self._body_bytes
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade as error:
            raise Malformed(f"{self._place} answered with a change of protocol that nobody asked for.") from error
        except httptools.HttpParserError as error:
            if not self.complete:
                raise self._failure or Malformed(f"{self._place} sent what is no HTTP answer: {error}.") from error
            self.excess = True
        if self._failure is not None:
            raise self._failure
        if self._body_bytes > before:
            self._unbodied = 0
        self._bound("body of the answer in bytes", self._body_bytes, self._body_max)
        # Heads and trailers, but also what the parser leaves out: extensions of chunks, a name that never ends.
        self._bound("bytes of an answer without body", self._unbodied, limits.LINK_HEAD_BYTES_MAX + _PIECE_BYTES)

    def _bound(self, limit: str, value: int, maximum: int) -> None:
        if value > maximum:
            raise LimitReached(f"{self._place}: {limit}", value, maximum)

    # --- what the parser calls; an exception here would lose its type ------------------------------------

    def on_message_begin(self) -> None:
        """A head begins; a second answer is more than was asked for."""
        self.excess = self.complete

    def on_header(self, name: bytes, value: bytes) -> None:
        """One line of the head, or of the trailer of a body in chunks, which nobody reads."""
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > limits.LINK_HEAD_BYTES_MAX:
            place = f"{self._place}: head of the answer in bytes"
            self._failure = LimitReached(place, self._head_bytes, limits.LINK_HEAD_BYTES_MAX)
        elif not self.has_head:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        """Look at what the head promises."""
        if self.complete:
            return
        status = self._parser.get_status_code()
        if not 100 <= status <= 599 or self._parser.get_http_version() not in ("1.0", "1.1"):
            self._failure = Malformed(
                f"{self._place} answered HTTP/{self._parser.get_http_version()} with status {status},"
                " expected HTTP/1.1 and a status from 100 to 599."
            )
        if status < 200:
            self._interim += 1
            if self._interim > limits.LINK_INTERIM_ANSWERS_MAX:
                place = f"{self._place}: answers of the 1xx kind"
                self._failure = LimitReached(place, self._interim, limits.LINK_INTERIM_ANSWERS_MAX)
            return
        self.status, self.has_head = status, True
        length, transfer = self.headers.get("content-length"), self.headers.get("transfer-encoding")
        self._stays = self._parser.should_keep_alive()  # it forgets at the end of the answer
        self._until_end = length is None and transfer is None and status not in _BODILESS
        if transfer is not None and transfer.strip().lower() != "chunked":
            self._failure = Malformed(f"{self._place} sends the body as {transfer[:80]!r}, expected chunked.")
        if self.headers.get("content-encoding", "identity").strip().lower() != "identity":
            found = self.headers["content-encoding"][:80]
            self._failure = Malformed(
                f"{self._place} sends the body as {found!r} although nothing packed was asked for."
            )
        if length is not None and length.isdecimal() and int(length[:20]) > self._body_max:
            self._failure = LimitReached(f"{self._place}: Content-Length", int(length[:20]), self._body_max)

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        if not self.complete:
            self._body_bytes += len(data)
            self._parts.append(data)

    def on_message_complete(self) -> None:
        """The end of a 1xx answer or of the answer."""
        if self.has_head:
            self.complete = True
        else:
            self.headers.clear()
