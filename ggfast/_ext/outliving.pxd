"""A session's state as plain values."""

from ggfast._ext.recipient cimport Recipient


cdef dict exported(Recipient self)
cdef int restored(Recipient self, state) except -1
