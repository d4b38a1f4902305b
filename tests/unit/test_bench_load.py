"""The load generator notices what a broker does wrong: a relay that can lose, repeat and reorder stands in for one."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from bench.generator import BenchFailed, idle_connections, run_load

TIMEOUT_S = 20.0
SHORT = ("--seconds", "0.05", "--warm-up", "0.01", "--window", "20")

# What becomes of the n-th message: the list of messages that go out instead.
Fault = Callable[[int, bytes], list[bytes]]


def faithful(number: int, message: bytes) -> list[bytes]:
    return [message]


def losing(number: int, message: bytes) -> list[bytes]:
    return [] if number == 10 else [message]


def repeating(number: int, message: bytes) -> list[bytes]:
    return [message, message] if number == 10 else [message]


class Swapping:
    """Message 10 goes out after message 11."""

    def __init__(self) -> None:
        self.held = b""

    def __call__(self, number: int, message: bytes) -> list[bytes]:
        if number == 10:
            self.held = message
            return []
        return [message, self.held] if number == 11 else [message]


def packets(data: bytearray) -> Iterator[bytes]:
    """Take whole packets (shorter than 16 KiB) off the front of `data`."""
    while len(data) >= 2:
        length, head = (data[1], 2) if data[1] < 128 else (data[1] & 127 | (data[2] if len(data) > 2 else 1) << 7, 3)
        if len(data) < head + length:
            return
        yield bytes(data[: head + length])
        del data[: head + length]


class Relay:
    """Accepts one subscriber, then one publisher, and hands messages on; `fault` decides what it does wrong."""

    def __init__(self, fault: Fault, granted: int = 0, refuse: bool = False) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(TIMEOUT_S)
        self.port = self.listener.getsockname()[1]
        self.fault, self.granted, self.refuse = fault, granted, refuse
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            subscriber = stack.enter_context(self.listener.accept()[0])
            subscriber.recv(100)
            subscriber.sendall(b"\x20\x02\x00" + (b"\x05" if self.refuse else b"\x00"))
            if self.refuse:
                return
            subscriber.recv(100)
            subscriber.sendall(b"\x90\x03\x00\x01" + bytes([self.granted]))
            publisher = stack.enter_context(self.listener.accept()[0])
            publisher.recv(100)
            publisher.sendall(b"\x20\x02\x00\x00")
            self._relay(publisher, subscriber)

    def _relay(self, publisher: socket.socket, subscriber: socket.socket) -> None:
        number, unread = 0, bytearray()
        while data := publisher.recv(65_536):
            unread += data
            out = b""
            for packet in packets(unread):
                out += b"".join(self.fault(number, packet))
                if packet[0] == 0x32:  # QoS 1: the subscriber's answers are never read, they fit into its socket
                    at = 4 + packet[3]
                    publisher.sendall(b"\x40\x02" + packet[at : at + 2])
                number += 1
            subscriber.sendall(out)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)  # wakes a thread that waits for a connection
        self.thread.join(TIMEOUT_S)
        self.listener.close()


@contextlib.contextmanager
def relay(fault: Fault, granted: int = 0, refuse: bool = False) -> Iterator[int]:
    made = Relay(fault, granted, refuse)
    try:
        yield made.port
    finally:
        made.close()


def load(port: int, *options: str) -> dict[str, object]:
    return run_load(["--port", str(port), *SHORT, *options], TIMEOUT_S, None)


@pytest.mark.parametrize("size", ["24", "64", "1024"])
def test_a_faithful_relay_gives_figures(size: str) -> None:
    with relay(faithful) as port:
        figures = load(port, "--size", size)
    assert figures["messages"] and figures["repeated"] == 0
    assert figures["checked"] >= figures["messages"]
    latency = figures["latency_us"]
    assert isinstance(latency, dict)
    assert 0 < latency["p50"] <= latency["p99"] <= latency["p99.9"] <= latency["max"]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (losing, r"1 did not arrive in turn, 1 numbers were skipped .*, 0 messages came again or late"),
        (repeating, r"0 did not arrive in turn, 0 numbers were skipped .*, 1 messages came again or late"),
        (Swapping(), r"1 did not arrive in turn, 1 numbers were skipped .*, 1 messages came again or late"),
    ],
    ids=["loss", "repetition", "reordering"],
)
def test_a_fault_fails_the_run(fault: Fault, words: str) -> None:
    with relay(fault) as port, pytest.raises(BenchFailed, match=words):
        load(port)


def test_qos_1_may_repeat_and_counts_it() -> None:
    with relay(repeating, granted=1) as port:
        assert load(port, "--qos", "1")["repeated"] == 1


def test_qos_1_may_not_lose() -> None:
    with relay(losing, granted=1) as port, pytest.raises(BenchFailed, match="1 numbers were skipped"):
        load(port, "--qos", "1")


def test_a_fixed_rate_sends_what_is_due() -> None:
    with relay(faithful) as port:
        figures = run_load(
            ["--port", str(port), "--rate", "200", "--seconds", "0.3", "--warm-up", "0.01"], TIMEOUT_S, None
        )
    assert isinstance(figures["messages"], int)
    assert 1 <= figures["messages"] <= 1_000  # 60 are due; a machine that stands still may catch up


@pytest.mark.parametrize(
    ("settings", "options", "words"),
    [
        ({"refuse": True}, (), "refused subscriber 0 with return code 5"),
        ({"granted": 0}, ("--qos", "1"), "asked for QoS 1 and was granted 0"),
        ({}, ("--size", "10"), "found a payload of 10 bytes, expected 24 to"),
        ({}, ("--rate", "5"), "either --window or --rate"),
        ({}, ("--cpu-of", "999999999"), "no process 999999999"),
    ],
)
def test_refusals_are_sentences(settings: dict[str, bool], options: tuple[str, ...], words: str) -> None:
    with relay(faithful, **settings) as port, pytest.raises(BenchFailed, match=words):
        load(port, *options)


def test_nobody_listens(free_port: Callable[[], int]) -> None:
    port = free_port()
    with pytest.raises(BenchFailed, match=rf"cannot connect to port {port}: Connection refused"):
        load(port)


def test_idle_connections_that_the_broker_closes_are_noticed() -> None:
    closed = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT_S)

        def accept() -> None:
            for keep in (True, False):
                connection, _ = listener.accept()
                connection.recv(100)
                connection.sendall(b"\x20\x02\x00\x00")
                if keep:
                    kept.append(connection)
                else:
                    connection.close()
            closed.set()

        kept: list[socket.socket] = []
        thread = threading.Thread(target=accept)
        thread.start()
        with (
            pytest.raises(BenchFailed, match="closed 1 of 2 idle connections"),
            idle_connections(listener.getsockname()[1], 2, None),
        ):
            assert closed.wait(TIMEOUT_S)
        thread.join(TIMEOUT_S)
        for connection in kept:
            connection.close()
