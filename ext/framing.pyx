"""MQTT control packets of 3.1, 3.1.1 and 5.0: bytes to values and back. No state, no I/O.

The lane reads PUBLISH and acknowledgements in place and never comes here; everything else is decoded into the
values below. Strict: exact lengths, reserved bits, well-formed text; anything else raises Malformed, or where
MQTT 5 calls it a protocol error Violation, which name what was found. The protocol level of the connection
decides how bytes are read; a CONNECT brings its own, and above 5 nothing else of it is read.

Statements are cited as [MQTT-...] of 3.1.1 and [MQTT5-...] of 5.0.
"""

from collections import namedtuple

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from ggfast._ext.properties cimport WILL_PROPERTIES, decode_section, encode_section, read_varint, scan_properties
from ggfast._ext.topics cimport utf8_ok

from ggfast.errors import Malformed, Violation

LEVEL_31 = 3
LEVEL_311 = 4
LEVEL_5 = 5

cdef enum:
    MQTT_5 = 5                     # LEVEL_5 for C

# CONNACK return codes of 3.1.1 [MQTT-3.2.2.3]
ACCEPTED = 0
UNACCEPTABLE_LEVEL = 1
IDENTIFIER_REJECTED = 2
SERVER_UNAVAILABLE = 3
BAD_CREDENTIALS = 4
NOT_AUTHORIZED = 5

SUBACK_FAILURE = 0x80

# Properties (MQTT 5) are a dictionary of name and value, see properties.pyx; empty at the other levels.
_NONE = {}
Will = namedtuple("Will", "topic payload qos retain properties", defaults=(_NONE,))
Connect = namedtuple(
    "Connect",
    "level clean keep_alive_s client_id will username password properties",
    defaults=(True, 0, "", None, None, None, _NONE),
)
Connack = namedtuple("Connack", "session_present code properties", defaults=(_NONE,))
Publish = namedtuple(
    "Publish", "topic payload qos retain dup packet_id properties", defaults=(0, False, False, 0, _NONE)
)
Ack = namedtuple("Ack", "kind packet_id code properties", defaults=(0, _NONE))
Subscribe = namedtuple("Subscribe", "packet_id filters properties", defaults=(_NONE,))
Suback = namedtuple("Suback", "packet_id codes properties", defaults=(_NONE,))
Unsubscribe = namedtuple("Unsubscribe", "packet_id filters properties", defaults=(_NONE,))
Unsuback = namedtuple("Unsuback", "packet_id codes properties", defaults=(_NONE,))
Disconnect = namedtuple("Disconnect", "code properties", defaults=(0, _NONE))
Auth = namedtuple("Auth", "code properties", defaults=(0, _NONE))
Bare = namedtuple("Bare", "kind")
Packet = (
    Connect | Connack | Publish | Ack | Subscribe | Suback | Unsubscribe | Unsuback | Bare | Disconnect | Auth
)

_NAMES = (
    "reserved type 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE",
    "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
)
_TYPES = {name: kind for kind, name in enumerate(_NAMES)}


def packet_name(int kind) -> str:
    """`PUBLISH` for 3, and so on; the reserved type 0 has a name too."""
    return _NAMES[kind & 15]


# MQTT 5: the reason codes a packet may carry (2.4 and each packet's own section).
_REASONS = {
    CONNACK: (
        0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A,
        0x9B, 0x9C, 0x9D, 0x9F,
    ),
    PUBACK: (0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99),
    PUBREC: (0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99),
    PUBREL: (0x00, 0x92),
    PUBCOMP: (0x00, 0x92),
    SUBACK: (0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2),
    UNSUBACK: (0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91),
    DISCONNECT: (
        0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96,
        0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
    ),
    AUTH: (0x00, 0x18, 0x19),
}

cdef uint16_t[256] REASONS   # one bit a packet type that may carry the code


def _fill():
    for kind, codes in _REASONS.items():
        for code in codes:
            REASONS[<int> code] |= <uint16_t> (1 << <int> kind)


_fill()


# --- reading -------------------------------------------------------------------------------------------

cdef const uint8_t* take(Span* span, Py_ssize_t count, str what) except NULL:
    """`count` bytes from the front of `span`, or Malformed."""
    cdef const uint8_t* start = span.at
    if count > span.left:
        raise Malformed(f"{what} needs {count} bytes, {span.left} are left in the packet")
    span.at += count
    span.left -= count
    return start


