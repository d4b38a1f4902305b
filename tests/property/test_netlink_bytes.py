"""The kernel's messages as bytes of anybody: they are read or passed over, and nothing but OSError comes of them."""

from __future__ import annotations

import contextlib
import socket
import struct

from hypothesis import given
from hypothesis import strategies as st

from ggfast.net.netlink import Dump
from tests.unit.test_addresses import ADDRESSES, DONE, LINKS, SEQUENCE, message

RECORDED = LINKS + ADDRESSES + DONE


def feed(data: bytes) -> Dump:
    dump = Dump()
    with contextlib.suppress(OSError):
        dump.feed(data, SEQUENCE)
    return dump


def judge(dump: Dump, data: bytes) -> None:
    """Nothing can be found that was not there: every entry takes a header at least."""
    assert (len(dump.links) + len(dump.addresses)) * 16 <= len(data)
    assert all(len(link.name) <= len(data) for link in dump.links.values())


@given(st.binary(max_size=400))
def test_any_bytes_are_survived(data: bytes) -> None:
    judge(feed(data), data)


@given(st.integers(0, len(RECORDED) - 1), st.binary(min_size=1, max_size=8), st.integers(0, len(RECORDED)))
def test_damaged_messages_are_survived(place: int, damage: bytes, cut: int) -> None:
    data = (RECORDED[:place] + damage + RECORDED[place + len(damage) :])[:cut]
    judge(feed(data), data)


@given(st.sampled_from([2, 3, 16, 20]), st.binary(max_size=80), st.integers(0, 0xFFFF))
def test_any_body_is_survived(kind: int, body: bytes, flags: int) -> None:
    data = message(kind, body, flags=flags)
    judge(feed(data), data)


@given(st.integers(0, 2**31 - 1), st.binary(min_size=4, max_size=4), st.integers(0, 2**32 - 1))
def test_whole_addresses_are_read(index: int, raw: bytes, flags: int) -> None:
    head = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, index)
    pairs = struct.pack("=HH4s", 8, 2, raw) + struct.pack("=HHI", 8, 8, flags)
    dump = feed(message(20, head + pairs))
    assert [(found.index, found.address.packed, found.flags) for found in dump.addresses] == [(index, raw, flags)]
