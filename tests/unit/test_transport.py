"""Plain transports over real loopback sockets, on uvloop and on the standard library's loop."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from transport_support import LOOPS, Notes, joined, run, tcp_pair, until, warm_loop

from ggfast import limits
from ggfast._ext.framing import Connack, Connect, Publish, Subscribe, decode, encode
from ggfast._ext.routes import Router
from ggfast._ext.transport import Transport, accept
from ggfast.clock import SystemClock
from ggfast.counters import Counters
from ggfast.mqtt.broker import Broker
from ggfast.mqtt.connection import Connection
from ggfast.mqtt.hooks import OpenHooks
from ggfast.mqtt.limits import BrokerLimits

LARGE = 8 * 1024 * 1024  # more than the kernel's buffers of one connection take

__all__ = ["warm_loop"]  # a fixture: used by being there

pytestmark = pytest.mark.parametrize("make_loop", LOOPS)
MakeLoop = Callable[[], asyncio.AbstractEventLoop]


def reset(peer: socket.socket) -> None:
    """Close with RST instead of FIN."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def test_bytes_go_both_ways_and_the_end_comes_once(make_loop: MakeLoop) -> None:
    async def body() -> None:
        notes = Notes(lambda notes, data: notes.transport.write(data.upper()))
        with joined(notes) as (transport, peer):
            assert transport.get_extra_info("peername") == peer.getsockname()
            assert transport.get_extra_info("ssl_object") is None
            peer.sendall(b"hello")
            await until(lambda: notes.received == b"hello")
            assert peer.recv(100) == b"HELLO"
            peer.close()
            await until(lambda: notes.lost)
            assert transport.fileno() == -1
        await asyncio.sleep(0.01)
        assert notes.events == ["made", "lost"]
        assert notes.error is None

    run(make_loop, body())


def test_what_the_kernel_does_not_take_waits_in_order(make_loop: MakeLoop) -> None:
    async def body() -> None:
        notes = Notes()
        with joined(notes) as (transport, peer):
            sent = os.urandom(LARGE)
            for at in range(0, LARGE, 100_000):
                transport.write(sent[at : at + 100_000])
            assert transport.get_write_buffer_size() > limits.BROKER_WRITE_HIGH_BYTES
            assert notes.events == ["made", "pause"]
            received = await asyncio.to_thread(take, peer, LARGE)
            assert received == sent
            await until(lambda: notes.events == ["made", "pause", "resume"])
            assert transport.get_write_buffer_size() == 0

    run(make_loop, body())


def take(peer: socket.socket, count: int) -> bytes:
    """So many bytes, or what came before the end."""
    found = bytearray()
    while len(found) < count and (data := peer.recv(1 << 20)):
        found += data
    return bytes(found)


def test_writing_goes_on_only_below_the_low_mark(make_loop: MakeLoop) -> None:
    async def body() -> None:
        notes = Notes()
        with joined(notes) as (transport, peer):
            transport.set_write_buffer_limits(high=100_000)
            transport.write(bytes(LARGE))
            waiting = transport.get_write_buffer_size()
            await asyncio.to_thread(take, peer, LARGE - waiting)
            while "resume" not in notes.events:
                assert transport.get_write_buffer_size() > 25_000 or transport.get_write_buffer_size() == 0
                await asyncio.to_thread(peer.recv, 10_000)
            assert transport.get_write_buffer_size() <= 25_000

    run(make_loop, body())


def test_close_sends_what_waits_first(make_loop: MakeLoop) -> None:
    async def body() -> None:
        notes = Notes()
        with joined(notes) as (transport, peer):
            transport.write(bytes(LARGE))
            transport.close()
            transport.close()
            assert transport.is_closing() and not notes.lost
            transport.write(b"too late")
            assert await asyncio.to_thread(take, peer, LARGE + 1) == bytes(LARGE)
            await until(lambda: notes.lost)
        assert notes.events == ["made", "pause", "lost"]

    run(make_loop, body())


def test_abort_sends_nothing_more(make_loop: MakeLoop) -> None:
    async def body() -> None:
        notes = Notes()
        with joined(notes) as (transport, peer):
            transport.write(bytes(LARGE))
            transport.abort()
            transport.abort()
            assert not notes.lost  # never from inside the caller's turn
            await until(lambda: notes.lost)
            assert len(await asyncio.to_thread(take, peer, LARGE)) < LARGE
        assert notes.events.count("lost") == 1

    run(make_loop, body())


