"""One MQTT client's protocol state. No sockets, no clock: bytes in, bytes to a Wire, time passed in.

    bytes -> feed -> [inbox] -> handle -> PUBLISH            -> outlet.publish_view  (the lane)
                                        -> acknowledgements   -> window, backlog      (the lane)
                                        -> everything else    -> owner.packet(value)  (Python)

The input is parsed where it lies; `inbox` only holds the beginning of a packet whose end has not come, or
what waits because a target of this client is congested. Output, window and backlog: recipient.pyx.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

cimport cython

from ggfast._ext.buffers cimport message_drop, message_size, out_reserve
from ggfast._ext.framing cimport (
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
    PublishView,
    decode_body,
    put_ack,
    read_length,
    read_u16,
)
from ggfast._ext.recipient cimport ENDED, LIVE, NEW, OFFLINE, Outlet
from ggfast._ext.window cimport (
    DONE,
    RELEASED,
    SENT_ONCE,
    Flight,
    receipts_add,
    receipts_remove,
    window_find,
)

from ggfast._ext.framing import packet_name
from ggfast.errors import Malformed, Violation

cdef enum:
    BATCH_BYTES = 4 * 1024 * 1024    # handed to targets in one batch; past it the input waits a turn


@cython.final
cdef class Session(Recipient):
    """See the module."""

    def __cinit__(self, *args, **kwargs):
        self.inbox = InBuffer()

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
        try:
            if self.held:
                return self.inbox.put(at, left)
            if self.inbox.end:
                self.top_up(&at, &left)
            if left and self.state < OFFLINE and self.outlet.blocked_on is None and self.inbox.end == 0:
                used = self.handle(at, left)
                self.outlet.settle()
                at += used
                left -= used
            if left and self.state < OFFLINE:
                self.inbox.put(at, left)
        except Exception as error:
            problem = error
        return self.finish(problem)

    def resume(self):
        """Go on with the input that waited; reading starts again unless it has to wait once more."""
        cdef Py_ssize_t used
        if self.state >= OFFLINE or not self.held:
            return
        problem = None
        self.held = False
        self.waiting_on = None
        self.outlet.blocked_on = None
        try:
            used = self.handle(self.inbox.data + self.inbox.start, self.inbox.end - self.inbox.start)
            self.outlet.settle()
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
        elif overspent or blocked_on is not None:
            self.hold(None)
        return 0

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
            total = 1 + used + remaining
            if total > packet_bytes_max:
                name = packet_name(at[0] >> 4)
                raise Violation(f"{name} of {total} bytes, the limit is {packet_bytes_max}")
            if total > left:
                break
            if (at[0] >> 4) == PUBLISH and self.state == LIVE:
                self.on_publish(at, 1 + used, total)
            else:
                self.on_packet(at, 1 + used, total)
            at += total
            left -= total
            if self.state >= OFFLINE or outlet.blocked_on is not None or outlet.spent > BATCH_BYTES:
                break
        if at != begin:
            self.heard = True
        return at - begin

    cdef int on_publish(self, const uint8_t* frame, Py_ssize_t header, Py_ssize_t total) except -1:
        cdef PublishView view
        cdef const uint8_t* body = frame + header
        cdef Py_ssize_t rest = total - header - 2
        cdef int packet_id = 0
        view.qos = (frame[0] >> 1) & 3
        view.retain = frame[0] & 1
        if view.qos == 3:
            raise Malformed("PUBLISH with QoS 3 [MQTT-3.3.1-4]")
        if rest < 0:
            raise Malformed("PUBLISH without a topic")
        view.frame = frame
        view.frame_bytes = total
        view.topic = body + 2
        view.topic_bytes = read_u16(body)
        rest -= view.topic_bytes
        view.payload = view.topic + view.topic_bytes
        if view.qos:
            rest -= 2
            view.payload += 2
        if rest < 0:
            raise Malformed("PUBLISH ends inside its topic or packet id")
        view.payload_bytes = rest
        if rest > self.limits.payload_bytes_max:
            raise Violation(f"a payload of {rest} bytes, the limit is {self.limits.payload_bytes_max}")
        self.messages_in += 1
        self.outlet.tally.received += 1
        if view.qos == 0:
            if frame[0] & 8:
                raise Malformed("PUBLISH with QoS 0 and DUP [MQTT-3.3.1-2]")
            return self.outlet.publish_view(self, &view)
        packet_id = read_u16(view.payload - 2)
        if packet_id == 0:
            raise Malformed("PUBLISH with packet id 0 [MQTT-2.3.1-1]")
        if view.qos == 1:
            self.outlet.publish_view(self, &view)
            put_ack(self.out, 0x40, packet_id)
        else:
            if receipts_add(&self.receipts, packet_id):  # delivered once, at the first receipt [MQTT-4.3.3-2]
                self.outlet.publish_view(self, &view)
            put_ack(self.out, 0x50, packet_id)
        return self.touch()

    cdef int on_packet(self, const uint8_t* frame, Py_ssize_t header, Py_ssize_t total) except -1:
        cdef int kind = frame[0] >> 4
        cdef int flags = frame[0] & 15
        cdef int packet_id
        cdef uint8_t* at
        self.outlet.settle()           # an answer never overtakes what the client published before it
        if self.state == NEW:
            if kind != CONNECT:
                raise Violation(f"the first packet is {packet_name(kind)}, expected CONNECT [MQTT-3.1.0-1]")
        elif kind == PUBACK or kind == PUBREC or kind == PUBREL or kind == PUBCOMP:
            if flags != (2 if kind == PUBREL else 0) or total - header != 2:
                raise Malformed(f"{packet_name(kind)} with flags 0x{flags:x} and {total - header} bytes")
            packet_id = read_u16(frame + header)
            if packet_id == 0:
                raise Malformed(f"{packet_name(kind)} with packet id 0 [MQTT-2.3.1-1]")
            return self.on_ack(kind, packet_id)
        elif kind == PINGREQ:
            if flags or total != header:
                raise Malformed(f"PINGREQ with flags 0x{flags:x} and {total - header} bytes")
            at = out_reserve(self.out, 2)
            at[0] = 0xD0
            at[1] = 0
            return self.touch()
        elif kind == CONNECT:
            raise Violation("a second CONNECT [MQTT-3.1.0-2]")
        elif kind != SUBSCRIBE and kind != UNSUBSCRIBE and kind != DISCONNECT:
            raise Violation(f"{packet_name(kind)} from a client")
        packet = decode_body(kind, flags, frame + header, total - header, self.level)
        if self.owner is not None:
            self.owner.packet(packet)
        return 0

    # --- acknowledgements ------------------------------------------------------------------------------

    cdef int on_ack(self, int kind, int packet_id) except -1:
        cdef Flight* flight
        if kind == PUBREL:
            receipts_remove(&self.receipts, packet_id)
            put_ack(self.out, 0x70, packet_id)
            return self.touch()
        flight = window_find(&self.window, packet_id)
        if flight == NULL or flight.state == DONE:
            if kind == PUBREC:                       # we know nothing of it any more: let the client finish
                put_ack(self.out, 0x62, packet_id)
                self.touch()
            return 0
        if kind == PUBACK and flight.state == SENT_ONCE:
            return self.land(flight)
        if kind == PUBCOMP and flight.state == RELEASED:
            return self.land(flight)
        if kind == PUBREC and flight.state != SENT_ONCE:
            flight.state = RELEASED
            if flight.message != NULL:
                self.stored_bytes -= message_size(flight.message)
                message_drop(flight.message)
                flight.message = NULL
            put_ack(self.out, 0x62, packet_id)
            return self.touch()
        raise Violation(f"{packet_name(kind)} for packet id {packet_id}, which awaits another one [MQTT-4.3]")

    # --- the slow lane's side --------------------------------------------------------------------------

    def end(self):
        """Read nothing more; output can still be flushed."""
        if self.state < OFFLINE:
            self.state = ENDED

    def detach(self, bint offline):
        """The connection is gone: keep what is outstanding (`offline`) or give everything back."""
        self.inbox.release()
        self.held = False
        Recipient.detach(self, offline)

    def tick(self, double now) -> bool:
        """Once per sweep of the broker: freeze if congested for long; True if the keep-alive has run out.

        One and a half times the keep-alive without a packet [MQTT-3.1.2-24]; time spent held back because of
        another session does not count.
        """
        if self.congested and not self.frozen:
            self.stall_ticks += 1
            if self.stall_ticks >= self.limits.stall_ticks_max:
                self.frozen = True
                self.free_waiters()
        if self.heard or (self.held and self.waiting_on is not self):
            self.heard = False
            self.last_heard = now
            return False
        if self.keep_alive_s == 0 or self.state != LIVE:
            return False
        return now - self.last_heard >= 1.5 * self.keep_alive_s

    @property
    def is_held(self) -> bool:
        """Whether its input waits."""
        return self.held
