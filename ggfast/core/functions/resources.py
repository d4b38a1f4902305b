"""What a function's resource access policies mean for its container: mounts, device nodes, extra groups.

Sources: greengrass-core 7.1 (kinds and paths), 7.2 (group owners and the permission check with its text), 8 (models).
Everything the container set-up would refuse is refused here first, naming function and resource; the set-up resolves
every path again without following links (sandbox/paths.py) and trusts nothing of it. Reads file metadata only.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ggfast import limits
from ggfast.config import Config
from ggfast.core.functions import models
from ggfast.errors import DeploymentFailed, SandboxFailed
from ggfast.group.document import (
    Function,
    Group,
    GroupOwnerSetting,
    Isolation,
    LocalDevice,
    LocalVolume,
    Permission,
)
from ggfast.group.functions import isolation_of, run_as_of
from ggfast.group.owners import group_id, group_name
from ggfast.layout import Layout
from ggfast.sandbox import policy
from ggfast.sandbox.cgroups import read_text
from ggfast.sandbox.disks import disk_majors, node_fault
from ggfast.sandbox.groups import denied_groups
from ggfast.sandbox.paths import is_below, open_walk


@dataclass(frozen=True, slots=True)
class Mount:
    """One volume or model in a function's container; what is written to a `private` one ends with the container."""

    source: str
    destination: str
    writable: bool
    private: bool = False

    @property
    def request(self) -> dict[str, object]:
        """As the spawner takes it."""
        fields = {"source": self.source, "destination": self.destination, "writable": self.writable}
        return fields | ({"private": True} if self.private else {})


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """One device node, or a directory of them with what will be plugged in; `access` is `r` or `rw`."""

    path: str
    access: str


@dataclass(frozen=True, slots=True)
class Attachments:
    """Everything local a function gets beyond its code. `resource_prefix` leads to its models without a container."""

    mounts: tuple[Mount, ...] = ()
    devices: tuple[DeviceNode, ...] = ()
    groups: tuple[int, ...] = ()
    resource_prefix: str = ""


@dataclass(frozen=True, slots=True)
class Who:
    """The account of a function: ids, the user's name (digits for RunAs) and whether root's group may be added."""

    uid: int
    gid: int
    name: str
    allow_root: bool = False


@dataclass(slots=True)
class _Collected:
    mounts: list[Mount] = field(default_factory=list)
    devices: list[DeviceNode] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)  # owning groups that no function gets
    denied: frozenset[int] = frozenset()


def who_of(group: Group, function: Function, config: Config, default: tuple[int, int]) -> Who:
    """RunAs of the function, then of the group, then the `default` uid and gid (greengrass-core 17.1)."""
    run_as = run_as_of(group, function)
    uid = default[0] if run_as.uid is None else run_as.uid
    gid = default[1] if run_as.gid is None else run_as.gid
    name = config.ggfast.function_user if uid == default[0] else str(uid)
    return Who(uid, gid, name, config.runtime.allow_functions_to_run_as_root)


def require_attachable(group: Group, config: Config, default: tuple[int, int]) -> None:
    """For an activated group without a running core: raises DeploymentFailed as `attach` does. Blocking."""
    mounts_allowed = policy.Policy.from_json(mount_policy(config))
    models.prepare(config.layout, group, group)
    for function in group.user_functions:
        attach(group, function, who_of(group, function, config, default), config.layout, mounts_allowed)


def mount_policy(config: Config) -> dict[str, list[str]]:
    """The part of the spawner's policy that is about mounts: what stays hidden, and where models lie."""
    layout = config.layout
    own = [str(layout.root), str(layout.written)]
    return {
        "hidden": [*own, *config.ggfast.hidden_paths],
        "denied_sources": own,
        "model_prefixes": [str(layout.models)],
    }


