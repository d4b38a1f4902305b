"""The seam between a session and whatever carries its bytes. Nothing sent is kept by the sender."""

from libc.stdint cimport uint8_t


cdef class Wire:
    cdef int send(self, const uint8_t* data, Py_ssize_t count) except -1


cdef class CallWire(Wire):
    cdef object write            # takes bytes
