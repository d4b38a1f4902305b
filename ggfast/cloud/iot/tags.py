"""Tags of IoT resources (cloud-api 7). Things and certificates have none; kinds that do say so by `taggable`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ggfast.cloud.iot.lists import portion
from ggfast.cloud.iot.service import ARN, IOT, TAG_KEY, TAGS, not_found, unusable
from ggfast.cloud.limits import TAGS_MAX
from ggfast.cloud.operations import Call, Reply
from ggfast.cloud.shapes import Items, Text, need, query
from ggfast.cloud.store.interface import Transaction

_COLLECTION = "tags"  # parent: home, name: ARN
_kinds: dict[str, Callable[[Transaction, str, str], bool]] = {}


def taggable(kind: str, exists: Callable[[Transaction, str, str], bool]) -> None:
    """Make ARNs `<kind>/<name>` known; `exists(tx, home, name)` tells whether there is such a resource."""
    _kinds[kind] = exists


def put_tags(call: Call, arn: str, tags: Sequence[Mapping[str, str]]) -> None:
    """Add tags as requests hold them, [{"Key": ..., "Value": ...}], to what `arn` has."""
    found = _tags(call, arn) | {tag["Key"]: tag.get("Value", "") for tag in tags}
    for key in found:
        if key.lower().startswith("aws:"):
            raise unusable(f"The tag key {key!r} begins with 'aws:', which is reserved. Use another key.")
    if len(found) > TAGS_MAX:
        raise unusable(f"The resource would have {len(found)} tags, expected at most {TAGS_MAX}.")
    if tags:
        call.tx.put(_COLLECTION, call.home, arn, {"tags": found})


def drop_tags(call: Call, arn: str) -> None:
    """Forget the tags of what is deleted."""
    call.tx.delete(_COLLECTION, call.home, arn)


@IOT.operation(
    "TagResource",
    "POST /tags",
    {"resourceArn": need(ARN), "tags": need(TAGS)},
    writes=True,
    resource="{resourceArn}",
)
def tag_resource(call: Call) -> Reply:
    """Add tags or change their values."""
    put_tags(call, _checked(call), call.params["tags"])
    return Reply()


@IOT.operation(
    "UntagResource",
    "POST /untag",
    {"resourceArn": need(ARN), "tagKeys": need(Items(TAG_KEY, most=TAGS_MAX))},
    writes=True,
    resource="{resourceArn}",
)
def untag_resource(call: Call) -> Reply:
    """Remove tags; keys that are not there do no harm."""
    arn = _checked(call)
    removed = set(call.params["tagKeys"])
    kept = {key: value for key, value in _tags(call, arn).items() if key not in removed}
    call.tx.put(_COLLECTION, call.home, arn, {"tags": kept})
    return Reply()


@IOT.operation(
    "ListTagsForResource",
    "GET /tags",
    {"resourceArn": query(ARN, required=True), "nextToken": query(Text(1, 2_048))},
    resource="{resourceArn}",
)
def list_tags_for_resource(call: Call) -> Reply:
    """A resource's tags."""
    tags = [{"Key": key, "Value": value} for key, value in _tags(call, _checked(call)).items()]
    return portion(call, tags, "tags", "nextToken", "nextToken", "maxResults")


def _tags(call: Call, arn: str) -> dict[str, str]:
    known = call.tx.get(_COLLECTION, call.home, arn)
    return {} if known is None else dict(known["tags"])


def _checked(call: Call) -> str:
    """The ARN the request names. Raises Fault unless there is such a resource here that can have tags."""
    arn: str = call.params["resourceArn"]
    if not arn.startswith("arn:aws:iot:") or arn.count(":") < 5 or "/" not in arn.split(":", 5)[5]:
        raise call.invalid("resourceArn", arn, f"{call.arn('')}<kind>/<name>, kind one of {', '.join(sorted(_kinds))}")
    kind, _, name = arn.split(":", 5)[5].partition("/")
    if kind not in _kinds:
        raise unusable(f"A {kind[:80]} has no tags, expected one of {', '.join(sorted(_kinds))}.")
    if not arn.startswith(call.arn("")) or not _kinds[kind](call.tx, call.home, name):
        raise not_found("resource", arn)
    return arn
