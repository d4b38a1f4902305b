"""Plain TCP and UNIX stream sockets under sessions; what the loop does for it is say when a descriptor is ready.

    readable -> one recv into the shared window -> Session.feed -> ... -> send of whichever transports
    writable -> only armed after the kernel took less than was given

A quiet message costs epoll_wait, recv and send, nothing else. Never blocks, never retries in a circle: what is
left is reported again, because the loop's epoll is level-triggered. `connection_lost` comes exactly once and always
on a later turn: a write that fails belongs to somebody else's batch.

One thread uses transports at a time: the read window is one for the process.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove, memset

cimport cython

from ggfast._ext.buffers cimport note_released, release_pages, trim_heap
from ggfast._ext.newcomers cimport now_ns
from ggfast._ext.recipient cimport NEW

import os

from ggfast import limits

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        unsigned short sa_family
    cdef struct sockaddr_storage:
        unsigned short ss_family
    int SOL_SOCKET, SO_KEEPALIVE
    int AF_INET, AF_INET6, MSG_NOSIGNAL, MSG_DONTWAIT, SOCK_NONBLOCK, SOCK_CLOEXEC
    ssize_t recv(int, void*, size_t, int)
    ssize_t send(int, const void*, size_t, int)
    int accept4(int, sockaddr*, socklen_t*, int)
    int setsockopt(int, int, int, const void*, socklen_t)

cdef extern from "<netinet/in.h>" nogil:
    cdef struct in_addr:
        pass
    cdef struct in6_addr:
        pass
    cdef struct sockaddr_in:
        uint16_t sin_port
        in_addr sin_addr
    cdef struct sockaddr_in6:
        uint16_t sin6_port
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    int IPPROTO_TCP
    uint16_t ntohs(uint16_t)
    uint32_t ntohl(uint32_t)

cdef extern from "<netinet/tcp.h>" nogil:
    int TCP_NODELAY, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT

cdef extern from "<arpa/inet.h>" nogil:
    const char* inet_ntop(int, const void*, char*, socklen_t)

cdef extern from "<unistd.h>" nogil:
    int close_descriptor "close"(int)

cdef enum:
    PENDING_FIRST = 4096             # first block for what the kernel did not take; grows by doubling
    ADDRESS_TEXT_BYTES = 64          # the longest IPv6 text has 45

cdef uint8_t window[READ_BYTES]      # untouched pages cost nothing
cdef bint window_in_use = False
cdef int probe_after_s = limits.PROBE_AFTER_S, probe_pause_s = limits.PROBE_PAUSE_S, probes = limits.PROBES


def accept(int listener):
    """The next connection of a listening descriptor as (descriptor, peer name), None if nobody waits.

    The descriptor is non-blocking and closed at exec; the peer name has the socket module's form. Never blocks.
    Raises OSError as accept4(2) does: for shortages, and for connections that failed before they were taken.
    """
    cdef sockaddr_storage address
    cdef socklen_t size = sizeof(address)
    cdef int fd, on = 1
    memset(&address, 0, sizeof(address))
    fd = accept4(listener, <sockaddr*> &address, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
    if fd < 0:
        if errno == EAGAIN or errno == EINTR:
            return None
        raise OSError(errno, os.strerror(errno))
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on))   # refused by UNIX sockets, which need none
    ask_for_signs_of_life(fd)
    return fd, name_of(&address)


cdef void ask_for_signs_of_life(int fd) noexcept:
    """Let the kernel notice a peer that lost its power: MQTT has a keep-alive, but a client may do without."""
    cdef int on = 1, idle_s = probe_after_s, pause_s = probe_pause_s, count = probes
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on))
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s))
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &pause_s, sizeof(pause_s))
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count))


def give_back_memory():
    """Return what a burst has left behind to the system: free pieces of the heap, the read window.

    Costs about a millisecond for 8 MiB of heap; the next burst takes the memory anew.
    """
    trim_heap()
    if not window_in_use:
        release_pages(window, READ_BYTES)


cdef object name_of(const sockaddr_storage* address):
    cdef char text[ADDRESS_TEXT_BYTES]
    cdef const sockaddr_in* four = <const sockaddr_in*> address
    cdef const sockaddr_in6* six = <const sockaddr_in6*> address
    if address.ss_family == AF_INET:
        inet_ntop(AF_INET, &four.sin_addr, text, ADDRESS_TEXT_BYTES)
        return (<bytes> text).decode("ascii"), ntohs(four.sin_port)
    if address.ss_family == AF_INET6:
        inet_ntop(AF_INET6, &six.sin6_addr, text, ADDRESS_TEXT_BYTES)
        return ((<bytes> text).decode("ascii"), ntohs(six.sin6_port), ntohl(six.sin6_flowinfo), six.sin6_scope_id)
    return ""


@cython.final
cdef class Watch:
    """What the loop calls when a descriptor can be read. The loop letting go of it unasked is news too.

    libuv ends the watching of a socket in an error state after one last call. If that call still found data, the
    error itself would never be seen: so the end of this object has the transport look once more.
    """

    cdef PyObject* transport             # owned reference; no garbage collection, so that __dealloc__ can use it

    def __cinit__(self, Transport transport not None):
        self.transport = <PyObject*> transport
        Py_INCREF(transport)

    def __call__(self):
        cdef Transport transport = <Transport> self.transport
        if transport.watched:
            try:
                if transport.newcomers is not None:
                    transport.receive_metered()
                else:
                    transport.receive()
            except Exception as error:
                transport.broke(error, "what a connection received could not be handled")

    def __dealloc__(self):
        cdef Transport transport = <Transport> self.transport
        if transport.watched:
            try:
                transport.unobserved()
            except Exception as error:
                transport.broke(error, "a connection could not be watched")
        Py_DECREF(transport)


cdef class Transport(Wire):
    """See the module. Offers what a Connection uses of asyncio's transports; sessions send through Wire."""

    def __cinit__(self, loop, int fd, protocol, peer="", *args, **kwargs):
        self.loop = loop
        self.fd = fd
        self.protocol = protocol
        self.session = getattr(protocol, "session", None)
        self.peer = peer
        self.high = limits.BROKER_WRITE_HIGH_BYTES
        self.low = self.high // 4

    def __dealloc__(self):
        free(self.pending)
        if self.fd >= 0:                     # the loop went before the connection did
            close_descriptor(self.fd)

    def begin(self):
        """Tell the protocol that the connection is made, then read. To be called once.

        What the protocol raises is passed on after the connection has been given up.
        """
        try:
            self.protocol.connection_made(self)
        except BaseException:
            self.finish(None)
            raise
        if not self.paused:
            self.watch()

    # --- reading ---------------------------------------------------------------------------------------

    cdef int receive(self) except -1:
        """One read, handled."""
        global window_in_use
        cdef Py_ssize_t count
        if window_in_use:                    # another thread's loop is in the middle of it: epoll brings us back
            return 0
        count = recv(self.fd, window, READ_BYTES, MSG_DONTWAIT)
        if count > 0:
            window_in_use = True
            try:
                self.deliver(window, count)
            finally:
                window_in_use = False
        elif count == 0:
            self.end_of_input()
        elif errno != EAGAIN and errno != EINTR:
            self.finish(os_error())
        return 0

    def meter(self, Newcomers newcomers not None):
        """Take the time of `newcomers` until the client is in."""
        self.newcomers = newcomers

    cdef bint is_stranger(self) noexcept:
        return self.protocol is None or (self.session is not None and self.session.state == NEW)

    cdef int receive_metered(self) except -1:
        """One read, if newcomers have time; else later."""
        cdef Newcomers newcomers = self.newcomers
        cdef int64_t began
        if not self.is_stranger():
            self.newcomers = None
            return self.receive()
        if not newcomers.admits():
            self.unwatch()
            return newcomers.park(self)
        began = now_ns()
        try:
            return self.receive()
        finally:
            newcomers.charge(began)

    def _let_on(self):
        """Parked reading goes on: what came meanwhile is there at once."""
        if not self.paused and not self.closing and not self.watched:
            self.watch()
            self.readable()

    cdef int readable(self) except -1:
        """Read once; what the protocol raises ends the connection."""
        try:
            self.receive()
        except Exception as error:
            self.broke(error, "what a connection received could not be handled")
        return 0

    cdef int deliver(self, const uint8_t* data, Py_ssize_t count) except -1:
        if self.session is not None:
            return self.session.feed(data, count)
        self.protocol.data_received(PyBytes_FromStringAndSize(<const char*> data, count))
        return 0

    cdef int watch(self) except -1:
        if not self.watched and not self.closing:
            self.loop.add_reader(self.fd, Watch(self))
            self.watched = True
        return 0

    cdef int unwatch(self) except -1:
        if self.watched:
            self.watched = False
            self.loop.remove_reader(self.fd)
        return 0

    cdef int unobserved(self) except -1:
        """The loop has dropped us: the socket is in an error state, or the loop itself is closed."""
        self.watched = False
        if self.loop.is_closed():
            return 0
        self.forgotten = True
        self.loop.call_soon(self._look_again)
        return 0

    cdef int forget(self) except -1:
        """Take away what is left of a watching that the loop gave up: it is in the way of the descriptor's next one."""
        if self.forgotten:
            self.forgotten = False
            self.loop.remove_reader(self.fd)
        return 0

    def _look_again(self):
        if self.closing or self.paused or self.watched:
            return
        self.forget()
        self.watch()
        self.readable()  # not through a Watch: its end would count as one more dropped by the loop

    cdef int end_of_input(self) except -1:
        """The peer sends nothing more: for MQTT the connection is over, but for what is still on its way out."""
        self.close()
        return 0

    def pause_reading(self):
        """Take nothing from the socket until `resume_reading`."""
        self.paused = True
        self.unwatch()

    def resume_reading(self):
        """Take from the socket again."""
        self.paused = False
        self.watch()

    # --- writing ---------------------------------------------------------------------------------------

    cdef int send(self, const uint8_t* data, Py_ssize_t count) except -1:
        return self.put(data, count)

    cdef int put(self, const uint8_t* data, Py_ssize_t count) except -1:
        """Give the kernel what it takes and keep a copy of the rest, in order."""
        cdef Py_ssize_t sent = 0
        if self.closing or count <= 0:
            return 0
        if self.end == self.start:
            sent = send(self.fd, data, <size_t> count, MSG_NOSIGNAL | MSG_DONTWAIT)
            if sent == count:
                return 0
            if sent < 0:
                if errno != EAGAIN and errno != EINTR:
                    return self.finish(os_error())
                sent = 0
        self.keep(data + sent, count - sent)
        if not self.armed:
            self.armed = True
            self.loop.add_writer(self.fd, self._writable)
        if not self.choked and self.end - self.start > self.high and self.protocol is not None:
            self.choked = True
            self.protocol.pause_writing()
        return 0

    cdef int keep(self, const uint8_t* data, Py_ssize_t count) except -1:
        cdef Py_ssize_t waiting = self.end - self.start
        cdef Py_ssize_t capacity
        cdef uint8_t* block
        if self.capacity - self.end < count:
            if self.start:
                memmove(self.pending, self.pending + self.start, <size_t> waiting)
                self.start = 0
                self.end = waiting
            if self.capacity < waiting + count:
                capacity = max(self.capacity, <Py_ssize_t> PENDING_FIRST)
                while capacity < waiting + count:
                    capacity *= 2
                block = <uint8_t*> realloc(self.pending, <size_t> capacity)
                if block == NULL:
                    raise MemoryError(f"no memory for {capacity} bytes of output")
                self.pending = block
                self.capacity = capacity
        memcpy(self.pending + self.end, data, <size_t> count)
        self.end += count
        return 0

    def _writable(self):
        cdef Py_ssize_t sent
        if not self.armed:
            return
        sent = send(self.fd, self.pending + self.start, <size_t> (self.end - self.start), MSG_NOSIGNAL | MSG_DONTWAIT)
        if sent < 0:
            if errno != EAGAIN and errno != EINTR:
                self.finish(os_error())
            return
        self.start += sent
        try:
            self.drained()
        except Exception as error:
            self.broke(error, "a connection could not go on writing")

    cdef int drained(self) except -1:
        """The consequences of less waiting than before."""
        if self.start == self.end:
            self.release()
            self.disarm()
            if self.closing:
                return self.finish(None)
        if self.choked and not self.closing and self.end - self.start <= self.low:
            self.choked = False
            self.protocol.resume_writing()
        return 0

    cdef int disarm(self) except -1:
        if self.armed:
            self.armed = False
            self.loop.remove_writer(self.fd)
        return 0

    cdef void release(self) noexcept:
        note_released(self.capacity)
        free(self.pending)
        self.pending = NULL
        self.start = self.end = self.capacity = 0

    def write(self, bytes data not None):
        """Send `data`: at once as far as the kernel takes it, the rest later. Ignored once closing."""
        self.send(<const uint8_t*> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    def get_write_buffer_size(self) -> int:
        """Bytes the kernel has not taken yet."""
        return self.end - self.start

    def set_write_buffer_limits(self, high=None, low=None):
        """Bytes waiting above which the protocol is told to pause, and at which it is told to go on."""
        self.high = limits.BROKER_WRITE_HIGH_BYTES if high is None else high
        self.low = self.high // 4 if low is None else low

    # --- the end ---------------------------------------------------------------------------------------

    def close(self):
        """Read nothing more, send what waits, then end; a peer that does not take it is cut off after a while.

        Safe to call at any time, from inside a read too.
        """
        if self.closing:
            return
        self.unwatch()
        self.farewell()
        if self.closing:                     # the farewell found the connection broken
            return
        self.closing = True
        if self.end == self.start:
            self.finish(None)
        else:
            self.loop.call_later(limits.TRANSPORT_LINGER_S, self.abort)

    def abort(self):
        """End without sending what waits."""
        self.finish(None)

    def is_closing(self) -> bool:
        """Whether nothing more is taken in either direction."""
        return self.closing

    cdef int farewell(self) except -1:
        """The last words of an orderly end; TLS has some."""
        return 0

    cdef int finish(self, object error) except -1:
        """Stop at once; the protocol hears of it on the loop's next turn."""
        if self.over:
            return 0
        self.over = self.closing = True
        self.unwatch()
        self.disarm()
        self.release()
        self.loop.call_soon(self._lost, error)
        return 0

    cdef int broke(self, object error, str what) except -1:
        """Our own fault: this connection ends, the loop's handler hears why."""
        self.loop.call_exception_handler({"message": what, "exception": error, "transport": self})
        return self.finish(error)

    def _lost(self, error):
        cdef int64_t began = now_ns() if self.newcomers is not None else 0
        try:
            self.say_lost(error)
        finally:
            if began:
                self.newcomers.charge(began)
                self.newcomers = None

    cdef int say_lost(self, object error) except -1:
        protocol, self.protocol = self.protocol, None
        self.session = None
        if self.fd >= 0:
            self.forget()
            close_descriptor(self.fd)
            self.fd = -1
        if protocol is not None:             # TLS: none was made if the handshake failed
            protocol.connection_lost(error)
        return 0

    # --- looking in ------------------------------------------------------------------------------------

    def get_extra_info(self, str name, default=None):
        """`peername` as the socket module writes it; `default` for what is not known."""
        return self.peer if name == "peername" else default

    def fileno(self) -> int:
        """The descriptor, -1 once it is closed."""
        return self.fd


cdef object os_error():
    """What errno says, as the exception Python has for it."""
    return OSError(errno, os.strerror(errno))
