"""The queue of messages for the cloud: bounded in bytes, oldest dropped first, every drop counted.

In this release it lives in memory, as V1's default did (greengrass-core 5.7): what waits in it is lost with
the daemon. It is a router sink, so a message enters it without a second copy of its payload.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import NamedTuple

from ggfast import limits
from ggfast.counters import Counters


class SpooledMessage(NamedTuple):
    """One message on its way to the cloud."""

    source: str
    topic: bytes
    payload: bytes
    qos: int

    @property
    def cost_bytes(self) -> int:
        """What the message counts against the spool's size: its bytes and what holding them costs."""
        return len(self.topic) + len(self.payload) + limits.SPOOL_RECORD_OVERHEAD_BYTES


class MemorySpool:
    """First in, first out, `bytes_max` at most; a new message pushes the oldest ones out.

    Counters: `spool.accepted`, `spool.dropped.oldest`, `spool.dropped.too_large`. Never blocks.
    """

    def __init__(self, counters: Counters, *, bytes_max: int = limits.SPOOL_BYTES_DEFAULT) -> None:
        if bytes_max < limits.SPOOL_BYTES_MIN:
            raise ValueError(f"Spool size should be at least {limits.SPOOL_BYTES_MIN} bytes.")
        self._bytes_max = bytes_max
        self._counters = counters
        self._messages: deque[SpooledMessage] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def bytes_held(self) -> int:
        """Bytes held now; never above `bytes_max`."""
        return self._bytes

    @property
    def bytes_max(self) -> int:
        return self._bytes_max

    def resize(self, bytes_max: int) -> None:
        """Change the bound, as a deployment may; what no longer fits is dropped oldest first."""
        self._bytes_max = bytes_max
        self._make_room(0)

    def clear(self) -> None:
        """Drop everything, counted: a reset does (greengrass-core 12.5)."""
        self._counters.add("spool.dropped.reset", len(self._messages))
        self._messages.clear()
        self._bytes = 0

    def has_room(self, size: int) -> bool:
        """Whether a message of `size` bytes (topic and payload) fits without dropping another (`AllOrError`)."""
        cost = size + limits.SPOOL_RECORD_OVERHEAD_BYTES
        return self._bytes + cost <= self._bytes_max

    def offer(self, source: str, topic: bytes, payload: bytes, qos: int, retain: bool) -> bool:
        """Take a message, dropping the oldest ones if there is no room; False if it can never fit."""
        message = SpooledMessage(source, topic, payload, qos)
        cost = message.cost_bytes
        if cost > self._bytes_max:
            self._counters.add("spool.dropped.too_large")
            return False
        self._make_room(cost)
        self._messages.append(message)
        self._bytes += cost
        self._counters.add("spool.accepted")
        return True

    def oldest(self, count: int) -> list[SpooledMessage]:
        """The first messages, which stay: at most `count`, and no more than SPOOL_LISTING_BYTES_MAX of payload."""
        found = []
        room = limits.SPOOL_LISTING_BYTES_MAX
        for message in islice(self._messages, count):
            room -= len(message.payload)
            if room < 0:
                break
            found.append(message)
        return found

    def peek(self) -> SpooledMessage | None:
        """The oldest message, which stays until `drop_oldest` (after the cloud acknowledged it)."""
        return self._messages[0] if self._messages else None

    def drop_oldest(self) -> None:
        """Remove what `peek` returned."""
        self._bytes -= self._messages.popleft().cost_bytes

    def _make_room(self, cost: int) -> None:
        while self._messages and self._bytes + cost > self._bytes_max:
            self.drop_oldest()
            self._counters.add("spool.dropped.oldest")
