"""The router: delivery over what routetable.pxd knows."""

from libc.stdint cimport int64_t, uint8_t

from ggfast._ext.buffers cimport OutBuffer
from ggfast._ext.framing cimport PublishView
from ggfast._ext.publication cimport Message
from ggfast._ext.recipient cimport Recipient
from ggfast._ext.routecache cimport Hop, Route, Source
from ggfast._ext.routetable cimport RouteTable, Target


cdef class Router(RouteTable):
    cdef public object retain
    cdef list rung
    cdef bint busy           # inside a batch: Python publishers must not end it
    cdef int64_t unrouted, unpermitted, ring_full, sink_refused, sink_errors
    cdef OutBuffer scratch   # forwarded properties of one message, while it is delivered
    cdef OutBuffer converted # the run in the other version's form, while it is settled
    # the run: consecutive frames of the read buffer that all go the same way, passed on as one piece
    cdef Route run_route
    cdef Recipient run_source
    cdef uint8_t run_level   # 4 or 5: the form of its frames
    cdef const uint8_t* run_start
    cdef const uint8_t* run_end
    cdef Py_ssize_t run_count

    cdef int deny(self, Recipient source, Route route, uint8_t qos) except -1
    cdef int convert_run(self) except -1
    cdef int send_run(self, Recipient session, Hop* hop) except -1
    cdef const uint8_t* next_of_run(self, const uint8_t* at, PublishView* view) except NULL
    cdef int deliver(self, Route route, Recipient sender, str source, PublishView* view, bytes payload) except -1
    cdef str realm_of(self, str source)
    cdef int deliver_hop(self, Hop* hop, PublishView* view, Message** shared) except -1
    cdef bint hand_over(self, Target target, str source, bytes topic, bytes payload, int qos,
                        bint retain) except -1
    cdef int complain(self, Target target, error) except -1
