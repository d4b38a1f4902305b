"""Who gets a message: subscription table, clients' own filters, and a cache of the answers.

    (source, topic) -> cache -> Route: sessions with granted QoS, and other targets (functions, sinks)
                    -> miss  -> resolve: rules of the source's tree, then each target's own filters

Any change of table, subscriptions or targets raises the generation, which empties the cache. The cache is
bounded in entries and bytes; past a bound the oldest positions are emptied.

The run: QoS 0 frames that follow each other in the read buffer and go the same way are delivered as one
piece, byte for byte as they came, when the way changes or the batch ends (`settle`).

Table mode (`open=False`): a message passes only by a rule (source, subject, target), and to a client only if
its own SUBSCRIBE matches too. Open mode: every client reaches every client; rules still reach functions and
sinks. Single-threaded; never blocks.
"""

import logging
from collections.abc import Callable, Sequence

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdlib cimport malloc
from libc.string cimport memcmp

cimport cython

from ggfast._ext.buffers cimport Message, message_drop
from ggfast._ext.recipient cimport LIVE
from ggfast._ext.routecache cimport Hop, hash_of
from ggfast._ext.topics cimport filter_fault, filter_matches, topic_fault

from ggfast.errors import LimitReached, Violation
from ggfast.limits import ROUTE_CACHE_BYTES_MAX, ROUTE_CACHE_ENTRIES_MAX

cdef enum:
    RUN_BYTES_MAX = 64 * 1024      # a longer run is cut, so that a slow target is noticed early
    SHARE_BYTES = 4 * 1024         # a run this long is written as it lies, uncopied
    ROUTE_COST = 160               # a Route object, its tuple and its slot
    HOP_COST = 24

CLOUD = "cloud"

cdef object logger = logging.getLogger("ggfast.router")


@cython.final
cdef class Target:
    """A function's ring or a sink."""

    def __cinit__(self, str name):
        self.name = name


