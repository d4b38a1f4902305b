"""Resources of a group: their kinds, and which paths may be given to functions (greengrass-core 4.2, 7.1, 8).

Only what the document itself shows is judged here; whether a path exists, is a link or may be read is checked on
the core when the deployment is prepared.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from ggfast import limits
from ggfast.fields import Fields, shown
from ggfast.group.document import (
    GroupOwnerSetting,
    LocalDevice,
    LocalVolume,
    ModelOwner,
    Permission,
    Resource,
    ResourceData,
    S3Model,
    SageMakerModel,
    Secret,
)
from ggfast.group.entities import read_id
from ggfast.sandbox.paths import below_any
from ggfast.sandbox.policy import PROC_DENIED, SOURCES_DENIED

_NAME_BYTES_MAX: Final = 255  # NAME_MAX of Linux
_LABELS_MAX: Final = 20  # staging labels a secret may have
_ABSOLUTE: Final = re.compile(r"/|(/[^/\0]+)+/?")
_SECRET_ARN: Final = re.compile(r"arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:[\w/+=.@!-]{1,512}", re.ASCII)
_S3_URI: Final = re.compile(r"(s3://|https://s3[.-]).{1,1024}")
_JOB_ARN: Final = re.compile(r"arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:[0-9]{12}:training-job/[A-Za-z0-9-]{1,63}")
_MODEL_DIGEST: Final = re.compile(r"[0-9a-f]{64}|")
# Where a volume or model would cover what the container itself needs.
_TAKEN_DESTINATIONS: Final = ("/proc", "/sys", "/dev", "/lambda", "/runtime")


def under(path: str, directory: str) -> bool:
    """Whether `path` is `directory` or lies below it; both normal and absolute."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def read_resource(source: Fields, *, deployed: bool) -> Resource:
    """One entry of `Resources`; `deployed` reads `Type` and `Data` of the file on a core."""
    entry_id = read_id(source)
    name = read_id(source, key="Name", default=entry_id if deployed else None)
    if deployed:
        return Resource(entry_id, name, _read_deployed(source))
    container = source.child("ResourceDataContainer")
    given = [kind for kind in _KINDS if container.has(kind.member)]
    if len(given) != 1:
        found = " and ".join(kind.member for kind in given) or "none of the known members"
        expected = "exactly one of " + ", ".join(kind.member for kind in _KINDS)
        source.problems.add(container.path, found, expected)
        return Resource(entry_id, name, LocalVolume("", ""))
    data = given[0].read(container.child(given[0].member))
    if isinstance(data, S3Model | SageMakerModel):
        expected = "the model's .zip or .tar.gz, relative to group.json"
        data = replace(data, archive=source.text("Archive", default="", expected=expected))
    return Resource(entry_id, name, data)


def _read_deployed(source: Fields) -> ResourceData:
    written = source.choice("Type", tuple(kind.type for kind in _KINDS))
    content = source.child("Data")
    data = next(kind for kind in _KINDS if kind.type == written).read(content)
    if isinstance(data, S3Model | SageMakerModel):
        digest = content.text("ArchiveSha256", default="", pattern=_MODEL_DIGEST, expected="64 hex digits")
        data = replace(data, digest=digest)
    return data


def _read_device(source: Fields) -> LocalDevice:
    path = _read_path(source, "SourcePath")
    if path and (not under(path, "/dev") or path == "/dev" or under(path, "/dev/shm")):
        text = f"Device resource path should begin with /dev, but got: {path}"
        expected = "a device below /dev, not /dev/shm"
        _refuse_source(source, "Accessing /sys is prohibited" if under(path, "/sys") else text, path, expected)
    return LocalDevice(path, _read_owner(source))


def _read_volume(source: Fields) -> LocalVolume:
    path = _read_path(source, "SourcePath")
    destination = _read_path(source, "DestinationPath")
    if under(path, "/sys"):
        _refuse_source(source, "Accessing /sys is prohibited", path, "AccessSysfs: true, for reading")
    elif under(path, "/dev") and path != "/dev/shm":
        _refuse_source(source, "Accessing /dev is prohibited", path, "a device resource, or /dev/shm")
    elif path != "/dev/shm" and (denied := below_any(path, SOURCES_DENIED)):
        _refuse_source(source, f"Accessing {denied} is prohibited", path, "the directory mounted elsewhere on the host")
    elif PROC_DENIED.fullmatch(path):
        expected = "a file or directory below /proc that shows no processes or secrets, such as /proc/meminfo"
        _refuse_source(source, f"Accessing {path} is prohibited", path, expected)
    elif path == "/":
        source.problems.add(source.at("SourcePath"), shown(path), "a directory below /: / holds what is prohibited")
    if path == "/dev/shm" and destination != path:
        source.problems.add(source.at("DestinationPath"), shown(destination), "/dev/shm, as the source is")
    elif path != "/dev/shm":
        _judge_destination(source, destination)
    return LocalVolume(path, destination, _read_owner(source))


