"""From a model's archive to its place in a staged group; core/functions/models.py says what lies there.

An archive is somebody else's and judged whole before the first byte is written (sandbox row 52): names, links, devices,
bombs. What is refused leaves nothing. An archive that was unpacked before, by its SHA-256, is not unpacked again.
Blocking; meant for a thread or a command.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from ggfast import limits
from ggfast.core.functions.models import CONTENT, GATE, WRITABLE
from ggfast.core.functions.packages import Form, unpack
from ggfast.errors import StorageFailed


def stage_model(
    archive: Path,
    target: Path,
    live: Path,
    *,
    needs_parent: bool,
    writable: bool = False,
    owner: tuple[int, int] | None = None,
) -> str:
    """Unpack `archive` (.zip or .tar.gz) into the directory `target` unless it, or `live`, has its content already.

    Returns the archive's SHA-256. `needs_parent`: files of a .tar.gz must lie in a directory of it, as V1 demanded of
    archives from S3. `writable` also makes the form for functions that may write. Raises ConfigError naming what is
    wrong with the archive, LimitReached if the disk has no room, StorageFailed if it fails.
    """
    try:
        digest = _digest(archive)
        for name in (digest, digest + WRITABLE) if writable else (digest,):
            if not (live / name / CONTENT).is_dir() and not (target / name).exists():
                _unpack(archive, target / name, needs_parent, owner)
        changed = _digest(archive) != digest
    except OSError as error:
        raise StorageFailed(f"the model archive {archive} cannot be read: {error}") from error
    if changed:
        raise StorageFailed(f"the model archive {archive} changed while it was read")
    return digest


def _unpack(archive: Path, gate: Path, needs_parent: bool, owner: tuple[int, int] | None) -> None:
    form = Form(
        "model archive",
        "a model archive: .zip or .tar.gz",
        limits.MODEL_ARCHIVE_BYTES_MAX,
        limits.MODEL_BYTES_MAX,
        folder=False,
        needs_parents=needs_parent,
    )
    gate.mkdir()
    try:
        gate.chmod(GATE)
        if owner is not None:
            os.chown(gate, *owner)
        unpack(archive, gate / CONTENT, python=False, owner=owner, form=form)
        if gate.name.endswith(WRITABLE):
            for directory, _, names in os.walk(gate / CONTENT):
                os.chmod(directory, 0o777)
                for name in names:
                    path = os.path.join(directory, name)
                    os.chmod(path, os.lstat(path).st_mode & 0o111 | 0o666)
    except BaseException:
        shutil.rmtree(gate, ignore_errors=True)
        raise


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
