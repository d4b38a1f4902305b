"""The time that connections without a client may take. `parked` owns its transports until they are let on."""

from libc.stdint cimport int64_t


cdef class Newcomers:
    cdef object loop
    cdef object parked           # deque of transports whose reading waits
    cdef object timer
    cdef double share            # of all time
    cdef int64_t allowance_ns    # what may be spent now; negative: owed
    cdef int64_t most_ns
    cdef int64_t counted_at_ns

    cdef bint admits(self) noexcept
    cdef int charge(self, int64_t since_ns) noexcept
    cdef int park(self, transport) except -1


cdef int64_t now_ns() noexcept nogil
