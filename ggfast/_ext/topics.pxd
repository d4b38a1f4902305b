"""Topic checks, matching and the filter tree, for the other extensions. Nothing borrowed is kept."""

from libc.stdint cimport uint8_t


cdef bint utf8_ok(const uint8_t* text, Py_ssize_t count) noexcept nogil
cdef const char* topic_fault(const uint8_t* topic, Py_ssize_t count, Py_ssize_t max_slashes) noexcept nogil
cdef const char* filter_fault(const uint8_t* pattern, Py_ssize_t count, Py_ssize_t max_slashes) noexcept nogil
cdef bint filter_matches(
    const uint8_t* pattern, Py_ssize_t pattern_bytes, const uint8_t* topic, Py_ssize_t topic_bytes,
    bint hash_takes_parent
) noexcept nogil


cdef class TopicTree:
    cdef object root                   # _Node
    cdef readonly bint hash_takes_parent
    cdef readonly Py_ssize_t count     # (filter, key) pairs stored
    cdef int collect(self, const uint8_t* topic, Py_ssize_t count, list found) except -1
