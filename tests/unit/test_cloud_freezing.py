"""What a deployment freezes: the core's own reader takes it, and every reason against it is named."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from cloud_desk import ACCOUNT, REGION
from cloud_fleet import HOME, Fleet, certificate, desk_for, package

from ggfast.arns import IP_DETECTOR_ARN, SPOOLER_ARN
from ggfast.cloud.deploy.objects import find_object, register_object
from ggfast.fields import Problems
from ggfast.group.document import Group, Permission, S3Model, Secret
from ggfast.group.ondisk import read_deployed
from ggfast.group.validate import GroupRules, validate

INVALID = "We cannot deploy because the group definition is invalid or corrupted for the following reasons: "
PATHS = {
    kind: kind for kind in ("Cores", "Devices", "Functions", "Subscriptions", "Resources", "Loggers", "DefaultConfig")
}
VOLUME = {
    "Id": "v1",
    "Name": "data",
    "ResourceDataContainer": {
        "LocalVolumeResourceData": {
            "SourcePath": "/srv/data",
            "DestinationPath": "/data",
            "GroupOwnerSetting": {"AutoAddGroupOwner": True},
        }
    },
}
DEVICE = {
    "Id": "d1",
    "Name": "camera",
    "ResourceDataContainer": {"LocalDeviceResourceData": {"SourcePath": "/dev/video0"}},
}


def model(address: str, member: str = "S3MachineLearningModelResourceData", key: str = "S3Uri") -> dict[str, Any]:
    return {
        "Id": "m1",
        "Name": "model",
        "ResourceDataContainer": {
            member: {
                key: address,
                "DestinationPath": "/ml/model",
                "OwnerSetting": {"GroupOwner": "ml-users", "GroupPermission": "ro"},
            }
        },
    }


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    desk = desk_for(tmp_path)
    yield Fleet(desk)
    desk.close()


def read(fleet: Fleet) -> Group:
    """The core's reader takes the document, and its judge finds nothing."""
    group = read_deployed(orjson.dumps(fleet.fetched()["document"]))
    problems = Problems()
    validate(group, GroupRules(at_core=False), problems, PATHS)
    assert list(problems) == []
    return group


def failure(fleet: Fleet, **members: Any) -> dict[str, Any]:
    """The status of a deployment that fails while it is built; nothing reaches the core."""
    status = fleet.status(fleet.deploy(fleet.group(**members)))
    assert status["DeploymentStatus"] == "Failure"
    assert status["ErrorMessage"].startswith(INVALID + "{ErrorSet(errorSet=[ErrorModel(errorCode=")
    with pytest.raises(AssertionError):
        fleet.fetched()
    return status


def reasons(status: dict[str, Any]) -> list[str]:
    return [detail["DetailedErrorMessage"] for detail in status["ErrorDetails"]]


