"""A client as the router sees it: filters, window, queue and output; and the outlet sessions publish to.

Who owns which bytes: `out` holds what the next write takes; a Flight or Queued entry owns one reference to
its Message. A PublishView borrows from a read buffer and must be settled (`Outlet.settle`) before that buffer
moves. Subscription identifiers (`ids`) are passed as encoded properties, borrowed from a Route.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from ggfast._ext.aliases cimport AliasTable
from ggfast._ext.bounds cimport SessionLimits
from ggfast._ext.buffers cimport OutBuffer
from ggfast._ext.framing cimport PublishView
from ggfast._ext.pledges cimport Pledge
from ggfast._ext.publication cimport Message
from ggfast._ext.window cimport Backlog, Flight, Receipts, Window
from ggfast._ext.wire cimport Wire


cdef enum State:
    NEW = 0          # connected, expects CONNECT
    LIVE = 1         # accepted
    OFFLINE = 2      # a persistent session without a connection
    ENDED = 3        # reads nothing any more


cdef enum:                   # what takes time counts in a batch as so many bytes handed to targets
    CALL_COST = 4096         # a call into Python
    FILTERS_COST = 256       # each byte of a packet that is handled there
    MISS_COST = 1024         # a route that has to be worked out,
    MATCH_COST = 256         # each filter that matched,
    LOOK_COST = 32           # and each that was looked at


cdef struct Tally:           # what the lane counts; Router.take_counts sets it to zero
    int64_t received         # PUBLISH packets from clients
    int64_t sent             # PUBLISH packets to clients, first sendings
    int64_t slow_reader      # QoS 0 to a reader that is frozen or over its ceiling: dropped
    int64_t queue_full       # QoS 1 and 2 past the queue's bounds: dropped, newest first
    int64_t offline          # QoS 0 for a persistent session that is not connected: not kept
    int64_t expired          # waited longer than their publisher allows
    int64_t too_large        # for the client's Maximum Packet Size


cdef class Outlet:
    cdef Recipient blocked_on        # the target for which the source of this batch shall wait, or None
    cdef Py_ssize_t spent            # bytes handed to targets in this batch, and what counts as such
    cdef Py_ssize_t begun            # input of sessions that are not in yet
    cdef list touched                # sessions with output to flush at the end of the batch
    cdef list broken                 # (session, error) of those whose way out failed in this batch
    cdef Pledge pledged              # of the message that is being handed over, or None
    cdef Tally tally
    cdef readonly int64_t now        # lane time in whole seconds, set by the broker's sweep
    cdef int publish_view(self, Recipient source, PublishView* view) except -1
    cdef int settle(self, bint last=*) except -1
    cdef int end_batch(self) except -1
    cdef int report_broken(self) except -1


cdef class Recipient:
    cdef readonly str client_id
    cdef readonly str source
    cdef readonly dict subscriptions     # filter bytes -> options | identifier << 8; changed by the router alone
    cdef readonly int level
    cdef readonly bint clean
    cdef readonly int keep_alive_s
    cdef readonly int64_t messages_in
    cdef readonly int64_t messages_out
    cdef readonly int64_t dropped
    cdef readonly Py_ssize_t stored_bytes  # messages of window and backlog, with their entries
    cdef Outlet outlet
    cdef SessionLimits limits
    cdef object owner                    # the slow lane, or None
    cdef Wire wire                       # the way out, or None
    cdef object route                    # the router's last route for this source, or None
    cdef object party                    # the router's source record
    cdef OutBuffer out
    cdef Window window
    cdef Backlog backlog
    cdef Receipts receipts
    cdef Py_ssize_t unsent               # entries at the window's end that this connection has not sent yet
    cdef Py_ssize_t under_way            # entries that this connection has sent and that are not acknowledged
    cdef Py_ssize_t window_max           # the client's Receive Maximum and our own bound
    cdef Py_ssize_t packet_bytes_max     # what the client takes; 0: anything
    cdef readonly bint problem_info      # the client wants reason strings
    cdef int alias_max                   # aliases we may use towards the client
    cdef AliasTable aliases_out
    cdef double last_heard
    cdef uint8_t state
    cdef bint touched                    # in the outlet's list of this batch
    cdef bint write_paused               # the transport asked for it
    cdef readonly bint congested         # its publishers shall wait
    cdef readonly bint frozen            # congested for too long: its publishers go on, QoS 0 is dropped
    cdef int stall_ticks
    cdef Recipient waiting_on            # why it is held back itself, or None
    cdef list waiters                    # sessions held back because of this one, or None

    cdef int deliver(self, PublishView* view, int qos, bint retain, const uint8_t* ids, Py_ssize_t ids_bytes,
                     Message** shared) except -1
    cdef int append_frames(self, const uint8_t* frames, Py_ssize_t count, Py_ssize_t messages,
                           bint alone, bint last) except -1
    cdef bint has_room(self) noexcept
    cdef bint is_full(self, int qos, Py_ssize_t size) noexcept
    cdef bint fits(self, PublishView* view, int qos, Py_ssize_t ids_bytes) noexcept
    cdef int put(self, PublishView* view, int qos, bint retain, bint dup, int packet_id, const uint8_t* ids,
                 Py_ssize_t ids_bytes) except -1
    cdef int choose_alias(self, PublishView* view, int qos, Py_ssize_t ids_bytes, bint* known) except -1
    cdef Message* stored_form(self, PublishView* view, const uint8_t* ids, Py_ssize_t ids_bytes,
                              Message** shared) except NULL
    cdef int touch(self) except -1
    cdef int flush_out(self) except -1
    cdef int write_now(self, const uint8_t* data, Py_ssize_t count) except -1
    cdef int land(self, Flight* flight) except -1
    cdef int launch(self, PublishView* view, int qos, bint retain, const uint8_t* ids, Py_ssize_t ids_bytes,
                    Message** shared) except -1
    cdef int enqueue(self, PublishView* view, int qos, bint retain, const uint8_t* ids, Py_ssize_t ids_bytes,
                     Message** shared) except -1
    cdef int resend(self) except -1
    cdef int pump(self) except -1
    cdef int congest(self) noexcept
    cdef int relieve(self) except -1
    cdef int free_waiters(self) except -1
    cdef int drop_stored(self) noexcept
