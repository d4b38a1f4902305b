"""TLS transports behind a real acceptor, with Python's ssl as the other side."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any

import pytest
from tls_support import ByHand, People, enter, openssl, people
from transport_support import LOOPS, PATIENCE_S, Notes, run, until, warm_loop

from ggfast import limits
from ggfast._ext import tls
from ggfast._ext.tls import Handshakes, TlsTransport, unusable
from ggfast.counters import Counters
from ggfast.net.listener import Acceptor, listen

__all__ = ["people", "warm_loop"]  # fixtures: used by being there

LARGE = 4 * 1024 * 1024
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
MakeLoop = Callable[[], asyncio.AbstractEventLoop]

pytestmark = pytest.mark.parametrize("make_loop", LOOPS)


class Door:
    """An acceptor with TLS, and the protocols it made."""

    def __init__(
        self, context: ssl.SSLContext, on_data: Callable[[Notes, bytes], None] | None = None, timeout_s: float = 30.0
    ) -> None:
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        self.address = sock.getsockname()
        self.counters, self.made, self._on_data = Counters(), list[Notes](), on_data
        self.acceptor = Acceptor(
            loop, sock, self.make, self.counters, ssl_context=context, handshake_timeout_s=timeout_s
        )
        self.peers: list[socket.socket] = []

    def make(self) -> Notes:
        self.made.append(Notes(self._on_data))
        return self.made[-1]

    async def enter(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        self.peers.append(await enter(self.address, context))
        return self.peers[-1]  # type: ignore[return-value]

    def knock(self) -> socket.socket:
        self.peers.append(socket.create_connection(self.address, PATIENCE_S))
        return self.peers[-1]

    async def failures(self, count: int) -> None:
        await until(lambda: self.counters.get("broker.refused.handshakes") == count)

    async def shut(self) -> None:
        self.acceptor.close()
        for peer in self.peers:
            peer.close()
        await until(lambda: all(notes.lost for notes in self.made))
        await until(lambda: not len(self.acceptor._handshakes))
        await asyncio.sleep(0.002)


def echo(notes: Notes, data: bytes) -> None:
    notes.transport.write(data)


@pytest.mark.parametrize("version", VERSIONS)
def test_bytes_go_both_ways(make_loop: MakeLoop, people: People, version: ssl.TLSVersion) -> None:
    async def body() -> None:
        door = Door(people.serving(), echo)
        client = await door.enter(people.visiting(people.device, version))
        client.sendall(b"hello")
        assert await asyncio.to_thread(client.recv, 100) == b"hello"
        transport = door.made[0].transport
        assert isinstance(transport, TlsTransport)
        assert transport.get_extra_info("ssl_object").getpeercert(binary_form=True) == people.device.der
        assert transport.get_extra_info("peername") == client.getsockname()
        with pytest.raises(ValueError, match="binary"):
            transport.getpeercert(False)
        await door.shut()
        assert door.made[0].events == ["made", "lost"]

    run(make_loop, body())


def test_without_client_certificates(make_loop: MakeLoop, people: People) -> None:
    async def body() -> None:
        door = Door(people.serving(mutual=False))
        client = await door.enter(people.visiting())
        client.sendall(b"x")
        await until(lambda: door.made and door.made[0].received)
        assert door.made[0].transport.getpeercert() is None
        await door.shut()

    run(make_loop, body())


@pytest.mark.parametrize("version", VERSIONS)
def test_large_amounts_and_a_slow_reader(make_loop: MakeLoop, people: People, version: ssl.TLSVersion) -> None:
    async def body() -> None:
        door = Door(people.serving())
        client = await door.enter(people.visiting(people.device, version))
        sent = os.urandom(LARGE)
        await asyncio.to_thread(client.sendall, sent)
        await until(lambda: door.made[0].received == sent)
        transport = door.made[0].transport
        transport.write(sent)
        assert door.made[0].events == ["made", "pause"]
        received = bytearray()
        while len(received) < LARGE:
            received += await asyncio.to_thread(client.recv, 1 << 20)
        assert received == sent
        await until(lambda: door.made[0].events == ["made", "pause", "resume"])
        assert transport.get_write_buffer_size() == 0
        await door.shut()

    run(make_loop, body())


def test_records_in_single_bytes(make_loop: MakeLoop, people: People) -> None:
    async def body() -> None:
        door = Door(people.serving(), echo)
        client = ByHand(door.knock(), people.visiting(people.device))
        client.step()
        for byte in client.leaving.read():
            client.sock.sendall(bytes([byte]))
            await asyncio.sleep(0)
        await client.hear()
        await client.shake()
        await client.say(b"drop by drop", piece=1)
        await until(lambda: door.made and door.made[0].received == b"drop by drop")
        await door.shut()

    run(make_loop, body())


def test_data_right_behind_the_handshake(make_loop: MakeLoop, people: People) -> None:
    """The client's last flight and its first message in one segment: both are seen in one read."""

    async def body() -> None:
        door = Door(people.serving(), echo)
        client = ByHand(door.knock(), people.visiting(people.device))
        await client.shake()
        await client.say(b"at once")
        await until(lambda: door.made and door.made[0].received == b"at once")
        await door.shut()

    run(make_loop, body())


