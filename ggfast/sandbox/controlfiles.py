"""Reading and writing the small files of /proc and of control groups."""

from __future__ import annotations

import os


def read_text(path: str, maximum: int = 1 << 20) -> str:
    """A small file of /proc or a cgroup; raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while maximum > 0 and (part := os.read(fd, min(maximum, 65536))):
            parts.append(part)
            maximum -= len(part)
        return b"".join(parts).decode("utf-8", "surrogateescape")
    finally:
        os.close(fd)


def write_text(path: str, text: str) -> None:
    """One write(2) to a control file; raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
