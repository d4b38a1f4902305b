"""Things, thing types, thing groups, attached certificates: every operation, every refusal, pages, two regions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud_desk import ACCOUNT, REGION, Desk
from iot_support import DOCUMENT, Registry

from ggfast.cloud.events import PermissionsChanged
from ggfast.cloud.iot import IOT, things
from ggfast.cloud.operations import Principal

HOME = f"{ACCOUNT}/{REGION}"
ARN = f"arn:aws:iot:{REGION}:{ACCOUNT}:"
NOWHERE = f"{ARN}cert/{'0' * 64}"
NOT_FOUND = (404, "ResourceNotFoundException")
INVALID = (400, "InvalidRequestException")
TAKEN = (409, "ResourceAlreadyExistsException")
OUTDATED = (409, "VersionConflictException")


@pytest.fixture
def iot(tmp_path: Path) -> Iterator[Registry]:
    desk = Desk(tmp_path, IOT)
    yield Registry(desk)
    desk.close()


def attributes(merge: bool | None = None, **values: str) -> dict[str, Any]:
    return {"attributes": values} | ({} if merge is None else {"merge": merge})


# --- things ----------------------------------------------------------------------------------------------


def test_a_thing_is_made_described_and_deleted(iot: Registry) -> None:
    made = iot("CreateThing", thingName="core:1_A-b", attributePayload=attributes(site="x"), billingGroupName="b")
    assert made["thingArn"] == f"{ARN}thing/core:1_A-b"
    assert iot("DescribeThing", thingName="core:1_A-b") == {
        **made,
        "defaultClientId": "core:1_A-b",
        "attributes": {"site": "x"},
        "version": 1,
        "billingGroupName": "b",
    }
    assert iot("DeleteThing", thingName="core:1_A-b") == {}
    assert iot.refused("DescribeThing", thingName="core:1_A-b") == NOT_FOUND
    assert iot("DeleteThing", thingName="core:1_A-b") == {}, "what does not exist is as good as deleted"


def test_making_a_thing_again_succeeds_if_it_is_the_same(iot: Registry) -> None:
    made = iot("CreateThing", thingName="a", attributePayload=attributes(site="x"))
    assert iot("CreateThing", thingName="a", attributePayload=attributes(site="x")) == made
    fault = iot.desk.refused("CreateThing", thingName="a", attributePayload=attributes(site="y"))
    assert (fault.status, fault.code) == TAKEN
    assert fault.members == {"resourceId": made["thingId"], "resourceArn": made["thingArn"]}
    assert iot("DescribeThing", thingName="a")["attributes"] == {"site": "x"}


def test_updates_replace_or_merge_attributes(iot: Registry) -> None:
    iot("CreateThing", thingName="a", attributePayload=attributes(x="1", y="2"))
    iot("UpdateThing", thingName="a", attributePayload=attributes(True, y="", z="3"))
    assert iot("DescribeThing", thingName="a")["attributes"] == {"x": "1", "z": "3"}
    iot("UpdateThing", thingName="a", attributePayload=attributes(w="4"), expectedVersion=2)
    assert iot("DescribeThing", thingName="a") | {"version": 3, "attributes": {"w": "4"}} == iot(
        "DescribeThing", thingName="a"
    )
    assert iot.refused("UpdateThing", thingName="a", expectedVersion=2) == OUTDATED
    assert iot.refused("DeleteThing", thingName="a", expectedVersion=2) == OUTDATED
    many = {f"k{number}": "v" for number in range(51)}
    assert iot.refused("UpdateThing", thingName="a", attributePayload={"attributes": many}) == INVALID
    assert iot.refused("UpdateThing", thingName="b") == NOT_FOUND


@pytest.mark.parametrize(
    "members",
    [
        {"thingName": "a/b"},
        {"thingName": ".."},
        {"thingName": ""},
        {"thingName": "x" * 129},
        {"thingName": "ü"},
        {"thingName": 7},
        {"thingName": "a\n"},
        {"thingName": "a", "attributePayload": attributes(a="no spaces")},
        {"thingName": "a", "attributePayload": {"attributes": {"": "v"}}},
        {"thingName": "a", "attributePayload": {"attributes": {"a": 1}}},
        {"thingName": "a", "attributePayload": []},
        {"thingName": "a", "more": 1},
        {"thingName": "a", "thingTypeName": "no such type'"},
    ],
)
def test_what_no_thing_can_be(iot: Registry, members: dict[str, Any]) -> None:
    assert iot.refused("CreateThing", **members) == INVALID
    assert iot("ListThings") == {"things": []}


def test_things_are_listed_and_filtered_page_by_page(iot: Registry) -> None:
    iot("CreateThingType", thingTypeName="t")
    for number in range(7):
        more: dict[str, Any] = {"thingTypeName": "t"} if number % 2 else {}
        iot("CreateThing", thingName=f"n{number}", attributePayload=attributes(site=f"s{number % 3}"), **more)

    def names(**members: Any) -> list[str]:
        found = iot.desk.all("ListThings", "things", token="nextToken", maxResults=2, **members)
        return [entry["thingName"] for entry in found]

    assert names() == [f"n{number}" for number in range(7)]
    assert names(thingTypeName="t") == ["n1", "n3", "n5"]
    assert names(attributeName="site", attributeValue="s0") == ["n0", "n3", "n6"]
    assert names(attributeName="site", attributeValue="s0", thingTypeName="t") == ["n3"]
    assert names(attributeName="site", attributeValue="s", usePrefixAttributeValue=True) == names()
    assert names(attributeName="site") == names() and names(attributeName="none") == []
    page = iot("ListThings", maxResults="3")
    assert len(page["things"]) == 3 and page["nextToken"]
    assert iot.refused("ListThings", nextToken="mine") == INVALID
    assert iot.refused("ListThings", maxResults=0) == INVALID
    assert iot.refused("ListThings", attributeValue="s0") == INVALID


def test_a_rare_match_is_found_though_a_request_looks_at_a_part_only(iot: Registry) -> None:
    for number in range(60):
        iot.desk.call(
            "CreateThing", thingName=f"n{number}", attributePayload=attributes(a="y" if number == 59 else "x")
        )
    query = {"attributeName": "a", "attributeValue": "y", "usePrefixAttributeValue": True, "maxResults": 1}
    first = iot("ListThings", **query)
    assert first["things"] == [] and first["nextToken"]
    assert [entry["thingName"] for entry in iot.desk.all("ListThings", "things", token="nextToken", **query)] == ["n59"]


def test_regions_know_nothing_of_each_other(iot: Registry) -> None:
    here = iot("CreateThing", thingName="a")
    there = iot("CreateThing", thingName="a", region="us-east-1", attributePayload=attributes(x="1"))
    assert there["thingArn"] == f"arn:aws:iot:us-east-1:{ACCOUNT}:thing/a" and there["thingId"] != here["thingId"]
    iot("DeleteThing", thingName="a")
    assert iot("DescribeThing", thingName="a", region="us-east-1")["attributes"] == {"x": "1"}


def test_keys_may_do_what_their_policy_says_about_a_thing(iot: Registry) -> None:
    asked = []

    def allows(action: str, resource: str) -> bool:
        asked.append((action, resource))
        return False

    who = Principal("arn:aws:iam::1:user/u", "AK", allows)
    assert iot.refused("CreateThing", thingName="a", who=who) == (403, "AccessDeniedException")
    assert iot.refused("AttachPolicy", policyName="p", target=NOWHERE, who=who) == (403, "AccessDeniedException")
    iot.desk.call("CreateThing", thingName="t")
    iot.desk.call("CreateThingGroup", thingGroupName="g")
    adding = {"thingName": "t", "thingGroupName": "g", "who": who}
    assert iot.refused("AddThingToThingGroup", **adding) == (403, "AccessDeniedException")
    assert asked == [
        ("iot:CreateThing", f"{ARN}thing/a"),
        ("iot:AttachPolicy", NOWHERE),
        ("iot:AddThingToThingGroup", f"{ARN}thinggroup/g"),
    ]


# --- certificates of things ------------------------------------------------------------------------------


def test_certificates_are_attached_and_detached(iot: Registry) -> None:
    iot("CreateThing", thingName="a")
    iot("CreateThing", thingName="b")
    first, first_arn = iot.certificate()
    second, second_arn = iot.certificate()
    iot.told()
    for _ in range(2):
        iot("AttachThingPrincipal", thingName="a", principal=first_arn)
    iot("AttachThingPrincipal", thingName="a", principal=second_arn, thingPrincipalType="NON_EXCLUSIVE_THING")
    iot("AttachThingPrincipal", thingName="b", principal=first_arn)
    assert PermissionsChanged(first) in iot.told()
    assert iot("ListThingPrincipals", thingName="a") == {"principals": [first_arn, second_arn]}
    assert iot("ListPrincipalThings", principal=first_arn) == {"things": ["a", "b"]}
    assert iot("ListPrincipalThings", principal=first_arn, maxResults=1)["things"] == ["a"]
    assert iot.desk.all("ListThingPrincipals", "principals", token="nextToken", thingName="a", maxResults=1) == [
        first_arn,
        second_arn,
    ]
    assert iot.desk.look(lambda tx: things.things_of_certificate(tx, HOME, first)) == ["a", "b"]
    assert iot.desk.look(lambda tx: things.certificates_of_thing(tx, HOME, "a")) == [first, second]
    assert iot.refused("DeleteThing", thingName="b") == INVALID
    fault = iot.desk.refused("DeleteThing", thingName="b")
    assert fault.message == "Cannot delete. Thing b is still attached to one or more principals"
    for _ in range(2):
        iot("DetachThingPrincipal", thingName="b", principal=first_arn)
    assert iot("ListPrincipalThings", principal=first_arn) == {"things": ["a"]}
    iot("DeleteThing", thingName="b")


def test_updates_of_a_thing_reach_who_remembers_its_permissions(iot: Registry) -> None:
    iot("CreateThing", thingName="a")
    certificate_id, arn = iot.certificate()
    iot("AttachThingPrincipal", thingName="a", principal=arn)
    iot.told()
    iot("UpdateThing", thingName="a", attributePayload=attributes(x="1"))
    assert iot.told() == [PermissionsChanged(certificate_id)]


def test_a_certificate_may_be_one_things_alone(iot: Registry) -> None:
    iot("CreateThing", thingName="a")
    iot("CreateThing", thingName="b")
    _, arn = iot.certificate()
    iot("AttachThingPrincipal", thingName="a", principal=arn, thingPrincipalType="EXCLUSIVE_THING")
    assert iot.refused("AttachThingPrincipal", thingName="b", principal=arn) == INVALID
    iot("AttachThingPrincipal", thingName="a", principal=arn)
    iot("AttachThingPrincipal", thingName="b", principal=arn)
    exclusive = {"thingName": "a", "principal": arn, "thingPrincipalType": "EXCLUSIVE_THING"}
    assert iot.refused("AttachThingPrincipal", **exclusive) == INVALID


def test_principals_that_are_none(iot: Registry) -> None:
    iot("CreateThing", thingName="a")
    _, elsewhere = iot.certificate(region="us-east-1")
    _, arn = iot.certificate()
    for operation in ("AttachThingPrincipal", "DetachThingPrincipal"):
        for principal in (NOWHERE, elsewhere, f"{ARN}cert/../x", f"{ARN}cert/"):
            assert iot.refused(operation, thingName="a", principal=principal) == NOT_FOUND, principal
        for principal in ("x", f"{ARN}thing/a", "eu-west-1:0-0-0"):
            assert iot.refused(operation, thingName="a", principal=principal) == INVALID, principal
        assert iot.refused(operation, thingName="nobody", principal=arn) == NOT_FOUND
        assert iot.refused(operation, thingName="a") == INVALID
    assert iot.refused("ListThingPrincipals", thingName="nobody") == NOT_FOUND
    assert iot.refused("ListPrincipalThings", principal=NOWHERE) == NOT_FOUND


# --- thing types -----------------------------------------------------------------------------------------


def test_a_type_lives_is_deprecated_and_deleted(iot: Registry) -> None:
    properties = {"thingTypeDescription": "a lamp, ümlaut", "searchableAttributes": ["watt"]}
    made = iot("CreateThingType", thingTypeName="lamp", thingTypeProperties=properties, tags=[{"Key": "k"}])
    assert iot("CreateThingType", thingTypeName="lamp", thingTypeProperties=properties) == made
    assert iot.refused("CreateThingType", thingTypeName="lamp") == TAKEN
    described = iot("DescribeThingType", thingTypeName="lamp")
    assert described["thingTypeProperties"] == properties and described["thingTypeId"] == made["thingTypeId"]
    assert described["thingTypeMetadata"]["deprecated"] is False
    iot("CreateThing", thingName="a", thingTypeName="lamp")
    assert iot("DescribeThing", thingName="a")["thingTypeName"] == "lamp"
    assert iot.refused("DeleteThingType", thingTypeName="lamp") == INVALID, "not deprecated"

    iot("DeprecateThingType", thingTypeName="lamp")
    assert iot.refused("CreateThing", thingName="b", thingTypeName="lamp") == INVALID
    metadata = iot("DescribeThingType", thingTypeName="lamp")["thingTypeMetadata"]
    assert metadata["deprecated"] and metadata["deprecationDate"] == iot.desk.clock.now
    iot.desk.clock.now += 299
    iot("DeprecateThingType", thingTypeName="lamp")
    fault = iot.desk.refused("DeleteThingType", thingTypeName="lamp")
    assert "5 minutes" in fault.message and "1 seconds" in fault.message
    iot.desk.clock.now += 1
    assert "1 things have it" in iot.desk.refused("DeleteThingType", thingTypeName="lamp").message
    both = {"thingName": "a", "thingTypeName": "lamp", "removeThingType": True}
    assert iot.refused("UpdateThing", **both) == INVALID
    iot("UpdateThing", thingName="a", removeThingType=True)
    assert "thingTypeName" not in iot("DescribeThing", thingName="a")
    iot("DeleteThingType", thingTypeName="lamp")
    assert iot.refused("DescribeThingType", thingTypeName="lamp") == NOT_FOUND
    iot("CreateThingType", thingTypeName="lamp")
    assert iot("ListTagsForResource", resourceArn=made["thingTypeArn"]) == {"tags": []}


def test_deprecation_can_be_taken_back_and_types_are_listed(iot: Registry) -> None:
    for name in ("a", "b", "c"):
        iot("CreateThingType", thingTypeName=name)
    iot("DeprecateThingType", thingTypeName="a")
    iot("DeprecateThingType", thingTypeName="a", undoDeprecate=True)
    iot("CreateThing", thingName="x")
    iot("UpdateThing", thingName="x", thingTypeName="a")
    found = iot.desk.all("ListThingTypes", "thingTypes", token="nextToken", maxResults=2)
    assert [entry["thingTypeName"] for entry in found] == ["a", "b", "c"]
    assert [entry["thingTypeName"] for entry in iot("ListThingTypes", thingTypeName="b")["thingTypes"]] == ["b"]
    assert iot("ListThingTypes", thingTypeName="z") == {"thingTypes": []}
    assert "nextToken" in iot("ListThingTypes", maxResults=1)
    for operation in ("DescribeThingType", "DeprecateThingType", "DeleteThingType"):
        assert iot.refused(operation, thingTypeName="z") == NOT_FOUND
    assert iot.refused("CreateThing", thingName="y", thingTypeName="z") == NOT_FOUND
    assert iot.refused("UpdateThing", thingName="x", thingTypeName="z") == NOT_FOUND
    four = {"searchableAttributes": ["a", "b", "c", "d"]}
    assert iot.refused("CreateThingType", thingTypeName="z", thingTypeProperties=four) == INVALID


# --- thing groups ----------------------------------------------------------------------------------------


def test_a_group_is_made_changed_and_deleted(iot: Registry) -> None:
    properties = {"thingGroupDescription": "all of them", "attributePayload": attributes(a="1")}
    made = iot("CreateThingGroup", thingGroupName="g", thingGroupProperties=properties)
    assert iot("CreateThingGroup", thingGroupName="g", thingGroupProperties=properties) == made
    assert iot.refused("CreateThingGroup", thingGroupName="g") == TAKEN
    described = iot("DescribeThingGroup", thingGroupName="g")
    assert described["thingGroupProperties"] == properties and described["version"] == 1
    change = {"attributePayload": attributes(True, b="2")}
    assert iot("UpdateThingGroup", thingGroupName="g", thingGroupProperties=change, expectedVersion=1) == {"version": 2}
    assert iot("DescribeThingGroup", thingGroupName="g")["thingGroupProperties"] == {
        "thingGroupDescription": "all of them",
        "attributePayload": attributes(a="1", b="2"),
    }
    outdated = {"thingGroupName": "g", "thingGroupProperties": {}, "expectedVersion": 1}
    assert iot.refused("UpdateThingGroup", **outdated) == OUTDATED
    assert iot.refused("DeleteThingGroup", thingGroupName="g", expectedVersion=1) == OUTDATED
    for _ in range(2):
        iot("DeleteThingGroup", thingGroupName="g")
    assert iot.refused("DescribeThingGroup", thingGroupName="g") == NOT_FOUND
    assert iot.refused("UpdateThingGroup", thingGroupName="g", thingGroupProperties={}) == NOT_FOUND


def test_groups_form_trees_that_are_listed(iot: Registry) -> None:
    iot("CreateThingGroup", thingGroupName="root")
    iot("CreateThingGroup", thingGroupName="inner", parentGroupName="root")
    iot("CreateThingGroup", thingGroupName="leaf", parentGroupName="inner")
    iot("CreateThingGroup", thingGroupName="other")

    def names(**members: Any) -> list[str]:
        found = iot.desk.all("ListThingGroups", "thingGroups", token="nextToken", maxResults=1, **members)
        return [entry["groupName"] for entry in found]

    assert names() == ["root", "inner", "leaf", "other"]
    assert names(recursive=False) == ["root", "other"]
    assert names(parentGroup="root") == ["inner", "leaf"]
    assert names(parentGroup="root", recursive=False) == ["inner"]
    assert names(namePrefixFilter="l") == ["leaf"] and names(parentGroup="leaf") == []
    assert iot("ListThingGroups", maxResults=2)["thingGroups"][1] == {
        "groupName": "inner",
        "groupArn": f"{ARN}thinggroup/inner",
    }
    metadata = iot("DescribeThingGroup", thingGroupName="leaf")["thingGroupMetadata"]
    assert metadata["parentGroupName"] == "inner"
    assert [entry["groupName"] for entry in metadata["rootToParentThingGroups"]] == ["root", "inner"]
    assert iot.refused("DeleteThingGroup", thingGroupName="inner") == INVALID
    assert iot.refused("ListThingGroups", parentGroup="none") == NOT_FOUND
    assert iot.refused("CreateThingGroup", thingGroupName="x", parentGroupName="none") == NOT_FOUND


def test_trees_have_a_height_and_a_width(iot: Registry) -> None:
    iot("CreateThingGroup", thingGroupName="g1")
    for level in range(2, 8):
        iot("CreateThingGroup", thingGroupName=f"g{level}", parentGroupName=f"g{level - 1}")
    assert iot.refused("CreateThingGroup", thingGroupName="g8", parentGroupName="g7") == INVALID
    for number in range(99):
        iot.desk.call("CreateThingGroup", thingGroupName=f"w{number}", parentGroupName="g1")
    assert iot.refused("CreateThingGroup", thingGroupName="w99", parentGroupName="g1") == INVALID


def test_things_are_put_into_groups_and_taken_out(iot: Registry) -> None:
    iot("CreateThingGroup", thingGroupName="root")
    iot("CreateThingGroup", thingGroupName="leaf", parentGroupName="root")
    for name in ("a", "b"):
        iot("CreateThing", thingName=name)
    certificate_id, arn = iot.certificate()
    iot("AttachThingPrincipal", thingName="a", principal=arn)
    iot.told()
    for _ in range(2):
        iot("AddThingToThingGroup", thingGroupName="leaf", thingName="a")
    assert iot.told() == [PermissionsChanged(certificate_id)] * 2
    iot("AddThingToThingGroup", thingGroupArn=f"{ARN}thinggroup/root", thingArn=f"{ARN}thing/b")
    assert iot("ListThingsInThingGroup", thingGroupName="root") == {"things": ["b"]}
    listed = iot.desk.all(
        "ListThingsInThingGroup", "things", token="nextToken", thingGroupName="root", recursive=True, maxResults=1
    )
    assert sorted(listed) == ["a", "b"]
    assert sorted(iot.desk.look(lambda tx: list(things.things_of_group(tx, HOME, "root")))) == ["a", "b"]
    groups = [{"groupName": "leaf", "groupArn": f"{ARN}thinggroup/leaf"}]
    assert iot("ListThingGroupsForThing", thingName="a") == {"thingGroups": groups}
    assert iot.refused("AddThingToThingGroup", thingGroupName="root", thingName="a") == INVALID, "one of a tree"
    for _ in range(2):
        iot("RemoveThingFromThingGroup", thingGroupName="leaf", thingName="a")
    assert iot("ListThingGroupsForThing", thingName="a") == {"thingGroups": []}
    iot("DeleteThing", thingName="b")
    assert iot("ListThingsInThingGroup", thingGroupName="root") == {"things": []}
    iot("AddThingToThingGroup", thingGroupName="leaf", thingName="a")
    iot("DeleteThingGroup", thingGroupName="leaf")
    assert iot("ListThingGroupsForThing", thingName="a") == {"thingGroups": []}


def test_memberships_that_cannot_be(iot: Registry) -> None:
    iot("CreateThing", thingName="a")
    for number in range(11):
        iot("CreateThingGroup", thingGroupName=f"g{number}")
    for number in range(10):
        iot("AddThingToThingGroup", thingGroupName=f"g{number}", thingName="a")
    assert iot.refused("AddThingToThingGroup", thingGroupName="g10", thingName="a") == INVALID
    for operation in ("AddThingToThingGroup", "RemoveThingFromThingGroup"):
        assert iot.refused(operation, thingGroupName="none", thingName="a") == NOT_FOUND
        assert iot.refused(operation, thingGroupName="g1", thingName="none") == NOT_FOUND
        assert iot.refused(operation, thingGroupName="g1") == INVALID
        assert iot.refused(operation, thingName="a") == INVALID
        assert iot.refused(operation, thingGroupName="g1", thingArn="a") == INVALID
        other = f"arn:aws:iot:us-east-1:{ACCOUNT}:thing/a"
        assert iot.refused(operation, thingGroupName="g1", thingArn=other) == NOT_FOUND
        two = {"thingName": "a", "thingGroupName": "g1", "thingGroupArn": f"{ARN}thinggroup/g2"}
        assert iot.refused(operation, **two) == INVALID
    assert iot.refused("ListThingsInThingGroup", thingGroupName="none") == NOT_FOUND
    assert iot.refused("ListThingGroupsForThing", thingName="none") == NOT_FOUND


def test_a_deleted_group_leaves_no_policy_behind(iot: Registry) -> None:
    iot("CreatePolicy", policyName="p", policyDocument=DOCUMENT)
    arn = iot("CreateThingGroup", thingGroupName="g")["thingGroupArn"]
    iot("AttachPolicy", policyName="p", target=arn)
    iot("DeleteThingGroup", thingGroupName="g")
    iot("CreateThingGroup", thingGroupName="g")
    assert iot("ListAttachedPolicies", target=arn) == {"policies": []}
