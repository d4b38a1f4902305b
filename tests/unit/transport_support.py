"""What the tests of transports and listeners share: a protocol that writes down what it is told, and pairs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from ggfast._ext.transport import Transport

LOOPS = [pytest.param(uvloop.new_event_loop, id="uvloop"), pytest.param(asyncio.SelectorEventLoop, id="stock")]
PATIENCE_S = 20.0  # a test that waits this long has failed; none waits for time to pass


@pytest.fixture(scope="module", autouse=True)
def warm_loop() -> None:
    """The first uvloop of a process makes descriptors for signals that stay; let them be there before."""
    loop = uvloop.new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


class Notes:
    """A protocol that writes down what it is told."""

    def __init__(self, on_data: Callable[[Notes, bytes], None] | None = None) -> None:
        self.transport: Any = None
        self.received = bytearray()
        self.events: list[str] = []
        self.error: Exception | None = None
        self._on_data = on_data

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self._on_data is not None:
            self._on_data(self, data)

    def eof_received(self) -> None:
        """Asked by the loop's own transports."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")
        self.error = exc
        self.transport = None

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    @property
    def lost(self) -> bool:
        return "lost" in self.events


def tcp_pair() -> tuple[int, socket.socket]:
    """A connection over the loopback: our descriptor, and the peer's blocking socket."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        peer = socket.create_connection(door.getsockname())
        ours, _ = door.accept()
    ours.setblocking(False)
    peer.settimeout(PATIENCE_S)
    return ours.detach(), peer


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until `condition` holds."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "what was waited for did not come"
        await asyncio.sleep(0.001)


def run(make_loop: Callable[[], asyncio.AbstractEventLoop], body: Coroutine[Any, Any, None]) -> None:
    """Run `body` on a loop of its own; whatever that loop's exception handler hears fails the test."""
    loop = make_loop()
    heard: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: heard.append(context))
    try:
        loop.run_until_complete(asyncio.wait_for(body, 2 * PATIENCE_S))
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()
    assert heard == []


@contextlib.contextmanager
def joined(protocol: Any) -> Any:
    """A begun plain transport under `protocol` and its peer's socket; both are ended afterwards."""
    fd, peer = tcp_pair()
    transport = Transport(asyncio.get_running_loop(), fd, protocol, peer.getsockname())
    try:
        transport.begin()
        yield transport, peer
    finally:
        peer.close()
        transport.abort()