def test_the_core_reads_back_what_was_frozen(fleet: Fleet) -> None:
    lamp = fleet.thing("lamp", SyncShadow=True)
    secret, _ = fleet.secret("s1", ("OLD",))
    hello = fleet.function("hello", MemorySize=32_768, Timeout=10)
    hello["FunctionConfiguration"]["Environment"] = {
        "Variables": {"A": "1"},
        "ResourceAccessPolicies": [
            {"ResourceId": "v1", "Permission": "rw"},
            {"ResourceId": "d1", "Permission": "ro"},
            {"ResourceId": "m1", "Permission": "ro"},
            {"ResourceId": "s1", "Permission": "ro"},
        ],
    }
    content = b"a model"
    digest = fleet.desk.cloud.artifacts.keep(content)
    fleet.desk.change(lambda tx: register_object(tx, HOME, "s3://models/m.zip", digest, len(content)))
    detector = {"Id": "ip", "FunctionArn": IP_DETECTOR_ARN, "FunctionConfiguration": {"Pinned": True}}
    spooler = {
        "Id": "spool",
        "FunctionArn": SPOOLER_ARN,
        "FunctionConfiguration": {
            "Pinned": True,
            "Executable": "spooler",
            "Environment": {"Variables": {"GG_CONFIG_STORAGE_TYPE": "FileSystem"}},
        },
    }
    alias = hello["FunctionArn"]
    group = fleet.group(
        "home",
        Devices=[lamp],
        Functions=[hello, detector, spooler],
        DefaultConfig={"Execution": {"IsolationMode": "GreengrassContainer", "RunAs": {"Uid": 1_001}}},
        Subscriptions=[
            {"Id": "a", "Source": lamp["ThingArn"], "Subject": "lamp/+", "Target": alias},
            {"Id": "b", "Source": alias, "Subject": "out/#", "Target": "cloud"},
            {"Id": "c", "Source": "GGShadowService", "Subject": "$aws/x", "Target": lamp["ThingArn"]},
        ],
        Resources=[VOLUME, DEVICE, secret, model("https://s3-eu-west-1.amazonaws.com/models/m.zip")],
        Loggers=[{"Id": "l", "Type": "FileSystem", "Component": "Lambda", "Level": "DEBUG", "Space": 256}],
    )
    started = fleet.deploy(group)
    assert fleet.status(started)["DeploymentStatus"] == "InProgress"
    found = read(fleet)
    function = found.function(alias.replace(":prod", ":1"))
    assert function is not None
    zipped = base64.b64decode(package("hello 1"))
    assert (function.handler, function.runtime) == ("main.handler", "python3.7")
    assert (function.code_digest, function.code_bytes) == (hashlib.sha256(zipped).hexdigest(), len(zipped))
    assert (function.configuration.timeout_s, dict(function.configuration.variables)) == (10, {"A": "1"})
    assert (found.group_id, found.version_id, found.name) == (group["GroupId"], group["GroupVersionId"], "home")
    assert (found.region, found.account) == (REGION, ACCOUNT)
    assert found.core is not None and found.core.thing_name == "core1"
    assert found.devices[0].sync_shadow
    assert found.default_execution.run_as.uid == 1_001
    assert {entry.arn for entry in found.functions} == {function.arn, IP_DETECTOR_ARN, SPOOLER_ARN}
    ends = [(entry.source, entry.target) for entry in found.subscriptions]
    assert ends[:2] == [(lamp["ThingArn"], function.arn), (function.arn, "cloud")]
    by_id = {resource.id: resource.data for resource in found.resources}
    assert isinstance(by_id["m1"], S3Model) and by_id["m1"].digest == digest
    assert by_id["m1"].owner is not None and by_id["m1"].owner.permission is Permission.RO
    secret_arn = secret["ResourceDataContainer"]["SecretsManagerSecretResourceData"]["ARN"]
    assert by_id["s1"] == Secret(secret_arn, ("OLD",))
    assert found.loggers[0].space_kb == 256


def test_artifacts_and_what_the_agent_needs_lie_beside_the_group(fleet: Fleet) -> None:
    lamp, old = fleet.thing("lamp"), fleet.thing("old-lamp")
    secret, version = fleet.secret("s1", ("OLD",))
    fleet.desk.call("UpdateCertificate", certificateId=old["CertificateArn"].rpartition("/")[2], newStatus="REVOKED")
    address = {"Id": "1", "HostAddress": "192.168.1.5", "PortNumber": 8883, "Metadata": ""}
    fleet.desk.call("UpdateConnectivityInfo", ThingName="core1", ConnectivityInfo=[address])
    group = fleet.group(Devices=[lamp, old], Functions=[fleet.function("hello")], Resources=[secret])
    fleet.desk.call(
        "UpdateGroupCertificateConfiguration", GroupId=group["GroupId"], CertificateExpiryInMilliseconds="2592000000"
    )
    fleet.deploy(group)
    found = fleet.fetched()
    document = found["document"]
    zipped = base64.b64decode(package("hello 1"))
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:hello:1"
    digest = hashlib.sha256(zipped).hexdigest()
    assert found["artifacts"] == [{"kind": "function", "name": arn, "digest": digest, "size": len(zipped)}]
    assert fleet.desk.cloud.artifacts.read(digest) == zipped
    good, revoked = document["DeviceCertificates"]
    assert good == {
        "CertificateId": lamp["CertificateArn"].rpartition("/")[2],
        "Status": "ACTIVE",
        "CertificatePem": certificate("lamp"),
    }
    assert revoked == {"CertificateId": old["CertificateArn"].rpartition("/")[2], "Status": "REVOKED"}
    assert document["ConnectivityInfo"] == [address]
    assert document["CertificateExpiryInMilliseconds"] == 2_592_000_000
    [authority] = document["GroupCertificateAuthorities"]
    assert authority.startswith("-----BEGIN CERTIFICATE-----")
    secret_arn = secret["ResourceDataContainer"]["SecretsManagerSecretResourceData"]["ARN"]
    versions = {"AWSCURRENT": version, "OLD": version}
    assert document["Secrets"] == [{"ResourceId": "s1", "ARN": secret_arn, "Versions": versions}]
    assert "hidden" not in str(found)


