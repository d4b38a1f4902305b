"""The router's records: who speaks, who may be reached, by which rules and filters."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from ggfast._ext.buffers cimport Ring
from ggfast._ext.recipient cimport Outlet, Recipient
from ggfast._ext.routecache cimport Hop, Route, RouteCache, ShareRoute, Source
from ggfast._ext.topics cimport TopicTree


cdef class Target:
    cdef str name
    cdef Ring ring           # a function's queue, or None
    cdef object notify
    cdef object offer        # a sink, or None
    cdef object room         # a sink's answer to "would it fit", or None
    cdef bint rung           # its notify is due at the end of the batch
    cdef bint complained


cdef class RouteTable(Outlet):
    cdef readonly bint open
    cdef readonly object authoriser
    cdef readonly Py_ssize_t topic_bytes_max
    cdef readonly Py_ssize_t topic_slashes_max
    cdef uint64_t generation
    cdef dict sources        # name -> Source
    cdef dict targets        # name -> Target
    cdef dict joined         # source name -> list of Recipient
    cdef dict shares         # whole pattern -> Share
    cdef TopicTree tree      # open mode: every session's filters, and the shares
    cdef Source everyone     # the open mode: rules for all, and without an authoriser the one cache source
    cdef Source own          # what the broker itself says ($SYS)
    cdef RouteCache cache
    cdef bint uncached       # a route of this generation was too large for the cache
    cdef int scans           # of the cache since the last tick

    cdef Source source_of(self, str name)
    cdef Route route_for(self, Recipient session, Source source, const uint8_t* topic, Py_ssize_t count)
    cdef Route python_route(self, str source, bytes topic)
    cdef Route resolve(self, Source source, const uint8_t* topic, Py_ssize_t count)
    cdef int check_topic(self, const uint8_t* topic, Py_ssize_t count) except -1
    cdef int collect_by_rules(self, Source source, const uint8_t* topic, Py_ssize_t count, Route route,
                              list found, dict shared) except -1
    cdef bint may_publish(self, Source source, bytes topic) except -1
    cdef bint may_retain(self, Route route) except -1
    cdef int collect_open(self, const uint8_t* topic, Py_ssize_t count, list found, dict shared) except -1
    cdef int changed(self) except -1
    cdef int filter_changed(self, bytes plain) except -1
    cdef bytes plain_filter(self, bytes pattern)
    cdef int add_to_share(self, Recipient session, bytes pattern, bytes plain, options) except -1
    cdef int leave_filter(self, Recipient session, bytes pattern) except -1
