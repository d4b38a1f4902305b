"""Shadows by HTTP: bodies and answers are the documents themselves (cloud-api 8)."""

from __future__ import annotations

from typing import Any, Final

from ggfast.cloud.faults import Fault
from ggfast.cloud.operations import Call, Reply, paged
from ggfast.cloud.shadows import store
from ggfast.cloud.shadows.service import IOT_DATA
from ggfast.cloud.shapes import Text, payload, query
from ggfast.limits import SHADOW_REQUEST_BYTES_MAX
from ggfast.shadows.document import ShadowRefused
from ggfast.shadows.messages import got, missing
from ggfast.shadows.topics import SHADOW_NAME, THING_NAME

_CODES: Final = {
    400: "InvalidRequestException",
    404: "ResourceNotFoundException",
    409: "ConflictException",
    413: "RequestEntityTooLargeException",
    415: "UnsupportedDocumentEncodingException",
    429: "ThrottlingException",
}
THING: Final = Text(1, 128, THING_NAME)
_SHADOW: Final[dict[str, Any]] = {"thingName": THING, "shadowName": query(Text(1, 64, SHADOW_NAME), "name")}
_NAMES_MAX: Final = 100  # the service model's largest page of named shadows


@IOT_DATA.operation("GetThingShadow", "GET /things/{thingName}/shadow", _SHADOW, asks=False)
def get_thing_shadow(call: Call) -> Reply:
    """The whole document."""
    thing, name = _shadow_of(call, "GetThingShadow")
    shadow = store.get(call.tx, call.home, thing, name)
    if shadow is None:
        raise _fault(missing(thing, name))
    return _document(got(shadow, int(call.cloud.clock.wall())))


@IOT_DATA.operation(
    "UpdateThingShadow",
    "POST /things/{thingName}/shadow",
    {**_SHADOW, "payload": payload(2 * SHADOW_REQUEST_BYTES_MAX, required=True)},
    writes=True,
    asks=False,
)
def update_thing_shadow(call: Call) -> Reply:
    """What the update changed."""
    thing, name = _shadow_of(call, "UpdateThingShadow")
    now = call.cloud.clock.wall()
    try:
        return _document(store.update(call.tx, call.home, thing, name, call.params["payload"], now))
    except ShadowRefused as refused:
        raise _fault(refused) from refused


@IOT_DATA.operation("DeleteThingShadow", "DELETE /things/{thingName}/shadow", _SHADOW, writes=True, asks=False)
def delete_thing_shadow(call: Call) -> Reply:
    """The version that was deleted."""
    thing, name = _shadow_of(call, "DeleteThingShadow")
    try:
        return _document(store.delete(call.tx, call.home, thing, name, call.cloud.clock.wall()))
    except ShadowRefused as refused:
        raise _fault(refused) from refused


@IOT_DATA.operation(
    "ListNamedShadowsForThing",
    "GET /api/things/shadow/ListNamedShadowsForThing/{thingName}",
    {"thingName": THING, **paged("nextToken", "pageSize", _NAMES_MAX)},
    asks=False,
)
def list_named_shadows_for_thing(call: Call) -> Reply:
    """The names of a thing's named shadows."""
    thing = call.params["thingName"]
    call.permit("ListNamedShadowsForThing", call.arn(f"thing/{thing}", "iot"))
    page = call.list(store.NAMED, f"{call.home}/{thing}")
    members: dict[str, Any] = {
        "results": [document.name for document in page.documents],
        "timestamp": int(call.cloud.clock.wall()),
    }
    return Reply(members if page.token is None else members | {"nextToken": page.token})


def _shadow_of(call: Call, operation: str) -> tuple[str, str]:
    """Thing and shadow name of a request whose principal may do `operation` on it."""
    thing, name = call.params["thingName"], call.params.get("shadowName", "")
    call.permit(operation, call.arn(f"thing/{thing}/{name}" if name else f"thing/{thing}", "iot"))
    return thing, name


def _document(body: bytes) -> Reply:
    return Reply(raw=body, content_type="application/json")


def _fault(refused: ShadowRefused) -> Fault:
    return Fault(_CODES[refused.code], refused.text, status=refused.code)
