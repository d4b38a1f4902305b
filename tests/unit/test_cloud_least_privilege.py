"""What the holder of a key with a narrow policy must not reach: roles handed on, names written another way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from cloud_desk import ACCOUNT, REGION, Desk

from ggfast.cloud.credentials import issue, open_token
from ggfast.cloud.faults import Fault
from ggfast.cloud.operations import Principal
from ggfast.cloud.roles.principals import RoleRefused, principal_of, role_credentials_for_alias
from ggfast.cloud.roles.trust import trusts_service
from ggfast.cloud.services import all_services

ROLE = f"arn:aws:iam::{ACCOUNT}:role/strong"
ALIAS = f"arn:aws:iot:{REGION}:{ACCOUNT}:rolealias/a"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path, *all_services().values())
    yield desk
    desk.close()


def statement(action: Any, resource: Any = "*", effect: str = "Allow", **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


def policy(*statements: dict[str, Any]) -> str:
    return orjson.dumps({"Version": "2012-10-17", "Statement": list(statements)}).decode()


def trust(**principal: Any) -> str:
    return policy({"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"})


def holder(desk: Desk, *statements: dict[str, Any], role: str = "narrow") -> Principal:
    """Whoever holds keys of a role with these statements."""
    desk.call("CreateRole", RoleName=role, AssumeRolePolicyDocument=trust(AWS="*"))
    desk.call("PutRolePolicy", RoleName=role, PolicyName="p", PolicyDocument=policy(*statements))
    keys = issue(desk.cloud, f"arn:aws:iam::{ACCOUNT}:role/{role}", "s", 900)
    session = open_token(desk.cloud, keys["SessionToken"])
    return desk.look(lambda tx: principal_of(tx, desk.cloud, session))


HANDING_ON: list[tuple[str, str, dict[str, Any]]] = [
    ("greengrass", "AssociateRoleToGroup", {"GroupId": "g", "RoleArn": ROLE}),
    ("greengrass", "AssociateServiceRoleToAccount", {"RoleArn": ROLE}),
    ("iot", "CreateRoleAlias", {"roleAlias": "new", "roleArn": ROLE}),
    ("iot", "UpdateRoleAlias", {"roleAlias": "a", "roleArn": ROLE}),
]


@pytest.mark.parametrize(("service", "operation", "members"), HANDING_ON)
def test_a_role_is_handed_on_only_by_who_may_pass_it(
    desk: Desk, service: str, operation: str, members: dict[str, Any]
) -> None:
    desk.call("CreateRoleAlias", roleAlias="a", roleArn=f"{ROLE}-not")
    asking = {"service": service, **members}
    narrow = holder(desk, statement(["greengrass:*", "iot:*"]))
    fault = desk.refused(operation, who=narrow, **asking)
    assert (fault.code, fault.status) == ("AccessDeniedException", 403)
    assert "iam:PassRole" in fault.message and ROLE in fault.message
    other = holder(desk, statement(["greengrass:*", "iot:*"]), statement("iam:PassRole", f"{ROLE}-not"), role="other")
    assert desk.refused(operation, who=other, **asking).status == 403
    to = {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}}
    elsewhere = holder(
        desk, statement([f"{service}:*"]), statement("iam:PassRole", ROLE, Condition=to), role="elsewhere"
    )
    assert desk.refused(operation, who=elsewhere, **asking).status == 403
    to = {"StringEquals": {"iam:PassedToService": ["greengrass.amazonaws.com", "credentials.iot.amazonaws.com"]}}
    fit = holder(desk, statement([f"{service}:*"]), statement("iam:PassRole", ROLE, Condition=to), role="fit")
    desk.reply(operation, who=fit, **asking)


def test_a_role_alias_stays_changeable_without_passing_its_role_again(desk: Desk) -> None:
    desk.call("CreateRoleAlias", roleAlias="a", roleArn=ROLE)
    narrow = holder(desk, statement("iot:UpdateRoleAlias"))
    desk.reply("UpdateRoleAlias", who=narrow, roleAlias="a", credentialDurationSeconds=900)
    assert desk.call("DescribeRoleAlias", roleAlias="a")["roleAliasDescription"]["roleArn"] == ROLE


def test_a_role_alias_gives_keys_only_of_roles_that_trust_the_service_for_it(desk: Desk) -> None:
    def keys(seconds: float = 43_200) -> dict[str, str]:
        return desk.look(
            lambda tx: role_credentials_for_alias(tx, desk.cloud, ROLE, "c", alias_arn=ALIAS, seconds=seconds)
        )

    with pytest.raises(RoleRefused, match="not there"):
        keys()
    desk.call("CreateRole", RoleName="strong", AssumeRolePolicyDocument=trust(Service="greengrass.amazonaws.com"))
    with pytest.raises(RoleRefused, match="does not trust"):
        keys()
    document = orjson.loads(trust(Service="credentials.iot.amazonaws.com"))
    for alias, given in ((f"{ALIAS}b", False), (ALIAS, True)):
        document["Statement"][0]["Condition"] = {"ArnEquals": {"aws:SourceArn": alias}}
        text = orjson.dumps(document).decode()
        desk.call("UpdateAssumeRolePolicy", RoleName="strong", PolicyDocument=text)
        if given:
            session = open_token(desk.cloud, keys()["SessionToken"])
            assert session.role_arn == ROLE
            assert session.expires == desk.clock.now + 3_600, "not longer than the role's sessions may last"
        else:
            with pytest.raises(RoleRefused):
                keys()


def test_a_certificate_has_one_spelling_for_policies(desk: Desk) -> None:
    """Upper case leads to the same certificate, not around a Deny."""
    made = desk.call("CreateKeysAndCertificate", setAsActive=True)
    who = holder(desk, statement("iot:*"), statement("iot:*", made["certificateArn"], "Deny"))
    for operation, more in (
        ("DescribeCertificate", {}),
        ("UpdateCertificate", {"newStatus": "REVOKED"}),
        ("DeleteCertificate", {"forceDelete": True}),
    ):
        given = made["certificateId"].upper()
        assert desk.refused(operation, who=who, certificateId=given, **more).code == "AccessDeniedException"
    found = desk.call("DescribeCertificate", certificateId=made["certificateId"].upper())
    assert found["certificateDescription"]["status"] == "ACTIVE"


def assumable(desk: Desk, who: Principal, *statements: dict[str, Any]) -> bool:
    """Whether a caller may take a role with this trust policy."""
    name = "target"
    if "target" in str(desk.call("ListRoles")):
        desk.call("DeleteRole", RoleName=name)
    desk.call("CreateRole", RoleName=name, AssumeRolePolicyDocument=policy(*statements))
    asking = {"RoleArn": f"arn:aws:iam::{ACCOUNT}:role/{name}", "RoleSessionName": "me"}
    try:
        desk.call("AssumeRole", who=who, **asking)
    except Fault as fault:
        assert fault.code == "AccessDenied"
        return False
    return True


def test_a_trusted_role_is_the_one_with_its_path(desk: Desk) -> None:
    """Who may make roles below a path does not get at roles that trust one of the same name elsewhere."""
    who = holder(desk, statement("sts:AssumeRole"), role="plain")
    desk.call("CreateRole", RoleName="ops", Path="/dev/", AssumeRolePolicyDocument=trust(AWS="*"))
    desk.call("PutRolePolicy", RoleName="ops", PolicyName="p", PolicyDocument=policy(statement("sts:AssumeRole")))
    keys = issue(desk.cloud, f"arn:aws:iam::{ACCOUNT}:role/dev/ops", "s", 900)
    session = open_token(desk.cloud, keys["SessionToken"])
    below = desk.look(lambda tx: principal_of(tx, desk.cloud, session))
    take = {"Effect": "Allow", "Action": "sts:AssumeRole"}
    plain, gone, path = (f"arn:aws:iam::{ACCOUNT}:role/{name}" for name in ("plain", "ops", "dev/ops"))
    for caller, named, expected in (
        (who, plain, True),
        (who, path, False),
        (below, path, True),
        (below, gone, False),
        (below, f"arn:aws:sts::{ACCOUNT}:assumed-role/ops/s", True),
        (below, f"arn:aws:iam::{ACCOUNT}:root", True),
    ):
        assert assumable(desk, caller, take | {"Principal": {"AWS": named}}) is expected, named
        condition = {"ArnEquals": {"aws:PrincipalArn": named}}
        everybody = take | {"Principal": "*"}
        if ":role/" in named:
            assert assumable(desk, caller, everybody | {"Condition": condition}) is expected
            denied = everybody | {"Effect": "Deny", "Condition": condition}
            assert assumable(desk, caller, everybody, denied) is not expected


def test_a_deny_for_everybody_is_one_for_services_too(desk: Desk) -> None:
    take = {"Effect": "Allow", "Action": "sts:AssumeRole"}
    service = {"Principal": {"Service": "greengrass.amazonaws.com"}}
    deny = {"Effect": "Deny", "Action": "sts:AssumeRole", "Principal": "*"}
    for statements, trusted in (
        ([take | service], True),
        ([take | {"Principal": "*"}], False),
        ([take | service, deny], False),
    ):
        role = {"arn": ROLE, "trust": policy(*statements)}
        assert trusts_service(role, "greengrass.amazonaws.com", {}) is trusted
