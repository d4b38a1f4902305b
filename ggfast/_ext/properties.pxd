"""MQTT 5 properties in C, for the lane: strict scanning where they lie, and the copy that is passed on.

Every function borrows the bytes for the call and keeps nothing. `kind` is a control packet's type, or
WILL_PROPERTIES for those of a will inside CONNECT; `at` and `count` are a property section without its length.
"""

from libc.stdint cimport int64_t, uint8_t


cdef enum:
    WILL_PROPERTIES = 0      # no packet has type 0


cdef struct PublishProperties:
    int alias                # 0: none
    int64_t expiry_s         # -1: none
    Py_ssize_t forward_bytes # size of what copy_forwarded writes


# A client's PUBLISH: raises Malformed or Violation; makes no Python object unless it raises.
cdef int scan_publish(const uint8_t* at, Py_ssize_t count, PublishProperties* found) except -1
# The same for any packet whose properties only have to be right; 0.
cdef int scan_properties(int kind, const uint8_t* at, Py_ssize_t count) except -1
# Writes all but topic alias, message expiry and subscription identifiers, in order, to `to`, which has room for
# `forward_bytes`; bytes written. `at` has been scanned.
cdef Py_ssize_t copy_forwarded(const uint8_t* at, Py_ssize_t count, uint8_t* to) noexcept nogil
cdef dict decode_section(int kind, const uint8_t* at, Py_ssize_t count)
cdef bytes encode_section(int kind, values)   # with its length


cdef inline int read_varint(const uint8_t* at, Py_ssize_t left, Py_ssize_t* value) noexcept nogil:
    """A variable byte integer: bytes it takes, 0 if more are needed, -1 if it is longer than it must be or 4 bytes.

    [MQTT5-1.5.5-1]
    """
    cdef Py_ssize_t number = 0
    cdef int i
    for i in range(4):
        if i >= left:
            return 0
        number |= <Py_ssize_t> (at[i] & 0x7F) << (7 * i)
        if at[i] < 128:
            value[0] = number
            return -1 if i and at[i] == 0 else i + 1
    return -1