cdef int take_u8(Span* span, str what) except -1:
    return take(span, 1, what)[0]


cdef int take_u16(Span* span, str what) except -1:
    return read_u16(take(span, 2, what))


cdef int take_packet_id(Span* span, str what) except -1:
    cdef int packet_id = take_u16(span, what)
    if packet_id == 0:
        raise Malformed(f"{what} is 0, expected 1 to 65535 [MQTT-2.3.1-1]")
    return packet_id


cdef bytes take_bytes(Span* span, str what):
    cdef Py_ssize_t count = take_u16(span, what)
    return PyBytes_FromStringAndSize(<const char*> take(span, count, what), count)


cdef bytes take_text(Span* span, str what):
    """Text as its bytes, checked."""
    cdef bytes text = take_bytes(span, what)
    if not utf8_ok(<const uint8_t*> PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)):
        raise Malformed(f"{what} is not UTF-8 text without U+0000 [MQTT-1.5.3-1]")
    return text


cdef int expect_end(Span* span, str what) except -1:
    if span.left:
        raise Malformed(f"{what} has {span.left} bytes after its last field")
    return 0


cdef int take_reason(Span* span, int kind) except -1:
    cdef int code = take_u8(span, "reason code")
    if not REASONS[code] >> kind & 1:
        raise Malformed(f"0x{code:02x} is not a reason code of {_NAMES[kind]} [MQTT5-2.4]")
    return code


cdef int take_section(Span* span, Span* section) except -1:
    """A property length and that many bytes, which stay where they are."""
    cdef Py_ssize_t count = 0
    cdef int used = read_varint(span.at, span.left, &count)
    if used <= 0:
        raise Malformed("the property length is cut short or not a variable byte integer [MQTT5-1.5.5-1]")
    take(span, used, "property length")
    section.at = take(span, count, "properties")
    section.left = count
    return 0


cdef dict take_properties(Span* span, int kind):
    cdef Span section
    take_section(span, &section)
    return decode_section(kind, section.at, section.left)


cdef int expect_method(dict properties, str what) except -1:
    if "authentication_data" in properties and "authentication_method" not in properties:
        raise Violation(f"{what} has authentication_data without authentication_method [MQTT5-3.1.2.11.10]")
    return 0


cdef object decode_connect(Span* span):
    cdef bytes name = take_bytes(span, "protocol name")
    cdef int level = take_u8(span, "protocol level")
    cdef int flags, keep_alive_s, will_qos
    if name == b"MQIsdp":
        level = level if level == LEVEL_31 else 0
    elif name == b"MQTT":
        level = level if level > LEVEL_31 else 0
    else:
        raise Malformed(f"protocol name is {name!r}, expected b'MQTT' or b'MQIsdp' [MQTT-3.1.2-1]")
    if level < LEVEL_31 or level > MQTT_5:
        return Connect(level)
    flags = take_u8(span, "connect flags")
    keep_alive_s = take_u16(span, "keep alive")
    will_qos = (flags >> 3) & 3
    if flags & 1:
        raise Malformed("the reserved connect flag is 1 [MQTT-3.1.2-3]")
    if will_qos == 3 or (not flags & 4 and flags & 0x38):
        raise Malformed(f"will flags in 0x{flags:02x} contradict each other [MQTT-3.1.2-11 to -15]")
    if flags & 0x40 and not flags & 0x80 and level != MQTT_5:  # 5.0 allows it (3.1.2.9)
        raise Malformed("a password without a user name [MQTT-3.1.2-22]")
    properties = {}
    if level == MQTT_5:
        properties = take_properties(span, CONNECT)
        expect_method(properties, "CONNECT")
    client_id = take_text(span, "client id").decode()
    will = None
    if flags & 4:
        will_properties = take_properties(span, WILL_PROPERTIES) if level == MQTT_5 else {}
        topic = take_text(span, "will topic")
        will = Will(topic, take_bytes(span, "will message"), will_qos, bool(flags & 0x20), will_properties)
    username = take_text(span, "user name").decode() if flags & 0x80 else None
    password = take_bytes(span, "password") if flags & 0x40 else None
    expect_end(span, "CONNECT")
    return Connect(level, bool(flags & 2), keep_alive_s, client_id, will, username, password, properties)


