"""One MQTT client's protocol state. No sockets, no clock: bytes in, bytes to a Wire, time passed in.

    bytes -> feed -> [inbox] -> handle -> PUBLISH            -> outlet.publish_view  (the lane)
                                        -> acknowledgements   -> window, backlog      (the lane)
                                        -> everything else    -> owner.packet(value)  (Python)

The input is parsed where it lies; `inbox` only holds the beginning of a packet whose end has not come, or
what waits because a target of this client is congested. Output, window and backlog: recipient.pyx.
"""

from collections import deque

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcmp, memset

cimport cython

from ggfast._ext.aliases cimport AliasName, alias_clear, alias_get, alias_set
from ggfast._ext.buffers cimport out_reserve
from ggfast._ext.framing cimport (
    AUTH,
    CONNECT,
    DISCONNECT,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBSCRIBE,
    UNSUBSCRIBE,
    decode_body,
    put_ack,
    put_ack5,
    read_ack5,
    read_length,
    read_u16,
)
from ggfast._ext.outliving cimport exported, restored
from ggfast._ext.pledges cimport Pledge
from ggfast._ext.publication cimport message_drop, message_size, read_publish
from ggfast._ext.recipient cimport CALL_COST, ENDED, FILTERS_COST, LIVE, NEW, OFFLINE, Outlet
from ggfast._ext.window cimport (
    DONE, RELEASED, SENT_ONCE, Backlog, Flight, Receipts, Window, receipts_add, receipts_has, receipts_remove,
    window_find, window_index,
)

from ggfast._ext.framing import packet_name
from ggfast.errors import Malformed, StorageFailed, Violation

cdef enum:
    BATCH_BYTES = 4 * 1024 * 1024    # `spent` in one batch; past it the input waits a turn
    CONNECT_FREE = 4096              # a CONNECT that needs no more is never refused for what others have begun
    STALL_WEIGHT = 8                 # ticks of reading that make up for one without: stalling on and off does not pay
    OWED_MAX = 1024                  # acknowledgements that wait; past it the input waits too
    LEVEL_AT = 6                     # of the protocol level in a CONNECT, behind the name with its length


