"""MQTT 5 properties (section 2.2.2): one table, a strict scan over bytes, and dictionaries to bytes and back.

The scan names each fault by the specification's reason: bytes that do not parse, an identifier that is unknown or
not one of this packet's (2.2.2.2), are Malformed 0x81; a property given twice or a value out of its range is a
Violation, 0x82 unless a more exact code exists. What the lane calls makes no Python object unless it raises.
"""

from collections.abc import Mapping

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from ggfast._ext.topics cimport utf8_ok

from ggfast.errors import Malformed, Violation

Value = int | str | bytes | tuple
Properties = Mapping

cdef enum:
    IDS = 43                 # identifiers run from 1 to 42
    EXPIRY = 2
    RESPONSE_TOPIC = 8
    SUBSCRIPTION_ID = 11
    WILL_DELAY = 24
    ALIAS = 35
    USER_PROPERTY = 38
    VARINT_MAX = 268435455   # four bytes of seven bits [MQTT5-1.5.5]
    TEXT_MAX = 65535         # the length field of a string [MQTT5-1.5.4]


cdef enum Form:
    UNKNOWN = 0
    BYTE = 1
    TWO_BYTES = 2
    VARINT = 3
    FOUR_BYTES = 4
    TEXT = 5
    BINARY = 6
    TEXT_PAIR = 7


cdef struct Property:
    Form form
    uint32_t packets         # one bit a control packet type; bit 0: will
    uint32_t lowest          # numbers only
    uint32_t highest


cdef struct Found:           # one property as it lies in the packet; borrowed
    int id
    uint32_t number
    const uint8_t* first     # text, binary, or a pair's name
    Py_ssize_t first_bytes
    const uint8_t* second    # a pair's value
    Py_ssize_t second_bytes


