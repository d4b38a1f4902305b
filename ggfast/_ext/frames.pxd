"""Frames between the daemon and one worker, for the other extensions.

Who owns which bytes:
- FrameReader owns one malloc'd block; `room()` gives the free part of it, valid until the next call on the
  reader. Handlers get bytes objects of their own.
- WorkerLink owns its descriptor and the bytes objects that wait for the socket.
"""

from libc.stdint cimport uint8_t, uint32_t


cdef class FrameReader:
    cdef object handler
    cdef uint8_t* data        # owned; NULL while capacity is 0
    cdef Py_ssize_t start     # first byte of the first frame that is not complete
    cdef Py_ssize_t end       # one past the last byte; 0 <= start <= end <= capacity
    cdef Py_ssize_t capacity
    cdef bint stopped
    cdef readonly uint32_t frames   # complete frames so far
    cdef Py_ssize_t room(self) except -1
    cdef int received(self, Py_ssize_t count) except -1
    cdef int one(self, const uint8_t* body, Py_ssize_t size, int kind) except -1
    cdef int called(self, const uint8_t* body, Py_ssize_t size) except -1
    cdef void release(self) noexcept


cdef class WorkerLink:
    cdef object loop
    cdef object handler
    cdef object waiting       # deque of bytes, the first partly sent
    cdef FrameReader reader
    cdef readonly int fd      # -1 once closed
    cdef readonly Py_ssize_t outbound_bytes
    cdef Py_ssize_t outbound_max
    cdef Py_ssize_t first_sent
    cdef bint started
    cdef int read_once(self) except -1
    cdef bint send(self, bytes frame) except -1
    cdef int end(self, str reason) except -1