@cython.final
cdef class Session(Recipient):
    """See the module."""

    def __cinit__(self, *args, **kwargs):
        self.inbox = InBuffer()
        self.level = 4                   # until CONNECT says otherwise

    def __dealloc__(self):
        alias_clear(&self.aliases_in)

    # --- input -----------------------------------------------------------------------------------------

    def data_received(self, bytes data not None):
        """The bytes of one read from Python; see `feed`."""
        self.feed(<const uint8_t*> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    cdef int feed(self, const uint8_t* at, Py_ssize_t left) except -1:
        """All bytes of one read: handled now, and everything they cause is written before this returns.

        Nothing points to them afterwards. Must not be called while another session is being fed.
        """
        cdef Py_ssize_t used
        if self.state >= OFFLINE:
            return 0
        problem = None
        self.outlet.blocked_on = None
        self.outlet.spent = 0
        try:
            if self.held:
                return self.inbox.put(at, left)
            if self.inbox.end:
                self.top_up(&at, &left)
            if left and self.state < OFFLINE and self.outlet.blocked_on is None and self.inbox.end == 0:
                used = self.handle(at, left)
                self.outlet.settle(True)
                at += used
                left -= used
            if left and self.state < OFFLINE:
                self.inbox.put(at, left)
        except Exception as error:
            problem = error
        return self.finish(problem)

    def wait(self, bint on):
        """Handle no input from now on (after this packet), or go on: its owner has something to find out or to do."""
        self.kept = on
        if not on:
            self.resume()
        elif self.owner is not None:
            self.held = True
            self.owner.pause_reading()

    def resume(self):
        """Go on with the input that waited; reading starts again unless it has to wait once more."""
        cdef Py_ssize_t used
        if self.state >= OFFLINE or not self.held or self.kept:
            return
        problem = None
        self.held = False
        self.waiting_on = None
        self.outlet.blocked_on = None
        self.outlet.spent = 0
        try:
            used = self.handle(self.inbox.data + self.inbox.start, self.inbox.end - self.inbox.start)
            self.outlet.settle(True)
            if self.state < OFFLINE:
                self.inbox.skip(used)
        except Exception as error:
            problem = error
        self.finish(problem)
        if not self.held and self.state < OFFLINE and self.owner is not None:
            self.owner.resume_reading()

    cdef int finish(self, object error) except -1:
        """End the batch; then the consequences that need Python."""
        cdef Recipient blocked_on
        cdef bint overspent = self.outlet.spent > BATCH_BYTES
        self.outlet.end_batch()
        if self.state >= OFFLINE:
            return 0
        if error is None and (self.begun or self.state == NEW):
            error = self.note_begun()
        if error is not None:
            self.state = ENDED
            self.inbox.release()
            if self.owner is not None:
                self.owner.failed(error)
            return 0
        blocked_on = self.outlet.blocked_on
        self.outlet.blocked_on = None
        if self.out.used > self.limits.output_bytes_max:
            blocked_on = self                 # it does not read the answers to its own requests
        if blocked_on is not None and blocked_on.congested and not blocked_on.frozen:
            self.hold(blocked_on)
        elif blocked_on is self:
            self.hold(self)
        elif self.owing >= OWED_MAX and self.owner is not None:
            self.held = True              # until `pay`
            self.owner.pause_reading()
        elif overspent or blocked_on is not None:
            self.hold(None)
        return 0

    cdef note_begun(self):
        """Count the unfinished CONNECT of a stranger; an error if it is a long one and they are too much together."""
        cdef Py_ssize_t size = self.inbox.capacity if self.state == NEW else 0
        self.outlet.begun += size - self.begun
        self.begun = size
        if size <= CONNECT_FREE or self.outlet.begun <= self.limits.strangers_bytes_max:
            return None
        return Violation(f"unfinished CONNECTs take {self.outlet.begun} bytes, the limit is "
                         f"{self.limits.strangers_bytes_max}", reason_code=0x97)

    cdef int hold(self, Recipient target) except -1:
        """Stop reading until `target` has room again, or only until the next turn (None)."""
        if self.owner is None:
            return 0
        self.held = True
        self.owner.pause_reading()
        self.waiting_on = target
        if target is None:
            self.owner.resume_soon()
            return 0
        if target.waiters is None:
            target.waiters = []
        target.waiters.append(self)
        return 0

    cdef int top_up(self, const uint8_t** at, Py_ssize_t* left) except -1:
        """Complete the packet begun in `inbox` with just the bytes it lacks, and handle it there."""
        cdef Py_ssize_t have, need, more, used, remaining = 0
        cdef int header
        cdef const uint8_t* start
        while left[0]:
            have = self.inbox.end - self.inbox.start
            start = self.inbox.data + self.inbox.start
            header = read_length(start + 1, have - 1, &remaining)
            need = 1 + header + remaining if header > 0 else have + 1
            if need > have:
                more = min(need - have, left[0])
                self.inbox.put(at[0], more)
                at[0] += more
                left[0] -= more
            start = self.inbox.data + self.inbox.start
            have = self.inbox.end - self.inbox.start
            used = self.handle(start, have)
            if used:
                self.outlet.settle()
                if self.state < OFFLINE:
                    self.inbox.skip(used)
                return 0
        return 0

    @cython.nonecheck(False)
    cdef Py_ssize_t handle(self, const uint8_t* at, Py_ssize_t left) except -1:
        """Handle the whole packets at `at`; how many bytes they took."""
        cdef const uint8_t* begin = at
        cdef Py_ssize_t remaining = 0, total
        cdef Py_ssize_t packet_bytes_max = self.limits.packet_bytes_max
        cdef int used
        cdef Outlet outlet = self.outlet
        if self.state == NEW and left and (at[0] >> 4) != CONNECT:  # before a stranger makes us wait for a length
            raise Violation(f"the first packet is {packet_name(at[0] >> 4)}, expected CONNECT [MQTT-3.1.0-1]")
        while left >= 2:
            used = read_length(at + 1, left - 1, &remaining)
            if used <= 0:
                if used < 0:
                    raise Malformed("remaining length takes more than 4 bytes [MQTT-2.2.3]")
                break
            if used > 1 and at[used] == 0 and self.level == 5:
                raise Malformed("remaining length is longer than it need be [MQTT5-1.5.5-1]")
            total = 1 + used + remaining
            if total > packet_bytes_max:
                name = packet_name(at[0] >> 4)
                raise Violation(f"{name} of {total} bytes, the limit is {packet_bytes_max}", reason_code=0x95)
            if total > left:
                break
            if (at[0] >> 4) == PUBLISH and self.state == LIVE:
                self.on_publish(at, 1 + used, total)
            else:
                self.on_packet(at, 1 + used, total)
            at += total
            left -= total
            if (self.state >= OFFLINE or outlet.blocked_on is not None or outlet.spent > BATCH_BYTES
                    or self.owing >= OWED_MAX):
                break
        if at != begin:
            self.heard = True
        return at - begin

    cdef int on_publish(self, const uint8_t* frame, Py_ssize_t header, Py_ssize_t total) except -1:
        cdef PublishView view
        cdef int code
        read_publish(frame, header, total, self.level, &view)
        if view.payload_bytes > self.limits.payload_bytes_max:
            raise Violation(f"a payload of {view.payload_bytes} bytes, the limit is {self.limits.payload_bytes_max}",
                            reason_code=0x95)
        if self.level == 5 and (view.alias or view.topic_bytes == 0):
            self.resolve_alias(&view)
        self.messages_in += 1
        self.outlet.tally.received += 1
        if view.qos == 0:
            return self.outlet.publish_view(self, &view)
        self.outlet.pledged = None
        if view.qos == 1:
            code = self.outlet.publish_view(self, &view)
            return self.owe(0x40, view.packet_id, code)
        code = 0
        if not receipts_has(&self.receipts, view.packet_id):    # delivered once, at the first receipt [MQTT-4.3.3-2]
            if self.level == 5 and self.receipts.count >= self.limits.receive_max:
                raise Violation(f"more than {self.limits.receive_max} QoS 2 messages await PUBREL [MQTT5-3.3.4-7]",
                                reason_code=0x93)
            receipts_add(&self.receipts, view.packet_id)
            try:
                code = self.outlet.publish_view(self, &view)
            except BaseException:
                receipts_remove(&self.receipts, view.packet_id)  # not acknowledged: sent again it is a new one
                raise
            if code >= 0x80 and self.level == 5:
                receipts_remove(&self.receipts, view.packet_id)  # refused: the exchange ends with the PUBREC
        return self.owe(0x50, view.packet_id, code)

    cdef int resolve_alias(self, PublishView* view) except -1:
        """Learn an alias, or put the topic that it stands for into `view` [MQTT5-3.3.2-8 to -12]."""
        cdef AliasName* name
        cdef Py_ssize_t known
        if view.alias == 0:
            raise Violation("PUBLISH without a topic and without a topic alias", reason_code=0x82)
        if view.alias > self.limits.aliases_max:
            raise Violation(f"topic alias {view.alias}, the limit is {self.limits.aliases_max}", reason_code=0x94)
        name = alias_get(&self.aliases_in, view.alias)
        if view.topic_bytes:
            known = 0 if name == NULL else name.topic_bytes
            if self.aliases_in.bytes - known + view.topic_bytes > self.limits.alias_bytes_max:
                raise Violation(f"topic aliases of more than {self.limits.alias_bytes_max} bytes", reason_code=0x97)
            self.outlet.settle()
            return alias_set(&self.aliases_in, self.limits.aliases_max, view.alias, view.topic, view.topic_bytes)
        if name == NULL:
            raise Violation(f"topic alias {view.alias} stands for no topic", reason_code=0x82)
        view.topic = name.topic
        view.topic_bytes = name.topic_bytes
        return 0

    cdef int on_packet(self, const uint8_t* frame, Py_ssize_t header, Py_ssize_t total) except -1:
        cdef int kind = frame[0] >> 4
        cdef int flags = frame[0] & 15
        cdef int packet_id = 0, code = 0
        cdef uint8_t* at
        self.outlet.settle()           # an answer never overtakes what the client published before it
        if self.state == NEW:
            if kind != CONNECT:
                raise Violation(f"the first packet is {packet_name(kind)}, expected CONNECT [MQTT-3.1.0-1]")
            if total - header > LEVEL_AT and memcmp(frame + header, b"\0\4MQTT\5", LEVEL_AT + 1) == 0:
                self.level = 5         # said before it is decoded: one that cannot be read is answered in its own form
                if header > 2 and frame[header - 1] == 0:
                    raise Malformed("remaining length is longer than it need be [MQTT5-1.5.5-1]")
        elif kind == PUBACK or kind == PUBREC or kind == PUBREL or kind == PUBCOMP:
            if flags != (2 if kind == PUBREL else 0) or (total - header != 2 and self.level < 5):
                raise Malformed(f"{packet_name(kind)} with flags 0x{flags:x} and {total - header} bytes")
            if total - header == 2:
                packet_id = read_u16(frame + header)
            else:
                code = read_ack5(kind, frame + header, total - header, &packet_id)
            if packet_id == 0:
                raise Malformed(f"{packet_name(kind)} with packet id 0 [MQTT-2.3.1-1]")
            return self.on_release(packet_id) if kind == PUBREL else self.on_ack(kind, packet_id, code)
        elif kind == PINGREQ:
            if flags or total != header:
                raise Malformed(f"PINGREQ with flags 0x{flags:x} and {total - header} bytes")
            at = out_reserve(self.out, 2)
            at[0] = 0xD0
            at[1] = 0
            return self.touch()
        elif kind == CONNECT:
            raise Violation("a second CONNECT [MQTT-3.1.0-2]")
        elif (kind != SUBSCRIBE and kind != UNSUBSCRIBE and kind != DISCONNECT
              and not (kind == AUTH and self.level == 5)):
            if kind == 0 or kind == AUTH:
                raise Malformed(f"packet type {kind} is reserved [MQTT-2.2.1, MQTT5-2.1.2]")
            raise Violation(f"{packet_name(kind)} from a client")
        packet = decode_body(kind, flags, frame + header, total - header, self.level)
        if self.owner is not None:
            self.owner.packet(packet)
        self.outlet.spent += CALL_COST + FILTERS_COST * total
        return 0

    # --- acknowledgements ------------------------------------------------------------------------------

    cdef int answer(self, int first_byte, int packet_id, int code) except -1:
        if self.level == 5:
            put_ack5(self.out, first_byte, packet_id, code)
        else:
            put_ack(self.out, first_byte, packet_id)
        return self.touch()

    cdef int owe(self, int first_byte, int packet_id, int code) except -1:
        """Acknowledge a PUBLISH: now, or when it and those before it are kept."""
        cdef Pledge pledge = self.outlet.pledged
        if pledge is None and self.owing == 0:
            return self.answer(first_byte, packet_id, code)
        if pledge is None:
            pledge = Pledge.__new__(Pledge)
        if self.owed is None:
            self.owed = deque()
        pledge.first_byte, pledge.packet_id, pledge.code, pledge.owed = first_byte, packet_id, code, self
        self.owed.append(pledge)
        self.owing += 1
        return 0

    def pay(self):
        """Send the acknowledgements that nothing holds up any more. A message that was not kept ends the connection of
        a client before MQTT 5.0: it sends it again with the next [MQTT-4.4.0-1]."""
        cdef Pledge pledge
        while self.owing and (<Pledge> self.owed[0]).waiting == 0 and self.state == LIVE:
            pledge = self.owed.popleft()
            self.owing -= 1
            if pledge.code >= 0x80 and pledge.first_byte == 0x50:
                receipts_remove(&self.receipts, pledge.packet_id)
            if pledge.code >= 0x80 and self.level < 5:
                self.state = ENDED
                self.inbox.release()
                if self.owner is not None:
                    self.owner.failed(StorageFailed("a message of the client could not be kept"))
                return
            self.answer(pledge.first_byte, pledge.packet_id, pledge.code)
        self.flush_out()
        if self.held and not self.kept and self.owing < OWED_MAX // 2 and self.owner is not None:
            self.owner.resume_soon()

    cdef int on_release(self, int packet_id) except -1:
        cdef bint known = receipts_has(&self.receipts, packet_id)
        receipts_remove(&self.receipts, packet_id)
        return self.answer(0x70, packet_id, 0 if known else 0x92)

    cdef int on_ack(self, int kind, int packet_id, int code) except -1:
        cdef Flight* flight = window_find(&self.window, packet_id)
        if flight != NULL and window_index(&self.window, packet_id) >= self.window.count - self.unsent:
            flight = NULL                            # this connection has not sent it yet
        if flight == NULL or flight.state == DONE:
            if kind == PUBREC and code < 0x80:       # we know nothing of it any more: let the client finish
                return self.answer(0x62, packet_id, 0x92)
            return 0
        if kind == PUBACK and flight.state == SENT_ONCE:
            return self.land(flight)
        if kind == PUBCOMP and flight.state == RELEASED:
            return self.land(flight)
        if kind == PUBREC and flight.state != SENT_ONCE:
            if code >= 0x80:                         # refused by the client: over [MQTT5-4.3.3-4]
                return self.land(flight)
            flight.state = RELEASED
            if flight.message != NULL:
                self.stored_bytes -= message_size(flight.message)
                message_drop(flight.message)
                flight.message = NULL
            return self.answer(0x62, packet_id, 0)
        raise Violation(f"{packet_name(kind)} for packet id {packet_id}, which awaits another one [MQTT-4.3]")

    # --- the slow lane's side --------------------------------------------------------------------------

    def end(self):
        """Read nothing more; output can still be flushed."""
        if self.state < OFFLINE:
            self.state = ENDED

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
        old.stored_bytes = old.unsent = old.under_way = 0

    def replay(self):
        """Send again what was not acknowledged, in order and with DUP, then what waits [MQTT-4.4.0-1]."""
        self.unsent = self.window.count
        self.under_way = 0
        self.pump()

    def detach(self, bint offline):
        """The connection is gone: keep what is outstanding (`offline`) or give everything back."""
        self.inbox.release()
        self.outlet.begun -= self.begun
        self.begun = 0
        alias_clear(&self.aliases_in)
        self.held = False
        for pledge in self.owed or ():   # sent again it is a new message: rather twice than never
            receipts_remove(&self.receipts, (<Pledge> pledge).packet_id)
        self.owed = None
        self.owing = 0
        Recipient.detach(self, offline)

    def tick(self, double now) -> bool:
        """Once per sweep of the broker: freeze if congested for long; True if the keep-alive has run out.

        One and a half times the keep-alive without a packet [MQTT-3.1.2-24]; time spent held back because of
        another session does not count.
        """
        self.out.rest()
        if self.congested and not self.frozen:
            self.stall_ticks += STALL_WEIGHT
            if self.stall_ticks >= STALL_WEIGHT * self.limits.stall_ticks_max:
                self.frozen = True
                self.free_waiters()
        elif self.stall_ticks > 0 and not self.congested:
            self.stall_ticks -= 1
        if self.heard or (self.held and self.waiting_on is not self):
            self.heard = False
            self.last_heard = now
            return False
        if self.keep_alive_s == 0 or self.state != LIVE:
            return False
        return now - self.last_heard >= 1.5 * self.keep_alive_s

    def export(self) -> dict:
        """What must outlive the process, as plain values; `restore` takes it."""
        return exported(self)

    def restore(self, state):
        """Become an offline session with what `export` gave. ValueError if it does not fit together."""
        restored(self, state)

    @property
    def is_held(self) -> bool:
        """Whether its input waits."""
        return self.held
