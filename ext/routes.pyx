"""The way of a message from its source to all targets: delivery, the run, and publishing from Python.

    PUBLISH -> publish_view -> the run (QoS 0 frames, byte for byte) -> settle -> append_frames
                            -> deliver (everything else)             -> Recipient.deliver, rings, sinks

The run: QoS 0 frames that follow each other in the read buffer and go the same way are delivered as one
piece, as they came, when the way changes or the batch ends (`settle`). For clients of the other protocol
version the run is rewritten once, for clients with subscription identifiers or aliases one by one.

Who the targets are: routetable.pyx. Single-threaded; never blocks.
"""

import logging

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcmp

cimport cython

from ggfast._ext.buffers cimport OutBuffer
from ggfast._ext.framing cimport put_publish, put_publish5, read_length
from ggfast._ext.publication cimport (
    Message,
    expires_at,
    make_forwarded,
    message_drop,
    read_publish,
    view_values,
)
from ggfast._ext.recipient cimport CALL_COST, LIVE, OFFLINE
from ggfast._ext.routecache cimport Hop, ShareRoute, is_for

from ggfast.errors import LimitReached, NotAuthorized

cdef enum:
    RUN_BYTES_MAX = 64 * 1024      # a longer run is cut, so that a slow target is noticed early
    SHARE_BYTES = 4 * 1024         # a run this long is written as it lies, uncopied
    NOBODY = 0x10                  # reason codes of an acknowledgement [MQTT5-3.4.2.1]
    NOT_AUTHORIZED = 0x87

cdef object logger = logging.getLogger("ggfast.router")