_PACKETS = {
    "WILL": 0, "CONNECT": 1, "CONNACK": 2, "PUBLISH": 3, "PUBACK": 4, "PUBREC": 5, "PUBREL": 6, "PUBCOMP": 7,
    "SUBSCRIBE": 8, "SUBACK": 9, "UNSUBSCRIBE": 10, "UNSUBACK": 11, "DISCONNECT": 14, "AUTH": 15,
}
_PACKET_NAMES = {kind: name for name, kind in _PACKETS.items()}
_MESSAGE = ("PUBLISH", "WILL")
_LIMITS = ("CONNECT", "CONNACK")
_SIGN_IN = ("CONNECT", "CONNACK", "AUTH")
_ANSWERS = ("CONNACK", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBACK", "UNSUBACK", "DISCONNECT", "AUTH")
_TABLE = (
    # identifier, name, form, packets, lowest and highest number
    (1, "payload_format_indicator", BYTE, _MESSAGE, 0, 1),
    (2, "message_expiry_interval", FOUR_BYTES, _MESSAGE, 0, 0xFFFFFFFF),
    (3, "content_type", TEXT, _MESSAGE, 0, 0),
    (8, "response_topic", TEXT, _MESSAGE, 0, 0),
    (9, "correlation_data", BINARY, _MESSAGE, 0, 0),
    (11, "subscription_identifier", VARINT, ("PUBLISH", "SUBSCRIBE"), 1, VARINT_MAX),
    (17, "session_expiry_interval", FOUR_BYTES, ("CONNECT", "CONNACK", "DISCONNECT"), 0, 0xFFFFFFFF),
    (18, "assigned_client_identifier", TEXT, ("CONNACK",), 0, 0),
    (19, "server_keep_alive", TWO_BYTES, ("CONNACK",), 0, 0xFFFF),
    (21, "authentication_method", TEXT, _SIGN_IN, 0, 0),
    (22, "authentication_data", BINARY, _SIGN_IN, 0, 0),
    (23, "request_problem_information", BYTE, ("CONNECT",), 0, 1),
    (24, "will_delay_interval", FOUR_BYTES, ("WILL",), 0, 0xFFFFFFFF),
    (25, "request_response_information", BYTE, ("CONNECT",), 0, 1),
    (26, "response_information", TEXT, ("CONNACK",), 0, 0),
    (28, "server_reference", TEXT, ("CONNACK", "DISCONNECT"), 0, 0),
    (31, "reason_string", TEXT, _ANSWERS, 0, 0),
    (33, "receive_maximum", TWO_BYTES, _LIMITS, 1, 0xFFFF),
    (34, "topic_alias_maximum", TWO_BYTES, _LIMITS, 0, 0xFFFF),
    (35, "topic_alias", TWO_BYTES, ("PUBLISH",), 1, 0xFFFF),
    (36, "maximum_qos", BYTE, ("CONNACK",), 0, 1),
    (37, "retain_available", BYTE, ("CONNACK",), 0, 1),
    (38, "user_property", TEXT_PAIR, tuple(_PACKETS), 0, 0),
    (39, "maximum_packet_size", FOUR_BYTES, _LIMITS, 1, 0xFFFFFFFF),
    (40, "wildcard_subscription_available", BYTE, ("CONNACK",), 0, 1),
    (41, "subscription_identifier_available", BYTE, ("CONNACK",), 0, 1),
    (42, "shared_subscription_available", BYTE, ("CONNACK",), 0, 1),
)
_NAMES = {row[0]: row[1] for row in _TABLE}
_IDS = {row[1]: row[0] for row in _TABLE}

cdef Property[IDS] TABLE     # all zero where no property has the identifier: of unknown form


def _fill():
    for identifier, _, form, packets, lowest, highest in _TABLE:
        bits = 0
        for name in packets:
            bits |= 1 << _PACKETS[name]
        TABLE[<int> identifier] = Property(form, bits, lowest, highest)


_fill()


# --- reading -------------------------------------------------------------------------------------------

cdef int cut_short(int identifier, Py_ssize_t left) except -1:
    raise Malformed(f"{_NAMES[identifier]} is cut short, {left} bytes of the properties are left")


cdef int take_counted(
    int identifier, const uint8_t** at, Py_ssize_t* left, const uint8_t** start, Py_ssize_t* count
) except -1:
    """A two-byte length and as many bytes."""
    cdef Py_ssize_t size
    if left[0] < 2:
        return cut_short(identifier, left[0])
    size = (at[0][0] << 8) | at[0][1]
    if left[0] - 2 < size:
        return cut_short(identifier, left[0])
    start[0] = at[0] + 2
    count[0] = size
    at[0] += 2 + size
    left[0] -= 2 + size
    return 0


cdef int take_text(
    int identifier, const uint8_t** at, Py_ssize_t* left, const uint8_t** start, Py_ssize_t* count
) except -1:
    take_counted(identifier, at, left, start, count)
    if not utf8_ok(start[0], count[0]):
        raise Malformed(f"{_NAMES[identifier]} is not UTF-8 text without U+0000 [MQTT5-1.5.4-1, -2]")
    return 0


cdef int take_number(int identifier, const uint8_t** at, Py_ssize_t* left, Form form, uint32_t* number) except -1:
    cdef Py_ssize_t value = 0
    cdef int used
    cdef int i
    if form == VARINT:
        used = read_varint(at[0], left[0], &value)
        if used < 0:
            raise Malformed(f"{_NAMES[identifier]} is not a variable byte integer [MQTT5-1.5.5-1]")
        if used == 0:
            return cut_short(identifier, left[0])
        number[0] = <uint32_t> value
    else:
        used = <int> form                     # BYTE, TWO_BYTES and FOUR_BYTES are their sizes
        if left[0] < used:
            return cut_short(identifier, left[0])
        number[0] = 0
        for i in range(used):
            number[0] = (number[0] << 8) | at[0][i]
    at[0] += used
    left[0] -= used
    if number[0] < TABLE[identifier].lowest or number[0] > TABLE[identifier].highest:
        raise Violation(
            f"{_NAMES[identifier]} is {number[0]}, expected {TABLE[identifier].lowest} to {TABLE[identifier].highest}",
            reason_code=0x94 if identifier == ALIAS else 0x82,  # topic alias invalid, protocol error
        )
    return 0


cdef int check_response_topic(const uint8_t* topic, Py_ssize_t count) except -1:
    cdef Py_ssize_t i
    for i in range(count):
        if topic[i] == c"#" or topic[i] == c"+":
            raise Violation("response_topic contains wildcards, expected a topic name [MQTT5-3.3.2-14]")
    if count == 0:
        raise Violation("response_topic is empty, expected a topic name [MQTT5-4.7.3-1]")
    return 0


cdef int next_property(int kind, const uint8_t** at, Py_ssize_t* left, uint64_t* seen, Found* value) except -1:
    """Take one property off the front and check all of it; `left` is above 0, `seen` begins as 0."""
    cdef int identifier = at[0][0]
    cdef uint64_t bit
    cdef Form form
    if identifier >= IDS or TABLE[identifier].form == UNKNOWN:
        raise Malformed(f"unknown property 0x{identifier:02x} in {_PACKET_NAMES[kind]} [MQTT5-2.2.2.2]")
    if not TABLE[identifier].packets >> kind & 1:
        raise Malformed(f"{_NAMES[identifier]} is not a property of {_PACKET_NAMES[kind]} [MQTT5-2.2.2.2]")
    bit = <uint64_t> 1 << identifier
    if seen[0] & bit and identifier != USER_PROPERTY and not (identifier == SUBSCRIPTION_ID and kind == 3):
        raise Violation(f"{_NAMES[identifier]} is there twice in {_PACKET_NAMES[kind]}")
    seen[0] |= bit
    at[0] += 1
    left[0] -= 1
    value.id = identifier
    form = TABLE[identifier].form
    if form <= FOUR_BYTES:
        return take_number(identifier, at, left, form, &value.number)
    if form == BINARY:
        return take_counted(identifier, at, left, &value.first, &value.first_bytes)
    take_text(identifier, at, left, &value.first, &value.first_bytes)
    if form == TEXT_PAIR:
        take_text(identifier, at, left, &value.second, &value.second_bytes)
    elif identifier == RESPONSE_TOPIC:
        check_response_topic(value.first, value.first_bytes)
    return 0


cdef int scan_properties(int kind, const uint8_t* at, Py_ssize_t count) except -1:
    cdef uint64_t seen = 0
    cdef Found value
    while count:
        next_property(kind, &at, &count, &seen, &value)
    return 0


cdef int scan_publish(const uint8_t* at, Py_ssize_t count, PublishProperties* found) except -1:
    cdef uint64_t seen = 0
    cdef Found value
    cdef const uint8_t* begin
    found.alias = 0
    found.expiry_s = -1
    found.forward_bytes = 0
    while count:
        begin = at
        next_property(3, &at, &count, &seen, &value)
        if value.id == ALIAS:
            found.alias = <int> value.number
        elif value.id == EXPIRY:
            found.expiry_s = <int64_t> value.number
        elif value.id == SUBSCRIPTION_ID:
            raise Violation("subscription_identifier in a PUBLISH from a client [MQTT5-3.3.4-6]")
        else:
            found.forward_bytes += at - begin
    return 0


cdef Py_ssize_t counted_bytes(const uint8_t* at) noexcept nogil:
    return 2 + ((at[0] << 8) | at[1])


cdef Py_ssize_t property_bytes(const uint8_t* at) noexcept nogil:
    """Size of the property at `at`, identifier included; it has been scanned."""
    cdef Form form = TABLE[at[0]].form
    cdef Py_ssize_t size, value = 0
    if form == VARINT:
        return 1 + read_varint(at + 1, 4, &value)
    if form <= FOUR_BYTES:
        return 1 + <Py_ssize_t> form
    size = 1 + counted_bytes(at + 1)
    return size + counted_bytes(at + size) if form == TEXT_PAIR else size


cdef Py_ssize_t copy_forwarded(const uint8_t* at, Py_ssize_t count, uint8_t* to) noexcept nogil:
    cdef const uint8_t* end = at + count
    cdef const uint8_t* run = at              # what lies from here to `at` is passed on in one copy
    cdef uint8_t* begin = to
    cdef Py_ssize_t size
    while at < end:
        size = property_bytes(at)
        if at[0] == ALIAS or at[0] == EXPIRY or at[0] == SUBSCRIPTION_ID:
            memcpy(to, run, <size_t> (at - run))
            to += at - run
            run = at + size
        at += size
    memcpy(to, run, <size_t> (at - run))
    return to + (at - run) - begin


cdef object value_of(Found* value):
    cdef Form form = TABLE[value.id].form
    if form <= FOUR_BYTES:
        return value.number
    if form == BINARY:
        return PyBytes_FromStringAndSize(<const char*> value.first, value.first_bytes)
    text = PyUnicode_DecodeUTF8(<char*> value.first, value.first_bytes, NULL)
    if form == TEXT:
        return text
    return text, PyUnicode_DecodeUTF8(<char*> value.second, value.second_bytes, NULL)


cdef dict decode_section(int kind, const uint8_t* at, Py_ssize_t count):
    """Name to value in the packet's order; what may come several times is a tuple."""
    cdef uint64_t seen = 0
    cdef Found value
    values = {}
    while count:
        next_property(kind, &at, &count, &seen, &value)
        name = _NAMES[value.id]
        if value.id == USER_PROPERTY or (value.id == SUBSCRIPTION_ID and kind == 3):
            values.setdefault(name, []).append(value_of(&value))
        else:
            values[name] = value_of(&value)
    return {key: tuple(each) if isinstance(each, list) else each for key, each in values.items()}


# --- writing -------------------------------------------------------------------------------------------

cdef bytes varint(number):
    """A variable byte integer of a number that fits into one."""
    cdef uint32_t rest = number
    cdef uint8_t[4] out
    cdef int used = 0
    while rest >= 128:
        out[used] = <uint8_t> (rest & 0x7F) | 0x80
        rest >>= 7
        used += 1
    out[used] = <uint8_t> rest
    return PyBytes_FromStringAndSize(<const char*> out, used + 1)


cdef bytes counted(str name, bytes data):
    if len(data) > TEXT_MAX:
        raise ValueError(f"{name} of {len(data)} bytes, MQTT allows {TEXT_MAX}")
    return len(data).to_bytes(2, "big") + data


cdef bytes text_bytes(str name, text):
    if not isinstance(text, str):
        raise TypeError(f"{name} is {text!r}, expected a str")
    if "\0" in text:
        raise ValueError(f"{name} contains U+0000, which MQTT text may not [MQTT5-1.5.4-2]")
    return counted(name, text.encode())


cdef bytes one_value(int identifier, str name, value):
    """Identifier and value of one property."""
    cdef Form form = TABLE[identifier].form
    head = bytes((identifier,))
    if form == TEXT_PAIR:
        key, text = value
        return head + text_bytes(name, key) + text_bytes(name, text)
    if form == TEXT:
        data = text_bytes(name, value)
        if identifier == RESPONSE_TOPIC and (not value or "+" in value or "#" in value):
            raise ValueError(f"response_topic is {value!r}, expected a topic name [MQTT5-3.3.2-14]")
        return head + data
    if form == BINARY:
        if not isinstance(value, bytes):
            raise TypeError(f"{name} is {value!r}, expected bytes")
        return head + counted(name, value)
    if not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}, expected an int")
    if not TABLE[identifier].lowest <= value <= TABLE[identifier].highest:
        expected = f"{TABLE[identifier].lowest} to {TABLE[identifier].highest}"
        raise ValueError(f"{name} is {value}, expected {expected}")
    return head + (varint(value) if form == VARINT else int(value).to_bytes(<int> form, "big"))


