"""Every operation of the Greengrass API once, in an order in which each succeeds.

`walk` is given a function that calls one operation with its members, so that the same way is gone through handlers
alone and through an unmodified client.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cloud_greengrass import CONTENTS, PATHS

Caller = Callable[..., dict[str, Any]]


def walk(call: Caller, core: dict[str, Any], account: str) -> None:
    """`core` is the entry of a thing with a certificate, for a core definition."""
    role = {"RoleArn": f"arn:aws:iam::{account}:role/r"}
    call("AssociateServiceRoleToAccount", **role)
    assert call("GetServiceRoleForAccount")["RoleArn"] == role["RoleArn"]
    definitions = {kind: _definition(call, kind, core) for kind in PATHS}
    group = _group(call, definitions)
    _settings(call, group, role)
    _core(call, core["ThingArn"].rpartition("/")[2])
    # What the other kinds refer to (functions, secrets) is not there: only the core is deployed.
    version = call("CreateGroupVersion", **group, CoreDefinitionVersionArn=definitions["Core"]["LatestVersionArn"])
    _deployments(call, group, version["Version"])
    _bulk(call, account)
    call(
        "CreateSoftwareUpdateJob",
        S3UrlSignerRole=role["RoleArn"],
        SoftwareToUpdate="core",
        UpdateAgentLogLevel="ERROR",
        UpdateTargets=[core["ThingArn"]],
        UpdateTargetsArchitecture="armv7l",
        UpdateTargetsOperatingSystem="raspbian",
    )
    for kind, made in definitions.items():
        call(f"Delete{kind}Definition", **{f"{kind}DefinitionId": made["Id"]})
    call("DisassociateRoleFromGroup", **group)
    call("DeleteGroup", **group)
    call("DisassociateServiceRoleFromAccount")


def _definition(call: Caller, kind: str, core: dict[str, Any]) -> dict[str, Any]:
    name, content = f"{kind}Definition", {"Cores": [core]} if kind == "Core" else CONTENTS[kind]
    one = {f"{name}Id": call(f"Create{name}", Name="n", InitialVersion=content, tags={"a": "b"})["Id"]}
    version = call(f"Create{name}Version", **one, **content)
    assert call(f"List{name}Versions", **one)["Versions"][0] == version
    found = call(f"Get{name}Version", **one, **{f"{name}VersionId": version["Version"]})
    assert found["Definition"] == content
    call(f"Update{name}", **one, Name="m")
    assert one[f"{name}Id"] in [entry["Id"] for entry in call(f"List{name}s", MaxResults="250")["Definitions"]]
    made = call(f"Get{name}", **one)
    assert (made["Name"], made["tags"], made["LatestVersion"]) == ("m", {"a": "b"}, version["Version"])
    return made


def _group(call: Caller, definitions: dict[str, dict[str, Any]]) -> dict[str, str]:
    references = {f"{kind}DefinitionVersionArn": made["LatestVersionArn"] for kind, made in definitions.items()}
    made = call("CreateGroup", Name="g", InitialVersion=references, tags={"a": "b"})
    group = {"GroupId": made["Id"]}
    version = call("GetGroupVersion", **group, GroupVersionId=made["LatestVersion"])
    assert version["Definition"] == references
    assert len(call("ListGroupVersions", **group)["Versions"]) == 1
    call("UpdateGroup", **group, Name="h")
    assert made["Id"] in [entry["Id"] for entry in call("ListGroups", MaxResults="250")["Groups"]]
    found = call("GetGroup", **group)
    assert found["Name"] == "h"
    for arn in (found["Arn"], definitions["Device"]["Arn"]):
        call("TagResource", ResourceArn=arn, tags={"c": "d"})
        call("UntagResource", ResourceArn=arn, TagKeys=["a", "x"])
        assert call("ListTagsForResource", ResourceArn=arn)["tags"] == {"c": "d"}
    return group


def _settings(call: Caller, group: dict[str, str], role: dict[str, str]) -> None:
    call("AssociateRoleToGroup", **group, **role)
    assert call("GetAssociatedRole", **group)["RoleArn"] == role["RoleArn"]
    arn = call("CreateGroupCertificateAuthority", **group)["GroupCertificateAuthorityArn"]
    listed = call("ListGroupCertificateAuthorities", **group)["GroupCertificateAuthorities"]
    assert [entry["GroupCertificateAuthorityArn"] for entry in listed] == [arn]
    ca = call("GetGroupCertificateAuthority", **group, CertificateAuthorityId=listed[0]["GroupCertificateAuthorityId"])
    assert ca["PemEncodedCertificate"].startswith("-----BEGIN CERTIFICATE-----\n")
    call("UpdateGroupCertificateConfiguration", **group, CertificateExpiryInMilliseconds="864000000")
    assert call("GetGroupCertificateConfiguration", **group)["CertificateExpiryInMilliseconds"] == 864_000_000


def _core(call: Caller, thing: str) -> None:
    one = {"ThingName": thing}
    entries = [{"Id": "lan", "HostAddress": "192.168.1.3", "PortNumber": 8883, "Metadata": ""}]
    assert call("UpdateConnectivityInfo", **one, ConnectivityInfo=entries)["Version"]
    assert call("GetConnectivityInfo", **one)["ConnectivityInfo"] == entries
    call("UpdateThingRuntimeConfiguration", **one, TelemetryConfiguration={"Telemetry": "On"})
    found = call("GetThingRuntimeConfiguration", **one)["RuntimeConfiguration"]
    assert found == {"TelemetryConfiguration": {"ConfigurationSyncStatus": "OutOfSync", "Telemetry": "On"}}


def _deployments(call: Caller, group: dict[str, str], version: str) -> None:
    started = call("CreateDeployment", **group, DeploymentType="NewDeployment", GroupVersionId=version)
    status = call("GetDeploymentStatus", **group, DeploymentId=started["DeploymentId"])
    assert (status["DeploymentStatus"], status["DeploymentType"]) == ("InProgress", "NewDeployment")
    reset = call("ResetDeployments", **group, Force=True)
    listed = call("ListDeployments", **group)["Deployments"]
    assert [entry["DeploymentId"] for entry in listed] == [started["DeploymentId"], reset["DeploymentId"]]


def _bulk(call: Caller, account: str) -> None:
    line = '{"GroupId": "g", "GroupVersionId": "v", "DeploymentType": "NewDeployment"}'
    asked = {"ExecutionRoleArn": f"arn:aws:iam::{account}:role/r", "InputFileUri": f"data:,{line}"}
    one = {"BulkDeploymentId": call("StartBulkDeployment", **asked, tags={"a": "b"})["BulkDeploymentId"]}
    call("StopBulkDeployment", **one)
    assert call("GetBulkDeploymentStatus", **one)["tags"] == {"a": "b"}
    assert isinstance(call("ListBulkDeploymentDetailedReports", **one)["Deployments"], list)
    listed = call("ListBulkDeployments")["BulkDeployments"]
    assert one["BulkDeploymentId"] in [entry["BulkDeploymentId"] for entry in listed]