def test_many_records_in_one_read_leave_nothing_behind(make_loop: MakeLoop, people: People) -> None:
    async def body() -> None:
        pieces: list[int] = []
        door = Door(people.serving(), lambda _, data: pieces.append(len(data)))
        client = ByHand(door.knock(), people.visiting(people.device))
        await client.shake()
        for _ in range(2_000):
            client.tls.write(b"0123456789")
        await client.say(b"!")
        await until(lambda: door.made and len(door.made[0].received) == 20_001)
        assert len(pieces) < 20  # of two thousand records
        await door.shut()

    run(make_loop, body())


def test_new_keys_in_the_middle(make_loop: MakeLoop, people: People) -> None:
    async def body() -> None:
        door = Door(people.serving(), echo)
        client = await door.enter(people.visiting(people.device, ssl.TLSVersion.TLSv1_3))
        for number in range(5):
            assert openssl(client, "SSL_key_update", 1) == 1  # of both directions, from the next record on
            client.sendall(b"%d" % number)
            assert await asyncio.to_thread(client.recv, 100) == b"%d" % number
        await door.shut()
        assert door.made[0].error is None

    run(make_loop, body())


def test_a_client_that_renegotiates_is_refused(make_loop: MakeLoop, people: People) -> None:
    async def body() -> None:
        door = Door(people.serving(), echo)
        other = await door.enter(people.visiting(people.device))
        client = await door.enter(people.visiting(people.device, ssl.TLSVersion.TLSv1_2))
        assert openssl(client, "SSL_renegotiate") == 1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(client.do_handshake)
        other.sendall(b"undisturbed")
        assert await asyncio.to_thread(other.recv, 100) == b"undisturbed"
        await door.shut()

    run(make_loop, body())


@pytest.mark.parametrize("version", VERSIONS)
def test_an_orderly_end_by_us(make_loop: MakeLoop, people: People, version: ssl.TLSVersion) -> None:
    async def body() -> None:
        door = Door(people.serving(), lambda notes, _: notes.transport.close())
        context = people.visiting(people.device, version)
        sock = door.knock()
        client = await asyncio.to_thread(
            lambda: context.wrap_socket(sock, server_hostname="localhost", suppress_ragged_eofs=False)
        )
        door.peers.append(client)
        client.sendall(b"x")
        assert await asyncio.to_thread(client.recv, 100) == b""  # an end without close_notify would raise
        await until(lambda: door.made[0].lost)
        await door.shut()

    run(make_loop, body())


def test_close_sends_what_waits_and_then_the_end(make_loop: MakeLoop, people: People) -> None:
    async def body() -> None:
        door = Door(people.serving())
        client = await door.enter(people.visiting(people.device))
        await until(lambda: door.made and door.made[0].transport)
        transport = door.made[0].transport
        transport.write(bytes(LARGE))
        transport.close()
        transport.write(b"too late")
        count = 0
        while data := await asyncio.to_thread(client.recv, 1 << 20):
            count += len(data)
        assert count == LARGE
        await door.shut()

    run(make_loop, body())


@pytest.mark.parametrize("how", ["notify", "cut", "reset"])
def test_an_end_by_the_client(make_loop: MakeLoop, people: People, how: str) -> None:
    async def body() -> None:
        door = Door(people.serving())
        client = await door.enter(people.visiting(people.device))
        client.sendall(b"x")
        await until(lambda: door.made[0].received)
        if how == "notify":
            await asyncio.to_thread(client.unwrap)
        elif how == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        await until(lambda: door.made[0].lost)
        assert isinstance(door.made[0].error, ConnectionResetError if how == "reset" else type(None))
        await door.shut()

    run(make_loop, body())


