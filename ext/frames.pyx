"""Frames between the daemon and one worker: cut, check, hand on; build and send.

    u32 little-endian length of (type byte + body) | type byte | body

A worker is hostile. A length is judged before memory is taken for it, memory grows only with bytes that
have arrived, nothing is ever received beside the bytes (no room for descriptors: the kernel discards what a
function sends), and what waits for a worker that does not read is bounded. Policy is the handler's.
"""

from collections import deque
import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memmove, strerror

cimport cython

from ggfast.errors import Malformed

cdef extern from "<sys/socket.h>" nogil:
    ssize_t recv(int fd, void* buffer, size_t size, int flags)
    ssize_t c_send "send"(int fd, const void* buffer, size_t size, int flags)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL

cdef enum:
    FRAME_MAX = 1024 * 1024
    BLOCK_FIRST = 4096        # most frames fit; grows by doubling, only when it is full
    BLOCK_KEPT = 64 * 1024    # given back when a larger one has become empty
    HEAD = 5                  # length and type
    READS_IN_DRAIN = 64

FRAME_BYTES_MAX = FRAME_MAX

cdef const char* ROUTER = b"arn:aws:lambda:::function:GGRouter"
cdef Py_ssize_t ROUTER_BYTES = 34


@cython.final
cdef class FrameReader:
    """Cuts a worker's byte stream into frames. Raises Malformed; after that it must not be fed again."""

    def __init__(self, handler):
        self.handler = handler

    def __dealloc__(self):
        free(self.data)

    @property
    def pending(self):
        """Bytes of a frame that is not complete."""
        return self.end - self.start

    @property
    def held(self):
        """Bytes of memory held for input."""
        return self.capacity

    def feed(self, bytes data):
        """Take `data` as if it had been read from the socket."""
        cdef Py_ssize_t done = 0
        cdef Py_ssize_t count
        cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
        while done < size and not self.stopped:
            count = min(self.room(), size - done)
            memcpy(self.data + self.end, PyBytes_AS_STRING(data) + done, <size_t> count)
            self.received(count)
            done += count

    def stop(self):
        """Hand on nothing more; may be called by the handler."""
        self.stopped = True

    cdef Py_ssize_t room(self) except -1:
        """Make the block ready for reading; returns the free bytes behind `data + end`, at least one."""
        cdef Py_ssize_t wanted
        cdef void* grown
        if self.start:
            memmove(self.data, self.data + self.start, <size_t> (self.end - self.start))
            self.end -= self.start
            self.start = 0
        if self.end == self.capacity:
            wanted = min(max(self.capacity * 2, <Py_ssize_t> BLOCK_FIRST), <Py_ssize_t> (FRAME_MAX + 4))
            grown = realloc(self.data, <size_t> wanted)
            if grown == NULL:
                raise MemoryError("no memory for a worker's frame")
            self.data = <uint8_t*> grown
            self.capacity = wanted
        return self.capacity - self.end

    cdef int received(self, Py_ssize_t count) except -1:
        """`count` bytes were written behind `data + end`: hand on every frame that is complete now."""
        cdef uint32_t size
        cdef uint8_t* head
        self.end += count
        while not self.stopped and self.end - self.start >= HEAD:
            head = self.data + self.start
            size = head[0] | (<uint32_t> head[1] << 8) | (<uint32_t> head[2] << 16) | (<uint32_t> head[3] << 24)
            if size == 0 or size > FRAME_MAX:
                raise Malformed(f"a frame of {size} bytes, allowed are 1 to {FRAME_MAX}")
            if head[4] != b'P' and head[4] != b'R' and head[4] != b'E' and head[4] != b'I':
                raise Malformed(f"a frame of type 0x{head[4]:02x}, expected P, R, E or I")
            if self.end - self.start < 4 + <Py_ssize_t> size:
                break
            self.start += 4 + <Py_ssize_t> size
            self.frames += 1
            self.one(head + HEAD, <Py_ssize_t> size - 1, head[4])
        if self.start == self.end:
            self.start = self.end = 0
            if self.capacity > BLOCK_KEPT:
                self.release()
        return 0

    cdef int one(self, const uint8_t* body, Py_ssize_t size, int kind) except -1:
        cdef uint32_t number
        if kind == b'P':
            return self.called(body, size)
        if kind == b'I':
            if size < 1:
                raise Malformed("an I frame without its status byte")
            self.handler.initialised(body[0] != 0, PyUnicode_DecodeUTF8(<char*> body + 1, size - 1, "replace"))
            return 0
        if size < 4:
            raise Malformed(f"a frame of type {chr(kind)} with {size} bytes, expected at least 4")
        number = _u32(body)
        payload = PyBytes_FromStringAndSize(<char*> body + 4, size - 4)
        if kind == b'R':
            self.handler.result(number, payload)
        else:
            self.handler.error(number, payload)
        return 0

    cdef int called(self, const uint8_t* body, Py_ssize_t size) except -1:
        """u32 call id, u8 invocation type, u16 ARN length, ARN, u16 context length, context, payload."""
        cdef Py_ssize_t arn_bytes, context_bytes, at
        cdef bint router
        if size < 9:
            raise Malformed(f"a call of {size} bytes, expected at least 9")
        arn_bytes = body[5] | (body[6] << 8)
        at = 7 + arn_bytes
        if at + 2 > size:
            raise Malformed(f"a call whose target has {arn_bytes} bytes in a frame of {size}")
        context_bytes = body[at] | (body[at + 1] << 8)
        at += 2
        if at + context_bytes > size:
            raise Malformed(f"a call whose client context has {context_bytes} bytes in a frame of {size}")
        if body[4] > 1:
            raise Malformed(f"a call of invocation type {body[4]}, expected 0 or 1")
        number = _u32(body)
        kind = body[4]
        context = PyBytes_FromStringAndSize(<char*> body + at, context_bytes)
        payload = PyBytes_FromStringAndSize(<char*> body + at + context_bytes, size - at - context_bytes)
        router = arn_bytes == ROUTER_BYTES and memcmp(body + 7, ROUTER, <size_t> ROUTER_BYTES) == 0
        if router:
            self.handler.publish(number, context, payload)
        else:
            arn = PyUnicode_DecodeUTF8(<char*> body + 7, arn_bytes, "replace")
            self.handler.call(number, kind, arn, context, payload)
        return 0

    cdef void release(self) noexcept:
        free(self.data)
        self.data = NULL
        self.capacity = self.start = self.end = 0


