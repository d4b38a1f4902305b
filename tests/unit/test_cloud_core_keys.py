"""Keys that cores and devices get: whose role must trust whom, and keys that a configured command prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cloud_desk import ACCOUNT, REGION, Desk

from ggfast.cloud.credentials import open_token
from ggfast.cloud.devices.cores import Cores
from ggfast.cloud.devices.identity import Identity, load
from ggfast.cloud.devices.routing import Asked
from ggfast.cloud.faults import Fault
from ggfast.cloud.greengrass import GREENGRASS
from ggfast.cloud.handed_through import HandedThrough
from ggfast.cloud.iot import IOT
from ggfast.cloud.protocols import Request
from ggfast.cloud.roles import IAM

GROUPS = f"arn:aws:greengrass:{REGION}:{ACCOUNT}:/greengrass/groups"
PRINTED = {"Version": 1, "AccessKeyId": "ASIAREAL", "SecretAccessKey": "s3same", "SessionToken": "token"}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path, IOT, GREENGRASS, IAM)
    yield made
    made.close()


class Core:
    """A core, the group it is in, and what it is answered."""

    def __init__(self, desk: Desk, command: Sequence[str] = ()) -> None:
        self.desk = desk
        thing = desk.call("CreateThing", service="iot", thingName="gateway")
        made = desk.call("CreateKeysAndCertificate", setAsActive=True)
        self.certificate = made["certificateId"]
        desk.call("AttachThingPrincipal", thingName="gateway", principal=made["certificateArn"])
        statement = {"Effect": "Allow", "Action": ["greengrass:*", "iot:*"], "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": statement})
        desk.call("CreatePolicy", service="iot", policyName="all", policyDocument=policy)
        desk.call("AttachPolicy", policyName="all", target=made["certificateArn"])
        entry = {"CertificateArn": made["certificateArn"], "Id": "c", "ThingArn": thing["thingArn"]}
        cores = desk.call("CreateCoreDefinition", InitialVersion={"Cores": [entry]})
        version = {"CoreDefinitionVersionArn": cores["LatestVersionArn"]}
        self.group = desk.call("CreateGroup", service="greengrass", Name="g", InitialVersion=version)["Id"]
        keys = HandedThrough(command, desk.clock) if command else None
        self._cores = Cores(replace(desk.cloud, group_keys=keys), desk.store)

    def role(self, name: str, service: str, condition: Mapping[str, Any] | None = None) -> str:
        """A role that a service may take."""
        trust: dict[str, Any] = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": service}}
        trust |= {"Condition": condition} if condition else {}
        text = json.dumps({"Version": "2012-10-17", "Statement": trust})
        return str(self.desk.call("CreateRole", RoleName=name, AssumeRolePolicyDocument=text)["Role"]["Arn"])

    def use(self, role: str) -> None:
        """Let the group have it."""
        self.desk.call("AssociateRoleToGroup", GroupId=self.group, RoleArn=role)

    def _asked(self, params: Mapping[str, str]) -> Asked:
        identity = self.desk.look(lambda tx: load(tx, self.certificate))
        assert identity is not None

        async def identify(_certificate_id: str) -> Identity:
            raise AssertionError("nobody waits here")

        return Asked(identity, Request("GET", "/", "", {}), params, identify)

    def of_group(self) -> dict[str, str]:
        """Keys of the group's role. Raises Fault."""
        reply = self.desk.runner.run(self._cores.group_credentials(self._asked({"GroupId": self.group})))
        return dict(reply.members["credentials"])

    def of_alias(self, alias: str) -> dict[str, str]:
        """Keys of a role alias. Raises Fault."""
        reply = self.desk.runner.run(self._cores.alias_credentials(self._asked({"Alias": alias})))
        return dict(reply.members["credentials"])


def printing(folder: Path, *, status: int = 0) -> list[str]:
    """A command that notes that it was run, prints keys and ends with a status."""
    runs = f"open({str(folder / 'runs')!r}, 'a').write('x')"
    return [sys.executable, "-S", "-c", f"{runs}; print({json.dumps(PRINTED)!r}); raise SystemExit({status})"]


def test_conditions_on_the_group_hold(desk: Desk) -> None:
    core = Core(desk)
    source = {"ArnLike": {"aws:SourceArn": f"{GROUPS}/{core.group}"}}
    core.use(core.role("this-group", "greengrass.amazonaws.com", source))
    keys = core.of_group()
    session = open_token(desk.cloud, keys["sessionToken"], keys["accessKeyId"])
    assert session.role_arn.endswith(":role/this-group") and session.session_name == "gateway"
    other = {"ArnLike": {"aws:SourceArn": f"{GROUPS}/other"}}
    core.use(core.role("other-group", "greengrass.amazonaws.com", other))
    with pytest.raises(Fault) as refused:
        core.of_group()
    assert refused.value.status == 403 and "does not trust greengrass.amazonaws.com" in refused.value.message


def test_a_role_aliass_role_trusts_the_service_that_gives_keys_to_devices(desk: Desk) -> None:
    core = Core(desk)
    for name, service in (("good", "credentials.iot.amazonaws.com"), ("bad", "lambda.amazonaws.com")):
        desk.call("CreateRoleAlias", roleAlias=name, roleArn=core.role(name, service))
    keys = core.of_alias("good")
    assert open_token(desk.cloud, keys["sessionToken"]).role_arn.endswith(":role/good")
    with pytest.raises(Fault) as refused:
        core.of_alias("bad")
    assert refused.value.status == 403 and "does not trust credentials.iot" in refused.value.message


def test_keys_of_a_command_are_handed_through_to_groups_with_a_role_and_to_nobody_else(
    desk: Desk, tmp_path: Path
) -> None:
    core = Core(desk, printing(tmp_path))
    with pytest.raises(Fault) as refused:
        core.of_group()
    assert refused.value.status == 404 and not (tmp_path / "runs").exists()
    core.use("arn:aws:iam::210987654321:role/in-another-account")
    keys = core.of_group()
    assert (keys["accessKeyId"], keys["secretAccessKey"], keys["sessionToken"]) == ("ASIAREAL", "s3same", "token")
    assert core.of_group() == keys
    desk.call("CreateRoleAlias", roleAlias="own", roleArn=core.role("own", "credentials.iot.amazonaws.com"))
    assert core.of_alias("own")["accessKeyId"] != "ASIAREAL"
    assert (tmp_path / "runs").read_text() == "x"


def test_a_command_that_fails_is_told_to_the_log_and_not_to_the_core(
    desk: Desk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    core = Core(desk, printing(tmp_path, status=3))
    core.use("arn:aws:iam::210987654321:role/in-another-account")
    with pytest.raises(Fault) as refused:
        core.of_group()
    assert (refused.value.status, refused.value.code) == (503, "ServiceUnavailableException")
    assert "status 3" in caplog.text and core.group in caplog.text
    for text in (caplog.text, refused.value.message):
        assert "s3same" not in text and str(tmp_path) not in text
