"""Groups, their versions, tags, roles and settings, and which group a thing belongs to (cloud-api 4 to 6)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud_desk import ACCOUNT, ADMINISTRATOR, REGION, Desk
from cloud_greengrass import NOWHERE, PATHS, create, group_with, member, references, thing
from cloud_shapes_check import conforms

from ggfast.cloud.deploy.records import GroupState, put_group_state
from ggfast.cloud.faults import Fault
from ggfast.cloud.greengrass import GREENGRASS
from ggfast.cloud.greengrass.groups import get_group, get_group_version, set_deployed
from ggfast.cloud.greengrass.membership import Membership, groups_of_thing
from ggfast.cloud.operations import Principal

HOME = f"{ACCOUNT}/{REGION}"
GROUP_ARN = f"arn:aws:greengrass:{REGION}:{ACCOUNT}:/greengrass/groups"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path, GREENGRASS)
    yield desk
    desk.close()


def said(fault: Fault) -> tuple[int, str, str]:
    return fault.status, fault.code, fault.message


def test_a_group_is_what_was_given(desk: Desk) -> None:
    """All eight operations, each answer as the model and published samples have it."""
    bare = desk.call("CreateGroup", Name="g")
    conforms("greengrass", "CreateGroup", bare)
    assert GREENGRASS.operations["CreateGroup"].status == GREENGRASS.operations["CreateGroupVersion"].status == 201
    one = {"GroupId": bare["Id"]}
    assert bare == {
        "Arn": f"{GROUP_ARN}/{bare['Id']}",
        "CreationTimestamp": "2026-09-21T14:13:20.000Z",
        "Id": bare["Id"],
        "LastUpdatedTimestamp": "2026-09-21T14:13:20.000Z",
        "Name": "g",
    }
    assert desk.call("GetGroup", **one) == bare | {"tags": {}}
    assert desk.call("ListGroups") == {"Groups": [bare]}
    assert desk.call("ListGroupVersions", **one) == {"Versions": []}

    arns = references(desk)
    desk.clock.now += 0.25
    version = desk.call("CreateGroupVersion", **one, **arns)
    conforms("greengrass", "CreateGroupVersion", version)
    assert version == {
        "Arn": f"{GROUP_ARN}/{bare['Id']}/versions/{version['Version']}",
        "CreationTimestamp": "2026-09-21T14:13:20.250Z",
        "Id": bare["Id"],
        "Version": version["Version"],
    }
    found = desk.call("GetGroupVersion", **one, GroupVersionId=version["Version"])
    conforms("greengrass", "GetGroupVersion", found)
    assert found == version | {"Definition": arns}
    empty = desk.call("CreateGroupVersion", **one)
    assert desk.call("GetGroupVersion", **one, GroupVersionId=empty["Version"])["Definition"] == {}
    assert desk.call("ListGroupVersions", **one) == {"Versions": [empty, version]}
    after = bare | {
        "LastUpdatedTimestamp": "2026-09-21T14:13:20.250Z",
        "LatestVersion": empty["Version"],
        "LatestVersionArn": empty["Arn"],
    }
    assert desk.call("GetGroup", **one) == after | {"tags": {}}
    assert desk.call("UpdateGroup", **one, Name="h") == {}
    assert desk.call("ListGroups") == {"Groups": [after | {"Name": "h"}]}
    assert desk.call("GetGroupVersion", **one, GroupVersionId=version["Version"]) == found
    assert desk.call("DeleteGroup", **one) == {}
    assert desk.call("ListGroups") == {"Groups": []}


def test_a_group_with_a_first_version(desk: Desk) -> None:
    """Its tags are shown by GetGroup alone, as published samples and the model have it."""
    arns = references(desk)
    made = desk.call("CreateGroup", Name="g", InitialVersion=arns, tags={"a": "b"})
    conforms("greengrass", "CreateGroup", made)
    one = {"GroupId": made["Id"]}
    assert made["LatestVersionArn"] == f"{made['Arn']}/versions/{made['LatestVersion']}"
    assert desk.call("GetGroup", **one) == made | {"tags": {"a": "b"}}
    assert desk.call("ListGroups")["Groups"] == [made]
    assert desk.call("GetGroupVersion", **one, GroupVersionId=made["LatestVersion"])["Definition"] == arns
    look = desk.look(lambda tx: get_group_version(tx, HOME, made["Id"], made["LatestVersion"]))
    assert look == arns
    assert desk.look(lambda tx: get_group_version(tx, HOME, made["Id"], NOWHERE)) is None
    assert desk.look(lambda tx: get_group(tx, HOME, NOWHERE)) is None
    for wrong in ({}, {"Name": ""}, {"Name": None}, {"Name": "x" * 257}):
        assert desk.refused("CreateGroup", **wrong).code == "InvalidInputException"


def test_unknown_groups_have_the_services_words(desk: Desk) -> None:
    """Letter by letter (cloud-api 6)."""
    one = {"GroupId": NOWHERE}
    code = "IdNotFoundException"
    assert said(desk.refused("GetGroup", **one)) == (404, code, "That Group Definition does not exist.")
    usual = (404, code, "That group definition does not exist.")
    assert said(desk.refused("DeleteGroup", **one)) == usual
    assert said(desk.refused("UpdateGroup", **one, Name="a")) == usual
    assert said(desk.refused("ListGroupVersions", **one)) == usual
    assert said(desk.refused("GetGroupVersion", **one, GroupVersionId=NOWHERE)) == usual
    assert said(desk.refused("CreateGroupVersion", **one)) == (404, code, "That group does not exist.")
    for operation in ("ListGroupCertificateAuthorities", "GetGroupCertificateConfiguration"):
        assert said(desk.refused(operation, **one)) == usual
    known = desk.call("CreateGroup", Name="g")["Id"]
    text = f"Version {NOWHERE} of Group Definition {known} does not exist."
    fault = desk.refused("GetGroupVersion", GroupId=known, GroupVersionId=NOWHERE)
    assert said(fault) == (404, "VersionNotFoundException", text)
    expected = (400, "InvalidContainerDefinitionException", "Input does not contain any attributes to be updated")
    assert said(desk.refused("UpdateGroup", GroupId=known, Name="")) == expected
    assert said(desk.refused("UpdateGroup", GroupId=known)) == expected


BAD_REFERENCES = (
    ("Core", "Cores definition reference does not exist"),
    ("Function", "Lambda definition reference does not exist"),
    ("Resource", "Resource definition reference does not exist"),
    ("Device", "Devices definition reference does not exist"),
    ("Subscription", "Subscription definition reference does not exist"),
    ("Logger", "Logger definition reference does not exist"),
    ("Connector", "Connector definition reference does not exist"),
)


def test_references_must_exist(desk: Desk) -> None:
    """Texts and their order (cloud-api 6), for later and first versions; nothing is left behind."""
    arns = references(desk)
    one = {"GroupId": desk.call("CreateGroup", Name="g")["Id"]}
    for kind, text in BAD_REFERENCES:
        key = f"{kind}DefinitionVersionArn"
        other = arns["CoreDefinitionVersionArn" if kind != "Core" else "DeviceDefinitionVersionArn"]
        whole = arns[key]
        for bad in (other, "", "nonsense", whole[:-1], whole.rpartition("/versions/")[0], whole.replace(REGION, "x")):
            fault = desk.refused("CreateGroupVersion", **one, **(arns | {key: bad}))
            assert said(fault) == (400, "", f"The group is invalid or corrupted. (ErrorDetails: [{text}])")
            assert fault.members == {
                "ErrorDetails": [{"DetailedErrorCode": "InvalidReference", "DetailedErrorMessage": text}]
            }
    backwards = {f"{kind}DefinitionVersionArn": "x" for kind, _ in reversed(BAD_REFERENCES)}
    every = ", ".join(text for _, text in BAD_REFERENCES)
    expected = (400, "", f"The group is invalid or corrupted. (ErrorDetails: [{every}])")
    assert said(desk.refused("CreateGroupVersion", **one, **backwards)) == expected
    assert said(desk.refused("CreateGroup", Name="h", InitialVersion=backwards)) == expected
    assert desk.call("ListGroupVersions", **one) == {"Versions": []}
    assert len(desk.call("ListGroups")["Groups"]) == 1


def test_definitions_live_apart_from_groups(desk: Desk) -> None:
    """A later version does not change a group, a deleted definition cannot be referred to again (cloud-api 6)."""
    core = create(desk, "Core")
    made = desk.call("CreateGroup", Name="g", InitialVersion={"CoreDefinitionVersionArn": core["LatestVersionArn"]})
    one = {"GroupId": made["Id"], "GroupVersionId": made["LatestVersion"]}
    before = desk.call("GetGroupVersion", **one)
    desk.call("CreateCoreDefinitionVersion", CoreDefinitionId=core["Id"])
    assert desk.call("GetGroupVersion", **one) == before
    desk.call("DeleteCoreDefinition", CoreDefinitionId=core["Id"])
    assert desk.call("GetGroupVersion", **one) == before
    again = {"GroupId": made["Id"], "CoreDefinitionVersionArn": core["LatestVersionArn"]}
    assert "Cores definition reference" in desk.refused("CreateGroupVersion", **again).message


def test_a_deployed_group_is_not_deleted(desk: Desk) -> None:
    """Reset first; then everything of the group goes, roles, CAs and tags too."""
    made = desk.call("CreateGroup", Name="g", InitialVersion=references(desk), tags={"a": "b"})
    one = {"GroupId": made["Id"]}
    desk.call("CreateGroupCertificateAuthority", **one)
    desk.call("AssociateRoleToGroup", **one, RoleArn=f"arn:aws:iam::{ACCOUNT}:role/r")
    desk.call("UpdateGroupCertificateConfiguration", **one, CertificateExpiryInMilliseconds="864000000")
    desk.change(lambda tx: put_group_state(tx, HOME, made["Id"], GroupState("d", "d")))
    fault = desk.refused("DeleteGroup", **one)
    text = f"Group id: {made['Id']} is deployed. Reset its deployments before you delete the group."
    assert said(fault) == (400, "BadRequestException", text)
    assert desk.call("GetGroup", **one)["Id"] == made["Id"]
    desk.change(lambda tx: put_group_state(tx, HOME, made["Id"], GroupState("r", "")))
    desk.call("DeleteGroup", **one)

    def left(tx: Any) -> int:
        parts = ("group-version", "group-content", "group-ca", "group-things", "deployment")
        settings = ("group", "group-role", "group-ca-configuration", "membership", "group-deployment", "tags")
        inside = sum(tx.count(collection, f"{HOME}/{made['Id']}") for collection in parts)
        return inside + sum(tx.count(collection, HOME) for collection in settings)

    assert desk.look(left) == 0


def test_one_client_token_makes_one_group(desk: Desk) -> None:
    """Row 18."""
    asked = {"Name": "g", "InitialVersion": references(desk), "AmznClientToken": "t"}
    assert desk.call("CreateGroup", **asked) == desk.call("CreateGroup", **asked)
    assert len(desk.call("ListGroups")["Groups"]) == 1
    one = {"GroupId": desk.call("ListGroups")["Groups"][0]["Id"], "AmznClientToken": "t"}
    assert desk.call("CreateGroupVersion", **one) == desk.call("CreateGroupVersion", **one)
    assert len(desk.call("ListGroupVersions", GroupId=one["GroupId"])["Versions"]) == 2


# --- membership --------------------------------------------------------------------------------------


def groups_of(desk: Desk, name: str) -> list[Membership]:
    return desk.look(lambda tx: groups_of_thing(tx, HOME, thing(name)))


def test_a_thing_belongs_to_the_latest_version_until_one_is_deployed(desk: Desk) -> None:
    """Then to the deployed one, also when its definitions are gone; after a reset to the latest again."""
    made = group_with(desk, "core", "lamp")
    group_id, first = made["Id"], made["LatestVersion"]
    core = (thing("core"),)
    assert groups_of(desk, "lamp") == [Membership(group_id, first, core, False)]
    assert groups_of(desk, "core") == [Membership(group_id, first, core, True)]
    assert groups_of(desk, "door") == groups_of(desk, "Lamp") == []
    before = desk.call("GetGroupVersion", GroupId=group_id, GroupVersionId=first)["Definition"]

    desk.change(lambda tx: set_deployed(tx, HOME, group_id, first))
    door = create(desk, "Device", InitialVersion={"Devices": [member("door")]})["LatestVersionArn"]
    second = desk.call("CreateGroupVersion", GroupId=group_id, **(before | {"DeviceDefinitionVersionArn": door}))
    assert [found.version_id for found in groups_of(desk, "lamp")] == [first] and groups_of(desk, "door") == []
    for kind in ("Core", "Device"):
        identifier = before[f"{kind}DefinitionVersionArn"].split("/")[-3]
        desk.call(f"Delete{kind}Definition", **{f"{kind}DefinitionId": identifier})
    assert "DeployedVersion" not in desk.call("GetGroup", GroupId=group_id)

    desk.change(lambda tx: set_deployed(tx, HOME, group_id, second["Version"]))
    assert groups_of(desk, "lamp") == []
    assert groups_of(desk, "door") == [Membership(group_id, second["Version"], core, False)]
    desk.change(lambda tx: set_deployed(tx, HOME, group_id, first))
    assert groups_of(desk, "lamp") == [Membership(group_id, first, core, False)]
    desk.change(lambda tx: set_deployed(tx, HOME, group_id, None))
    assert groups_of(desk, "lamp") == []
    assert [found.version_id for found in groups_of(desk, "door")] == [second["Version"]]
    desk.change(lambda tx: set_deployed(tx, HOME, NOWHERE, first))
    desk.call("DeleteGroup", GroupId=group_id)
    assert groups_of(desk, "door") == groups_of(desk, "core") == []


def test_a_version_without_changes_to_things_is_only_counted(desk: Desk) -> None:
    """The same cores and devices: the things stay, the version is the new one."""
    made = group_with(desk, "core", "lamp")
    before = desk.call("GetGroupVersion", GroupId=made["Id"], GroupVersionId=made["LatestVersion"])["Definition"]
    newer = desk.call("CreateGroupVersion", GroupId=made["Id"], **before)
    assert [found.version_id for found in groups_of(desk, "lamp")] == [newer["Version"]]
    assert desk.look(lambda tx: tx.count("group-things", f"{HOME}/{made['Id']}")) == 1


def test_a_device_in_many_groups(desk: Desk) -> None:
    """Oldest first; one more than allowed is enough to know that there are too many."""
    made = [group_with(desk, f"core{number}", "lamp")["Id"] for number in range(13)]
    assert [found.group_id for found in groups_of(desk, "lamp")] == made[:11]
    assert desk.look(lambda tx: groups_of_thing(tx, f"{ACCOUNT}/us-east-1", thing("lamp"))) == []
    alone = desk.call("CreateGroup", Name="empty")["Id"]
    desk.call(
        "CreateGroupVersion", GroupId=alone, DeviceDefinitionVersionArn=create(desk, "Device")["LatestVersionArn"]
    )
    assert groups_of(desk, "door")[0] == Membership(alone, groups_of(desk, "door")[0].version_id, (), False)


# --- tags --------------------------------------------------------------------------------------------


def test_tags_of_every_kind(desk: Desk) -> None:
    """ARNs with and without the slash; new ones are added, old ones replaced, unknown keys removed in silence."""
    arns = [create(desk, kind)["Arn"] for kind in PATHS] + [desk.call("CreateGroup", Name="g")["Arn"]]
    for number, arn in enumerate(arns):
        short = arn.replace(":/greengrass", ":greengrass")
        assert desk.call("ListTagsForResource", ResourceArn=arn) == {"tags": {}}
        assert desk.call("TagResource", ResourceArn=arn, tags={"a": "1", "b": str(number)}) == {}
        desk.call("TagResource", ResourceArn=short, tags={"a": "2", "ü x": ""})
        tags = {"tags": {"a": "2", "b": str(number), "ü x": ""}}
        assert desk.call("ListTagsForResource", ResourceArn=short) == tags
        assert desk.call("ListTagsForResource", ResourceArn=arn) == tags
        assert desk.call("UntagResource", ResourceArn=short, TagKeys=["b", "nothing"]) == {}
        assert desk.call("ListTagsForResource", ResourceArn=arn) == {"tags": {"a": "2", "ü x": ""}}
        desk.call("UntagResource", ResourceArn=arn, TagKeys=["a", "ü x"])
        assert desk.call("ListTagsForResource", ResourceArn=arn) == {"tags": {}}
    assert GREENGRASS.operations["TagResource"].status == GREENGRASS.operations["UntagResource"].status == 204


def test_what_has_no_tags(desk: Desk) -> None:
    """Unknown resources and versions are 404, ARNs of anything else 400."""
    made = create(desk, "Core")
    for arn in (made["LatestVersionArn"], f"{GROUP_ARN}/{NOWHERE}", made["Arn"].replace("cores", "devices"), GROUP_ARN):
        fault = desk.refused("ListTagsForResource", ResourceArn=arn)
        assert said(fault) == (404, "ResourceNotFoundException", f"The resource {arn} does not exist.")
    for arn in ("x", thing("a"), made["Arn"].replace(REGION, "us-east-1"), made["Arn"].replace(ACCOUNT, "0" * 12)):
        assert said(desk.refused("ListTagsForResource", ResourceArn=arn))[:2] == (400, "InvalidInputException")


def test_bounds_of_tags(desk: Desk) -> None:
    """50 of them, keys of 128, values of 256 characters, none that begins with aws:."""
    arn = create(desk, "Core", tags={str(number): "v" for number in range(49)})["Arn"]
    desk.call("TagResource", ResourceArn=arn, tags={"k" * 128: "v" * 256})
    desk.call("TagResource", ResourceArn=arn, tags={"0": "again"})
    text = "The resource would have 51 tags, expected at most 50; remove some first."
    assert desk.refused("TagResource", ResourceArn=arn, tags={"more": ""}).message == text
    for wrong in ({"": ""}, {"k" * 129: ""}, {"k": "v" * 257}, {"k": 1}, [], {str(n): "" for n in range(51)}):
        assert desk.refused("TagResource", ResourceArn=arn, tags=wrong).code == "InvalidInputException"
    for key in ("aws:a", "AWS:a"):
        text = f"Tag key '{key}' is invalid: keys that begin with aws: are reserved."
        assert desk.refused("TagResource", ResourceArn=arn, tags={key: ""}).message == text
        assert desk.refused("CreateGroup", Name="g", tags={key: ""}).message == text
    assert desk.call("ListGroups") == {"Groups": []}
    assert desk.refused("UntagResource", ResourceArn=arn).code == "InvalidInputException"


def test_permission_for_tags_goes_by_the_form_with_the_slash(desk: Desk) -> None:
    """Leaving the slash out does not lead around a policy."""
    arn = create(desk, "Core", tags={"a": "b"})["Arn"]
    asked: list[tuple[str, str]] = []

    def decide(action: str, resource: str) -> bool:
        asked.append((action, resource))
        return False

    who = Principal(ADMINISTRATOR.arn, "AKIA", decide)
    short = arn.replace(":/greengrass", ":greengrass")
    for operation, more in (
        ("ListTagsForResource", {}),
        ("TagResource", {"tags": {"a": "c"}}),
        ("UntagResource", {"TagKeys": ["a"]}),
    ):
        for given in (arn, short):
            fault = desk.refused(operation, who=who, ResourceArn=given, **more)
            assert (fault.status, fault.code) == (403, "AccessDeniedException")
            assert asked[-1] == (f"greengrass:{operation}", arn)
    assert desk.call("ListTagsForResource", ResourceArn=arn) == {"tags": {"a": "b"}}


def test_pages_of_groups(desk: Desk) -> None:
    """Every group once, in the order they were made; versions newest first, page by page."""
    made = [desk.call("CreateGroup", Name=str(number))["Id"] for number in range(7)]
    assert [entry["Id"] for entry in desk.all("ListGroups", "Groups", MaxResults="3")] == made
    versions = [desk.call("CreateGroupVersion", GroupId=made[0])["Version"] for _ in range(4)]
    found = desk.all("ListGroupVersions", "Versions", GroupId=made[0], MaxResults="1")
    assert [entry["Version"] for entry in found] == versions[::-1]