@cython.final
cdef class WorkerLink:
    """The daemon's end of one worker's socket; owns `fd`. Every method returns at once.

    `handler.ended(reason)` is called once, from a read, when the worker is gone or has broken the rules; never
    after close(). The `send_` methods return False when more than `outbound_max` bytes would wait for a worker
    that does not read.
    """

    def __init__(self, loop, int fd, handler, Py_ssize_t outbound_max):
        os.set_blocking(fd, False)
        self.loop = loop
        self.fd = fd
        self.handler = handler
        self.outbound_max = outbound_max
        self.waiting = deque()
        self.reader = FrameReader(handler)

    def __dealloc__(self):
        # Without the loop's help: reached only when close() was forgotten, and a descriptor must not leak.
        if self.fd >= 0:
            os.close(self.fd)

    @property
    def frames(self):
        """Complete frames so far; together with `inbound_bytes` it shows a frame that never ends."""
        return self.reader.frames

    @property
    def inbound_bytes(self):
        """Bytes of a frame whose rest has not arrived."""
        return self.reader.end - self.reader.start

    def start(self):
        """Begin to read."""
        self.started = True
        self.loop.add_reader(self.fd, self.readable)

    def send_config(self, bytes document):
        return self.send(_frame(b'C', NULL, 0, b"", document))

    def send_launch(self, bytes document):
        return self.send(_frame(b'L', NULL, 0, b"", document))

    def send_work(self, uint32_t invocation, bytes context, bytes payload):
        cdef uint8_t head[6]
        cdef Py_ssize_t size = PyBytes_GET_SIZE(context)
        if size > 65535:
            raise Malformed(f"a client context of {size} bytes, the limit is 65535")
        _put_u32(head, invocation)
        head[4] = size & 0xFF
        head[5] = size >> 8
        return self.send(_frame(b'W', head, 6, context, payload))

    def send_answer(self, uint32_t call, int status, bytes payload):
        cdef uint8_t head[5]
        _put_u32(head, call)
        head[4] = <uint8_t> status
        return self.send(_frame(b'A', head, 5, b"", payload))

    def send_shutdown(self):
        return self.send(_frame(b'X', NULL, 0, b"", b""))

    def readable(self):
        """The loop says there is input: one read, then every complete frame."""
        self.read_once()

    def drain(self):
        """Read what the kernel still holds: a worker's last frames arrive before the news of its death."""
        cdef int reads = 0
        while self.fd >= 0 and reads < READS_IN_DRAIN and self.read_once():
            reads += 1

    def writable(self):
        """The loop says there is room: send what waits."""
        cdef bytes first
        cdef ssize_t sent
        while self.waiting and self.fd >= 0:
            first = self.waiting[0]
            sent = c_send(
                self.fd,
                PyBytes_AS_STRING(first) + self.first_sent,
                <size_t> (PyBytes_GET_SIZE(first) - self.first_sent),
                MSG_DONTWAIT | MSG_NOSIGNAL,
            )
            if sent < 0:
                if errno == EAGAIN or errno == EINTR:
                    return
                self.waiting.clear()  # the reader will find the end of the stream
                self.outbound_bytes = 0
                break
            self.outbound_bytes -= sent
            self.first_sent += sent
            if self.first_sent == PyBytes_GET_SIZE(first):
                self.waiting.popleft()
                self.first_sent = 0
        if self.fd >= 0:
            self.loop.remove_writer(self.fd)

    def close(self):
        """Stop reading and close the descriptor; harmless when repeated."""
        self.reader.stopped = True
        if self.fd < 0:
            return
        if self.started:
            self.loop.remove_reader(self.fd)
        if self.waiting:
            self.loop.remove_writer(self.fd)
            self.waiting.clear()
            self.outbound_bytes = 0
        os.close(self.fd)
        self.fd = -1
        self.reader.release()

    cdef int read_once(self) except -1:
        """Returns 0 when nothing was there or the stream has ended."""
        cdef ssize_t count
        cdef Py_ssize_t room = self.reader.room()
        count = recv(self.fd, self.reader.data + self.reader.end, <size_t> room, MSG_DONTWAIT)
        if count < 0:
            if errno != EAGAIN and errno != EINTR:
                self.end("its socket failed: " + strerror(errno).decode("utf-8", "replace"))
            return 0
        if count == 0:
            self.end("it closed its socket" + (" inside a frame" if self.reader.end else ""))
            return 0
        try:
            self.reader.received(count)
        except Malformed as error:
            self.end(f"it sent {error}")
            return 0
        return 1

    cdef bint send(self, bytes frame) except -1:
        cdef Py_ssize_t size = PyBytes_GET_SIZE(frame)
        cdef ssize_t sent
        if self.fd < 0:
            return True
        if self.waiting:
            if self.outbound_bytes + size > self.outbound_max:
                return False
            self.waiting.append(frame)
            self.outbound_bytes += size
            return True
        sent = c_send(self.fd, PyBytes_AS_STRING(frame), <size_t> size, MSG_DONTWAIT | MSG_NOSIGNAL)
        if sent == size:
            return True
        if sent < 0:
            if errno != EAGAIN and errno != EINTR:
                return True  # the worker is gone; the reader will find the end of the stream
            sent = 0
        if size - sent > self.outbound_max:
            return False
        self.waiting.append(frame)
        self.first_sent = sent
        self.outbound_bytes = size - sent
        self.loop.add_writer(self.fd, self.writable)
        return True

    cdef int end(self, str reason) except -1:
        if not self.reader.stopped:
            self.close()
            self.handler.ended(reason)
        return 0


