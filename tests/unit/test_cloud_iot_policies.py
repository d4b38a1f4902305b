"""IoT policies, their versions, and what they are attached to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_desk import ACCOUNT, REGION, Desk
from iot_support import DOCUMENT, Registry

from ggfast.cloud.events import PermissionsChanged
from ggfast.cloud.iot import IOT
from ggfast.cloud.iot.policies import policies_of_certificate

HOME = f"{ACCOUNT}/{REGION}"
ARN = f"arn:aws:iot:{REGION}:{ACCOUNT}:"
NOWHERE = f"{ARN}cert/{'0' * 64}"
NOT_FOUND = (404, "ResourceNotFoundException")
INVALID = (400, "InvalidRequestException")
TAKEN = (409, "ResourceAlreadyExistsException")
CONFLICT = (409, "DeleteConflictException")
MALFORMED = (400, "MalformedPolicyException")


@pytest.fixture
def iot(tmp_path: Path) -> Iterator[Registry]:
    desk = Desk(tmp_path, IOT)
    yield Registry(desk)
    desk.close()


def policy(name: str) -> dict[str, str]:
    return {"policyName": name, "policyArn": f"{ARN}policy/{name}"}


# --- policies --------------------------------------------------------------------------------------------


def test_a_policy_with_its_versions(iot: Registry) -> None:
    made = iot("CreatePolicy", policyName="p@=+,.x-", policyDocument=DOCUMENT, tags=[{"Key": "k", "Value": "v"}])
    name = made["policyName"]
    assert made["policyVersionId"] == "1" and made["policyArn"] == f"{ARN}policy/{name}"
    second = DOCUMENT.replace("iot:*", "greengrass:*")
    assert iot("CreatePolicyVersion", policyName=name, policyDocument=second)["isDefaultVersion"] is False
    found = iot("GetPolicy", policyName=name)
    assert (found["policyDocument"], found["defaultVersionId"]) == (DOCUMENT, "1")
    iot.told()
    iot("SetDefaultPolicyVersion", policyName=name, policyVersionId="2")
    assert iot.told() == [PermissionsChanged()]
    assert iot("GetPolicy", policyName=name)["policyDocument"] == second
    version = iot("GetPolicyVersion", policyName=name, policyVersionId="2")
    assert version["isDefaultVersion"] and version["policyDocument"] == second
    made = iot("CreatePolicyVersion", policyName=name, policyDocument=DOCUMENT, setAsDefault=True)
    assert made["policyVersionId"] == "3" and made["isDefaultVersion"]
    listed = iot("ListPolicyVersions", policyName=name)["policyVersions"]
    assert [(entry["versionId"], entry["isDefaultVersion"]) for entry in listed] == [
        ("3", True),
        ("2", False),
        ("1", False),
    ]
    for _ in range(2):
        iot("CreatePolicyVersion", policyName=name, policyDocument=DOCUMENT)
    refusal = iot.refused("CreatePolicyVersion", policyName=name, policyDocument=DOCUMENT)
    assert refusal == (409, "VersionsLimitExceededException")
    assert iot.refused("DeletePolicyVersion", policyName=name, policyVersionId="3") == CONFLICT
    assert iot.refused("DeletePolicy", policyName=name) == CONFLICT, "it has other versions"
    for version_id in ("1", "2", "4", "5"):
        iot("DeletePolicyVersion", policyName=name, policyVersionId=version_id)
    made = iot("CreatePolicyVersion", policyName=name, policyDocument=DOCUMENT)
    assert made["policyVersionId"] == "6", "numbers are not used again"
    iot("DeletePolicyVersion", policyName=name, policyVersionId="6")
    iot("DeletePolicy", policyName=name)
    iot("CreatePolicy", policyName=name, policyDocument=DOCUMENT)
    assert iot("ListTagsForResource", resourceArn=f"{ARN}policy/{name}") == {"tags": []}


def test_a_taken_policy_name_is_refused(iot: Registry) -> None:
    iot("CreatePolicy", policyName="p", policyDocument=DOCUMENT)
    fault = iot.desk.refused("CreatePolicy", policyName="p", policyDocument=DOCUMENT)
    assert (fault.status, fault.code) == TAKEN
    assert fault.message == "Policy cannot be created - name already exists (name=p)"
    assert fault.members["resourceArn"] == f"{ARN}policy/p"
    iot("CreatePolicy", policyName="p", policyDocument=DOCUMENT, region="us-east-1")


def test_policies_that_are_none(iot: Registry) -> None:
    long = json.dumps({"Statement": [{"Effect": "Allow", "Action": "iot:*", "Resource": ["a" * 1_000] * 3}]})
    for text in ("", "x", "{}", "[" * 10_000, DOCUMENT.replace("Allow", "Perhaps"), long):
        assert iot.refused("CreatePolicy", policyName="p", policyDocument=text) == MALFORMED
    iot("CreatePolicy", policyName="wide", policyDocument=DOCUMENT + " " * 3_000)
    assert iot.refused("CreatePolicyVersion", policyName="wide", policyDocument="x") == MALFORMED
    for name in ("", "a/b", "ü", "x" * 129, "a b"):
        assert iot.refused("CreatePolicy", policyName=name, policyDocument=DOCUMENT) == INVALID
    assert iot.refused("CreatePolicy", policyName="p") == INVALID
    assert iot.refused("CreatePolicy", policyName="p", policyDocument={"Statement": []}) == INVALID


def test_policies_that_do_not_exist(iot: Registry) -> None:
    iot("CreatePolicy", policyName="p", policyDocument=DOCUMENT)
    for operation in (
        "GetPolicy",
        "DeletePolicy",
        "ListPolicyVersions",
        "ListTargetsForPolicy",
        "ListPolicyPrincipals",
    ):
        assert iot.refused(operation, policyName="none") == NOT_FOUND
    assert iot.refused("CreatePolicyVersion", policyName="none", policyDocument=DOCUMENT) == NOT_FOUND
    for operation in ("GetPolicyVersion", "SetDefaultPolicyVersion", "DeletePolicyVersion"):
        assert iot.refused(operation, policyName="none", policyVersionId="1") == NOT_FOUND
        assert iot.refused(operation, policyName="p", policyVersionId="2") == NOT_FOUND
        assert iot.refused(operation, policyName="p", policyVersionId="x") == INVALID


def test_policies_are_listed(iot: Registry) -> None:
    for name in ("a", "b", "c"):
        iot("CreatePolicy", policyName=name, policyDocument=DOCUMENT)
    first = iot("ListPolicies", pageSize=2)
    assert first["policies"] == [policy("c"), policy("b")]
    assert iot("ListPolicies", pageSize=2, marker=first["nextMarker"]) == {"policies": [policy("a")]}
    assert iot("ListPolicies", ascendingOrder=True)["policies"] == [policy("a"), policy("b"), policy("c")]


# --- attachments -----------------------------------------------------------------------------------------


def test_old_and_new_operations_attach_the_same_way(iot: Registry) -> None:
    certificate_id, arn = iot.certificate()
    for name in ("p", "q"):
        iot("CreatePolicy", policyName=name, policyDocument=DOCUMENT)
    iot.told()
    for _ in range(2):
        iot("AttachPrincipalPolicy", policyName="p", principal=arn)
        iot("AttachPolicy", policyName="p", target=arn)
    assert iot.told() == [PermissionsChanged(certificate_id)]
    iot("AttachPolicy", policyName="q", target=arn)
    assert iot("ListAttachedPolicies", target=arn) == {"policies": [policy("p"), policy("q")]}
    assert iot("ListPrincipalPolicies", principal=arn) == {"policies": [policy("q"), policy("p")]}
    first = iot("ListPrincipalPolicies", principal=arn, pageSize=1, ascendingOrder=True)
    assert first["policies"] == [policy("p")] and first["nextMarker"]
    assert iot("ListPolicyPrincipals", policyName="p") == {"principals": [arn]}
    assert iot("ListTargetsForPolicy", policyName="p") == {"targets": [arn]}
    assert iot.refused("DeletePolicy", policyName="p") == CONFLICT
    iot.told()
    for _ in range(2):
        iot("DetachPrincipalPolicy", policyName="p", principal=arn)
        iot("DetachPolicy", policyName="q", target=arn)
    assert iot.told() == [PermissionsChanged(certificate_id)] * 2
    assert iot("ListAttachedPolicies", target=arn) == {"policies": []}
    iot("DeletePolicy", policyName="p")


def test_policies_of_groups_count_for_their_things(iot: Registry) -> None:
    certificate_id, arn = iot.certificate()
    texts = {name: DOCUMENT.replace("iot:*", f"iot:{name}") for name in ("own", "root", "leaf", "shared")}
    for name, text in texts.items():
        iot("CreatePolicy", policyName=name, policyDocument=text)
    root = iot("CreateThingGroup", thingGroupName="root")["thingGroupArn"]
    leaf = iot("CreateThingGroup", thingGroupName="leaf", parentGroupName="root")["thingGroupArn"]
    iot("CreateThing", thingName="a")
    iot("AttachThingPrincipal", thingName="a", principal=arn)
    iot("AddThingToThingGroup", thingGroupName="leaf", thingName="a")
    iot.told()
    for name, target in (("own", arn), ("root", root), ("leaf", leaf), ("shared", root), ("shared", arn)):
        iot("AttachPolicy", policyName=name, target=target)
    assert PermissionsChanged() in iot.told()

    def counting(**how: bool) -> list[str]:
        found = iot.desk.look(lambda tx: policies_of_certificate(tx, HOME, certificate_id, **how))
        return [name for text in found for name in texts if texts[name] == text]

    assert counting() == ["own", "shared", "leaf", "root"]
    assert counting(groups=False) == ["own", "shared"]
    assert iot("ListAttachedPolicies", target=leaf) == {"policies": [policy("leaf")]}
    recursive = {"target": leaf, "recursive": True}
    assert iot("ListAttachedPolicies", **recursive)["policies"] == [policy("leaf"), policy("root"), policy("shared")]
    first = iot("ListAttachedPolicies", pageSize=2, **recursive)
    assert iot("ListAttachedPolicies", marker=first["nextMarker"], **recursive) == {"policies": [policy("shared")]}
    assert iot.refused("ListAttachedPolicies", marker="x", **recursive) == INVALID
    assert sorted(iot("ListTargetsForPolicy", policyName="shared")["targets"]) == sorted([arn, root])
    assert iot("ListPolicyPrincipals", policyName="shared") == {"principals": [arn]}
    assert len(iot("ListTargetsForPolicy", policyName="shared", pageSize=1)["targets"]) == 1
    iot("CreatePolicyVersion", policyName="own", policyDocument=DOCUMENT, setAsDefault=True)
    assert DOCUMENT in iot.desk.look(lambda tx: policies_of_certificate(tx, HOME, certificate_id))
    iot("RemoveThingFromThingGroup", thingGroupName="leaf", thingName="a")
    assert counting() == ["shared"]
    assert iot.desk.look(lambda tx: policies_of_certificate(tx, HOME, "0" * 64)) == []


def test_attachments_that_cannot_be(iot: Registry) -> None:
    _, arn = iot.certificate()
    for number in range(11):
        iot("CreatePolicy", policyName=f"p{number}", policyDocument=DOCUMENT)
    for number in range(10):
        iot("AttachPolicy", policyName=f"p{number}", target=arn)
    assert iot.refused("AttachPolicy", policyName="p10", target=arn) == (410, "LimitExceededException")
    elsewhere = f"arn:aws:iot:us-east-1:{ACCOUNT}:thinggroup/g"
    for operation in ("AttachPolicy", "DetachPolicy"):
        for target in (NOWHERE, f"{ARN}thinggroup/none", elsewhere):
            assert iot.refused(operation, policyName="p1", target=target) == NOT_FOUND
        for target in ("x", f"{ARN}thing/a", "eu-west-1:identity", ""):
            assert iot.refused(operation, policyName="p1", target=target) == INVALID
        assert iot.refused(operation, policyName="none", target=arn) == NOT_FOUND
    for operation in ("AttachPrincipalPolicy", "DetachPrincipalPolicy"):
        assert iot.refused(operation, policyName="p1", principal=NOWHERE) == NOT_FOUND
        assert iot.refused(operation, policyName="none", principal=arn) == NOT_FOUND
        assert iot.refused(operation, policyName="p1", principal="x") == INVALID
    assert iot.refused("ListAttachedPolicies", target=NOWHERE) == NOT_FOUND
    assert iot.refused("ListPrincipalPolicies", principal=NOWHERE) == NOT_FOUND
