"""The key that workers' tokens are made with: one file, so that a token outlives the daemon that gave it out.

A token is an HMAC over the worker's instance name; whoever has the key can make anybody's. The file is 0600 in the
daemon's own state directory, which functions do not see. One that others could have read, or that is not a key, is
replaced: workers from before are then strangers and have to be started anew.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from ggfast.log import SystemLog
from ggfast.storage.privatefiles import write_private

KEY_BYTES: Final = 32


def token_of(key: bytes, instance: str) -> str:
    """The token of a worker, the same each time."""
    return hmac.new(key, instance.encode(), hashlib.sha256).hexdigest()


def load_key(path: Path, log: SystemLog) -> bytes:
    """Read the key, or make one where there is none that can be trusted; one that can not be written is said so.

    A restart in between leaves either the old file or the new one. Blocks for one small read or write; never raises.
    """
    key, problem = _read(path)
    if key is not None:
        return key
    if problem:
        log.warn("The key of the functions' tokens is replaced.", file=str(path), reason=problem)
    key = secrets.token_bytes(KEY_BYTES)
    try:
        _write(path, key)
    except OSError as error:
        text = "The key of the functions' tokens can not be kept: after a restart they do not count any more."
        log.error(text, file=str(path), reason=error.strerror)
    return key


def _read(path: Path) -> tuple[bytes | None, str]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, f"found a file that can not be opened ({error.strerror}), expected a regular one"
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            return None, "found no regular file of one name"
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) != 0o600:
            found = f"mode {stat.S_IMODE(status.st_mode):04o} of user {status.st_uid}"
            return None, f"found {found}, expected 0600 of user {os.geteuid()}"
        data = os.read(fd, KEY_BYTES + 1)
    except OSError as error:
        return None, f"it can not be read: {error.strerror}"
    finally:
        os.close(fd)
    return (data, "") if len(data) == KEY_BYTES else (None, f"found {status.st_size} bytes, expected {KEY_BYTES}")


def _write(path: Path, key: bytes) -> None:
    if path.is_dir() and not path.is_symlink():
        path.rmdir()  # an empty one; with anything in it the error says so
    write_private(path, key)
