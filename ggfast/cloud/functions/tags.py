"""Tags of functions."""

from __future__ import annotations

from collections.abc import Mapping

from ggfast.cloud.functions.names import FunctionRef, function_arn, parse_name
from ggfast.cloud.functions.service import LAMBDA, check_place, invalid, not_found
from ggfast.cloud.functions.settings import TAGS
from ggfast.cloud.functions.store import FUNCTIONS
from ggfast.cloud.limits import TAGS_MAX
from ggfast.cloud.operations import Call, Reply
from ggfast.cloud.shapes import Items, Shape, Text, need, query
from ggfast.cloud.store.interface import Transaction

_COLLECTION = "tags"
_PATH = "/2017-03-31/tags/{Resource}"


class _FunctionArn(Shape):
    """Reads as the function's bare name, for the policies of keys; see `names.FunctionName`."""

    expected = "the ARN of a function, without a qualifier"

    def read(self, value: object, path: str) -> FunctionRef:
        if isinstance(value, FunctionRef):
            return value
        found = parse_name(value) if isinstance(value, str) and value.startswith("arn:") else None
        if found is None or found.qualifier:
            raise self.wrong(value, path)
        return found


def tags_of(tx: Transaction, home: str, arn: str) -> dict[str, str]:
    """The tags of a resource."""
    body = tx.get(_COLLECTION, home, arn)
    return {} if body is None else dict(body["tags"])


def set_tags(tx: Transaction, home: str, arn: str, tags: Mapping[str, str]) -> None:
    """Replace the tags of a resource."""
    if tags:
        tx.put(_COLLECTION, home, arn, {"tags": dict(tags)})
    else:
        tx.delete(_COLLECTION, home, arn)


@LAMBDA.operation("ListTags", f"GET {_PATH}", {"Resource": _FunctionArn()}, resource="function:{Resource}")
def list_tags(call: Call) -> Reply:
    """A function's tags."""
    return Reply({"Tags": tags_of(call.tx, call.home, _tagged(call))})


@LAMBDA.operation(
    "TagResource",
    f"POST {_PATH}",
    {"Resource": _FunctionArn(), "Tags": need(TAGS)},
    status=204,
    writes=True,
    resource="function:{Resource}",
)
def tag_resource(call: Call) -> Reply:
    """More tags, or other values."""
    arn = _tagged(call)
    tags = tags_of(call.tx, call.home, arn) | call.params["Tags"]
    if len(tags) > TAGS_MAX:
        raise invalid(f"Tags: found {len(tags)} with those that are there, expected at most {TAGS_MAX}.")
    set_tags(call.tx, call.home, arn, tags)
    return Reply()


@LAMBDA.operation(
    "UntagResource",
    f"DELETE {_PATH}",
    {"Resource": _FunctionArn(), "TagKeys": query(Items(Text(1, 128), 1, TAGS_MAX), "tagKeys", required=True)},
    status=204,
    writes=True,
    resource="function:{Resource}",
)
def untag_resource(call: Call) -> Reply:
    """Fewer tags."""
    arn = _tagged(call)
    gone = set(call.params["TagKeys"])
    tags = {key: value for key, value in tags_of(call.tx, call.home, arn).items() if key not in gone}
    set_tags(call.tx, call.home, arn, tags)
    return Reply()


def _tagged(call: Call) -> str:
    name: FunctionRef = call.params["Resource"]
    check_place(call, name)
    arn = function_arn(call.home, name)
    if call.tx.get(FUNCTIONS, call.home, str(name)) is None:
        raise not_found(f"Function not found: {arn}")
    return arn
