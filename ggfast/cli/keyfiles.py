"""Writing keys and certificates: whole or not at all, private from the first byte, never over another by accident."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from ggfast.errors import OperatingError


def write_file(path: Path, content: bytes, *, mode: int, force: bool) -> None:
    """Put `content` at `path` with `mode`, durable on return: written beside, synced, linked or renamed into place.

    Without `force` an existing file is kept and FileExistsError raised, also when it appeared a moment ago.
    Raises OSError when the disk refuses. Blocking (fsync)."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        if force:
            os.replace(beside, path)
        else:
            os.link(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    _sync_folder(path.parent)


def refuse_existing(paths: Sequence[Path], force: bool) -> None:
    """Raise OperatingError, naming them all, if any of `paths` is there and may not be replaced."""
    found = [str(path) for path in paths if os.path.lexists(path)]
    if found and not force:
        raise OperatingError(f"{' and '.join(found)} exist already.", hint="Give --force to replace them.")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
