"""Subscription table, functions, sinks and the clients' own filters: what the answer to "who gets this" is made of.

    (source, topic) -> cache -> Route: sessions, shared subscriptions, functions and sinks
                    -> miss  -> resolve: rules of the source's tree, then each target's own filters

A change of table or targets raises the generation, which empties the cache; a filter that comes or goes takes
away the routes it matches, or empties the cache too where there are too many such changes. The cache is
bounded in entries and bytes; past a bound the oldest positions are emptied.

Table mode (`open=False`): a message passes only by a rule (source, subject, target), and to a client only if
its own SUBSCRIBE matches too. Open mode: every client reaches every client; rules still reach functions and
sinks, those of the source "" for everybody; topics below `$SYS/` are the broker's own.

An authoriser restricts the open mode: who may publish, receive, retain, by (client's source, topic). It is asked
when a route is worked out, never for a message; `permissions_changed` says that its answers are different now.
"""

from collections.abc import Callable, Sequence

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t

cimport cython

from ggfast._ext.permissions cimport granted, keep_permitted
from ggfast._ext.recipient cimport LOOK_COST, MATCH_COST, MISS_COST
from ggfast._ext.routecache cimport HOP_COST, Share, hash_of, hops_cost, hops_of
from ggfast._ext.topics cimport filter_fault, filter_matches, topic_fault, utf8_ok

from ggfast.errors import Malformed, Violation
from ggfast.limits import ROUTE_CACHE_BYTES_MAX, ROUTE_CACHE_ENTRIES_MAX

cdef enum:
    ROUTE_COST = 256               # a Route object, its topic's, its list and its slots
    SHARE_COST = 160               # a ShareRoute and its list
    SCANS_MAX = 64                 # filters that come or go between two ticks; past it the cache is emptied instead
    NO_LOCAL = 4                   # bit of a subscription's options [MQTT5-3.8.3.1]

CLOUD = "cloud"
OWN = "$SYS"
SHARED = b"$share/"


@cython.final
cdef class Target:
    """A function's ring or a sink."""

    def __cinit__(self, str name):
        self.name = name


