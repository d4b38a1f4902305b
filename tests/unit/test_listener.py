"""Acceptors: taking over, bounds per address and per turn, and a machine that is short of descriptors."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest
from transport_support import LOOPS, PATIENCE_S, Notes, run, until, warm_loop

from ggfast import limits
from ggfast.counters import Counters
from ggfast.net import listener
from ggfast.net.listener import Acceptor, Arrivals, listen

__all__ = ["warm_loop"]  # a fixture: used by being there

MakeLoop = Callable[[], asyncio.AbstractEventLoop]


class Door:
    """A listening socket with an acceptor on it, and the protocols it made."""

    def __init__(self, arrivals: Arrivals | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.sock = socket.socket()
        self.sock.bind(("127.0.0.1", 0))
        self.counters = Counters()
        self.made: list[Notes] = []
        self.peers: list[socket.socket] = []
        self.acceptor = self.open(arrivals)

    def open(self, arrivals: Arrivals | None = None) -> Acceptor:
        return Acceptor(self.loop, self.sock.dup(), self.make, self.counters, arrivals)

    def make(self) -> Notes:
        self.made.append(Notes())
        return self.made[-1]

    def knock(self) -> socket.socket:
        self.peers.append(socket.create_connection(self.sock.getsockname(), PATIENCE_S))
        return self.peers[-1]

    async def shut(self) -> None:
        self.acceptor.close()
        self.sock.close()
        for peer in self.peers:
            peer.close()
        await until(lambda: all(notes.lost for notes in self.made if notes.events))


@pytest.mark.parametrize("make_loop", LOOPS)
def test_connections_outlive_their_acceptor(make_loop: MakeLoop) -> None:
    async def body() -> None:
        door = Door()
        first = door.knock()
        await until(lambda: door.made and door.made[0].events)
        successor = door.open()
        door.acceptor.close()
        door.acceptor.close()
        first.sendall(b"still here")
        await until(lambda: door.made[0].received == b"still here")
        door.knock()
        await until(lambda: len(door.made) == 2 and door.made[1].events)
        successor.close()
        await door.shut()

    run(make_loop, body())


@pytest.mark.parametrize("make_loop", LOOPS)
def test_a_crowd_is_taken_in_over_several_turns(make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        monkeypatch.setattr(limits, "ACCEPTS_PER_TURN", 3)
        door = Door()
        for _ in range(50):
            door.knock()
        seen = 0
        while len(door.made) < 50:
            await asyncio.sleep(0)
            assert len(door.made) - seen <= 6  # a turn of ours may see the end of one and the beginning of the next
            seen = len(door.made)
        await door.shut()

    run(make_loop, body())


@pytest.mark.parametrize("make_loop", LOOPS)
@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
def test_a_shortage_makes_it_wait_and_say_so_once(
    make_loop: MakeLoop, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        monkeypatch.setattr(limits, "ACCEPT_PAUSE_S", 0.01)
        real, attempts = listener.accept, 0

        def short(fd: int) -> Any:
            nonlocal attempts
            attempts += 1
            if attempts <= 3:
                raise OSError(number, "none left")
            return real(fd)

        monkeypatch.setattr(listener, "accept", short)
        door = Door()
        door.knock()
        await until(lambda: door.made and door.made[0].events)
        assert door.counters.get("broker.accept_pauses") == 3
        assert attempts <= 5  # three failures, the connection, nobody else: it did not spin
        await door.shut()

    with caplog.at_level(logging.WARNING, "ggfast.broker"):
        run(make_loop, body())
    assert [record.getMessage() for record in caplog.records] == [
        f"no connection can be accepted at the moment: [Errno {number}] none left"
    ]


def test_closing_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        def short(fd: int) -> Any:
            raise OSError(errno.EMFILE, "none left")

        monkeypatch.setattr(limits, "ACCEPT_PAUSE_S", 0.01)
        monkeypatch.setattr(listener, "accept", short)
        door = Door()
        door.knock()
        await until(lambda: door.counters.get("broker.accept_pauses"))
        door.acceptor.close()
        await asyncio.sleep(0.03)
        assert door.counters.get("broker.accept_pauses") == 1
        await door.shut()

    run(asyncio.SelectorEventLoop, body())


@pytest.mark.parametrize("make_loop", LOOPS)
def test_a_connection_that_died_in_the_queue_is_skipped(make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        real, failures = listener.accept, [OSError(errno.ECONNABORTED, "gone")]

        def accept(fd: int) -> Any:
            if failures:
                raise failures.pop()
            return real(fd)

        monkeypatch.setattr(listener, "accept", accept)
        door = Door()
        door.knock()
        await until(lambda: door.made and door.made[0].events)
        assert door.counters.get("broker.refused.failed_accepts") == 1
        await door.shut()

    run(make_loop, body())


@pytest.mark.parametrize("make_loop", LOOPS)
def test_an_address_that_comes_too_fast_is_turned_away(make_loop: MakeLoop, caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        door = Door(Arrivals(burst=5, per_s=0.001, addresses_max=10))
        for _ in range(20):
            door.knock()
        await until(lambda: door.counters.get("broker.refused.too_fast") == 15)
        assert [await asyncio.to_thread(peer.recv, 1) for peer in door.peers[5:]] == [b""] * 15
        assert sum(notes.events == ["made"] for notes in door.made) == 5
        await door.shut()

    with caplog.at_level(logging.WARNING, "ggfast.broker"):
        run(make_loop, body())
    assert len(caplog.records) == 1 and "127.0.0.1" in caplog.text


def test_a_whole_group_behind_one_address_comes_back_at_once() -> None:
    arrivals = Arrivals(limits.ARRIVALS_BURST, limits.TLS_ARRIVALS_PER_S, limits.ARRIVAL_ADDRESSES_MAX)
    assert all(arrivals.admit("192.0.2.1", 100.0) for _ in range(limits.GROUP_DEVICES_MAX))
    assert not arrivals.admit("192.0.2.1", 100.0)
    assert arrivals.admit("192.0.2.2", 100.0)
    assert arrivals.admit("192.0.2.1", 100.02)
    assert not arrivals.admit("192.0.2.1", 100.02)


def test_the_table_of_addresses_is_bounded() -> None:
    arrivals = Arrivals(burst=1, per_s=0.001, addresses_max=100)
    for number in range(10_000):
        assert arrivals.admit(number, number * 1e-6)
        arrivals.admit("busy", number * 1e-6)
        assert len(arrivals) <= 100
    assert not arrivals.admit("busy", 0.01)  # in use all the time: never the one that is forgotten


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("192.0.2.1", 1), ("192.0.2.1", 2), True),
        (("192.0.2.1", 1), ("192.0.2.2", 1), False),
        (("2001:db8::1", 1, 0, 0), ("2001:db8::ffff", 1, 0, 0), True),
        (("2001:db8::1", 1, 0, 0), ("2001:db8:0:1::1", 1, 0, 0), False),
        (("::ffff:192.0.2.1", 1, 0, 0), ("192.0.2.1", 9), True),
        (("::ffff:192.0.2.1", 1, 0, 0), ("::ffff:192.0.2.2", 1, 0, 0), False),
        ("", "", True),
    ],
)
def test_what_counts_as_one_address(one: Any, other: Any, same: bool) -> None:
    assert (listener._site(one) == listener._site(other)) is same


def test_a_loop_that_cannot_watch_descriptors_uses_its_own_transports() -> None:
    class Blind(asyncio.SelectorEventLoop):
        def add_reader(self, *_: Any) -> None:
            raise NotImplementedError

    async def body() -> None:
        loop, made = asyncio.get_running_loop(), Notes()
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        address = sock.getsockname()
        server = await listen(loop, sock, lambda: made, Counters(), None, 5.0)
        with socket.create_connection(address) as peer:
            peer.sendall(b"hello")
            await until(lambda: made.received == b"hello")
        await until(lambda: made.lost)
        server.close()

    run(Blind, body())
