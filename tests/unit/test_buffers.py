"""Byte windows, the message ring, CRC-32C."""

from __future__ import annotations

import sys

import pytest

from ggfast._ext.buffers import InBuffer, OutBuffer, Ring, crc32c


def test_in_buffer_slides() -> None:
    window = InBuffer()
    for step in range(200):
        window.append(bytes([step]) * 100)
        assert window.peek()[:1] == bytes([step // 2])
        window.consume(50)
    assert len(window) == 200 * 50
    window.consume(len(window))
    assert window.peek() == b""


@pytest.mark.parametrize("count", [-1, 4])
def test_in_buffer_refuses_to_consume_what_is_not_there(count: int) -> None:
    window = InBuffer()
    window.append(b"abc")
    with pytest.raises(ValueError, match="of 3 bytes"):
        window.consume(count)


def test_out_buffer_gives_all_and_is_empty() -> None:
    out = OutBuffer()
    for size in (0, 1, 255, 256, 257, 100_000):
        out.append(b"x" * size)
        out.append(b"y")
        assert len(out) == size + 1
        assert out.take() == b"x" * size + b"y"
        assert out.take() == b""


def test_ring_is_first_in_first_out() -> None:
    ring = Ring(100, 100_000)
    for round_number in range(10):
        for number in range(30):
            assert ring.offer(b"t%d" % number, b"p", "s")
        for number in range(30):
            assert ring.pop() == (b"t%d" % number, b"p", "s"), round_number
    assert ring.pop() is None
    assert (len(ring), ring.bytes) == (0, 0)


def test_full_ring_drops_the_oldest_by_entries() -> None:
    ring = Ring(3, 100_000)
    for number in range(5):
        assert ring.offer(b"%d" % number, b"", "s")
    assert (len(ring), ring.dropped_oldest, ring.refused) == (3, 2, 0)
    assert ring.pop() == (b"2", b"", "s")


def test_full_ring_drops_as_many_as_the_bytes_need() -> None:
    ring = Ring(100, 2_000)
    for number in range(5):
        assert ring.offer(b"%d" % number, b"x" * 200, "s")
    assert ring.offer(b"big", b"x" * 1_500, "s")
    assert ring.bytes <= 2_000
    assert ring.dropped_oldest >= 4
    messages = [ring.pop() for _ in range(len(ring))]
    assert messages[-1] == (b"big", b"x" * 1_500, "s")


def test_ring_that_refuses_keeps_what_it_has() -> None:
    ring = Ring(2, 100_000, drop_oldest=False)
    assert [ring.offer(b"%d" % number, b"", "s") for number in range(4)] == [True, True, False, False]
    assert (ring.refused, ring.dropped_oldest) == (2, 0)
    assert ring.pop() == (b"0", b"", "s")


def test_message_larger_than_the_ring_drops_nothing() -> None:
    ring = Ring(10, 1_000)
    assert ring.offer(b"t", b"x", "s")
    assert not ring.room_for(1_000)
    assert not ring.offer(b"t", b"x" * 1_000, "s")
    assert (len(ring), ring.refused, ring.dropped_oldest) == (1, 1, 0)


def test_ring_gives_its_references_back() -> None:
    payload = b"a payload of its own" * 3
    before = sys.getrefcount(payload)
    ring = Ring(4, 100_000)
    for _ in range(20):
        ring.offer(b"t", payload, "s")
    ring.pop()
    del ring
    assert sys.getrefcount(payload) == before


@pytest.mark.parametrize(("entries", "size"), [(0, 1), (1, 0), (-1, 5)])
def test_ring_needs_room(entries: int, size: int) -> None:
    with pytest.raises(ValueError, match="a ring needs room"):
        Ring(entries, size)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),  # this and the next three: RFC 3720, B.4
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_crc32c(data: bytes, value: int) -> None:
    assert crc32c(data) == value
    for cut in range(len(data) + 1):
        assert crc32c(memoryview(data)[cut:], crc32c(data[:cut])) == value
