"""A raw HTTP client that sends what it is told and reads whole answers; a server around a small handler."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

import uvloop

from ggfast.counters import Counters
from ggfast.net.http import Exchange
from ggfast.net.httpserver import HttpServer, Owner

BODY_MAX = 1000
uvloop.new_event_loop().close()  # the first loop makes one pipe for the whole process, which is no test's leak


@dataclass
class Answer:
    """One answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection. Everything has a time limit: a server that says nothing fails the test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def send_pieces(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def answer(self, timeout_s: float = 20.0, *, head: bool = False) -> Answer:
        raw = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), timeout_s)
        first, *lines = raw.decode("latin-1").split("\r\n")
        assert first.startswith("HTTP/1.1 "), first
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        status = int(first.split(" ")[1])
        if status == 100:
            return Answer(status, headers, b"")
        assert "content-length" in headers and "connection" in headers, raw
        size = 0 if head else int(headers["content-length"])
        return Answer(status, headers, await asyncio.wait_for(self.reader.readexactly(size), timeout_s))

    async def ask(self, data: bytes) -> Answer:
        self.send(data)
        return await self.answer()

    async def ended(self, timeout_s: float = 20.0) -> bytes:
        """What comes before the end of the stream; a reset is an end too."""
        try:
            return await asyncio.wait_for(self.reader.read(), timeout_s)
        except ConnectionError:
            return b""

    def close(self) -> None:
        self.writer.close()


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4 * 1024 * 1024)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def request(method: str, path: str, body: bytes = b"", version: str = "1.1", **headers: str) -> bytes:
    """A request with a Content-Length where it has a body; `X_y` stands for the header X-y."""
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body or method in ("POST", "PUT"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class Echo:
    """Answers with what it was asked; /wait is answered by the test, /fail is a defect, X-Owner says whose it is."""

    def __init__(self) -> None:
        self.owners: dict[bytes, Owner] = {}
        self.waiting: list[Exchange] = []
        self.gone = 0

    def begin(self, exchange: Exchange) -> int:
        name = exchange.headers.get(b"x-owner")
        if name is not None:
            owner = self.owners.setdefault(name, Owner(asyncio.get_running_loop()))
            if not exchange.belongs_to(owner):
                exchange.refuse(503, "too many", close=True)
                return 0
        if exchange.target == b"/no":
            exchange.refuse(403, 'not "here"\r\n')
        return BODY_MAX

    def run(self, exchange: Exchange) -> None:
        if exchange.target == b"/fail":
            raise RuntimeError("a defect")
        if exchange.target == b"/wait":
            self.waiting.append(exchange)
            exchange.ended = self._ended
        elif exchange.target.startswith(b"/big"):
            exchange.answer(200, bytes(int(exchange.target[4:])))
        else:
            text = f"{exchange.method} {exchange.target.decode()} ".encode()
            exchange.answer(200, text + exchange.body, (("X-Empty", ""),))

    def _ended(self) -> None:
        self.gone += 1


@dataclass
class Served:
    port: int
    server: HttpServer
    handler: Echo
    counters: Counters


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[Served]:
    """The small handler's server on a free port of the loopback."""
    counters, handler = Counters(), Echo()
    server = HttpServer(asyncio.get_running_loop(), handler, counters)
    sock = loopback()
    port = sock.getsockname()[1]
    server.serve(sock)
    try:
        yield Served(port, server, handler, counters)
    finally:
        server.close()
        await until(lambda: not len(server), "all connections over")


def loopback() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock


async def until(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """Wait until `condition()` is true."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not (found := condition()):
        assert loop.time() < deadline, f"not seen: {what}"
        await asyncio.sleep(0.005)
    return found


def run(test: Coroutine[Any, Any, None]) -> None:
    """On the daemon's kind of loop."""
    uvloop.run(asyncio.wait_for(test, 90))