cdef bytes encode_values(int kind, values, tuple left_out):
    parts = []
    for name, value in values.items():
        identifier = _IDS.get(name)
        if identifier is None:
            raise ValueError(f"{name!r} is not a property of MQTT 5")
        if identifier in left_out:
            continue
        if not TABLE[<int> identifier].packets >> kind & 1:
            raise ValueError(f"{name} is not a property of {_PACKET_NAMES[kind]}")
        if identifier == USER_PROPERTY or (identifier == SUBSCRIPTION_ID and kind == 3):
            parts.extend(one_value(identifier, name, single) for single in value)
        else:
            parts.append(one_value(identifier, name, value))
    return b"".join(parts)


cdef bytes encode_section(int kind, values):
    cdef bytes section
    if not values:
        return b"\0"
    section = encode_values(kind, values, ())
    if PyBytes_GET_SIZE(section) > VARINT_MAX:
        raise ValueError(f"properties of {len(section)} bytes, MQTT allows {VARINT_MAX}")
    return varint(len(section)) + section


# --- for Python ----------------------------------------------------------------------------------------

cdef int kind_of(str packet_name) except -1:
    kind = _PACKETS.get(packet_name)
    if kind is None:
        raise ValueError(f"{packet_name!r} has no properties; those that have: {', '.join(_PACKETS)}")
    return kind


