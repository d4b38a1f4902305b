"""Wills: what a client leaves to be published when it goes without saying so, or some time after [MQTT5-3.1.2.5]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from ggfast._ext.framing import Will
from ggfast._ext.properties import publish_properties
from ggfast._ext.routes import Router
from ggfast._ext.topics import check_topic
from ggfast.errors import NotAuthorized, Violation
from ggfast.mqtt.reasons import Reason

SYSTEM_PREFIX = b"$SYS/"  # the broker's own topics in the open mode


@dataclass(frozen=True, slots=True)
class StoredWill:
    """A will in the form it is published in. Seconds; `expiry_s` -1: none."""

    source: str
    topic: bytes
    payload: bytes
    qos: int
    retain: bool
    properties: bytes = b""
    expiry_s: int = -1
    delay_s: int = 0

    @property
    def size(self) -> int:
        """Bytes of what the client chose."""
        return len(self.topic) + len(self.payload) + len(self.properties)


def stored_will(will: Will, source: str) -> StoredWill:
    """The will of a CONNECT that has been checked."""
    return StoredWill(
        source,
        will.topic,
        will.payload,
        will.qos,
        will.retain,
        publish_properties(will.properties),
        cast(int, will.properties.get("message_expiry_interval", -1)),
        cast(int, will.properties.get("will_delay_interval", 0)),
    )


def check_will(will: Will, router: Router, payload_bytes_max: int) -> None:
    """Raise Violation for a will that could not be published, NotAuthorized for one on the broker's own topics."""
    fault = check_topic(will.topic, router.topic_bytes_max, router.topic_slashes_max)
    if fault is not None:
        raise Violation(f"will topic {will.topic[:256]!r} is not valid: {fault}", reason_code=Reason.TOPIC_NAME_INVALID)
    if len(will.payload) > payload_bytes_max:
        raise Violation(
            f"a will of {len(will.payload)} bytes, the limit is {payload_bytes_max}",
            reason_code=Reason.PACKET_TOO_LARGE,
        )
    if router.open and will.topic.startswith(SYSTEM_PREFIX):
        raise NotAuthorized(f"will topic {will.topic[:256]!r} is the broker's own", reason_code=Reason.NOT_AUTHORIZED)
