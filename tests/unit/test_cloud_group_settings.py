"""What belongs to groups and cores beside their versions: roles, CAs, connectivity, telemetry (cloud-api 4, 6)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud_desk import ACCOUNT, REGION, Desk
from cloud_greengrass import NOWHERE
from cloud_shapes_check import conforms
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ggfast.cloud.faults import Fault
from ggfast.cloud.greengrass import GREENGRASS
from ggfast.cloud.greengrass.authorities import (
    certificate_expiry,
    ensure_group_ca,
    group_ca_key,
    group_cas,
    prepare_group_ca,
)
from ggfast.cloud.greengrass.connectivity import connectivity_of
from ggfast.cloud.greengrass.roles import role_of_group, service_role
from ggfast.cloud.greengrass.runtime_configuration import runtime_configuration_of
from ggfast.cloud.limits import GROUP_CAS_MAX

HOME = f"{ACCOUNT}/{REGION}"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/service-role/Greengrass_ServiceRole"
NOW = "2026-09-21T14:13:20Z"  # the desk's clock, without a fraction


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path, GREENGRASS)
    yield desk
    desk.close()


def said(fault: Fault) -> tuple[int, str, str]:
    return fault.status, fault.code, fault.message


# --- roles -------------------------------------------------------------------------------------------


def test_the_role_of_a_group(desk: Desk) -> None:
    """Any id has one, also of a group that does not exist; taking away what is not there succeeds."""
    one = {"GroupId": NOWHERE}
    missing = (404, "", "You need to attach an IAM role to this deployment group.")
    assert said(desk.refused("GetAssociatedRole", **one)) == missing
    assert desk.call("DisassociateRoleFromGroup", **one) == {"DisassociatedAt": NOW}
    assert desk.call("AssociateRoleToGroup", **one, RoleArn=ROLE) == {"AssociatedAt": NOW}
    desk.clock.now += 60.7
    assert desk.call("GetAssociatedRole", **one) == {"AssociatedAt": NOW, "RoleArn": ROLE}
    assert desk.look(lambda tx: role_of_group(tx, HOME, NOWHERE)) == ROLE
    assert desk.look(lambda tx: role_of_group(tx, HOME, "other")) is None
    other = f"arn:aws:iam::{ACCOUNT}:role/r"
    assert desk.call("AssociateRoleToGroup", **one, RoleArn=other) == {"AssociatedAt": "2026-09-21T14:14:20Z"}
    assert desk.look(lambda tx: role_of_group(tx, HOME, NOWHERE)) == other
    desk.call("DisassociateRoleFromGroup", **one)
    assert said(desk.refused("GetAssociatedRole", **one)) == missing


def test_the_service_role(desk: Desk) -> None:
    """One per account and region."""
    assert desk.refused("GetServiceRoleForAccount").status == 404
    assert desk.call("DisassociateServiceRoleFromAccount") == {"DisassociatedAt": NOW}
    assert desk.call("AssociateServiceRoleToAccount", RoleArn=ROLE) == {"AssociatedAt": NOW}
    assert desk.call("GetServiceRoleForAccount") == {"AssociatedAt": NOW, "RoleArn": ROLE}
    assert desk.look(lambda tx: service_role(tx, HOME)) == ROLE
    assert desk.refused("GetServiceRoleForAccount", region="us-east-1").code == ""
    desk.call("DisassociateServiceRoleFromAccount")
    assert desk.look(lambda tx: service_role(tx, HOME)) is None


@pytest.mark.parametrize("wrong", ["", "role", f"{ROLE} ", f"{ROLE}\n", ROLE.replace("iam", "s3"), 1, None])
def test_roles_have_arns(desk: Desk, wrong: Any) -> None:
    """Nothing else is kept as one."""
    for operation, more in (("AssociateRoleToGroup", {"GroupId": NOWHERE}), ("AssociateServiceRoleToAccount", {})):
        assert desk.refused(operation, **more, RoleArn=wrong).code == "InvalidInputException"


# --- certificate authorities -------------------------------------------------------------------------


def test_cas_of_a_group(desk: Desk) -> None:
    """Made when asked for; asked again, the new one comes first and the old one stays; keys are sealed."""
    one = {"GroupId": desk.call("CreateGroup", Name="g")["Id"]}
    assert desk.call("ListGroupCertificateAuthorities", **one) == {"GroupCertificateAuthorities": []}
    first = desk.call("CreateGroupCertificateAuthority", **one)["GroupCertificateAuthorityArn"]
    prefix = f"arn:aws:greengrass:{REGION}:{ACCOUNT}:/greengrass/groups/{one['GroupId']}/certificateauthorities/"
    identifier = first.removeprefix(prefix)
    assert len(identifier) == 64 and int(identifier, 16)
    found = desk.call("GetGroupCertificateAuthority", **one, CertificateAuthorityId=identifier)
    conforms("greengrass", "GetGroupCertificateAuthority", found)
    assert found["GroupCertificateAuthorityArn"] == first and found["GroupCertificateAuthorityId"] == identifier
    certificate = x509.load_pem_x509_certificate(found["PemEncodedCertificate"].encode())
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca

    second = desk.call("CreateGroupCertificateAuthority", **one)["GroupCertificateAuthorityArn"]
    listed = desk.call("ListGroupCertificateAuthorities", **one)
    conforms("greengrass", "ListGroupCertificateAuthorities", listed)
    entries = listed["GroupCertificateAuthorities"]
    assert [entry["GroupCertificateAuthorityArn"] for entry in entries] == [second, first]
    cas = desk.look(lambda tx: group_cas(tx, HOME, one["GroupId"]))
    assert [ca["arn"] for ca in cas] == [second, first] and cas[1]["pem"] == found["PemEncodedCertificate"]
    newer = x509.load_pem_x509_certificate(cas[0]["pem"].encode())
    assert newer.subject != certificate.subject
    assert "PRIVATE" not in str(cas)
    key = load_pem_private_key(group_ca_key(desk.cloud, cas[1]).encode(), None)
    assert key.public_key() == certificate.public_key()

    text = f"Certificate authority x of Group Definition {one['GroupId']} does not exist."
    fault = desk.refused("GetGroupCertificateAuthority", **one, CertificateAuthorityId="x")
    assert said(fault) == (404, "IdNotFoundException", text)


def test_a_ca_that_was_not_needed_serves_another_group(desk: Desk) -> None:
    """A deployment makes one before it can know; a group that has one keeps it, and the next group gets the new."""
    groups = [desk.call("CreateGroup", Name="g")["Id"] for _ in range(2)]
    prepared = prepare_group_ca(desk.cloud, {})
    made = desk.change(lambda tx: ensure_group_ca(tx, desk.cloud, HOME, groups[0], prepared))
    assert made["id"] == prepared.id and made["pem"] == prepared.pem
    spare = prepare_group_ca(desk.cloud, {})
    assert desk.change(lambda tx: ensure_group_ca(tx, desk.cloud, HOME, groups[0], spare)) == made
    assert desk.refused("CreateGroupCertificateAuthority", GroupId=NOWHERE).status == 404
    arn = desk.call("CreateGroupCertificateAuthority", GroupId=groups[1])["GroupCertificateAuthorityArn"]
    assert arn.endswith(spare.id)


def test_the_oldest_cas_go(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Discovery gives all that are kept, so they are few."""
    assert GROUP_CAS_MAX == 5
    monkeypatch.setattr("ggfast.cloud.greengrass.authorities.GROUP_CAS_MAX", 2)
    one = {"GroupId": desk.call("CreateGroup", Name="g")["Id"]}
    made = [desk.call("CreateGroupCertificateAuthority", **one)["GroupCertificateAuthorityArn"] for _ in range(3)]
    assert [ca["arn"] for ca in desk.look(lambda tx: group_cas(tx, HOME, one["GroupId"]))] == made[:0:-1]
    assert desk.look(lambda tx: tx.count("group-ca", f"{HOME}/{one['GroupId']}")) == 2


