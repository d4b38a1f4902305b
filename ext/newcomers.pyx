"""Connections that have no client yet take a share of the time at most, whatever they send and however many come.

    accept, handshake, bytes up to CONNECT, the end of those that came to nothing  -> charged to an allowance
    allowance used up -> newcomers' reads and the accepting of more wait; clients that are in do not

The allowance grows with the clock: `share` of it, up to a burst. So a fleet that comes back at once is let in as
fast as that share of this processor can, and a thousand strangers with garbage cost the others no more than it.
"""

from collections import deque

from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

cimport cython

cdef enum:
    PAUSE_MS = 4                     # from one look at the parked to the next
    OWED_MS = 500                    # at most: time in which this process was stopped is nobody's doing


cdef int64_t now_ns() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return <int64_t> time.tv_sec * 1_000_000_000 + time.tv_nsec


@cython.final
cdef class Newcomers:
    """See the module. `share` of the time, `burst_s` seconds of it at once."""

    def __cinit__(self, loop, double share, double burst_s):
        self.loop = loop
        self.parked = deque()
        self.share = share
        self.most_ns = self.allowance_ns = <int64_t> (burst_s * 1e9)
        self.counted_at_ns = now_ns()

    cdef bint admits(self) noexcept:
        """Whether more may be spent now."""
        cdef int64_t now = now_ns()
        self.allowance_ns += <int64_t> (<double> (now - self.counted_at_ns) * self.share)
        if self.allowance_ns > self.most_ns:
            self.allowance_ns = self.most_ns
        self.counted_at_ns = now
        return self.allowance_ns > 0

    cdef int charge(self, int64_t since_ns) noexcept:
        """The time since then was a newcomer's."""
        self.allowance_ns -= now_ns() - since_ns
        if self.allowance_ns < -1_000_000 * <int64_t> OWED_MS:
            self.allowance_ns = -1_000_000 * <int64_t> OWED_MS
        return 0

    cdef int park(self, transport) except -1:
        """Let a transport's reading wait; it has stopped watching its descriptor."""
        self.parked.append(transport)
        if self.timer is None:
            self.timer = self.loop.call_later(PAUSE_MS / 1000, self._let_on)
        return 0

    def _let_on(self):
        """The oldest first, while there is time."""
        cdef int64_t began
        self.timer = None
        try:
            while self.parked and self.admits():
                began = now_ns()
                self.parked.popleft()._let_on()
                self.charge(began)
        finally:                             # nobody is accepted while somebody is parked
            if self.parked:
                self.timer = self.loop.call_later(PAUSE_MS / 1000, self._let_on)

    def has_time(self) -> bool:
        """Whether one more may be accepted now."""
        return self.admits() and not self.parked

    def begin(self) -> int:
        """The moment, for `end`."""
        return now_ns()

    def end(self, int64_t began_ns) -> None:
        """What was done since then was a newcomer's."""
        self.charge(began_ns)

    def __len__(self):
        return len(self.parked)