cdef class RouteTable(Outlet):
    """See the module."""

    def __cinit__(self, bint open, *, Py_ssize_t topic_bytes_max=65535, Py_ssize_t topic_slashes_max=-1,
                  Py_ssize_t cache_entries_max=ROUTE_CACHE_ENTRIES_MAX,
                  Py_ssize_t cache_bytes_max=ROUTE_CACHE_BYTES_MAX, authoriser=None):
        if authoriser is not None and not open:
            raise ValueError("an authoriser is for the open mode; in table mode the table is the only authority")
        self.open = open
        self.authoriser = authoriser
        self.topic_bytes_max = topic_bytes_max
        self.topic_slashes_max = topic_slashes_max
        self.sources = {}
        self.targets = {}
        self.joined = {}
        self.shares = {}
        self.tree = TopicTree()
        self.everyone = Source("")
        self.own = Source(OWN)
        self.generation = 1
        self.cache = RouteCache(cache_entries_max, cache_bytes_max)

    # --- looking up ------------------------------------------------------------------------------------

    cdef Route route_for(self, Recipient session, Source source, const uint8_t* topic, Py_ssize_t count):
        """The route of (source, topic), cached or resolved. Raises Violation for a topic out of bounds."""
        cdef uint64_t hash
        cdef void* found = NULL
        cdef Route route
        if source is None or (self.open and self.authoriser is None and source.rules is None
                              and source is not self.own):
            source = self.everyone
        hash = hash_of(topic, count) ^ source.salt
        if self.cache.generation == self.generation:
            found = self.cache.find(source, topic, count, hash)
        else:
            self.forget_stale()
        if found != NULL:
            route = <Route> found
        else:
            route = self.resolve(source, topic, count)
            if not self.cache.put(hash, route):
                self.uncached = True
        if session is not None:
            session.route = route
        return route

    cdef Route python_route(self, str source, bytes topic):
        """The route of a publisher in Python. One that is unknown is named by no rule."""
        cdef Source record = self.own if source == OWN else <Source> self.sources.get(source, self.everyone)
        if record is self.everyone and self.authoriser is not None:    # nobody's route to keep
            return self.resolve(Source(source), <const uint8_t*> PyBytes_AS_STRING(topic), PyBytes_GET_SIZE(topic))
        return self.route_for(None, record, <const uint8_t*> PyBytes_AS_STRING(topic), PyBytes_GET_SIZE(topic))

    cdef Route resolve(self, Source source, const uint8_t* topic, Py_ssize_t count):
        cdef list found = []               # (session, options) of every filter that matches
        cdef dict shared = {}              # Share -> the same
        cdef Route route = Route.__new__(Route)
        cdef ShareRoute choice
        cdef Py_ssize_t matches
        self.check_topic(topic, count)
        route.source = source
        route.topic = PyBytes_FromStringAndSize(<const char*> topic, count)
        route.generation = self.generation
        route.retainable = 1 if self.authoriser is None else -1
        route.permitted = not self.open or self.may_publish(source, route.topic)
        if route.permitted:
            self.collect_by_rules(source, topic, count, route, found, shared)
            if self.open:
                self.collect_open(topic, count, found, shared)
                if self.authoriser is not None:
                    self.spent += keep_permitted(self.authoriser, source.name, route.topic.decode(), found, shared)
        route.sessions = []
        route.hops = hops_of(found, route.sessions, &route.hop_count)
        route.cost = ROUTE_COST + count + hops_cost(route.hops, route.hop_count)
        matches = len(found)
        for share, members in shared.items():
            choice = ShareRoute.__new__(ShareRoute)
            choice.share = <Share> share
            choice.sessions = []
            choice.hops = hops_of(members, choice.sessions, &choice.hop_count)
            route.cost += SHARE_COST + hops_cost(choice.hops, choice.hop_count)
            matches += len(members)
            if route.shares is None:
                route.shares = []
            route.shares.append(choice)
        route.cost += HOP_COST * (len(route.others) if route.others else 0)
        self.spent += MISS_COST + MATCH_COST * matches
        return route

    cdef int check_topic(self, const uint8_t* topic, Py_ssize_t count) except -1:
        cdef const char* fault
        if count > self.topic_bytes_max:
            raise Violation(f"a topic of {count} bytes, the limit is {self.topic_bytes_max}", reason_code=0x90)
        fault = topic_fault(topic, count, self.topic_slashes_max)
        if fault != NULL:
            text = PyBytes_FromStringAndSize(<const char*> topic, min(count, <Py_ssize_t> 256))
            if not utf8_ok(topic, count):
                raise Malformed(f"topic {text!r} is not UTF-8 text without U+0000 [MQTT-1.5.3-1, MQTT5-1.5.4-1]")
            raise Violation(f"topic {text!r} is not valid: {fault.decode()} [MQTT-3.3.2-2, MQTT-4.7.3-1]",
                            reason_code=0x90)
        return 0

    cdef int collect_by_rules(self, Source source, const uint8_t* topic, Py_ssize_t count, Route route,
                              list found, dict shared) except -1:
        """The targets of the source's rules; in table mode devices too, if they subscribed."""
        cdef list pairs = []
        cdef Target target
        if source.rules is not None:
            source.rules.collect(topic, count, pairs)
        if self.open and self.everyone.rules is not None and source is not self.own:
            self.everyone.rules.collect(topic, count, pairs)
        if not self.open:
            route.permitted = len(pairs) > 0
        for name in dict(pairs):
            if name == CLOUD and source.name == CLOUD:
                continue                               # never back to its source (greengrass-core 5.2)
            target = <Target> self.targets.get(name)
            if target is not None:
                if route.others is None:
                    route.others = []
                route.others.append(target)
            if not self.open:
                for session in self.joined.get(name, ()):
                    self.spent += LOOK_COST * len((<Recipient> session).subscriptions)
                    collect_filters(self.shares, <Recipient> session, topic, count, found, shared)
        return 0

    cdef bint may_publish(self, Source source, bytes topic) except -1:
        """Open mode: whether the source may speak on the topic."""
        if source is self.own:
            return True
        if topic.startswith(b"$SYS/"):
            return False
        return self.authoriser is None or granted(self.authoriser.may_publish, (source.name, topic.decode()))

    cdef bint may_retain(self, Route route) except -1:
        """Whether the route's source may leave a message on its topic."""
        if route.retainable < 0:
            route.retainable = route.source is self.own or granted(
                self.authoriser.may_retain, (route.source.name, route.topic.decode()))
        return route.retainable

    cdef int collect_open(self, const uint8_t* topic, Py_ssize_t count, list found, dict shared) except -1:
        """Every client whose filters match."""
        cdef list pairs = []
        self.tree.collect(topic, count, pairs)
        for key, options in pairs:
            if isinstance(key, Share):
                shared[key] = list((<Share> key).members.items())
            else:
                found.append((key, options))
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
        self.uncached = False
        return 0

    cdef int filter_changed(self, bytes plain) except -1:
        """A client's filter came or went: the routes of the topics it matches are different now, no others."""
        if self.uncached or self.scans >= SCANS_MAX:
            return self.changed()
        self.settle()
        if self.cache.count:
            self.scans += 1
            self.cache.drop_matching(<const uint8_t*> PyBytes_AS_STRING(plain), PyBytes_GET_SIZE(plain))
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
        self.everyone.rules = <TopicTree> trees.pop("", None) if self.open else None
        for name, source in list(self.sources.items()):
            source.rules = <TopicTree> trees.pop(name, None)
            if source.rules is None and name not in self.joined:
                del self.sources[name]
        for name, tree in trees.items():
            self.source_of(name).rules = tree

    def allows(self, str source not None, bytes topic not None, str target not None) -> bool:
        """Whether a message of `source` on `topic` may reach `target`; in the open mode the authoriser says it."""
        cdef Source record = <Source> self.sources.get(source)
        if self.open:
            return self.authoriser is None or granted(self.authoriser.may_receive, (target, topic.decode(), source))
        return record is not None and record.rules is not None and target in record.rules.match(topic)

    def may_subscribe(self, str source not None, bytes pattern not None) -> bool:
        """Whether the authoriser lets a client have a filter, always without one. Raises as `plain_filter`."""
        if self.authoriser is None:
            return True
        return granted(self.authoriser.may_subscribe, (source, self.plain_filter(pattern).decode()))

    def permissions_changed(self) -> None:
        """The authoriser's answers are different from now on: what was remembered of them is forgotten."""
        self.changed()

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
        for pattern in session.subscriptions:
            self.leave_filter(session, pattern)
            self.filter_changed(share_filter(pattern) if pattern.startswith(SHARED) else pattern)
        session.subscriptions.clear()
        session.party = None
        session.route = None

    def replace(self, Recipient old not None, Recipient new not None) -> None:
        """`new` joins with the subscriptions of `old`, which leaves: a persistent session has reconnected."""
        subscriptions = dict(old.subscriptions)
        self.leave(old)
        self.join(new)
        for pattern, options in subscriptions.items():
            self.subscribe(new, pattern, options)

    def subscribe(self, Recipient session not None, bytes pattern not None, int64_t options) -> bool:
        """Grant a filter, replacing its options; True if it is new. Raises as `plain_filter`.

        `options` is the options byte of SUBSCRIBE (the QoS alone in MQTT 3.1.1) | subscription identifier << 8.
        """
        cdef bytes plain = self.plain_filter(pattern)
        known = session.subscriptions.get(pattern)
        if known is not None and known == options:
            return False                 # said again, as clients do after each connect: the cached routes stay right
        if plain is not pattern:
            self.add_to_share(session, pattern, plain, options)
        elif self.open:
            try:
                self.tree.insert(pattern, session, options)
            except ValueError as error:
                raise Violation(str(error), reason_code=0x8F) from None
        new = known is None
        session.subscriptions[pattern] = options
        self.filter_changed(plain)
        return new

    def unsubscribe(self, Recipient session not None, bytes pattern not None) -> bool:
        """Take a filter away; False if it was not there. Raises as `plain_filter`."""
        cdef bytes plain = self.plain_filter(pattern)
        if session.subscriptions.pop(pattern, None) is None:
            return False
        self.leave_filter(session, pattern)
        self.filter_changed(plain)
        return True

    cdef int leave_filter(self, Recipient session, bytes pattern) except -1:
        cdef Share share = <Share> self.shares.get(pattern)
        if share is None:
            if self.open:
                self.tree.remove(pattern, session)
            return 0
        share.members.pop(session, None)
        if not share.members:
            del self.shares[pattern]
            if self.open:
                self.tree.remove(share_filter(pattern), share)
        return 0

    cdef int add_to_share(self, Recipient session, bytes pattern, bytes plain, options) except -1:
        cdef Share share = <Share> self.shares.get(pattern)
        if options & NO_LOCAL:
            raise Violation("a shared subscription with no-local [MQTT5-3.8.3-4]", reason_code=0x82)
        if share is None:
            share = Share(pattern)
            if self.open:
                try:
                    self.tree.insert(plain, share)
                except ValueError as error:
                    raise Violation(str(error), reason_code=0x8F) from None
            self.shares[pattern] = share
        share.members[session] = options
        return 0

    cdef bytes plain_filter(self, bytes pattern):
        """The topic filter proper of a pattern: the pattern itself unless it is a shared subscription.

        Raises Malformed for what is no filter, Violation for one out of bounds, both with code 0x8F.
        """
        cdef bytes plain = pattern
        cdef const char* fault
        if pattern.startswith(SHARED):
            plain = share_filter(pattern)
            if plain is None:
                raise Malformed(f"{pattern[:256]!r} is not $share/<name>/<filter> [MQTT5-4.8.2-1, -2]",
                                reason_code=0x8F)
        fault = filter_fault(<const uint8_t*> PyBytes_AS_STRING(plain), PyBytes_GET_SIZE(plain), -1)
        if fault != NULL:
            raise Malformed(f"topic filter {pattern[:256]!r} is not valid: {fault.decode()} [MQTT-4.7]",
                            reason_code=0x8F)
        if PyBytes_GET_SIZE(plain) > self.topic_bytes_max:
            raise Violation(f"a topic filter of {len(plain)} bytes, the limit is {self.topic_bytes_max}",
                            reason_code=0x8F)
        if self.topic_slashes_max >= 0 and plain.count(b"/") > self.topic_slashes_max:
            raise Violation(f"topic filter {pattern[:256]!r} is not valid: it has too many levels",
                            reason_code=0x8F)
        return plain

    def forget_stale(self) -> None:
        """Empty the cache if nothing in it is valid any more: its routes keep sessions that have ended."""
        if self.cache.generation != self.generation:
            self.cache.clear()
            self.cache.generation = self.generation

    def cache_size(self) -> tuple:
        """(routes, bytes) in the cache now."""
        return self.cache.count, self.cache.bytes


cdef bytes share_filter(bytes pattern):
    """The filter of `$share/<name>/<filter>`, or None if it does not have that form."""
    name, slash, plain = pattern[len(SHARED):].partition(b"/")
    if not name or not slash or not plain or b"+" in name or b"#" in name:
        return None
    return plain


cdef int collect_filters(dict shares, Recipient session, const uint8_t* topic, Py_ssize_t count, list found,
                         dict shared) except -1:
    """The session's own filters that match, shared ones apart."""
    cdef bytes pattern, plain
    for pattern, options in session.subscriptions.items():
        plain = share_filter(pattern) if pattern.startswith(SHARED) else pattern
        if filter_matches(<const uint8_t*> PyBytes_AS_STRING(plain), PyBytes_GET_SIZE(plain), topic, count, True):
            if plain is pattern:
                found.append((session, options))
            else:
                shared.setdefault(shares[pattern], []).append((session, options))
    return 0