def test_a_client_token_makes_one_ca(desk: Desk) -> None:
    """A repeated request is no rotation."""
    one = {"GroupId": desk.call("CreateGroup", Name="g")["Id"], "AmznClientToken": "t"}
    assert desk.call("CreateGroupCertificateAuthority", **one) == desk.call("CreateGroupCertificateAuthority", **one)
    assert desk.look(lambda tx: tx.count("group-ca", f"{HOME}/{one['GroupId']}")) == 1


def test_how_long_certificates_live(desk: Desk) -> None:
    """7 to 30 days, as numbers out, as numbers or texts in (cloud-api 6)."""
    group = desk.call("CreateGroup", Name="g")["Id"]
    before = desk.call("GetGroupCertificateConfiguration", GroupId=group)
    assert before["CertificateExpiryInMilliseconds"] == 604_800_000 and before["GroupId"] == group
    desk.call("CreateGroupCertificateAuthority", GroupId=group)
    ca = desk.look(lambda tx: group_cas(tx, HOME, group))[0]
    expiry = x509.load_pem_x509_certificate(ca["pem"].encode()).not_valid_after_utc.timestamp() * 1_000
    for given, kept in (("864000000", 864_000_000), (604_800_000, 604_800_000), ("2592000000", 2_592_000_000)):
        answer = desk.call("UpdateGroupCertificateConfiguration", GroupId=group, CertificateExpiryInMilliseconds=given)
        assert answer == {
            "CertificateAuthorityExpiryInMilliseconds": expiry,
            "CertificateExpiryInMilliseconds": kept,
            "GroupId": group,
        }
        assert desk.call("GetGroupCertificateConfiguration", GroupId=group) == answer
        assert desk.look(lambda tx: certificate_expiry(tx, HOME, group)) == kept


@pytest.mark.parametrize("wrong", [604_799_999, "2592000001", "", "-1", "7 days", 6e8, True, None, "9" * 400, 10**30])
def test_other_lives_are_refused(desk: Desk, wrong: Any) -> None:
    """The refusal says the bounds; also of a group that does not exist, the value comes first."""
    fault = desk.refused("UpdateGroupCertificateConfiguration", GroupId="g", CertificateExpiryInMilliseconds=wrong)
    assert fault.code == "InvalidInputException"
    assert "from 604800000 (7 days) to 2592000000 (30 days)" in fault.message
    right = {"GroupId": "g", "CertificateExpiryInMilliseconds": 604_800_000}
    assert desk.refused("UpdateGroupCertificateConfiguration", **right).status == 404


