"""Token buckets by name: how often somebody may do something."""

from __future__ import annotations

from collections import OrderedDict

from ggfast.clock import Clock


class Rates:
    """`per_s` on average, `burst` at once, for each of the `most` names used last. Never blocks."""

    def __init__(self, clock: Clock, per_s: float, burst: float, most: int) -> None:
        self._clock = clock
        self._per_s = per_s
        self._burst = burst
        self._most = most
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is left, when

    def take(self, name: str) -> bool:
        """Use one up; False, and nothing used, if none is left."""
        left = self._left(name)
        taken = left >= 1
        self._buckets[name] = (left - taken, self._clock.monotonic())
        self._buckets.move_to_end(name)
        while len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return taken

    def has(self, name: str) -> bool:
        """Whether `take` would say yes."""
        return self._left(name) >= 1

    def _left(self, name: str) -> float:
        bucket = self._buckets.get(name)
        if bucket is None:
            return self._burst
        left, at = bucket
        return min(self._burst, left + (self._clock.monotonic() - at) * self._per_s)
