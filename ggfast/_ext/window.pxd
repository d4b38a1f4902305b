"""What one client has outstanding: structs inside a Session, functions on them.

Every Message pointer in an entry is one owned reference; `window_land`, `backlog_pop`'s caller or the clear
functions give it back.
"""

from libc.stdint cimport uint8_t

from ggfast._ext.publication cimport Message


cdef enum:
    PACKET_IDS = 65535           # 1 to 65535


cdef enum FlightState:
    DONE = 0                     # acknowledged, but not the oldest
    SENT_ONCE = 1                # QoS 1, awaits PUBACK
    SENT_TWICE = 2               # QoS 2, awaits PUBREC
    RELEASED = 3                 # QoS 2, awaits PUBCOMP


cdef struct Flight:
    Message* message             # NULL when it need not be sent again
    uint8_t state
    uint8_t retain


cdef struct Window:              # outgoing QoS 1 and 2: consecutive packet ids, circular, oldest first
    Flight* flights              # owned; `slots` of them, a power of two
    Py_ssize_t slots, head, count
    int first_id                 # packet id of the oldest, or the next one to use; 1 at the start


cdef struct Queued:
    Message* message
    uint8_t qos
    uint8_t retain


cdef struct Backlog:             # outgoing QoS 1 and 2 that wait for the window or the client
    Queued* entries              # owned; `slots` of them, a power of two
    Py_ssize_t slots, head, count


cdef struct Receipts:            # incoming QoS 2 ids between PUBLISH and PUBREL: one bit each
    uint8_t* bits                # owned, 8 KiB, allocated at first use
    Py_ssize_t count


cdef inline Flight* window_at(Window* window, Py_ssize_t index) noexcept nogil:
    return &window.flights[(window.head + index) & (window.slots - 1)]


cdef inline int window_id(Window* window, Py_ssize_t index) noexcept nogil:
    return <int> ((window.first_id - 1 + index) % PACKET_IDS) + 1


cdef inline int window_index(Window* window, int packet_id) noexcept nogil:
    """Where the entry of `packet_id` would be; by subtraction, because ids are consecutive."""
    return (packet_id - window.first_id + PACKET_IDS) % PACKET_IDS


cdef inline Flight* window_find(Window* window, int packet_id) noexcept nogil:
    """The entry of `packet_id`, or NULL."""
    cdef int offset = window_index(window, packet_id)
    return NULL if offset >= window.count else window_at(window, offset)


cdef inline Queued* backlog_at(Backlog* backlog, Py_ssize_t index) noexcept nogil:
    return &backlog.entries[(backlog.head + index) & (backlog.slots - 1)]


cdef Flight* window_push(Window* window) except NULL
cdef void window_land(Window* window, Flight* flight) noexcept
cdef void window_clear(Window* window) noexcept
cdef Queued* backlog_push(Backlog* backlog) except NULL
cdef Queued backlog_pop(Backlog* backlog) noexcept
cdef void backlog_clear(Backlog* backlog) noexcept
cdef int receipts_add(Receipts* receipts, int packet_id) except -1
cdef bint receipts_has(Receipts* receipts, int packet_id) noexcept
cdef void receipts_remove(Receipts* receipts, int packet_id) noexcept
cdef void receipts_clear(Receipts* receipts) noexcept
