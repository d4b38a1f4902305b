"""Packets as values: what is refused, byte by byte, and the exact bytes of what we write."""

from __future__ import annotations

import pytest

from ggfast._ext.framing import (
    Ack,
    Auth,
    Bare,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
    decode,
    encode,
    packet_name,
)
from ggfast.errors import Malformed, NotAuthorized, PeerError, Violation

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
    assert packet_name(15) == "AUTH"


# --- MQTT 5 --------------------------------------------------------------------------------------------

HEAD_5 = "00044d51545405"  # protocol name and level


@pytest.mark.parametrize(
    ("packet", "frame"),
    [
        (Connect(5, False, 10, "x"), f"100e{HEAD_5}00000a00000178"),
        (
            Connect(5, True, 0, "x", None, None, None, {"session_expiry_interval": 1, "receive_maximum": 2}),
            f"1016{HEAD_5}020000" + "08" + "1100000001210002" + "000178",
        ),
        (Connect(5, True, 0, "", None, None, b"\xff"), f"1010{HEAD_5}420000000000" + "0001ff"),
        (Connect(5, True, 0, "", None, "u", b""), f"1012{HEAD_5}c20000000000" + "000175" + "0000"),
        (
            Connect(5, True, 0, "", Will(b"w", b"m", 2, True, {"will_delay_interval": 5}), "u"),
            f"101c{HEAD_5}b60000000000" + "05" + "1800000005" + "000177" + "00016d" + "000175",
        ),
        (Connect(5, True, 0, "", Will(b"w", b"", 0, False)), f"1013{HEAD_5}060000000000" + "00" + "000177" + "0000"),
        (Connack(False, 0), "2003000000"),
        (Connack(True, 0, {"topic_alias_maximum": 5}), "2006010003220005"),
        (Connack(False, 0x9F), "2003009f00"),
        (Publish(b"a", b"hi"), "3006000161006869"),
        (Publish(b"", b"hi", 0, False, False, 0, {"topic_alias": 1}), "3008000003230001" + "6869"),
        (Publish(b"a", b"", 2, True, True, 258), "3d06000161010200"),
        (Ack("PUBACK", 1), "40020001"),
        (Ack("PUBACK", 1, 0x10), "4003000110"),
        (Ack("PUBREC", 1, 0x97, {"reason_string": "r"}), "5008000197" + "041f000172"),
        (Ack("PUBACK", 1, 0, {"reason_string": "r"}), "4008000100" + "041f000172"),
        (Ack("PUBREL", 2, 0x92), "6203000292"),
        (Ack("PUBCOMP", 2, 0x92), "7003000292"),
        (Subscribe(1, ((b"a", 0), (b"b", 0x2E))), "820b000100" + "00016100" + "0001622e"),
        (Subscribe(1, ((b"a", 1),), {"subscription_identifier": 7}), "82090001020b0700016101"),
        (
            Suback(9, (0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2)),
            "900f000900" + "000102808387" + "8f91979ea1a2",
        ),
        (Unsubscribe(2, (b"a", b"b")), "a209000200" + "000161000162"),
        (Unsuback(2, (0, 0x11)), "b0050002000011"),
        (Unsuback(2, (0x87,), {"user_property": (("k", "v"),)}), "b00b000207" + "2600016b000176" + "87"),
        (Disconnect(), "e000"),
        (Disconnect(0x04), "e00104"),
        (Disconnect(0, {"session_expiry_interval": 0}), "e00700051100000000"),
        (Disconnect(0x9D, {"server_reference": "s"}), "e0069d041c000173"),
        (Auth(), "f000"),
        (Auth(0x18, {"authentication_method": "m"}), "f0061804" + "1500016d"),
        (Bare("PINGREQ"), "c000"),
        (Bare("PINGRESP"), "d000"),
    ],
)
def test_bytes_of_packets_5(packet: Packet, frame: str) -> None:
    assert encode(packet, 5).hex() == frame
    assert decode(bytes.fromhex(frame), 5) == packet


