"""Frames between daemon and worker: what is cut, what is refused, what it may cost."""

from __future__ import annotations

import array
import asyncio
import os
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from function_support import run
from hypothesis import given
from hypothesis import strategies as st

from ggfast._ext.frames import FRAME_BYTES_MAX, FrameReader, WorkerLink
from ggfast.errors import Malformed

ROUTER = b"arn:aws:lambda:::function:GGRouter"


class Seen:
    """Collects what a reader or link hands on."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.then: Callable[[], None] = lambda: None

    def _add(self, *event: Any) -> None:
        self.events.append(event)
        self.then()

    def initialised(self, ok: bool, text: str) -> None:
        self._add("I", ok, text)

    def result(self, invocation: int, payload: bytes) -> None:
        self._add("R", invocation, payload)

    def error(self, invocation: int, document: bytes) -> None:
        self._add("E", invocation, document)

    def publish(self, call: int, context: bytes, payload: bytes) -> None:
        self._add("publish", call, context, payload)

    def call(self, call: int, kind: int, arn: str, context: bytes, payload: bytes) -> None:
        self._add("call", call, kind, arn, context, payload)

    def ended(self, reason: str) -> None:
        self._add("ended", reason)


def frame(kind: bytes, body: bytes) -> bytes:
    return struct.pack("<I", 1 + len(body)) + kind + body


def call(number: int, kind: int, arn: bytes, context: bytes, payload: bytes) -> bytes:
    head = struct.pack("<IBH", number, kind, len(arn))
    return frame(b"P", head + arn + struct.pack("<H", len(context)) + context + payload)


u32 = st.integers(0, 2**32 - 1)
frames = st.one_of(
    st.builds(lambda n, b: (frame(b"R", struct.pack("<I", n) + b), ("R", n, b)), u32, st.binary(max_size=300)),
    st.builds(lambda n, b: (frame(b"E", struct.pack("<I", n) + b), ("E", n, b)), u32, st.binary(max_size=300)),
    st.builds(lambda ok, t: (frame(b"I", bytes([ok]) + t.encode()), ("I", ok, t)), st.booleans(), st.text(max_size=20)),
    st.builds(
        lambda n, k, c, b: (call(n, k, ROUTER, c, b), ("publish", n, c, b)),
        u32,
        st.integers(0, 1),
        st.binary(max_size=50),
        st.binary(max_size=9000),
    ),
    st.builds(
        lambda n, k, a, c: (call(n, k, a.encode(), c, b""), ("call", n, k, a, c, b"")),
        u32,
        st.integers(0, 1),
        st.text(max_size=40).filter(lambda text: text.encode() != ROUTER),
        st.binary(max_size=50),
    ),
)


@given(st.lists(frames, max_size=8), st.lists(st.integers(1, 5000), min_size=1, max_size=20))
def test_chunking_never_changes_the_events(items: list[tuple[bytes, tuple[Any, ...]]], sizes: list[int]) -> None:
    seen = Seen()
    reader = FrameReader(seen)
    stream = b"".join(data for data, _ in items)
    at = turn = 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        reader.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert seen.events == [event for _, event in items]
    assert reader.pending == 0
    assert reader.frames == len(items)


@given(st.binary(max_size=200))
def test_any_bytes_are_events_or_malformed(data: bytes) -> None:
    reader = FrameReader(Seen())
    try:
        reader.feed(data)
    except Malformed:
        return
    assert reader.held <= 4096


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\0\0\0\0R", "a frame of 0 bytes"),
        (struct.pack("<I", FRAME_BYTES_MAX + 1) + b"R", f"a frame of {FRAME_BYTES_MAX + 1} bytes"),
        (b"\xff\xff\xff\xffR", "a frame of 4294967295 bytes"),
        (frame(b"W", b"x"), "type 0x57"),
        (frame(b"I", b""), "without its status byte"),
        (frame(b"R", b"123"), "with 3 bytes, expected at least 4"),
        (frame(b"E", b""), "with 0 bytes"),
        (frame(b"P", b"12345678"), "a call of 8 bytes"),
        (frame(b"P", struct.pack("<IBH", 1, 0, 65535) + b"arn"), "target has 65535 bytes"),
        (frame(b"P", struct.pack("<IBH", 1, 0, 2) + b"ab"), "target has 2 bytes"),
        (frame(b"P", struct.pack("<IBH", 1, 0, 0) + struct.pack("<H", 9) + b"{}"), "client context has 9 bytes"),
        (call(1, 2, b"a", b"", b""), "invocation type 2"),
    ],
)
def test_what_is_no_frame_is_refused_by_name(data: bytes, text: str) -> None:
    seen = Seen()
    with pytest.raises(Malformed, match=text):
        FrameReader(seen).feed(data)
    assert seen.events == []


def test_a_length_alone_takes_no_memory() -> None:
    reader = FrameReader(Seen())
    reader.feed(struct.pack("<I", FRAME_BYTES_MAX) + b"R" + bytes(100))
    assert reader.held == 4096
    assert reader.pending == 105


def test_memory_for_a_large_frame_is_given_back() -> None:
    seen = Seen()
    reader = FrameReader(seen)
    reader.feed(frame(b"R", bytes(FRAME_BYTES_MAX - 1)))
    assert len(seen.events[0][2]) == FRAME_BYTES_MAX - 5
    assert reader.held <= 65536


def test_a_handler_may_stop_the_reader() -> None:
    seen = Seen()
    reader = FrameReader(seen)
    seen.then = reader.stop
    reader.feed(frame(b"R", b"1234") * 3)
    assert len(seen.events) == 1


# --- the link --------------------------------------------------------------------------------------------


def with_link(
    test: Callable[[WorkerLink, socket.socket, Seen], Coroutine[Any, Any, None]], bound: int = 1 << 20
) -> None:
    async def body() -> None:
        near, far = socket.socketpair()
        seen = Seen()
        link = WorkerLink(asyncio.get_running_loop(), near.detach(), seen, bound)
        link.start()
        try:
            await test(link, far, seen)
        finally:
            link.close()
            far.close()

    run(body())


async def settle(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it did not happen")


def test_the_link_sends_what_the_worker_reads() -> None:
    async def body(link: WorkerLink, far: socket.socket, seen: Seen) -> None:
        assert link.send_config(b"{}") and link.send_work(7, b"ctx", b"load")
        assert link.send_answer(9, 3, b"no") and link.send_shutdown()
        expected = (
            frame(b"C", b"{}")
            + frame(b"W", struct.pack("<IH", 7, 3) + b"ctxload")
            + frame(b"A", struct.pack("<IB", 9, 3) + b"no")
            + frame(b"X", b"")
        )
        assert far.recv(1000) == expected

    with_link(body)


def test_frames_arrive_in_order_through_a_full_socket() -> None:
    async def body(link: WorkerLink, far: socket.socket, seen: Seen) -> None:
        big = os.urandom(400_000)
        assert link.send_work(1, b"", big) and link.send_work(2, b"", big)
        assert link.outbound_bytes > 0
        received = bytearray()
        far.setblocking(False)
        expected = frame(b"W", struct.pack("<IH", 1, 0) + big) + frame(b"W", struct.pack("<IH", 2, 0) + big)
        while len(received) < len(expected):
            try:
                received += far.recv(65536)
            except BlockingIOError:
                await asyncio.sleep(0.001)
        assert received == expected
        assert link.outbound_bytes == 0

    with_link(body)


def test_what_waits_for_a_worker_that_does_not_read_is_bounded() -> None:
    async def body(link: WorkerLink, far: socket.socket, seen: Seen) -> None:
        sent = 0
        while link.send_answer(1, 0, bytes(10_000)):
            sent += 1
            assert sent < 1000
        assert link.outbound_bytes <= 100_000
        assert sent > 10

    with_link(body, bound=100_000)


def test_the_end_of_the_stream_is_told_once() -> None:
    async def body(link: WorkerLink, far: socket.socket, seen: Seen) -> None:
        far.sendall(frame(b"R", b"1234last") + b"\x09\0")
        far.close()
        await settle(lambda: len(seen.events) == 2)
        assert seen.events[1] == ("ended", "it closed its socket inside a frame")
        assert link.fd == -1
        assert link.send_work(1, b"", b"late")  # to nobody, harmless

    with_link(body)


def test_garbage_ends_the_link_with_a_reason() -> None:
    async def body(link: WorkerLink, far: socket.socket, seen: Seen) -> None:
        far.sendall(b"GET / HTTP/1.1\r\n\r\n")
        await settle(lambda: bool(seen.events))
        assert seen.events == [("ended", f"it sent a frame of {0x20544547} bytes, allowed are 1 to {FRAME_BYTES_MAX}")]

    with_link(body)


def test_descriptors_a_worker_sends_are_dropped() -> None:
    """Row 51: there is no room for them in the read, so the kernel closes them."""

    async def body(link: WorkerLink, far: socket.socket, seen: Seen) -> None:
        read, write = os.pipe()
        before = len(os.listdir("/proc/self/fd"))
        fds = array.array("i", [write] * 20)
        far.sendmsg([frame(b"R", b"1234")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        await settle(lambda: bool(seen.events))
        assert len(os.listdir("/proc/self/fd")) == before
        os.close(write)
        assert os.read(read, 1) == b""  # no other copy of the write end is open anywhere
        os.close(read)

    with_link(body)


def test_drain_finds_the_last_frames_of_a_dead_worker() -> None:
    async def body(link: WorkerLink, far: socket.socket, seen: Seen) -> None:
        far.sendall(frame(b"R", b"1234") * 3)
        far.close()
        link.drain()
        assert [event[0] for event in seen.events] == ["R", "R", "R", "ended"]

    with_link(body)


def test_closing_inside_a_frame_handler_is_safe() -> None:
    async def body(link: WorkerLink, far: socket.socket, seen: Seen) -> None:
        seen.then = link.close
        far.sendall(frame(b"R", b"1234") * 5)
        await settle(lambda: bool(seen.events))
        await asyncio.sleep(0.01)
        assert len(seen.events) == 1

    with_link(body)
