"""Paths that somebody else named: checked as text, then walked component by component without following links.

A function with a writable volume can turn any directory of it into a link at any time. So a path is never
resolved by the kernel's ordinary rules (sandbox.md section 5): the spawner looks here, and the executor walks
again in the child and compares what it finds.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from ggfast import limits
from ggfast._ext import kernel
from ggfast.errors import SandboxFailed


@dataclass(frozen=True, slots=True)
class Found:
    """What a walk ended at: the S_IFMT part of its mode, the device it is in and, for a node, the device it names."""

    kind: int
    device: int
    node: int


def text_problem(path: object) -> str | None:
    """What is wrong with `path` as text, or None: absolute, no empty, `.` or `..` component, no NUL, bounded."""
    if not isinstance(path, str):
        return f"found {type(path).__name__}, expected a path"
    if not path.startswith("/"):
        return f"found {path[:80]!r}, expected an absolute path"
    try:
        size = len(os.fsencode(path))
    except UnicodeEncodeError:  # JSON can carry half a surrogate pair; no file name can
        return f"found {path[:80]!a}, expected valid Unicode"
    if size > limits.SANDBOX_PATH_BYTES_MAX:
        return f"found {len(path)} characters, expected at most {limits.SANDBOX_PATH_BYTES_MAX}"
    if any(character < " " or character == "\x7f" for character in path):
        return "found a control character, expected a plain path"
    if path != "/" and any(part in ("", ".", "..") for part in path[1:].split("/")):
        return f"found {path[:200]!r}, expected no empty, '.' or '..' component"
    return None


def is_below(path: str, prefix: str) -> bool:
    """Whether `path` is `prefix` or lies below it; both without a trailing slash."""
    return prefix == "/" or path == prefix or path.startswith(prefix + "/")


def below_any(path: str, prefixes: Iterable[str]) -> str | None:
    """The first prefix that `path` equals or lies below."""
    return next((prefix for prefix in prefixes if is_below(path, prefix)), None)


def open_walk(path: str) -> int:
    """An O_PATH descriptor for an absolute path; blocks like a look-up.

    Raises SandboxFailed("walk") with ELOOP where the path contains a link, ENOENT where it ends early.
    """
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return kernel.walk(root, os.fsencode(path))
    except OSError as error:
        reason = "a link or '..' in it" if error.errno == 40 else os.strerror(error.errno or 0)
        raise SandboxFailed(
            "walk",
            error.errno or 0,
            f"{path}: found {reason}, expected a path without links",
            hint="Give the real path (`realpath`).",
        ) from None
    finally:
        os.close(root)


def inspect(path: str) -> Found:
    """Walk to `path` and say what is there; raises SandboxFailed like open_walk."""
    fd = open_walk(path)
    try:
        status = os.fstat(fd)
    finally:
        os.close(fd)
    kind = stat.S_IFMT(status.st_mode)
    return Found(kind, status.st_dev, status.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0)
