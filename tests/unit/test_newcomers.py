"""What connections without a client may take of the time, over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

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

    def __init__(self, newcomers: Newcomers) -> None:
        loop = asyncio.get_running_loop()
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