def test_a_reset_is_told_as_an_error(make_loop: MakeLoop) -> None:
    async def body() -> None:
        notes = Notes()
        with joined(notes) as (_, peer):
            reset(peer)
            await until(lambda: notes.lost)
        assert isinstance(notes.error, ConnectionResetError)

    run(make_loop, body())


def test_a_reset_behind_data_is_not_overlooked(make_loop: MakeLoop) -> None:
    """Both are there at the first look: the data is read, and the error still ends the connection."""

    async def body() -> None:
        notes = Notes()
        with joined(notes) as (_, peer):
            peer.sendall(b"last words")
            reset(peer)
            await until(lambda: notes.lost)
        assert notes.received in (b"last words", b"")

    run(make_loop, body())


def test_a_reset_while_paused_is_seen_at_the_next_look(make_loop: MakeLoop) -> None:
    async def body() -> None:
        notes = Notes()
        with joined(notes) as (transport, peer):
            transport.pause_reading()
            peer.sendall(b"waits")
            await asyncio.sleep(0.02)
            assert notes.received == b"" and not notes.lost
            reset(peer)
            transport.resume_reading()
            await until(lambda: notes.lost)

    run(make_loop, body())


def test_reading_paused_from_inside_a_read(make_loop: MakeLoop) -> None:
    async def body() -> None:
        notes = Notes(lambda notes, _: notes.transport.pause_reading())
        with joined(notes) as (transport, peer):
            peer.sendall(b"one")
            await until(lambda: notes.received)
            peer.sendall(b"two")
            await asyncio.sleep(0.02)
            assert notes.received == b"one"
            transport.resume_reading()
            transport.resume_reading()
            await until(lambda: notes.received == b"onetwo")

    run(make_loop, body())


def test_a_half_closed_peer_still_gets_its_answer(make_loop: MakeLoop) -> None:
    async def body() -> None:
        notes = Notes()
        with joined(notes) as (transport, peer):
            transport.write(bytes(LARGE))
            peer.shutdown(socket.SHUT_WR)
            await until(transport.is_closing)
            assert not notes.lost
            assert len(await asyncio.to_thread(take, peer, LARGE + 1)) == LARGE
            await until(lambda: notes.lost)
        assert notes.error is None

    run(make_loop, body())