def decode_properties(str packet_name not None, bytes data not None) -> dict:
    """The properties in `data`, a section without its length, of the named packet or of a "WILL".

    Text is str, binary bytes, numbers int, `user_property` a tuple of (str, str); `subscription_identifier` of a
    PUBLISH a tuple of int. Raises Malformed and Violation as a packet with them would.
    """
    return decode_section(
        kind_of(packet_name), <const uint8_t*> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)
    )


def scan_forwarded(bytes data not None) -> tuple:
    """(topic alias, expiry in seconds, what is passed on) of the section of a client's PUBLISH; 0 and -1: none.

    As the lane does it, with the same refusals.
    """
    cdef PublishProperties found
    cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(data)
    cdef bytes forwarded
    scan_publish(at, PyBytes_GET_SIZE(data), &found)
    forwarded = PyBytes_FromStringAndSize(NULL, found.forward_bytes)
    if copy_forwarded(at, PyBytes_GET_SIZE(data), <uint8_t*> PyBytes_AS_STRING(forwarded)) != found.forward_bytes:
        raise AssertionError("what is passed on is not as long as the scan said")
    return found.alias, found.expiry_s, forwarded


def encode_properties(str packet_name not None, values) -> bytes:
    """A property section with its length. ValueError or TypeError, naming the property, for what MQTT cannot say."""
    return encode_section(kind_of(packet_name), values)


def publish_properties(values) -> bytes:
    """What a PUBLISH or will hands on to those who receive the message, without a length.

    That is all but `topic_alias`, `message_expiry_interval`, `subscription_identifier` and `will_delay_interval`:
    they concern one connection or are counted down.
    """
    return encode_values(3, values, (ALIAS, EXPIRY, SUBSCRIPTION_ID, WILL_DELAY))
