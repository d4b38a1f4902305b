"""What versions of definitions may hold: the shapes of cloud-api 5 and the rules it refuses by (cloud-api 6).

A rule is a function of the content that gives the texts of what is wrong. What needs to know more than the content
(does a function exist, do a group's parts fit together) is judged at deployment.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ggfast import arns, limits
from ggfast.cloud.limits import GROUP_CONNECTORS_MAX, GROUP_LOGGERS_MAX
from ggfast.cloud.shapes import Choice, Flag, Items, Member, Record, Shape, Table, Text, Whole, need
from ggfast.group.resources import under

ID = Text(1, 128, r"[a-zA-Z0-9:_-]+")  # of entities, and names of resources (greengrass-core 16)
_ARN = Text(1, 2_048)
_PATH = Text(0, 4_096)
_GROUP_NAME = Text(0, 256)
_INT32_MAX = 2**31 - 1
_PERMISSION = Choice("ro", "rw")
_CONNECTOR = re.compile(
    r"arn:aws[a-z-]*:greengrass:[a-z0-9-]{1,32}:(?:[0-9]{12})?:/connectors/[a-zA-Z0-9_-]{1,128}/versions/[0-9]{1,9}"
)

Content = Mapping[str, Any]


def _lists(member: str, most: int, item: Mapping[str, Shape | Member]) -> dict[str, Shape | Member]:
    return {member: Items(Record(item), 0, most)}


# --- shapes ------------------------------------------------------------------------------------------

_ACCOUNT_ID = Whole(0, 2**32 - 2)  # the last one means "none" to the kernel
_RUN_AS = Record({"Uid": _ACCOUNT_ID, "Gid": _ACCOUNT_ID})
_EXECUTION = Record({"IsolationMode": Choice("GreengrassContainer", "NoContainer"), "RunAs": _RUN_AS})
_FUNCTION_CONFIGURATION = Record(
    {
        "EncodingType": Choice("binary", "json"),
        "Environment": Record(
            {
                "AccessSysfs": Flag(),
                "Execution": _EXECUTION,
                "ResourceAccessPolicies": Items(
                    Record({"ResourceId": need(ID), "Permission": _PERMISSION}), 0, limits.FUNCTION_RESOURCES_MAX
                ),
                "Variables": Table(Text()),
            }
        ),
        "ExecArgs": Text(),
        "Executable": Text(0, 4_096),
        "MemorySize": Whole(0, _INT32_MAX),
        "Pinned": Flag(),
        "Timeout": Whole(0, _INT32_MAX),
        "FunctionRuntimeOverride": Text(0, 256),
    }
)
_LOCAL_OWNER = Record({"AutoAddGroupOwner": Flag(), "GroupOwner": _GROUP_NAME})
_MODEL_OWNER = Record({"GroupOwner": need(_GROUP_NAME), "GroupPermission": need(_PERMISSION)})
_RESOURCE_DATA = Record(
    {
        "LocalDeviceResourceData": Record({"SourcePath": _PATH, "GroupOwnerSetting": _LOCAL_OWNER}),
        "LocalVolumeResourceData": Record(
            {"SourcePath": _PATH, "DestinationPath": _PATH, "GroupOwnerSetting": _LOCAL_OWNER}
        ),
        "S3MachineLearningModelResourceData": Record(
            {"S3Uri": Text(0, 2_048), "DestinationPath": _PATH, "OwnerSetting": _MODEL_OWNER}
        ),
        "SageMakerMachineLearningModelResourceData": Record(
            {"SageMakerJobArn": Text(0, 2_048), "DestinationPath": _PATH, "OwnerSetting": _MODEL_OWNER}
        ),
        "SecretsManagerSecretResourceData": Record(
            {"ARN": Text(0, 2_048), "AdditionalStagingLabelsToDownload": Items(Text(1, 256), 0, 100)}
        ),
    }
)
_THING: dict[str, Shape | Member] = {
    "CertificateArn": need(_ARN),
    "Id": need(ID),
    "ThingArn": need(_ARN),
    "SyncShadow": Flag(),
}

CORES = _lists("Cores", 1, _THING)
DEVICES = _lists("Devices", limits.GROUP_DEVICES_MAX, _THING)
CONNECTORS = _lists(
    "Connectors", GROUP_CONNECTORS_MAX, {"ConnectorArn": need(_ARN), "Id": need(ID), "Parameters": Table(Text())}
)
FUNCTIONS = {
    "DefaultConfig": Record({"Execution": _EXECUTION}),
    **_lists(
        "Functions",
        limits.GROUP_FUNCTIONS_MAX,
        {"Id": need(ID), "FunctionArn": _ARN, "FunctionConfiguration": _FUNCTION_CONFIGURATION},
    ),
}
LOGGERS = _lists(
    "Loggers",
    GROUP_LOGGERS_MAX,
    {
        "Component": need(Choice("GreengrassSystem", "Lambda")),
        "Id": need(ID),
        "Level": need(Choice("DEBUG", "INFO", "WARN", "ERROR", "FATAL")),
        "Type": need(Choice("FileSystem", "AWSCloudWatch")),
        "Space": Whole(0, _INT32_MAX),
    },
)
RESOURCES = _lists(
    "Resources",
    limits.GROUP_RESOURCES_MAX,
    {"Id": need(ID), "Name": need(ID), "ResourceDataContainer": need(_RESOURCE_DATA)},
)
SUBSCRIPTIONS = _lists(
    "Subscriptions",
    limits.GROUP_SUBSCRIPTIONS_MAX,
    {
        "Id": need(ID),
        "Source": need(Text(0, 2_048)),
        "Subject": need(Text(0, 65_535)),
        "Target": need(Text(0, 2_048)),
    },
)


# --- rules -------------------------------------------------------------------------------------------


def repeated_ids(content: Content) -> list[str]:
    """Ids that are not unique (greengrass-core 4.1)."""
    return [
        text for member, items in content.items() if isinstance(items, list) for text in _twice(member, "Id", items)
    ]


def resource_faults(content: Content) -> list[str]:
    """Ids, names, kinds and paths of resources."""
    resources = content.get("Resources", [])
    faults = repeated_ids(content) + _twice("Resources", "Name", resources)
    for resource in resources:
        data = resource["ResourceDataContainer"]
        if len(data) != 1:
            faults.append(
                f"Resource '{resource['Id']}' has {len(data)} kinds of data, expected one of "
                + ", ".join(sorted(_RESOURCE_DATA.members))
            )
        faults += _path_faults(data)
    return faults


def subscription_faults(content: Content) -> list[str]:
    """Ids and ends of subscriptions."""
    faults = repeated_ids(content)
    for entry in content.get("Subscriptions", []):
        for end in ("Source", "Target"):
            if not _is_end(entry[end]):
                faults.append(
                    f"Subscription {end.lower()} is invalid. ID is '{entry['Id']}' and {end} is '{entry[end]}'"
                )
    return faults


def _twice(member: str, key: str, items: list[dict[str, Any]]) -> list[str]:
    counts = Counter(item[key] for item in items)
    return [f"{member} have the {key} '{found}' {times} times" for found, times in counts.items() if times > 1]


def _path_faults(data: Content) -> list[str]:
    faults = []
    if under(_plain(data.get("LocalVolumeResourceData", {}).get("SourcePath", "")), "/sys"):
        faults.append("Accessing /sys is prohibited")
    if "LocalDeviceResourceData" in data:
        path = data["LocalDeviceResourceData"].get("SourcePath", "")
        if not under(_plain(path), "/dev"):
            faults.append(f"Device resource path should begin with /dev, but got: {path}")
    return faults


def _plain(path: str) -> str:
    """What the kernel would make of `path`, links aside."""
    return "/" + posixpath.normpath(path).lstrip("/") if path.startswith("/") else path


def _is_end(text: str) -> bool:
    """Whether `text` may be a subscription's source or target (cloud-api 5)."""
    if text in (arns.CLOUD, arns.SHADOW_SERVICE) or _CONNECTOR.fullmatch(text):
        return True
    try:
        if text.split(":")[2:3] == ["lambda"]:
            return bool(arns.FunctionArn.parse(text).qualifier)
        arns.ThingArn.parse(text)
    except ValueError:
        return False
    return True
