"""What connections without a client may take of the time, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from transport_support import LOOPS, Notes, joined, run, until, warm_loop

from ggfast._ext.framing import Connack, Connect, decode, encode
from ggfast._ext.newcomers import Newcomers
from ggfast._ext.routes import Router
from ggfast.clock import SystemClock
from ggfast.counters import Counters
from ggfast.mqtt.broker import Broker
from ggfast.mqtt.connection import Connection
from ggfast.mqtt.hooks import OpenHooks
from ggfast.mqtt.limits import BrokerLimits
from ggfast.net.listener import Acceptor

__all__ = ["warm_loop"]  # a fixture: used by being there

pytestmark = pytest.mark.parametrize("make_loop", LOOPS)
MakeLoop = Callable[[], asyncio.AbstractEventLoop]


class Door:
    """A broker behind an acceptor whose newcomers have the time a test gives them."""

    def __init__(self, newcomers: Newcomers, loop: asyncio.AbstractEventLoop | None = None) -> None:
        loop = loop or asyncio.get_running_loop()
        self.counters = Counters()
        self.broker = Broker(loop, Router(True), OpenHooks(), BrokerLimits(), SystemClock(), self.counters)
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        self.address = sock.getsockname()
        self.acceptor = Acceptor(loop, sock, lambda: Connection(self.broker), self.counters, newcomers=newcomers)
        self.peers: list[socket.socket] = []

    def knock(self) -> socket.socket:
        self.peers.append(socket.create_connection(self.address, 5.0))
        return self.peers[-1]

    async def shut(self) -> None:
        self.acceptor.close()
        self.broker.close()
        for peer in self.peers:
            peer.close()
        await until(lambda: self.broker.connection_count == 0)
        await asyncio.sleep(0.02)


def test_a_newcomer_without_time_waits_and_comes_in_later(make_loop: MakeLoop) -> None:
    async def body() -> None:
        newcomers = Newcomers(asyncio.get_running_loop(), 0.001, 0.000_001)
        door = Door(newcomers)
        peer = door.knock()
        hello = encode(Connect(4, True, 0, "slow"))
        for byte in hello[:-1]:
            peer.sendall(bytes((byte,)))
        await until(lambda: len(newcomers) == 1)
        peer.sendall(hello[-1:])
        assert decode(await asyncio.to_thread(peer.recv, 4)) == Connack(False, 0)
        await door.shut()

    run(make_loop, body())


def test_clients_that_are_in_do_not_wait_for_newcomers(make_loop: MakeLoop) -> None:
    async def body() -> None:
        newcomers = Newcomers(asyncio.get_running_loop(), 0.000_01, 0.05)
        door = Door(newcomers)
        client = door.knock()
        client.sendall(encode(Connect(4, True, 0, "in")))
        assert decode(await asyncio.to_thread(client.recv, 4)) == Connack(False, 0)
        newcomers.end(newcomers.begin() - 10**9)  # a second is owed: nobody new for a day
        late = door.knock()
        late.sendall(encode(Connect(4, True, 0, "late")))
        for _ in range(20):
            client.sendall(b"\xc0\x00")
            assert await asyncio.to_thread(client.recv, 2) == b"\xd0\x00"
        assert door.broker.client_count == 1 and not newcomers.has_time()
        await door.shut()

    run(make_loop, body())


def test_a_parked_connection_may_end(make_loop: MakeLoop) -> None:
    async def body() -> None:
        newcomers = Newcomers(asyncio.get_running_loop(), 0.001, 0.000_001)
        door = Door(newcomers)
        peer = door.knock()
        peer.sendall(b"\x10")
        await until(lambda: len(newcomers) == 1)
        peer.close()
        door.broker.close()
        await until(lambda: door.broker.connection_count == 0 and len(newcomers) == 0)
        await door.shut()

    run(make_loop, body())


def test_what_is_not_metered_is_read_at_once(make_loop: MakeLoop) -> None:
    async def body() -> None:
        notes = Notes()
        with joined(notes) as (transport, peer):
            transport.meter(Newcomers(asyncio.get_running_loop(), 0.000_01, 0.000_001))
            peer.sendall(b"x")
            await until(lambda: notes.received == b"x")

    run(make_loop, body())


def test_time_that_nobody_spent_is_not_owed_for_ever(make_loop: MakeLoop) -> None:
    async def body() -> None:
        newcomers = Newcomers(asyncio.get_running_loop(), 10.0, 0.05)  # pays back ten times as fast as time goes by
        newcomers.end(newcomers.begin() - 60 * 10**9)  # the process was stopped for a minute
        assert not newcomers.has_time()
        await asyncio.sleep(0.1)
        assert newcomers.has_time()

    run(make_loop, body())


class Watched:
    """A loop whose next watching fails."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.fails = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loop, name)

    def add_reader(self, *arguments: Any) -> None:
        if self.fails:
            self.fails = False
            raise OSError(12, "no memory")
        self.loop.add_reader(*arguments)


def test_one_that_cannot_be_let_on_keeps_nobody_out(make_loop: MakeLoop) -> None:
    async def body() -> None:
        inner = asyncio.get_running_loop()
        complaints: list[object] = []
        inner.set_exception_handler(lambda _, context: complaints.append(context["exception"]))
        loop: Any = Watched(inner)
        newcomers = Newcomers(inner, 1.0, 0.05)
        door = Door(newcomers, loop)
        first, second = door.knock(), door.knock()
        await until(lambda: door.broker.connection_count == 2)
        newcomers.end(newcomers.begin() - 10**8)
        for peer in (first, second):
            peer.sendall(b"\x10")
        await until(lambda: len(newcomers) == 2)
        loop.fails = True
        await until(lambda: len(newcomers) == 0)
        assert [str(complaint) for complaint in complaints] == ["[Errno 12] no memory"]
        await until(newcomers.has_time)
        door.knock()
        await until(lambda: door.broker.connection_count == 3)
        await door.shut()

    run(make_loop, body())
