"""Thing groups: trees of them, and the things in them (cloud-api 7).

A group's place in its tree never changes, so it is written with all its ancestors, and a thing's membership with every
group it makes the thing a part of: recursive lists are one look-up.
"""

from __future__ import annotations

import uuid
from typing import Any

from ggfast.cloud.events import PermissionsChanged
from ggfast.cloud.iot.attributes import PAYLOAD, merged
from ggfast.cloud.iot.lists import sifted
from ggfast.cloud.iot.lookups import (
    ATTACHMENTS,
    GROUPS,
    MEMBERS,
    certificates_of_thing,
    groups_of_thing,
    required_group,
    required_thing,
)
from ggfast.cloud.iot.service import (
    ARN,
    DESCRIPTION,
    IOT,
    NAME,
    TAGS,
    check_version,
    exists,
    name_in_arn,
    not_found,
    unusable,
)
from ggfast.cloud.iot.tags import drop_tags, put_tags, taggable
from ggfast.cloud.limits import GROUP_CHILDREN_MAX, GROUP_LEVELS_MAX, GROUPS_OF_THING_MAX
from ggfast.cloud.operations import Call, Reply, entries, paged
from ggfast.cloud.shapes import Flag, Record, Whole, need, query
from ggfast.cloud.store.interface import Body, Transaction

_PROPERTIES = Record({"thingGroupDescription": DESCRIPTION, "attributePayload": PAYLOAD})
_MEMBERSHIP = {"thingGroupName": NAME, "thingGroupArn": ARN, "thingName": NAME, "thingArn": ARN}
_RESOURCE = "thinggroup/{thingGroupName}"

taggable("thinggroup", lambda tx, home, name: tx.get(GROUPS, home, name) is not None)


def forget_thing(tx: Transaction, home: str, thing: str) -> None:
    """Take a thing that is being deleted out of its groups."""
    for group in groups_of_thing(tx, home, thing):
        tx.delete(MEMBERS, f"{home}/{group}", thing)


@IOT.operation(
    "CreateThingGroup",
    "POST /thing-groups/{thingGroupName}",
    {"thingGroupName": NAME, "parentGroupName": NAME, "thingGroupProperties": _PROPERTIES, "tags": TAGS},
    writes=True,
    resource=_RESOURCE,
)
def create_thing_group(call: Call) -> Reply:
    """A new group; the same request again gets the same answer, another configuration 409."""
    name, parent = call.params["thingGroupName"], call.params.get("parentGroupName", "")
    properties = call.params.get("thingGroupProperties", {})
    wanted = {
        "parent": parent,
        "description": properties.get("thingGroupDescription"),
        "attributes": merged({}, properties.get("attributePayload")),
    }
    arn = call.arn(f"thinggroup/{name}")
    group = call.tx.get(GROUPS, call.home, name)
    if group is None:
        ancestors = _ancestors(call, parent)
        group = {"id": str(uuid.uuid4()), "version": 1, "at": call.cloud.clock.wall(), "ancestors": ancestors}
        labels = {
            "parent": [f"{call.home}/{parent}"],
            "ancestor": [f"{call.home}/{ancestor}" for ancestor in ancestors],
        }
        call.tx.create(GROUPS, call.home, name, group | wanted, labels)
        put_tags(call, arn, call.params.get("tags", []))
    elif any(group[key] != value for key, value in wanted.items()):
        raise exists(
            f"Thing Group {name} already exists in current account with different properties", group["id"], arn
        )
    return Reply({"thingGroupName": name, "thingGroupArn": arn, "thingGroupId": group["id"]})


@IOT.operation("DescribeThingGroup", "GET /thing-groups/{thingGroupName}", {"thingGroupName": NAME}, resource=_RESOURCE)
def describe_thing_group(call: Call) -> Reply:
    """All about a group but its things."""
    name = call.params["thingGroupName"]
    group = required_group(call, name)
    metadata: dict[str, Any] = {"creationDate": group["at"]}
    if group["parent"]:
        metadata["parentGroupName"] = group["parent"]
        metadata["rootToParentThingGroups"] = [_entry(call, ancestor) for ancestor in group["ancestors"]]
    properties: dict[str, Any] = {"attributePayload": {"attributes": group["attributes"]}}
    if group["description"] is not None:
        properties["thingGroupDescription"] = group["description"]
    return Reply(
        {
            "thingGroupName": name,
            "thingGroupId": group["id"],
            "thingGroupArn": call.arn(f"thinggroup/{name}"),
            "version": group["version"],
            "thingGroupProperties": properties,
            "thingGroupMetadata": metadata,
        }
    )


