"""Resource access policies become mounts, devices and groups, or V1's refusal (greengrass-core 7.1, 7.2)."""

from __future__ import annotations

import os
import pty
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ggfast import limits
from ggfast.core.functions import resources
from ggfast.core.functions.resources import Attachments, DeviceNode, Mount, Who, attach
from ggfast.errors import DeploymentFailed
from ggfast.group.document import (
    Execution,
    Function,
    FunctionConfiguration,
    Group,
    GroupOwnerSetting,
    Isolation,
    LocalDevice,
    LocalVolume,
    ModelOwner,
    Permission,
    Resource,
    ResourceAccessPolicy,
    ResourceData,
    S3Model,
)
from ggfast.layout import Layout
from ggfast.sandbox.policy import Policy

UID = GID = 61_111
OTHERS = 54_321
ARN = "arn:aws:lambda:eu-west-1:123456789012:function:f:1"
DIGEST = "a1" * 32
AUTO = GroupOwnerSetting(auto_add=True)
LAYOUT = Layout.of(Path("/greengrass"))


def resolve(
    data: ResourceData,
    permission: Permission | None = Permission.RO,
    *more: ResourceData,
    who: Who | None = None,
    layout: Layout = LAYOUT,
    isolation: Isolation | None = None,
    policy: dict[str, Any] | None = None,
) -> Attachments:
    entries = tuple(Resource(f"r{number}", f"r{number}", one) for number, one in enumerate((data, *more)))
    policies = tuple(ResourceAccessPolicy(entry.id, permission) for entry in entries)
    configuration = FunctionConfiguration(resources=policies, execution=Execution(isolation))
    function = Function("f", ARN, configuration=configuration)
    group = Group(functions=(function,), resources=entries)
    document = {"hidden": [str(layout.root)], "denied_sources": [str(layout.root)]} | (policy or {})
    document["model_prefixes"] = [str(layout.models)]
    return attach(group, function, who or Who(UID, GID, "ggc_user"), layout, Policy.from_json(document))


def refusal(*arguments: Any, **more: Any) -> str:
    with pytest.raises(DeploymentFailed) as error:
        resolve(*arguments, **more)
    text = str(error.value)
    assert text.startswith("Error while processing. group config is invalid: ")
    return text.removeprefix("Error while processing. group config is invalid: ")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    path.chmod(0o750)
    os.chown(path, 0, OTHERS)
    return path


@pytest.fixture
def terminal() -> Iterator[str]:
    """The path of a character device that belongs to another group and is no danger to anybody."""
    master, slave = pty.openpty()
    os.chown(slave, 0, OTHERS)
    os.chmod(slave, 0o660)
    yield os.ttyname(slave)
    os.close(master)
    os.close(slave)


# --- devices ----------------------------------------------------------------------------------------------


def test_a_device_node_keeps_its_path_and_access() -> None:
    assert resolve(LocalDevice("/dev/null"), Permission.RW).devices == (DeviceNode("/dev/null", "rw"),)
    assert resolve(LocalDevice("/dev/null")).devices == (DeviceNode("/dev/null", "r"),)


def test_a_device_of_another_group_needs_that_group(terminal: str) -> None:
    text = f"ggc_user or [{GID}] don't have rw permission on the file: {terminal}"
    assert refusal(LocalDevice(terminal), Permission.RW) == text
    assert resolve(LocalDevice(terminal, AUTO), Permission.RW).groups == (OTHERS,)
    by_number = GroupOwnerSetting(group_owner=str(OTHERS))
    assert resolve(LocalDevice(terminal, by_number), Permission.RW).groups == (OTHERS,)


def test_a_directory_of_devices_is_given_as_such(tmp_path: Path) -> None:
    (tmp_path / "bus" / "001").mkdir(parents=True)
    (tmp_path / "bus" / "by-path").symlink_to("/dev/mem")
    for name in ("001/001", "001/002", "none"):
        os.mknod(tmp_path / "bus" / name, 0o600 | stat.S_IFCHR, os.makedev(189, 1))
    (tmp_path / "bus").chmod(0o750)
    assert "don't have ro permission" in refusal(LocalDevice(str(tmp_path / "bus")), Permission.RW)
    os.chown(tmp_path / "bus", 0, OTHERS)
    found = resolve(LocalDevice(str(tmp_path / "bus"), AUTO), Permission.RW)
    assert found.devices == (DeviceNode(str(tmp_path / "bus"), "rw"),)
    assert found.groups == (OTHERS,)
    os.mknod(tmp_path / "bus" / "memory", 0o600 | stat.S_IFCHR, os.makedev(1, 1))
    assert "a node of the kernel's memory" in refusal(LocalDevice(str(tmp_path / "bus"), AUTO))


def test_devices_that_are_none(tmp_path: Path) -> None:
    assert refusal(LocalDevice("/dev/nothing")).startswith("/dev/nothing: No such file or directory, in resource r0 of")
    assert "/dev/kmsg is a node of the kernel's memory" in refusal(LocalDevice("/dev/kmsg"))
    (tmp_path / "file").touch()
    assert f"/file is no device, in resource r0 of function {ARN}" in refusal(LocalDevice(str(tmp_path / "file")))


