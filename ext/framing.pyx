"""MQTT 3.1.1 control packets (and 3.1's CONNECT): bytes to values and back. No state, no I/O.

The lane reads PUBLISH and acknowledgements in place and never comes here; everything else is decoded into the
values below. Strict: exact lengths, reserved bits, well-formed text; anything else raises Malformed, which
names what was found. MQTT 5 keeps this layout with properties between header and payload: a level of 5 is
recognised by `Connect.level` alone, and the rest of such a CONNECT is left unread.
"""

from collections import namedtuple

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from ggfast._ext.properties cimport read_varint, scan_properties
from ggfast._ext.topics cimport utf8_ok

from ggfast.errors import Malformed

LEVEL_31 = 3
LEVEL_311 = 4

# CONNACK return codes [MQTT-3.2.2.3]
ACCEPTED = 0
UNACCEPTABLE_LEVEL = 1
IDENTIFIER_REJECTED = 2
SERVER_UNAVAILABLE = 3
BAD_CREDENTIALS = 4
NOT_AUTHORIZED = 5

SUBACK_FAILURE = 0x80

Will = namedtuple("Will", "topic payload qos retain")
Connect = namedtuple(
    "Connect",
    "level clean keep_alive_s client_id will username password",
    defaults=(True, 0, "", None, None, None),
)
Connack = namedtuple("Connack", "session_present code")
Publish = namedtuple("Publish", "topic payload qos retain dup packet_id", defaults=(0, False, False, 0))
Ack = namedtuple("Ack", "kind packet_id")
Subscribe = namedtuple("Subscribe", "packet_id filters")
Suback = namedtuple("Suback", "packet_id codes")
Unsubscribe = namedtuple("Unsubscribe", "packet_id filters")
Bare = namedtuple("Bare", "kind")
Packet = Connect | Connack | Publish | Ack | Subscribe | Suback | Unsubscribe | Bare

_NAMES = (
    "reserved type 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE",
    "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "reserved type 15",
)
_TYPES = {name: kind for kind, name in enumerate(_NAMES)}


def packet_name(int kind) -> str:
    """`PUBLISH` for 3, and so on; reserved types have a name too."""
    return _NAMES[kind & 15]


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
    if level != LEVEL_31 and level != LEVEL_311:
        return Connect(level)
    flags = take_u8(span, "connect flags")
    keep_alive_s = take_u16(span, "keep alive")
    will_qos = (flags >> 3) & 3
    if flags & 1:
        raise Malformed("the reserved connect flag is 1 [MQTT-3.1.2-3]")
    if will_qos == 3 or (not flags & 4 and flags & 0x38):
        raise Malformed(f"will flags in 0x{flags:02x} contradict each other [MQTT-3.1.2-11 to -15]")
    if flags & 0x40 and not flags & 0x80:
        raise Malformed("a password without a user name [MQTT-3.1.2-22]")
    client_id = take_text(span, "client id").decode()
    will = None
    if flags & 4:
        topic = take_text(span, "will topic")
        will = Will(topic, take_bytes(span, "will message"), will_qos, bool(flags & 0x20))
    username = take_text(span, "user name").decode() if flags & 0x80 else None
    password = take_bytes(span, "password") if flags & 0x40 else None
    expect_end(span, "CONNECT")
    return Connect(level, bool(flags & 2), keep_alive_s, client_id, will, username, password)


cdef object decode_connack(Span* span):
    cdef int flags = take_u8(span, "acknowledge flags")
    cdef int code = take_u8(span, "return code")
    if flags > 1:
        raise Malformed(f"acknowledge flags are 0x{flags:02x}, expected 0 or 1")
    expect_end(span, "CONNACK")
    return Connack(flags == 1, code)


cdef object decode_publish(Span* span, int flags):
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
    payload = PyBytes_FromStringAndSize(<const char*> span.at, span.left)
    return Publish(topic, payload, qos, bool(flags & 1), bool(flags & 8), packet_id)


