"""MQTT packets as a fuzzer's clients write them: quickly, and not by the code that is under test."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

TOPICS = [
    b"a", b"a/b", b"a/b/c", b"b", b"b/c", b"$SYS/x", b"/", b"a//b", "ü/ß".encode(), b"c", b"a/+", b"#", b"\0",
    b"a" * 300, b"/" * 9, b"",
]  # fmt: skip
FILTERS = [
    b"a", b"a/b", b"a/+", b"+/b", b"#", b"a/#", b"+", b"$SYS/#", b"$share/g/a", b"$share/g/#", b"$share/h/a/+", b"b/#",
    b"a+", b"a/#/b", b"/" * 9, b"",
]  # fmt: skip
PAYLOADS = [bytes(size) for size in (0, 1, 20, 300, 3_000, 15_000, 40_000, 70_000)]

# MQTT 5 properties with their length, chosen by a script's three bits.
CONNECT_PROPERTIES = [
    b"\x00",
    b"\x05\x11\x00\x00\x00\x05",  # session expiry 5 s
    b"\x03\x21\x00\x02",  # receive maximum 2
    b"\x05\x27\x00\x00\x00\x40",  # maximum packet size 64
    b"\x03\x22\x00\x04",  # topic alias maximum 4
    b"\x05\x11\xff\xff\xff\xff",  # the session never expires
    b"\x0a\x11\x00\x00\x00\x05\x21\x00\x01\x17\x00",  # and one receive at a time, no problem information
    b"\x06\x15\x00\x03abc",  # authentication method
]
PUBLISH_PROPERTIES = [
    b"\x00",
    b"\x03\x23\x00\x01",  # topic alias 1
    b"\x05\x02\x00\x00\x00\x01",  # expires after 1 s
    b"\x03\x23\x00\x02",  # topic alias 2
    b"\x07\x26\x00\x01k\x00\x01v",  # user property
    b"\x08\x02\x00\x00\x00\x0a\x23\x00\x01",
    b"\x02\x01\x01",  # payload is text
    b"\x0a\x08\x00\x01r\x09\x00\x03cor",  # response topic, correlation data
]


def frame(first: int, body: bytes) -> bytes:
    """A packet of its first byte and everything behind the length."""
    length, left = bytearray(), len(body)
    while True:
        length.append(left & 127 | (128 if left > 127 else 0))
        left >>= 7
        if not left:
            return bytes((first,)) + length + body


def text(value: bytes) -> bytes:
    """With its length before it."""
    return len(value).to_bytes(2, "big") + value


def connect(name: bytes, level: int, clean: bool, keep_alive_s: int, will: bool, properties: int = 0) -> bytes:
    """CONNECT; the will is QoS 1 on `a/b`."""
    start = text(b"MQIsdp" if level == 3 else b"MQTT") + bytes([level, clean << 1 | (0x0C if will else 0)])
    start += keep_alive_s.to_bytes(2, "big")
    if level == 5:
        start += CONNECT_PROPERTIES[properties]
    will_part = (b"\x05\x18\x00\x00\x00\x01" if level == 5 else b"") + text(b"a/b") + text(b"gone") if will else b""
    return frame(0x10, start + text(name) + will_part)


def subscribe(pattern: bytes, options: int, packet_id: int, level: int, identified: bool = False) -> bytes:
    """SUBSCRIBE to one filter; `identified` gives it a subscription identifier at level 5."""
    properties = (b"\x02\x0b\x07" if identified else b"\x00") if level == 5 else b""
    return frame(0x82, packet_id.to_bytes(2, "big") + properties + text(pattern) + bytes([options]))


def unsubscribe(pattern: bytes, packet_id: int, level: int) -> bytes:
    """UNSUBSCRIBE of one filter."""
    return frame(0xA2, packet_id.to_bytes(2, "big") + (b"\x00" if level == 5 else b"") + text(pattern))


@lru_cache(maxsize=256)
def publish(
    topic: bytes, payload: bytes, qos: int, retain: bool, dup: bool, packet_id: int, level: int, properties: int
) -> bytes:
    """PUBLISH; DUP is left out where it is not allowed."""
    first = 0x30 | (8 if dup and qos else 0) | qos << 1 | retain
    middle = packet_id.to_bytes(2, "big") if qos else b""
    return frame(first, text(topic) + middle + (PUBLISH_PROPERTIES[properties] if level == 5 else b"") + payload)


def frames(data: bytes) -> Iterator[tuple[bytes, int]]:
    """(packet, where its body begins) for each in a stream, which must end with a whole one."""
    begin = 0
    while begin < len(data):
        length, at, shift = 0, begin + 1, 0
        while True:
            length |= (data[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if data[at - 1] < 128:
                break
        assert at + length <= len(data), "the broker wrote part of a packet"
        yield data[begin : at + length], at - begin
        begin = at + length
