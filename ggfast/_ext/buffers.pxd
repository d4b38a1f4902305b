"""Byte windows and the bounded message FIFO, for the other extensions.

Who owns which bytes:
- InBuffer and OutBuffer own one malloc'd block each; a pointer into it dies at the next call that may grow,
  consume, take or clear. Nobody keeps such a pointer across a call into Python.
- Ring owns one reference to each Python object in it.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy


cdef void note_released(Py_ssize_t capacity) noexcept nogil
cdef void trim_heap() noexcept nogil
cdef void release_pages(uint8_t* start, Py_ssize_t count) noexcept nogil


cdef class InBuffer:
    cdef uint8_t* data        # owned; NULL while capacity is 0
    cdef Py_ssize_t start     # first unread byte
    cdef Py_ssize_t end       # one past the last byte; 0 <= start <= end <= capacity
    cdef Py_ssize_t capacity
    cdef int put(self, const uint8_t* source, Py_ssize_t count) except -1
    cdef void skip(self, Py_ssize_t count) noexcept
    cdef void release(self) noexcept


cdef class OutBuffer:
    cdef uint8_t* data        # owned; NULL while capacity is 0
    cdef Py_ssize_t used      # 0 <= used <= capacity
    cdef Py_ssize_t capacity
    cdef int quiet            # consecutive takes that used less than a quarter of the capacity
    cdef int grow(self, Py_ssize_t count) except -1
    cdef void emptied(self) noexcept
    cdef void rest(self) noexcept
    cdef void release(self) noexcept


cdef inline uint8_t* out_reserve(OutBuffer out, Py_ssize_t count) except NULL:
    """Room for `count` bytes at the end, already counted as used; valid until the next call on `out`."""
    cdef uint8_t* at
    if out.capacity - out.used < count or out.data == NULL:
        out.grow(count)
    at = out.data + out.used
    out.used += count
    return at


cdef inline int out_put(OutBuffer out, const uint8_t* source, Py_ssize_t count) except -1:
    memcpy(out_reserve(out, count), source, <size_t> count)
    return 0


cdef struct RingEntry:
    void* topic               # bytes, one owned reference each
    void* payload             # bytes
    void* source              # str


cdef class Ring:
    cdef RingEntry* entries   # owned circular array of `slots`
    cdef Py_ssize_t slots     # 0 or a power of two, at most the first one >= max_entries
    cdef Py_ssize_t head      # index of the oldest
    cdef readonly Py_ssize_t count
    cdef readonly Py_ssize_t bytes
    cdef readonly Py_ssize_t max_entries
    cdef readonly Py_ssize_t max_bytes
    cdef readonly bint drop_oldest
    cdef readonly int64_t dropped_oldest
    cdef readonly int64_t refused
    cdef bint has_room(self, Py_ssize_t size) noexcept
    cdef bint put(self, bytes topic, bytes payload, str source) except -1
    cdef int discard_oldest(self) except -1
    cdef int grow(self) except -1


cdef uint32_t crc32c_update(uint32_t crc, const uint8_t* data, Py_ssize_t count) noexcept nogil
