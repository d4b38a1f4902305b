"""Role aliases, tags, endpoints; then every operation against botocore's model and against odd values."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud_desk import ACCOUNT, REGION, Desk
from cloud_shapes_check import model
from iot_support import DOCUMENT, Registry

from ggfast.cloud.faults import Fault
from ggfast.cloud.iot import IOT
from ggfast.cloud.iot.role_aliases import get_role_alias
from ggfast.cloud.iot.tags import taggable

HOME = f"{ACCOUNT}/{REGION}"
ARN = f"arn:aws:iot:{REGION}:{ACCOUNT}:"
NOWHERE = f"{ARN}cert/{'0' * 64}"
NOT_FOUND = (404, "ResourceNotFoundException")
INVALID = (400, "InvalidRequestException")
TAKEN = (409, "ResourceAlreadyExistsException")
ROLE = f"arn:aws:iam::{ACCOUNT}:role/device"


@pytest.fixture
def iot(tmp_path: Path) -> Iterator[Registry]:
    desk = Desk(tmp_path, IOT)
    yield Registry(desk)
    desk.close()


# --- role aliases, tags, endpoints -----------------------------------------------------------------------


def test_role_aliases(iot: Registry) -> None:
    made = iot("CreateRoleAlias", roleAlias="a=b,c@d", roleArn=ROLE, tags=[{"Key": "k", "Value": "v"}])
    assert made == {"roleAlias": "a=b,c@d", "roleAliasArn": f"{ARN}rolealias/a=b,c@d"}
    assert iot.refused("CreateRoleAlias", roleAlias="a=b,c@d", roleArn=ROLE) == TAKEN
    assert iot("UpdateRoleAlias", roleAlias="a=b,c@d", credentialDurationSeconds=900) == made
    description = iot("DescribeRoleAlias", roleAlias="a=b,c@d")["roleAliasDescription"]
    assert (description["roleArn"], description["credentialDurationSeconds"]) == (ROLE, 900)
    known = iot.desk.look(lambda tx: get_role_alias(tx, HOME, "a=b,c@d"))
    assert known is not None and (known["role"], known["seconds"]) == (ROLE, 900)
    iot("CreateRoleAlias", roleAlias="z", roleArn=ROLE, credentialDurationSeconds=43_200)
    assert iot("ListRoleAliases") == {"roleAliases": ["z", "a=b,c@d"]}
    first = iot("ListRoleAliases", pageSize=1, ascendingOrder=True)
    assert first["roleAliases"] == ["a=b,c@d"] and first["nextMarker"]
    iot("DeleteRoleAlias", roleAlias="z")
    for operation in ("DescribeRoleAlias", "UpdateRoleAlias", "DeleteRoleAlias"):
        assert iot.refused(operation, roleAlias="z") == NOT_FOUND
    for members in ({"roleArn": "x" * 20}, {"roleArn": ROLE, "credentialDurationSeconds": 899}, {}):
        assert iot.refused("CreateRoleAlias", roleAlias="y", **members) == INVALID


def test_tags(iot: Registry) -> None:
    arn = iot("CreateThingGroup", thingGroupName="g", tags=[{"Key": "a", "Value": "1"}])["thingGroupArn"]
    iot("TagResource", resourceArn=arn, tags=[{"Key": "a", "Value": "2"}, {"Key": "Größe/x:y", "Value": "ü"}])
    assert iot("ListTagsForResource", resourceArn=arn)["tags"] == [
        {"Key": "a", "Value": "2"},
        {"Key": "Größe/x:y", "Value": "ü"},
    ]
    iot("UntagResource", resourceArn=arn, tagKeys=["a", "none"])
    assert iot("ListTagsForResource", resourceArn=arn)["tags"] == [{"Key": "Größe/x:y", "Value": "ü"}]
    for kind, name in (("thingtype", "t"), ("policy", "p"), ("rolealias", "r")):
        iot("CreateThingType", thingTypeName="t")
        if kind == "policy":
            iot("CreatePolicy", policyName="p", policyDocument=DOCUMENT)
        if kind == "rolealias":
            iot("CreateRoleAlias", roleAlias="r", roleArn=ROLE)
        iot("TagResource", resourceArn=f"{ARN}{kind}/{name}", tags=[{"Key": "k", "Value": kind}])
        assert iot("ListTagsForResource", resourceArn=f"{ARN}{kind}/{name}")["tags"][0]["Value"] == kind


def test_tags_that_cannot_be(iot: Registry) -> None:
    arn = iot("CreateThingGroup", thingGroupName="g")["thingGroupArn"]
    iot("CreateThing", thingName="a")
    for name, more in (("TagResource", {"tags": []}), ("UntagResource", {"tagKeys": []}), ("ListTagsForResource", {})):
        for missing in (f"{ARN}thinggroup/none", arn.replace(REGION, "us-east-1"), f"{ARN}policy/g/../g"):
            assert iot.refused(name, resourceArn=missing, **more) == NOT_FOUND
        for wrong in ("x", f"{ARN}thing/a", f"{ARN}thinggroup", "arn:aws:iot:", "arn:aws:s3:::b/c"):
            assert iot.refused(name, resourceArn=wrong, **more) == INVALID
    assert iot.refused("TagResource", resourceArn=arn, tags=[{"Key": "AWS:x", "Value": ""}]) == INVALID
    assert iot.refused("TagResource", resourceArn=arn, tags=[{"Key": "", "Value": ""}]) == INVALID
    assert iot.refused("TagResource", resourceArn=arn, tags=[{"Value": ""}]) == INVALID
    assert iot.refused("TagResource", resourceArn=arn, tags=[{"Key": "k", "Value": "v" * 257}]) == INVALID
    iot("TagResource", resourceArn=arn, tags=[{"Key": f"k{number}"} for number in range(50)])
    assert iot.refused("TagResource", resourceArn=arn, tags=[{"Key": "one more"}]) == INVALID
    assert len(iot("ListTagsForResource", resourceArn=arn)["tags"]) == 50


def test_others_make_their_kinds_taggable(iot: Registry) -> None:
    taggable("specimen", lambda _tx, home, name: (home, name) == (HOME, "x"))
    iot("TagResource", resourceArn=f"{ARN}specimen/x", tags=[{"Key": "k", "Value": "v"}])
    assert iot.refused("TagResource", resourceArn=f"{ARN}specimen/y", tags=[]) == NOT_FOUND


def test_endpoints_are_host_names(iot: Registry) -> None:
    assert iot("DescribeEndpoint") == {"endpointAddress": "localhost"}
    assert iot("DescribeEndpoint", endpointType="iot:Data-ATS") == {"endpointAddress": "localhost"}
    for kind in ("iot:Jobs", "iot:CredentialProvider"):
        assert iot("DescribeEndpoint", endpointType=kind) == {"endpointAddress": "localhost:8443"}
    assert iot.refused("DescribeEndpoint", endpointType="iot:Moon") == INVALID


def test_the_registration_code_stays(iot: Registry) -> None:
    code = iot("GetRegistrationCode")["registrationCode"]
    assert re.fullmatch("[0-9a-f]{64}", code) and iot("GetRegistrationCode") == {"registrationCode": code}
    assert iot("GetRegistrationCode", region="us-east-1")["registrationCode"] != code
    assert base64.b16decode(code.upper())


def test_operations_travel_as_the_model_says() -> None:
    """Methods, paths, and where members lie under which names: as clients will send them."""
    known = model("iot")
    for operation in IOT.operations.values():
        if not operation.handler.__module__.startswith("ggfast.cloud.iot."):
            continue  # jobs have tests of their own
        described = known.operation_model(operation.name)
        assert described.http["method"] == operation.method, operation.name
        path = described.http["requestUri"].split("?")[0].strip("/")
        assert path == "/".join(operation.segments), operation.name
        shape = described.input_shape
        places = {"uri": "path", "querystring": "query", "header": "header"}
        expected = {
            name: (
                places.get(member.serialization.get("location", ""), "body"),
                member.serialization.get("name", name).lower(),
                name in shape.required_members,
            )
            for name, member in (shape.members if shape is not None else {}).items()
        }
        found = {
            name: (member.where, (member.wire or name).lower(), member.required)
            for name, member in operation.takes.members.items()
        }
        assert found == expected, operation.name


ODD: list[Any] = [
    None,
    0,
    -1,
    2**63,
    1e308,
    True,
    [],
    [None],
    {},
    {"a": {"b": []}},
    "",
    "\0",
    "\udcff",
    "é" * 40,
    "a/../b",
    "*",
    "' OR 1=1 --",
    "0" * 64,
    "x" * 5_000,
    f"{ARN}cert/é",
    f"{ARN}thinggroup/\N{SNOWMAN}",
    "https://a/?b=c#d",
]


REGISTRY = sorted(
    name
    for name, operation in IOT.operations.items()
    if operation.handler.__module__.startswith("ggfast.cloud.iot.") and name != "CreateKeysAndCertificate"  # is slow
)


@pytest.mark.parametrize("operation", REGISTRY)
def test_odd_values_end_in_an_answer_or_a_refusal(iot: Registry, operation: str) -> None:
    """Every member in turn gets every odd value, the others being right where a simple text can be."""
    members = IOT.operations[operation].takes.members
    right = {
        "principal": NOWHERE,
        "target": NOWHERE,
        "certificateId": "0" * 64,
        "roleArn": ROLE,
        "resourceArn": NOWHERE,
    }
    given = {name: right.get(name, "1") for name, member in members.items() if member.required}
    for name in [*members, "unknown"]:
        for value in ODD:
            try:
                iot.desk.call(operation, **given | {name: value})
            except Fault as fault:
                assert 400 <= fault.status < 500 and fault.code
