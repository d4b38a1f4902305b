"""Topic aliases: numbers that stand for topics on one connection, in one direction [MQTT5-3.3.2.3.4].

From a client: `alias_set` when a PUBLISH brings topic and alias, `alias_get` when it brings the alias alone.
To a client: `alias_of` finds the number of a topic that was given one; the tables are short, so a scan will do.
"""

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy


cdef int alias_set(AliasTable* table, int slots, int alias, const uint8_t* topic, Py_ssize_t topic_bytes) except -1:
    """Let `alias` (1 to `slots`) stand for a copy of the topic from now on."""
    cdef AliasName* name
    cdef uint8_t* copy
    if table.names == NULL:
        table.names = <AliasName*> calloc(<size_t> slots, sizeof(AliasName))
        if table.names == NULL:
            raise MemoryError(f"no memory for {slots} topic aliases")
        table.slots = slots
    copy = <uint8_t*> malloc(<size_t> topic_bytes)
    if copy == NULL:
        raise MemoryError("no memory for a topic alias")
    memcpy(copy, topic, <size_t> topic_bytes)
    name = &table.names[alias - 1]
    table.bytes += topic_bytes - name.topic_bytes
    free(name.topic)
    name.topic = copy
    name.topic_bytes = topic_bytes
    return 0


cdef AliasName* alias_get(AliasTable* table, int alias) noexcept:
    """The name of an alias, or NULL if it stands for nothing."""
    if alias < 1 or alias > table.slots or table.names[alias - 1].topic == NULL:
        return NULL
    return &table.names[alias - 1]


cdef int alias_of(AliasTable* table, const uint8_t* topic, Py_ssize_t topic_bytes) noexcept:
    """The alias that stands for a topic, or 0."""
    cdef int i
    for i in range(table.count):
        if (table.names[i].topic_bytes == topic_bytes
                and memcmp(table.names[i].topic, topic, <size_t> topic_bytes) == 0):
            return i + 1
    return 0


cdef void alias_clear(AliasTable* table) noexcept:
    cdef int i
    for i in range(table.slots):
        free(table.names[i].topic)
    free(table.names)
    table.names = NULL
    table.slots = table.count = 0
    table.bytes = 0