def test_a_deployment_makes_one_group_ca_and_keeps_it(fleet: Fleet) -> None:
    group = fleet.group()
    listed = "GroupCertificateAuthorities"
    assert fleet.desk.call("ListGroupCertificateAuthorities", GroupId=group["GroupId"])[listed] == []
    first = fleet.deploy(group)
    before = fleet.fetched()["document"][listed]
    fleet.core_says(first, "Success")
    fleet.deploy(group)
    assert fleet.fetched()["document"][listed] == before
    assert len(fleet.desk.call("ListGroupCertificateAuthorities", GroupId=group["GroupId"])[listed]) == 1


def test_latest_is_refused_with_the_functions_name_row_15(fleet: Fleet) -> None:
    plain = fleet.function("plain")
    plain["FunctionArn"] = plain["FunctionArn"].replace(":prod", ":$LATEST")
    assert "$LATEST cannot be deployed" in reasons(failure(fleet, Functions=[plain]))[0]
    assert plain["FunctionArn"] in reasons(failure(fleet, Functions=[plain]))[0]


def test_an_alias_of_latest_is_refused_with_its_name_row_15(fleet: Fleet) -> None:
    entry = fleet.function("hello")
    made = fleet.desk.call("CreateAlias", FunctionName="hello", Name="edge", FunctionVersion="$LATEST")
    entry["FunctionArn"] = made["AliasArn"]
    [text] = reasons(failure(fleet, Functions=[entry]))
    assert made["AliasArn"] in text and "this one leads to $LATEST" in text


@pytest.mark.parametrize("end", [":9", ":gone", ""])
def test_a_function_that_is_not_there_is_named(fleet: Fleet, end: str) -> None:
    entry = fleet.function("hello")
    entry["FunctionArn"] = entry["FunctionArn"].replace(":prod", end)
    [text] = reasons(failure(fleet, Functions=[entry]))
    assert entry["FunctionArn"] in text and text.startswith("Functions[0].FunctionArn: found ")


def test_a_function_of_another_region_is_not_there(fleet: Fleet) -> None:
    entry = fleet.function("hello")
    entry["FunctionArn"] = entry["FunctionArn"].replace(REGION, "us-east-1")
    [text] = reasons(failure(fleet, Functions=[entry]))
    assert f"exists in {REGION} of {ACCOUNT}" in text


def test_two_aliases_of_one_version_are_one_function_too_many(fleet: Fleet) -> None:
    entry = fleet.function("hello")
    other = fleet.desk.call("CreateAlias", FunctionName="hello", Name="test", FunctionVersion="1")
    found = reasons(failure(fleet, Functions=[entry, {"Id": "other", "FunctionArn": other["AliasArn"]}]))
    assert found == [
        (
            f'Functions[1].FunctionArn: found "{entry["FunctionArn"].replace(":prod", ":1")}", expected another one: '
            "Functions[0] has it already"
        )
    ]


def test_subscriptions_use_the_qualifier_that_the_function_has(fleet: Fleet) -> None:
    entry = fleet.function("hello")
    source = entry["FunctionArn"].replace(":prod", ":1")
    subscription = {"Id": "s", "Source": source, "Subject": "a", "Target": "cloud"}
    status = failure(fleet, Functions=[entry], Subscriptions=[subscription])
    assert reasons(status) == [f"Subscription source is invalid. ID is 's' and Source is '{source}'"]
    assert status["ErrorDetails"][0]["DetailedErrorCode"] == "SUBSCRIPTION_INVALID_ERROR"


