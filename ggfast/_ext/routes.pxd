"""The router's records."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from ggfast._ext.buffers cimport Ring
from ggfast._ext.framing cimport PublishView
from ggfast._ext.recipient cimport Outlet, Recipient
from ggfast._ext.routecache cimport Route, RouteCache, Source
from ggfast._ext.topics cimport TopicTree


cdef class Target:
    cdef str name
    cdef Ring ring           # a function's queue, or None
    cdef object notify
    cdef object offer        # a sink, or None
    cdef object room         # a sink's answer to "would it fit", or None
    cdef bint rung           # its notify is due at the end of the batch
    cdef bint complained


cdef class Router(Outlet):
    cdef readonly bint open
    cdef readonly Py_ssize_t topic_bytes_max
    cdef readonly Py_ssize_t topic_slashes_max
    cdef public object retain
    cdef uint64_t generation
    cdef dict sources        # name -> Source
    cdef dict targets        # name -> Target
    cdef dict joined         # source name -> list of Recipient (table mode)
    cdef TopicTree tree      # every session's filters (open mode)
    cdef Source everyone     # the one cache source of the open mode
    cdef RouteCache cache
    cdef list rung
    cdef bint busy           # inside a batch: Python publishers must not end it
    cdef int64_t unrouted, ring_full, sink_refused, sink_errors
    # the run: consecutive frames of the read buffer that all go the same way, copied as one piece
    cdef Route run_route
    cdef const uint8_t* run_start
    cdef const uint8_t* run_end
    cdef Py_ssize_t run_count

    cdef Source source_of(self, str name)
    cdef Route route_for(self, Recipient session, Source source, const uint8_t* topic, Py_ssize_t count)
    cdef Route resolve(self, Source source, const uint8_t* topic, Py_ssize_t count)
    cdef int deliver(self, Route route, str source, PublishView* view, bytes payload) except -1
    cdef bint hand_over(self, Target target, str source, bytes topic, bytes payload, int qos,
                        bint retain) except -1
    cdef int changed(self) except -1
    cdef int check_pattern(self, bytes pattern) except -1
    cdef Route python_route(self, str source, bytes topic)
    cdef int complain(self, Target target, error) except -1
