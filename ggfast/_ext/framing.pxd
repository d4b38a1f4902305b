"""MQTT control packets in C, for the lane: packet types, lengths, and what it writes itself.

A Span borrows bytes of one complete packet; nothing here keeps a pointer.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t
from libc.string cimport memcpy

from ggfast._ext.buffers cimport OutBuffer, out_reserve


cdef enum PacketType:
    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


cdef struct Span:
    const uint8_t* at
    Py_ssize_t left


cdef struct PublishView:          # one PUBLISH inside the read buffer; borrowed, dies with it
    const uint8_t* frame          # first byte of the packet
    Py_ssize_t frame_bytes
    const uint8_t* topic
    Py_ssize_t topic_bytes
    const uint8_t* payload
    Py_ssize_t payload_bytes
    int qos
    bint retain
    int level                     # 4 or 5: the form of `frame`
    const uint8_t* properties     # MQTT 5: the section without its length
    Py_ssize_t properties_bytes   # 0: none, and at level 4
    Py_ssize_t forward_bytes      # of them what is passed on
    int64_t expiry_s              # message expiry interval, -1: none
    int packet_id                 # 0 at QoS 0
    int alias                     # topic alias, 0: none
    bint verbatim                 # `frame` may be passed on as it lies: no topic alias in it


cdef inline uint16_t read_u16(const uint8_t* at) noexcept nogil:
    return <uint16_t> ((at[0] << 8) | at[1])


cdef inline uint8_t* write_u16(uint8_t* at, Py_ssize_t value) noexcept nogil:
    at[0] = <uint8_t> (value >> 8)
    at[1] = <uint8_t> (value & 0xFF)
    return at + 2


cdef inline int length_bytes(Py_ssize_t remaining) noexcept nogil:
    return 1 if remaining < 128 else 2 if remaining < 16384 else 3 if remaining < 2097152 else 4


cdef inline uint8_t* write_length(uint8_t* at, Py_ssize_t remaining) noexcept nogil:
    while remaining >= 128:
        at[0] = <uint8_t> (remaining & 0x7F) | 0x80
        at += 1
        remaining >>= 7
    at[0] = <uint8_t> remaining
    return at + 1


cdef inline int put_ack(OutBuffer out, int first_byte, int packet_id) except -1:
    """PUBACK 0x40, PUBREC 0x50, PUBREL 0x62, PUBCOMP 0x70, UNSUBACK 0xB0."""
    cdef uint8_t* at = out_reserve(out, 4)
    at[0] = <uint8_t> first_byte
    at[1] = 2
    write_u16(at + 2, packet_id)
    return 0


cdef inline int put_publish(
    OutBuffer out, const uint8_t* topic, Py_ssize_t topic_bytes, const uint8_t* payload,
    Py_ssize_t payload_bytes, int qos, bint retain, bint dup, int packet_id
) except -1:
    """A whole PUBLISH; `packet_id` is written only for QoS 1 and 2."""
    cdef Py_ssize_t remaining = 2 + topic_bytes + payload_bytes + (2 if qos else 0)
    cdef uint8_t* at = out_reserve(out, 1 + length_bytes(remaining) + remaining)
    at[0] = <uint8_t> (0x30 | (8 if dup else 0) | (qos << 1) | (1 if retain else 0))
    at = write_length(at + 1, remaining)
    at = write_u16(at, topic_bytes)
    memcpy(at, topic, <size_t> topic_bytes)
    at += topic_bytes
    if qos:
        at = write_u16(at, packet_id)
    if payload_bytes:
        memcpy(at, payload, <size_t> payload_bytes)
    return 0


cdef inline Py_ssize_t section5_bytes(
    int alias, int64_t expiry_s, Py_ssize_t ids_bytes, Py_ssize_t properties_bytes
) noexcept nogil:
    """Size of a PUBLISH's property section without its length."""
    return (3 if alias else 0) + (5 if expiry_s >= 0 else 0) + ids_bytes + properties_bytes


