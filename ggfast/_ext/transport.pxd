"""A non-blocking socket under a session.

Who owns which bytes: `pending` is the transport's own block and holds only what the kernel did not take. What is
read lies in one window shared by all transports of the process; a session borrows it during `feed`. The descriptor
belongs to the transport from its making on, and is closed exactly once.
"""

from libc.stdint cimport uint8_t

from ggfast._ext.newcomers cimport Newcomers
from ggfast._ext.session cimport Session
from ggfast._ext.wire cimport Wire


cdef enum:
    READ_BYTES = 256 * 1024              # one read: large enough to batch, small enough to leave others their turn


cdef class Transport(Wire):
    cdef readonly object loop
    cdef object protocol                 # None once connection_lost has been called
    cdef Session session                 # what is fed, or None: the protocol's data_received gets bytes
    cdef object peer
    cdef Newcomers newcomers             # whose time it takes until its client is in; None then
    cdef uint8_t* pending                # owned; NULL while capacity is 0
    cdef Py_ssize_t start                # first byte not yet written
    cdef Py_ssize_t end                  # one past the last
    cdef Py_ssize_t capacity
    cdef Py_ssize_t high                 # above it the protocol shall pause,
    cdef Py_ssize_t low                  # at or below it go on
    cdef int fd                          # -1 once closed
    cdef bint watched                    # the loop tells us when there is something to read
    cdef bint forgotten                  # the loop gave up watching by itself and keeps the remains
    cdef bint paused                     # by pause_reading
    cdef bint armed                      # the loop tells us when there is room to write
    cdef bint choked                     # pause_writing has been said
    cdef bint closing                    # takes nothing more in either direction
    cdef bint over                       # connection_lost is due or done

    cdef int receive(self) except -1
    cdef bint is_stranger(self) noexcept
    cdef int receive_metered(self) except -1
    cdef int deliver(self, const uint8_t* data, Py_ssize_t count) except -1
    cdef int farewell(self) except -1
    cdef int put(self, const uint8_t* data, Py_ssize_t count) except -1
    cdef int keep(self, const uint8_t* data, Py_ssize_t count) except -1
    cdef int drained(self) except -1
    cdef int watch(self) except -1
    cdef int unwatch(self) except -1
    cdef int disarm(self) except -1
    cdef int end_of_input(self) except -1
    cdef int finish(self, object error) except -1
    cdef int say_lost(self, object error) except -1
    cdef int broke(self, object error, str what) except -1
    cdef int readable(self) except -1
    cdef int unobserved(self) except -1
    cdef int forget(self) except -1
    cdef void release(self) noexcept
