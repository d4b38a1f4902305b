"""Answers of the router by (source, topic): a bounded hash table of Routes.

Sets of a few slots, so that a look-up compares a bounded number of entries; past a bound in bytes the slots
are emptied one after the other. The router empties it as a whole when anything a route was made from changes.
"""

import secrets

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

cimport cython

from ggfast._ext.publication cimport identifier_property
from ggfast._ext.recipient cimport Recipient
from ggfast._ext.topics cimport filter_matches

cdef enum:
    WAYS = 8                       # slots of a set: what a look-up compares at most
    SETS_FIRST = 8
    IDS_COST = 64                  # the object around a hop's subscription identifiers
    NO_LOCAL = 4                   # bits of a subscription's options [MQTT5-3.8.3.1]
    AS_PUBLISHED = 8

cdef uint64_t hash_seed = int.from_bytes(secrets.token_bytes(8), "little") | 1


cdef uint64_t hash_of(const uint8_t* text, Py_ssize_t count) noexcept nogil:
    """Seeded so that nobody outside can choose colliding topics; collisions cost a cache miss, never more."""
    cdef uint64_t value = hash_seed ^ <uint64_t> count
    cdef uint64_t word
    while count >= 8:
        memcpy(&word, text, 8)
        value = (value ^ word) * <uint64_t> 0x9FB21C651E98DF25
        value ^= value >> 32
        text += 8
        count -= 8
    if count:
        word = 0
        memcpy(&word, text, <size_t> count)
        value = (value ^ word) * <uint64_t> 0x9FB21C651E98DF25
        value ^= value >> 29
    value *= <uint64_t> 0x9E3779B97F4A7C15
    return value ^ (value >> 32)


@cython.final
cdef class Source:
    """One party that speaks."""

    def __cinit__(self, str name):
        self.name = name
        self.salt = int.from_bytes(secrets.token_bytes(8), "little")


@cython.final
cdef class Route:
    """The answer for one (source, topic)."""

    def __dealloc__(self):
        free(self.hops)


@cython.final
cdef class Share:
    """One shared subscription and its members [MQTT5-4.8.2]."""

    def __cinit__(self, bytes pattern):
        self.pattern = pattern
        self.members = {}


@cython.final
cdef class ShareRoute:
    """A share within a route."""

    def __dealloc__(self):
        free(self.hops)


@cython.final
@cython.no_gc_clear
cdef class RouteCache:
    """Routes by hash, in sets of a few slots. `kept` owns the Route of each slot, where the garbage collector sees
    it: routes know sessions, which know the router. The slots must never outlive it: whoever owns us is cleared."""

    def __cinit__(self, Py_ssize_t entries_max, Py_ssize_t bytes_max):
        self.entries_max = entries_max
        self.bytes_max = bytes_max

    def __dealloc__(self):
        free(self.slots)

    cdef void* find(self, Source source, const uint8_t* topic, Py_ssize_t count, uint64_t hash) noexcept:
        """The cached Route, borrowed, or NULL."""
        cdef Slot* slot
        cdef int way
        cdef bytes known
        if self.set_count == 0:
            return NULL
        slot = &self.slots[(hash & <uint64_t> (self.set_count - 1)) * WAYS]
        for way in range(WAYS):
            if slot.hash == hash and slot.route != NULL:
                known = (<Route> slot.route).topic
                if ((<Route> slot.route).source is source and PyBytes_GET_SIZE(known) == count
                        and memcmp(PyBytes_AS_STRING(known), topic, <size_t> count) == 0):
                    return slot.route
            slot += 1
        return NULL

    cdef int put(self, uint64_t hash, Route route) except -1:
        """Keep a route; 0 for one that is too large to be kept."""
        cdef Slot* slot
        cdef int way
        if route.cost > self.bytes_max // 4:
            return 0                                   # one route may not own the cache
        if self.count * 2 >= self.set_count * WAYS and self.set_count * WAYS < self.entries_max:
            self.resize(self.set_count * 2 if self.set_count else SETS_FIRST)
        while self.bytes + route.cost > self.bytes_max:
            self.drop(&self.slots[self.hand])
            self.hand = (self.hand + 1) % (self.set_count * WAYS)
        slot = &self.slots[(hash & <uint64_t> (self.set_count - 1)) * WAYS]
        for way in range(WAYS):
            if slot[way].route == NULL:
                break
        else:
            way = <int> ((hash >> 60) & (WAYS - 1))
        slot += way
        self.drop(slot)
        self.kept[slot - self.slots] = route
        slot.hash = hash
        slot.route = <void*> route
        self.count += 1
        self.bytes += route.cost
        return 1

    cdef int drop_matching(self, const uint8_t* pattern, Py_ssize_t count) except -1:
        """Forget the routes of all topics that a valid filter matches."""
        cdef Py_ssize_t i
        cdef bytes topic
        for i in range(self.set_count * WAYS):
            if self.slots[i].route != NULL:
                topic = (<Route> self.slots[i].route).topic
                if filter_matches(pattern, count, <const uint8_t*> PyBytes_AS_STRING(topic), PyBytes_GET_SIZE(topic),
                                  True):
                    self.drop(&self.slots[i])
        return 0

    cdef int drop(self, Slot* slot) except -1:
        cdef Route route
        if slot.route == NULL:
            return 0
        route = <Route> slot.route
        route.generation = 0                           # a session may still hold it as its last one
        slot.route = NULL
        self.count -= 1
        self.bytes -= route.cost
        self.kept[slot - self.slots] = None
        return 0

    cdef int clear(self) except -1:
        cdef Py_ssize_t i
        for i in range(self.set_count * WAYS):
            self.drop(&self.slots[i])
        free(self.slots)
        self.slots = NULL
        self.kept = None
        self.set_count = self.hand = 0
        return 0

    cdef int resize(self, Py_ssize_t set_count) except -1:
        cdef Slot* old = self.slots
        cdef list old_kept = self.kept       # the old slots' routes stay alive to the end of the move
        cdef Py_ssize_t old_count = self.set_count * WAYS
        cdef Py_ssize_t i
        cdef Slot* slots = <Slot*> calloc(<size_t> (set_count * WAYS), sizeof(Slot))
        if slots == NULL:
            raise MemoryError(f"no memory for a route cache of {set_count * WAYS} entries")
        self.slots = slots
        self.kept = [None] * (set_count * WAYS)
        self.set_count = set_count
        self.hand = 0
        self.count = self.bytes = 0
        for i in range(old_count):
            if old[i].route != NULL:
                self.put(old[i].hash, <Route> old[i].route)
        free(old)
        return 0


