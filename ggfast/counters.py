"""Named counters: everything that is dropped, refused or restarted is counted here.

Names are dotted and constant (`broker.dropped.slow_reader`); a variable part such as a client id never
becomes part of a name, so that the set stays bounded.
"""

from __future__ import annotations


class Counters:
    """A bag of integers by name. Single-threaded, never blocks, never raises."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: dict[str, int] = {}

    def add(self, name: str, amount: int = 1) -> None:
        """Raise `name` by `amount`; the first use creates it."""
        self._values[name] = self._values.get(name, 0) + amount

    def get(self, name: str) -> int:
        """The value of `name`, 0 if it never moved."""
        return self._values.get(name, 0)

    def snapshot(self) -> dict[str, int]:
        """All counters that moved, sorted by name."""
        return dict(sorted(self._values.items()))
