"""The bounds that all sessions of a broker share; the numbers come from ggfast.limits by way of ggfast.mqtt.limits."""

cimport cython

# A remaining length goes to 268,435,455; forwarding may add subscription identifiers and a property length.
PACKET_BYTES_TOP = 268_000_000


@cython.final
cdef class SessionLimits:
    """The bounds all sessions of a broker share: bytes, entries, ticks of the broker's sweep."""

    def __cinit__(self, *, Py_ssize_t packet_bytes_max, Py_ssize_t payload_bytes_max, Py_ssize_t inflight_max,
                  Py_ssize_t queue_bytes_max, Py_ssize_t queue_entries_max, Py_ssize_t stored_bytes_max,
                  Py_ssize_t queue_share_bytes, Py_ssize_t strangers_bytes_max, Py_ssize_t output_bytes_max,
                  int stall_ticks_max, Py_ssize_t receive_max, int aliases_max, Py_ssize_t alias_bytes_max):
        if not 1 <= inflight_max <= 32768:
            raise ValueError(f"inflight_max is {inflight_max}, expected 1 to 32768, half of the packet ids")
        if not 1 <= receive_max <= 65535 or not 0 <= aliases_max <= 65535:
            raise ValueError(f"receive_max is {receive_max} and aliases_max {aliases_max}, expected two bytes each")
        if not 1 <= packet_bytes_max <= PACKET_BYTES_TOP:
            raise ValueError(f"packet_bytes_max is {packet_bytes_max}, expected 1 to {PACKET_BYTES_TOP}")
        self.packet_bytes_max = packet_bytes_max
        self.payload_bytes_max = payload_bytes_max
        self.inflight_max = inflight_max
        self.queue_bytes_max = queue_bytes_max
        self.queue_entries_max = queue_entries_max
        self.stored_bytes_max = stored_bytes_max
        self.queue_share_bytes = queue_share_bytes
        self.strangers_bytes_max = strangers_bytes_max
        self.output_bytes_max = output_bytes_max
        self.stall_ticks_max = stall_ticks_max
        self.receive_max = receive_max
        self.aliases_max = aliases_max
        self.alias_bytes_max = alias_bytes_max
