"""Shadows in the store: every change tells the messages of its `$aws/things/...` topics, whoever asked for it.

A classic shadow is a document of the home, a named one of its thing, so that a thing's named shadows are a plain list.
What a deleted shadow leaves is its version, for SHADOW_TOMBSTONE_S: a shadow made again goes on from it, and clients
that remember versions keep working. Shadows need no thing in the registry: `<core>-gda` and its like have none.
"""

from __future__ import annotations

from ggfast.cloud.events import Publish
from ggfast.cloud.limits import SHADOW_TOMBSTONE_S, SHADOWS_OF_THING_MAX
from ggfast.cloud.store.interface import Transaction
from ggfast.shadows.document import Shadow, ShadowRefused
from ggfast.shadows.messages import deleted, emptied, from_body, missing, read_token, to_body
from ggfast.shadows.messages import update as apply_update
from ggfast.shadows.topics import topic_of

CLASSIC = "shadows"
NAMED = "named-shadows"
TOMBSTONES = "shadow-tombstones"
_OLD = "hour"  # label of tombstones: the hour they were made in


def get(tx: Transaction, home: str, thing: str, name: str = "") -> Shadow | None:
    """The shadow of a thing, None if there is none; `name` "" is the classic one."""
    body = tx.get(*_place(home, thing, name))
    return None if body is None else from_body(body)


def update(tx: Transaction, home: str, thing: str, name: str, body: bytes, now: float) -> bytes:
    """Apply an update request and tell delta, accepted and documents; the accepted document.

    Raises ShadowRefused, and then nothing has happened. `now` is in seconds since 1970.
    """
    before = get(tx, home, thing, name)
    if before is None:
        if name and tx.count(NAMED, f"{home}/{thing}") >= SHADOWS_OF_THING_MAX:
            text = f"The thing has {SHADOWS_OF_THING_MAX} named shadows, the most there may be: delete one first"
            raise ShadowRefused(429, text, read_token(body))
        before = _remembered(tx, home, thing, name, now)
    made = apply_update(before, body, int(now))
    tx.put(*_place(home, thing, name), to_body(made.shadow))
    tx.delete(TOMBSTONES, home, _key(thing, name))
    if made.delta is not None:
        tx.tell(Publish(topic_of(thing, name, "update", "delta"), made.delta, home=home))
    tx.tell(Publish(topic_of(thing, name, "update", "accepted"), made.accepted, home=home))
    tx.tell(Publish(topic_of(thing, name, "update", "documents"), made.documents, home=home))
    return made.accepted


def delete(tx: Transaction, home: str, thing: str, name: str, now: float, body: bytes = b"") -> bytes:
    """Remove a shadow and tell so; the accepted document. Raises ShadowRefused if there is none."""
    token = read_token(body)
    shadow = get(tx, home, thing, name)
    if shadow is None:
        raise missing(thing, name, token)
    tx.delete(*_place(home, thing, name))
    tombstone = {"version": shadow.version, "at": now}
    tx.put(TOMBSTONES, home, _key(thing, name), tombstone, {_OLD: [str(int(now // 3_600))]})
    accepted = deleted(shadow, int(now), token)
    tx.tell(Publish(topic_of(thing, name, "delete", "accepted"), accepted, home=home))
    return accepted


def forget(tx: Transaction, now: float, *, limit: int = 1_000) -> int:
    """Remove versions of shadows deleted so long ago that nobody may rely on them; how many. Call it hourly."""
    removed = 0
    oldest = int((now - SHADOW_TOMBSTONE_S) // 3_600)
    for hour in range(oldest - 24, oldest):
        for document in tx.find(TOMBSTONES, _OLD, str(hour), limit=limit).documents:
            removed += tx.delete(TOMBSTONES, document.parent, document.name)
    return removed


def _remembered(tx: Transaction, home: str, thing: str, name: str, now: float) -> Shadow:
    """No shadow, at the version that a deleted one had."""
    tombstone = tx.get(TOMBSTONES, home, _key(thing, name))
    if tombstone is None or now - tombstone["at"] >= SHADOW_TOMBSTONE_S:
        return Shadow()
    return emptied(Shadow(version=tombstone["version"]))


def _place(home: str, thing: str, name: str) -> tuple[str, str, str]:
    return (NAMED, f"{home}/{thing}", name) if name else (CLASSIC, home, thing)


def _key(thing: str, name: str) -> str:
    return f"{thing}/{name}" if name else thing