def attach(group: Group, function: Function, who: Who, layout: Layout, mounts_allowed: policy.Policy) -> Attachments:
    """Resolve a function's resources on this machine; `mounts_allowed` is made of `mount_policy`.

    Raises DeploymentFailed with V1's text if a path is missing, the function's account lacks the permission, or the
    spawner would refuse it. Blocking for as long as the file system takes.
    """
    # the core's own group too: its members reach what the core keeps for itself
    found = _Collected(denied=frozenset({*denied_groups(), os.getgid(), 0}) - {0 if who.allow_root else -1})
    if who.gid in found.denied:
        raise _failure(
            f"function {function.arn} runs as group {group_name(who.gid)}, which is never given to functions"
        )
    checks: list[tuple[str, bool]] = []
    for access in function.configuration.resources:
        resource = group.resource(access.resource_id)
        if resource is None:
            continue  # validation has refused unknown resources
        writable = access.permission is Permission.RW
        try:
            if isinstance(resource.data, LocalDevice | LocalVolume):
                checks += _attach_local(resource.data, writable, found)
            elif isinstance(resource.data, models.Model):
                _attach_model(
                    group, function, resource.data, models.permission_of(access, resource.data), layout, found
                )
            for mount in found.mounts:
                if fault := mounts_allowed.mount_fault(
                    policy.Mount(mount.source, mount.destination, mount.writable, mount.private), who.uid
                ):
                    raise _Fault(fault)
        except _Fault as fault:
            raise _failure(f"{fault}, in resource {access.resource_id} of function {function.arn}") from None
    groups = tuple(dict.fromkeys(found.groups))
    for path, writable in checks:
        _require_permission(path, writable, who, groups, found.left_out)
    _require_few(function, found)
    prefix = models.resource_prefix(layout, group, function)
    return Attachments(tuple(found.mounts), tuple(found.devices), groups, "" if prefix == "/" else prefix)


class _Fault(Exception):
    """A resource cannot be attached; the text says why."""


def _attach_local(data: LocalDevice | LocalVolume, writable: bool, found: _Collected) -> list[tuple[str, bool]]:
    """Adds what a device or volume means to `found`; returns the paths whose permission decides."""
    info = _metadata(data.source_path)
    if isinstance(data, LocalVolume):
        if not (stat.S_ISDIR(info.st_mode) or stat.S_ISREG(info.st_mode)):
            raise _Fault(f"{data.source_path} is neither a regular file nor a directory")
        _require_plain_destination(data.destination_path, stat.S_ISDIR(info.st_mode))
        _owner_groups(info, data.owner, data.source_path, found)
        found.mounts.append(Mount(data.source_path, data.destination_path, writable))
        return [(data.source_path, writable)]
    _owner_groups(info, data.owner, data.source_path, found)
    is_directory = stat.S_ISDIR(info.st_mode)
    for path in _nodes_below(data.source_path) if is_directory else [data.source_path]:
        _require_grantable(path)
    found.devices.append(DeviceNode(data.source_path, "rw" if writable else "r"))
    return [(data.source_path, writable and not is_directory)]  # nobody makes nodes; each has its own permission


def _attach_model(
    group: Group, function: Function, model: models.Model, permission: Permission, layout: Layout, found: _Collected
) -> None:
    writable = permission is Permission.RW
    if isolation_of(group, function) is Isolation.NO_CONTAINER:
        writable = False
        gid = group_id(model.owner.group_owner) if model.owner else None
        if gid is None:
            owner = model.owner.group_owner if model.owner else "(none)"
            raise _Fault(f"group {owner}, which owns the model, does not exist")
        if gid in found.denied:
            raise _Fault(f"group {group_name(gid)}, which owns the model, is never given to functions")
        found.groups.append(gid)
    content = models.content_of(layout, model, writable=writable)
    if not model.digest or not os.path.isdir(content.parent):
        text = f"the model for {model.destination_path} is not on this core, expected it in {content.parent}"
        raise _Fault(f"{text}: deploy the group again with its archive")
    if isolation_of(group, function) is not Isolation.NO_CONTAINER:
        _require_plain_destination(model.destination_path, True)
        found.mounts.append(Mount(str(content), model.destination_path, False, private=writable))


def _owner_groups(info: os.stat_result, owner: GroupOwnerSetting, path: str, found: _Collected) -> None:
    """greengrass-core 7.2. A group that is as good as root is not added; access without it decides then."""
    if owner.auto_add:
        (found.left_out if info.st_gid in found.denied else found.groups).append(info.st_gid)
    elif owner.group_owner:
        gid = group_id(owner.group_owner)
        if gid is None:
            raise _Fault(f"group {owner.group_owner} of the resource at {path} does not exist")
        if gid in found.denied:
            raise _Fault(f"group {owner.group_owner} is never given to functions: it owns system files")
        found.groups.append(gid)


def _require_grantable(path: str) -> None:
    """As the spawner judges it again when a function starts."""
    info = _metadata(path)
    if not (stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode)):
        raise _Fault(f"{path} is no device")
    majors = disk_majors(read_text("/proc/self/mountinfo"), _swaps()) if stat.S_ISBLK(info.st_mode) else frozenset()
    if reason := node_fault(stat.S_IFMT(info.st_mode), info.st_rdev, majors):
        raise _Fault(f"{path} is {reason}, which functions never get")


