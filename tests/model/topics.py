"""Topic matching as the specification words it, level by level: the slow twin of ext/topics.pyx."""

from __future__ import annotations


def matches(pattern: str, topic: str, hash_takes_parent: bool = True) -> bool:
    """Whether a valid filter matches a valid topic; `hash_takes_parent` is MQTT's rule for `a/#` and `a`."""
    wanted, given = pattern.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for position, level in enumerate(wanted):
        if level == "#":
            return hash_takes_parent or len(given) > position
        if position >= len(given) or level not in ("+", given[position]):
            return False
    return len(wanted) == len(given)