def test_a_damaged_record_ends_its_connection(make_loop: MakeLoop, people: People) -> None:
    async def body() -> None:
        door = Door(people.serving(), echo)
        other = await door.enter(people.visiting(people.device))
        client = ByHand(door.knock(), people.visiting(people.device))
        await client.shake()
        await client.say(b"good")
        await until(lambda: len(door.made) == 2 and door.made[1].received == b"good")
        client.tls.write(b"bad")
        record = bytearray(client.leaving.read())
        record[-1] ^= 1
        client.sock.sendall(record)
        await until(lambda: door.made[1].lost)
        assert "TLS: " in str(door.made[1].error)
        other.sendall(b"undisturbed")
        assert await asyncio.to_thread(other.recv, 100) == b"undisturbed"
        await door.shut()

    run(make_loop, body())


# --- handshakes that come to nothing -------------------------------------------------------------------


def refused(make_loop: MakeLoop, people: People, caplog: pytest.LogCaptureFixture, visit: Any) -> str:
    """What is logged when `visit(door)` fails to come in."""

    async def body() -> None:
        door = Door(people.serving(), timeout_s=0.2)
        await visit(door)
        await door.failures(1)
        assert door.made == []
        await door.shut()

    with caplog.at_level(logging.WARNING, "ggfast.broker"):
        run(make_loop, body())
    (record,) = caplog.records
    return record.getMessage()


def test_a_certificate_nobody_registered(make_loop: MakeLoop, people: People, caplog: pytest.LogCaptureFixture) -> None:
    async def visit(door: Door) -> None:
        client = await door.enter(people.visiting(people.stranger))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(client.recv, 1)

    assert "the client's certificate: " in refused(make_loop, people, caplog, visit)


def test_no_certificate_at_all(make_loop: MakeLoop, people: People, caplog: pytest.LogCaptureFixture) -> None:
    async def visit(door: Door) -> None:
        client = await door.enter(people.visiting())
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(client.recv, 1)

    assert "peer did not return a certificate" in refused(make_loop, people, caplog, visit)


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"\x10\x0c\x00\x04MQTT\x04\x02" + bytes(4), bytes(9)])
def test_something_else_than_tls(
    make_loop: MakeLoop, people: People, caplog: pytest.LogCaptureFixture, noise: bytes
) -> None:
    async def visit(door: Door) -> None:
        door.knock().sendall(noise)

    assert "TLS handshake failed" in refused(make_loop, people, caplog, visit)


def test_an_end_inside_the_handshake(make_loop: MakeLoop, people: People, caplog: pytest.LogCaptureFixture) -> None:
    async def visit(door: Door) -> None:
        client = ByHand(door.knock(), people.visiting(people.device))
        client.step()
        client.sock.sendall(client.leaving.read())
        await client.hear()
        client.sock.close()

    assert "the client closed the connection" in refused(make_loop, people, caplog, visit)


def test_a_reset_inside_the_handshake(make_loop: MakeLoop, people: People, caplog: pytest.LogCaptureFixture) -> None:
    async def visit(door: Door) -> None:
        sock = door.knock()
        await asyncio.sleep(0.02)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    assert "reset by peer" in refused(make_loop, people, caplog, visit)


@pytest.mark.parametrize("begun", [False, True])
def test_a_client_that_says_no_more(
    make_loop: MakeLoop, people: People, caplog: pytest.LogCaptureFixture, begun: bool
) -> None:
    async def visit(door: Door) -> None:
        client = ByHand(door.knock(), people.visiting(people.device))
        if begun:
            client.step()
            client.sock.sendall(client.leaving.read())

    assert "not done within 0.2 s" in refused(make_loop, people, caplog, visit)


