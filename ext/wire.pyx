"""A session's way out: one call takes all bytes, now or later; the caller may reuse its buffer at once.

    Session -> Wire.send -> Transport (transport.pyx)      own sockets, with or without TLS
                         -> CallWire                       any Python callable: the loop's transports, tests
"""

from cpython.bytes cimport PyBytes_FromStringAndSize

cimport cython


cdef class Wire:
    """See the module. A broken way out must not raise for whoever is sending: it ends its own session later."""

    cdef int send(self, const uint8_t* data, Py_ssize_t count) except -1:
        """Take `count` bytes: written at once as far as possible, the rest copied and written later."""
        raise NotImplementedError


@cython.final
cdef class CallWire(Wire):
    """Hands everything to `write(bytes)`, which keeps what it cannot write."""

    def __cinit__(self, write):
        self.write = write

    cdef int send(self, const uint8_t* data, Py_ssize_t count) except -1:
        self.write(PyBytes_FromStringAndSize(<const char*> data, count))
        return 0
