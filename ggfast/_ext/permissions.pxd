"""Questions to a broker's authoriser."""

from libc.stdint cimport int64_t


cdef bint granted(question, tuple about) except -1
cdef int64_t keep_permitted(authoriser, str source, str topic, list found, dict shared) except -1