def access(resource: str, permission: str | None) -> dict[str, Any]:
    policy = {"ResourceId": resource} | ({"Permission": permission} if permission else {})
    return {"ResourceAccessPolicies": [policy]}


NO_CONTAINER = {"Execution": {"IsolationMode": "NoContainer"}}


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"MemorySize": 16_384, "Environment": NO_CONTAINER}, ("MemorySize configuration for function with arn {arn} "
         "is not allowed in IsolationMode=NoContainer.")),
        ({"Environment": {**NO_CONTAINER, "AccessSysfs": True}}, ("Access Sysfs configuration for function with arn "
         "{arn} is not allowed in IsolationMode=NoContainer.")),
        ({"Environment": NO_CONTAINER | access("v1", "rw")}, ("Function {arn} refers to resource of type Local.Volume "
         "that is not allowed in IsolationMode=NoContainer.")),
        ({"Environment": NO_CONTAINER | access("d1", "rw")}, ("Function {arn} refers to resource of type Local.Device "
         "that is not allowed in IsolationMode=NoContainer.")),
        ({"Environment": NO_CONTAINER | access("m1", "ro")}, ("NoContainer function cannot configure permission when "
         "attaching Machine Learning resources. {arn} refers to Machine Learnin resource m1 with permission ro in "
         "resource access policy.")),
        ({"Environment": access("m1", "rw")}, ('Function {arn} refers to Machine Learning resource m1 with permission '
         '"rw", while resource owner setting GroupPermission only allows "ro".')),
    ],
)  # fmt: skip
def test_isolation_rules_refuse_in_the_known_words(fleet: Fleet, settings: dict[str, Any], text: str) -> None:
    digest = fleet.desk.cloud.artifacts.keep(b"m")
    fleet.desk.change(lambda tx: register_object(tx, HOME, "s3://models/m.zip", digest, 1))
    entry = fleet.function("hello", **settings)
    status = failure(fleet, Functions=[entry], Resources=[VOLUME, DEVICE, model("s3://models/m.zip")])
    assert reasons(status) == [text.format(arn=entry["FunctionArn"])]
    assert f"errorMsg={text.format(arn=entry['FunctionArn'])})])}}" in status["ErrorMessage"]


def test_containers_in_a_group_without_need_their_memory_said(fleet: Fleet) -> None:
    entry = fleet.function("hello", Environment={"Execution": {"IsolationMode": "GreengrassContainer"}})
    status = failure(fleet, Functions=[entry], DefaultConfig={"Execution": {"IsolationMode": "NoContainer"}})
    text = f"MemorySize configuration for function with arn {entry['FunctionArn']} is required in "
    assert reasons(status) == [text + "IsolationMode=GreengrassContainer."]


def test_system_entries_have_no_execution(fleet: Fleet) -> None:
    settings = {"Pinned": True, "Environment": NO_CONTAINER}
    entry = {"Id": "ip", "FunctionArn": IP_DETECTOR_ARN, "FunctionConfiguration": settings}
    text = f"Execution configuration for function with arn {IP_DETECTOR_ARN} is not allowed."
    assert reasons(failure(fleet, Functions=[entry])) == [text]


def test_a_model_that_was_never_registered_is_named(fleet: Fleet) -> None:
    status = failure(fleet, Resources=[model("s3://nobody/has-it.zip")])
    text = 'The group refers to a resource m1 with nonexistent S3 object "s3://nobody/has-it.zip". '
    text += "Register the model's .zip or .tar.gz under this address and deploy again."
    assert reasons(status) == [text]


def test_secrets_must_be_there_with_their_labels(fleet: Fleet) -> None:
    secret, _ = fleet.secret()
    data = secret["ResourceDataContainer"]["SecretsManagerSecretResourceData"]
    data["AdditionalStagingLabelsToDownload"] = ["OLD"]
    [text] = reasons(failure(fleet, Resources=[secret]))
    assert 'found "OLD", expected staging labels of' in text and text.endswith("AWSCURRENT")
    fleet.desk.call("DeleteSecret", SecretId=data["ARN"], RecoveryWindowInDays=7)
    [text] = reasons(failure(fleet, Resources=[secret]))
    assert data["ARN"] in text and "is not being deleted" in text
    fleet.desk.clock.now += 8 * 86_400
    assert len(reasons(failure(fleet, Resources=[secret]))) == 1


