"""The load generator's other modes: TLS, many subscriptions, idle clients with a burst, counters, garbage."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import pytest
from test_bench_load import packets

from bench import certificates
from bench.generator import BenchFailed, idle_connections, load_beside, run_load, tls_options

TIMEOUT_S = 20.0
SHORT = ("--seconds", "0.05", "--warm-up", "0.01", "--window", "20")


class Broker:
    """A broker of a few lines: exact topics, QoS 0, a thread for each client. `spoil` may change what goes out."""

    def __init__(self, tls: bool = False, spoil: Callable[[bytes], bytes] = bytes) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.listener.settimeout(TIMEOUT_S)
        self.port = self.listener.getsockname()[1]
        self.context = _context() if tls else None
        self.spoil = spoil
        self.subscribers: dict[bytes, socket.socket] = {}
        self.topics: set[bytes] = set()
        self.peers: list[str] = []
        self.received: list[bytes] = []
        self.first: dict[str, int] = {}  # address -> first byte of all from there
        self.threads = [threading.Thread(target=self._accept)]
        self.threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, address = self.listener.accept()
                self.peers.append(address[0])
                self.threads.append(threading.Thread(target=self._serve, args=(client,)))
                self.threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, LookupError), contextlib.ExitStack() as stack:
            client.settimeout(TIMEOUT_S)
            if self.context:
                client = self.context.wrap_socket(client, server_side=True)
            stack.enter_context(client)
            unread, address = bytearray(), client.getpeername()[0]
            while data := client.recv(262_144):
                self.received.append(data)
                self.first.setdefault(address, data[0])
                unread += data
                for packet in packets(unread):
                    self._answer(client, packet)

    def _answer(self, client: socket.socket, packet: bytes) -> None:
        body = packet[2:] if packet[1] < 128 else packet[3:] if packet[2] < 128 else packet[4:]
        if packet[0] == 0x10:
            client.sendall(b"\x20\x02\x00\x00")
        elif packet[0] == 0x82:
            filters, at = [], 2
            while at < len(body):
                size = int.from_bytes(body[at : at + 2], "big")
                filters.append(body[at + 2 : at + 2 + size])
                at += 3 + size
            self.subscribers |= dict.fromkeys(filters, client)
            client.sendall(b"\x90" + bytes([2 + len(filters)]) + body[:2] + bytes(len(filters)))
        elif packet[0] == 0x30:
            topic = body[2 : 2 + int.from_bytes(body[:2], "big")]
            self.topics.add(topic)
            self.subscribers[topic].sendall(self.spoil(packet))

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(TIMEOUT_S)


def _context() -> ssl.SSLContext:
    files = certificates.made()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.server, files.server_key)
    context.load_verify_locations(files.authority)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


@contextlib.contextmanager
def broker(tls: bool = False, spoil: Callable[[bytes], bytes] = bytes) -> Iterator[Broker]:
    made = Broker(tls, spoil)
    try:
        yield made
    finally:
        made.close()


def test_tls_carries_a_load() -> None:
    with broker(tls=True) as server:
        figures = run_load(["--port", str(server.port), *SHORT, *tls_options()], TIMEOUT_S, None)
    assert figures["messages"] > 0


def test_tls_is_refused_when_the_server_is_a_stranger() -> None:
    options = tls_options()
    options[options.index("--ca") + 1] = str(certificates.made().client)
    words = r"TLS handshake of .* failed: certificate verify"
    with broker(tls=True) as server, pytest.raises(BenchFailed, match=words):
        run_load(["--port", str(server.port), *SHORT, *options], TIMEOUT_S, None)


def test_certificates_that_are_none_are_refused() -> None:
    with broker() as server, pytest.raises(BenchFailed, match="the certificates cannot be used: "):
        run_load(["--port", str(server.port), *SHORT, "--cert", "/a", "--key", "/b", "--ca", "/c"], TIMEOUT_S, None)


def test_many_subscriptions_are_made_and_met() -> None:
    many = ["--subscribers", "4", "--filters", "480", "--topics", "100", "--messages", "300", "--window", "50"]
    with broker() as server:
        figures = run_load(["--port", str(server.port), *many], TIMEOUT_S, None)
    assert figures["checked"] == 300
    assert len(server.subscribers) == 480
    assert len(server.topics) == 100
    clients = {server.subscribers[topic] for topic in server.topics}
    assert len(clients) == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--filters", "5", "--topics", "1", "--subscribers", "2"], "as many filters for each subscriber"),
        (["--filters", "4", "--topics", "5", "--subscribers", "2"], "1 topic to as many as there are filters"),
        (["--messages", "3", "--publishers", "2", "--subscribers", "2"], "the same number for each publisher"),
        (["--cert", "a"], "expected --cert, --key and --ca together"),
        (["--name", "a-very-long-name"], "--name of more than 12 bytes"),
        (["--flood"], "either --window or --rate or --flood"),
    ],
)
def test_refusals_are_sentences(options: list[str], words: str) -> None:
    with pytest.raises(BenchFailed, match=words):
        run_load(["--port", "1", *SHORT, *options], TIMEOUT_S, None)


def test_a_burst_goes_through_every_idle_client() -> None:
    with broker() as server, idle_connections(server.port, 3, None, ["--burst", "15000"]):
        assert sum(map(len, server.received)) > 3 * 15_000


def test_a_spoiled_burst_is_noticed() -> None:
    def spoil(packet: bytes) -> bytes:
        return packet[:-1] + b"?"

    with (
        broker(spoil=spoil) as server,
        pytest.raises(BenchFailed, match="client 0 got another message than it sent"),
        idle_connections(server.port, 2, None, ["--burst", "15000"]),
    ):
        pass


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_connections_come_and_go(tls: bool) -> None:
    with broker(tls) as server:
        options = ["--port", str(server.port), "--cpu-of", str(os.getpid()), "--connects", "5"]
        figures = run_load([*options, *(tls_options() if tls else ())], TIMEOUT_S, None)
    assert figures["connects"] == 5
    assert 0 < figures["broker_cpu_seconds"] < TIMEOUT_S
    assert len(server.peers) == 25  # 20 before the measuring


def test_a_flood_loses_without_failing() -> None:
    dropped: list[bytes] = []

    def spoil(packet: bytes) -> bytes:
        dropped.append(packet)
        return packet if len(dropped) % 2 else b""

    with broker(spoil=spoil) as server:
        flood = ["--flood", "--name", "flood", "--seconds", "0.1", "--warm-up", "0"]
        with load_beside(["--port", str(server.port), *flood], 1.0, None) as figures:
            assert figures == {}
    assert figures["messages"] > 0
    assert server.topics == {b"flood/0"}


def garbage(seed: int) -> tuple[dict[str, int], Broker]:
    with broker() as server:
        options = ["--port", str(server.port), "--garbage", "12", "--seed", str(seed), "--seconds", "0.3"]
        figures = run_load(options, TIMEOUT_S, None)
    return figures, server


def test_garbage_comes_from_many_addresses_and_is_counted() -> None:
    figures, server = garbage(1)
    assert figures["attempts"] >= figures["connected"] >= 12
    assert len(set(server.peers)) == 12
    assert figures["bytes_sent"] >= sum(map(len, server.received)) > 100


def test_the_seed_decides_what_is_sent() -> None:
    one, same, other = (garbage(seed)[1].first for seed in (1, 1, 2))
    assert one == same != other


def test_garbage_finds_no_broker(free_port: Callable[[], int]) -> None:
    options = ["--port", str(free_port()), "--garbage", "2", "--seconds", "0.05"]
    figures = run_load(options, TIMEOUT_S, None)
    assert 0 < figures["attempts"] - 2 <= figures["refused"] <= figures["attempts"]  # the last may be under way
    assert figures["connected"] == figures["bytes_sent"] == 0
