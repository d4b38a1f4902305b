"""Retained messages: the last one of each topic and source, found again by filter, bounded in bytes.

In the open mode the source is always "", so there is one message per topic, as MQTT has it. With a subscription
table every source has its own: else a source could overwrite or delete, for a reader it has no rule to, what
another one left there.

A message with an expiry is noted under the second at which it is gone; `sweep` walks those seconds in bounded
steps. Between its second and the sweep it is there and not handed out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ggfast.counters import Counters
from ggfast.limits import BROKER_RETAINED_PARTS, BROKER_SWEEP_RETAINED, BROKER_SWEEP_SECONDS

MESSAGE_COST = 400  # objects around one message
LEVEL_COST = 250  # a level's dictionary
EXPIRY_COST = 350  # its note under the second; at worst a second of its own


class RetainedMessage(NamedTuple):
    """One stored message."""

    source: str
    topic: bytes
    payload: bytes
    qos: int
    properties: bytes = b""  # in the form the lane forwards
    expires: int = 0  # lane second at which it is gone; 0: never


class Retained:
    """The store. Full, or a source's part of it: the newest is refused and counted (`broker.dropped.retained_full`).

    Seconds are the lane's (`Router.now`), told by `sweep`.
    """

    def __init__(self, bytes_max: int, counters: Counters) -> None:
        self._bytes_max = bytes_max
        self._counters = counters
        # A level maps a level's bytes to the next level, and None to {source: message} of the topic ending here.
        self._root: dict[bytes | None, Any] = {}
        self._bytes_of: dict[str, int] = {}  # source -> what its messages cost
        self._due: dict[int, set[tuple[str, bytes]]] = {}  # second -> messages gone then
        self._swept = 0  # seconds up to this one hold nothing any more
        self._now = 0
        self.expired: Callable[[str, bytes], None] | None = None  # called for each message that `sweep` removes
        self.count = 0
        self.bytes = 0

    def put(
        self, source: str, topic: bytes, payload: bytes, qos: int, properties: bytes = b"", expires: int = 0
    ) -> bool:
        """Keep a message in place of the one before; an empty payload removes it [MQTT-3.3.1-10].

        False if there is no room; the one before then stays.
        """
        if not payload or 0 < expires <= self._now:
            self._remove(source, topic)
            return True
        message = RetainedMessage(source, topic, payload, qos, properties, expires)
        known = self._find(source, topic)
        growth = _cost(message) - (_cost(known) if known else 0)
        share = self._bytes_max // BROKER_RETAINED_PARTS if source else self._bytes_max
        if self.bytes + growth > self._bytes_max or self._bytes_of.get(source, 0) + growth > share:
            self._counters.add("broker.dropped.retained_full")
            return False
        level = self._root
        for name in topic.split(b"/"):
            level = level.setdefault(name, {})
        level.setdefault(None, {})[source] = message
        self._forget_due(known)
        if expires:
            self._due.setdefault(expires, set()).add((source, topic))
        self._charge(source, growth)
        self.count += known is None
        return True

    def sweep(self, now: int) -> int:
        """Remove what is gone at `now`, a bounded part of it; how many messages went."""
        self._now = max(self._now, now)
        if not self._due:
            self._swept = self._now
            return 0
        removed = 0
        last = min(self._now, self._swept + BROKER_SWEEP_SECONDS)
        while self._swept < last:
            gone = self._due.get(self._swept + 1)
            while gone:
                if removed == BROKER_SWEEP_RETAINED:
                    return removed
                source, topic = gone.pop()
                self._remove(source, topic)
                if self.expired is not None:
                    self.expired(source, topic)
                removed += 1
            self._swept += 1
        return removed

    def get(self, source: str, topic: bytes) -> RetainedMessage | None:
        """The message kept for a source and topic, unless it has expired."""
        message = self._find(source, topic)
        return None if message is None or 0 < message.expires <= self._now else message

    def _find(self, source: str, topic: bytes) -> RetainedMessage | None:
        level = self._root
        for name in topic.split(b"/"):
            found = level.get(name)
            if found is None:
                return None
            level = found
        message: RetainedMessage | None = level.get(None, {}).get(source)
        return message

    def matching(self, pattern: bytes) -> list[RetainedMessage]:
        """All messages whose topic matches a valid filter, by MQTT's own rules; expired ones may be among them."""
        levels = pattern.split(b"/")
        found: list[RetainedMessage] = []
        todo: list[tuple[dict[bytes | None, Any], int]] = [(self._root, 0)]
        while todo:
            level, depth = todo.pop()
            if depth == len(levels):
                found.extend(level.get(None, {}).values())
                continue
            name = levels[depth]
            if name == b"#":
                found.extend(_all_below(level, at_root=depth == 0))
            elif name == b"+":
                todo.extend((child, depth + 1) for key, child in _children(level) if depth or not key.startswith(b"$"))
            elif name in level:
                todo.append((level[name], depth + 1))
        return found

    def all(self) -> list[RetainedMessage]:
        """Every message that has not expired."""
        return [message for message in _all_below(self._root, at_root=False) if not 0 < message.expires <= self._now]

    def clear(self) -> None:
        """Forget every message."""
        self._root, self._bytes_of, self._due = {}, {}, {}
        self.count = self.bytes = 0

    def _charge(self, source: str, growth: int) -> None:
        self.bytes += growth
        left = self._bytes_of.get(source, 0) + growth
        if left:
            self._bytes_of[source] = left
        else:
            del self._bytes_of[source]

    def _forget_due(self, message: RetainedMessage | None) -> None:
        if message is None or not message.expires:
            return
        others = self._due[message.expires]
        others.discard((message.source, message.topic))
        if not others:
            del self._due[message.expires]

    def _remove(self, source: str, topic: bytes) -> None:
        path: list[tuple[dict[bytes | None, Any], bytes]] = []
        level = self._root
        for name in topic.split(b"/"):
            if name not in level:
                return
            path.append((level, name))
            level = level[name]
        here = level.get(None)
        if here is None or source not in here:
            return
        message = here.pop(source)
        self._forget_due(message)
        self._charge(source, -_cost(message))
        self.count -= 1
        if not here:
            del level[None]
        for parent, name in reversed(path):
            if parent[name]:
                break
            del parent[name]


def _cost(message: RetainedMessage) -> int:
    text = len(message.source) + 2 * len(message.topic) + len(message.payload) + len(message.properties)
    due = EXPIRY_COST if message.expires else 0
    return MESSAGE_COST + text + due + LEVEL_COST * (message.topic.count(b"/") + 1)


def _children(level: dict[bytes | None, Any]) -> Iterator[tuple[bytes, dict[bytes | None, Any]]]:
    for key, child in level.items():
        if key is not None:
            yield key, child


def _all_below(level: dict[bytes | None, Any], *, at_root: bool) -> Iterator[RetainedMessage]:
    """Messages here and deeper; from the root, topics beginning with `$` stay away [MQTT-4.7.2-1]."""
    todo = [child for key, child in _children(level) if not (at_root and key.startswith(b"$"))]
    yield from level.get(None, {}).values()
    while todo:
        level = todo.pop()
        yield from level.get(None, {}).values()
        todo.extend(child for _, child in _children(level))
