"""Byte windows and the bounded message FIFO. Knows no protocol, never does I/O.

    InBuffer   what was read and not yet understood      [start .. end)
    OutBuffer  what is to be written, collected          [0 .. used)
    Ring       bounded FIFO of (topic, payload, source), the queue in front of a function

Ownership of the bytes is written in ggfast/_ext/buffers.pxd.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

cimport cython

cdef extern from *:
    """
    #include <sys/mman.h>
    #include <unistd.h>
    #ifdef __GLIBC__
    #include <malloc.h>
    static void heap_trim(void) { malloc_trim(0); }
    #else
    static void heap_trim(void) {}
    #endif
    """
    void heap_trim() nogil
    int madvise(void*, size_t, int) nogil
    long sysconf(int) nogil
    int MADV_DONTNEED, _SC_PAGESIZE

cdef enum:
    BLOCK_FIRST = 256         # a quiet device's packets fit; grows by doubling
    BLOCK_KEPT = 4096         # what a buffer may keep between bursts
    QUIET_TAKES = 8           # small takes in a row before a large block is given back
    RING_ENTRY_COST = 24 + 2 * 40   # three pointers and two object headers


cdef Py_ssize_t released_bytes = 0


cdef void note_released(Py_ssize_t capacity) noexcept nogil:
    """A block of that size was given back to the heap, which may keep it; `take_released` says when to look after it."""
    global released_bytes
    released_bytes += capacity


def take_released() -> int:
    """Bytes of large blocks given back to the heap since the last call."""
    global released_bytes
    taken = released_bytes
    released_bytes = 0
    return taken


cdef void trim_heap() noexcept nogil:
    """Return the free pieces of the heap to the system; about a millisecond for 8 MiB."""
    heap_trim()


cdef void release_pages(uint8_t* start, Py_ssize_t count) noexcept nogil:
    """Give the whole pages of a static block back; they read as zero afterwards."""
    cdef size_t page = <size_t> sysconf(_SC_PAGESIZE)
    cdef size_t first = (<size_t> start + page - 1) & ~(page - 1)
    cdef size_t last = (<size_t> start + <size_t> count) & ~(page - 1)
    if last > first:
        madvise(<void*> first, last - first, MADV_DONTNEED)


@cython.final
cdef class InBuffer:
    """Bytes read and not yet consumed: one window sliding through one block."""

    def __dealloc__(self):
        free(self.data)

    cdef int put(self, const uint8_t* source, Py_ssize_t count) except -1:
        cdef Py_ssize_t held = self.end - self.start
        cdef Py_ssize_t capacity
        cdef uint8_t* data
        if self.capacity - self.end < count:
            if self.start:
                memmove(self.data, self.data + self.start, <size_t> held)
                self.start = 0
                self.end = held
            if self.capacity < held + count:
                capacity = max(self.capacity, <Py_ssize_t> BLOCK_FIRST)
                while capacity < held + count:
                    capacity *= 2
                data = <uint8_t*> realloc(self.data, <size_t> capacity)
                if data == NULL:
                    raise MemoryError(f"no memory for {capacity} bytes of input")
                self.data = data
                self.capacity = capacity
        memcpy(self.data + self.end, source, <size_t> count)
        self.end += count
        return 0

    cdef void skip(self, Py_ssize_t count) noexcept:
        """Consume `count` bytes from the front; an empty window gives a large block back."""
        self.start += count
        if self.start == self.end:
            self.start = self.end = 0
            if self.capacity > BLOCK_KEPT:
                self.release()

    cdef void release(self) noexcept:
        if self.capacity > BLOCK_KEPT:
            note_released(self.capacity)
        free(self.data)
        self.data = NULL
        self.start = self.end = self.capacity = 0

    def append(self, bytes data not None) -> None:
        """Add `data` at the end (copied)."""
        self.put(<const uint8_t*> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    def consume(self, Py_ssize_t count) -> None:
        """Forget the first `count` bytes; ValueError if there are fewer."""
        if count < 0 or count > self.end - self.start:
            raise ValueError(f"cannot consume {count} of {self.end - self.start} bytes")
        self.skip(count)

    def peek(self) -> bytes:
        """A copy of the unread bytes."""
        return PyBytes_FromStringAndSize(<char*> self.data + self.start, self.end - self.start)

    def __len__(self):
        return self.end - self.start


@cython.final
cdef class OutBuffer:
    """Bytes to be written, collected while input is handled and taken as one piece."""

    def __dealloc__(self):
        free(self.data)

    cdef int grow(self, Py_ssize_t count) except -1:
        cdef Py_ssize_t capacity = max(self.capacity, <Py_ssize_t> BLOCK_FIRST)
        cdef uint8_t* data
        while capacity < self.used + count:
            capacity *= 2
        data = <uint8_t*> realloc(self.data, <size_t> capacity)
        if data == NULL:
            raise MemoryError(f"no memory for {capacity} bytes of output")
        self.data = data
        self.capacity = capacity
        self.quiet = 0
        return 0

    cdef void emptied(self) noexcept:
        """Everything collected has been written; a block too large for quiet times is given back."""
        if self.capacity > BLOCK_KEPT:
            self.quiet = self.quiet + 1 if self.used < self.capacity // 4 else 0
            if self.quiet >= QUIET_TAKES:
                self.release()
        self.used = 0

    cdef void rest(self) noexcept:
        """Time passes: an empty large block that stays unused for two calls in a row is given back."""
        if self.capacity > BLOCK_KEPT and self.used == 0:
            self.quiet += QUIET_TAKES // 2
            if self.quiet >= QUIET_TAKES:
                self.release()

    cdef void release(self) noexcept:
        if self.capacity > BLOCK_KEPT:
            note_released(self.capacity)
        free(self.data)
        self.data = NULL
        self.used = self.capacity = self.quiet = 0

    def append(self, bytes data not None) -> None:
        """Add `data` at the end (copied)."""
        out_put(self, <const uint8_t*> PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))

    def take(self) -> bytes:
        """Everything collected; the buffer is empty afterwards."""
        cdef bytes taken = PyBytes_FromStringAndSize(<char*> self.data, self.used)
        self.emptied()
        return taken

    def __len__(self):
        return self.used


@cython.final
cdef class Ring:
    """Bounded FIFO of (topic, payload, source). Full: drop the oldest, or refuse the newest; both counted.

    A message costs its topic and payload plus a fixed overhead against `max_bytes`. One larger than the whole
    ring is refused under either rule. Single-threaded; never blocks.
    """

    def __cinit__(self, Py_ssize_t max_entries, Py_ssize_t max_bytes, bint drop_oldest=True):
        if max_entries < 1 or max_bytes < 1:
            raise ValueError(f"a ring needs room, found {max_entries} entries and {max_bytes} bytes")
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.drop_oldest = drop_oldest

    def __dealloc__(self):
        while self.count:
            self.discard_oldest()
        free(self.entries)

    cdef bint has_room(self, Py_ssize_t size) noexcept:
        """Whether a message of `size` topic and payload bytes fits now without dropping anything."""
        return self.count < self.max_entries and self.bytes + size + RING_ENTRY_COST <= self.max_bytes

    cdef bint put(self, bytes topic, bytes payload, str source) except -1:
        cdef Py_ssize_t size = PyBytes_GET_SIZE(topic) + PyBytes_GET_SIZE(payload)
        cdef RingEntry* entry
        if not self.has_room(size):
            if not self.drop_oldest or size + RING_ENTRY_COST > self.max_bytes:
                self.refused += 1
                return False
            while not self.has_room(size):
                self.discard_oldest()
                self.dropped_oldest += 1
        if self.count == self.slots:
            self.grow()
        entry = &self.entries[(self.head + self.count) & (self.slots - 1)]
        Py_INCREF(topic)
        Py_INCREF(payload)
        Py_INCREF(source)
        entry.topic = <void*> topic
        entry.payload = <void*> payload
        entry.source = <void*> source
        self.count += 1
        self.bytes += size + RING_ENTRY_COST
        return True

    cdef int discard_oldest(self) except -1:
        cdef RingEntry entry = self.entries[self.head]
        self.head = (self.head + 1) & (self.slots - 1)
        self.count -= 1
        self.bytes -= PyBytes_GET_SIZE(<bytes> entry.topic) + PyBytes_GET_SIZE(<bytes> entry.payload)
        self.bytes -= RING_ENTRY_COST
        Py_DECREF(<object> entry.topic)
        Py_DECREF(<object> entry.payload)
        Py_DECREF(<object> entry.source)
        return 0

    cdef int grow(self) except -1:
        cdef Py_ssize_t slots = self.slots * 2 if self.slots else 8
        cdef Py_ssize_t i
        cdef RingEntry* entries = <RingEntry*> malloc(<size_t> slots * sizeof(RingEntry))
        if entries == NULL:
            raise MemoryError(f"no memory for a ring of {slots} entries")
        for i in range(self.count):
            entries[i] = self.entries[(self.head + i) & (self.slots - 1)]
        free(self.entries)
        self.entries = entries
        self.slots = slots
        self.head = 0
        return 0

    def offer(self, bytes topic not None, bytes payload not None, str source not None) -> bool:
        """Queue a message; False if the full ring refused it."""
        return self.put(topic, payload, source)

    def room_for(self, Py_ssize_t size) -> bool:
        """Whether a message of `size` topic and payload bytes fits now without dropping anything."""
        return self.has_room(size)

    def pop(self):
        """The oldest message as (topic, payload, source), or None."""
        cdef RingEntry entry
        if self.count == 0:
            return None
        entry = self.entries[self.head]
        message = (<bytes> entry.topic, <bytes> entry.payload, <str> entry.source)
        self.discard_oldest()
        if self.count == 0 and self.slots > 64:
            free(self.entries)
            self.entries = NULL
            self.slots = self.head = 0
        return message

    def __len__(self):
        return self.count


# --- CRC-32C (Castagnoli), reflected polynomial 0x82F63B78, eight bytes at a time ------------------------

cdef uint32_t crc_tables[8][256]


cdef void build_crc_tables() noexcept:
    cdef uint32_t value
    cdef int byte, bit, table
    for byte in range(256):
        value = <uint32_t> byte
        for bit in range(8):
            value = (value >> 1) ^ (<uint32_t> 0x82F63B78 if value & 1 else 0)
        crc_tables[0][byte] = value
    for byte in range(256):
        for table in range(1, 8):
            value = crc_tables[table - 1][byte]
            crc_tables[table][byte] = (value >> 8) ^ crc_tables[0][value & 0xFF]


build_crc_tables()


cdef uint32_t crc32c_update(uint32_t crc, const uint8_t* data, Py_ssize_t count) noexcept nogil:
    """The CRC-32C of the bytes so far (`crc`, 0 at the start) followed by `data`."""
    crc = ~crc
    while count >= 8:
        crc ^= data[0] | (<uint32_t> data[1] << 8) | (<uint32_t> data[2] << 16) | (<uint32_t> data[3] << 24)
        crc = (
            crc_tables[7][crc & 0xFF]
            ^ crc_tables[6][(crc >> 8) & 0xFF]
            ^ crc_tables[5][(crc >> 16) & 0xFF]
            ^ crc_tables[4][crc >> 24]
            ^ crc_tables[3][data[4]]
            ^ crc_tables[2][data[5]]
            ^ crc_tables[1][data[6]]
            ^ crc_tables[0][data[7]]
        )
        data += 8
        count -= 8
    while count > 0:
        crc = (crc >> 8) ^ crc_tables[0][(crc ^ data[0]) & 0xFF]
        data += 1
        count -= 1
    return ~crc


def crc32c(const uint8_t[::1] data not None, uint32_t value=0) -> int:
    """CRC-32C of `data`, continuing from `value`; any contiguous buffer of bytes."""
    if data.shape[0] == 0:
        return value
    return crc32c_update(value, &data[0], data.shape[0])
