"""An unmodified boto3 calls every operation of the Greengrass API through a running cloud (rows 12, 13, 16-18)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cloud_greengrass import CONTENTS, NOWHERE
from cloud_walk import walk

from tests.e2e.cloud_process import CloudProcess


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudProcess]:
    with CloudProcess(tmp_path_factory.mktemp("greengrass") / "cloud") as cloud:
        yield cloud


@pytest.fixture(scope="module")
def client(cloud: CloudProcess) -> Iterator[Any]:
    """Connected before the first test: the connection is the module's."""
    client = cloud.client("greengrass")
    client.list_groups()
    yield client
    client.close()


@pytest.fixture(scope="module")
def core(cloud: CloudProcess) -> dict[str, Any]:
    """A thing with its certificate, as an entry of a core definition."""
    iot = cloud.client("iot")
    arn = iot.create_thing(thingName="core1")["thingArn"]
    keys = iot.create_keys_and_certificate(setAsActive=True)
    iot.attach_thing_principal(thingName="core1", principal=keys["certificateArn"])
    iot.close()
    return {"Id": "core1", "ThingArn": arn, "CertificateArn": keys["certificateArn"], "SyncShadow": True}


def test_boto3_calls_every_operation(cloud: CloudProcess, client: Any, core: dict[str, Any]) -> None:
    """All 92 succeed, with the statuses of the real service, at the first attempt."""
    methods = {operation: method for method, operation in client.meta.method_to_api_mapping.items()}
    statuses: dict[str, int] = {}

    def call(operation: str, **members: Any) -> dict[str, Any]:
        answer: dict[str, Any] = getattr(client, methods[operation])(**members)
        metadata = answer.pop("ResponseMetadata")
        statuses[operation] = metadata["HTTPStatusCode"]
        assert metadata["RequestId"] and metadata["RetryAttempts"] == 0
        return answer

    walk(call, core, cloud.account)
    assert sorted(statuses) == sorted(methods)
    created = {name for name, status in statuses.items() if status == 201}
    assert created == {
        name
        for name in methods
        if name.startswith("Create") and ("Definition" in name or name in ("CreateGroup", "CreateGroupVersion"))
    }
    assert {name for name, status in statuses.items() if status == 204} == {"TagResource", "UntagResource"}
    assert set(statuses.values()) == {200, 201, 204}


def refused(call: Any, **members: Any) -> tuple[int, str, str]:
    """Status, code and text as a client has them."""
    with pytest.raises(ClientError) as raised:
        call(**members)
    response = raised.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"], response["Error"]["Message"]


def test_refusals_as_clients_see_them(client: Any) -> None:
    """With a code, with a number for a code, and the text letter by letter (row 17)."""
    assert refused(client.get_core_definition, CoreDefinitionId=NOWHERE) == (
        404,
        "IdNotFoundException",
        "That Core List Definition does not exist",
    )
    content = {"Resources": [{"Id": "a", "Name": "a", "ResourceDataContainer": {"LocalVolumeResourceData": {}}}]}
    content["Resources"][0]["ResourceDataContainer"] = {"LocalVolumeResourceData": {"SourcePath": "/sys"}}
    assert refused(client.create_resource_definition, InitialVersion=content) == (
        400,
        "400",
        "The resources definition is invalid. (ErrorDetails: [Accessing /sys is prohibited])",
    )
    assert refused(client.get_associated_role, GroupId=NOWHERE) == (
        404,
        "404",
        "You need to attach an IAM role to this deployment group.",
    )
    group = client.create_group(Name="g")["Id"]
    version = client.create_group_version(GroupId=group)["Version"]
    asked = {"GroupId": group, "GroupVersionId": version, "DeploymentType": "NewDeployment"}
    status, code, text = refused(client.create_deployment, **asked)
    assert (status, code) == (400, "MissingCoreException")
    assert "GG-303" in text
    bad = {"CoreDefinitionVersionArn": "x", "DeviceDefinitionVersionArn": "y"}
    details = "Cores definition reference does not exist, Devices definition reference does not exist"
    text = f"The group is invalid or corrupted. (ErrorDetails: [{details}])"
    assert refused(client.create_group_version, GroupId=group, **bad) == (400, "400", text)


def test_odd_ids_and_tokens_on_the_wire(client: Any) -> None:
    """Ids with slashes and dots stay ids; one client token makes one group (row 18)."""
    for name in ("a/b", "..", "../groups", "%2F", "ü", "a b?c=d#e"):
        assert refused(client.get_group, GroupId=name)[:2] == (404, "IdNotFoundException")
    made = [client.create_group(Name="once", AmznClientToken="t")["Id"] for _ in range(2)]
    assert made[0] == made[1]


def test_paginators(client: Any) -> None:
    """The clients' own paging ends, with every entry once."""
    made = {client.create_logger_definition(InitialVersion=CONTENTS["Logger"])["Id"] for _ in range(5)}
    pages = client.get_paginator("list_logger_definitions").paginate(PaginationConfig={"PageSize": 2})
    found = [entry["Id"] for page in pages for entry in page["Definitions"]]
    assert len(found) == len(set(found)) and made <= set(found)
