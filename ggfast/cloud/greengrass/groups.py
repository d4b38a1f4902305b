"""Groups and their versions: eight operations (cloud-api 4, 6).

A group version holds up to seven ARNs of definition versions; that they exist is all that is asked here. A group's
document also has `DeployedVersion`, the version that deployments say its core runs.
"""

from __future__ import annotations

from collections.abc import Mapping

from ggfast.cloud.deploy.records import forget_group, is_deployed
from ggfast.cloud.faults import Fault
from ggfast.cloud.greengrass import membership
from ggfast.cloud.greengrass.containers import Container
from ggfast.cloud.greengrass.definitions import NAME, get_definition_version
from ggfast.cloud.greengrass.kinds import KINDS
from ggfast.cloud.greengrass.service import CREATED, GREENGRASS, client_token, corrupted, unknown
from ggfast.cloud.greengrass.tags import SHAPE as TAG_SHAPE
from ggfast.cloud.greengrass.tags import taggable
from ggfast.cloud.iot.lookups import everything
from ggfast.cloud.limits import DEFINITION_NAME_MAX
from ggfast.cloud.operations import Call, Reply, paged
from ggfast.cloud.shapes import Record, Text, need
from ggfast.cloud.store.interface import Body, Transaction

GROUPS = Container("group", "", "/greengrass/groups")

# What lies under "<home>/<group id>" or "<home>" with the group's id as its name, and goes with the group.
_PARTS = ("group-ca", "issued-server-certificate", "issued-authority")
_SETTINGS = ("group-role", "group-ca-configuration", "group-delegation")

_REFERENCES = {kind.reference_member: Text(0, 2_048) for kind in KINDS}
_PATH = "/greengrass/groups"
_ONE = f"{_PATH}/{{GroupId}}"
_VERSION = f"{_ONE}/versions/{{GroupVersionId}}"


# --- for the rest of the cloud -----------------------------------------------------------------------


def get_group(tx: Transaction, home: str, group_id: str) -> Body | None:
    """The group: Name, CreationTimestamp, LastUpdatedTimestamp; LatestVersion and DeployedVersion if it has them."""
    return GROUPS.get(tx, home, group_id)


def get_group_version(tx: Transaction, home: str, group_id: str, version_id: str) -> Body | None:
    """What a version of a group refers to: ARNs by member, as they were given."""
    return GROUPS.content(tx, home, group_id, version_id)


def groups_named(tx: Transaction, home: str, name: str) -> list[str]:
    """The ids of the groups with that name."""
    found = everything(tx, GROUPS.collection, GROUPS.parent(home))
    return [document.name for document in found if document.body.get("Name") == name]


def set_deployed(tx: Transaction, home: str, group_id: str, version_id: str | None) -> None:
    """The group's core runs that version now; None: none, it was reset. A group that is gone is no error."""
    group = GROUPS.get(tx, home, group_id)
    if group is None:
        return
    if version_id is None:
        group.pop("DeployedVersion", None)
    else:
        group["DeployedVersion"] = version_id
    tx.put(GROUPS.collection, GROUPS.parent(home), group_id, group)
    _count(tx, home, group_id, group)


def found_group(call: Call, text: str = "That group definition does not exist.") -> tuple[str, Body]:
    """The id and document of the group in the request's path. Raises Fault (404) with `text`."""
    group_id = call.params["GroupId"]
    group = GROUPS.get(call.tx, call.home, group_id)
    if group is None:
        raise unknown(text)
    return group_id, group


# --- groups ------------------------------------------------------------------------------------------


@GREENGRASS.operation(
    "CreateGroup",
    f"POST {_PATH}",
    {
        **client_token(),
        "InitialVersion": Record(_REFERENCES),
        "Name": need(Text(1, DEFINITION_NAME_MAX)),
        "tags": TAG_SHAPE,
    },
    status=CREATED,
    writes=True,
)
def create_group(call: Call) -> Reply:
    """A group, with or without a first version."""
    content = call.params.get("InitialVersion")
    if content is not None:
        _check(call, content)
    group_id, group = GROUPS.create(call)
    if content is not None:
        _add_version(call, group_id, group, content)
    return Reply(GROUPS.form(call.home, group_id, group))


@GREENGRASS.operation("ListGroups", f"GET {_PATH}", paged())
def list_groups(call: Call) -> Reply:
    """The groups; the model has no tags here."""
    return GROUPS.listed(call, "Groups", tags=False)


