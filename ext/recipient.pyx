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
    congested for `stall_ticks_max` ticks      -> frozen: they go on; QoS 0 is dropped (counted: slow_reader)
    backlog at its bounds                      -> the newest QoS 1 or 2 is dropped and counted (queue_full)
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memset

cimport cython

from ggfast._ext.buffers cimport (
    message_drop,
    message_new,
    message_payload,
    message_size,
    message_take,
    message_topic,
    out_put,
)
from ggfast._ext.framing cimport put_ack, put_publish
from ggfast._ext.window cimport (
    DONE,
    RELEASED,
    SENT_ONCE,
    SENT_TWICE,
    Queued,
    backlog_at,
    backlog_clear,
    backlog_pop,
    backlog_push,
    receipts_add,
    receipts_clear,
    receipts_has,
    window_at,
    window_clear,
    window_id,
    window_land,
    window_push,
)
from ggfast._ext.wire cimport CallWire, Wire

cdef enum:
    FLUSH_BYTES = 64 * 1024          # output of this size is written at once, not at the end of the batch

_STATES = ("new", "connected", "offline", "ended")


@cython.final
cdef class SessionLimits:
    """The bounds all sessions of a broker share: bytes, entries, ticks of the broker's sweep."""

    def __cinit__(self, *, Py_ssize_t packet_bytes_max, Py_ssize_t payload_bytes_max, Py_ssize_t inflight_max,
                  Py_ssize_t queue_bytes_max, Py_ssize_t queue_entries_max, Py_ssize_t output_bytes_max,
                  int stall_ticks_max):
        if not 1 <= inflight_max <= 32768:
            raise ValueError(f"inflight_max is {inflight_max}, expected 1 to 32768, half of the packet ids")
        self.packet_bytes_max = packet_bytes_max
        self.payload_bytes_max = payload_bytes_max
        self.inflight_max = inflight_max
        self.queue_bytes_max = queue_bytes_max
        self.queue_entries_max = queue_entries_max
        self.output_bytes_max = output_bytes_max
        self.stall_ticks_max = stall_ticks_max