@pytest.mark.parametrize(
    ("frame", "packet"),
    [
        ("4003000100", Ack("PUBACK", 1)),
        ("400400010000", Ack("PUBACK", 1)),
        ("6204ffff9200", Ack("PUBREL", 65_535, 0x92)),
        ("e00100", Disconnect()),
        ("e0020000", Disconnect()),
        ("e0020400", Disconnect(4)),
        ("f0020000", Auth()),
    ],
)
def test_longer_forms_mean_the_same(frame: str, packet: Packet) -> None:
    assert decode(bytes.fromhex(frame), 5) == packet


MALFORMED, PROTOCOL_ERROR = 0x81, 0x82


@pytest.mark.parametrize(
    ("frame", "words", "code"),
    [
        # fixed header [MQTT5-2.1.3-1, MQTT5-1.5.5-1]
        ("0000", "reserved type 0", MALFORMED),
        ("f100", "AUTH has flags 0x1", MALFORMED),
        ("e100", "DISCONNECT has flags 0x1", MALFORMED),
        ("b10400010000", "UNSUBACK has flags 0x1", MALFORMED),
        ("60020001", "PUBREL has flags 0x0", MALFORMED),
        ("c08000", "takes 2 bytes, more than it needs", MALFORMED),
        (f"108e00{HEAD_5}00000a00000178", "takes 2 bytes, more than it needs", MALFORMED),
        # CONNECT
        (f"100e{HEAD_5}01000000000178", "reserved connect flag", MALFORMED),
        (f"100e{HEAD_5}08000000000178", "will flags", MALFORMED),
        (f"100e{HEAD_5}20000000000178", "will flags", MALFORMED),
        (f"1014{HEAD_5}1e0000000000" + "00" + "000177" + "000178", "will flags", MALFORMED),
        (f"100a{HEAD_5}000000", "property length", MALFORMED),
        (f"100c{HEAD_5}0000008000", "property length", MALFORMED),
        (f"100d{HEAD_5}000000030000", "properties needs 3 bytes", MALFORMED),
        (
            f"1012{HEAD_5}00000005" + "0200000001" + "0000",
            "message_expiry_interval is not a property of CONNECT",
            MALFORMED,
        ),
        (f"1010{HEAD_5}00000003210000" + "0000", "receive_maximum is 0", PROTOCOL_ERROR),
        (f"1010{HEAD_5}00000003160000" + "0000", "without authentication_method", PROTOCOL_ERROR),
        (f"100f{HEAD_5}0000000000017800", "after its last field", MALFORMED),
        (f"1010{HEAD_5}4000000000000000" + "00", "after its last field", MALFORMED),
        (f"100d{HEAD_5}80000000" + "0000", "user name", MALFORMED),
        (f"1010{HEAD_5}80000000" + "0000" + "0001ff", "user name is not UTF-8", MALFORMED),
        (f"1014{HEAD_5}04000000" + "0000" + "03210001" + "0000" + "00", "not a property of WILL", MALFORMED),
        # CONNACK
        ("2003000600", "0x06 is not a reason code of CONNACK", MALFORMED),
        ("2003000100", "0x01 is not a reason code of CONNACK", MALFORMED),
        ("2003020000", "acknowledge flags", MALFORMED),
        ("20020000", "property length", MALFORMED),
        ("2006000003160000", "without authentication_method", PROTOCOL_ERROR),
        # PUBLISH
        ("3003000161", "property length", MALFORMED),
        ("3606000161000100", "QoS 3", MALFORMED),
        ("380400016100", "QoS 0 and DUP", MALFORMED),
        ("3206000161000000", "packet id is 0", MALFORMED),
        ("300700016103230000", "topic_alias is 0", 0x94),
        ("300400016101", "properties needs 1 bytes", MALFORMED),
        ("30080001610401010101", "there twice", PROTOCOL_ERROR),
        # acknowledgements
        ("400100", "packet id needs 2 bytes", MALFORMED),
        ("40020000", "packet id is 0", MALFORMED),
        ("4003000101", "0x01 is not a reason code of PUBACK", MALFORMED),
        ("4003000192", "0x92 is not a reason code of PUBACK", MALFORMED),
        ("6203000110", "0x10 is not a reason code of PUBREL", MALFORMED),
        ("7003000187", "0x87 is not a reason code of PUBCOMP", MALFORMED),
        ("400400010001", "properties needs 1 bytes", MALFORMED),
        ("40050001000000", "after its last field", MALFORMED),
        ("400700010003" + "210001", "receive_maximum is not a property of PUBACK", MALFORMED),
        # SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK
        ("8203000100", "without a topic filter", PROTOCOL_ERROR),
        ("8207000100" + "00016140", "reserved bits", MALFORMED),
        ("8207000100" + "00016180", "reserved bits", MALFORMED),
        ("8207000100" + "00016103", "QoS 3", PROTOCOL_ERROR),
        ("8207000100" + "00016130", "retain handling 3", PROTOCOL_ERROR),
        ("8209000102" + "0b00" + "00016100", "subscription_identifier is 0", PROTOCOL_ERROR),
        ("820b000104" + "0b010b01" + "00016100", "there twice", PROTOCOL_ERROR),
        ("8206000100" + "000161", "subscription options needs 1 bytes", MALFORMED),
        ("8208000100" + "0002c32800", "topic filter is not UTF-8", MALFORMED),
        ("8207000000" + "00016100", "packet id is 0", MALFORMED),
        ("9003000100", "without a reason code", MALFORMED),
        ("900400010003", "0x03 is not a reason code of SUBACK", MALFORMED),
        ("a203000100", "without a topic filter", PROTOCOL_ERROR),
        ("a208000102" + "0b01" + "000161", "subscription_identifier is not a property of UNSUBSCRIBE", MALFORMED),
        ("b002" + "0001", "property length", MALFORMED),
        ("b003000100", "without a reason code", MALFORMED),
        ("b00400010001", "0x01 is not a reason code of UNSUBACK", MALFORMED),
        # DISCONNECT, AUTH, PING
        ("e00101", "0x01 is not a reason code of DISCONNECT", MALFORMED),
        ("e00192", "0x92 is not a reason code of DISCONNECT", MALFORMED),
        ("e003000000", "after its last field", MALFORMED),
        ("e0020001", "properties needs 1 bytes", MALFORMED),
        ("f00118", "property length", MALFORMED),
        ("f00100", "property length", MALFORMED),
        ("f0021800", "without authentication_method", PROTOCOL_ERROR),
        ("f0051803" + "160000", "without authentication_method", PROTOCOL_ERROR),
        ("f0020100", "0x01 is not a reason code of AUTH", MALFORMED),
        ("c00100", "after its last field", MALFORMED),
    ],
)
def test_refused_packets_5(frame: str, words: str, code: int) -> None:
    with pytest.raises(Malformed if code == MALFORMED else Violation, match=words) as caught:
        decode(bytes.fromhex(frame), 5)
    assert caught.value.reason_code == code


