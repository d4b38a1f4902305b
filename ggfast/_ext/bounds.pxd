"""Bytes, entries, ticks of the broker's sweep; read by the lane, changed by nobody."""


cdef class SessionLimits:
    cdef readonly Py_ssize_t packet_bytes_max
    cdef readonly Py_ssize_t payload_bytes_max
    cdef readonly Py_ssize_t inflight_max
    cdef readonly Py_ssize_t queue_bytes_max
    cdef readonly Py_ssize_t queue_entries_max
    cdef readonly Py_ssize_t stored_bytes_max    # stored messages of all sessions together,
    cdef readonly Py_ssize_t queue_share_bytes   # past which a session still may have this much
    cdef readonly Py_ssize_t strangers_bytes_max # input of all who are not in yet
    cdef readonly Py_ssize_t output_bytes_max
    cdef readonly int stall_ticks_max
    cdef readonly Py_ssize_t receive_max         # QoS 2 of one client that await its PUBREL
    cdef readonly int aliases_max                # topics a client, and we towards it, may abbreviate
    cdef readonly Py_ssize_t alias_bytes_max     # all of them together, each way
