"""Published tools complete their life cycles against a real cloud: AWS CLI, greengo, gud, gg_group_setup."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.acting_core import ActingCore
from tests.e2e.cloud_process import CloudProcess
from tests.e2e.cloud_tools import Tools

REGION = "us-west-2"  # what gg_group_setup takes unless it is told
HANDLER = "def handler(event, context):\n    return event\n"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudProcess]:
    """One cloud for all tools."""
    with CloudProcess(tmp_path_factory.mktemp("cloud") / "data", region=REGION) as process:
        yield process


@pytest.fixture(scope="module")
def tools(cloud: CloudProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tools]:
    """The tools, led to that cloud by environment variables alone."""
    made = Tools(cloud.aws_environment(), tmp_path_factory.mktemp("home"))
    yield made
    made.close()


def code(folder: Path, name: str = "echo") -> Path:
    """A function's directory."""
    place = folder / name
    place.mkdir()
    (place / f"{name}.py").write_text(HANDLER)
    return place


def zipped() -> bytes:
    """The same as the archive that users upload."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("echo.py", HANDLER)
    return archive.getvalue()


def test_row_13_the_command_line_walk_through(cloud: CloudProcess, tools: Tools, tmp_path: Path) -> None:
    """greengrass-core 4.5: thing, keys, policy, definitions, group, versions, deployment, status, reset."""

    def aws(service: str, command: str, **options: Any) -> Any:
        return tools.aws(service, command, tmp_path, **options)

    thing = aws("iot", "create-thing", thing_name="walk-core")
    keys = aws("iot", "create-keys-and-certificate", set_as_active=None)
    document = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": ["iot:*", "greengrass:*"], "Resource": "*"}],
    }
    aws("iot", "create-policy", policy_name="walk-policy", policy_document=json.dumps(document))
    aws("iot", "attach-policy", policy_name="walk-policy", target=keys["certificateArn"])
    aws("iot", "attach-thing-principal", thing_name="walk-core", principal=keys["certificateArn"])
    core = {"Id": "core", "ThingArn": thing["thingArn"], "CertificateArn": keys["certificateArn"], "SyncShadow": True}
    cores = aws("greengrass", "create-core-definition", name="cores", initial_version={"Cores": [core]})
    group = aws(
        "greengrass",
        "create-group",
        name="walk",
        initial_version={"CoreDefinitionVersionArn": cores["LatestVersionArn"]},
    )
    (tmp_path / "echo.zip").write_bytes(zipped())
    aws(
        "lambda",
        "create-function",
        function_name="walk-echo",
        runtime="python3.7",
        role="arn:aws:iam::123456789012:role/x",
        handler="echo.handler",
        zip_file="fileb://echo.zip",
    )
    version = aws("lambda", "publish-version", function_name="walk-echo")
    alias = aws("lambda", "create-alias", function_name="walk-echo", name="live", function_version=version["Version"])
    function = {
        "Id": "echo",
        "FunctionArn": alias["AliasArn"],
        "FunctionConfiguration": {"MemorySize": 16384, "Timeout": 3, "Pinned": False},
    }
    functions = aws("greengrass", "create-function-definition", initial_version={"Functions": [function]})
    subscription = {"Id": "1", "Source": alias["AliasArn"], "Subject": "hello/world", "Target": "cloud"}
    subscriptions = aws(
        "greengrass", "create-subscription-definition", initial_version={"Subscriptions": [subscription]}
    )
    volume = {
        "Id": "data",
        "Name": "data",
        "ResourceDataContainer": {
            "LocalVolumeResourceData": {
                "SourcePath": "/srv/data",
                "DestinationPath": "/data",
                "GroupOwnerSetting": {"AutoAddGroupOwner": True},
            }
        },
    }
    resources = aws("greengrass", "create-resource-definition", initial_version={"Resources": [volume]})
    logger = {"Id": "system", "Type": "FileSystem", "Component": "GreengrassSystem", "Level": "INFO", "Space": 128}
    loggers = aws("greengrass", "create-logger-definition", initial_version={"Loggers": [logger]})
    devices = aws("greengrass", "create-device-definition", initial_version={"Devices": []})
    made = aws(
        "greengrass",
        "create-group-version",
        group_id=group["Id"],
        core_definition_version_arn=cores["LatestVersionArn"],
        function_definition_version_arn=functions["LatestVersionArn"],
        subscription_definition_version_arn=subscriptions["LatestVersionArn"],
        resource_definition_version_arn=resources["LatestVersionArn"],
        logger_definition_version_arn=loggers["LatestVersionArn"],
        device_definition_version_arn=devices["LatestVersionArn"],
    )
    newest = tools.run(
        "aws",
        "greengrass",
        "list-groups",
        "--query",
        "reverse(sort_by(Groups, &CreationTimestamp))[0].Id",
        "--output",
        "text",
        cwd=tmp_path,
    )
    assert newest.strip() == group["Id"]
    deployment = aws(
        "greengrass",
        "create-deployment",
        group_id=group["Id"],
        group_version_id=made["Version"],
        deployment_type="NewDeployment",
    )
    status = {"group_id": group["Id"], "deployment_id": deployment["DeploymentId"]}
    assert aws("greengrass", "get-deployment-status", **status)["DeploymentStatus"] in ("Building", "InProgress")
    with ActingCore(
        cloud, "walk-core", thing["thingArn"], keys["certificatePem"], keys["keyPair"]["PrivateKey"]
    ) as acting:
        acting.wait_for_reports(1)
        assert acting.deployments[0]["id"] == deployment["DeploymentId"]
    assert aws("greengrass", "get-deployment-status", **status)["DeploymentStatus"] == "Success"
    assert "DeploymentId" in aws("greengrass", "reset-deployments", group_id=group["Id"], force=None)
    aws("greengrass", "delete-group", group_id=group["Id"])
    status, _, complaint = tools.command_line(["greengrass", "get-group", "--group-id", group["Id"]], tmp_path)
    assert status != 0
    assert "That Group Definition does not exist." in complaint


def project(folder: Path, **more: Any) -> dict[str, Any]:
    """A definition file for greengo and gud (JSON is YAML)."""
    code(folder)
    name = folder.name.replace("_", "-")
    configuration = {
        "MemorySize": 128000,
        "Timeout": 10,
        "Pinned": True,
        "Environment": {
            "AccessSysfs": False,
            "Variables": {"a": "b"},
            "ResourceAccessPolicies": [{"ResourceId": "data", "Permission": "rw"}],
        },
    }
    return {
        "Group": {"name": name},
        "Cores": [{"name": f"{name}-core", "key_path": "./certs", "config_path": "./config", "SyncShadow": True}],
        "Lambdas": [
            {
                "name": f"{name}-echo",
                "alias": "dev",
                "handler": "echo.handler",
                "package": "echo",
                "runtime": "python3.7",
                "environment": {"mode": "y"},
                "greengrassConfig": configuration,
            }
        ],
        "Subscriptions": [
            {"Source": f"Lambda::{name}-echo", "Subject": "hello/world", "Target": "cloud", "Callable": False},
            {"Source": "cloud", "Subject": "ask", "Target": f"Lambda::{name}-echo", "Callable": True},
        ],
        "Resources": [
            {
                "Name": "Data",
                "Id": "data",
                "LocalVolumeResourceData": {
                    "SourcePath": "/srv",
                    "DestinationPath": "/data",
                    "GroupOwnerSetting": {"AutoAddGroupOwner": True},
                },
            }
        ],
        "Loggers": [{"Id": "l", "Type": "FileSystem", "Component": "Lambda", "Level": "INFO", "Space": 512}],
        **more,
    }


@pytest.mark.parametrize("tool", ["greengo", "gud"])
def test_p9_create_deploy_update_remove(tool: str, cloud: CloudProcess, tools: Tools, tmp_path: Path) -> None:
    extra = {"tz": "UTC", "DNS": {"secret": "s"}} if tool == "gud" else {}
    definition = project(tmp_path, **extra)
    (tmp_path / "greengo.yaml").write_text(json.dumps(definition))
    tools.run(tool, "create", cwd=tmp_path)
    core = definition["Cores"][0]["name"]
    config = json.loads((tmp_path / "config" / "config.json").read_text())["coreThing"]
    certificate, key = (tmp_path / "certs" / f"{core}{end}" for end in (".pem", ".key"))
    with ActingCore(cloud, core, config["thingArn"], certificate.read_text(), key.read_text()) as acting:
        assert "SUCCESS" in tools.ended(tool, "deploy", cwd=tmp_path).stderr
        (tmp_path / "echo" / "echo.py").write_text(HANDLER + "# changed\n")
        if tool == "greengo":
            tools.run(tool, "update_lambda", f"{definition['Group']['name']}-echo", cwd=tmp_path)
            tools.run(tool, "update", cwd=tmp_path)
            assert "SUCCESS" in tools.ended(tool, "deploy", cwd=tmp_path).stderr
            assert [len(found["artifacts"]) for found in acting.deployments] == [1, 1]
            assert acting.deployments[1]["artifacts"] != acting.deployments[0]["artifacts"]
        else:  # its `remove` fails in the tool itself after `update_lambda`
            tools.run(tool, "create_resources", cwd=tmp_path)
    tools.run(tool, "remove", cwd=tmp_path)
    left = cloud.client("greengrass").list_groups()["Groups"]
    assert definition["Group"]["name"] not in [group["Name"] for group in left]
    assert core not in [thing["thingName"] for thing in cloud.client("iot").list_things()["things"]]


def test_p9_gg_group_setup(cloud: CloudProcess, tools: Tools, tmp_path: Path) -> None:
    lambdas = cloud.client("lambda")
    lambdas.create_function(
        FunctionName="MockDevice",
        Runtime="python3.7",
        Role="arn:aws:iam::123456789012:role/x",
        Handler="echo.handler",
        Code={"ZipFile": zipped()},
        Publish=True,
    )
    alias = lambdas.create_alias(FunctionName="MockDevice", Name="prod", FunctionVersion="1")
    fresh = json.loads((tools.packages / "gg_group_setup" / "cfg.json").read_text())
    fresh["lambda_functions"] = {"MockDevice": {"arn": alias["AliasArn"], "arn_qualifier": "prod"}}
    (tmp_path / "cfg.json").write_text(json.dumps(fresh))
    tools.run("gg_group_setup", "create-core", "GGC_example", "cfg.json", cwd=tmp_path)
    tools.run("gg_group_setup", "create-devices", "GGD_example", "cfg.json", cwd=tmp_path)
    tools.run("gg_group_setup", "create", "mock", "cfg.json", "--group_name", "mocks", cwd=tmp_path)
    made = json.loads((tmp_path / "cfg.json").read_text())
    certificate, key = (tmp_path / f"GGC_example{end}" for end in (".pem", ".prv"))
    arn = made["core"]["thing_arn"]
    with ActingCore(cloud, "GGC_example", arn, certificate.read_text(), key.read_text()) as acting:
        assert "deployment_id" in tools.run("gg_group_setup", "deploy", "cfg.json", cwd=tmp_path)
        acting.wait_for_reports(1)
        group = acting.deployments[0]["document"]
        assert [device["thingArn"] for device in group["Devices"]] == [made["devices"]["GGD_example"]["thing_arn"]]
    tools.run("gg_group_setup", "clean-all", "cfg.json", cwd=tmp_path)
    assert "mocks" not in [group["Name"] for group in cloud.client("greengrass").list_groups()["Groups"]]
    things = [thing["thingName"] for thing in cloud.client("iot").list_things()["things"]]
    assert not {"GGC_example", "GGD_example"} & set(things)
