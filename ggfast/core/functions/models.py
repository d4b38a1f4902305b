"""Machine-learning models: unpacked once from an archive, shared by the functions that are attached to them.

    deployment/models/<sha256>/content      one unpacked archive, 0644 and 0755, never written again
    deployment/models/<sha256>-w/content    the same for functions with "rw", 0666 and 0777
    deployment/links/<name>/<destination>   for a function without a container: links to the contents

The directory above `content` is a gate that only the core's own account passes. A container gets `content` as a
read-only mount, made by root. With "rw" an overlay lies over it: what the function writes counts against its memory,
is seen by that worker alone and ends with it. A function without a container gets in by its group: the gate carries an
access entry for each group that owns a resource with this model, so that resources with different owners share one
copy; it never writes there. Sources: greengrass-core 8, row 85. Blocking.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import struct
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from ggfast.errors import StorageFailed
from ggfast.group.document import Function, Group, Isolation, Permission, ResourceAccessPolicy, S3Model, SageMakerModel
from ggfast.group.functions import isolation_of
from ggfast.group.owners import group_id
from ggfast.layout import Layout

CONTENT: Final = "content"
WRITABLE: Final = "-w"
_ACL: Final = "system.posix_acl_access"
_ACL_VERSION: Final = 2
_USER_OBJ, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x04, 0x08, 0x10, 0x20
_NOBODY: Final = 0xFFFF_FFFF
GATE: Final = 0o700
_PASS: Final = 0o5

Model = S3Model | SageMakerModel


# --- what a group needs ------------------------------------------------------------------------------------


def permission_of(policy: ResourceAccessPolicy, model: Model) -> Permission:
    """What a function may do with a model: its own permission, else the owner's, else reading."""
    return policy.permission or (model.owner.permission if model.owner else Permission.RO)


def attached_models(group: Group, function: Function) -> Iterator[tuple[str, Model, Permission]]:
    """Id, model and permission of each model resource of a function. Without a container nothing is written."""
    contained = isolation_of(group, function) is not Isolation.NO_CONTAINER
    for policy in function.configuration.resources:
        resource = group.resource(policy.resource_id)
        if resource is not None and isinstance(resource.data, Model):
            permission = permission_of(policy, resource.data) if contained else Permission.RO
            yield resource.id, resource.data, permission


def written_resources(group: Group) -> set[str]:
    """Ids of the model resources that some function may write to, in its own copy."""
    return {
        resource_id
        for function in group.user_functions
        for resource_id, _, permission in attached_models(group, function)
        if permission is Permission.RW
    }


def read_instead_of_written(group: Group) -> list[tuple[str, str]]:
    """Functions, by ARN, and models that their owner lets them write, if they ran in a container."""
    return [
        (function.arn, resource_id)
        for function in group.user_functions
        if isolation_of(group, function) is Isolation.NO_CONTAINER
        for resource_id, model, _ in attached_models(group, function)
        if model.owner and model.owner.permission is Permission.RW
    ]


def model_names(group: Group) -> set[str]:
    """Names below `layout.models` that a deployed group uses; everything else there may go."""
    written = written_resources(group)
    names = set()
    for resource in group.resources:
        if isinstance(resource.data, Model) and resource.data.digest:
            names.add(resource.data.digest)
            if resource.id in written:
                names.add(resource.data.digest + WRITABLE)
    return names


def content_of(layout: Layout, model: Model, *, writable: bool = False) -> Path:
    """Where a model's files are; `writable` those that a private copy is made of."""
    return layout.models / (model.digest + (WRITABLE if writable else "")) / CONTENT


# --- functions without a container --------------------------------------------------------------------------


def resource_prefix(layout: Layout, group: Group, function: Function) -> str:
    """What AWS_GG_RESOURCE_PREFIX says to a function: `/` in a container, else a directory in which its models stand at
    their destinations; empty if it has none. Another one when a model changes."""
    if isolation_of(group, function) is not Isolation.NO_CONTAINER:
        return "/"
    links = _links(layout, group, function)
    return str(layout.model_links / _name(function, links)) if links else ""


