"""Retained messages: the last one of each topic and source, found again by filter, bounded in bytes.

In the open mode the source is always "", so there is one message per topic, as MQTT has it. With a subscription
table every source has its own: else a source could overwrite or delete, for a reader it has no rule to, what
another one left there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ggfast.counters import Counters

MESSAGE_COST = 400  # objects around one message
LEVEL_COST = 250  # a level's dictionary


class RetainedMessage(NamedTuple):
    """One stored message."""

    source: str
    topic: bytes
    payload: bytes
    qos: int


class Retained:
    """The store. Full: the newest is refused and counted (`broker.dropped.retained_full`)."""

    def __init__(self, bytes_max: int, counters: Counters) -> None:
        self._bytes_max = bytes_max
        self._counters = counters
        # A level maps a level's bytes to the next level, and None to {source: message} of the topic ending here.
        self._root: dict[bytes | None, Any] = {}
        self.count = 0
        self.bytes = 0

    def put(self, source: str, topic: bytes, payload: bytes, qos: int) -> bool:
        """Keep a message in place of the one before; an empty payload removes it [MQTT-3.3.1-10].

        False if there is no room.
        """
        if not payload:
            self._remove(source, topic)
            return True
        message = RetainedMessage(source, topic, payload, qos)
        known = self.get(source, topic)
        growth = _cost(message) - (_cost(known) if known else 0)
        if self.bytes + growth > self._bytes_max:
            self._counters.add("broker.dropped.retained_full")
            return False
        level = self._root
        for name in topic.split(b"/"):
            level = level.setdefault(name, {})
        level.setdefault(None, {})[source] = message
        self.bytes += growth
        self.count += known is None
        return True

    def get(self, source: str, topic: bytes) -> RetainedMessage | None:
        """The message kept for a source and topic."""
        level = self._root
        for name in topic.split(b"/"):
            found = level.get(name)
            if found is None:
                return None
            level = found
        message: RetainedMessage | None = level.get(None, {}).get(source)
        return message

    def matching(self, pattern: bytes) -> list[RetainedMessage]:
        """All messages whose topic matches a valid filter, by MQTT's own rules."""
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
        """Every message."""
        return list(_all_below(self._root, at_root=False))

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
        self.bytes -= _cost(here.pop(source))
        self.count -= 1
        if not here:
            del level[None]
        for parent, name in reversed(path):
            if parent[name]:
                break
            del parent[name]


def _cost(message: RetainedMessage) -> int:
    text = len(message.source) + 2 * len(message.topic) + len(message.payload)
    return MESSAGE_COST + text + LEVEL_COST * (message.topic.count(b"/") + 1)


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
