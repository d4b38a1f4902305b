"""MQTT control packets in C, for the lane: packet types, lengths, and what it writes itself.

A Span borrows bytes of one complete packet; nothing here keeps a pointer.
"""

from libc.stdint cimport uint8_t, uint16_t
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


cdef object decode_body(int kind, int flags, const uint8_t* body, Py_ssize_t count)
