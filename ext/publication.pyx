"""One publication: read in place from its PUBLISH packet, or stored in a block that all its targets share.

    PUBLISH in a read buffer -> read_publish -> PublishView -> message_new -> Message
                                                     ^------- view_message ------'

The forwarded form of MQTT 5 properties is what a server passes on: everything but topic alias, expiry and
subscription identifiers. A view fresh from a packet may hold more; `make_forwarded` drops it.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from ggfast._ext.buffers cimport out_reserve
from ggfast._ext.framing cimport read_u16, write_length
from ggfast._ext.properties cimport PublishProperties, copy_forwarded, read_varint, scan_publish

from ggfast.errors import Malformed

cdef Py_ssize_t live_messages = 0
cdef Py_ssize_t live_message_bytes = 0


def live_message_counts() -> tuple:
    """(count, bytes) of stored messages alive in the process; tests assert that both return to zero."""
    return live_messages, live_message_bytes


cdef int read_publish(const uint8_t* frame, Py_ssize_t header, Py_ssize_t total, int level,
                      PublishView* view) except -1:
    """Fill `view` from one whole packet with a fixed header of `header` bytes. Does not look at the topic's text.

    Raises Malformed or Violation.
    """
    cdef const uint8_t* at = frame + header
    cdef Py_ssize_t rest = total - header - 2
    cdef Py_ssize_t count = 0
    cdef int used
    cdef PublishProperties found
    view.qos = (frame[0] >> 1) & 3
    view.retain = frame[0] & 1
    view.frame = frame
    view.frame_bytes = total
    view.level = level
    view.properties = NULL
    view.properties_bytes = view.forward_bytes = 0
    view.expiry_s = -1
    view.alias = view.packet_id = 0
    view.verbatim = True
    if view.qos == 3:
        raise Malformed("PUBLISH with QoS 3 [MQTT-3.3.1-4]")
    if rest < 0:
        raise Malformed("PUBLISH without a topic")
    view.topic = at + 2
    view.topic_bytes = read_u16(at)
    rest -= view.topic_bytes
    at = view.topic + view.topic_bytes
    if view.qos:
        rest -= 2
        if rest >= 0:
            view.packet_id = read_u16(at)
            at += 2
    if rest < 0:
        raise Malformed("PUBLISH ends inside its topic or packet id")
    if view.qos == 0:
        if frame[0] & 8:
            raise Malformed("PUBLISH with QoS 0 and DUP [MQTT-3.3.1-2]")
    elif view.packet_id == 0:
        raise Malformed("PUBLISH with packet id 0 [MQTT-2.3.1-1]")
    if level == 5:
        used = read_varint(at, rest, &count)
        if used <= 0 or count > rest - used:
            raise Malformed("PUBLISH ends inside its properties [MQTT5-2.2.2]")
        at += used
        rest -= used + count
        if count:
            scan_publish(at, count, &found)
            view.properties = at
            view.properties_bytes = count
            view.forward_bytes = found.forward_bytes
            view.expiry_s = found.expiry_s
            view.alias = found.alias
            view.verbatim = found.alias == 0
            at += count
    view.payload = at
    view.payload_bytes = rest
    return 0


cdef int make_forwarded(PublishView* view, OutBuffer scratch) except -1:
    """Leave only what is passed on in `view.properties`; `scratch` keeps the copy if one is needed."""
    cdef uint8_t* to
    if view.forward_bytes != view.properties_bytes:
        scratch.used = 0
        to = out_reserve(scratch, view.forward_bytes + 1)     # one more: a buffer of none has no place
        copy_forwarded(view.properties, view.properties_bytes, to)
        view.properties = to
        view.properties_bytes = view.forward_bytes
    return 0


cdef void view_message(PublishView* view, Message* message, int64_t now) noexcept nogil:
    """A stored message in the form the lane sends; borrows from it."""
    memset(view, 0, sizeof(PublishView))
    view.topic = message_topic(message)
    view.topic_bytes = message.topic_bytes
    view.payload = message_payload(message)
    view.payload_bytes = message.payload_bytes
    view.properties = message_properties(message)
    view.properties_bytes = view.forward_bytes = message.properties_bytes
    view.expiry_s = remaining_s(message.expires, now)
    view.level = 5


cdef int view_values(PublishView* view, bytes topic, bytes payload, bytes properties, int64_t expiry_s) except -1:
    """A message from Python in the form the lane routes; borrows from the three."""
    memset(view, 0, sizeof(PublishView))
    view.topic = <const uint8_t*> PyBytes_AS_STRING(topic)
    view.topic_bytes = PyBytes_GET_SIZE(topic)
    view.payload = <const uint8_t*> PyBytes_AS_STRING(payload)
    view.payload_bytes = PyBytes_GET_SIZE(payload)
    view.properties = <const uint8_t*> PyBytes_AS_STRING(properties)
    view.properties_bytes = view.forward_bytes = PyBytes_GET_SIZE(properties)
    view.expiry_s = expiry_s
    view.level = 5
    return 0


cdef Message* message_new(PublishView* view, const uint8_t* ids, Py_ssize_t ids_bytes, int64_t now) except NULL:
    """A new message with one reference, copied from a view in forwarded form; `ids` go before its properties."""
    global live_messages, live_message_bytes
    cdef size_t size = <size_t> (view.topic_bytes + ids_bytes + view.properties_bytes + view.payload_bytes)
    cdef Message* message = <Message*> malloc(sizeof(Message) + size)
    cdef uint8_t* to
    if message == NULL:
        raise MemoryError("no memory for a message")
    message.refs = 1
    message.topic_bytes = <uint32_t> view.topic_bytes
    message.payload_bytes = <uint32_t> view.payload_bytes
    message.properties_bytes = <uint32_t> (ids_bytes + view.properties_bytes)
    message.expires = expires_at(now, view.expiry_s)
    memcpy(message_topic(message), view.topic, <size_t> view.topic_bytes)
    to = message_properties(message)
    if ids_bytes:
        memcpy(to, ids, <size_t> ids_bytes)
    if view.properties_bytes:
        memcpy(to + ids_bytes, view.properties, <size_t> view.properties_bytes)
    if view.payload_bytes:
        memcpy(message_payload(message), view.payload, <size_t> view.payload_bytes)
    live_messages += 1
    live_message_bytes += message_size(message)
    return message


cdef void message_drop(Message* message) noexcept:
    """Give one reference back; NULL is allowed."""
    global live_messages, live_message_bytes
    if message == NULL:
        return
    message.refs -= 1
    if message.refs == 0:
        live_messages -= 1
        live_message_bytes -= message_size(message)
        free(message)


cdef Py_ssize_t stored_now() noexcept:
    return live_message_bytes


cdef bytes identifier_property(int number):
    """A subscription identifier (1 to 268,435,455) as a property; nothing for 0."""
    cdef uint8_t out[5]
    if number == 0:
        return b""
    out[0] = 11
    return PyBytes_FromStringAndSize(<const char*> out, write_length(&out[1], number) - out)
