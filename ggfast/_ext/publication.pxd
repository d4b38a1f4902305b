"""One publication: as it lies in a read buffer (PublishView, framing.pxd), and as it is stored (Message).

A Message is one malloc'd block shared by reference count (`message_take`, `message_drop`): whoever stores the
pointer holds one reference. Its bytes never change after `message_new`. A view made from a Message borrows from it.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from ggfast._ext.buffers cimport OutBuffer
from ggfast._ext.framing cimport PublishView


cdef struct Message:
    Py_ssize_t refs
    uint32_t topic_bytes      # without the length prefix
    uint32_t payload_bytes
    uint32_t properties_bytes # MQTT 5, the forwarded form; 0: none
    uint32_t expires          # the lane second from which on it is not sent any more; 0: never
    # the topic, the properties and the payload follow in the same block


cdef inline uint8_t* message_topic(Message* message) noexcept nogil:
    return (<uint8_t*> message) + sizeof(Message)


cdef inline uint8_t* message_properties(Message* message) noexcept nogil:
    return (<uint8_t*> message) + sizeof(Message) + message.topic_bytes


cdef inline uint8_t* message_payload(Message* message) noexcept nogil:
    return (<uint8_t*> message) + sizeof(Message) + message.topic_bytes + message.properties_bytes


cdef inline Py_ssize_t message_size(Message* message) noexcept nogil:
    """What a stored message costs, block header included."""
    return <Py_ssize_t> sizeof(Message) + message.topic_bytes + message.properties_bytes + message.payload_bytes


cdef inline Message* message_take(Message* message) noexcept:
    message.refs += 1
    return message


cdef inline uint32_t expires_at(int64_t now, int64_t expiry_s) noexcept nogil:
    """The lane second at which a message with that expiry (-1: none) is gone; never before its time is over."""
    cdef int64_t end = now + expiry_s + 1
    if expiry_s < 0:
        return 0
    return <uint32_t> (end if end < <int64_t> 0xFFFFFFFF else <int64_t> 0xFFFFFFFF)


cdef inline int64_t remaining_s(uint32_t expires, int64_t now) noexcept nogil:
    """The expiry to write for a message that has waited; -1: none. One that is not over has a second at least."""
    cdef int64_t left = <int64_t> expires - 1 - now
    if expires == 0:
        return -1
    return left if left > 1 else 1


cdef int read_publish(const uint8_t* frame, Py_ssize_t header, Py_ssize_t total, int level,
                      PublishView* view) except -1
cdef int make_forwarded(PublishView* view, OutBuffer scratch) except -1
cdef void view_message(PublishView* view, Message* message, int64_t now) noexcept nogil
cdef int view_values(PublishView* view, bytes topic, bytes payload, bytes properties, int64_t expiry_s) except -1
cdef Message* message_new(PublishView* view, const uint8_t* ids, Py_ssize_t ids_bytes, int64_t now) except NULL
cdef void message_drop(Message* message) noexcept
cdef Py_ssize_t stored_now() noexcept        # bytes of all stored messages of the process
cdef bytes identifier_property(int number)