def _nodes_below(directory: str) -> Iterator[str]:
    """What is in a directory such as /dev/bus/usb now, without links."""
    count = 0
    for where, directories, names in os.walk(directory):
        count += len(directories) + len(names)
        if count > limits.DEVICE_DIRECTORY_ENTRIES_MAX:
            raise _Fault(f"{directory} holds more than {limits.DEVICE_DIRECTORY_ENTRIES_MAX} entries")
        paths = (os.path.join(where, name) for name in sorted(names))
        yield from (path for path in paths if not os.path.islink(path))


def _require_few(function: Function, found: _Collected) -> None:
    for what, number, maximum in (
        ("groups", len(set(found.groups)), limits.WORKER_GROUPS_MAX),
        ("mounts", len(found.mounts), limits.WORKER_MOUNTS_MAX),
        ("devices", len(found.devices), limits.WORKER_DEVICES_MAX),
        ("bytes of paths", _path_bytes(found), limits.WORKER_ATTACHMENT_BYTES_MAX),
    ):
        if number > maximum:
            raise _failure(f"function {function.arn} has {number} {what}, at most {maximum} are possible")


def _path_bytes(found: _Collected) -> int:
    requests = [mount.request for mount in found.mounts]
    return len(json.dumps([requests, [(device.path, device.access) for device in found.devices]]))


# --- paths ------------------------------------------------------------------------------------------------


def _metadata(path: str) -> os.stat_result:
    """Of a path without links in it."""
    try:
        info = os.lstat(path)
        if not stat.S_ISLNK(info.st_mode):
            os.close(open_walk(path))
    except SandboxFailed:
        raise _Fault(
            f"a directory of {path} is a symbolic link, expected the real path {os.path.realpath(path)}"
        ) from None
    except PermissionError:
        raise _Fault(f"{path}: the core's account may not look there, it needs x on each directory above") from None
    except OSError as error:
        raise _Fault(f"{path}: {error.strerror or error}") from None
    if stat.S_ISLNK(info.st_mode):
        raise _Fault(f"{path} is a symbolic link, expected a regular file, a directory or a device")
    return info


def _require_plain_destination(path: str, is_directory: bool) -> None:
    """A mount point is made or found below directories that are no links, and is of the source's kind."""
    if is_below(path, "/var/run"):
        raise _Fault(f"destination {path} leads through the link /var/run, expected {path.removeprefix('/var')}")
    if any(is_below(path, own) for own in ("/tmp", "/run", "/var")):
        return  # the container's own and empty
    parts = path.split("/")
    for depth in range(2, len(parts) + 1):
        place = "/".join(parts[:depth])
        try:
            mode = os.lstat(place).st_mode
        except OSError:
            return  # made in the container
        if stat.S_ISLNK(mode):
            raise _Fault(f"destination {path} leads through the link {place}, expected {os.path.realpath(path)}")
        if not stat.S_ISDIR(mode) and (depth < len(parts) or is_directory):
            raise _Fault(f"destination {path}: {place} is a file on this machine, expected a directory or nothing")
        if stat.S_ISDIR(mode) and depth == len(parts) and not is_directory:
            raise _Fault(f"destination {path} is a directory on this machine, expected a file or nothing")


def _require_permission(path: str, writable: bool, who: Who, groups: Iterable[int], left_out: list[int]) -> None:
    """greengrass-core 7.2: identity plus groups must reach the file with the asked permission."""
    gids = (who.gid, *groups)
    info = os.lstat(path)
    needed = (0o6 if writable else 0o4) | (0o1 if stat.S_ISDIR(info.st_mode) else 0)
    if who.uid == info.st_uid:
        granted = info.st_mode >> 6
    elif info.st_gid in gids:
        granted = info.st_mode >> 3
    else:
        granted = info.st_mode
    if who.uid == 0 or granted & needed == needed:
        return
    names = " ".join(str(gid) if who.name.isdigit() else group_name(gid) for gid in gids)
    permission = "rw" if writable else "ro"
    text = f"{who.name} or [{names}] don't have {permission} permission on the file: {path}"
    if info.st_gid in left_out:
        text += f" (its group {group_name(info.st_gid)} is never given to functions: `chgrp` it to another)"
    raise _failure(text)


def _swaps() -> str:
    try:
        return read_text("/proc/swaps")
    except OSError:  # a kernel without swap
        return ""


def _failure(detail: str) -> DeploymentFailed:
    return DeploymentFailed("resources", f"Error while processing. group config is invalid: {detail}", rolled_back=True)
