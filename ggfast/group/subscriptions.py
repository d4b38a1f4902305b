"""The subscription table: its entries, what a subject may be, and the rules the router gets (greengrass-core 5)."""

from __future__ import annotations

from ggfast.fields import Fields
from ggfast.group.document import Group, Subscription
from ggfast.group.entities import read_id


def rules(group: Group) -> list[tuple[str, str, str]]:
    """(source, subject, target) of every entry, each once, in the order of the document."""
    return list(dict.fromkeys((entry.source, entry.subject, entry.target) for entry in group.subscriptions))


def read_subscription(source: Fields, position: int, *, deployed: bool) -> Subscription:
    """One entry of `Subscriptions`."""
    party = 'a thing ARN, a function ARN with its version or alias, "cloud" or "GGShadowService"'
    return Subscription(
        id=read_id(source, default=f"subscription-{position}" if deployed else None),
        source=source.text("Source", expected=party),
        subject=source.text("Subject", expected="a topic or topic filter", characters_max=65_535),
        target=source.text("Target", expected=party),
    )


def subject_fault(subject: str, bytes_max: int, slashes_max: int | None) -> str:
    """What a topic filter should have been, empty if it is one (greengrass-core 5.3, 5.4)."""
    size = len(subject.encode())
    if size > bytes_max:
        return f"at most {bytes_max} bytes, these are {size}"
    levels = subject.split("/")
    if slashes_max is not None and len(levels) - 1 > slashes_max:
        return f"at most {slashes_max} slashes, these are {len(levels) - 1}"
    if any("#" in level for level in levels[:-1]) or ("#" in levels[-1] and levels[-1] != "#"):
        return "# only alone as the last level"
    if any("+" in level and level != "+" for level in levels):
        return "+ only alone in its level"
    return ""