cdef object decode_subscribe(Span* span):
    cdef int packet_id = take_packet_id(span, "packet id")
    cdef int qos
    filters = []
    while span.left:
        pattern = take_text(span, "topic filter")
        qos = take_u8(span, "requested QoS")
        if qos > 2:
            raise Malformed(f"requested QoS is {qos}, expected 0 to 2 [MQTT-3-8.3-4]")
        filters.append((pattern, qos))
    if not filters:
        raise Malformed("SUBSCRIBE without a topic filter [MQTT-3.8.3-3]")
    return Subscribe(packet_id, tuple(filters))


cdef object decode_unsubscribe(Span* span):
    cdef int packet_id = take_packet_id(span, "packet id")
    filters = []
    while span.left:
        filters.append(take_text(span, "topic filter"))
    if not filters:
        raise Malformed("UNSUBSCRIBE without a topic filter [MQTT-3.10.3-2]")
    return Unsubscribe(packet_id, tuple(filters))


cdef object decode_suback(Span* span):
    cdef int packet_id = take_packet_id(span, "packet id")
    codes = tuple(PyBytes_FromStringAndSize(<const char*> span.at, span.left))
    if not codes or any(code > 2 and code != SUBACK_FAILURE for code in codes):
        raise Malformed(f"SUBACK return codes are {codes}, expected some of 0, 1, 2, 128 [MQTT-3.9.3-2]")
    return Suback(packet_id, codes)


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
        0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97,
        0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
    ),
    AUTH: (0x00, 0x18, 0x19),
}

cdef uint16_t[256] REASONS   # one bit a packet type that may carry the code


def _fill():
    for kind, codes in _REASONS.items():
        for code in codes:
            REASONS[<int> code] |= <uint16_t> (1 << <int> kind)


_fill()


cdef int expect_reason(int kind, int code) except -1:
    if not REASONS[code] >> kind & 1:
        raise Malformed(f"0x{code:02x} is not a reason code of {_NAMES[kind]} [MQTT5-2.4]")
    return 0


cdef int take_section(Span* span, Span* section, str what) except -1:
    """A property length and that many bytes, which stay where they are."""
    cdef Py_ssize_t count = 0
    cdef int used = read_varint(span.at, span.left, &count)
    if used <= 0:
        raise Malformed(f"the property length of {what} is not a variable byte integer [MQTT5-1.5.5-1]")
    take(span, used, "property length")
    section.at = take(span, count, "properties")
    section.left = count
    return 0


cdef int read_ack5(int kind, const uint8_t* body, Py_ssize_t count, int* packet_id) except -1:
    cdef Span span = Span(body, count)
    cdef Span section
    cdef int code = 0
    packet_id[0] = take_packet_id(&span, "packet id")
    if span.left:
        code = take_u8(&span, "reason code")
        expect_reason(kind, code)
    if span.left:                  # below 4 bytes there is no property length (3.4.2.2.1)
        take_section(&span, &section, _NAMES[kind])
        scan_properties(kind, section.at, section.left)
        expect_end(&span, _NAMES[kind])
    return code


cdef object decode_body(int kind, int flags, const uint8_t* body, Py_ssize_t count, int level):
    """The value of one packet: its type, the low four bits of its first byte, and what follows the length."""
    cdef Span span = Span(body, count)
    if kind == PUBLISH:
        return decode_publish(&span, flags)
    if flags != (2 if kind == PUBREL or kind == SUBSCRIBE or kind == UNSUBSCRIBE else 0):
        raise Malformed(f"{_NAMES[kind]} has flags 0x{flags:x} [MQTT-2.2.2-2]")
    if kind == CONNECT:
        return decode_connect(&span)
    if kind == CONNACK:
        return decode_connack(&span)
    if kind == SUBSCRIBE:
        return decode_subscribe(&span)
    if kind == SUBACK:
        return decode_suback(&span)
    if kind == UNSUBSCRIBE:
        return decode_unsubscribe(&span)
    if kind == PUBACK or kind == PUBREC or kind == PUBREL or kind == PUBCOMP or kind == UNSUBACK:
        packet_id = take_packet_id(&span, "packet id")
        expect_end(&span, _NAMES[kind])
        return Ack(_NAMES[kind], packet_id)
    if kind == PINGREQ or kind == PINGRESP or kind == DISCONNECT:
        expect_end(&span, _NAMES[kind])
        return Bare(_NAMES[kind])
    raise Malformed(f"packet of {_NAMES[kind & 15]} [MQTT-2.2.1]")


