"""TLS over a transport.

Who owns which bytes: OpenSSL's objects belong to their transport and are freed with it. Ciphertext on its way in is
borrowed from the shared read window, on its way out it lies in one block of the process; both are empty between two
calls into OpenSSL. Plaintext lies in one window of the process and is borrowed by the session during `feed`.
"""

from libc.stdint cimport uint8_t

from ggfast._ext.transport cimport Transport


cdef class TlsTransport(Transport)


cdef class Handshakes:
    cdef object loop
    cdef object failed                   # failed(peer name, reason)
    cdef double timeout_s
    cdef dict under_way                  # TlsTransport -> when its time is up, oldest first
    cdef int per_turn
    cdef int left                        # steps of handshakes still taken in this turn of the loop
    cdef object timer

    cdef bint admit(self) except -1
    cdef TlsTransport silent(self)


cdef class TlsTransport(Transport):
    cdef object make_protocol
    cdef object context                  # callbacks of the SSL_CTX refer to it
    cdef Handshakes handshakes           # None once the handshake is over
    cdef void* ssl                       # owned; NULL before the first byte came
    cdef void* bio                       # owned by ssl
    cdef bint knocked                    # it has sent something
    cdef bint denied                     # what it has sent waits for a turn of ours
    cdef double asked_at                 # the loop's time since when the handshake waits for the client
    cdef Py_ssize_t shaken               # bytes of the client that the handshake has taken
    cdef bint broken                     # OpenSSL gave up: say nothing more

    cdef int open_ssl(self) except -1
    cdef int shake(self) except -1
    cdef int made(self) except -1
    cdef int read_records(self) except -1
    cdef int flush(self) except -1
    cdef int give_up(self, str reason) except -1
    cdef void free_ssl(self) noexcept
