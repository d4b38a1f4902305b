"""What one client has outstanding: the window of sent messages, the backlog behind it, the ids received once.

    backlog (waits) -> window (sent, not acknowledged) -> gone

The window's packet ids are consecutive, so an acknowledgement finds its entry without a search; an entry
acknowledged out of turn stays as DONE until the ones before it are.
"""

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from ggfast._ext.publication cimport message_drop

cdef enum:
    SLOTS_FIRST = 8
    SLOTS_KEPT = 64              # what an emptied array may keep
    RECEIPT_BYTES = 8192


cdef Flight* window_push(Window* window) except NULL:
    """A cleared entry at the end; its packet id is `window_id(window, window.count - 1)`."""
    cdef Py_ssize_t slots, i
    cdef Flight* flights
    if window.count == window.slots:
        slots = window.slots * 2 if window.slots else SLOTS_FIRST
        flights = <Flight*> malloc(<size_t> slots * sizeof(Flight))
        if flights == NULL:
            raise MemoryError(f"no memory for a window of {slots} messages")
        for i in range(window.count):
            flights[i] = window_at(window, i)[0]
        free(window.flights)
        window.flights = flights
        window.slots = slots
        window.head = 0
    window.count += 1
    memset(window_at(window, window.count - 1), 0, sizeof(Flight))
    return window_at(window, window.count - 1)


cdef void window_land(Window* window, Flight* flight) noexcept:
    """`flight` is acknowledged: give its message back and forget all that are done at the front."""
    message_drop(flight.message)
    flight.message = NULL
    flight.state = DONE
    while window.count and window_at(window, 0).state == DONE:
        window.head = (window.head + 1) & (window.slots - 1)
        window.count -= 1
        window.first_id = window.first_id % PACKET_IDS + 1


cdef void window_clear(Window* window) noexcept:
    cdef Py_ssize_t i
    for i in range(window.count):
        message_drop(window_at(window, i).message)
    free(window.flights)
    window.flights = NULL
    window.slots = window.head = window.count = 0


cdef Queued* backlog_push(Backlog* backlog) except NULL:
    """A new entry at the end, to be filled by the caller."""
    cdef Py_ssize_t slots, i
    cdef Queued* entries
    if backlog.count == backlog.slots:
        slots = backlog.slots * 2 if backlog.slots else SLOTS_FIRST
        entries = <Queued*> malloc(<size_t> slots * sizeof(Queued))
        if entries == NULL:
            raise MemoryError(f"no memory for a queue of {slots} messages")
        for i in range(backlog.count):
            entries[i] = backlog_at(backlog, i)[0]
        free(backlog.entries)
        backlog.entries = entries
        backlog.slots = slots
        backlog.head = 0
    backlog.count += 1
    return backlog_at(backlog, backlog.count - 1)


cdef Queued backlog_pop(Backlog* backlog) noexcept:
    """The oldest entry, its reference now the caller's. There must be one."""
    cdef Queued entry = backlog_at(backlog, 0)[0]
    backlog.head = (backlog.head + 1) & (backlog.slots - 1)
    backlog.count -= 1
    if backlog.count == 0 and backlog.slots > SLOTS_KEPT:
        backlog_clear(backlog)
    return entry


cdef void backlog_clear(Backlog* backlog) noexcept:
    cdef Py_ssize_t i
    for i in range(backlog.count):
        message_drop(backlog_at(backlog, i).message)
    free(backlog.entries)
    backlog.entries = NULL
    backlog.slots = backlog.head = backlog.count = 0


cdef int receipts_add(Receipts* receipts, int packet_id) except -1:
    """Note an id; 0 if it was noted before, else 1."""
    if receipts.bits == NULL:
        receipts.bits = <uint8_t*> calloc(RECEIPT_BYTES, 1)
        if receipts.bits == NULL:
            raise MemoryError("no memory for the packet ids of a QoS 2 publisher")
    if receipts_has(receipts, packet_id):
        return 0
    receipts.bits[packet_id >> 3] |= <uint8_t> (1 << (packet_id & 7))
    receipts.count += 1
    return 1


cdef bint receipts_has(Receipts* receipts, int packet_id) noexcept:
    return receipts.bits != NULL and (receipts.bits[packet_id >> 3] >> (packet_id & 7)) & 1


cdef void receipts_remove(Receipts* receipts, int packet_id) noexcept:
    if receipts_has(receipts, packet_id):
        receipts.bits[packet_id >> 3] &= <uint8_t> ~(1 << (packet_id & 7))
        receipts.count -= 1


cdef void receipts_clear(Receipts* receipts) noexcept:
    free(receipts.bits)
    receipts.bits = NULL
    receipts.count = 0
