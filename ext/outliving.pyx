"""What of a session must outlive the process, as plain values."""

from cpython.bytes cimport PyBytes_FromStringAndSize

from ggfast._ext.framing cimport PublishView
from ggfast._ext.publication cimport (
    Message,
    message_new,
    message_payload,
    message_properties,
    message_size,
    message_topic,
    remaining_s,
    view_values,
)
from ggfast._ext.recipient cimport OFFLINE, Recipient
from ggfast._ext.window cimport (
    DONE, RELEASED, SENT_ONCE, SENT_TWICE, Flight, Queued, backlog_at, receipts_add, receipts_has, window_at,
    window_push,
)


cdef dict exported(Recipient self):
    """See `Session.export`."""
    cdef Py_ssize_t i
    cdef Flight* flight
    cdef Queued* entry
    flights = []
    for i in range(self.window.count):
        flight = window_at(&self.window, i)
        flights.append((flight.state, bool(flight.retain), *parts_of(flight.message)))
    queued = []
    for i in range(self.backlog.count):
        entry = backlog_at(&self.backlog, i)
        queued.append((entry.qos, bool(entry.retain), *parts_of(entry.message)))
    receipts = [i for i in range(65536) if receipts_has(&self.receipts, i)] if self.receipts.count else []
    return {"first_id": self.window.first_id, "flights": flights, "queued": queued, "receipts": receipts}


cdef int restored(Recipient self, state) except -1:
    """See `Session.restore`."""
    cdef Flight* flight
    cdef PublishView view
    cdef bytes topic, payload, properties
    self.drop_stored()
    self.state = OFFLINE
    self.clean = False
    if not 1 <= state["first_id"] <= 65535 or len(state["flights"]) > 32768:
        raise ValueError("the window of a stored session is not valid")
    self.window.first_id = state["first_id"]
    for kind, retain, topic, payload, properties, expires in state["flights"]:
        if not DONE <= kind <= RELEASED:
            raise ValueError(f"a stored message has state {kind}, expected 0 to 3")
        flight = window_push(&self.window)
        flight.state = kind
        flight.retain = retain
        if kind == SENT_ONCE or kind == SENT_TWICE:
            view_values(&view, topic, payload, properties, remaining_s(expires, self.outlet.now))
            flight.message = message_new(&view, NULL, 0, self.outlet.now)
            self.stored_bytes += message_size(flight.message)
    for qos, retain, topic, payload, properties, expires in state["queued"]:
        if not 1 <= qos <= 2:
            raise ValueError(f"a stored message has QoS {qos}, expected 1 or 2")
        self.offer(topic, payload, qos, retain, properties, expires)
    for packet_id in state["receipts"]:
        if not 1 <= packet_id <= 65535:
            raise ValueError(f"a stored packet id is {packet_id}, expected 1 to 65535")
        receipts_add(&self.receipts, packet_id)
    return 0


cdef tuple parts_of(Message* message):
    """(topic, payload, properties, expires) of a stored message; empty for one that need not be sent again."""
    if message == NULL:
        return b"", b"", b"", 0
    return (PyBytes_FromStringAndSize(<const char*> message_topic(message), message.topic_bytes),
            PyBytes_FromStringAndSize(<const char*> message_payload(message), message.payload_bytes),
            PyBytes_FromStringAndSize(<const char*> message_properties(message), message.properties_bytes),
            message.expires)
