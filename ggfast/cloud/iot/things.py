"""Things: their attributes, type and version (cloud-api 7)."""

from __future__ import annotations

import uuid
from typing import Any

from ggfast.cloud.events import PermissionsChanged
from ggfast.cloud.iot import thing_groups, thing_types
from ggfast.cloud.iot.attributes import PAYLOAD, merged
from ggfast.cloud.iot.lists import sifted
from ggfast.cloud.iot.lookups import (
    THING_PRINCIPALS,
    THINGS,
    certificates_of_thing,
    get_thing,
    groups_of_thing,
    required_thing,
    things_of_certificate,
    things_of_group,
)
from ggfast.cloud.iot.service import ATTRIBUTE_NAME, ATTRIBUTE_VALUE, IOT, NAME, check_version, exists, unusable
from ggfast.cloud.operations import Call, Reply, entries, paged
from ggfast.cloud.shapes import Flag, Whole, query
from ggfast.cloud.store.interface import Body, Document

__all__ = ["certificates_of_thing", "get_thing", "groups_of_thing", "things_of_certificate", "things_of_group"]

_RESOURCE = "thing/{thingName}"


@IOT.operation(
    "CreateThing",
    "POST /things/{thingName}",
    {"thingName": NAME, "thingTypeName": NAME, "attributePayload": PAYLOAD, "billingGroupName": NAME},
    writes=True,
    resource=_RESOURCE,
)
def create_thing(call: Call) -> Reply:
    """A new thing; the same request again gets the same answer, another configuration 409."""
    name = call.params["thingName"]
    wanted = {
        "attributes": merged({}, call.params.get("attributePayload")),
        "type": call.params.get("thingTypeName", ""),
        "billing": call.params.get("billingGroupName", ""),
    }
    arn = call.arn(f"thing/{name}")
    thing = get_thing(call.tx, call.home, name)
    if thing is None:
        thing_types.check_usable(call, wanted["type"])
        thing = {"id": str(uuid.uuid4()), "version": 1, "at": call.cloud.clock.wall(), **wanted}
        call.tx.create(THINGS, call.home, name, thing, _labels(call.home, thing))
    elif any(thing[key] != value for key, value in wanted.items()):
        raise exists(f"Thing {name} already exists in account with different attributes", thing["id"], arn)
    return Reply({"thingName": name, "thingArn": arn, "thingId": thing["id"]})


@IOT.operation(
    "UpdateThing",
    "PATCH /things/{thingName}",
    {
        "thingName": NAME,
        "thingTypeName": NAME,
        "attributePayload": PAYLOAD,
        "expectedVersion": Whole(),
        "removeThingType": Flag(),
    },
    writes=True,
    resource=_RESOURCE,
)
def update_thing(call: Call) -> Reply:
    """Other attributes or another type."""
    name = call.params["thingName"]
    thing = required_thing(call, name)
    check_version(call, f"thing {name}", thing["version"])
    if call.params.get("removeThingType"):
        if "thingTypeName" in call.params:
            raise unusable("The request has both thingTypeName and removeThingType, expected one of them.")
        thing["type"] = ""
    elif "thingTypeName" in call.params:
        thing_types.check_usable(call, call.params["thingTypeName"])
        thing["type"] = call.params["thingTypeName"]
    thing["attributes"] = merged(thing["attributes"], call.params.get("attributePayload"))
    thing["version"] += 1
    call.tx.put(THINGS, call.home, name, thing, _labels(call.home, thing))
    for certificate_id in certificates_of_thing(call.tx, call.home, name):  # policies may name type and attributes
        call.tx.tell(PermissionsChanged(certificate_id))
    return Reply()


@IOT.operation("DescribeThing", "GET /things/{thingName}", {"thingName": NAME}, resource=_RESOURCE)
def describe_thing(call: Call) -> Reply:
    """All about a thing."""
    name = call.params["thingName"]
    thing = required_thing(call, name)
    members = {"defaultClientId": name, "thingId": thing["id"], **_entry(call, Document(call.home, name, thing))}
    if thing["billing"]:
        members["billingGroupName"] = thing["billing"]
    return Reply(members)


@IOT.operation(
    "DeleteThing",
    "DELETE /things/{thingName}",
    {"thingName": NAME, "expectedVersion": query(Whole())},
    writes=True,
    resource=_RESOURCE,
)
def delete_thing(call: Call) -> Reply:
    """Remove a thing that no certificate is attached to. One that does not exist is as good as deleted."""
    name = call.params["thingName"]
    thing = get_thing(call.tx, call.home, name)
    if thing is None:
        return Reply()
    check_version(call, f"thing {name}", thing["version"])
    if call.tx.count(THING_PRINCIPALS, f"{call.home}/{name}"):
        raise unusable(f"Cannot delete. Thing {name} is still attached to one or more principals")
    thing_groups.forget_thing(call.tx, call.home, name)
    call.tx.delete(THINGS, call.home, name)
    return Reply()


@IOT.operation(
    "ListThings",
    "GET /things",
    {
        **paged("nextToken", "maxResults"),
        "attributeName": query(ATTRIBUTE_NAME),
        "attributeValue": query(ATTRIBUTE_VALUE),
        "thingTypeName": query(NAME),
        "usePrefixAttributeValue": query(Flag()),
    },
)
def list_things(call: Call) -> Reply:
    """Things, of one type, with an attribute, with a value or the beginning of one."""
    attribute, value = call.params.get("attributeName"), call.params.get("attributeValue")
    type_name = call.params.get("thingTypeName")
    by_prefix = call.params.get("usePrefixAttributeValue", False)
    if value is not None and attribute is None:
        raise unusable("The request has attributeValue without attributeName.")

    def fits(document: Document) -> bool:
        if type_name is not None and document.body["type"] != type_name:
            return False
        if attribute is None or value is None:
            return True
        found = document.body["attributes"].get(attribute, "")
        return bool(found.startswith(value)) if by_prefix else bool(found == value)

    if attribute is not None and value is not None and not by_prefix:
        page = sifted(call, fits, lambda look: look.find(THINGS, "value", f"{call.home}/{attribute}={value}"))
    elif attribute is not None:
        page = sifted(call, fits, lambda look: look.find(THINGS, "attribute", f"{call.home}/{attribute}"))
    elif type_name is not None:
        page = call.find(THINGS, "type", f"{call.home}/{type_name}")
    else:
        page = call.list(THINGS, call.home)
    return entries(page, lambda document: _entry(call, document), "things", "nextToken")


def _entry(call: Call, document: Document) -> dict[str, Any]:
    members = {
        "thingName": document.name,
        "thingArn": call.arn(f"thing/{document.name}"),
        "attributes": document.body["attributes"],
        "version": document.body["version"],
    }
    return members | ({"thingTypeName": document.body["type"]} if document.body["type"] else {})


def _labels(home: str, thing: Body) -> dict[str, list[str]]:
    return {
        "type": [f"{home}/{thing['type']}"] if thing["type"] else [],
        "attribute": [f"{home}/{name}" for name in thing["attributes"]],
        "value": [f"{home}/{name}={value}" for name, value in thing["attributes"].items()],
    }