cdef inline uint32_t _u32(const uint8_t* at) noexcept:
    return at[0] | (<uint32_t> at[1] << 8) | (<uint32_t> at[2] << 16) | (<uint32_t> at[3] << 24)


cdef inline void _put_u32(uint8_t* at, uint32_t value) noexcept:
    at[0] = value & 0xFF
    at[1] = (value >> 8) & 0xFF
    at[2] = (value >> 16) & 0xFF
    at[3] = value >> 24


cdef bytes _frame(uint8_t kind, const uint8_t* head, Py_ssize_t head_bytes, bytes middle, bytes tail):
    """One frame in one piece of memory: a second system call costs more than the copy."""
    cdef Py_ssize_t middle_bytes = PyBytes_GET_SIZE(middle)
    cdef Py_ssize_t tail_bytes = PyBytes_GET_SIZE(tail)
    cdef Py_ssize_t size = 1 + head_bytes + middle_bytes + tail_bytes
    if size > FRAME_MAX:
        raise Malformed(f"a frame of {size} bytes for a worker, the limit is {FRAME_MAX}")
    frame = PyBytes_FromStringAndSize(NULL, 4 + size)
    cdef uint8_t* at = <uint8_t*> PyBytes_AS_STRING(frame)
    _put_u32(at, <uint32_t> size)
    at[4] = kind
    at += HEAD
    if head_bytes:
        memcpy(at, head, <size_t> head_bytes)
    memcpy(at + head_bytes, PyBytes_AS_STRING(middle), <size_t> middle_bytes)
    memcpy(at + head_bytes + middle_bytes, PyBytes_AS_STRING(tail), <size_t> tail_bytes)
    return frame
