"""Topic aliases of one connection: structs inside a Session or Recipient, functions on them.

An AliasTable owns its names (one malloc'd block each) and the array of them.
"""

from libc.stdint cimport uint8_t


cdef struct AliasName:
    uint8_t* topic               # owned; NULL while the alias stands for nothing
    Py_ssize_t topic_bytes


cdef struct AliasTable:
    AliasName* names             # owned, `slots` of them, index = alias - 1
    int slots                    # 0 until the first use
    int count                    # given out in order by `alias_of`
    Py_ssize_t bytes             # of all topics


cdef int alias_set(AliasTable* table, int slots, int alias, const uint8_t* topic, Py_ssize_t topic_bytes) except -1
cdef AliasName* alias_get(AliasTable* table, int alias) noexcept
cdef int alias_of(AliasTable* table, const uint8_t* topic, Py_ssize_t topic_bytes) noexcept
cdef void alias_clear(AliasTable* table) noexcept
