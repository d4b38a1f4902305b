"""The router's records. A Route keeps its sessions alive through `sessions`; `hops` only borrows them."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from ggfast._ext.buffers cimport Ring
from ggfast._ext.framing cimport PublishView
from ggfast._ext.session cimport Outlet, Session
from ggfast._ext.topics cimport TopicTree


cdef struct Hop:
    void* session            # Session, borrowed from Route.sessions
    int qos                  # granted


cdef struct Slot:
    uint64_t hash
    void* route              # Route with one owned reference, or NULL


cdef class Source:
    cdef str name
    cdef TopicTree rules     # subject -> target names, or None: no rule names this source
    cdef uint64_t salt       # keeps equal topics of different sources apart in the cache


cdef class Target:
    cdef str name
    cdef Ring ring           # a function's queue, or None
    cdef object notify
    cdef object offer        # a sink, or None
    cdef object room         # a sink's answer to "would it fit", or None
    cdef bint rung           # its notify is due at the end of the batch
    cdef bint complained


cdef class Route:
    cdef Source source
    cdef bytes topic
    cdef uint64_t generation
    cdef bint permitted      # some rule (or the open mode) lets this source speak on this topic
    cdef tuple sessions
    cdef Hop* hops           # owned
    cdef Py_ssize_t hop_count
    cdef list others         # Targets, or None
    cdef Py_ssize_t cost     # bytes


cdef class RouteCache:
    cdef Slot* slots         # owned; sets of WAYS slots
    cdef Py_ssize_t set_count
    cdef Py_ssize_t count, bytes
    cdef Py_ssize_t entries_max, bytes_max
    cdef Py_ssize_t hand     # next slot to empty when a bound is met
    cdef uint64_t generation
    cdef void* find(self, Source source, const uint8_t* topic, Py_ssize_t count, uint64_t hash) noexcept
    cdef int put(self, uint64_t hash, Route route) except -1
    cdef int drop(self, Slot* slot) except -1
    cdef int clear(self) except -1
    cdef int resize(self, Py_ssize_t set_count) except -1


cdef class Router(Outlet):
    cdef readonly bint open
    cdef readonly Py_ssize_t topic_bytes_max
    cdef readonly Py_ssize_t topic_slashes_max
    cdef public object retain
    cdef uint64_t generation
    cdef dict sources        # name -> Source
    cdef dict targets        # name -> Target
    cdef dict joined         # source name -> list of Session (table mode)
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
    cdef Route route_for(self, Session session, Source source, const uint8_t* topic, Py_ssize_t count)
    cdef Route resolve(self, Source source, const uint8_t* topic, Py_ssize_t count)
    cdef int deliver(self, Route route, str source, PublishView* view, bytes payload) except -1
    cdef bint hand_over(self, Target target, str source, bytes topic, bytes payload, int qos, bint retain) except -1
    cdef int changed(self) except -1
    cdef Route python_route(self, str source, bytes topic)
    cdef int complain(self, Target target, error) except -1