# --- what a route is made of -------------------------------------------------------------------------------

cdef list merged(list found):
    """[session, encoded identifiers, QoS, for whose messages, retain as published], at most one copy for a client.

    Whatever number of its filters match, it goes with the highest QoS and all their identifiers [MQTT5-3.3.4-2, -4].
    Filters with no-local add nothing to the client's own messages: with other filters beside them these are an
    entry apart.
    """
    cdef dict all_of = {}
    cdef list entries = []
    for session, options in found:
        all_of.setdefault(session, []).append(options)
    for session, options in all_of.items():
        own = [value for value in options if not value & NO_LOCAL]
        if len(own) == len(options):
            entries.append(entry_of(session, options, FOR_ALL))
            continue
        entries.append(entry_of(session, options, FOR_OTHERS))
        if own:
            entries.append(entry_of(session, own, FOR_OWN))
    return entries


cdef list entry_of(session, list options, int side):
    ids = b"".join([identifier_property(value >> 8) for value in sorted(options, key=identifier_of)])
    return [session, ids, max([value & 3 for value in options]), side,
            any([value & AS_PUBLISHED for value in options])]


def identifier_of(value):
    """The subscription identifier in the lane's form of options."""
    return value >> 8


cdef Py_ssize_t hops_cost(const Hop* hops, Py_ssize_t count) noexcept:
    """What hops keep in memory, subscription identifiers included; the sessions are not theirs."""
    cdef Py_ssize_t i, cost = HOP_COST * count
    for i in range(count):
        if hops[i].ids_bytes:
            cost += IDS_COST + hops[i].ids_bytes
    return cost


cdef Hop* hops_of(list found, list keep, Py_ssize_t* count) except? NULL:
    """The hops for (session, options) pairs, NULL for none. They borrow from what is put into `keep`."""
    cdef list entries = merged(found)
    cdef Py_ssize_t i
    cdef Hop* hops
    cdef Recipient session
    cdef bytes ids
    count[0] = len(entries)
    if not entries:
        return NULL
    hops = <Hop*> malloc(<size_t> count[0] * sizeof(Hop))
    if hops == NULL:
        count[0] = 0
        raise MemoryError(f"no memory for a route to {len(entries)} sessions")
    for i, (session, ids, qos, side, as_published) in enumerate(entries):
        keep.append(session)
        if ids:
            keep.append(ids)
        hops[i].session = <void*> session
        hops[i].ids = <const uint8_t*> PyBytes_AS_STRING(ids)
        hops[i].ids_bytes = PyBytes_GET_SIZE(ids)
        hops[i].qos = qos
        hops[i].side = side
        hops[i].as_published = as_published
        hops[i].form = 4 if session.level < 5 else 0 if ids or session.alias_max or session.packet_bytes_max else 5
    return hops
