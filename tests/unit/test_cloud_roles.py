"""IAM and STS: answers as the models say, each refusal, and what short-lived keys may do."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import orjson
import pytest
from cloud_desk import ACCOUNT, ADMINISTRATOR, Desk
from cloud_shapes_check import conforms

from ggfast.cloud.credentials import TokenExpired, TokenInvalid, issue, open_token
from ggfast.cloud.keys import ADMINISTRATOR_POLICY, delete_key, make_key
from ggfast.cloud.operations import Principal
from ggfast.cloud.roles import IAM, STS
from ggfast.cloud.roles.principals import RoleRefused, principal_of, role_credentials_for_core
from ggfast.cloud.roles.roles import get_role, role_policies

TRUST = orjson.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "greengrass.amazonaws.com"}, "Action": "sts:AssumeRole"},
            {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"},
        ],
    }
).decode()
ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"
MANAGED = "arn:aws:iam::aws:policy/AWSLambdaReadOnlyAccess"


def allow(action: str, resource: str = "*", effect: str = "Allow") -> str:
    statement = {"Effect": effect, "Action": action, "Resource": resource}
    return orjson.dumps({"Version": "2012-10-17", "Statement": [statement]}).decode()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path, IAM, STS)
    yield desk
    desk.close()


def asked(desk: Desk, operation: str, **members: Any) -> dict[str, Any]:
    answer = desk.call(operation, **members)
    conforms("sts" if operation in STS.operations else "iam", operation, answer)
    return answer


def create(desk: Desk, name: str = "r", **members: Any) -> dict[str, Any]:
    return asked(desk, "CreateRole", RoleName=name, **({"AssumeRolePolicyDocument": TRUST} | members))["Role"]


def who(desk: Desk, keys: dict[str, str]) -> Principal:
    session = open_token(desk.cloud, keys["SessionToken"], keys["AccessKeyId"])
    assert session.secret == keys["SecretAccessKey"]
    return desk.look(lambda tx: principal_of(tx, desk.cloud, session))


def test_roles(desk: Desk) -> None:
    made = create(desk, Description="d", Tags=[{"Key": "a", "Value": "b"}], PermissionsBoundary=MANAGED)
    assert made["Arn"] == ROLE and unquote(made["AssumeRolePolicyDocument"]) == TRUST
    assert asked(desk, "GetRole", RoleName="r")["Role"] == made
    assert desk.call("GetRole", RoleName="r", region="us-east-1")["Role"] == made
    for name in ("r", "R"):
        fault = desk.refused("CreateRole", RoleName=name, AssumeRolePolicyDocument=TRUST)
        assert (fault.code, fault.status) == ("EntityAlreadyExists", 409)
    assert desk.refused("GetRole", RoleName="R").code == "NoSuchEntity"
    create(desk, "p", Path="/service-role/")
    assert [r["RoleName"] for r in asked(desk, "ListRoles", PathPrefix="/service-role/")["Roles"]] == ["p"]
    page = asked(desk, "ListRoles", MaxItems=1)
    assert page["IsTruncated"] and len(desk.all("ListRoles", "Roles", token="Marker", MaxItems=1)) == 2
    assert desk.refused("ListRoles", Marker="x").code == "ValidationError"
    changed = TRUST.replace("greengrass", "lambda")
    asked(desk, "UpdateAssumeRolePolicy", RoleName="r", PolicyDocument=changed)
    assert unquote(desk.call("GetRole", RoleName="r")["Role"]["AssumeRolePolicyDocument"]) == changed
    asked(desk, "DeleteRole", RoleName="r")
    assert desk.refused("DeleteRole", RoleName="r").status == 404


@pytest.mark.parametrize("name", ["", "a/b", "a" * 65, "ü", "a b", "'; DROP TABLE documents"])
def test_names_that_are_none(desk: Desk, name: str) -> None:
    assert desk.refused("CreateRole", RoleName=name, AssumeRolePolicyDocument=TRUST).code == "ValidationError"
    assert desk.refused("GetRole", RoleName=name).code == "ValidationError"


@pytest.mark.parametrize(
    "trust",
    [
        "x",
        "[]",
        '{"Version":"2012-10-17","Statement":[]}',
        allow("sts:AssumeRole"),
        TRUST.replace('"Service"', '"Service":[1],"x"'),
        '{"Statement":{"Effect":"Allow","Principal":7,"Action":"sts:AssumeRole"}}',
        '{"Statement":{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole","Resource":"*"}}',
        " " * 50 + '{"Statement":{"Effect":"Allow","Principal":"*","Action":"' + "a:" + "b" * 3_000 + '"}}',
    ],
)
def test_trust_policies_that_are_none(desk: Desk, trust: str) -> None:
    fault = desk.refused("CreateRole", RoleName="r", AssumeRolePolicyDocument=trust)
    assert (fault.code, fault.status) == ("MalformedPolicyDocument", 400)


def test_inline_and_attached_policies(desk: Desk) -> None:
    create(desk)
    asked(desk, "PutRolePolicy", RoleName="r", PolicyName="in", PolicyDocument=allow("iot:*"))
    got = asked(desk, "GetRolePolicy", RoleName="r", PolicyName="in")
    assert unquote(got["PolicyDocument"]) == allow("iot:*")
    assert asked(desk, "ListRolePolicies", RoleName="r")["PolicyNames"] == ["in"]
    made = asked(desk, "CreatePolicy", PolicyName="own", Path="/x/", PolicyDocument=allow("greengrass:*"))["Policy"]
    assert desk.refused("CreatePolicy", PolicyName="own", PolicyDocument=allow("a:b")).code == "EntityAlreadyExists"
    unknown = "arn:aws:iam::aws:policy/service-role/Whatever"
    for arn in (made["Arn"], MANAGED, unknown, MANAGED):
        asked(desk, "AttachRolePolicy", RoleName="r", PolicyArn=arn)
    attached = asked(desk, "ListAttachedRolePolicies", RoleName="r")["AttachedPolicies"]
    assert [entry["PolicyArn"] for entry in attached] == [made["Arn"], MANAGED, unknown]
    assert len(desk.call("ListAttachedRolePolicies", RoleName="r", PathPrefix="/x/")["AttachedPolicies"]) == 1
    assert asked(desk, "GetPolicy", PolicyArn=made["Arn"])["Policy"]["AttachmentCount"] == 1
    assert "grants nothing" in asked(desk, "GetPolicy", PolicyArn=unknown)["Policy"]["Description"]
    documents = desk.look(lambda tx: role_policies(tx, ACCOUNT, ROLE))
    assert documents[:2] == [allow("iot:*"), allow("greengrass:*")] and len(documents) == 3
    assert desk.refused("DeletePolicy", PolicyArn=made["Arn"]).code == "DeleteConflict"
    assert desk.refused("DeletePolicy", PolicyArn=MANAGED).code == "AccessDenied"
    assert "delete policies first" in desk.refused("DeleteRole", RoleName="r").message
    asked(desk, "DeleteRolePolicy", RoleName="r", PolicyName="in")
    assert desk.refused("DeleteRole", RoleName="r").code == "DeleteConflict"
    for arn in (made["Arn"], MANAGED, unknown):
        asked(desk, "DetachRolePolicy", RoleName="r", PolicyArn=arn)
    asked(desk, "DeletePolicy", PolicyArn=made["Arn"])
    asked(desk, "DeleteRole", RoleName="r")
    create(desk)
    assert desk.look(lambda tx: role_policies(tx, ACCOUNT, ROLE)) == []
    missing = f"arn:aws:iam::{ACCOUNT}:policy/none"
    for operation in ("AttachRolePolicy", "DetachRolePolicy"):
        assert desk.refused(operation, RoleName="r", PolicyArn=missing).code == "NoSuchEntity"
    for operation in ("GetRolePolicy", "DeleteRolePolicy"):
        assert desk.refused(operation, RoleName="r", PolicyName="no").code == "NoSuchEntity"
    assert desk.refused("GetPolicy", PolicyArn="arn:aws:iam::aws:policy/../x y").code == "NoSuchEntity"
    assert desk.refused("PutRolePolicy", RoleName="r", PolicyName="a", PolicyDocument="{}").status == 400
    for number in range(4):
        desk.call("PutRolePolicy", RoleName="r", PolicyName=f"n{number}", PolicyDocument=allow("a:" + "b" * 2_000))
    for _ in range(2):
        long = allow("a:" + "c" * 2_040, "d" * 2_000)
        assert desk.refused("PutRolePolicy", RoleName="r", PolicyName="z", PolicyDocument=long).code == "LimitExceeded"


def test_permission_is_of_the_whole_arn(desk: Desk) -> None:
    create(desk, "p", Path="/x/")
    arn = f"arn:aws:iam::{ACCOUNT}:role/x/p"
    narrow = Principal("arn:u", "AKIA", lambda action, resource: (action, resource) == ("iam:GetRole", arn))
    assert desk.call("GetRole", RoleName="p", who=narrow)["Role"]["Arn"] == arn
    for operation, members in (("DeleteRole", {"RoleName": "p"}), ("GetRole", {"RoleName": "q"}), ("ListRoles", {})):
        assert desk.refused(operation, who=narrow, **members).code == "AccessDenied"


def test_assumed_roles_may_what_their_policies_say(desk: Desk) -> None:
    create(desk)
    desk.call("PutRolePolicy", RoleName="r", PolicyName="in", PolicyDocument=allow("iot:*"))
    answer = asked(desk, "AssumeRole", RoleArn=ROLE, RoleSessionName="me", DurationSeconds=900)
    caller = who(desk, answer["Credentials"])
    assert caller.arn == answer["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/r/me"
    assert caller.allows("iot:Publish", "x") and not caller.allows("lambda:GetFunction", "x")
    identity = asked(desk, "GetCallerIdentity", who=caller)
    assert identity["Arn"] == caller.arn and identity["UserId"] == answer["AssumedRoleUser"]["AssumedRoleId"]
    assert desk.refused("GetSessionToken", who=caller).code == "AccessDenied"
    assert desk.refused("GetUser", who=caller).code == "ValidationError"
    narrowed = asked(
        desk,
        "AssumeRole",
        RoleArn=ROLE,
        RoleSessionName="me",
        Policy=allow("iot:Publish"),
        PolicyArns=[{"arn": MANAGED}],
    )["Credentials"]
    caller = who(desk, narrowed)
    assert caller.allows("iot:Publish", "x") and not caller.allows("iot:Connect", "x")
    assert not caller.allows("lambda:GetFunction", "x")
    desk.call("PutRolePolicy", RoleName="r", PolicyName="in", PolicyDocument=allow("iot:*", effect="Deny"))
    assert not who(desk, narrowed).allows("iot:Publish", "x")


def test_boundaries_narrow(desk: Desk) -> None:
    create(desk, PermissionsBoundary=MANAGED)
    create(desk, "nothing", PermissionsBoundary="arn:aws:iam::aws:policy/Unknown")
    for name in ("r", "nothing"):
        desk.call("PutRolePolicy", RoleName=name, PolicyName="in", PolicyDocument=allow("*"))
    caller = who(desk, issue(desk.cloud, ROLE, "s", 900))
    assert caller.allows("lambda:GetFunction", "x") and not caller.allows("iot:Publish", "x")
    assert not who(desk, issue(desk.cloud, ROLE[:-1] + "nothing", "s", 900)).allows("lambda:GetFunction", "x")


def test_who_may_assume(desk: Desk) -> None:
    user = Principal(f"arn:aws:iam::{ACCOUNT}:user/u", "AKIAU", lambda *_: True)
    statement: dict[str, Any] = {"Effect": "Allow", "Principal": {"AWS": user.arn}, "Action": "sts:AssumeRole"}
    statement["Condition"] = {"StringEquals": {"sts:ExternalId": "secret"}}
    create(desk, AssumeRolePolicyDocument=orjson.dumps({"Version": "2012-10-17", "Statement": [statement]}).decode())
    given = {"RoleArn": ROLE, "RoleSessionName": "me"}
    assert desk.refused("AssumeRole", **given, ExternalId="secret").code == "AccessDenied"
    assert desk.refused("AssumeRole", **given, who=user).code == "AccessDenied"
    asked(desk, "AssumeRole", **given, ExternalId="secret", who=user)
    powerless = Principal(user.arn, "AKIAU", lambda *_: False)
    assert desk.refused("AssumeRole", **given, ExternalId="secret", who=powerless).code == "AccessDenied"
    assert desk.refused("AssumeRole", RoleArn=ROLE + "x", RoleSessionName="me").code == "AccessDenied"
    create(desk, "open")
    given["RoleArn"] = ROLE[:-1] + "open"
    assert "MaxSessionDuration" in desk.refused("AssumeRole", **given, DurationSeconds=7_200).message
    assert desk.refused("AssumeRole", **given, DurationSeconds=10).code == "ValidationError"
    assert desk.refused("AssumeRole", **given, Policy="{}").code == "MalformedPolicyDocument"
    few = [{"arn": f"arn:aws:iam::aws:policy/{hashlib.sha512(bytes([n])).hexdigest()}"} for n in range(10)]
    assert 1 <= asked(desk, "AssumeRole", **given, PolicyArns=few)["PackedPolicySize"] <= 100
    many = [{"arn": "arn:aws:iam::aws:policy/" + "/".join(noise(n * 10 + m) for m in range(9))} for n in range(10)]
    assert desk.refused("AssumeRole", **given, PolicyArns=many).code == "PackedPolicyTooLarge"


def noise(number: int) -> str:
    """Text that does not compress well."""
    return hashlib.sha512(bytes([number])).hexdigest()


def test_tokens_end_and_are_ours_alone(desk: Desk) -> None:
    create(desk)
    keys = issue(desk.cloud, ROLE, "s", 900)
    token = keys["SessionToken"]
    for wrong in ("", "x", token[:-8], token[:-5] + "AAAA=", "A" * 5_000, "ü", token + "\n"):
        with pytest.raises(TokenInvalid):
            open_token(desk.cloud, wrong)
    with pytest.raises(TokenInvalid, match="another access key"):
        open_token(desk.cloud, token, "ASIAOTHER")
    session = open_token(desk.cloud, token)
    desk.clock.now += 1
    desk.call("DeleteRole", RoleName="r")
    for again in (False, True):
        if again:
            create(desk)
        with pytest.raises(TokenInvalid, match="no longer there"):
            desk.look(lambda tx: principal_of(tx, desk.cloud, session))
    desk.clock.now += 900
    with pytest.raises(TokenExpired):
        open_token(desk.cloud, token)
    assert keys["SecretAccessKey"] not in token


def test_users(desk: Desk) -> None:
    cloud = desk.cloud
    key_id, _ = desk.change(
        lambda tx: make_key(tx, cloud.sealer, ACCOUNT, "anna", ADMINISTRATOR_POLICY, cloud.clock.wall())
    )
    anna = Principal(f"arn:aws:iam::{ACCOUNT}:user/anna", key_id, lambda *_: False)
    assert asked(desk, "GetCallerIdentity", who=anna)["Arn"] == anna.arn
    assert desk.refused("GetUser", who=anna).code == "AccessDenied"
    assert asked(desk, "GetUser", UserName="anna")["User"]["Arn"] == anna.arn
    assert asked(desk, "GetUser")["User"]["Arn"] == ADMINISTRATOR.arn
    assert desk.refused("GetUser", UserName="bob").code == "NoSuchEntity"
    keys = asked(desk, "GetSessionToken", who=anna, DurationSeconds=900)["Credentials"]
    caller = who(desk, keys)
    assert caller.arn == anna.arn and caller.allows("iot:Publish", "x")
    desk.change(lambda tx: delete_key(tx, ACCOUNT, key_id))
    with pytest.raises(TokenInvalid):
        who(desk, keys)


def test_keys_for_cores(desk: Desk) -> None:
    create(desk)
    keys = desk.look(lambda tx: role_credentials_for_core(tx, desk.cloud, ROLE, "my:core"))
    assert who(desk, keys).arn.endswith(":assumed-role/r/my-core") and keys["Expiration"].endswith("Z")
    condition = {
        "StringEquals": {"aws:SourceAccount": ACCOUNT},
        "ArnLike": {"aws:SourceArn": f"arn:aws:greengrass:*:{ACCOUNT}:*"},
    }
    statement = orjson.loads(TRUST)["Statement"][0] | {"Condition": condition}
    text = orjson.dumps({"Version": "2012-10-17", "Statement": statement}).decode()
    desk.call("UpdateAssumeRolePolicy", RoleName="r", PolicyDocument=text)
    group = f"arn:aws:greengrass:eu-west-1:{ACCOUNT}:/greengrass/groups/g"
    desk.look(lambda tx: role_credentials_for_core(tx, desk.cloud, ROLE, "c", group_arn=group))
    with pytest.raises(RoleRefused, match="does not trust"):
        desk.look(lambda tx: role_credentials_for_core(tx, desk.cloud, ROLE, "c", group_arn=group.replace("1", "2")))
    with pytest.raises(RoleRefused, match="is not there"):
        desk.look(lambda tx: role_credentials_for_core(tx, desk.cloud, ROLE + "x", "c"))
    assert desk.look(lambda tx: get_role(tx, ACCOUNT, ROLE.replace("role/", "role/x/"))) is None