@cython.final
cdef class Router(Outlet):
    """See the module. `retain(source, topic, payload, qos)` is called for messages with the retain flag."""

    def __cinit__(self, bint open, *, Py_ssize_t topic_bytes_max=65535, Py_ssize_t topic_slashes_max=-1,
                  Py_ssize_t cache_entries_max=ROUTE_CACHE_ENTRIES_MAX,
                  Py_ssize_t cache_bytes_max=ROUTE_CACHE_BYTES_MAX):
        self.open = open
        self.topic_bytes_max = topic_bytes_max
        self.topic_slashes_max = topic_slashes_max
        self.sources = {}
        self.targets = {}
        self.joined = {}
        self.tree = TopicTree()
        self.everyone = Source("")
        self.cache = RouteCache(cache_entries_max, cache_bytes_max)
        self.rung = []

    # --- the lane --------------------------------------------------------------------------------------

    cdef int publish_view(self, Recipient source, PublishView* view) except -1:
        cdef Route route = <Route> source.route
        if (route is None or route.generation != self.generation
                or PyBytes_GET_SIZE(route.topic) != view.topic_bytes
                or memcmp(PyBytes_AS_STRING(route.topic), view.topic, <size_t> view.topic_bytes) != 0):
            route = self.route_for(source, <Source> source.party, view.topic, view.topic_bytes)
        if view.qos or view.retain or route.others is not None:
            self.settle()
            self.deliver(route, source.source, view, None)
            return 0
        if route.hop_count == 0:
            self.unrouted += 1
            return 0
        if route is self.run_route and view.frame == self.run_end:
            self.run_end += view.frame_bytes
            self.run_count += 1
        else:
            self.settle()
            self.run_route = route
            self.run_start = view.frame
            self.run_end = view.frame + view.frame_bytes
            self.run_count = 1
        if self.run_end - self.run_start >= RUN_BYTES_MAX:
            self.settle()
        return 0

    cdef int settle(self) except -1:
        cdef Route route = self.run_route
        cdef Py_ssize_t count, i
        cdef Recipient session
        if route is None:
            return 0
        self.run_route = None
        count = self.run_end - self.run_start
        for i in range(route.hop_count):
            session = <Recipient> route.hops[i].session
            if session.congested and not session.frozen and session.state == LIVE:
                self.blocked_on = session
            session.append_frames(self.run_start, count, self.run_count, count >= SHARE_BYTES)
        self.spent += count * route.hop_count
        return 0

    cdef Route route_for(self, Recipient session, Source source, const uint8_t* topic, Py_ssize_t count):
        """The route of (source, topic), cached or resolved. Raises Violation for a topic out of bounds."""
        cdef uint64_t hash
        cdef void* found = NULL
        cdef Route route
        if source is None or (self.open and source.rules is None):
            source = self.everyone
        hash = hash_of(topic, count) ^ source.salt
        if self.cache.generation == self.generation:
            found = self.cache.find(source, topic, count, hash)
        else:
            self.cache.clear()
            self.cache.generation = self.generation
        if found != NULL:
            route = <Route> found
        else:
            route = self.resolve(source, topic, count)
            self.cache.put(hash, route)
        if session is not None:
            session.route = route
        return route

    cdef Route resolve(self, Source source, const uint8_t* topic, Py_ssize_t count):
        cdef dict found = {}
        cdef dict names = {}
        cdef Route route = Route.__new__(Route)
        cdef Target target
        cdef Py_ssize_t i
        cdef const char* fault
        if count > self.topic_bytes_max:
            raise Violation(f"a topic of {count} bytes, the limit is {self.topic_bytes_max}")
        fault = topic_fault(topic, count, self.topic_slashes_max)
        if fault != NULL:
            text = PyBytes_FromStringAndSize(<const char*> topic, min(count, <Py_ssize_t> 256))
            raise Violation(f"topic {text!r} is not valid: {fault.decode()} [MQTT-3.3.2-2, MQTT-4.7.3-1]")
        if self.open:
            self.tree.collect(topic, count, found)
        if source.rules is not None:
            source.rules.collect(topic, count, names)
        route.permitted = self.open or len(names) > 0
        for name in names:
            if name == CLOUD and source.name == CLOUD:
                continue                               # never back to its source (greengrass-core 5.2)
            target = <Target> self.targets.get(name)
            if target is not None:
                if route.others is None:
                    route.others = []
                route.others.append(target)
            if not self.open:
                for session in self.joined.get(name, ()):
                    qos = granted(<Recipient> session, topic, count)
                    if qos >= 0:
                        found[session] = qos
        route.source = source
        route.topic = PyBytes_FromStringAndSize(<const char*> topic, count)
        route.generation = self.generation
        route.sessions = tuple(found)
        route.hop_count = len(found)
        if found:
            route.hops = <Hop*> malloc(<size_t> route.hop_count * sizeof(Hop))
            if route.hops == NULL:
                raise MemoryError(f"no memory for a route to {route.hop_count} sessions")
            for i, (session, qos) in enumerate(found.items()):
                route.hops[i].session = <void*> session
                route.hops[i].qos = qos
        route.cost = ROUTE_COST + count + HOP_COST * (route.hop_count + len(names))
        return route

    cdef int deliver(self, Route route, str source, PublishView* view, bytes payload) except -1:
        """Give one message to every target of `route`; how many took it."""
        cdef Message* shared = NULL
        cdef Recipient session
        cdef Target target
        cdef Py_ssize_t i
        cdef int taken = 0
        if payload is None and (view.retain or route.others is not None):
            payload = PyBytes_FromStringAndSize(<const char*> view.payload, view.payload_bytes)
        if view.retain and self.retain is not None and route.permitted:
            self.retain("" if self.open else source, route.topic, payload, view.qos)
        if route.hop_count == 0 and route.others is None:
            self.unrouted += 1
            return 0
        try:
            for i in range(route.hop_count):
                session = <Recipient> route.hops[i].session
                if session.congested and not session.frozen and session.state == LIVE:
                    self.blocked_on = session
                taken += session.deliver(view.topic, view.topic_bytes, view.payload, view.payload_bytes,
                                         min(view.qos, route.hops[i].qos), False, &shared)
        finally:
            message_drop(shared)
        self.spent += (view.payload_bytes + view.topic_bytes) * route.hop_count
        if route.others is not None:
            for target in route.others:
                taken += self.hand_over(target, source, route.topic, payload, view.qos, view.retain)
        return taken

    cdef bint hand_over(self, Target target, str source, bytes topic, bytes payload, int qos,
                        bint retain) except -1:
        """Queue at a function or offer to a sink. A sink that raises is counted and logged once."""
        cdef bint was_empty, was_busy
        if target.ring is not None:
            was_empty = target.ring.count == 0
            if not target.ring.put(topic, payload, source):
                self.ring_full += 1
                return False
            if was_empty and not target.rung:
                target.rung = True
                self.rung.append(target)
            return True
        was_busy = self.busy
        self.busy = True
        try:
            if target.offer(source, topic, payload, qos, retain):
                return True
            self.sink_refused += 1
        except Exception as error:
            self.complain(target, error)
        finally:
            self.busy = was_busy
        return False

    cdef int end_batch(self) except -1:
        cdef Target target
        cdef list rung
        self.settle()
        Outlet.end_batch(self)
        if self.rung:
            rung = self.rung
            self.rung = []
            for target in rung:
                target.rung = False
                try:
                    target.notify()
                except Exception as error:
                    self.complain(target, error)
        return 0

    cdef int complain(self, Target target, error) except -1:
        """Count a failure of a target's own code; log the first."""
        self.sink_errors += 1
        if not target.complained:
            target.complained = True
            logger.error("target failed while it was given a message target=%s", target.name, exc_info=error)
        return 0

    # --- targets and rules -----------------------------------------------------------------------------

    cdef Source source_of(self, str name):
        """The record of a source that stays: it has rules or a session."""
        cdef Source source = <Source> self.sources.get(name)
        if source is None:
            source = self.sources[name] = Source(name)
        return source

    cdef int changed(self) except -1:
        """Something a route was made from is different now."""
        self.settle()
        self.generation += 1
        return 0

    def set_table(self, rules: Sequence[tuple[str, str, str]]) -> None:
        """Replace all rules (source, subject, target) at once.

        Raises ValueError, before anything changed, for a subject that is not a valid topic filter.
        """
        cdef TopicTree tree
        cdef Source source
        trees = {}
        for name, subject, target in rules:
            tree = <TopicTree> trees.get(name)
            if tree is None:
                tree = trees[name] = TopicTree(hash_takes_parent=False)
            tree.insert(subject.encode(), target)
        self.changed()
        for name, source in list(self.sources.items()):
            source.rules = <TopicTree> trees.pop(name, None)
            if source.rules is None and name not in self.joined:
                del self.sources[name]
        for name, tree in trees.items():
            self.source_of(name).rules = tree

    def allows(self, str source not None, bytes topic not None, str target not None) -> bool:
        """Whether a message of `source` on `topic` may reach `target`; always in the open mode."""
        cdef Source record = <Source> self.sources.get(source)
        if self.open:
            return True
        return record is not None and record.rules is not None and target in record.rules.match(topic)

    def add_function(self, str name not None, Ring ring not None, notify: Callable[[], None]) -> None:
        """A function's queue; `notify` follows at the end of a batch in which it stopped being empty."""
        cdef Target target = Target(name)
        target.ring = ring
        target.notify = notify
        self.targets[name] = target
        self.changed()

    def add_sink(self, str name not None, offer, room=None) -> None:
        """A target in Python: `offer(source, topic, payload, qos, retain)` says whether it took the message.

        `room(bytes)` says whether a message of that size would be taken, for `publish_all_or_error`.
        """
        cdef Target target = Target(name)
        target.offer = offer
        target.room = room
        self.targets[name] = target
        self.changed()

    def remove_target(self, str name not None) -> None:
        """Forget a function or sink; nothing happens if there is none."""
        if self.targets.pop(name, None) is not None:
            self.changed()

    # --- sessions --------------------------------------------------------------------------------------

    def join(self, Recipient session not None) -> None:
        """A session with its source name set becomes source and target."""
        session.party = self.source_of(session.source)
        self.joined.setdefault(session.source, []).append(session)
        self.changed()

    def leave(self, Recipient session not None) -> None:
        """The session is no source and no target any more; its subscriptions are gone."""
        cdef Source source
        present = <list> self.joined.get(session.source)
        if present is None or session not in present:
            return
        present.remove(session)
        if not present:
            del self.joined[session.source]
            source = <Source> self.sources.get(session.source)
            if source is not None and source.rules is None:
                del self.sources[session.source]
        if self.open:
            for pattern in session.subscriptions:
                self.tree.remove(pattern, session)
        session.subscriptions.clear()
        session.party = None
        session.route = None
        self.changed()

    def replace(self, Recipient old not None, Recipient new not None) -> None:
        """`new` joins with the subscriptions of `old`, which leaves: a persistent session has reconnected."""
        subscriptions = dict(old.subscriptions)
        self.leave(old)
        self.join(new)
        for pattern, qos in subscriptions.items():
            self.subscribe(new, pattern, qos)

    def subscribe(self, Recipient session not None, bytes pattern not None, int qos) -> bool:
        """Grant a filter, replacing its QoS; True if it is new. Raises Violation for a bad filter."""
        self.check_pattern(pattern)
        if self.open:
            try:
                self.tree.insert(pattern, session, qos)
            except ValueError as error:
                raise Violation(str(error)) from None
        new = pattern not in session.subscriptions
        session.subscriptions[pattern] = qos
        self.changed()
        return new

    def unsubscribe(self, Recipient session not None, bytes pattern not None) -> bool:
        """Take a filter away; False if it was not there. Raises Violation for a filter out of bounds."""
        self.check_pattern(pattern)
        if session.subscriptions.pop(pattern, None) is None:
            return False
        if self.open:
            self.tree.remove(pattern, session)
        self.changed()
        return True

    cdef int check_pattern(self, bytes pattern) except -1:
        cdef const char* fault = filter_fault(
            <const uint8_t*> PyBytes_AS_STRING(pattern), PyBytes_GET_SIZE(pattern), self.topic_slashes_max
        )
        if PyBytes_GET_SIZE(pattern) > self.topic_bytes_max:
            raise Violation(f"a topic filter of {len(pattern)} bytes, the limit is {self.topic_bytes_max}")
        if fault != NULL:
            raise Violation(f"topic filter {pattern[:256]!r} is not valid: {fault.decode()} [MQTT-4.7]")
        return 0

    # --- publishing from Python ------------------------------------------------------------------------

    def publish(self, str source not None, bytes topic not None, bytes payload not None, int qos=0,
                bint retain=False) -> int:
        """Route one message and flush; how many targets took it. Raises Violation for a bad topic."""
        cdef PublishView view
        cdef Route route
        cdef int taken
        self.settle()
        route = self.python_route(source, topic)
        view_of(&view, topic, payload, qos, retain)
        taken = self.deliver(route, source, &view, payload)
        if not self.busy:
            self.end_batch()
        return taken

    def publish_all_or_error(self, str source not None, bytes topic not None, bytes payload not None,
                             int qos=0, bint retain=False) -> int:
        """Like `publish`, but LimitReached, and nothing delivered, if any target would not take it now."""
        cdef Route route
        cdef Py_ssize_t i, size = PyBytes_GET_SIZE(topic) + PyBytes_GET_SIZE(payload)
        cdef Recipient session
        cdef Target target
        self.settle()
        route = self.python_route(source, topic)
        for i in range(route.hop_count):
            session = <Recipient> route.hops[i].session
            if session.is_full(min(qos, route.hops[i].qos), size):
                raise LimitReached(f"the queue of {session.source} in bytes",
                                   session.stored_bytes + session.out.used + size,
                                   session.limits.queue_bytes_max, hint="Nothing was delivered; try later.")
        for target in route.others or ():
            if target.ring is not None and not target.ring.has_room(size):
                full_of_entries = target.ring.count >= target.ring.max_entries
                raise LimitReached(
                    f"the queue of {target.name} in {'messages' if full_of_entries else 'bytes'}",
                    target.ring.count + 1 if full_of_entries else target.ring.bytes + size,
                    target.ring.max_entries if full_of_entries else target.ring.max_bytes,
                    hint="Nothing was delivered; try later.")
            if target.room is not None and not target.room(size):
                raise LimitReached(f"the message for {target.name} in bytes", size, 0,
                                   hint="Its queue is full; nothing was delivered.")
        return self.publish(source, topic, payload, qos, retain)

    cdef Route python_route(self, str source, bytes topic):
        """The route of a source that may be unknown: then no rule names it."""
        return self.route_for(None, <Source> self.sources.get(source, self.everyone),
                              <const uint8_t*> PyBytes_AS_STRING(topic), PyBytes_GET_SIZE(topic))

    def flush(self) -> None:
        """Write what sessions were given outside a batch."""
        if not self.busy:
            self.end_batch()

    def take_counts(self) -> dict:
        """What the lane counted since the last call, by counter name; zeros left out."""
        counts = {
            "broker.messages.received": self.tally.received,
            "broker.messages.sent": self.tally.sent,
            "broker.dropped.slow_reader": self.tally.slow_reader,
            "broker.dropped.queue_full": self.tally.queue_full,
            "broker.dropped.offline_qos0": self.tally.offline,
            "router.dropped.no_route": self.unrouted,
            "router.dropped.function_queue_full": self.ring_full,
            "router.dropped.sink_refused": self.sink_refused,
            "router.errors.target": self.sink_errors,
        }
        self.tally.received = self.tally.sent = self.tally.slow_reader = self.tally.queue_full = 0
        self.tally.offline = self.unrouted = self.ring_full = self.sink_refused = self.sink_errors = 0
        return {name: count for name, count in counts.items() if count}

    def cache_size(self) -> tuple:
        """(routes, bytes) in the cache now."""
        return self.cache.count, self.cache.bytes


cdef int view_of(PublishView* view, bytes topic, bytes payload, int qos, bint retain) except -1:
    """A message from Python in the form the lane routes; borrows from both."""
    if not 0 <= qos <= 2:
        raise ValueError(f"QoS is {qos}, expected 0 to 2")
    view.frame = NULL
    view.frame_bytes = 0
    view.topic = <const uint8_t*> PyBytes_AS_STRING(topic)
    view.topic_bytes = PyBytes_GET_SIZE(topic)
    view.payload = <const uint8_t*> PyBytes_AS_STRING(payload)
    view.payload_bytes = PyBytes_GET_SIZE(payload)
    view.qos = qos
    view.retain = retain
    return 0


cdef int granted(Recipient session, const uint8_t* topic, Py_ssize_t count) except -2:
    """The largest QoS among the session's filters that match, or -1."""
    cdef int best = -1
    cdef bytes pattern
    for pattern, qos in session.subscriptions.items():
        if qos > best and filter_matches(
            <const uint8_t*> PyBytes_AS_STRING(pattern), PyBytes_GET_SIZE(pattern), topic, count, True
        ):
            best = qos
    return best