@IOT.operation(
    "UpdateThingGroup",
    "PATCH /thing-groups/{thingGroupName}",
    {"thingGroupName": NAME, "thingGroupProperties": need(_PROPERTIES), "expectedVersion": Whole()},
    writes=True,
    resource=_RESOURCE,
)
def update_thing_group(call: Call) -> Reply:
    """Another description or other attributes."""
    name, properties = call.params["thingGroupName"], call.params["thingGroupProperties"]
    group = required_group(call, name)
    check_version(call, f"thing group {name}", group["version"])
    group["description"] = properties.get("thingGroupDescription", group["description"])
    group["attributes"] = merged(group["attributes"], properties.get("attributePayload"))
    group["version"] += 1
    call.tx.put(GROUPS, call.home, name, group)
    return Reply({"version": group["version"]})


@IOT.operation(
    "DeleteThingGroup",
    "DELETE /thing-groups/{thingGroupName}",
    {"thingGroupName": NAME, "expectedVersion": query(Whole())},
    writes=True,
    resource=_RESOURCE,
)
def delete_thing_group(call: Call) -> Reply:
    """Remove a group without groups in it; its things stay. One that does not exist is as good as deleted."""
    name = call.params["thingGroupName"]
    group = call.tx.get(GROUPS, call.home, name)
    if group is None:
        return Reply()
    check_version(call, f"thing group {name}", group["version"])
    if call.tx.count_found(GROUPS, "parent", f"{call.home}/{name}"):
        raise unusable(f"Cannot delete thing group : {name} when there are still child groups attached to it.")
    call.tx.delete_all(MEMBERS, f"{call.home}/{name}")
    call.tx.delete_all(ATTACHMENTS, f"{call.home}/thinggroup/{name}")
    call.tx.delete(GROUPS, call.home, name)
    call.tx.tell(PermissionsChanged())
    drop_tags(call, call.arn(f"thinggroup/{name}"))
    return Reply()


@IOT.operation(
    "ListThingGroups",
    "GET /thing-groups",
    {
        **paged("nextToken", "maxResults"),
        "parentGroup": query(NAME),
        "namePrefixFilter": query(NAME),
        "recursive": query(Flag()),
    },
)
def list_thing_groups(call: Call) -> Reply:
    """Groups, all or those below one; `recursive` false: only those directly there."""
    parent, prefix = call.params.get("parentGroup", ""), call.params.get("namePrefixFilter", "")
    if parent:
        required_group(call, parent)
    key = f"{call.home}/{parent}"
    if call.params.get("recursive", True):
        page = sifted(
            call,
            lambda document: document.name.startswith(prefix),
            lambda look: look.find(GROUPS, "ancestor", key) if parent else look.list(GROUPS, look.home),
        )
    else:
        page = sifted(
            call, lambda document: document.name.startswith(prefix), lambda look: look.find(GROUPS, "parent", key)
        )
    return entries(page, lambda document: _entry(call, document.name), "thingGroups", "nextToken")


# --- things in groups -------------------------------------------------------------------------------------


@IOT.operation(
    "AddThingToThingGroup",
    "PUT /thing-groups/addThingToThingGroup",
    {**_MEMBERSHIP, "overrideDynamicGroups": Flag()},
    writes=True,
    asks=False,
)
def add_thing_to_thing_group(call: Call) -> Reply:
    """Put a thing into a group: into 10 at most, and into one of each tree. Once more does no harm."""
    name, group, thing = _membership(call, "AddThingToThingGroup")
    others = [other for other in groups_of_thing(call.tx, call.home, thing) if other != name]
    root = ([*group["ancestors"], name])[0]
    for other in others:
        if ([*required_group(call, other)["ancestors"], other])[0] == root:
            raise unusable(
                f"The thing {thing} is in thing group {other}, which has the same root {root} as {name}:"
                " a thing can be in one group of a hierarchy. Remove it there first."
            )
    if len(others) >= GROUPS_OF_THING_MAX:
        raise unusable(f"The thing {thing} is in {len(others)} thing groups, expected at most {GROUPS_OF_THING_MAX}.")
    labels = {
        "thing": [f"{call.home}/{thing}"],
        "group": [f"{call.home}/{each}" for each in [*group["ancestors"], name]],
    }
    call.tx.put(MEMBERS, f"{call.home}/{name}", thing, {"group": name}, labels)
    _tell(call, thing)
    return Reply()


