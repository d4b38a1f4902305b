"""MQTT 5.0 reason codes by name, and what they are called in 3.1.1's CONNACK [MQTT5-2.4]."""

from __future__ import annotations

from enum import IntEnum

from ggfast._ext.framing import (
    ACCEPTED,
    BAD_CREDENTIALS,
    IDENTIFIER_REJECTED,
    LEVEL_5,
    NOT_AUTHORIZED,
    SERVER_UNAVAILABLE,
    UNACCEPTABLE_LEVEL,
)
from ggfast.errors import PeerError


class Reason(IntEnum):
    """One byte that says how something ended; from 0x80 on it failed."""

    SUCCESS = 0x00
    DISCONNECT_WITH_WILL = 0x04
    NO_SUBSCRIPTION_EXISTED = 0x11
    UNSPECIFIED_ERROR = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION_ERROR = 0x83
    UNSUPPORTED_VERSION = 0x84
    CLIENT_ID_NOT_VALID = 0x85
    BAD_CREDENTIALS = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    BANNED = 0x8A
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    MESSAGE_RATE_TOO_HIGH = 0x96
    QUOTA_EXCEEDED = 0x97
    ADMINISTRATIVE_ACTION = 0x98
    PAYLOAD_FORMAT_INVALID = 0x99
    RETAIN_NOT_SUPPORTED = 0x9A
    QOS_NOT_SUPPORTED = 0x9B
    USE_ANOTHER_SERVER = 0x9C
    SERVER_MOVED = 0x9D
    CONNECTION_RATE_EXCEEDED = 0x9F


# What a server may say in each [MQTT5-3.2.2.2, MQTT5-3.14.2.1]; anything else is told as a protocol error.
_IN_CONNACK = frozenset(
    (*range(0x80, 0x8B), 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F),
)
_IN_DISCONNECT = frozenset(
    (*range(0x80, 0x84), 0x87, 0x89, 0x8B, *range(0x8D, 0x91), *range(0x93, 0xA3)),
)

_FROM_311: dict[int, Reason] = {
    UNACCEPTABLE_LEVEL: Reason.UNSUPPORTED_VERSION,
    IDENTIFIER_REJECTED: Reason.CLIENT_ID_NOT_VALID,
    SERVER_UNAVAILABLE: Reason.SERVER_UNAVAILABLE,
    BAD_CREDENTIALS: Reason.BAD_CREDENTIALS,
    NOT_AUTHORIZED: Reason.NOT_AUTHORIZED,
}
_TO_311: dict[int, int] = {
    **{reason: code for code, reason in _FROM_311.items()},
    Reason.BANNED: NOT_AUTHORIZED,
    Reason.BAD_AUTHENTICATION_METHOD: NOT_AUTHORIZED,
}


def connack_code(code: int, level: int) -> int:
    """A refusal's code as a CONNACK of `level` says it; `code` is 3.1.1's (1 to 5) or a reason code.

    What 3.1.1 has no code for is "server unavailable" there.
    """
    if level < LEVEL_5:
        return code if ACCEPTED < code <= NOT_AUTHORIZED else _TO_311.get(code, SERVER_UNAVAILABLE)
    reason = _FROM_311.get(code, code)
    return reason if reason in _IN_CONNACK else Reason.PROTOCOL_ERROR


def disconnect_code(code: int) -> int:
    """A reason as a server's DISCONNECT may say it."""
    return code if code in _IN_DISCONNECT else Reason.PROTOCOL_ERROR


def reason_of(error: Exception) -> int:
    """The reason code of what went wrong: the peer's doing by its own code, ours as 0x83."""
    if not isinstance(error, PeerError):
        return Reason.IMPLEMENTATION_ERROR
    return error.reason_code or Reason.PROTOCOL_ERROR
