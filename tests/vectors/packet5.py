"""Reads the two MQTT 5.0 packets of a broker whose bytes a vector cannot spell: CONNACK and DISCONNECT.

Which properties they carry, in which order, is the broker's choice, so a vector names only what it is about
and this module is strict about the rest: lengths, known and allowed properties, none repeated, good values.
It is a reader of its own on purpose: a fault of our codec must not be able to hide itself here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

CONNACK: Final = 0x20
DISCONNECT: Final = 0xE0

# What may be in either packet when it comes from a server: identifier → name, kind of value.
_TEXT_PROPERTIES: Final = {
    0x1F: ("reason_string", "text"),
    0x26: ("user_property", "pair"),
    0x1C: ("server_reference", "text"),
}
_PROPERTIES: Final[Mapping[int, Mapping[int, tuple[str, str]]]] = {
    DISCONNECT: _TEXT_PROPERTIES,
    CONNACK: _TEXT_PROPERTIES
    | {
        0x11: ("session_expiry_interval", "four"),
        0x12: ("assigned_client_identifier", "text"),
        0x13: ("server_keep_alive", "two"),
        0x15: ("authentication_method", "text"),
        0x16: ("authentication_data", "binary"),
        0x1A: ("response_information", "text"),
        0x21: ("receive_maximum", "two"),
        0x22: ("topic_alias_maximum", "two"),
        0x24: ("maximum_qos", "flag"),
        0x25: ("retain_available", "flag"),
        0x27: ("maximum_packet_size", "four"),
        0x28: ("wildcard_subscription_available", "flag"),
        0x29: ("subscription_identifier_available", "flag"),
        0x2A: ("shared_subscription_available", "flag"),
    },
}
_NOT_ZERO: Final = ("receive_maximum", "maximum_packet_size")
_CODES: Final = {
    CONNACK: bytes.fromhex("00 80 81 82 83 84 85 86 87 88 89 8a 8c 90 95 97 99 9a 9b 9c 9d 9f"),
    DISCONNECT: bytes.fromhex("00 80 81 82 83 87 89 8b 8c 8d 8e 8f 90 93 94 95 96 97 98 99 9a 9b 9c 9d 9e 9f a0 a1 a2"),
}


class BadPacket(Exception):
    """The broker's packet breaks the specification, whatever the vector expects."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A CONNACK or DISCONNECT taken apart. `session_present` is False for DISCONNECT."""

    session_present: bool
    code: int
    properties: dict[str, Any]
    size: int


@dataclass(slots=True)
class _Cursor:
    data: bytes
    at: int = 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise BadPacket(f"{count} bytes expected at {self.at}, {len(self.data) - self.at} there")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")

    def varint(self) -> int:
        value = 0
        for shift in (0, 7, 14, 21):
            byte = self.number(1)
            value |= (byte & 127) << shift
            if byte < 128:
                if byte == 0 and shift:
                    raise BadPacket("a length is written with more bytes than it needs")
                return value
        raise BadPacket("a length of more than four bytes")

    def text(self) -> str:
        text = self.take(self.number(2)).decode()  # UnicodeDecodeError is handled by the caller
        if "\0" in text:
            raise BadPacket("U+0000 in a string")
        return text

    def flag(self) -> int:
        value = self.number(1)
        if value > 1:
            raise BadPacket(f"a byte that may be 0 or 1 is {value}")
        return value


_READERS: Final[Mapping[str, Callable[[_Cursor], Any]]] = {
    "flag": _Cursor.flag,
    "two": lambda cursor: cursor.number(2),
    "four": lambda cursor: cursor.number(4),
    "text": _Cursor.text,
    "pair": lambda cursor: [cursor.text(), cursor.text()],
    "binary": lambda cursor: cursor.take(cursor.number(2)).hex(),
}


def read_answer(packet: bytes, first: int) -> Answer:
    """Take apart a whole packet that must begin with `first`; BadPacket if it is anything else or wrong.

    Values: numbers as int, text as str, binary as hex, user_property as a list of [name, value].
    """
    if not packet or packet[0] != first:
        raise BadPacket("another packet")
    cursor = _Cursor(packet, 1)
    try:
        if cursor.varint() != len(packet) - cursor.at:
            raise BadPacket("cut short")
        present = cursor.flag() if first == CONNACK else 0
        code = cursor.number(1) if first == CONNACK or cursor.at < len(packet) else 0
        properties = _read_properties(cursor, _PROPERTIES[first]) if first == CONNACK or cursor.at < len(packet) else {}
    except UnicodeDecodeError as error:
        raise BadPacket(f"a string is not UTF-8: {error}") from error
    if code not in _CODES[first]:
        raise BadPacket(f"reason code {code:02x} does not belong into this packet")
    if present and code:
        raise BadPacket("session present in a refusal")
    return Answer(bool(present), code, properties, len(packet))


def _read_properties(cursor: _Cursor, known: Mapping[int, tuple[str, str]]) -> dict[str, Any]:
    if cursor.varint() != len(cursor.data) - cursor.at:
        raise BadPacket("the property length is not what is left of the packet")
    properties: dict[str, Any] = {}
    while cursor.at < len(cursor.data):
        identifier = cursor.varint()
        if identifier not in known:
            raise BadPacket(f"property {identifier:02x} does not belong into this packet")
        name, kind = known[identifier]
        value = _READERS[kind](cursor)
        if name == "user_property":
            properties.setdefault(name, []).append(value)
        elif name in properties:
            raise BadPacket(f"{name} twice")
        elif value == 0 and name in _NOT_ZERO:
            raise BadPacket(f"{name} is 0")
        else:
            properties[name] = value
    return properties


def complain(answer: Answer, wanted: Mapping[str, Any], names: dict[str, bytes]) -> str:
    """Empty text if the answer is what the vector names, else the first difference.

    In `wanted["properties"]` a value is compared, true means any value, false absence, and "{id}" binds a
    name to the text with its length before it, as a later `send` writes it.
    """
    if answer.code not in wanted["codes"]:
        allowed = " or ".join(f"{code:02x}" for code in wanted["codes"])
        return f"reason code {answer.code:02x}, expected {allowed}"
    if answer.session_present != wanted["session-present"]:
        return f"session present {answer.session_present:d}, expected {wanted['session-present']:d}"
    if answer.size > wanted["bytes-max"]:
        return f"{answer.size} bytes, the client takes {wanted['bytes-max']}"
    for name, value in wanted["properties"].items():
        found = answer.properties.get(name)
        if isinstance(value, bool):
            if value != (found is not None):
                return f"{name} is {found!r}, expected {'any value' if value else 'none'}"
        elif isinstance(value, str) and value.startswith("{"):
            if found is None:
                return f"{name} is missing"
            text = str(found).encode()
            bound = names.setdefault(value[1:-1], len(text).to_bytes(2, "big") + text)
            if bound[2:] != text:
                return f"{name} is {found!r}, expected {bound[2:].decode()!r}"
        elif found != value:
            return f"{name} is {found!r}, expected {value!r}"
    return ""