cdef object decode_connack(Span* span, int level):
    cdef int flags = take_u8(span, "acknowledge flags")
    cdef int code = take_reason(span, CONNACK) if level == MQTT_5 else take_u8(span, "return code")
    properties = {}
    if flags > 1:
        raise Malformed(f"acknowledge flags are 0x{flags:02x}, expected 0 or 1")
    if level == MQTT_5:
        properties = take_properties(span, CONNACK)
        expect_method(properties, "CONNACK")
    expect_end(span, "CONNACK")
    return Connack(flags == 1, code, properties)


cdef object decode_publish(Span* span, int flags, int level):
    cdef int qos = (flags >> 1) & 3
    cdef int packet_id = 0
    cdef bytes topic
    if qos == 3:
        raise Malformed("PUBLISH with QoS 3 [MQTT-3.3.1-4]")
    if flags & 8 and qos == 0:
        raise Malformed("PUBLISH with QoS 0 and DUP [MQTT-3.3.1-2]")
    topic = take_text(span, "topic")
    if qos:
        packet_id = take_packet_id(span, "packet id")
    properties = take_properties(span, PUBLISH) if level == MQTT_5 else {}
    payload = PyBytes_FromStringAndSize(<const char*> span.at, span.left)
    return Publish(topic, payload, qos, bool(flags & 1), bool(flags & 8), packet_id, properties)


cdef int take_options(Span* span, int level) except -1:
    """The byte behind a topic filter: the QoS asked for, and more in MQTT 5 (3.8.3.1)."""
    cdef int options
    if level != MQTT_5:
        options = take_u8(span, "requested QoS")
        if options > 2:
            raise Malformed(f"requested QoS is {options}, expected 0 to 2 [MQTT-3-8.3-4]")
        return options
    options = take_u8(span, "subscription options")
    if options & 0xC0:
        raise Malformed(f"reserved bits of the subscription options 0x{options:02x} are set [MQTT5-3.8.3-5]")
    if options & 3 == 3:
        raise Violation(f"subscription options 0x{options:02x} ask for QoS 3, expected 0 to 2")
    if options & 0x30 == 0x30:
        raise Violation(f"subscription options 0x{options:02x} ask for retain handling 3, expected 0 to 2")
    return options


cdef int expect_filters(list filters, int kind, int level) except -1:
    if not filters:
        problem = Violation if level == MQTT_5 else Malformed  # 5.0 calls it a protocol error
        raise problem(f"{_NAMES[kind]} without a topic filter [MQTT-3.8.3-3, MQTT-3.10.3-2]")
    return 0


cdef object decode_subscribe(Span* span, int level):
    cdef int packet_id = take_packet_id(span, "packet id")
    properties = take_properties(span, SUBSCRIBE) if level == MQTT_5 else {}
    filters = []
    while span.left:
        pattern = take_text(span, "topic filter")
        filters.append((pattern, take_options(span, level)))
    expect_filters(filters, SUBSCRIBE, level)
    return Subscribe(packet_id, tuple(filters), properties)


cdef object decode_unsubscribe(Span* span, int level):
    cdef int packet_id = take_packet_id(span, "packet id")
    properties = take_properties(span, UNSUBSCRIBE) if level == MQTT_5 else {}
    filters = []
    while span.left:
        filters.append(take_text(span, "topic filter"))
    expect_filters(filters, UNSUBSCRIBE, level)
    return Unsubscribe(packet_id, tuple(filters), properties)


cdef object decode_suback(Span* span):
    cdef int packet_id = take_packet_id(span, "packet id")
    codes = tuple(PyBytes_FromStringAndSize(<const char*> span.at, span.left))
    if not codes or any(code > 2 and code != SUBACK_FAILURE for code in codes):
        raise Malformed(f"SUBACK return codes are {codes}, expected some of 0, 1, 2, 128 [MQTT-3.9.3-2]")
    return Suback(packet_id, codes)


cdef object decode_answers(Span* span, int kind):
    """SUBACK and UNSUBACK of MQTT 5: a reason code for each filter."""
    cdef int packet_id = take_packet_id(span, "packet id")
    properties = take_properties(span, kind)
    codes = []
    while span.left:
        codes.append(take_reason(span, kind))
    if not codes:
        raise Malformed(f"{_NAMES[kind]} without a reason code [MQTT5-3.9.3-1, MQTT5-3.11.3-1]")
    return (Suback if kind == SUBACK else Unsuback)(packet_id, tuple(codes), properties)


