"""One client's protocol state in C.

`inbox` owns input that is not yet a whole packet, or that waits while the session is held back; the rest of
what a session owns stands in recipient.pxd.
"""

from libc.stdint cimport uint8_t

from ggfast._ext.aliases cimport AliasTable
from ggfast._ext.buffers cimport InBuffer
from ggfast._ext.framing cimport PublishView
from ggfast._ext.recipient cimport Recipient


cdef class Session(Recipient):
    cdef InBuffer inbox
    cdef AliasTable aliases_in
    cdef Py_ssize_t begun                # what `outlet.begun` counts for it
    cdef bint heard                      # a packet came since the last tick
    cdef bint held                       # reading is paused, `inbox` may hold whole packets
    cdef bint kept                       # by its owner, until that lets go
    cdef object owed                     # Pledges of acknowledgements that wait, in their order; or None
    cdef Py_ssize_t owing                # how many

    cdef int feed(self, const uint8_t* at, Py_ssize_t left) except -1
    cdef Py_ssize_t handle(self, const uint8_t* at, Py_ssize_t left) except -1
    cdef int top_up(self, const uint8_t** at, Py_ssize_t* left) except -1
    cdef int on_packet(self, const uint8_t* frame, Py_ssize_t header, Py_ssize_t total) except -1
    cdef int on_publish(self, const uint8_t* frame, Py_ssize_t header, Py_ssize_t total) except -1
    cdef int resolve_alias(self, PublishView* view) except -1
    cdef int on_ack(self, int kind, int packet_id, int code) except -1
    cdef int on_release(self, int packet_id) except -1
    cdef int answer(self, int first_byte, int packet_id, int code) except -1
    cdef int owe(self, int first_byte, int packet_id, int code) except -1
    cdef int finish(self, object error) except -1
    cdef object note_begun(self)
    cdef int hold(self, Recipient target) except -1