@GREENGRASS.operation("GetGroup", f"GET {_ONE}", resource=_ONE)
def read_group(call: Call) -> Reply:
    """One group, with its tags."""
    group_id, group = found_group(call, "That Group Definition does not exist.")
    return Reply(GROUPS.tagged(call.tx, call.home, group_id, group))


@GREENGRASS.operation("UpdateGroup", f"PUT {_ONE}", {"Name": NAME}, writes=True, resource=_ONE)
def update_group(call: Call) -> Reply:
    """Another name."""
    group_id, group = found_group(call)
    if not call.params.get("Name"):
        raise Fault("InvalidContainerDefinitionException", "Input does not contain any attributes to be updated")
    GROUPS.rename(call, group_id, group)
    return Reply()


@GREENGRASS.operation("DeleteGroup", f"DELETE {_ONE}", writes=True, resource=_ONE)
def delete_group(call: Call) -> Reply:
    """The group goes with its versions, CAs, role and tags; refused while it is deployed (greengrass-core 4.1)."""
    group_id, _ = found_group(call)
    if is_deployed(call.tx, call.home, group_id):
        raise Fault(
            "BadRequestException",
            f"Group id: {group_id} is deployed. Reset its deployments before you delete the group.",
        )
    GROUPS.remove(call, group_id)
    membership.forget(call.tx, call.home, group_id)
    forget_group(call.tx, call.home, group_id)
    for collection in _PARTS:
        call.tx.delete_all(collection, f"{call.home}/{group_id}")
    for collection in _SETTINGS:
        call.tx.delete(collection, call.home, group_id)
    return Reply()


# --- versions ----------------------------------------------------------------------------------------


@GREENGRASS.operation(
    "CreateGroupVersion",
    f"POST {_ONE}/versions",
    {**client_token(), **_REFERENCES},
    status=CREATED,
    writes=True,
    resource=_ONE,
)
def create_group_version(call: Call) -> Reply:
    """A new newest version; a kind that is left out is absent from it."""
    group_id, group = found_group(call, "That group does not exist.")
    content = {member: call.params[member] for member in _REFERENCES if member in call.params}
    _check(call, content)
    version = GROUPS.version(call.tx, call.home, group_id, _add_version(call, group_id, group, content))
    assert version is not None
    return Reply(version)


@GREENGRASS.operation("ListGroupVersions", f"GET {_ONE}/versions", paged(), resource=_ONE)
def list_group_versions(call: Call) -> Reply:
    """The versions, newest first."""
    group_id, _ = found_group(call)
    return GROUPS.versions(call, group_id)


@GREENGRASS.operation("GetGroupVersion", f"GET {_VERSION}", resource=_VERSION)
def read_group_version(call: Call) -> Reply:
    """One version with its references."""
    group_id, _ = found_group(call)
    version_id = call.params["GroupVersionId"]
    form = GROUPS.version(call.tx, call.home, group_id, version_id)
    if form is None:
        raise unknown(
            f"Version {version_id} of Group Definition {group_id} does not exist.", "VersionNotFoundException"
        )
    return Reply(form | {"Definition": GROUPS.content(call.tx, call.home, group_id, version_id)})


def _check(call: Call, content: Mapping[str, str]) -> None:
    """Every reference is a version that exists, of its kind. Raises Fault."""
    faults = [
        f"{kind.referred} definition reference does not exist"
        for kind in KINDS
        if kind.reference_member in content
        and get_definition_version(call.tx, call.home, content[kind.reference_member], kind.path) is None
    ]
    if faults:
        raise corrupted("The group is invalid or corrupted.", faults, "InvalidReference")


def _add_version(call: Call, group_id: str, group: Body, content: Mapping[str, str]) -> str:
    version_id = GROUPS.add_version(call, group_id, group, content)
    membership.remember(call.tx, call.home, group_id, content)
    _count(call.tx, call.home, group_id, group)
    return version_id


def _count(tx: Transaction, home: str, group_id: str, group: Body) -> None:
    """Let discovery go by the version that counts: the deployed one, or else the latest (cloud-api 11)."""
    version_id = group.get("DeployedVersion") or group.get("LatestVersion")
    if version_id is None:
        return
    content = GROUPS.content(tx, home, group_id, version_id)
    if content is not None:
        membership.count(tx, home, group_id, version_id, content)


taggable(_PATH, GROUPS.exists)