cdef object decode_ack(Span* span, int kind, int level):
    cdef int packet_id = take_packet_id(span, "packet id")
    cdef int code = 0
    properties = {}
    if level == MQTT_5 and span.left:
        code = take_reason(span, kind)
        if span.left:              # otherwise it has no property length either (3.4.2.2.1)
            properties = take_properties(span, kind)
    expect_end(span, _NAMES[kind])
    return Ack(_NAMES[kind], packet_id, code, properties)


cdef object decode_disconnect(Span* span):
    cdef int code = take_reason(span, DISCONNECT) if span.left else 0
    properties = take_properties(span, DISCONNECT) if span.left else {}
    expect_end(span, "DISCONNECT")
    return Disconnect(code, properties)


cdef object decode_auth(Span* span):
    cdef int code = 0
    properties = {}
    if span.left:                  # code and properties are left out together (3.15.2.1)
        code = take_reason(span, AUTH)
        properties = take_properties(span, AUTH)
        expect_end(span, "AUTH")
    if (code or properties) and "authentication_method" not in properties:
        raise Violation("AUTH without authentication_method (3.15.2.2.2)")
    return Auth(code, properties)


cdef int read_ack5(int kind, const uint8_t* body, Py_ssize_t count, int* packet_id) except -1:
    cdef Span span = Span(body, count)
    cdef Span section
    cdef int code = 0
    packet_id[0] = take_packet_id(&span, "packet id")
    if span.left:
        code = take_reason(&span, kind)
        if span.left:
            take_section(&span, &section)
            scan_properties(kind, section.at, section.left)
            expect_end(&span, _NAMES[kind])
    return code


cdef object decode_body(int kind, int flags, const uint8_t* body, Py_ssize_t count, int level):
    cdef Span span = Span(body, count)
    if kind == PUBLISH:
        return decode_publish(&span, flags, level)
    if kind == 0 or (kind == AUTH and level != MQTT_5):
        raise Malformed(f"packet of reserved type {kind} [MQTT-2.2.1]")
    if flags != (2 if kind == PUBREL or kind == SUBSCRIBE or kind == UNSUBSCRIBE else 0):
        raise Malformed(f"{_NAMES[kind]} has flags 0x{flags:x} [MQTT-2.2.2-2]")
    if kind == CONNECT:
        return decode_connect(&span)
    if kind == CONNACK:
        return decode_connack(&span, level)
    if kind == SUBSCRIBE:
        return decode_subscribe(&span, level)
    if kind == UNSUBSCRIBE:
        return decode_unsubscribe(&span, level)
    if level == MQTT_5:
        if kind == SUBACK or kind == UNSUBACK:
            return decode_answers(&span, kind)
        if kind == DISCONNECT:
            return decode_disconnect(&span)
        if kind == AUTH:
            return decode_auth(&span)
    if kind == SUBACK:
        return decode_suback(&span)
    if kind == PINGREQ or kind == PINGRESP or kind == DISCONNECT:
        expect_end(&span, _NAMES[kind])
        return Bare(_NAMES[kind])
    return decode_ack(&span, kind, level)


def decode(bytes frame not None, int level=LEVEL_311):
    """The packet in `frame`, which must hold exactly one, in the dialect of `level`; a CONNECT brings its own.

    Raises Malformed and, for what MQTT 5 calls a protocol error, Violation.
    """
    cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(frame)
    cdef Py_ssize_t count = PyBytes_GET_SIZE(frame)
    cdef Py_ssize_t remaining = 0
    cdef int used = read_length(at + 1, count - 1, &remaining) if count else 0
    if used < 0:
        raise Malformed("remaining length takes more than 4 bytes [MQTT-2.2.3]")
    if used == 0 or 1 + used + remaining != count:
        raise Malformed(f"{count} bytes are not exactly one packet")
    packet = decode_body(at[0] >> 4, at[0] & 15, at + 1 + used, remaining, level)
    if used != length_bytes(remaining) and (packet.level if at[0] >> 4 == CONNECT else level) == MQTT_5:
        raise Malformed(f"remaining length {remaining} takes {used} bytes, more than it needs [MQTT5-1.5.5-1]")
    return packet


include "ext/framing_write.pxi"
