"""Files by the SHA-256 of their content: code of functions, models, archives.

    DIR/<first two hex digits>/<digest>

A file appears under its name only when all of it is on disk, so a name that is there has its content.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ggfast.cloud.limits import COPY_BYTES
from ggfast.errors import StorageFailed

_DIGEST = re.compile(r"[0-9a-f]{64}")


class ArtifactFolder:
    """See the module. Everything blocks; safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, content: bytes) -> str:
        """See `surroundings.Artifacts`."""
        digest = hashlib.sha256(content).hexdigest()
        path = self.path(digest)
        if path.is_file() and path.stat().st_size == len(content):
            return digest
        return self._keep(iter([content]))[0]

    def keep_file(self, file: BinaryIO) -> tuple[str, int]:
        """Like `keep` for what is left to read of a file, piece by piece; its SHA-256 in hex and its bytes."""
        return self._keep(iter(lambda: file.read(COPY_BYTES), b""))

    def _keep(self, parts: Iterator[bytes]) -> tuple[str, int]:
        found, size = hashlib.sha256(), 0
        part = self._folder / f".{secrets.token_hex(16)}.part"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                for content in parts:
                    file.write(content)
                    found.update(content)
                    size += len(content)
                file.flush()
                os.fsync(file.fileno())
            path = self.path(found.hexdigest())
            path.parent.mkdir(mode=0o700, exist_ok=True)
            os.replace(part, path)
            _sync_directory(path.parent)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise StorageFailed(f"an artifact of {size} bytes or more cannot be kept: {error}.") from error
        return found.hexdigest(), size

    def read(self, digest: str) -> bytes:
        """See `surroundings.Artifacts`."""
        try:
            content = self.path(digest).read_bytes()
        except OSError as error:
            raise _unreadable(digest, error) from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise _damaged(digest)
        return content

    def checked(self, digest: str) -> Path:
        """See `surroundings.Artifacts`."""
        path = self.path(digest)
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _unreadable(digest, error) from error
        if found != digest:
            raise _damaged(digest)
        return path

    def size(self, digest: str) -> int:
        """See `surroundings.Artifacts`."""
        try:
            return self.path(digest).stat().st_size
        except OSError:
            return -1

    def path(self, digest: str) -> Path:
        """Where the file lies. Raises StorageFailed for what is no digest."""
        if _DIGEST.fullmatch(digest) is None:
            raise StorageFailed(f"{digest[:80]!r} is no SHA-256 in hex")
        return self._folder / digest[:2] / digest


def _unreadable(digest: str, error: OSError) -> StorageFailed:
    return StorageFailed(f"the artifact {digest} cannot be read: {error}.")


def _damaged(digest: str) -> StorageFailed:
    return StorageFailed(f"the artifact {digest} is damaged.", hint="Restore it from a backup.")


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
