"""Room on a disk: whether there is enough, and what to say if there is not. Blocking for one look at the disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ggfast import limits

_FULL = (errno.ENOSPC, errno.EDQUOT)


def missing_bytes(directory: Path, wanted: int) -> int:
    """How many bytes the disk of `directory` lacks for `wanted` more, leaving limits.PACKAGE_SPARE_BYTES free; 0: none.

    Raises OSError.
    """
    status = os.statvfs(directory)
    return max(wanted + limits.PACKAGE_SPARE_BYTES - status.f_bavail * status.f_frsize, 0)


def is_full(error: BaseException) -> bool:
    """Whether a full disk is what this error comes from."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno in _FULL:
            return True
        found = found.__cause__
    return False


def full_text(path: Path, missing: int) -> str:
    """What is told of a full disk: where, and how many bytes are missing."""
    text = f"write {path}: no space left on device"
    return f"{text}: {missing} bytes are missing" if missing else f"{text}: too many files, or a quota of the account"
