"""What tests of the Greengrass API build on: a content of each kind, and a group of all of them."""

from __future__ import annotations

from typing import Any

from cloud_desk import ACCOUNT, REGION, Desk

CERTIFICATE = f"arn:aws:iot:{REGION}:{ACCOUNT}:cert/{'ab' * 32}"
FUNCTION = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:hello:prod"
CONNECTOR = f"arn:aws:greengrass:{REGION}::/connectors/SNS/versions/1"
NOWHERE = "00000000-0000-4000-8000-000000000000"

# In the order in which bad references of a group version are listed.
PATHS = {
    "Core": "cores",
    "Function": "functions",
    "Resource": "resources",
    "Device": "devices",
    "Subscription": "subscriptions",
    "Logger": "loggers",
    "Connector": "connectors",
}


def thing(name: str) -> str:
    """The ARN of a thing."""
    return f"arn:aws:iot:{REGION}:{ACCOUNT}:thing/{name}"


def member(name: str, identifier: str = "1", **more: Any) -> dict[str, Any]:
    """An entry of Cores or Devices."""
    return {"CertificateArn": CERTIFICATE, "Id": identifier, "ThingArn": thing(name), **more}


CONTENTS: dict[str, dict[str, Any]] = {
    "Core": {"Cores": [member("core", SyncShadow=True)]},
    "Device": {"Devices": [member("lamp", "lamp:1"), member("door", "2", SyncShadow=False)]},
    "Function": {
        "DefaultConfig": {"Execution": {"IsolationMode": "GreengrassContainer", "RunAs": {"Uid": 0, "Gid": 5}}},
        "Functions": [
            {
                "Id": "hello",
                "FunctionArn": FUNCTION,
                "FunctionConfiguration": {
                    "EncodingType": "binary",
                    "Environment": {
                        "AccessSysfs": False,
                        "Execution": {"IsolationMode": "NoContainer", "RunAs": {"Uid": 1}},
                        "ResourceAccessPolicies": [{"ResourceId": "data", "Permission": "rw"}],
                        "Variables": {"": "", "a b": "ü\n"},
                    },
                    "ExecArgs": "-v",
                    "Executable": "hello.handler",
                    "MemorySize": 16_384,
                    "Pinned": True,
                    "Timeout": 3,
                    "FunctionRuntimeOverride": "python3.7",
                },
            },
            {"Id": "GGIPDetector"},
        ],
    },
    "Logger": {
        "Loggers": [
            {"Component": "GreengrassSystem", "Id": "a", "Level": "INFO", "Type": "FileSystem", "Space": 10_240},
            {"Component": "Lambda", "Id": "b", "Level": "FATAL", "Type": "AWSCloudWatch"},
        ]
    },
    "Resource": {
        "Resources": [
            {
                "Id": "data",
                "Name": "Data",
                "ResourceDataContainer": {
                    "LocalVolumeResourceData": {
                        "SourcePath": "/srv/data",
                        "DestinationPath": "/data",
                        "GroupOwnerSetting": {"AutoAddGroupOwner": True},
                    }
                },
            },
            {
                "Id": "usb",
                "Name": "Usb",
                "ResourceDataContainer": {
                    "LocalDeviceResourceData": {
                        "SourcePath": "/dev/ttyUSB0",
                        "GroupOwnerSetting": {"AutoAddGroupOwner": False, "GroupOwner": "dialout"},
                    }
                },
            },
            {
                "Id": "model",
                "Name": "Model",
                "ResourceDataContainer": {
                    "S3MachineLearningModelResourceData": {
                        "S3Uri": "s3://models/a.zip",
                        "DestinationPath": "/model",
                        "OwnerSetting": {"GroupOwner": "dialout", "GroupPermission": "ro"},
                    }
                },
            },
            {
                "Id": "trained",
                "Name": "Trained",
                "ResourceDataContainer": {
                    "SageMakerMachineLearningModelResourceData": {
                        "SageMakerJobArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/a",
                        "DestinationPath": "/trained",
                    }
                },
            },
            {
                "Id": "secret",
                "Name": "Secret",
                "ResourceDataContainer": {
                    "SecretsManagerSecretResourceData": {
                        "ARN": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:greengrass-a-AbCdEf",
                        "AdditionalStagingLabelsToDownload": ["last"],
                    }
                },
            },
        ]
    },
    "Subscription": {
        "Subscriptions": [
            {"Id": "1", "Source": FUNCTION, "Subject": "hello/world", "Target": "cloud"},
            {"Id": "2", "Source": thing("lamp"), "Subject": "a/+/#", "Target": "GGShadowService"},
            {"Id": "3", "Source": "GGShadowService", "Subject": "#", "Target": thing("lamp")},
            {"Id": "4", "Source": "cloud", "Subject": "sms", "Target": CONNECTOR},
            {"Id": "5", "Source": CONNECTOR, "Subject": "sms", "Target": f"{FUNCTION.removesuffix('prod')}7"},
        ]
    },
    "Connector": {"Connectors": [{"ConnectorArn": CONNECTOR, "Id": "sns", "Parameters": {"DefaultSNSArn": "arn"}}]},
}


def create(desk: Desk, kind: str, **members: Any) -> dict[str, Any]:
    """A definition of a kind with its content as first version."""
    return desk.call(f"Create{kind}Definition", **({"InitialVersion": CONTENTS[kind]} | members))


def references(desk: Desk) -> dict[str, str]:
    """ARNs of new definition versions of every kind, as a group version takes them."""
    return {f"{kind}DefinitionVersionArn": create(desk, kind)["LatestVersionArn"] for kind in PATHS}


def group_with(desk: Desk, core: str, *devices: str, name: str = "g") -> dict[str, Any]:
    """A group whose first version has that core and those devices."""
    cores = create(desk, "Core", InitialVersion={"Cores": [member(core)]})
    entries = [member(device, str(number)) for number, device in enumerate(devices)]
    listed = create(desk, "Device", InitialVersion={"Devices": entries})
    return desk.call(
        "CreateGroup",
        Name=name,
        InitialVersion={
            "CoreDefinitionVersionArn": cores["LatestVersionArn"],
            "DeviceDefinitionVersionArn": listed["LatestVersionArn"],
        },
    )
