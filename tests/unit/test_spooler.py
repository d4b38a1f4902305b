"""The cloud queue: order, bound, what is dropped and counted (greengrass-core 5.7)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggfast import limits
from ggfast.core.spooler import MemorySpool
from ggfast.counters import Counters


def drain(spool: MemorySpool) -> list[bytes]:
    payloads = []
    while (message := spool.peek()) is not None:
        payloads.append(message.payload)
        spool.drop_oldest()
    return payloads


def test_messages_leave_in_the_order_they_came() -> None:
    spool = MemorySpool(Counters())
    for number in range(100):
        assert spool.offer("device", b"t", str(number).encode(), 0, False)
    assert drain(spool) == [str(number).encode() for number in range(100)]
    assert spool.bytes_held == 0


def test_a_size_below_the_minimum_is_refused_with_the_known_text() -> None:
    with pytest.raises(ValueError, match=r"Spool size should be at least 262144 bytes\."):
        MemorySpool(Counters(), bytes_max=262_143)


@given(st.lists(st.integers(0, 60_000), max_size=60))
def test_the_bound_holds_and_exactly_the_oldest_are_missing(sizes: list[int]) -> None:
    counters = Counters()
    spool = MemorySpool(counters, bytes_max=limits.SPOOL_BYTES_MIN)
    sent = [number.to_bytes(4, "big") + bytes(size) for number, size in enumerate(sizes)]
    for payload in sent:
        assert spool.offer("device", b"topic", payload, 1, False)
        assert spool.bytes_held <= spool.bytes_max
    left = drain(spool)
    assert left == sent[len(sent) - len(left) :]
    assert counters.get("spool.dropped.oldest") == len(sent) - len(left)


def test_a_message_larger_than_the_spool_is_refused_and_drops_nothing() -> None:
    counters = Counters()
    spool = MemorySpool(counters, bytes_max=limits.SPOOL_BYTES_MIN)
    spool.offer("device", b"t", b"kept", 0, False)
    assert not spool.offer("device", b"t", bytes(limits.SPOOL_BYTES_MIN), 0, False)
    assert drain(spool) == [b"kept"]
    assert counters.get("spool.dropped.too_large") == 1


def test_shrinking_drops_the_oldest() -> None:
    counters = Counters()
    spool = MemorySpool(counters, bytes_max=4 * limits.SPOOL_BYTES_MIN)
    for number in range(8):
        spool.offer("device", b"t", bytes([number]) * 100_000, 0, False)
    spool.resize(limits.SPOOL_BYTES_MIN)
    assert [payload[0] for payload in drain(spool)] == [6, 7]
    assert counters.get("spool.dropped.oldest") == 6