cdef class Outlet:
    """Where sessions publish; the router is the real one."""

    def __cinit__(self, *args, **kwargs):
        self.touched = []

    cdef int publish_view(self, Recipient source, PublishView* view) except -1:
        """Route one PUBLISH. May keep `view`'s pointers until `settle`. Sets `blocked_on`."""
        raise NotImplementedError

    cdef int settle(self) except -1:
        """Deliver everything that still points into the source's read buffer."""
        return 0

    cdef int end_batch(self) except -1:
        """Settle, then write what this batch collected."""
        cdef Recipient recipient
        cdef list touched = self.touched
        self.spent = 0
        if touched:
            self.touched = []
            for recipient in touched:
                recipient.flush_out()
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

    def __dealloc__(self):
        self.drop_stored()

    # --- output ----------------------------------------------------------------------------------------

    cdef int deliver(self, const uint8_t* topic, Py_ssize_t topic_bytes, const uint8_t* payload,
                     Py_ssize_t payload_bytes, int qos, bint retain, Message** shared) except -1:
        """Send or queue one message: 1 if taken, 0 if dropped and counted. `shared` keeps the stored form."""
        if qos == 0:
            if self.state != LIVE:
                self.outlet.tally.offline += 1
                return 0
            if self.is_full(0, payload_bytes):
                self.outlet.tally.slow_reader += 1
                self.dropped += 1
                return 0
            put_publish(self.out, topic, topic_bytes, payload, payload_bytes, 0, retain, False, 0)
            self.messages_out += 1
            self.outlet.tally.sent += 1
            self.touch()
            return 1
        if self.is_full(qos, payload_bytes + topic_bytes):
            self.outlet.tally.queue_full += 1
            self.dropped += 1
            return 0
        if (self.state == LIVE and self.backlog.count == 0 and not self.write_paused
                and self.window.count < self.limits.inflight_max):
            return self.launch(topic, topic_bytes, payload, payload_bytes, qos, retain, shared)
        return self.enqueue(topic, topic_bytes, payload, payload_bytes, qos, retain, shared)

    cdef int append_frames(self, const uint8_t* frames, Py_ssize_t count, Py_ssize_t messages,
                           bint alone) except -1:
        """Pass on whole QoS 0 frames as they came in; 0 if dropped. `alone`: worth a write of its own, uncopied."""
        if self.state != LIVE:
            self.outlet.tally.offline += messages
            return 0
        if self.is_full(0, 0):
            self.outlet.tally.slow_reader += messages
            self.dropped += messages
            return 0
        self.messages_out += messages
        self.outlet.tally.sent += messages
        if alone and not self.write_paused:
            if self.out.used:
                self.flush_out()
            if not self.write_paused:
                self.write_now(frames, count)
                return 1
        out_put(self.out, frames, count)
        self.touch()
        return 1

    cdef bint is_full(self, int qos, Py_ssize_t size) noexcept:
        """Whether a message would be dropped now."""
        if qos == 0:
            return (self.frozen and self.write_paused) or self.out.used > self.limits.output_bytes_max
        size += <Py_ssize_t> (sizeof(Message) + sizeof(Queued))
        return (self.stored_bytes + size > self.limits.queue_bytes_max
                or self.backlog.count >= self.limits.queue_entries_max)

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
        # A way out that raises here is broken: its own session ends, whoever's batch this is goes on.
        if self.wire is None:
            return 0
        try:
            self.wire.send(data, count)
        except Exception as error:
            self.state = ENDED
            self.wire = None
            if self.owner is not None:
                self.owner.failed(error)
        return 0

    cdef int launch(self, const uint8_t* topic, Py_ssize_t topic_bytes, const uint8_t* payload,
                    Py_ssize_t payload_bytes, int qos, bint retain, Message** shared) except -1:
        """Put one message into the window and send it; the caller has checked that there is room."""
        cdef Flight* flight
        if not self.clean and shared[0] == NULL:     # only these are sent again [MQTT-4.4.0-1]
            shared[0] = message_new(topic, topic_bytes, payload, payload_bytes)
        flight = window_push(&self.window)
        flight.state = SENT_ONCE if qos == 1 else SENT_TWICE
        flight.retain = retain
        if not self.clean:
            flight.message = message_take(shared[0])
            self.stored_bytes += message_size(shared[0])
        put_publish(self.out, topic, topic_bytes, payload, payload_bytes, qos, retain, False,
                    window_id(&self.window, self.window.count - 1))
        self.messages_out += 1
        self.outlet.tally.sent += 1
        self.touch()
        return 1

    cdef int enqueue(self, const uint8_t* topic, Py_ssize_t topic_bytes, const uint8_t* payload,
                     Py_ssize_t payload_bytes, int qos, bint retain, Message** shared) except -1:
        """Let one message wait; the caller has checked the bounds."""
        cdef Queued* entry
        if shared[0] == NULL:
            shared[0] = message_new(topic, topic_bytes, payload, payload_bytes)
        entry = backlog_push(&self.backlog)
        entry.message = message_take(shared[0])
        entry.qos = <uint8_t> qos
        entry.retain = retain
        self.stored_bytes += message_size(shared[0]) + <Py_ssize_t> sizeof(Queued)
        if self.state == LIVE and (self.stored_bytes > self.limits.queue_bytes_max // 2
                                   or self.backlog.count > self.limits.queue_entries_max // 2):
            self.congest()
        return 1

    cdef int pump(self) except -1:
        """Send from the backlog while the window and the client have room."""
        cdef Queued entry
        while (self.backlog.count and self.state == LIVE and not self.write_paused
               and self.window.count < self.limits.inflight_max):
            entry = backlog_pop(&self.backlog)
            self.stored_bytes -= message_size(entry.message) + <Py_ssize_t> sizeof(Queued)
            try:
                self.launch(message_topic(entry.message), entry.message.topic_bytes,
                            message_payload(entry.message), entry.message.payload_bytes,
                            entry.qos, entry.retain, &entry.message)
            finally:
                message_drop(entry.message)
        return 0

    cdef int land(self, Flight* flight) except -1:
        """An outgoing message is acknowledged: move the window, send what waited."""
        if flight.message != NULL:
            self.stored_bytes -= message_size(flight.message)
        window_land(&self.window, flight)
        if self.backlog.count:
            self.pump()
        if self.congested:
            self.relieve()
        return 0

    # --- congestion ------------------------------------------------------------------------------------

    cdef int congest(self) noexcept:
        if not self.congested:
            self.congested = True
            self.stall_ticks = 0
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
        self.stored_bytes = 0
        return 0

    # --- the slow lane's side --------------------------------------------------------------------------

    def start(self, str client_id not None, str source not None, int level, bint clean, int keep_alive_s,
              double now):
        """The CONNECT was accepted. Seconds; `keep_alive_s` 0 means none."""
        self.client_id = client_id
        self.source = source
        self.level = level
        self.clean = clean
        self.keep_alive_s = keep_alive_s
        self.last_heard = now
        self.state = LIVE

    def attach(self, way):
        """The way out is there: a Wire, or a transport's write method."""
        self.wire = way if way is None or isinstance(way, Wire) else CallWire(way)

    def send(self, bytes data not None):
        """Add bytes to the output; written at the end of the batch, or by `flush`."""
        out_put(self.out, <const uint8_t*> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        self.touch()

    def flush(self):
        """Write the output now."""
        self.flush_out()

    def offer(self, bytes topic not None, bytes payload not None, int qos, bint retain) -> bool:
        """Send or queue one message for this client; False if it was dropped (and counted)."""
        cdef Message* shared = NULL
        try:
            return self.deliver(
                <const uint8_t*> PyBytes_AS_STRING(topic), PyBytes_GET_SIZE(topic),
                <const uint8_t*> PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload), qos, retain, &shared,
            ) == 1
        finally:
            message_drop(shared)

    def adopt(self, Recipient old not None):
        """Take over everything outstanding of a persistent session; `old` is empty afterwards."""
        self.drop_stored()
        self.window, self.backlog, self.receipts = old.window, old.backlog, old.receipts
        self.stored_bytes = old.stored_bytes
        self.dropped = old.dropped
        memset(&old.window, 0, sizeof(Window))
        memset(&old.backlog, 0, sizeof(Backlog))
        memset(&old.receipts, 0, sizeof(Receipts))
        old.window.first_id = 1
        old.stored_bytes = 0

    def replay(self):
        """Send again what was not acknowledged, in order and with DUP, then what waits [MQTT-4.4.0-1]."""
        cdef Py_ssize_t i
        cdef Flight* flight
        for i in range(self.window.count):
            flight = window_at(&self.window, i)
            if flight.state == RELEASED:
                put_ack(self.out, 0x62, window_id(&self.window, i))
            elif flight.state != DONE and flight.message != NULL:
                put_publish(self.out, message_topic(flight.message), flight.message.topic_bytes,
                            message_payload(flight.message), flight.message.payload_bytes,
                            1 if flight.state == SENT_ONCE else 2, flight.retain, True,
                            window_id(&self.window, i))
        self.touch()
        self.pump()

    def detach(self, bint offline):
        """The connection is gone: keep what is outstanding (`offline`) or give everything back."""
        self.state = OFFLINE if offline else ENDED
        self.owner = None
        self.wire = None
        self.route = None
        self.waiting_on = None
        self.out.release()
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

    def export(self) -> dict:
        """What must outlive the process, as plain values; `restore` takes it."""
        cdef Py_ssize_t i
        cdef Flight* flight
        cdef Queued* entry
        flights = []
        for i in range(self.window.count):
            flight = window_at(&self.window, i)
            flights.append((flight.state, bool(flight.retain), *parts_of(flight.message)))
        queued = []
        for i in range(self.backlog.count):
            entry = backlog_at(&self.backlog, i)
            queued.append((entry.qos, bool(entry.retain), *parts_of(entry.message)))
        receipts = [i for i in range(65536) if receipts_has(&self.receipts, i)] if self.receipts.count else []
        return {"first_id": self.window.first_id, "flights": flights, "queued": queued, "receipts": receipts}

    def restore(self, state):
        """Become an offline session with what `export` gave. ValueError if it does not fit together."""
        cdef Flight* flight
        cdef bytes topic, payload
        self.drop_stored()
        self.state = OFFLINE
        self.clean = False
        if not 1 <= state["first_id"] <= 65535 or len(state["flights"]) > 32768:
            raise ValueError("the window of a stored session is not valid")
        self.window.first_id = state["first_id"]
        for kind, retain, topic, payload in state["flights"]:
            if not DONE <= kind <= RELEASED:
                raise ValueError(f"a stored message has state {kind}, expected 0 to 3")
            flight = window_push(&self.window)
            flight.state = kind
            flight.retain = retain
            if kind == SENT_ONCE or kind == SENT_TWICE:
                flight.message = message_new(
                    <const uint8_t*> PyBytes_AS_STRING(topic), PyBytes_GET_SIZE(topic),
                    <const uint8_t*> PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload),
                )
                self.stored_bytes += message_size(flight.message)
        for qos, retain, topic, payload in state["queued"]:
            if not 1 <= qos <= 2:
                raise ValueError(f"a stored message has QoS {qos}, expected 1 or 2")
            self.offer(topic, payload, qos, retain)
        for packet_id in state["receipts"]:
            if not 1 <= packet_id <= 65535:
                raise ValueError(f"a stored packet id is {packet_id}, expected 1 to 65535")
            receipts_add(&self.receipts, packet_id)

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

    @property
    def is_congested(self) -> bool:
        """Whether publishers to this session are held back, or were until it froze."""
        return self.congested

    @property
    def is_frozen(self) -> bool:
        """Whether it was congested for so long that QoS 0 is dropped."""
        return self.frozen


cdef tuple parts_of(Message* message):
    """(topic, payload) of a stored message; empty for one that need not be sent again."""
    if message == NULL:
        return b"", b""
    return (PyBytes_FromStringAndSize(<const char*> message_topic(message), message.topic_bytes),
            PyBytes_FromStringAndSize(<const char*> message_payload(message), message.payload_bytes))
