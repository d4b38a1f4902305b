"""Tags of groups, definitions and bulk deployments.

Who keeps a kind of resource says with `taggable` how its existence is seen. ARNs count with and without the slash
after the account (cloud-api 3). Tags lie in collection "tags" under the ARN with the slash.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ggfast.cloud.faults import Fault
from ggfast.cloud.greengrass.service import GREENGRASS, arn_of, path_in, unknown
from ggfast.cloud.limits import TAG_KEY_MAX, TAG_VALUE_MAX, TAGS_MAX
from ggfast.cloud.operations import Call, Reply
from ggfast.cloud.shapes import Items, Table, Text, need, query
from ggfast.cloud.store.interface import Transaction

TAGS = "tags"
SHAPE = Table(Text(0, TAG_VALUE_MAX), TAGS_MAX, Text(1, TAG_KEY_MAX))

Exists = Callable[[Transaction, str, str], bool]  # of a transaction, a home and an id

_exists: dict[str, Exists] = {}


def taggable(path: str, exists: Exists) -> None:
    """Resources `<path>/<id>` have tags."""
    _exists[path] = exists


def tags_of(tx: Transaction, home: str, arn: str) -> dict[str, str]:
    """The tags of a resource, by its ARN with the slash."""
    found = tx.get(TAGS, home, arn)
    return {} if found is None else dict(found["tags"])


def add_tags(tx: Transaction, home: str, arn: str, tags: Mapping[str, str]) -> None:
    """Add or replace tags. Raises Fault for the reserved prefix and past the bound."""
    for key in tags:
        if key.lower().startswith("aws:"):
            raise Fault(GREENGRASS.invalid_code, f"Tag key '{key}' is invalid: keys that begin with aws: are reserved.")
    together = tags_of(tx, home, arn) | dict(tags)
    if len(together) > TAGS_MAX:
        raise Fault(
            GREENGRASS.invalid_code,
            f"The resource would have {len(together)} tags, expected at most {TAGS_MAX}; remove some first.",
        )
    if together:
        tx.put(TAGS, home, arn, {"tags": together})


def drop_tags(tx: Transaction, home: str, arn: str) -> None:
    """The resource is gone."""
    tx.delete(TAGS, home, arn)


def _resource(call: Call, operation: str) -> str:
    """The ARN, with the slash, of the request's resource, which exists and for which the caller may do this."""
    given = call.params["ResourceArn"]
    path = path_in(call.home, given)
    if path is None:
        raise call.invalid("ResourceArn", given, f"{arn_of(call.home, '/greengrass/')}...")
    arn = arn_of(call.home, path)
    call.permit(operation, arn)  # policies name the form with the slash, whatever form was sent
    parent, _, name = path.rpartition("/")
    if parent not in _exists or not _exists[parent](call.tx, call.home, name):
        raise unknown(f"The resource {given} does not exist.", "ResourceNotFoundException")
    return arn


_PATH = "/tags/{ResourceArn}"
_ARN = {"ResourceArn": Text(1, 2_048)}


@GREENGRASS.operation("ListTagsForResource", f"GET {_PATH}", _ARN, asks=False)
def list_tags(call: Call) -> Reply:
    """The tags of one resource."""
    return Reply({"tags": tags_of(call.tx, call.home, _resource(call, "ListTagsForResource"))})


@GREENGRASS.operation(
    "TagResource", f"POST {_PATH}", {**_ARN, "tags": need(SHAPE)}, status=204, writes=True, asks=False
)
def tag(call: Call) -> Reply:
    """Add or replace tags."""
    add_tags(call.tx, call.home, _resource(call, "TagResource"), call.params["tags"])
    return Reply()


@GREENGRASS.operation(
    "UntagResource",
    f"DELETE {_PATH}",
    {**_ARN, "TagKeys": query(Items(Text(1, TAG_KEY_MAX), 1, TAGS_MAX), "tagKeys", required=True)},
    status=204,
    writes=True,
    asks=False,
)
def untag(call: Call) -> Reply:
    """Remove tags; keys that are not there are no error."""
    arn = _resource(call, "UntagResource")
    left = tags_of(call.tx, call.home, arn)
    for key in call.params["TagKeys"]:
        left.pop(key, None)
    if left:
        call.tx.put(TAGS, call.home, arn, {"tags": left})
    else:
        drop_tags(call.tx, call.home, arn)
    return Reply()
