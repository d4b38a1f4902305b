"""Packets as values: what is refused, byte by byte, and the exact bytes of what we write."""

from __future__ import annotations

import pytest

from ggfast._ext.framing import (
    Ack,
    Bare,
    Connack,
    Connect,
    Publish,
    Suback,
    Subscribe,
    Unsubscribe,
    Will,
    decode,
    encode,
    packet_name,
)
from ggfast.errors import Malformed

CONNECT = bytes.fromhex("101300044d5154540402003c000761") + b"bcdefg"


@pytest.mark.parametrize(
    ("packet", "frame"),
    [
        (Connack(False, 0), "20020000"),
        (Connack(True, 0), "20020100"),
        (Connack(False, 5), "20020005"),
        (Publish(b"a/b", b"hi"), "30070003612f626869"),
        (Publish(b"a", b"", 1, True, True, 258), "3b050001610102"),
        (Ack("PUBACK", 1), "40020001"),
        (Ack("PUBREL", 65535), "6202ffff"),
        (Suback(9, (0, 1, 2, 128)), "90060009000102" + "80"),
        (Ack("UNSUBACK", 3), "b0020003"),
        (Bare("PINGREQ"), "c000"),
        (Bare("PINGRESP"), "d000"),
        (Bare("DISCONNECT"), "e000"),
        (Subscribe(1, ((b"a", 0), (b"b/#", 2))), "820c000100016100000362" + "2f2302"),
        (Unsubscribe(2, (b"a",)), "a2050002000161"),
    ],
)
def test_bytes_of_packets(packet: object, frame: str) -> None:
    assert encode(packet).hex() == frame  # type: ignore[arg-type]
    assert decode(bytes.fromhex(frame)) == packet


@pytest.mark.parametrize(
    "packet",
    [
        Connect(4),
        Connect(3, False, 65535, "id"),
        Connect(4, True, 10, "ü", Will(b"w/t", b"\0\xff", 2, True), "user", b"pass"),
        Connect(4, False, 1, "x", Will(b"t", b"", 0, False), "user", None),
    ],
)
def test_connect_comes_back(packet: Connect) -> None:
    assert decode(encode(packet)) == packet


@pytest.mark.parametrize("size", [0, 100, 121, 122, 16_377, 16_378, 2_097_145, 2_097_146])
def test_every_length_of_the_length(size: int) -> None:
    packet = Publish(b"topic", b"x" * size)
    assert decode(encode(packet)) == packet


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ("", "exactly one packet"),
        ("c0", "exactly one packet"),
        ("c00000", "exactly one packet"),
        ("30808080808001", "more than 4 bytes"),
        ("0000", "reserved type 0"),
        ("f000", "reserved type 15"),
        ("c100", "PINGREQ has flags 0x1"),
        ("80050001000161", "SUBSCRIBE has flags 0x0"),
        ("60020001", "PUBREL has flags 0x0"),
        ("36050001610001", "QoS 3"),
        ("3803000161", "QoS 0 and DUP"),
        ("32050001610000", "packet id is 0"),
        ("3001" + "00", "needs 2 bytes"),
        ("30030005" + "61", "needs 5 bytes"),
        ("8202" + "0001", "without a topic filter"),
        ("820600010001" + "6103", "requested QoS is 3"),
        ("8205000100" + "0161", "needs 1 bytes"),
        ("a2020001", "without a topic filter"),
        ("a2050000000161", "packet id is 0"),
        ("820700010002c32800", "UTF-8"),
        ("4003000100", "after its last field"),
        ("c00100", "after its last field"),
        ("20020200", "acknowledge flags"),
        ("9003000103", "SUBACK return codes"),
    ],
)
def test_malformed_packets(frame: str, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        decode(bytes.fromhex(frame))


@pytest.mark.parametrize(
    ("position", "value", "words"),
    [
        (9, 0x03, "reserved connect flag"),
        (9, 0x0A, "will flags"),
        (9, 0x22, "will flags"),
        (9, 0x1E, "will flags"),
        (9, 0x42, "password without a user name"),
        (9, 0x82, "needs"),
        (9, 0x06, "needs"),
        (4, 0x4E, "protocol name"),
        (14, 0x00, "UTF-8"),
        (13, 0x06, "after its last field"),
    ],
)
def test_malformed_connect(position: int, value: int, words: str) -> None:
    frame = bytearray(CONNECT)
    frame[position] = value
    with pytest.raises(Malformed, match=words):
        decode(bytes(frame))


@pytest.mark.parametrize("level", [1, 2, 3, 6, 0x84, 255])
def test_other_levels_are_recognised_before_the_rest_is_read(level: int) -> None:
    frame = bytearray(CONNECT)
    frame[8] = level
    frame[9] = 0xFF
    packet = decode(bytes(frame))
    assert isinstance(packet, Connect) and packet.level not in (3, 4, 5)


def test_what_cannot_be_a_packet_is_not_written() -> None:
    with pytest.raises(ValueError, match="65536 bytes"):
        encode(Publish(b"x" * 65_536, b""))
    with pytest.raises(TypeError, match="not a packet"):
        encode("PINGREQ")  # type: ignore[arg-type]
    assert packet_name(3) == "PUBLISH"