REASONS_5 = {
    "CONNACK": "00 80 81 82 83 84 85 86 87 88 89 8a 8c 90 95 97 99 9a 9b 9c 9d 9f",
    "PUBACK": "00 10 80 83 87 90 91 97 99",
    "PUBREC": "00 10 80 83 87 90 91 97 99",
    "PUBREL": "00 92",
    "PUBCOMP": "00 92",
    "SUBACK": "00 01 02 80 83 87 8f 91 97 9e a1 a2",
    "UNSUBACK": "00 11 80 83 87 8f 91",
    "DISCONNECT": "00 04 80 81 82 83 87 89 8b 8c 8d 8e 8f 90 93 94 95 96 97 98 99 9a 9b 9c 9d 9e 9f a0 a1 a2",
    "AUTH": "00 18 19",
}
METHOD = {"authentication_method": "m"}


def with_reason(kind: str, code: int) -> Packet:
    """A packet of the kind that says `code`."""
    if kind in ("SUBACK", "UNSUBACK"):
        return (Suback if kind == "SUBACK" else Unsuback)(1, (code,))
    if kind == "CONNACK":
        return Connack(False, code)
    if kind in ("DISCONNECT", "AUTH"):
        return Disconnect(code) if kind == "DISCONNECT" else Auth(code, METHOD)
    return Ack(kind, 1, code)


