"""Resource access policies become mounts, devices and groups, or V1's refusal (greengrass-core 7.2)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ggfast.core.functions.resources import Attachments, DeviceNode, Mount, attach
from ggfast.errors import DeploymentFailed
from ggfast.group.document import (
    Function,
    FunctionConfiguration,
    Group,
    GroupOwnerSetting,
    LocalDevice,
    LocalVolume,
    Permission,
    Resource,
    ResourceAccessPolicy,
)

UID = GID = 61_111
ARN = "arn:aws:lambda:eu-west-1:123456789012:function:f:1"


def resolve(data: LocalDevice | LocalVolume, permission: Permission = Permission.RO) -> Attachments:
    policy = ResourceAccessPolicy("r", permission)
    function = Function("f", ARN, configuration=FunctionConfiguration(resources=(policy,)))
    group = Group(functions=(function,), resources=(Resource("r", "r", data),))
    return attach(group, function, UID, GID, "ggc_user")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir(mode=0o750)
    os.chmod(path, 0o750)
    os.chown(path, 0, 54_321)
    return path


def test_a_device_node_keeps_its_path_and_access() -> None:
    assert resolve(LocalDevice("/dev/null"), Permission.RW).devices == (DeviceNode("/dev/null", "rw"),)
    assert resolve(LocalDevice("/dev/null")).devices == (DeviceNode("/dev/null", "r"),)


def test_the_owning_group_is_added_only_when_asked(directory: Path) -> None:
    with pytest.raises(DeploymentFailed, match=r"ggc_user or \[61111\] don't have ro permission on the file: .*/data"):
        resolve(LocalVolume(str(directory), "/data"))
    found = resolve(LocalVolume(str(directory), "/data", GroupOwnerSetting(auto_add=True)))
    assert found == Attachments((Mount(str(directory), "/data", False),), (), (54_321,))


def test_write_permission_is_checked_apart_from_read(directory: Path) -> None:
    with pytest.raises(DeploymentFailed, match=r"\[61111 54321\] don't have rw permission"):
        resolve(LocalVolume(str(directory), "/data", GroupOwnerSetting(auto_add=True)), Permission.RW)


def test_a_missing_source_names_the_path(tmp_path: Path) -> None:
    with pytest.raises(DeploymentFailed, match=r"group config is invalid: .*/nothing: No such file"):
        resolve(LocalVolume(str(tmp_path / "nothing"), "/data"))


def test_an_unknown_group_owner_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeploymentFailed, match="group no_such_group of the resource"):
        resolve(LocalVolume(str(tmp_path), "/data", GroupOwnerSetting(group_owner="no_such_group")))


def test_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(DeploymentFailed, match="is a symbolic link"):
        resolve(LocalVolume(str(tmp_path / "link"), "/data"))