def test_a_directory_of_too_many_devices(tmp_path: Path) -> None:
    for number in range(limits.DEVICE_DIRECTORY_ENTRIES_MAX + 1):
        (tmp_path / str(number)).mkdir()
    assert f"holds more than {limits.DEVICE_DIRECTORY_ENTRIES_MAX} entries" in refusal(LocalDevice(str(tmp_path)))


# --- owners and permissions -------------------------------------------------------------------------------


def test_the_owning_group_is_added_only_when_asked(directory: Path) -> None:
    text = f"ggc_user or [{GID}] don't have ro permission on the file: {directory}"
    assert refusal(LocalVolume(str(directory), "/data")) == text
    found = resolve(LocalVolume(str(directory), "/data", AUTO))
    assert found == Attachments((Mount(str(directory), "/data", False),), (), (OTHERS,))


def test_a_group_by_name_and_its_name_in_the_text(directory: Path) -> None:
    owner = GroupOwnerSetting(group_owner="dialout")
    text = f"ggc_user or [{GID} dialout] don't have ro permission on the file: {directory}"
    assert refusal(LocalVolume(str(directory), "/data", owner)) == text
    os.chown(directory, 0, 20)
    assert resolve(LocalVolume(str(directory), "/data", owner)).groups == (20,)


def test_numbers_in_the_text_for_a_run_as_account(directory: Path) -> None:
    owner = GroupOwnerSetting(group_owner="dialout")
    text = f"112 or [119 20] don't have rw permission on the file: {directory}"
    assert refusal(LocalVolume(str(directory), "/data", owner), Permission.RW, who=Who(112, 119, "112")) == text


@pytest.mark.parametrize(
    ("mode", "permission", "allowed"),
    [
        (0o750, Permission.RO, True),
        (0o750, Permission.RW, False),
        (0o740, Permission.RO, False),  # a directory without x cannot be used
        (0o770, Permission.RW, True),
        (0o705, Permission.RO, False),  # the group's bits count, not everybody's
    ],
)
def test_bits_of_directories(mode: int, permission: Permission, allowed: bool, directory: Path) -> None:
    directory.chmod(mode)
    volume = LocalVolume(str(directory), "/data", AUTO)
    if allowed:
        assert resolve(volume, permission).mounts
    else:
        assert f"don't have {permission} permission" in refusal(volume, permission)


def test_a_file_needs_no_x(tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o644)
    assert resolve(LocalVolume(str(tmp_path / "file"), "/data")).mounts
    assert "rw permission" in refusal(LocalVolume(str(tmp_path / "file"), "/data"), Permission.RW)


def test_root_needs_no_permission(directory: Path) -> None:
    assert resolve(LocalVolume(str(directory), "/data"), Permission.RW, who=Who(0, GID, "0")).mounts


def test_a_privileged_owning_group_is_left_out_where_it_is_not_needed(directory: Path) -> None:
    os.chown(directory, 0, 0)
    directory.chmod(0o755)
    assert resolve(LocalVolume(str(directory), "/data", AUTO)).groups == ()


def test_a_privileged_owning_group_is_refused_where_it_is_needed(directory: Path) -> None:
    os.chown(directory, 0, 0)
    text = refusal(LocalVolume(str(directory), "/data", AUTO))
    assert f"don't have ro permission on the file: {directory} (its group root is never given to functions" in text
    assert "`chgrp`" in text
    assert resolve(LocalVolume(str(directory), "/data", AUTO), who=Who(UID, GID, "x", allow_root=True)).groups == (0,)


@pytest.mark.parametrize("name", ["root", "0", "shadow", "disk"])
def test_privileged_groups_cannot_be_named(name: str, directory: Path) -> None:
    owner = GroupOwnerSetting(group_owner=name)
    assert f"group {name} is never given to functions" in refusal(LocalVolume(str(directory), "/data", owner))


