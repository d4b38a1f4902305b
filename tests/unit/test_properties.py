"""MQTT 5 properties: each of the 27 in bytes, where it may stand, and what is refused with which reason code."""

from __future__ import annotations

import pytest

from ggfast._ext.properties import (
    Value,
    decode_properties,
    encode_properties,
    publish_properties,
    scan_forwarded,
)
from ggfast.errors import Malformed, Violation

PACKETS = (
    *("WILL", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE", "SUBACK"),
    *("UNSUBSCRIBE", "UNSUBACK", "DISCONNECT", "AUTH"),
)
ANSWERS = "CONNACK PUBACK PUBREC PUBREL PUBCOMP SUBACK UNSUBACK DISCONNECT AUTH"
# Table 2-4 of the specification, written down a second time: bytes, name, value, the packets that may have it.
TABLE: list[tuple[str, str, Value, str]] = [
    ("0101", "payload_format_indicator", 1, "PUBLISH WILL"),
    ("0200000e10", "message_expiry_interval", 3_600, "PUBLISH WILL"),
    ("03000174", "content_type", "t", "PUBLISH WILL"),
    ("080003612f62", "response_topic", "a/b", "PUBLISH WILL"),
    ("090002ff00", "correlation_data", b"\xff\0", "PUBLISH WILL"),
    ("0b8001", "subscription_identifier", 128, "SUBSCRIBE"),
    ("11ffffffff", "session_expiry_interval", 0xFFFFFFFF, "CONNECT CONNACK DISCONNECT"),
    ("12000178", "assigned_client_identifier", "x", "CONNACK"),
    ("130102", "server_keep_alive", 258, "CONNACK"),
    ("1500016d", "authentication_method", "m", "CONNECT CONNACK AUTH"),
    ("16000100", "authentication_data", b"\0", "CONNECT CONNACK AUTH"),
    ("1700", "request_problem_information", 0, "CONNECT"),
    ("1800000001", "will_delay_interval", 1, "WILL"),
    ("1901", "request_response_information", 1, "CONNECT"),
    ("1a000172", "response_information", "r", "CONNACK"),
    ("1c000173", "server_reference", "s", "CONNACK DISCONNECT"),
    ("1f0002c3bc", "reason_string", "ü", ANSWERS),
    ("210001", "receive_maximum", 1, "CONNECT CONNACK"),
    ("220000", "topic_alias_maximum", 0, "CONNECT CONNACK"),
    ("23ffff", "topic_alias", 65_535, "PUBLISH"),
    ("2400", "maximum_qos", 0, "CONNACK"),
    ("2501", "retain_available", 1, "CONNACK"),
    ("2600016b0000", "user_property", (("k", ""),), " ".join(PACKETS)),
    ("2700000001", "maximum_packet_size", 1, "CONNECT CONNACK"),
    ("2801", "wildcard_subscription_available", 1, "CONNACK"),
    ("2900", "subscription_identifier_available", 0, "CONNACK"),
    ("2a01", "shared_subscription_available", 1, "CONNACK"),
]


def test_the_table_is_whole() -> None:
    assert len({name for _, name, _, _ in TABLE}) == len({data[:2] for data, _, _, _ in TABLE}) == 27


@pytest.mark.parametrize(("data", "name", "value", "packets"), TABLE, ids=[row[1] for row in TABLE])
def test_each_property_in_each_packet(data: str, name: str, value: Value, packets: str) -> None:
    section = bytes.fromhex(data)
    for packet in PACKETS:
        if packet in packets.split():
            assert decode_properties(packet, section) == {name: value}
            assert encode_properties(packet, {name: value}) == bytes((len(section),)) + section
            twice = section + section
            if name == "user_property":
                assert decode_properties(packet, twice) == {name: (("k", ""), ("k", ""))}
                continue
            with pytest.raises(Violation, match=f"{name} is there twice") as caught:
                decode_properties(packet, twice)
            assert caught.value.reason_code == 0x82
        elif (name, packet) != ("subscription_identifier", "PUBLISH"):  # see below
            with pytest.raises(Malformed, match=f"{name} is not a property of {packet}") as refused:
                decode_properties(packet, section)
            assert refused.value.reason_code == 0x81
            with pytest.raises(ValueError, match=f"{name} is not a property of {packet}"):
                encode_properties(packet, {name: value})


@pytest.mark.parametrize("row", TABLE, ids=[row[1] for row in TABLE])
def test_a_property_cut_short_is_malformed(row: tuple[str, str, Value, str]) -> None:
    section = bytes.fromhex(row[0])
    for length in range(1, len(section)):
        with pytest.raises(Malformed, match=f"{row[1]} is cut short") as caught:
            decode_properties(row[3].split()[0], section[:length])
        assert caught.value.reason_code == 0x81


def test_every_other_identifier_is_unknown() -> None:
    known = {int(data[:2], 16) for data, _, _, _ in TABLE}
    for packet in PACKETS:
        for identifier in set(range(256)) - known:
            with pytest.raises(Malformed, match=f"unknown property 0x{identifier:02x} in {packet}") as caught:
                decode_properties(packet, bytes((identifier, 0, 0, 0, 0, 0)))
            assert caught.value.reason_code == 0x81


@pytest.mark.parametrize(
    ("packet", "data", "words", "code"),
    [
        ("PUBLISH", "0102", "payload_format_indicator is 2, expected 0 to 1", 0x82),
        ("PUBLISH", "230000", "topic_alias is 0, expected 1 to 65535", 0x94),
        ("PUBLISH", "0b00", "subscription_identifier is 0", 0x82),
        ("SUBSCRIBE", "0b00", "subscription_identifier is 0", 0x82),
        ("SUBSCRIBE", "0b800001", "not a variable byte integer", 0x81),
        ("SUBSCRIBE", "0b8000", "not a variable byte integer", 0x81),
        ("SUBSCRIBE", "0bffffffff01", "not a variable byte integer", 0x81),
        ("SUBSCRIBE", "0b808080", "cut short", 0x81),
        ("CONNECT", "210000", "receive_maximum is 0", 0x82),
        ("CONNECT", "2700000000", "maximum_packet_size is 0", 0x82),
        ("CONNECT", "1702", "request_problem_information is 2", 0x82),
        ("CONNECT", "19ff", "request_response_information is 255", 0x82),
        ("CONNACK", "2402", "maximum_qos is 2", 0x82),
        ("CONNACK", "2502", "retain_available is 2", 0x82),
        ("CONNACK", "2802", "wildcard_subscription_available is 2", 0x82),
        ("CONNACK", "2902", "subscription_identifier_available is 2", 0x82),
        ("CONNACK", "2a02", "shared_subscription_available is 2", 0x82),
        ("PUBLISH", "08000123", "response_topic contains wildcards", 0x82),
        ("WILL", "080003612f2b", "response_topic contains wildcards", 0x82),
        ("PUBLISH", "080000", "response_topic is empty", 0x82),
        ("PUBLISH", "03000100", "content_type is not UTF-8", 0x81),
        ("PUBLISH", "030002c328", "content_type is not UTF-8", 0x81),
        ("PUBLISH", "080003eda080", "response_topic is not UTF-8", 0x81),
        ("PUBLISH", "26000100000161", "user_property is not UTF-8", 0x81),
        ("PUBLISH", "260001610001ff", "user_property is not UTF-8", 0x81),
        ("AUTH", "1f0002c080", "reason_string is not UTF-8", 0x81),
        ("PUBLISH", "8100", "unknown property 0x81", 0x81),
    ],
)
def test_values_that_are_refused(packet: str, data: str, words: str, code: int) -> None:
    with pytest.raises(Violation if code != 0x81 else Malformed, match=words) as caught:
        decode_properties(packet, bytes.fromhex(data))
    assert caught.value.reason_code == code


@pytest.mark.parametrize(
    ("number", "data"),
    [
        (1, "01"),
        (127, "7f"),
        (128, "8001"),
        (16_383, "ff7f"),
        (16_384, "808001"),
        (2_097_151, "ffff7f"),
        (2_097_152, "80808001"),
        (268_435_455, "ffffff7f"),
    ],
)
def test_variable_byte_integers(number: int, data: str) -> None:
    section = bytes.fromhex("0b" + data)
    assert encode_properties("SUBSCRIBE", {"subscription_identifier": number})[1:] == section
    assert decode_properties("SUBSCRIBE", section) == {"subscription_identifier": number}


def test_a_message_names_every_subscription_it_is_for() -> None:
    values = {"subscription_identifier": (1, 300, 1)}
    assert encode_properties("PUBLISH", values) == bytes.fromhex("070b010bac020b01")
    assert decode_properties("PUBLISH", bytes.fromhex("0b010bac020b01")) == values


def test_order_is_kept_and_pairs_stay_pairs() -> None:
    section = bytes.fromhex("260001620001310300017426000161000132")
    values = decode_properties("PUBLISH", section)
    assert list(values.items()) == [("user_property", (("b", "1"), ("a", "2"))), ("content_type", "t")]


def test_length_of_a_section() -> None:
    assert encode_properties("PUBLISH", {}) == b"\0"
    long = encode_properties("PUBLISH", {"correlation_data": bytes(125)})
    assert long[:2] == b"\x80\x01" and len(long) == 130


@pytest.mark.parametrize(
    ("packet", "values", "problem", "words"),
    [
        ("PUBLISH", {"colour": 1}, ValueError, "'colour' is not a property of MQTT 5"),
        ("PUBLISH", {"topic_alias": 0}, ValueError, "topic_alias is 0, expected 1 to 65535"),
        ("PUBLISH", {"message_expiry_interval": 1 << 32}, ValueError, "expected 0 to 4294967295"),
        ("PUBLISH", {"message_expiry_interval": -1}, ValueError, "message_expiry_interval is -1"),
        ("SUBSCRIBE", {"subscription_identifier": 1 << 28}, ValueError, "expected 1 to 268435455"),
        ("PUBLISH", {"content_type": "a\0"}, ValueError, "content_type contains U\\+0000"),
        ("PUBLISH", {"content_type": "\ud800"}, ValueError, "surrogates"),
        ("PUBLISH", {"content_type": "x" * 65_536}, ValueError, "content_type of 65536 bytes"),
        ("PUBLISH", {"correlation_data": bytes(65_536)}, ValueError, "correlation_data of 65536 bytes"),
        ("PUBLISH", {"response_topic": "a/#"}, ValueError, "expected a topic name"),
        ("PUBLISH", {"response_topic": ""}, ValueError, "expected a topic name"),
        ("PUBLISH", {"content_type": b"x"}, TypeError, "content_type is b'x', expected a str"),
        ("PUBLISH", {"correlation_data": "x"}, TypeError, "correlation_data is 'x', expected bytes"),
        ("CONNECT", {"receive_maximum": "1"}, TypeError, "receive_maximum is '1', expected an int"),
        ("PINGREQ", {}, ValueError, "'PINGREQ' has no properties"),
    ],
)
def test_what_cannot_be_said_is_not_written(
    packet: str, values: dict[str, Value], problem: type[Exception], words: str
) -> None:
    with pytest.raises(problem, match=words):
        encode_properties(packet, values)


ALL_OF_A_PUBLISH = bytes.fromhex(
    "230007"  # topic alias 7
    "03000174"  # content type
    "0200000010"  # expiry 16 s
    "0101"
    "260001610001622600016100016308000172"  # user properties, response topic
    "09000200ff"
)


def test_what_the_lane_passes_on() -> None:
    kept = bytes.fromhex("0300017401012600016100016226000161000163080001720900" + "0200ff")
    assert scan_forwarded(ALL_OF_A_PUBLISH) == (7, 16, kept)
    assert scan_forwarded(kept) == (0, -1, kept)
    assert scan_forwarded(b"") == (0, -1, b"")
    assert scan_forwarded(bytes.fromhex("0200000000")) == (0, 0, b"")
    assert publish_properties(decode_properties("PUBLISH", ALL_OF_A_PUBLISH)) == kept


def test_what_a_will_passes_on() -> None:
    values = decode_properties("WILL", bytes.fromhex("18000000050101020000000a03000174"))
    assert values["will_delay_interval"] == 5
    assert publish_properties(values) == bytes.fromhex("010103000174")


@pytest.mark.parametrize(
    ("data", "problem", "code"),
    [
        ("0b01", Violation, 0x82),  # [MQTT5-3.3.4-6]
        ("230000", Violation, 0x94),
        ("23000123" + "0001", Violation, 0x82),
        ("01010101", Violation, 0x82),
        ("1100000001", Malformed, 0x81),
        ("ff", Malformed, 0x81),
        ("23ff", Malformed, 0x81),
    ],
)
def test_what_the_lane_refuses(data: str, problem: type[Violation | Malformed], code: int) -> None:
    with pytest.raises(problem) as caught:
        scan_forwarded(bytes.fromhex(data))
    assert caught.value.reason_code == code
