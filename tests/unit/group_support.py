"""A group folder's document with every field in it, and how tests break one field at a time."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest

from ggfast.arns import IP_DETECTOR_ARN, SPOOLER_ARN
from ggfast.errors import ConfigError, Problem
from ggfast.group.document import Group
from ggfast.group.folder import parse_folder
from ggfast.group.validate import GroupRules

CERTIFICATE = "arn:aws:iot:eu-west-1:123456789012:cert/" + "0123456789abcdef" * 4
CORE = "arn:aws:iot:eu-west-1:123456789012:thing/my_core"
DEVICE = "arn:aws:iot:eu-west-1:123456789012:thing/button"
FUNCTION = "arn:aws:lambda:eu-west-1:123456789012:function:counter:7"
OTHER = "arn:aws:lambda:eu-west-1:123456789012:function:plain:prod"
FULL: dict[str, Any] = {
    "Name": "full",
    "GroupId": "11111111-2222-3333-4444-555555555555",
    "Region": "eu-west-1",
    "Account": "123456789012",
    "Cores": [{"Id": "core", "ThingArn": CORE, "CertificateArn": CERTIFICATE, "SyncShadow": True}],
    "Devices": [
        {
            "Id": "d1",
            "ThingArn": DEVICE,
            "CertificateArn": CERTIFICATE,
            "SyncShadow": False,
            "Certificate": "certificates/button.pem",
        }
    ],
    "Functions": [
        {
            "Id": "f1",
            "FunctionArn": FUNCTION,
            "Code": "functions/counter",
            "Handler": "app/counter.handler",
            "Runtime": "nodejs6.10",
            "FunctionConfiguration": {
                "Pinned": True,
                "MemorySize": 65536,
                "Timeout": 25,
                "EncodingType": "binary",
                "ExecArgs": "-x",
                "Executable": "counter",
                "FunctionRuntimeOverride": "python3.8",
                "Environment": {
                    "Variables": {"MODE": "fast", "_X1": ""},
                    "AccessSysfs": True,
                    "ResourceAccessPolicies": [
                        {"ResourceId": "r1", "Permission": "rw"},
                        {"ResourceId": "r2", "Permission": "ro"},
                    ],
                    "Execution": {"IsolationMode": "GreengrassContainer", "RunAs": {"Uid": 1001, "Gid": 1002}},
                },
            },
        },
        {"Id": "f2", "FunctionArn": OTHER, "Code": "plain.zip", "Handler": "main.handler", "Runtime": "python2.7"},
        {"Id": "ip", "FunctionArn": IP_DETECTOR_ARN, "FunctionConfiguration": {"Pinned": True, "MemorySize": 32768}},
        {
            "Id": "spool",
            "FunctionArn": SPOOLER_ARN,
            "FunctionConfiguration": {
                "Pinned": True,
                "Executable": "spooler",
                "Environment": {
                    "Variables": {
                        "GG_CONFIG_MAX_SIZE_BYTES": "262144",
                        "GG_CONFIG_STORAGE_TYPE": "FileSystem",
                        "GG_CONFIG_SUBSCRIPTION_QUALITY": "AtLeastOncePersistent",
                    }
                },
            },
        },
    ],
    "DefaultConfig": {"Execution": {"IsolationMode": "GreengrassContainer", "RunAs": {"Uid": 2001}}},
    "Subscriptions": [
        {"Id": "s1", "Source": DEVICE, "Subject": "a/+/b/#", "Target": FUNCTION},
        {"Id": "s2", "Source": "cloud", "Subject": "#", "Target": "GGShadowService"},
        {"Id": "s3", "Source": DEVICE, "Subject": "a/+/b/#", "Target": FUNCTION},
    ],
    "Resources": [
        {
            "Id": "r1",
            "Name": "data",
            "ResourceDataContainer": {
                "LocalVolumeResourceData": {
                    "SourcePath": "/srv/data",
                    "DestinationPath": "/data/",
                    "GroupOwnerSetting": {"AutoAddGroupOwner": False, "GroupOwner": "dialout"},
                }
            },
        },
        {
            "Id": "r2",
            "Name": "serial",
            "ResourceDataContainer": {
                "LocalDeviceResourceData": {
                    "SourcePath": "/dev/ttyS0",
                    "GroupOwnerSetting": {"AutoAddGroupOwner": True},
                }
            },
        },
    ],
    "Loggers": [
        {"Id": "l1", "Type": "FileSystem", "Component": "Lambda", "Level": "DEBUG", "Space": 64},
        {"Id": "l2", "Type": "AWSCloudWatch", "Component": "GreengrassSystem", "Level": "WARN"},
    ],
}
MINIMAL: dict[str, Any] = {
    "Name": "small",
    "Cores": [{"Id": "core", "ThingArn": CORE, "CertificateArn": CERTIFICATE}],
}
SHORT = {
    "F": "Functions[0].FunctionConfiguration",
    "E": "Functions[0].FunctionConfiguration.Environment",
    "V": "Resources[0].ResourceDataContainer.LocalVolumeResourceData",
    "D": "Resources[1].ResourceDataContainer.LocalDeviceResourceData",
    "S": "Functions[3].FunctionConfiguration",
}


def parse(document: object, **more: Any) -> Group:
    return parse_folder(json.dumps(document).encode(), GroupRules(**more))


def problems_of(document: object, **more: Any) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as error:
        parse(document, **more)
    return error.value.problems


def steps(path: str) -> list[str | int]:
    first, _, rest = path.partition(".")
    path = f"{SHORT[first]}.{rest}" if first in SHORT else path
    return [int(part) if part.isdigit() else part for part in re.split(r"[.\[\]]+", path) if part]


def changed(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """`document` with the value at `path` replaced; `...` removes it."""
    result = copy.deepcopy(document)
    place: Any = result
    *parents, last = steps(path)
    for parent in parents:
        place = place.setdefault(parent, {}) if isinstance(place, dict) else place[parent]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return result


def full_path(path: str) -> str:
    first, _, rest = path.partition(".")
    return f"{SHORT[first]}.{rest}" if first in SHORT else path