def test_the_cores_own_group_is_not_given_away(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getgid", lambda: OTHERS)
    assert "is never given to functions" in refusal(LocalVolume(str(directory), "/data", AUTO))


def test_a_function_that_runs_as_a_privileged_group() -> None:
    text = refusal(LocalDevice("/dev/null"), who=Who(UID, 42, "61111"))
    assert f"function {ARN} runs as group shadow, which is never given to functions" in text


def test_an_unknown_group_owner_is_named(tmp_path: Path) -> None:
    owner = GroupOwnerSetting(group_owner="no_such_group")
    text = refusal(LocalVolume(str(tmp_path), "/data", owner))
    assert f"group no_such_group of the resource at {tmp_path} does not exist, in resource r0 of function" in text


# --- paths ------------------------------------------------------------------------------------------------


def test_a_missing_source_names_the_path(tmp_path: Path) -> None:
    text = f"{tmp_path}/nothing: No such file or directory, in resource r0 of function {ARN}"
    assert refusal(LocalVolume(f"{tmp_path}/nothing", "/data")) == text


def test_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    assert "/link is a symbolic link" in refusal(LocalVolume(str(tmp_path / "link"), "/data"))
    assert "expected the real path /etc/hostname" in refusal(LocalVolume(str(tmp_path / "link/hostname"), "/data"))


def test_sources_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    text = "/pipe is neither a regular file nor a directory"
    assert text in refusal(LocalVolume(str(tmp_path / "pipe"), "/data"))


@pytest.mark.parametrize(
    ("destination", "text"),
    [
        ("/bin/deeper", "leads through the link /bin, expected /usr/bin/deeper"),
        ("/var/run/x", "expected /run/x"),
        ("/etc/hostname", "is a file on this machine"),
        ("/etc/hostname/x", "/etc/hostname is a file on this machine"),
    ],
)
def test_destinations_the_container_cannot_have(destination: str, text: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert text in refusal(LocalVolume(str(tmp_path), destination))


@pytest.mark.parametrize("destination", ["/etc", "/tmp/a/b", "/run/x", "/nowhere/at/all", "/usr/lib"])
def test_destinations_it_can_have(destination: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert resolve(LocalVolume(str(tmp_path), destination)).mounts[0].destination == destination


def test_a_file_over_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o644)
    assert "/usr is a directory on this machine" in refusal(LocalVolume(str(tmp_path / "file"), "/usr"))


def test_what_the_spawner_would_refuse_is_refused_here(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    layout = Layout.of(tmp_path / "greengrass")
    (tmp_path / "greengrass").mkdir(0o777)
    for source, text in (
        (tmp_path / "greengrass", "which is not available to functions"),
        (tmp_path, "overlaps"),
        (Path(resources.__file__).parent, "which the core runs, expected it read-only"),
    ):
        found = refusal(LocalVolume(str(source), "/x"), Permission.RW, layout=layout, who=Who(0, GID, "0"))
        assert text in found
        assert found.endswith(f"in resource r0 of function {ARN}")


def test_more_paths_than_fit_a_request(tmp_path: Path) -> None:
    volumes = [LocalVolume("/etc/hostname", "/" + "/".join([f"{number:03}" + "x" * 200] * 15)) for number in range(12)]
    assert "bytes of paths, at most 32768 are possible" in refusal(volumes[0], Permission.RO, *volumes[1:])
    assert len(resolve(volumes[0], Permission.RO, *volumes[1:6]).mounts) == 6


# --- models -----------------------------------------------------------------------------------------------

MODEL = S3Model("/models/x", "s3://b/k", None, digest=DIGEST)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout.of(tmp_path / "greengrass")
    for name in (DIGEST, DIGEST + "-w"):
        (layout.models / name / "content").mkdir(parents=True)
    return layout


def test_models_in_containers(layout: Layout) -> None:
    shared, own = (str(layout.models / name / "content") for name in (DIGEST, DIGEST + "-w"))
    assert resolve(MODEL, layout=layout).mounts == (Mount(shared, "/models/x", False),)
    private = Mount(own, "/models/x", False, private=True)
    assert resolve(MODEL, Permission.RW, layout=layout).mounts == (private,)
    assert private.request["private"] is True
    owned = S3Model("/models/x", "s3://b/k", ModelOwner(str(OTHERS), Permission.RW), digest=DIGEST)
    found = resolve(owned, None, layout=layout)
    assert found.mounts == (private,), "the owner's permission counts where the function has none"
    assert found.groups == (), "a container needs no group to see a mount"


def test_models_without_a_container(layout: Layout) -> None:
    owned = S3Model("/models/x", "s3://b/k", ModelOwner(str(OTHERS), Permission.RW), digest=DIGEST)
    found = resolve(owned, None, layout=layout, isolation=Isolation.NO_CONTAINER)
    assert found.mounts == ()
    assert found.groups == (OTHERS,)
    assert Path(found.resource_prefix).parent == layout.model_links


@pytest.mark.parametrize(
    ("owner", "text"),
    [
        ("no_such_group", "group no_such_group, which owns the model, does not exist"),
        ("no\0group", "which owns the model, does not exist"),
        ("shadow", "group shadow, which owns the model, is never given to functions"),
        ("root", "group root, which owns the model, is never given to functions"),
    ],
)
def test_owners_of_models_that_functions_cannot_have(owner: str, text: str, layout: Layout) -> None:
    owned = S3Model("/models/x", "s3://b/k", ModelOwner(owner, Permission.RO), digest=DIGEST)
    assert text in refusal(owned, None, layout=layout, isolation=Isolation.NO_CONTAINER)


def test_a_model_that_is_not_here(layout: Layout) -> None:
    gone = S3Model("/models/x", "s3://b/k", None, digest="b2" * 32)
    assert "the model for /models/x is not on this core" in refusal(gone, layout=layout)
    assert "is not on this core" in refusal(S3Model("/models/x", "s3://b/k"), layout=layout)


def test_a_model_where_the_machine_has_a_link(layout: Layout) -> None:
    assert "leads through the link /bin" in refusal(S3Model("/bin/x", "s3://b/k", digest=DIGEST), layout=layout)
