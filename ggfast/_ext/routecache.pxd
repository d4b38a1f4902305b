"""Routes and their cache. A Route keeps its sessions alive through `sessions`; `hops` only borrows them."""

from libc.stdint cimport int8_t, uint8_t, uint64_t

from ggfast._ext.topics cimport TopicTree


cdef enum Side:              # no-local sets a client's own messages apart [MQTT5-3.8.3-3]
    FOR_ALL = 0
    FOR_OTHERS = 1           # not for messages that the session itself sent
    FOR_OWN = 2              # for those alone


cdef enum:
    HOP_COST = 56            # bytes of a hop with what it stands in


cdef struct Hop:
    void* session            # Recipient, borrowed from Route.sessions
    const uint8_t* ids       # subscription identifiers as properties, borrowed from Route.sessions
    Py_ssize_t ids_bytes     # 0: none
    uint8_t qos              # granted, the highest of all filters that match
    uint8_t form             # the level whose frames may be passed on as they lie; 0: never
    uint8_t side             # Side: whose messages it is for
    uint8_t as_published     # the retain flag stays


cdef struct Slot:
    uint64_t hash
    void* route              # Route, borrowed from RouteCache.kept, or NULL


cdef class Source:
    cdef str name
    cdef TopicTree rules     # subject -> target names, or None: no rule names this source
    cdef uint64_t salt       # keeps equal topics of different sources apart in the cache
    cdef bint complained     # that it published what it may not has been logged


cdef class Route:
    cdef Source source
    cdef bytes topic
    cdef uint64_t generation
    cdef bint permitted      # some rule (or the open mode and its authoriser) lets this source speak on this topic
    cdef int8_t retainable   # whether it may leave a message there: -1 not asked yet
    cdef list sessions       # what the hops borrow from
    cdef Hop* hops           # owned
    cdef Py_ssize_t hop_count
    cdef list others         # Targets, or None
    cdef list shares         # ShareRoutes, or None
    cdef Py_ssize_t cost     # bytes


cdef class Share:            # one shared subscription: $share/<name>/<filter>
    cdef bytes pattern       # all of that
    cdef dict members        # Recipient -> options | identifier << 8
    cdef Py_ssize_t turn     # whose it is: counts up


cdef class ShareRoute:       # the members of a share that one route may choose from
    cdef Share share
    cdef list sessions       # what the hops borrow from
    cdef Hop* hops           # owned
    cdef Py_ssize_t hop_count


cdef class RouteCache:
    cdef Slot* slots         # owned; sets of WAYS slots
    cdef list kept           # the routes of the slots, at the same positions
    cdef Py_ssize_t set_count
    cdef Py_ssize_t count, bytes
    cdef Py_ssize_t entries_max, bytes_max
    cdef Py_ssize_t hand     # next slot to empty when a bound is met
    cdef uint64_t generation
    cdef void* find(self, Source source, const uint8_t* topic, Py_ssize_t count, uint64_t hash) noexcept
    cdef int put(self, uint64_t hash, Route route) except -1
    cdef int drop_matching(self, const uint8_t* pattern, Py_ssize_t count) except -1
    cdef int drop(self, Slot* slot) except -1
    cdef int clear(self) except -1
    cdef int resize(self, Py_ssize_t set_count) except -1


cdef uint64_t hash_of(const uint8_t* text, Py_ssize_t count) noexcept nogil
cdef Py_ssize_t hops_cost(const Hop* hops, Py_ssize_t count) noexcept
cdef Hop* hops_of(list found, list keep, Py_ssize_t* count) except? NULL


cdef inline bint is_for(Hop* hop, void* sender) noexcept nogil:
    """Whether a message of the session `sender` (NULL: of none) goes this way."""
    return hop.side == FOR_ALL or (hop.side == FOR_OWN) == (hop.session == sender)
