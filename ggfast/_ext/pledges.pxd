"""Acknowledgements that wait until a message has been kept."""


cdef class Pledge:
    cdef readonly int waiting    # of those who took the message: how many have not said yet that it is kept
    cdef int first_byte          # the acknowledgement: its packet,
    cdef int packet_id
    cdef int code                # and its reason code
    cdef object owed             # the session that owes it, or None