@pytest.mark.parametrize("kind", REASONS_5)
def test_reason_codes_of_each_packet(kind: str) -> None:
    """Section 2.4: a code may stand in the packets it is listed for and nowhere else."""
    allowed = bytes.fromhex(REASONS_5[kind])
    frame = bytearray(encode(with_reason(kind, 0x80 if 0x80 in allowed else allowed[-1]), 5))
    at = frame.index(0x80 if 0x80 in allowed else allowed[-1], 2)
    for code in range(256):
        frame[at] = code
        if code in allowed:
            assert decode(bytes(frame), 5) == with_reason(kind, code)
            assert decode(encode(with_reason(kind, code), 5), 5) == with_reason(kind, code)
            continue
        with pytest.raises(Malformed, match=f"0x{code:02x} is not a reason code of {kind}"):
            decode(bytes(frame), 5)
        with pytest.raises(ValueError, match=f"{code} is not a reason code of {kind}"):
            encode(with_reason(kind, code), 5)


@pytest.mark.parametrize("options", range(256))
def test_every_options_byte(options: int) -> None:
    frame = bytes.fromhex("8207000100000161") + bytes((options,))
    if options & 0xC0:
        with pytest.raises(Malformed, match="reserved bits"):
            decode(frame, 5)
    elif options & 3 == 3 or options >> 4 == 3:
        with pytest.raises(Violation, match="expected 0 to 2"):
            decode(frame, 5)
    else:
        assert decode(frame, 5) == Subscribe(1, ((b"a", options),))


def test_the_level_decides_what_bytes_mean() -> None:
    assert decode(bytes.fromhex("e000")) == Bare("DISCONNECT")
    assert decode(bytes.fromhex("300400016100"), 4) == Publish(b"a", b"\0")
    assert decode(bytes.fromhex("300400016100"), 5) == Publish(b"a", b"")
    assert decode(bytes.fromhex("b0020001")) == Ack("UNSUBACK", 1)
    for level in (0, 3, 4):
        with pytest.raises(Malformed, match="reserved type 15"):
            decode(bytes.fromhex("f000"), level)
    with pytest.raises(Malformed, match="after its last field"):
        decode(bytes.fromhex("e00100"), 4)


def test_a_connect_brings_its_own_level() -> None:
    for level in (0, 3, 4, 5):
        for own in (3, 4, 5):
            packet = Connect(own, True, 0, "x")
            assert decode(encode(packet, level), level) == packet


def test_a_longer_length_than_needed_is_old_habit() -> None:
    """3.1.1 does not ask for the shortest form; 5.0 does [MQTT5-1.5.5-1]."""
    assert decode(bytes.fromhex("c08000")) == Bare("PINGREQ")


@pytest.mark.parametrize(
    ("packet", "level"),
    [(Disconnect(), 4), (Auth(), 4), (Unsuback(1, (0,)), 4), (Ack("UNSUBACK", 1), 5), ("PINGREQ", 5)],
)
def test_packets_of_another_level_are_not_written(packet: Packet, level: int) -> None:
    with pytest.raises(TypeError):
        encode(packet, level)


def test_errors_carry_the_reason_code() -> None:
    assert Malformed("x").reason_code == 0x81
    assert Violation("x").reason_code == 0x82
    assert Violation("x", reason_code=0x94).reason_code == 0x94
    assert PeerError("x").reason_code == NotAuthorized("x").reason_code == 0
