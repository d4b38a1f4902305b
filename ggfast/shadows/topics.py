"""Topic names of shadows: `$aws/things/<thing>/shadow[/name/<name>]/<operation>[/<answer>]` (greengrass-core 9.1)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

THING_NAME: Final = r"[a-zA-Z0-9:_-]{1,128}"
SHADOW_NAME: Final = r"[a-zA-Z0-9:_-]{1,64}"
OPERATIONS: Final = ("get", "update", "delete")

_REQUEST = re.compile(
    rf"\$aws/things/(?P<thing>{THING_NAME})/shadow(?:/name/(?P<name>{SHADOW_NAME}))?/(?P<operation>get|update|delete)"
)


@dataclass(frozen=True, slots=True)
class ShadowRequest:
    """Which shadow a message asks for what: `operation` is get, update or delete, `name` "" the classic shadow."""

    thing: str
    name: str
    operation: str


def parse_request(topic: str) -> ShadowRequest | None:
    """The request a message with this topic makes; None: it is none."""
    match = _REQUEST.fullmatch(topic)
    return None if match is None else ShadowRequest(match["thing"], match["name"] or "", match["operation"])


def topic_of(thing: str, name: str, operation: str, answer: str = "") -> str:
    """The topic of a request, or of an answer to it: accepted, rejected, delta, documents."""
    shadow = f"$aws/things/{thing}/shadow" + (f"/name/{name}" if name else "")
    return f"{shadow}/{operation}" + (f"/{answer}" if answer else "")
