"""A client as the router sees it: its filters, what is on the way to it, and its output.

    router -> deliver, append_frames -> [out] -> flush_out -> Wire.send        once per batch
                       |                  ^
                       v  window full,    |
                    backlog ----------> window        QoS 1 and 2; see window.pyx

A batch is one read of one session: all output it causes, anywhere, is written when it ends. Bounds, and what
happens at them:

    window full, or the client does not read   -> the message waits in the backlog
    backlog above half its bounds, or unread
    output above the transport's high water    -> congested: publishers to this client are held back
    congested for `stall_ticks_max` ticks,
    with what was before slowly forgotten      -> frozen: they go on; QoS 0 is dropped (counted: slow_reader)
    backlog at its bounds, or all backlogs
    together at theirs and this one at a share -> the newest QoS 1 or 2 is dropped and counted (queue_full)
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from ggfast._ext.aliases cimport alias_clear, alias_of, alias_set
from ggfast._ext.bounds cimport SessionLimits
from ggfast._ext.buffers cimport out_put
from ggfast._ext.framing cimport publish5_bytes, put_ack, put_publish, put_publish5
from ggfast._ext.pledges cimport Pledge
from ggfast._ext.publication cimport (
    identifier_property, message_drop, message_new, message_size, message_take, remaining_s, stored_now, view_message,
    view_values,
)
from ggfast._ext.window cimport (
    DONE, RELEASED, SENT_ONCE, SENT_TWICE, Queued, backlog_clear, backlog_pop, backlog_push, receipts_clear,
    window_at, window_clear, window_id, window_land, window_push,
)
from ggfast._ext.wire cimport CallWire, Wire

cdef enum:
    FLUSH_BYTES = 64 * 1024          # output of this size is written at once, not at the end of the batch
    ALIASED_BYTES = 4                # a shorter topic's alias would make its packets longer

_STATES = ("new", "connected", "offline", "ended")


cdef class Outlet:
    """Where sessions publish; the router is the real one."""

    def __cinit__(self, *args, **kwargs):
        self.touched = []
        self.broken = []
        self.now = 1

    cdef int publish_view(self, Recipient source, PublishView* view) except -1:
        """Route one PUBLISH. May keep a verbatim `view`'s pointers until `settle`. Sets `blocked_on`.

        Gives the reason code of an acknowledgement: 0, 0x10 if it reached nobody, 0x87 if it may not.
        """
        raise NotImplementedError

    cdef int settle(self, bint last=False) except -1:
        """Deliver everything that still points into the source's read buffer; `last`: nothing follows in the batch."""
        return 0

    def pledge(self) -> Pledge:
        """For a target while it is handed a message: its acknowledgement waits until this is settled."""
        if self.pledged is None:
            self.pledged = Pledge.__new__(Pledge)
        self.pledged.waiting += 1
        return self.pledged

    cdef int end_batch(self) except -1:
        """Settle, then write what this batch collected."""
        cdef Recipient recipient
        cdef list touched = self.touched
        self.spent = 0
        if touched:
            self.touched = []
            for recipient in touched:
                recipient.flush_out()
        if self.broken:
            self.report_broken()
        return 0

    cdef int report_broken(self) except -1:
        """Tell the owners whose way out failed; not within the batch, which may be reading what they give back."""
        cdef Recipient recipient
        cdef list broken = self.broken
        self.broken = []
        for recipient, error in broken:
            if recipient.owner is not None:
                recipient.owner.failed(error)
        return 0