def prepare(layout: Layout, group: Group, before: Group) -> None:
    """Make gates and links those of `group`, before its functions start; links of `before` stay for its functions.

    Can be repeated and cut off at any point. Raises StorageFailed if the disk refuses, or keeps no access lists.
    """
    try:
        _open_gates(layout, group)
        _make_links(layout, group, before)
    except OSError as error:
        raise StorageFailed(f"the models in {layout.models} cannot be prepared: {error}") from error


def _links(layout: Layout, group: Group, function: Function) -> list[tuple[str, str]]:
    models = attached_models(group, function)
    return sorted((model.destination_path, str(content_of(layout, model))) for _, model, _ in models)


def _name(function: Function, links: list[tuple[str, str]]) -> str:
    return hashlib.sha256(json.dumps([function.arn, links]).encode()).hexdigest()[:32]


def _make_links(layout: Layout, group: Group, before: Group) -> None:
    wanted = {}
    for function in group.user_functions:
        if isolation_of(group, function) is Isolation.NO_CONTAINER and (links := _links(layout, group, function)):
            wanted[_name(function, links)] = links
    kept = {os.path.basename(resource_prefix(layout, before, function)) for function in before.user_functions}
    if not wanted and not layout.model_links.is_dir():
        return
    layout.model_links.mkdir(exist_ok=True)
    for name in os.listdir(layout.model_links):
        if name not in wanted and name not in kept:
            shutil.rmtree(layout.model_links / name, ignore_errors=True)
    for name, links in wanted.items():
        if (layout.model_links / name).is_dir():
            continue
        draft = layout.model_links / f"new-{uuid.uuid4().hex}"
        for destination, target in links:
            path = draft / destination.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(target)
        for directory, _, _ in os.walk(draft):
            os.chmod(directory, 0o755)
        os.rename(draft, layout.model_links / name)


def _open_gates(layout: Layout, group: Group) -> None:
    owners: dict[str, set[int]] = {}
    for resource in group.resources:
        if isinstance(resource.data, Model) and resource.data.digest:
            gids = owners.setdefault(resource.data.digest, set())
            gid = group_id(resource.data.owner.group_owner) if resource.data.owner else None
            if gid is not None:  # an unknown one is refused where a function is attached
                gids.add(gid)
    for digest, gids in owners.items():
        gate = layout.models / digest
        if gate.is_dir():
            _let_pass(gate, gids)


def _let_pass(gate: Path, gids: Iterable[int]) -> None:
    """Let these groups, and nobody else but the owner, pass a directory."""
    wanted = _access_list(sorted(gids)) if gids else b""
    if wanted == _current_list(gate):
        if not wanted and stat.S_IMODE(gate.stat().st_mode) != GATE:
            gate.chmod(GATE)
        return
    if not wanted:
        os.removexattr(gate, _ACL)
        gate.chmod(GATE)
        return
    try:
        os.setxattr(gate, _ACL, wanted)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        hint = f"Mount the file system of {gate.parent} with access control lists, or run the function in a container."
        text = f"{gate}: the file system keeps no access control lists, so no group can own a model there."
        raise StorageFailed(text, hint=hint) from error


def _access_list(gids: Iterable[int]) -> bytes:
    """A POSIX access control list as the kernel takes it: the owner everything, each group entry and passage."""
    entries = [(_USER_OBJ, 0o7, _NOBODY), (_GROUP_OBJ, 0, _NOBODY)]
    entries += [(_GROUP, _PASS, gid) for gid in gids]
    entries += [(_MASK, _PASS, _NOBODY), (_OTHER, 0, _NOBODY)]
    return struct.pack("<I", _ACL_VERSION) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def _current_list(gate: Path) -> bytes:
    try:
        return os.getxattr(gate, _ACL)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            raise
        return b""
