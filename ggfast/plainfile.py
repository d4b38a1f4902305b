"""Opening files that somebody else put there: a regular file or nothing, at once."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_plain(path: Path, *, follow_links: bool = True) -> BinaryIO:
    """The regular file at `path`, for reading. Raises OSError for anything else; a FIFO does not block."""
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "found no regular file", str(path))
    return os.fdopen(descriptor, "rb")