cdef class Recipient:
    """See the module. `owner` is the slow lane (SessionOwner in session.pyi): called rarely, in Python."""

    def __cinit__(self, Outlet outlet not None, SessionLimits limits not None, owner, write=None):
        self.outlet = outlet
        self.limits = limits
        self.owner = owner
        self.attach(write)
        self.client_id = ""
        self.source = ""
        self.clean = True
        self.subscriptions = {}
        self.out = OutBuffer()
        self.window.first_id = 1
        self.window_max = limits.inflight_max

    def __dealloc__(self):
        self.drop_stored()
        alias_clear(&self.aliases_out)

    cdef int deliver(self, PublishView* view, int qos, bint retain, const uint8_t* ids, Py_ssize_t ids_bytes,
                     Message** shared) except -1:
        """Send or queue one message in forwarded form: 1 if taken, 0 if dropped and counted.

        `shared` keeps the stored form for the next target; `ids` names the subscriptions it came by.
        """
        if qos == 0:
            if self.state != LIVE:
                self.outlet.tally.offline += 1
                return 0
            if self.is_full(0, view.payload_bytes):
                self.outlet.tally.slow_reader += 1
                self.dropped += 1
                return 0
        elif self.is_full(qos, view.payload_bytes + view.properties_bytes + view.topic_bytes + ids_bytes):
            self.outlet.tally.queue_full += 1
            self.dropped += 1
            return 0
        if self.packet_bytes_max and self.state == LIVE and not self.fits(view, qos, ids_bytes):
            self.outlet.tally.too_large += 1
            self.dropped += 1
            return 0
        if qos == 0:
            self.put(view, 0, retain, False, 0, ids, ids_bytes)
            self.messages_out += 1
            self.outlet.tally.sent += 1
            self.touch()
            return 1
        if (self.state == LIVE and self.backlog.count == 0 and self.unsent == 0 and not self.write_paused
                and self.has_room()):
            return self.launch(view, qos, retain, ids, ids_bytes, shared)
        return self.enqueue(view, qos, retain, ids, ids_bytes, shared)

    cdef int append_frames(self, const uint8_t* frames, Py_ssize_t count, Py_ssize_t messages,
                           bint alone, bint last) except -1:
        """Pass on whole QoS 0 frames as they lie; 0 if dropped.

        `alone`: worth a write of its own, uncopied. `last`: written now if nothing else waits to be.
        """
        if self.state != LIVE:
            self.outlet.tally.offline += messages
            return 0
        if self.is_full(0, 0):
            self.outlet.tally.slow_reader += messages
            self.dropped += messages
            return 0
        self.messages_out += messages
        self.outlet.tally.sent += messages
        if not self.write_paused:
            if alone and self.out.used:
                self.flush_out()
            if (alone or last) and self.out.used == 0 and not self.write_paused:
                self.write_now(frames, count)
                return 1
        out_put(self.out, frames, count)
        self.touch()
        return 1

    cdef bint fits(self, PublishView* view, int qos, Py_ssize_t ids_bytes) noexcept:
        """Whether the client takes a packet of that size [MQTT5-3.1.2-24]."""
        return self.packet_bytes_max == 0 or publish5_bytes(
            view.topic_bytes, view.payload_bytes, qos, 0, view.expiry_s, ids_bytes, view.properties_bytes
        ) <= self.packet_bytes_max

    cdef int put(self, PublishView* view, int qos, bint retain, bint dup, int packet_id, const uint8_t* ids,
                 Py_ssize_t ids_bytes) except -1:
        """Append one PUBLISH in the client's own form; it must fit."""
        cdef int alias = 0
        cdef bint known = False
        if self.level < 5:
            return put_publish(self.out, view.topic, view.topic_bytes, view.payload, view.payload_bytes, qos, retain,
                               dup, packet_id)
        if self.alias_max:
            alias = self.choose_alias(view, qos, ids_bytes, &known)
        return put_publish5(self.out, view.topic, 0 if known else view.topic_bytes, view.payload, view.payload_bytes,
                            qos, retain, dup, packet_id, alias, view.expiry_s, ids, ids_bytes, view.properties,
                            view.properties_bytes)

    cdef int choose_alias(self, PublishView* view, int qos, Py_ssize_t ids_bytes, bint* known) except -1:
        """The alias to write, or 0; `known`: the client has it, the topic may be left out."""
        cdef int alias = alias_of(&self.aliases_out, view.topic, view.topic_bytes)
        if alias:
            known[0] = True
            return alias
        if (self.aliases_out.count >= self.alias_max or view.topic_bytes < ALIASED_BYTES
                or self.aliases_out.bytes + view.topic_bytes > self.limits.alias_bytes_max):
            return 0
        if self.packet_bytes_max and publish5_bytes(
            view.topic_bytes, view.payload_bytes, qos, 1, view.expiry_s, ids_bytes, view.properties_bytes
        ) > self.packet_bytes_max:
            return 0
        alias = self.aliases_out.count + 1
        alias_set(&self.aliases_out, self.alias_max, alias, view.topic, view.topic_bytes)
        self.aliases_out.count = alias
        return alias

    cdef bint has_room(self) noexcept:
        """Whether one more may be under way. Entries acknowledged out of turn take room in the window alone."""
        return self.under_way < self.window_max and self.window.count < self.limits.inflight_max

    cdef bint is_full(self, int qos, Py_ssize_t size) noexcept:
        """Whether a message would be dropped now."""
        if qos == 0:
            return (self.frozen and self.write_paused) or self.out.used > self.limits.output_bytes_max
        size += <Py_ssize_t> (sizeof(Message) + sizeof(Queued))
        return (self.stored_bytes + size > self.limits.queue_bytes_max
                or self.backlog.count >= self.limits.queue_entries_max
                or (self.stored_bytes + size > self.limits.queue_share_bytes
                    and stored_now() + size > self.limits.stored_bytes_max))

    cdef int touch(self) except -1:
        """Have `out` written at the end of the batch, or now if it is long."""
        if self.out.used >= FLUSH_BYTES and not self.write_paused:
            return self.flush_out()
        if not self.touched:
            self.touched = True
            self.outlet.touched.append(self)
        return 0

    cdef int flush_out(self) except -1:
        self.touched = False
        if self.out.used and not self.write_paused:
            self.write_now(self.out.data, self.out.used)
            self.out.emptied()
        return 0

    cdef int write_now(self, const uint8_t* data, Py_ssize_t count) except -1:
        # A way out that raises here is broken: its own session ends after the batch, whoever's it is goes on.
        if self.wire is None:
            return 0
        try:
            self.wire.send(data, count)
        except Exception as error:
            self.state = ENDED
            self.wire = None
            self.outlet.broken.append((self, error))
        return 0

    cdef Message* stored_form(self, PublishView* view, const uint8_t* ids, Py_ssize_t ids_bytes,
                              Message** shared) except NULL:
        """A reference to the stored message: the shared one, or with `ids` one of its own."""
        if ids_bytes:
            return message_new(view, ids, ids_bytes, self.outlet.now)
        if shared[0] == NULL:
            shared[0] = message_new(view, NULL, 0, self.outlet.now)
        return message_take(shared[0])

    cdef int launch(self, PublishView* view, int qos, bint retain, const uint8_t* ids, Py_ssize_t ids_bytes,
                    Message** shared) except -1:
        """Put one message into the window and send it; the caller has checked that there is room."""
        cdef Flight* flight = window_push(&self.window)
        flight.retain = retain
        if not self.clean:                           # only these are sent again [MQTT-4.4.0-1]
            flight.message = self.stored_form(view, ids, ids_bytes, shared)
            self.stored_bytes += message_size(flight.message)
        flight.state = SENT_ONCE if qos == 1 else SENT_TWICE
        self.under_way += 1
        self.put(view, qos, retain, False, window_id(&self.window, self.window.count - 1), ids, ids_bytes)
        self.messages_out += 1
        self.outlet.tally.sent += 1
        self.touch()
        return 1

    cdef int enqueue(self, PublishView* view, int qos, bint retain, const uint8_t* ids, Py_ssize_t ids_bytes,
                     Message** shared) except -1:
        """Let one message wait; the caller has checked the bounds."""
        cdef Message* message = self.stored_form(view, ids, ids_bytes, shared)
        cdef Queued* entry
        try:
            entry = backlog_push(&self.backlog)
        except MemoryError:
            message_drop(message)
            raise
        entry.message = message
        entry.qos = <uint8_t> qos
        entry.retain = retain
        self.stored_bytes += message_size(message) + <Py_ssize_t> sizeof(Queued)
        if self.state == LIVE and (self.stored_bytes > self.limits.queue_bytes_max // 2
                                   or self.backlog.count > self.limits.queue_entries_max // 2):
            self.congest()
        return 1

    cdef int pump(self) except -1:
        """Send from the backlog while the window and the client have room."""
        cdef Queued entry
        cdef PublishView view
        if self.unsent:
            self.resend()
        while (self.backlog.count and self.unsent == 0 and self.state == LIVE and not self.write_paused
               and self.has_room()):
            entry = backlog_pop(&self.backlog)
            self.stored_bytes -= message_size(entry.message) + <Py_ssize_t> sizeof(Queued)
            try:
                view_message(&view, entry.message, self.outlet.now)
                if entry.message.expires and entry.message.expires <= self.outlet.now:
                    self.outlet.tally.expired += 1
                elif not self.fits(&view, entry.qos, 0):
                    self.outlet.tally.too_large += 1
                    self.dropped += 1
                else:
                    self.launch(&view, entry.qos, entry.retain, NULL, 0, &entry.message)
            finally:
                message_drop(entry.message)
        return 0

    cdef int resend(self) except -1:
        """Send again what an earlier connection left in the window, in order and with DUP [MQTT-4.4.0-1].

        Never more than the client's Receive Maximum [MQTT5-3.3.4-9]; the rest follows its acknowledgements.
        """
        cdef Flight* flight
        cdef PublishView view
        cdef Py_ssize_t at
        while self.unsent and self.state == LIVE and not self.write_paused and self.under_way < self.window_max:
            at = self.window.count - self.unsent
            flight = window_at(&self.window, at)
            self.unsent -= 1
            self.under_way += flight.state != DONE
            if flight.state == RELEASED:
                put_ack(self.out, 0x62, window_id(&self.window, at))
            elif flight.state != DONE and flight.message != NULL:
                view_message(&view, flight.message, self.outlet.now)
                if self.fits(&view, 2, 0):
                    self.put(&view, 1 if flight.state == SENT_ONCE else 2, flight.retain, True,
                             window_id(&self.window, at), NULL, 0)
                else:
                    self.outlet.tally.too_large += 1
                    self.dropped += 1
                    self.under_way -= 1
                    self.stored_bytes -= message_size(flight.message)
                    window_land(&self.window, flight)
        return self.touch()

    cdef int land(self, Flight* flight) except -1:
        """An outgoing message is acknowledged: move the window, send what waited."""
        if flight.message != NULL:
            self.stored_bytes -= message_size(flight.message)
        window_land(&self.window, flight)
        self.under_way -= 1
        if self.backlog.count or self.unsent:
            self.pump()
        if self.congested:
            self.relieve()
        return 0

    # --- congestion ------------------------------------------------------------------------------------

    cdef int congest(self) noexcept:
        if not self.congested:
            self.congested = True
        return 0

    cdef int relieve(self) except -1:
        """End the congestion if output and queue are low again."""
        if (not self.congested or self.write_paused or self.stored_bytes > self.limits.queue_bytes_max // 4
                or self.backlog.count > self.limits.queue_entries_max // 4):
            return 0
        self.congested = False
        self.frozen = False
        self.free_waiters()
        if self.owner is not None:
            self.owner.relieved()
        return 0

    cdef int free_waiters(self) except -1:
        """Let the publishers go on that were held because of this session."""
        cdef Recipient waiter
        cdef list waiters = self.waiters
        self.waiters = None
        if waiters:
            for waiter in waiters:
                if waiter.waiting_on is self and waiter.owner is not None:
                    waiter.owner.resume_soon()
        return 0

    cdef int drop_stored(self) noexcept:
        window_clear(&self.window)
        backlog_clear(&self.backlog)
        receipts_clear(&self.receipts)
        self.stored_bytes = self.unsent = self.under_way = 0
        return 0

    # --- the slow lane's side --------------------------------------------------------------------------

    def start(self, str client_id not None, str source not None, int level, bint clean, int keep_alive_s,
              double now, *, Py_ssize_t receive_maximum=65535, Py_ssize_t packet_bytes_max=0, int topic_alias_max=0,
              bint problem_info=True):
        """The CONNECT was accepted. Seconds; `keep_alive_s` 0 means none. The rest is what the client asked for.

        `clean`: nothing of the session outlives the connection.
        """
        self.client_id = client_id
        self.source = source
        self.level = level
        self.clean = clean
        self.keep_alive_s = keep_alive_s
        self.last_heard = now
        self.window_max = min(self.limits.inflight_max, receive_maximum)
        self.packet_bytes_max = packet_bytes_max
        self.alias_max = min(topic_alias_max, self.limits.aliases_max)
        self.problem_info = problem_info
        self.state = LIVE

    def attach(self, way):
        """The way out is there: a Wire, or a transport's write method."""
        self.wire = way if way is None or isinstance(way, Wire) else CallWire(way)

    def send(self, bytes data not None):
        """Add bytes to the output; written at the end of the batch, or by `flush`."""
        out_put(self.out, <const uint8_t*> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        self.touch()

    def flush(self):
        """Write the output now; for the slow lane."""
        self.flush_out()

    def offer(self, bytes topic not None, bytes payload not None, int qos, bint retain,
              bytes properties not None=b"", uint32_t expires=0, int64_t options=0) -> bool:
        """Send or queue one message for this client; False if it was dropped (and counted).

        `properties` in forwarded form; `expires` is a lane second, 0: never; `options` of the subscription
        it is for names the identifier.
        """
        cdef Message* shared = NULL
        cdef bytes ids = identifier_property(<int> (options >> 8))
        cdef PublishView view
        if expires and expires <= self.outlet.now:
            self.outlet.tally.expired += 1
            return False
        view_values(&view, topic, payload, properties, remaining_s(expires, self.outlet.now))
        try:
            return self.deliver(&view, qos, retain, <const uint8_t*> PyBytes_AS_STRING(ids), PyBytes_GET_SIZE(ids),
                                &shared) == 1
        finally:
            message_drop(shared)

    def detach(self, bint offline):
        """The connection is gone: keep what is outstanding (`offline`) or give everything back."""
        self.state = OFFLINE if offline else ENDED
        self.owner = None
        self.wire = None
        self.route = None
        self.waiting_on = None
        self.out.release()
        alias_clear(&self.aliases_out)
        self.write_paused = self.congested = self.frozen = False
        if not offline:
            self.drop_stored()
        self.free_waiters()

    def pause_writing(self):
        """The transport is above its high water mark: output stays here."""
        self.write_paused = True
        self.congest()

    def resume_writing(self):
        """The transport has drained."""
        self.write_paused = False
        self.pump()
        self.flush_out()
        self.relieve()

    @property
    def state_name(self) -> str:
        """`new`, `connected`, `offline` or `ended`."""
        return _STATES[self.state]

    @property
    def inflight(self) -> int:
        """Messages sent and not acknowledged."""
        return self.window.count

    @property
    def waiting(self) -> int:
        """Messages in the backlog."""
        return self.backlog.count

    @property
    def output_bytes(self) -> int:
        """Output the transport has not taken."""
        return self.out.used
