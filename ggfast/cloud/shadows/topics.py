"""What a device's message to a shadow topic does: the same as the operation, answered on the topic's own answers."""

from __future__ import annotations

from ggfast.cloud.events import Publish
from ggfast.cloud.shadows import store
from ggfast.cloud.store.interface import Transaction
from ggfast.cloud.surroundings import Surroundings
from ggfast.shadows.document import ShadowRefused
from ggfast.shadows.messages import got, missing, read_token, rejected
from ggfast.shadows.topics import ShadowRequest, parse_request, topic_of


def handle(tx: Transaction, cloud: Surroundings, home: str, topic: str, payload: bytes) -> None:
    """Do what a message published to `$aws/things/<thing>/shadow/...` asks for and tell the answer.

    A topic that asks for nothing does nothing. Raises nothing but what the store raises.
    """
    request = parse_request(topic)
    if request is None:
        return
    now = cloud.clock.wall()
    try:
        _answer(tx, home, request, payload, now)
    except ShadowRefused as refused:
        answer = topic_of(request.thing, request.name, request.operation, "rejected")
        tx.tell(Publish(answer, rejected(refused, int(now)), home=home))


def _answer(tx: Transaction, home: str, request: ShadowRequest, payload: bytes, now: float) -> None:
    thing, name = request.thing, request.name
    if request.operation == "update":
        store.update(tx, home, thing, name, payload, now)
    elif request.operation == "delete":
        store.delete(tx, home, thing, name, now, payload)
    else:
        token = read_token(payload)
        shadow = store.get(tx, home, thing, name)
        if shadow is None:
            raise missing(thing, name, token)
        tx.tell(Publish(topic_of(thing, name, "get", "accepted"), got(shadow, int(now), token), home=home))


def is_request(topic: str) -> bool:
    """Whether a message with this topic asks a shadow for something."""
    return parse_request(topic) is not None