@pytest.mark.parametrize("who", ["the peer", "we"])
def test_a_peer_that_does_not_take_the_last_bytes_is_cut_off(
    make_loop: MakeLoop, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    async def body() -> None:
        notes = Notes()
        monkeypatch.setattr(limits, "TRANSPORT_LINGER_S", 0.05)
        with joined(notes) as (transport, peer):
            transport.write(bytes(LARGE))
            peer.shutdown(socket.SHUT_WR) if who == "the peer" else transport.close()
            await until(lambda: notes.lost)

    run(make_loop, body())


def test_close_while_paused(make_loop: MakeLoop) -> None:
    async def body() -> None:
        notes = Notes()
        with joined(notes) as (transport, peer):
            transport.pause_reading()
            peer.sendall(b"never read")
            transport.close()
            transport.resume_reading()
            await until(lambda: notes.lost)
        assert notes.received == b""

    run(make_loop, body())


@pytest.mark.parametrize("how", ["close", "abort"])
def test_the_end_from_inside_a_read(make_loop: MakeLoop, how: str) -> None:
    async def body() -> None:
        notes = Notes(lambda notes, _: getattr(notes.transport, how)())
        with joined(notes) as (_, peer):
            peer.sendall(b"x")
            await until(lambda: notes.lost)
        assert notes.events == ["made", "lost"]

    run(make_loop, body())


def test_the_end_before_reading_begins(make_loop: MakeLoop) -> None:
    class Refusing(Notes):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            transport.abort()

    async def body() -> None:
        notes = Refusing()
        with joined(notes):
            await until(lambda: notes.lost)
        assert notes.events == ["made", "lost"]

    run(make_loop, body())


def test_sending_to_a_peer_that_is_gone_ends_later(make_loop: MakeLoop) -> None:
    async def body() -> None:
        notes = Notes()
        with joined(notes) as (transport, peer):
            transport.pause_reading()  # so that only the writes can find out
            reset(peer)
            transport.write(b"x")
            transport.write(b"y")
            assert not notes.lost
            await until(lambda: notes.lost)
            transport.write(b"after the end")
        assert isinstance(notes.error, (ConnectionResetError, BrokenPipeError))

    run(make_loop, body())


def test_a_peer_that_dies_with_output_waiting(make_loop: MakeLoop) -> None:
    async def body() -> None:
        notes = Notes()
        with joined(notes) as (transport, peer):
            transport.pause_reading()
            transport.write(bytes(LARGE))
            reset(peer)
            await until(lambda: notes.lost)
            assert transport.get_write_buffer_size() == 0
        assert isinstance(notes.error, OSError)

    run(make_loop, body())


def test_a_reused_descriptor_number_disturbs_nobody(make_loop: MakeLoop) -> None:
    async def body() -> None:
        for turn in range(50):
            notes = Notes()
            with joined(notes) as (transport, peer):
                peer.sendall(b"%d" % turn)
                await until(lambda notes=notes: notes.received)  # type: ignore[misc]
                assert notes.received == b"%d" % turn
                transport.abort() if turn % 2 else peer.close()
                await until(lambda notes=notes: notes.lost)  # type: ignore[misc]

    run(make_loop, body())


def test_a_descriptor_that_the_loop_gave_up_can_be_used_again(make_loop: MakeLoop) -> None:
    """A reset behind data ends the watching unasked; the connection is ended before it can look once more."""

    def end_soon(notes: Notes, _: bytes) -> None:
        asyncio.get_running_loop().call_soon(notes.transport.abort)

    async def body() -> None:
        for _ in range(20):
            broken, after = Notes(end_soon), Notes()
            with joined(broken) as (_transport, peer):
                peer.sendall(b"last words")
                reset(peer)
                await until(lambda broken=broken: broken.lost)  # type: ignore[misc]
            with joined(after) as (_transport, peer):
                peer.sendall(b"x")
                await until(lambda after=after: after.received == b"x")  # type: ignore[misc]

    run(make_loop, body())


class CountingLoop:
    """A loop that counts what is to be called soon."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.soon = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loop, name)

    def call_soon(self, *arguments: Any) -> Any:
        self.soon += 1
        return self.loop.call_soon(*arguments)


def test_a_watching_that_was_taken_away_is_renewed_once(make_loop: MakeLoop) -> None:
    async def body() -> None:
        fd, peer = tcp_pair()
        notes = Notes()
        loop = CountingLoop(asyncio.get_running_loop())
        transport = Transport(loop, fd, notes)
        transport.begin()
        loop.remove_reader(fd)
        for _ in range(50):
            await asyncio.sleep(0)
        assert loop.soon <= 2, "it looks again and again"
        peer.sendall(b"still heard")
        await until(lambda: notes.received == b"still heard")
        transport.abort()
        await until(lambda: notes.lost)
        peer.close()

    run(make_loop, body())


def test_a_failing_protocol_loses_its_connection_only(make_loop: MakeLoop) -> None:
    heard: list[dict[str, Any]] = []

    def broken(notes: Notes, data: bytes) -> None:
        raise RuntimeError("surprise")

    async def body() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
        notes, other = Notes(broken), Notes()
        with joined(notes) as (_, peer), joined(other) as (_, others_peer):
            peer.sendall(b"x")
            await until(lambda: notes.lost)
            others_peer.sendall(b"y")
            await until(lambda: other.received == b"y")
        assert isinstance(notes.error, RuntimeError)

    run(make_loop, body())
    assert [str(context["exception"]) for context in heard] == ["surprise"]


def test_one_read_is_bounded(make_loop: MakeLoop) -> None:
    async def body() -> None:
        pieces: list[int] = []
        notes = Notes(lambda _, data: pieces.append(len(data)))
        with joined(notes) as (_, peer):
            await asyncio.to_thread(peer.sendall, bytes(LARGE))
            await until(lambda: len(notes.received) == LARGE)
        assert max(pieces) <= 256 * 1024

    run(make_loop, body())


def test_two_loops_in_two_threads_do_not_mix_what_they_read(make_loop: MakeLoop) -> None:
    """The read window is one for the process: while one loop is inside a read, the other waits its turn."""

    async def body(mark: bytes) -> None:
        notes = Notes(lambda *_: time.sleep(0.002))  # lets the other thread in
        with joined(notes) as (_, peer):
            for number in range(1, 21):
                peer.sendall(mark * 50)
                await until(lambda number=number: len(notes.received) == number * 50)  # type: ignore[misc]
            assert notes.received == mark * 1000

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda mark: run(make_loop, body(mark)), [b"a", b"b"]))


def test_a_loop_that_closes_first_leaves_no_descriptor(make_loop: MakeLoop) -> None:
    fd, peer = tcp_pair()
    kept: list[Any] = []

    async def body() -> None:
        transport = Transport(asyncio.get_running_loop(), fd, Notes())
        transport.begin()
        kept.append(transport)

    run(make_loop, body())
    assert kept.pop().fileno() == fd
    gc.collect()
    peer.settimeout(1.0)
    assert peer.recv(1) == b""
    peer.close()


def broker_on(loop: asyncio.AbstractEventLoop) -> Broker:
    return Broker(loop, Router(True), OpenHooks(), BrokerLimits(), SystemClock(), Counters())


def test_nothing_is_left_for_the_garbage_collector(make_loop: MakeLoop) -> None:
    """A hundred clients come, talk and go in different ways; counting alone frees everything."""

    def alive() -> int:
        return sum(isinstance(found, (Transport, Connection)) for found in gc.get_objects())

    async def visit(broker: Broker, number: int) -> None:
        fd, peer = tcp_pair()
        Transport(broker.loop, fd, Connection(broker), peer.getsockname()).begin()
        peer.sendall(encode(Connect(4, True, 0, f"c{number}")) + encode(Subscribe(1, ((b"t", 0),))))
        await until(lambda: broker.clients())
        peer.sendall(encode(Publish(b"t", b"x")))
        if number % 4 == 0:
            broker.disconnect(f"c{number}")
        elif number % 4 == 1:
            peer.sendall(b"\xe0\x00")
        elif number % 4 == 2:
            peer.sendall(b"\xff\xff\xff\xff\xff")
        elif number % 4 == 3:
            reset(peer)
        await until(lambda: broker.connection_count == 0)
        peer.close()
        await asyncio.sleep(0.002)

    async def body() -> None:
        broker = broker_on(asyncio.get_running_loop())
        gc.collect()
        before = alive()
        gc.disable()
        try:
            for number in range(100):
                await visit(broker, number)
            assert alive() == before
        finally:
            gc.enable()
        broker.close()

    run(make_loop, body())


def test_a_session_is_fed_and_answers(make_loop: MakeLoop) -> None:
    async def body() -> None:
        broker = broker_on(asyncio.get_running_loop())
        fd, peer = tcp_pair()
        Transport(broker.loop, fd, Connection(broker), peer.getsockname()).begin()
        peer.sendall(encode(Connect(4, True, 0, "a")))
        await until(lambda: broker.clients())
        answer = await asyncio.to_thread(peer.recv, 100)
        assert decode(answer) == Connack(False, 0)
        assert broker.clients()[0].peer == "{}:{}".format(*peer.getsockname())
        broker.close()
        await until(lambda: broker.connection_count == 0)
        assert await asyncio.to_thread(peer.recv, 100) == b""
        peer.close()

    run(make_loop, body())


def test_accept_says_who_comes(make_loop: MakeLoop) -> None:
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as door:
            door.bind((host, 0))
            door.listen()
            door.setblocking(False)
            assert accept(door.fileno()) is None
            with socket.create_connection(door.getsockname()[:2]) as peer:
                arrived = accept(door.fileno())
                assert arrived is not None
                fd, name = arrived
                assert name == peer.getsockname()
                with socket.socket(fileno=fd) as ours:
                    assert not os.get_blocking(fd) and not os.get_inheritable(fd)
                    assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                    assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == limits.PROBE_AFTER_S
    with pytest.raises(OSError) as caught:
        accept(-1)
    assert caught.value.errno == errno.EBADF
