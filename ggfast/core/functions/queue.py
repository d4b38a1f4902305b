"""Work that waits for a worker: first in, first out per function, bounded for all functions together.

    router ─► Ring (arrivals of one loop turn) ─┐
                                                ├─► waiting ─► worker
    invoke ─────────────────────────────────────┘

While a worker is free a message goes from the ring straight to it. Otherwise the ring is emptied into `waiting`,
which shares V1's 1,024 work items (greengrass-core 6.9) and a ceiling in bytes with all other functions. When that
is used up messages stay in the ring until it refuses them too: then a publisher that asked for all or error learns it.
A function of which little waits may have a few invocations more all the same: no other one can take that from it.
"""

from __future__ import annotations

from collections import deque

import orjson

from ggfast import limits
from ggfast._ext.buffers import Ring
from ggfast.core.functions.invocations import Invocation
from ggfast.counters import Counters
from ggfast.errors import LimitReached


class WorkPool:
    """The room all functions share."""

    def __init__(self, items_max: int = limits.WORK_ITEMS_MAX, bytes_max: int = limits.WORK_BYTES_MAX) -> None:
        self.items_max = items_max
        self.bytes_max = bytes_max
        self.items = 0
        self.bytes = 0

    def has_room(self, size: int) -> bool:
        """Whether one more item of `size` bytes may wait."""
        return self.items < self.items_max and self.bytes + size <= self.bytes_max

    def take(self, size: int) -> None:
        """Count an item in."""
        self.items += 1
        self.bytes += size

    def give(self, size: int) -> None:
        """Count an item out."""
        self.items -= 1
        self.bytes -= size


class WorkQueue:
    """What waits for one function."""

    def __init__(self, pool: WorkPool, counters: Counters) -> None:
        self.ring = Ring(limits.WORK_ITEMS_MAX, limits.WORK_RING_BYTES_MAX, False)
        self._pool = pool
        self._counters = counters
        self._waiting: deque[tuple[Invocation, bool]] = deque()  # and whether it waits in the function's own share
        self._own_bytes = 0
        self._share_items = min(limits.WORK_SHARE_ITEMS, pool.items_max // limits.WORK_SHARE_PART)
        self._topic = b""
        self._context = b""

    def __len__(self) -> int:
        return len(self._waiting) + len(self.ring)

    def offer(self, invocation: Invocation) -> None:
        """Append a direct invocation. Raises LimitReached when the shared room is used up, and the small share that
        each function has for itself: one that fills all room with work for itself must not silence the others."""
        self.absorb()
        if not self._pool.has_room(invocation.size) and not self._has_share(invocation.size):
            self._counters.add("functions.refused.work_items")
            raise LimitReached("the number of waiting work items", self._pool.items + 1, self._pool.items_max)
        self._append(invocation)

    def absorb(self) -> None:
        """Move arrivals behind what waits already, as far as the shared room goes."""
        while self._pool.has_room(limits.V1_PAYLOAD_BYTES_MAX) and (message := self._arrived()) is not None:
            self._append(message)

    def take(self) -> Invocation | None:
        """The oldest work."""
        if self._waiting:
            invocation, is_own = self._waiting.popleft()
            if is_own:
                self._own_bytes -= invocation.size
            else:
                self._pool.give(invocation.size)
            return invocation
        return self._arrived()

    def hand_messages_to(self, other: WorkQueue) -> None:
        """Move messages behind what `other` has; invocations somebody waits for stay. All of it had its room."""
        kept = []
        for invocation in self.clear():
            if invocation.done is None:
                other._append(invocation)
            else:
                kept.append(invocation)
        for invocation in kept:
            self._append(invocation)

    def clear(self) -> list[Invocation]:
        """Take everything out."""
        found = []
        while (invocation := self.take()) is not None:
            found.append(invocation)
        return found

    def _has_share(self, size: int) -> bool:
        """Whether little of this function waits. Not while messages wait in the ring: they came before."""
        if len(self.ring) or len(self._waiting) >= self._share_items:
            return False
        return self._own_bytes + size <= limits.WORK_SHARE_BYTES

    def _append(self, invocation: Invocation) -> None:
        is_own = not self._pool.has_room(invocation.size) and self._has_share(invocation.size)
        if is_own:
            self._own_bytes += invocation.size
        else:
            self._pool.take(invocation.size)
        self._waiting.append((invocation, is_own))

    def _arrived(self) -> Invocation | None:
        """The ring's oldest message; one whose topic no worker can be told is dropped."""
        while (message := self.ring.pop()) is not None:
            if message[0] != self._topic:
                self._topic = message[0]
                self._context = b'{"custom":{"subject":' + orjson.dumps(self._topic.decode()) + b"}}"
            if len(self._context) <= limits.INVOKE_CONTEXT_BYTES_MAX:
                return Invocation(self._context, message[1])
            self._counters.add("functions.dropped.long_topic")
        return None