cdef inline Py_ssize_t publish5_bytes(
    Py_ssize_t topic_bytes, Py_ssize_t payload_bytes, int qos, int alias, int64_t expiry_s,
    Py_ssize_t ids_bytes, Py_ssize_t properties_bytes
) noexcept nogil:
    """Size of the whole packet that put_publish5 writes for the same arguments."""
    cdef Py_ssize_t section = section5_bytes(alias, expiry_s, ids_bytes, properties_bytes)
    cdef Py_ssize_t remaining = 2 + topic_bytes + (2 if qos else 0) + length_bytes(section) + section + payload_bytes
    return 1 + length_bytes(remaining) + remaining


cdef inline int put_publish5(
    OutBuffer out, const uint8_t* topic, Py_ssize_t topic_bytes, const uint8_t* payload, Py_ssize_t payload_bytes,
    int qos, bint retain, bint dup, int packet_id, int alias, int64_t expiry_s,
    const uint8_t* ids, Py_ssize_t ids_bytes, const uint8_t* properties, Py_ssize_t properties_bytes
) except -1:
    """A whole PUBLISH of MQTT 5: alias (0: none), expiry (-1: none), subscription identifiers, what is passed on.

    `ids` are whole properties, encoded; `properties` a section as copy_forwarded leaves it. The caller sees to it
    that the packet stays below what a remaining length can say.
    """
    cdef Py_ssize_t section = section5_bytes(alias, expiry_s, ids_bytes, properties_bytes)
    cdef Py_ssize_t remaining = 2 + topic_bytes + (2 if qos else 0) + length_bytes(section) + section + payload_bytes
    cdef uint8_t* at = out_reserve(out, 1 + length_bytes(remaining) + remaining)
    at[0] = <uint8_t> (0x30 | (8 if dup else 0) | (qos << 1) | (1 if retain else 0))
    at = write_u16(write_length(at + 1, remaining), topic_bytes)
    if topic_bytes:                   # none: the alias stands for it
        memcpy(at, topic, <size_t> topic_bytes)
        at += topic_bytes
    if qos:
        at = write_u16(at, packet_id)
    at = write_length(at, section)
    if alias:
        at[0] = 35
        at = write_u16(at + 1, alias)
    if expiry_s >= 0:
        at[0] = 2
        at = write_u16(write_u16(at + 1, <Py_ssize_t> (expiry_s >> 16)), <Py_ssize_t> (expiry_s & 0xFFFF))
    if ids_bytes:
        memcpy(at, ids, <size_t> ids_bytes)
        at += ids_bytes
    if properties_bytes:
        memcpy(at, properties, <size_t> properties_bytes)
        at += properties_bytes
    if payload_bytes:
        memcpy(at, payload, <size_t> payload_bytes)
    return 0


cdef inline int put_ack5(OutBuffer out, int first_byte, int packet_id, int code) except -1:
    """As put_ack, for MQTT 5's PUBACK to PUBCOMP: code 0 is left out."""
    cdef uint8_t* at = out_reserve(out, 5 if code else 4)
    at[0] = <uint8_t> first_byte
    at[1] = 3 if code else 2
    write_u16(at + 2, packet_id)
    if code:
        at[4] = <uint8_t> code
    return 0


cdef inline int read_length(const uint8_t* at, Py_ssize_t left, Py_ssize_t* remaining) noexcept nogil:
    """Decode a remaining length at `at`: bytes it takes, 0 if more are needed, -1 if it is too long."""
    cdef Py_ssize_t value = 0
    cdef int i
    for i in range(4):
        if i >= left:
            return 0
        value |= <Py_ssize_t> (at[i] & 0x7F) << (7 * i)
        if at[i] < 128:
            remaining[0] = value
            return i + 1
    return -1


# Packet id and reason code of MQTT 5's PUBACK, PUBREC, PUBREL or PUBCOMP: the code; strict, no Python object.
cdef int read_ack5(int kind, const uint8_t* body, Py_ssize_t count, int* packet_id) except -1
# The value of what follows the remaining length; `level` 3, 4 or 5, of no meaning for a CONNECT.
cdef object decode_body(int kind, int flags, const uint8_t* body, Py_ssize_t count, int level)