def _judge_destination(source: Fields, destination: str) -> None:
    for taken in _TAKEN_DESTINATIONS:
        if under(destination, taken):
            expected = f"a path outside {taken}, which every container has of its own"
            source.problems.add(source.at("DestinationPath"), shown(destination), expected)
    if destination == "/":
        source.problems.add(source.at("DestinationPath"), shown(destination), "a path below /")


def _read_s3_model(source: Fields) -> S3Model:
    uri = source.text("S3Uri", pattern=_S3_URI, expected="s3://<bucket>/<key>")
    return S3Model(_read_model_path(source), uri, _read_model_owner(source))


def _read_sagemaker_model(source: Fields) -> SageMakerModel:
    job = source.text("SageMakerJobArn", pattern=_JOB_ARN, expected="the ARN of a training job")
    return SageMakerModel(_read_model_path(source), job, _read_model_owner(source))


def _read_model_path(source: Fields) -> str:
    path = _read_path(source, "DestinationPath")
    _judge_destination(source, path)
    if any(character in path for character in ",:\\"):  # they separate the options of a mount
        source.problems.add(source.at("DestinationPath"), shown(path), "a path without , : and backslash")
    if len(path.encode()) > limits.MODEL_DESTINATION_BYTES_MAX:
        expected = f"at most {limits.MODEL_DESTINATION_BYTES_MAX} bytes"
        source.problems.add(source.at("DestinationPath"), f"{len(path.encode())} bytes", expected)
    return path


def _read_secret(source: Fields) -> Secret:
    arn = source.text("ARN", pattern=_SECRET_ARN, expected="the ARN of a secret")
    return Secret(arn, source.texts("AdditionalStagingLabelsToDownload", _LABELS_MAX))


def _read_owner(source: Fields) -> GroupOwnerSetting:
    setting = source.child("GroupOwnerSetting")
    return GroupOwnerSetting(setting.boolean("AutoAddGroupOwner"), setting.text("GroupOwner", default=""))


def _read_model_owner(source: Fields) -> ModelOwner | None:
    if not source.has("OwnerSetting"):
        return None
    setting = source.child("OwnerSetting")
    owner = setting.text("GroupOwner", default="")
    permission = setting.raw("GroupPermission")
    if owner and isinstance(permission, str) and permission in tuple(Permission):
        return ModelOwner(owner, Permission(permission))
    text = (
        "InvalidMLModelOwner - GroupOwnerSetting is provided in ML model resource, "
        "but GroupOwner or GroupPermission is not present"
    )
    source.problems.refuse(setting.path, text, found=shown(setting.raw("GroupPermission")), expected="both members")
    return None


def _read_path(source: Fields, key: str) -> str:
    """An absolute path without `.`, `..` or empty parts; a trailing slash is taken off."""
    expected = "an absolute path without . and .. parts"
    path = source.text(key, pattern=_ABSOLUTE, expected=expected)
    if any(part in (".", "..") for part in path.split("/")):
        source.problems.add(source.at(key), shown(path), expected)
    elif any(character < " " or character == "\x7f" for character in path):
        source.problems.add(source.at(key), shown(path), "a path without control characters")
    elif len(path.encode()) > limits.SANDBOX_PATH_BYTES_MAX:
        expected = f"at most {limits.SANDBOX_PATH_BYTES_MAX} bytes"
        source.problems.add(source.at(key), f"{len(path.encode())} bytes", expected)
    elif any(len(part.encode()) > _NAME_BYTES_MAX for part in path.split("/")):
        source.problems.add(source.at(key), shown(path), f"names of at most {_NAME_BYTES_MAX} bytes")
    return path.rstrip("/") or path


def _refuse_source(source: Fields, text: str, path: str, expected: str) -> None:
    source.problems.refuse(source.at("SourcePath"), text, found=shown(path), expected=expected)


@dataclass(frozen=True, slots=True)
class _Kind:
    member: str
    type: str
    read: Callable[[Fields], ResourceData]


_KINDS: Final = (
    _Kind("LocalDeviceResourceData", "Local.Device", _read_device),
    _Kind("LocalVolumeResourceData", "Local.Volume", _read_volume),
    _Kind("S3MachineLearningModelResourceData", "ML_Model.S3_Object", _read_s3_model),
    _Kind("SageMakerMachineLearningModelResourceData", "ML_Model.SageMaker.Job", _read_sagemaker_model),
    _Kind("SecretsManagerSecretResourceData", "Secrets.SecretsManager", _read_secret),
)