def test_a_training_jobs_model_is_found_by_its_arn(fleet: Fleet) -> None:
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/squeeze"
    digest = fleet.desk.cloud.artifacts.keep(b"job")
    fleet.desk.change(lambda tx: register_object(tx, HOME, arn, digest, 3))
    resource = model(arn, "SageMakerMachineLearningModelResourceData", "SageMakerJobArn")
    fleet.deploy(fleet.group(Resources=[resource]))
    assert fleet.fetched()["artifacts"] == [{"kind": "model", "name": "m1", "digest": digest, "size": 3}]
    assert read(fleet).resources[0].data.type == "ML_Model.SageMaker.Job"


@pytest.mark.parametrize(
    "address",
    [
        "s3://b.c/dir/m.zip",
        "https://s3.amazonaws.com/b.c/dir/m.zip",
        "https://s3-eu-west-1.amazonaws.com/b.c/dir/m.zip",
        "https://s3.eu-west-1.amazonaws.com/b.c/dir/m.zip",
        "https://b.c.s3.eu-west-1.amazonaws.com/dir/m.zip",
        "https://b.c.s3-eu-west-1.amazonaws.com/dir/m.zip",
    ],
)
def test_an_object_has_one_name_however_its_address_is_written(fleet: Fleet, address: str) -> None:
    fleet.desk.change(lambda tx: register_object(tx, HOME, address, "0" * 64, 7))
    assert fleet.desk.look(lambda tx: find_object(tx, HOME, "s3://b.c/dir/m.zip")) == {"digest": "0" * 64, "size": 7}
    assert fleet.desk.look(lambda tx: find_object(tx, HOME, "s3://b.c/dir/n.zip")) is None


def test_things_and_certificates_must_be_registered(fleet: Fleet) -> None:
    stranger = {
        "Id": "x",
        "ThingArn": f"arn:aws:iot:{REGION}:{ACCOUNT}:thing/nobody",
        "CertificateArn": f"arn:aws:iot:{REGION}:{ACCOUNT}:cert/{'0' * 64}",
    }
    status = failure(fleet, Devices=[stranger])
    codes = [detail["DetailedErrorCode"] for detail in status["ErrorDetails"]]
    assert codes == ["DEVICE_INVALID_ERROR", "THING_CERT_NOT_FOUND_ERROR"]
    assert all(text.startswith("Devices[0].") for text in reasons(status))
    status = failure(fleet, Cores=[stranger])
    assert [text.partition(":")[0] for text in reasons(status)] == ["Cores[0].ThingArn", "Cores[0].CertificateArn"]


def test_connectors_are_refused_clearly(fleet: Fleet) -> None:
    arn = f"arn:aws:greengrass:{REGION}::/connectors/SNS/versions/1"
    [text] = reasons(failure(fleet, Connectors=[{"Id": "c", "ConnectorArn": arn, "Parameters": {}}]))
    assert "connectors are not supported by this release" in text


def test_definitions_deleted_since_are_named(fleet: Fleet) -> None:
    group = fleet.group(Functions=[fleet.function("hello")])
    definition = fleet.desk.all("ListFunctionDefinitions", "Definitions")[0]["Id"]
    fleet.desk.call("DeleteFunctionDefinition", FunctionDefinitionId=definition)
    status = fleet.status(fleet.deploy(group))
    assert status["DeploymentStatus"] == "Failure"
    assert reasons(status) == ["Lambda definition reference does not exist"]


def test_many_reasons_are_cut_and_counted(fleet: Fleet) -> None:
    subscriptions = [
        {"Id": f"s{at}", "Source": f"arn:aws:iot:{REGION}:{ACCOUNT}:thing/t{at}", "Subject": "a", "Target": "cloud"}
        for at in range(30)
    ]
    status = failure(fleet, Subscriptions=subscriptions)
    assert len(status["ErrorDetails"]) == 20
    assert status["ErrorMessage"].endswith("and 10 more])}")