def test_silent_clients_give_way(make_loop: MakeLoop, people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        monkeypatch.setattr(limits, "TLS_HANDSHAKES_MAX", 5)
        door = Door(people.serving(), echo)
        for _ in range(20):
            door.knock()
        client = await door.enter(people.visiting(people.device))
        client.sendall(b"in")
        assert await asyncio.to_thread(client.recv, 10) == b"in"
        assert door.counters.get("broker.refused.handshakes") >= 16
        assert len(door.acceptor._handshakes) <= 5
        await door.shut()

    run(make_loop, body())


def test_too_many_that_talk_have_to_wait(make_loop: MakeLoop, people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        monkeypatch.setattr(limits, "TLS_HANDSHAKES_MAX", 2)
        monkeypatch.setattr(limits, "HANDSHAKE_PAUSE_S", 0.01)
        door = Door(people.serving(), timeout_s=0.5)
        for _ in range(2):
            client = ByHand(door.knock(), people.visiting(people.device))
            client.step()
            client.sock.sendall(client.leaving.read())
            await client.hear()
        late = asyncio.create_task(door.enter(people.visiting(people.device)))
        await until(lambda: door.counters.get("broker.accept_pauses"))
        assert door.counters.get("broker.refused.handshakes") == 0
        (await late).sendall(b"in")  # once the two have run out of time
        await until(lambda: door.made and door.made[0].received == b"in")
        await door.shut()

    run(make_loop, body())


def test_a_handshake_outlives_its_acceptor(make_loop: MakeLoop, people: People) -> None:
    async def body() -> None:
        door = Door(people.serving(), echo)
        client = ByHand(door.knock(), people.visiting(people.device))
        client.step()
        client.sock.sendall(client.leaving.read())
        await client.hear()
        door.acceptor.close()
        await client.shake()
        await client.say(b"in")
        await until(lambda: door.made and door.made[0].received == b"in")
        await door.shut()

    run(make_loop, body())


def test_handshakes_are_spread_over_turns(make_loop: MakeLoop, people: People) -> None:
    async def body() -> None:
        door = Door(people.serving())
        clients = [ByHand(door.knock(), people.visiting(people.device)) for _ in range(20)]
        await until(lambda: len(door.acceptor._handshakes) == 20)
        for client in clients:
            client.step()
            client.sock.sendall(client.leaving.read())
            client.sock.setblocking(False)
        answered, most = 0, 0
        while answered < 20:
            await asyncio.sleep(0)
            now = sum(answers(client.sock) for client in clients)
            most, answered = max(most, now - answered), now
        assert most <= 2 * limits.TLS_HANDSHAKES_PER_TURN  # one turn of ours may touch two of the loop's
        await door.shut()

    run(make_loop, body())


def answers(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


def test_nothing_is_left_for_the_garbage_collector(make_loop: MakeLoop, people: People) -> None:
    def alive() -> int:
        return sum(isinstance(found, (TlsTransport, Handshakes, Notes)) for found in gc.get_objects())

    async def visit(door: Door, number: int) -> None:
        if number % 3 == 0:
            door.knock().sendall(b"nonsense, and enough of it")
            await door.failures(number // 3 + 1)
        else:
            client = await door.enter(people.visiting(people.device))
            client.sendall(b"x")
            await until(lambda: door.made and door.made[-1].received)
            door.made[-1].transport.close() if number % 3 == 1 else client.close()
            await until(lambda: door.made[-1].lost)
        door.made.clear()
        door.peers.pop().close()
        await asyncio.sleep(0.002)

    async def body() -> None:
        door = Door(people.serving())
        await visit(door, 0)
        gc.collect()
        before = alive()
        gc.disable()
        try:
            for number in range(1, 40):
                await visit(door, number)
            assert alive() == before
        finally:
            gc.enable()
        await door.shut()

    run(make_loop, body())


# --- when it cannot be ours ----------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["the library is another one", "the context has a sni_callback"])
def test_the_loops_own_tls_takes_over(
    make_loop: MakeLoop,
    people: People,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    why: str,
) -> None:
    async def body() -> None:
        context, notes, sock = people.serving(), Notes(echo), socket.socket()
        assert unusable(context) is None
        if "sni" in why:
            context.sni_callback = lambda *_: None
        else:
            monkeypatch.setattr(tls, "_problem", why)
        sock.bind(("127.0.0.1", 0))
        address = sock.getsockname()
        server = await listen(asyncio.get_running_loop(), sock, lambda: notes, Counters(), context, 5.0)
        client = await enter(address, people.visiting(people.device))
        client.sendall(b"hello")
        assert await asyncio.to_thread(client.recv, 100) == b"hello"
        certificate = notes.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        assert certificate == people.device.der
        client.close()
        await until(lambda: notes.lost)
        server.close()

    with caplog.at_level(logging.WARNING, "ggfast.broker"):
        run(make_loop, body())
    assert why in caplog.text
