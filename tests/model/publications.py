"""What each client receives of a publication, worked out from scratch: the slow twin of the lane's options.

Knows both protocol versions, the options of a subscription, identifiers, and what is forwarded of a message.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ggfast._ext.framing import Publish
from tests.model.topics import matches

FORWARDED = (
    "payload_format_indicator",
    "message_expiry_interval",
    "content_type",
    "response_topic",
    "correlation_data",
    "user_property",
)


@dataclass
class Subscriber:
    """A connected client: its version and its filters with (options byte, identifier)."""

    level: int
    filters: dict[str, tuple[int, int]] = field(default_factory=dict)


def expected(name: str, client: Subscriber, source: str, message: Publish) -> Publish | None:
    """The packet (packet id left out) that `client` gets of a message that `source` published, or None."""
    found = [
        (options, identifier)
        for pattern, (options, identifier) in client.filters.items()
        if matches(pattern, message.topic.decode()) and not (name == source and options & 4)
    ]
    if not found:
        return None
    properties: dict[str, Any] = {}
    if client.level == 5:
        properties = {key: value for key, value in message.properties.items() if key in FORWARDED}
        identifiers = tuple(sorted(identifier for _, identifier in found if identifier))
        if identifiers:
            properties["subscription_identifier"] = identifiers
    return Publish(
        message.topic,
        message.payload,
        min(message.qos, max(options & 3 for options, _ in found)),
        message.retain and any(options & 8 for options, _ in found),
        False,
        0,
        properties,
    )
