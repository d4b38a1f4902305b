"""Thing types: what many things have in common. Made, deprecated, and deleted some minutes later (cloud-api 7)."""

from __future__ import annotations

import uuid
from typing import Any

from ggfast.cloud.iot.lookups import THINGS, TYPES
from ggfast.cloud.iot.service import ATTRIBUTE_NAME, DESCRIPTION, IOT, NAME, TAGS, exists, not_found, unusable
from ggfast.cloud.iot.tags import drop_tags, put_tags, taggable
from ggfast.cloud.limits import THING_TYPE_WAIT_S
from ggfast.cloud.operations import Call, Reply, entries, paged
from ggfast.cloud.shapes import Flag, Items, Record, Text, query
from ggfast.cloud.store.interface import Body, Document

_PROPAGATING = Record(
    {
        "userPropertyKey": Text(1, 128, r"[a-zA-Z0-9:$.]+"),
        "thingAttribute": ATTRIBUTE_NAME,
        "connectionAttribute": Text(1, 128, r"[a-zA-Z0-9:.]+"),
    }
)
_PROPERTIES = Record(
    {
        "thingTypeDescription": DESCRIPTION,
        "searchableAttributes": Items(ATTRIBUTE_NAME, most=3),
        "mqtt5Configuration": Record({"propagatingAttributes": Items(_PROPAGATING, most=20)}),
    }
)
_RESOURCE = "thingtype/{thingTypeName}"

taggable("thingtype", lambda tx, home, name: tx.get(TYPES, home, name) is not None)


def check_usable(call: Call, name: str) -> None:
    """Refuse a thing type that does not exist or is deprecated. "": no type, which is fine."""
    if name and _required(call, name)["deprecated"] is not None:
        raise unusable(f"Can not create new thing with deprecated thing type:{name}")


@IOT.operation(
    "CreateThingType",
    "POST /thing-types/{thingTypeName}",
    {"thingTypeName": NAME, "thingTypeProperties": _PROPERTIES, "tags": TAGS},
    writes=True,
    resource=_RESOURCE,
)
def create_thing_type(call: Call) -> Reply:
    """A new type; the same request again gets the same answer, other properties 409."""
    name = call.params["thingTypeName"]
    properties = call.params.get("thingTypeProperties", {})
    arn = call.arn(f"thingtype/{name}")
    known = call.tx.get(TYPES, call.home, name)
    if known is None:
        known = {"id": str(uuid.uuid4()), "properties": properties, "at": call.cloud.clock.wall(), "deprecated": None}
        call.tx.create(TYPES, call.home, name, known)
        put_tags(call, arn, call.params.get("tags", []))
    elif known["properties"] != properties:
        raise exists(f"Thing type {name} already exists with different properties.", known["id"], arn)
    return Reply({"thingTypeName": name, "thingTypeArn": arn, "thingTypeId": known["id"]})


@IOT.operation("DescribeThingType", "GET /thing-types/{thingTypeName}", {"thingTypeName": NAME}, resource=_RESOURCE)
def describe_thing_type(call: Call) -> Reply:
    """All about a type."""
    name = call.params["thingTypeName"]
    known = _required(call, name)
    return Reply({"thingTypeId": known["id"], **_entry(call, Document(call.home, name, known))})


@IOT.operation("ListThingTypes", "GET /thing-types", {**paged("nextToken", "maxResults"), "thingTypeName": query(NAME)})
def list_thing_types(call: Call) -> Reply:
    """All types, or the one of that name."""
    name = call.params.get("thingTypeName")
    if name is None:
        page = call.list(TYPES, call.home)
        return entries(page, lambda document: _entry(call, document), "thingTypes", "nextToken")
    known = call.tx.get(TYPES, call.home, name)
    return Reply({"thingTypes": [] if known is None else [_entry(call, Document(call.home, name, known))]})


@IOT.operation(
    "DeprecateThingType",
    "POST /thing-types/{thingTypeName}/deprecate",
    {"thingTypeName": NAME, "undoDeprecate": Flag()},
    writes=True,
    resource=_RESOURCE,
)
def deprecate_thing_type(call: Call) -> Reply:
    """Let no new thing have this type, or let them again."""
    name = call.params["thingTypeName"]
    known = _required(call, name)
    if call.params.get("undoDeprecate"):
        known["deprecated"] = None
    elif known["deprecated"] is None:
        known["deprecated"] = call.cloud.clock.wall()
    call.tx.put(TYPES, call.home, name, known)
    return Reply()


@IOT.operation(
    "DeleteThingType", "DELETE /thing-types/{thingTypeName}", {"thingTypeName": NAME}, writes=True, resource=_RESOURCE
)
def delete_thing_type(call: Call) -> Reply:
    """Remove a type that no thing has and that has been deprecated for 5 minutes, as the service we replace wants."""
    name = call.params["thingTypeName"]
    known = _required(call, name)
    if known["deprecated"] is None:
        raise unusable(
            f"Can not delete the thing type {name}: it is not deprecated. Deprecate it, then wait 5 minutes."
        )
    wait = known["deprecated"] + THING_TYPE_WAIT_S - call.cloud.clock.wall()
    if wait > 0:
        raise unusable(
            f"Can not delete the thing type {name}: it was deprecated less than 5 minutes ago."
            f" Please wait for {wait:.0f} seconds and try again."
        )
    things = call.tx.count_found(THINGS, "type", f"{call.home}/{name}")
    if things:
        raise unusable(f"Can not delete the thing type {name}: {things} things have it. Change them by UpdateThing.")
    call.tx.delete(TYPES, call.home, name)
    drop_tags(call, call.arn(f"thingtype/{name}"))
    return Reply()


def _required(call: Call, name: str) -> Body:
    known = call.tx.get(TYPES, call.home, name)
    if known is None:
        raise not_found("thing type", name)
    return known


def _entry(call: Call, document: Document) -> dict[str, Any]:
    body = document.body
    metadata: dict[str, Any] = {"deprecated": body["deprecated"] is not None, "creationDate": body["at"]}
    if body["deprecated"] is not None:
        metadata["deprecationDate"] = body["deprecated"]
    return {
        "thingTypeName": document.name,
        "thingTypeArn": call.arn(f"thingtype/{document.name}"),
        "thingTypeProperties": body["properties"],
        "thingTypeMetadata": metadata,
    }