def decode(bytes frame not None):
    """The packet in `frame`, which must hold exactly one. Raises Malformed."""
    cdef const uint8_t* at = <const uint8_t*> PyBytes_AS_STRING(frame)
    cdef Py_ssize_t count = PyBytes_GET_SIZE(frame)
    cdef Py_ssize_t remaining = 0
    cdef int used = read_length(at + 1, count - 1, &remaining) if count else 0
    if used < 0:
        raise Malformed("remaining length takes more than 4 bytes [MQTT-2.2.3]")
    if used == 0 or 1 + used + remaining != count:
        raise Malformed(f"{count} bytes are not exactly one packet")
    return decode_body(at[0] >> 4, at[0] & 15, at + 1 + used, remaining, LEVEL_311)


# --- writing -------------------------------------------------------------------------------------------

cdef bytes frame_of(int first_byte, bytes body):
    cdef uint8_t header[5]
    cdef uint8_t* end
    header[0] = <uint8_t> first_byte
    end = write_length(&header[1], PyBytes_GET_SIZE(body))
    return PyBytes_FromStringAndSize(<const char*> header, end - header) + body


cdef bytes counted(bytes text):
    if PyBytes_GET_SIZE(text) > 65535:
        raise ValueError(f"a field of {len(text)} bytes, MQTT allows 65535")
    return len(text).to_bytes(2, "big") + text


cdef bytes connect_body(packet):
    will = packet.will
    flags = 2 if packet.clean else 0
    body = b""
    if will is not None:
        flags |= 4 | will.qos << 3 | (0x20 if will.retain else 0)
        body += counted(will.topic) + counted(will.payload)
    if packet.username is not None:
        flags |= 0x80
        body += counted(packet.username.encode())
    if packet.password is not None:
        flags |= 0x40
        body += counted(packet.password)
    name = counted(b"MQIsdp" if packet.level == LEVEL_31 else b"MQTT")
    fixed = bytes((packet.level, flags)) + packet.keep_alive_s.to_bytes(2, "big")
    return name + fixed + counted(packet.client_id.encode()) + body


def encode(packet) -> bytes:
    """The bytes of one packet value; `decode` gives the value back. TypeError for anything else."""
    if isinstance(packet, Publish):
        packet_id = packet.packet_id.to_bytes(2, "big") if packet.qos else b""
        first_byte = 0x30 | (8 if packet.dup else 0) | packet.qos << 1 | (1 if packet.retain else 0)
        return frame_of(first_byte, counted(packet.topic) + packet_id + packet.payload)
    if isinstance(packet, Ack):
        kind = _TYPES[packet.kind]
        return frame_of(kind << 4 | (2 if kind == PUBREL else 0), packet.packet_id.to_bytes(2, "big"))
    if isinstance(packet, Bare):
        return frame_of(_TYPES[packet.kind] << 4, b"")
    if isinstance(packet, Connack):
        return frame_of(CONNACK << 4, bytes((packet.session_present, packet.code)))
    if isinstance(packet, Suback):
        return frame_of(SUBACK << 4, packet.packet_id.to_bytes(2, "big") + bytes(packet.codes))
    if isinstance(packet, Subscribe):
        body = b"".join(counted(pattern) + bytes((qos,)) for pattern, qos in packet.filters)
        return frame_of(SUBSCRIBE << 4 | 2, packet.packet_id.to_bytes(2, "big") + body)
    if isinstance(packet, Unsubscribe):
        body = b"".join(counted(pattern) for pattern in packet.filters)
        return frame_of(UNSUBSCRIBE << 4 | 2, packet.packet_id.to_bytes(2, "big") + body)
    if isinstance(packet, Connect):
        return frame_of(CONNECT << 4, connect_body(packet))
    raise TypeError(f"not a packet: {packet!r}")