@IOT.operation(
    "RemoveThingFromThingGroup",
    "PUT /thing-groups/removeThingFromThingGroup",
    _MEMBERSHIP,
    writes=True,
    asks=False,
)
def remove_thing_from_thing_group(call: Call) -> Reply:
    """Take a thing out of a group; one that is not in it is as good as removed."""
    name, _, thing = _membership(call, "RemoveThingFromThingGroup")
    if call.tx.delete(MEMBERS, f"{call.home}/{name}", thing):
        _tell(call, thing)
    return Reply()


@IOT.operation(
    "ListThingsInThingGroup",
    "GET /thing-groups/{thingGroupName}/things",
    {"thingGroupName": NAME, "recursive": query(Flag()), **paged("nextToken", "maxResults")},
    resource=_RESOURCE,
)
def list_things_in_thing_group(call: Call) -> Reply:
    """Names of the things in a group; `recursive`: and in the groups below it."""
    key = f"{call.home}/{call.params['thingGroupName']}"
    required_group(call, call.params["thingGroupName"])
    page = call.find(MEMBERS, "group", key) if call.params.get("recursive") else call.list(MEMBERS, key)
    return entries(page, lambda document: document.name, "things", "nextToken")


@IOT.operation(
    "ListThingGroupsForThing",
    "GET /things/{thingName}/thing-groups",
    {"thingName": NAME, **paged("nextToken", "maxResults")},
    resource="thing/{thingName}",
)
def list_thing_groups_for_thing(call: Call) -> Reply:
    """The groups a thing was put into."""
    thing = call.params["thingName"]
    required_thing(call, thing)
    page = call.find(MEMBERS, "thing", f"{call.home}/{thing}")
    return entries(page, lambda document: _entry(call, document.body["group"]), "thingGroups", "nextToken")


def _ancestors(call: Call, parent: str) -> list[str]:
    """The names from the root to `parent`. Refuse a tree that is too high or a group that is too wide."""
    if not parent:
        return []
    ancestors = [*required_group(call, parent)["ancestors"], parent]
    if len(ancestors) >= GROUP_LEVELS_MAX:
        raise unusable(f"The thing group {parent} is at level {len(ancestors)}, expected below {GROUP_LEVELS_MAX}.")
    if call.tx.count_found(GROUPS, "parent", f"{call.home}/{parent}") >= GROUP_CHILDREN_MAX:
        raise unusable(f"The thing group {parent} has the maximum number of child groups ({GROUP_CHILDREN_MAX}).")
    return ancestors


def _membership(call: Call, operation: str) -> tuple[str, Body, str]:
    """(group's name, group, thing's name) of a request, which gives names or ARNs of both."""
    name = _named(call, "thingGroup", "thinggroup", "thing group")
    thing = _named(call, "thing", "thing", "thing")
    call.permit(operation, call.arn(f"thinggroup/{name}"))
    group = required_group(call, name)
    required_thing(call, thing)
    return name, group, thing


def _named(call: Call, member: str, kind: str, what: str) -> str:
    name, arn = call.params.get(f"{member}Name"), call.params.get(f"{member}Arn")
    if arn is None:
        if name is None:
            raise call.invalid(f"{member}Name", None, f"the name or the ARN of a {what}")
        return str(name)
    found = name_in_arn(call, arn, kind)
    if found is None:
        if not arn.startswith("arn:aws:iot:") or f":{kind}/" not in arn:
            raise call.invalid(f"{member}Arn", arn, call.arn(f"{kind}/<name>"))
        raise not_found(what, arn)
    if name is not None and name != found:
        raise call.invalid(f"{member}Name", name, f"the name in {member}Arn, or none")
    return found


def _tell(call: Call, thing: str) -> None:
    """Policies of groups count for the certificates of their things."""
    for certificate_id in certificates_of_thing(call.tx, call.home, thing):
        call.tx.tell(PermissionsChanged(certificate_id))


def _entry(call: Call, name: str) -> dict[str, str]:
    return {"groupName": name, "groupArn": call.arn(f"thinggroup/{name}")}
