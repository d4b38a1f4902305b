"""Retained messages in the store: what the broker keeps for subscribers to come, of one account and region.

`home` is the parent, the topic the name. Both ways by which a message is retained, the API's and a device's, go
through `put`.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from ggfast.cloud.store.interface import Page, Transaction

RETAINED = "retained"


@dataclass(frozen=True, slots=True)
class RetainedMessage:
    """One retained message; `at` is when it was published, `until` when it is gone (0: never), both in seconds since
    1970. `properties` are those of MQTT 5.0, as the broker forwards them."""

    topic: str
    payload: bytes
    qos: int
    at: float
    properties: bytes = b""
    until: float = 0.0


def put(
    tx: Transaction,
    home: str,
    topic: str,
    payload: bytes,
    qos: int,
    at: float,
    *,
    properties: bytes = b"",
    until: float = 0.0,
) -> None:
    """Keep a message, in place of the topic's last; an empty payload removes it (MQTT 3.3.1.3)."""
    if not payload:
        delete(tx, home, topic)
        return
    body = {"payload": base64.b64encode(payload).decode(), "qos": qos, "at": at}
    if properties:
        body["properties"] = base64.b64encode(properties).decode()
    if until:
        body["until"] = until
    tx.put(RETAINED, home, topic, body)


def get(tx: Transaction, home: str, topic: str) -> RetainedMessage | None:
    """The topic's message, None if there is none."""
    body = tx.get(RETAINED, home, topic)
    return None if body is None else from_body(topic, body)


def delete(tx: Transaction, home: str, topic: str) -> bool:
    """Remove a topic's message; False if there was none."""
    return tx.delete(RETAINED, home, topic)


def list_page(tx: Transaction, home: str, *, limit: int, token: str | None = None) -> Page:
    """A page of documents, each `from_body(document.name, document.body)`. Raises BadToken."""
    return tx.list(RETAINED, home, limit=limit, token=token)


def from_body(topic: str, body: dict[str, Any]) -> RetainedMessage:
    """The message of a document."""
    properties = base64.b64decode(body.get("properties", ""))
    return RetainedMessage(
        topic, base64.b64decode(body["payload"]), body["qos"], body["at"], properties, body.get("until", 0.0)
    )