@cython.final
cdef class Router(RouteTable):
    """See the module.

    `retain(source, topic, payload, qos, properties, expires)` is called for messages with the retain flag:
    properties in forwarded form, `expires` the lane second at which it is gone, 0: never.
    """

    def __cinit__(self, *args, **kwargs):
        self.rung = []
        self.scratch = OutBuffer()
        self.converted = OutBuffer()

    # --- the lane --------------------------------------------------------------------------------------

    cdef int publish_view(self, Recipient source, PublishView* view) except -1:
        cdef Route route = <Route> source.route
        if (route is None or route.generation != self.generation
                or PyBytes_GET_SIZE(route.topic) != view.topic_bytes
                or memcmp(PyBytes_AS_STRING(route.topic), view.topic, <size_t> view.topic_bytes) != 0):
            route = self.route_for(source, <Source> source.party, view.topic, view.topic_bytes)
        if view.qos or view.retain or route.others is not None or route.shares is not None or not view.verbatim:
            self.settle()
            if self.authoriser is not None and not (route.permitted and (not view.retain or self.may_retain(route))):
                return self.deny(source, route, view.qos)
            make_forwarded(view, self.scratch)
            self.deliver(route, source, source.source, view, None)
            if route.hop_count or route.others is not None or route.shares is not None:
                return 0
            return NOBODY if route.permitted else NOT_AUTHORIZED
        if route.hop_count == 0:
            if route.permitted:
                self.unrouted += 1
            elif self.authoriser is not None:
                return self.deny(source, route, 0)
            else:
                self.unpermitted += 1
            return 0
        if route is self.run_route and view.frame == self.run_end:
            self.run_end += view.frame_bytes
            self.run_count += 1
        else:
            self.settle()
            self.run_route = route
            self.run_source = source
            self.run_level = 5 if view.level == 5 else 4
            self.run_start = view.frame
            self.run_end = view.frame + view.frame_bytes
            self.run_count = 1
        if self.run_end - self.run_start >= RUN_BYTES_MAX:
            self.settle()
        return 0

    cdef int deny(self, Recipient source, Route route, uint8_t qos) except -1:
        """Refuse what the authoriser does not permit: by a code in MQTT 5.0's acknowledgements, by the end of the
        connection before that, which has no other way to say it [MQTT-3.3.5-2]. Each time, from the cache too."""
        self.settle()
        self.unpermitted += 1
        if not route.source.complained:
            route.source.complained = True
            logger.warning("client published what it may not client=%s topic=%r", source.client_id, route.topic[:256])
        if source.level < 5:
            raise NotAuthorized(f"the client may not publish on {route.topic[:256]!r}", reason_code=NOT_AUTHORIZED)
        return NOT_AUTHORIZED if qos else 0

    cdef int settle(self, bint last=False) except -1:
        cdef Route route = self.run_route
        cdef Recipient source = self.run_source
        cdef Py_ssize_t count, i
        cdef Recipient session
        cdef Hop* hop
        if route is None:
            return 0
        self.run_route = None
        self.run_source = None
        self.converted.used = 0
        count = self.run_end - self.run_start
        for i in range(route.hop_count):
            hop = &route.hops[i]
            session = <Recipient> hop.session
            if not is_for(hop, <void*> source):
                continue
            if session.congested and not session.frozen and session.state == LIVE:
                self.blocked_on = session
            if hop.form == self.run_level:
                session.append_frames(self.run_start, count, self.run_count, count >= SHARE_BYTES, last)
            elif hop.form:
                if self.converted.used == 0:
                    self.convert_run()
                session.append_frames(self.converted.data, self.converted.used, self.run_count,
                                      count >= SHARE_BYTES, last)
            else:
                self.send_run(session, hop)
        self.spent += count * route.hop_count
        return 0

    cdef int convert_run(self) except -1:
        """The run in the other protocol version's form, into `converted`."""
        cdef PublishView view
        cdef const uint8_t* at = self.run_start
        while at < self.run_end:
            at = self.next_of_run(at, &view)
            if self.run_level == 5:
                put_publish(self.converted, view.topic, view.topic_bytes, view.payload, view.payload_bytes, 0, False,
                            False, 0)
            else:
                put_publish5(self.converted, view.topic, view.topic_bytes, view.payload, view.payload_bytes, 0, False,
                             False, 0, 0, -1, NULL, 0, NULL, 0)
        return 0

    cdef int send_run(self, Recipient session, Hop* hop) except -1:
        """The run message by message, for a client that gets each in a form of its own."""
        cdef PublishView view
        cdef Message* unused = NULL
        cdef const uint8_t* at = self.run_start
        while at < self.run_end:
            at = self.next_of_run(at, &view)
            make_forwarded(&view, self.scratch)
            session.deliver(&view, 0, False, hop.ids, hop.ids_bytes, &unused)
        return 0

    cdef const uint8_t* next_of_run(self, const uint8_t* at, PublishView* view) except NULL:
        """Read the frame at `at`, which has been read before; where the next one begins."""
        cdef Py_ssize_t remaining = 0
        cdef int header = 1 + read_length(at + 1, self.run_end - at - 1, &remaining)
        read_publish(at, header, header + remaining, self.run_level, view)
        return at + header + remaining

    cdef int deliver(self, Route route, Recipient sender, str source, PublishView* view, bytes payload) except -1:
        """Give one message in forwarded form to every target of `route`; how many took it."""
        cdef Message* shared = NULL
        cdef ShareRoute share
        cdef Hop* hop
        cdef Target target
        cdef Py_ssize_t i
        cdef int taken = 0
        if payload is None and (view.retain or route.others is not None):
            payload = PyBytes_FromStringAndSize(<const char*> view.payload, view.payload_bytes)
        if view.retain and self.authoriser is not None and route.permitted and not self.may_retain(route):
            self.unpermitted += 1
            return 0
        if view.retain and self.retain is not None and route.permitted:
            self.retain(self.realm_of(source), route.topic, payload, view.qos,
                        PyBytes_FromStringAndSize(<const char*> view.properties, view.properties_bytes),
                        expires_at(self.now, view.expiry_s))
            self.spent += CALL_COST
        if route.hop_count == 0 and route.others is None and route.shares is None:
            if route.permitted:
                self.unrouted += 1
            else:
                self.unpermitted += 1
            return 0
        try:
            for i in range(route.hop_count):
                hop = &route.hops[i]
                if is_for(hop, <void*> sender):
                    taken += self.deliver_hop(hop, view, &shared)
            if route.shares is not None:
                for share in route.shares:
                    taken += self.deliver_hop(choose(share), view, &shared)
        finally:
            message_drop(shared)
        if route.others is not None:
            for target in route.others:
                taken += self.hand_over(target, source, route.topic, payload, view.qos, view.retain)
        return taken

    cdef str realm_of(self, str source):
        """Under whose name a retained message of the source is kept."""
        if not self.open:
            return source
        return "" if self.authoriser is None else self.authoriser.realm(source)

    cdef int deliver_hop(self, Hop* hop, PublishView* view, Message** shared) except -1:
        cdef Recipient session = <Recipient> hop.session
        if session.congested and not session.frozen and session.state == LIVE:
            self.blocked_on = session
        self.spent += view.payload_bytes + view.topic_bytes
        return session.deliver(view, view.qos if view.qos < hop.qos else hop.qos, view.retain and hop.as_published,
                               hop.ids, hop.ids_bytes, shared)

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
        self.spent += CALL_COST
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
        self.settle(True)
        RouteTable.end_batch(self)
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

    # --- publishing from Python ------------------------------------------------------------------------

    def publish(self, str source not None, bytes topic not None, bytes payload not None, int qos=0,
                bint retain=False, bytes properties not None=b"", int64_t expiry_s=-1) -> int:
        """Route one message and flush; how many targets took it. Raises Violation for a bad topic.

        `properties` in forwarded form; `expiry_s` in seconds, -1: none.
        """
        cdef PublishView view
        cdef Route route
        cdef int taken
        if not 0 <= qos <= 2:
            raise ValueError(f"QoS is {qos}, expected 0 to 2")
        self.settle()
        route = self.python_route(source, topic)
        view_values(&view, topic, payload, properties, expiry_s)
        view.qos = qos
        view.retain = retain
        taken = self.deliver(route, None, source, &view, payload)
        if not self.busy:
            self.end_batch()
        return taken

    def set_time(self, int64_t now) -> None:
        """Whole seconds of lane time; messages that wait expire by it."""
        self.now = now
        self.scans = 0

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
            "broker.dropped.expired": self.tally.expired,
            "broker.dropped.packet_too_large": self.tally.too_large,
            "router.dropped.no_route": self.unrouted,
            "router.dropped.not_permitted": self.unpermitted,
            "router.dropped.function_queue_full": self.ring_full,
            "router.dropped.sink_refused": self.sink_refused,
            "router.errors.target": self.sink_errors,
        }
        self.tally.received = self.tally.sent = self.tally.slow_reader = self.tally.queue_full = 0
        self.tally.expired = self.tally.too_large = self.unpermitted = 0
        self.tally.offline = self.unrouted = self.ring_full = self.sink_refused = self.sink_errors = 0
        return {name: count for name, count in counts.items() if count}


cdef Hop* choose(ShareRoute share) noexcept:
    """The member whose turn it is: connected ones with room first, then connected, then absent ones [MQTT5-4.8.2-5]."""
    cdef Py_ssize_t i
    cdef Hop* hop
    cdef Hop* connected = NULL
    cdef Hop* absent = NULL
    cdef Recipient session
    share.share.turn += 1
    for i in range(share.hop_count):
        hop = &share.hops[(share.share.turn + i) % share.hop_count]
        session = <Recipient> hop.session
        if session.state == LIVE and not session.congested and session.has_room():
            return hop
        if session.state == LIVE and connected == NULL:
            connected = hop
        if session.state == OFFLINE and absent == NULL:
            absent = hop
    return connected if connected != NULL else absent if absent != NULL else &share.hops[0]