# --- cores -------------------------------------------------------------------------------------------


def address(identifier: str, host: str = "127.0.0.1", **more: Any) -> dict[str, Any]:
    return {"Id": identifier, "HostAddress": host, "PortNumber": 8883, "Metadata": "", **more}


def test_connectivity_is_replaced_as_a_whole(desk: Desk) -> None:
    """What was given comes back, in order; each update has a version of its own."""
    one = {"ThingName": "a:core_1"}
    assert desk.call("GetConnectivityInfo", **one) == {"ConnectivityInfo": []}
    entries = [address("AUTOIP_::1_0", "::1"), address("lan", "core.example"), {"HostAddress": "10.0.0.1"}]
    answer = desk.call("UpdateConnectivityInfo", **one, ConnectivityInfo=entries)
    conforms("greengrass", "UpdateConnectivityInfo", answer)
    assert list(answer) == ["Version"]
    found = desk.call("GetConnectivityInfo", **one)
    conforms("greengrass", "GetConnectivityInfo", found)
    assert found == {"ConnectivityInfo": entries}
    assert desk.look(lambda tx: connectivity_of(tx, HOME, "a:core_1")) == entries
    assert desk.call("UpdateConnectivityInfo", **one, ConnectivityInfo=[]) != answer
    assert desk.call("GetConnectivityInfo", **one) == {"ConnectivityInfo": []}


BAD_ADDRESSES: list[Any] = [
    None,
    {},
    [address("a", "")],
    [{"Id": "a"}],
    [address("a", PortNumber=0)],
    [address("a", PortNumber=65_536)],
    [address("a", PortNumber="8883")],
    [address("a", Metadata="x" * 1_025)],
    [address("a", Unknown=1)],
    [address("a", "h" * 256)],
    [address(str(number)) for number in range(101)],
]


@pytest.mark.parametrize("wrong", BAD_ADDRESSES)
def test_bad_connectivity_changes_nothing(desk: Desk, wrong: Any) -> None:
    """It is refused as a whole."""
    kept = [address("kept")]
    desk.call("UpdateConnectivityInfo", ThingName="t", ConnectivityInfo=kept)
    fault = desk.refused("UpdateConnectivityInfo", ThingName="t", ConnectivityInfo=wrong)
    assert (fault.status, fault.code) == (400, "InvalidInputException")
    assert desk.call("GetConnectivityInfo", ThingName="t") == {"ConnectivityInfo": kept}


def test_ids_of_addresses_are_unique(desk: Desk) -> None:
    """Two without an id are no repetition."""
    twice = [address("a"), address("b"), address("a", "10.0.0.1")]
    fault = desk.refused("UpdateConnectivityInfo", ThingName="t", ConnectivityInfo=twice)
    assert said(fault) == (400, "InvalidInputException", "ConnectivityInfo: 2 entries have the Id 'a', expected one.")
    bare = [{"HostAddress": "a"}, {"HostAddress": "b"}]
    assert desk.call("UpdateConnectivityInfo", ThingName="t", ConnectivityInfo=bare)["Version"]


@pytest.mark.parametrize("name", ["", "a/b", "..", "ü", "x" * 129, "a b"])
def test_names_of_things(desk: Desk, name: str) -> None:
    """What can be no thing's name is refused."""
    for operation in ("GetConnectivityInfo", "GetThingRuntimeConfiguration"):
        assert desk.refused(operation, ThingName=name).code == "InvalidInputException"


def test_telemetry_of_a_core(desk: Desk) -> None:
    """What was asked of it; no core says that it works so."""
    one = {"ThingName": "core"}
    assert said(desk.refused("GetThingRuntimeConfiguration", **one))[:2] == (404, "ResourceNotFoundException")
    assert desk.look(lambda tx: runtime_configuration_of(tx, HOME, "core")) is None
    assert desk.call("UpdateThingRuntimeConfiguration", **one, TelemetryConfiguration={"Telemetry": "On"}) == {}

    def found() -> Any:
        answer = desk.call("GetThingRuntimeConfiguration", **one)
        conforms("greengrass", "GetThingRuntimeConfiguration", answer)
        return answer["RuntimeConfiguration"]["TelemetryConfiguration"]

    assert found() == {"ConfigurationSyncStatus": "OutOfSync", "Telemetry": "On"}
    desk.call("UpdateThingRuntimeConfiguration", **one, TelemetryConfiguration={"Telemetry": "Off"})
    assert found() == {"ConfigurationSyncStatus": "OutOfSync", "Telemetry": "Off"}
    for wrong in (None, {}, {"Telemetry": "on"}, {"Telemetry": "On", "ConfigurationSyncStatus": "InSync"}):
        fault = desk.refused("UpdateThingRuntimeConfiguration", **one, TelemetryConfiguration=wrong)
        assert fault.code == "InvalidInputException"
