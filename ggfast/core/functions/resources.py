"""What a function's resource access policies mean for its container: mounts, device nodes, extra groups.

Sources: greengrass-core 7.1 (kinds and paths), 7.2 (group owners and the permission check with its text). The
container set-up resolves every path again without following links (sandbox/paths.py); nothing here is trusted there.
"""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from ggfast.errors import DeploymentFailed
from ggfast.group.document import (
    Function,
    Group,
    GroupOwnerSetting,
    LocalDevice,
    LocalVolume,
    Permission,
)


@dataclass(frozen=True, slots=True)
class Mount:
    """One volume in a function's container."""

    source: str
    destination: str
    writable: bool


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """One device node; `access` is `r` or `rw`."""

    path: str
    access: str


@dataclass(frozen=True, slots=True)
class Attachments:
    """Everything local a function gets beyond its code."""

    mounts: tuple[Mount, ...] = ()
    devices: tuple[DeviceNode, ...] = ()
    groups: tuple[int, ...] = ()


def attach(group: Group, function: Function, uid: int, gid: int, user_name: str) -> Attachments:
    """Resolve a function's resources on this machine.

    Raises DeploymentFailed with V1's text if a path is missing or the function's identity lacks the permission.
    Reads file metadata only; blocking for as long as the file system takes.
    """
    mounts: list[Mount] = []
    devices: list[DeviceNode] = []
    groups: list[int] = []
    checks: list[tuple[str, bool]] = []
    for policy in function.configuration.resources:
        resource = group.resource(policy.resource_id)
        if resource is None or not isinstance(resource.data, LocalDevice | LocalVolume):
            continue  # validation has refused unknown resources and kinds this release cannot attach
        data = resource.data
        writable = policy.permission is Permission.RW
        groups += _owner_groups(data.source_path, data.owner)
        checks.append((data.source_path, writable))
        if isinstance(data, LocalDevice):
            devices.append(DeviceNode(data.source_path, "rw" if writable else "r"))
        else:
            mounts.append(Mount(data.source_path, data.destination_path, writable))
    unique = tuple(dict.fromkeys(groups))
    for path, writable in checks:
        _require_permission(path, writable, uid, (gid, *unique), user_name)
    return Attachments(tuple(mounts), tuple(devices), unique)


def _owner_groups(path: str, owner: GroupOwnerSetting) -> list[int]:
    if owner.auto_add:
        return [_metadata(path).st_gid]
    if owner.group_owner:
        try:
            return [grp.getgrnam(owner.group_owner).gr_gid]
        except KeyError:
            raise _failure(f"group {owner.group_owner} of the resource at {path} does not exist") from None
    return []


def _metadata(path: str) -> os.stat_result:
    try:
        return os.lstat(path)
    except OSError as error:
        raise _failure(f"{path}: {error.strerror or error}") from error


def _require_permission(path: str, writable: bool, uid: int, gids: Iterable[int], user_name: str) -> None:
    """greengrass-core 7.2: identity plus groups must reach the file with the asked permission."""
    gids = tuple(gids)
    info = _metadata(path)
    if stat.S_ISLNK(info.st_mode):
        raise _failure(f"{path} is a symbolic link, expected a regular file, a directory or a device")
    needed = 0o6 if writable else 0o4
    if uid == info.st_uid:
        granted = info.st_mode >> 6
    elif info.st_gid in gids:
        granted = info.st_mode >> 3
    else:
        granted = info.st_mode
    if uid == 0 or granted & needed == needed:
        return
    names = " ".join(_group_name(gid) for gid in gids)
    permission = "rw" if writable else "ro"
    raise _failure(f"{user_name} or [{names}] don't have {permission} permission on the file: {path}")


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _failure(detail: str) -> DeploymentFailed:
    return DeploymentFailed("resources", f"group config is invalid: {detail}", rolled_back=True)
