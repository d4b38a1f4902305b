"""Artifacts of a deployment, from the control plane to the disk: by digest, resumed after whatever cut them off.

    deployment/downloads/<sha256>        whole and checked
    deployment/downloads/<sha256>.part   the beginning of one

What arrives is worth nothing until its SHA-256 and size are those of the deployment: a power cut may leave any bytes
behind. Blocking between requests; meant for a process of its own. Source: greengrass-core 12.3 (words of failures).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Protocol, Self

from ggfast import limits
from ggfast.core.deploy.offer import Artifact
from ggfast.core.deploy.room import full_text, is_full, missing_bytes
from ggfast.errors import DeploymentFailed, GgfastError, LimitReached, LinkDown, Rejected, StorageFailed

DOWNLOAD_FAILED: Final = "unable to execute download step in deployment. error while downloading: "
_PART: Final = ".part"
_TRY_AGAIN: Final = (408, 425, 429)  # of the refusals: those that pass
_NO_SUCH_RANGE: Final = 416

Sink = Callable[[bytes], None]
Pause = Callable[[float], Awaitable[object]]


class Source(Protocol):
    """The part of core.controlplane.ControlPlane that is needed."""

    async def artifact(self, digest: str, offset: int, sink: Sink) -> None:
        """Hand the content from `offset` on to `sink`, piece by piece. Raises LinkDown, Rejected, other PeerErrors."""


class Downloads:
    """The directory of downloads, for one process at a time: a context manager. `pause` waits, in seconds."""

    def __init__(self, directory: Path, source: Source, pause: Pause = asyncio.sleep) -> None:
        self._directory = directory
        self._source = source
        self._pause = pause
        self._lock = -1

    def __enter__(self) -> Self:
        """Raises DeploymentFailed, and LinkDown while the process of a core that has ended still uses it."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._storage_failed(self._directory, error, 0) from error
        deadline = time.monotonic() + limits.FETCH_LOCK_S
        while not self._locked():
            if time.monotonic() > deadline:
                os.close(self._lock)
                raise LinkDown(f"{DOWNLOAD_FAILED}another process is downloading to {self._directory}")
            time.sleep(limits.FETCH_LOCK_S / 100)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None and is_full(error):
            self.clear()
        os.close(self._lock)

    def prepare(self, wanted: Iterable[Artifact]) -> None:
        """Remove what is not of these, and see that the disk has room for them all.

        Raises DeploymentFailed if it has not, with the path and the missing bytes.
        """
        sizes = {artifact.digest: artifact.size for artifact in wanted}
        try:
            for entry in list(os.scandir(self._directory)):
                plain = entry.is_file(follow_symlinks=False)
                if not plain or entry.name.removesuffix(_PART) not in sizes:
                    _remove(entry)
            missing = missing_bytes(self._directory, sum(self._missing(digest, size) for digest, size in sizes.items()))
        except OSError as error:
            raise self._storage_failed(self._directory, error, 0) from error
        if missing and any(self._missing(digest, size) for digest, size in sizes.items()):
            self.clear()
            raise failed(full_text(self._directory, missing))

    async def fetch(self, wanted: Artifact) -> Path:
        """The file with this content, downloaded as far as it is not here.

        Raises DeploymentFailed: refused for good, wrong content again and again, disk full. Raises LinkDown after
        limits.FETCH_PAUSES_S without a byte: what has arrived is kept for the next time.
        """
        target = self._directory / wanted.digest
        try:
            if target.exists():
                if _content(target) == (wanted.size, wanted.digest):
                    return target
                target.unlink()
            await _Transfer(self._source, self._pause, self._part(wanted.digest), wanted).run()
            os.replace(self._part(wanted.digest), target)
        except (OSError, StorageFailed) as error:
            rest = self._missing(wanted.digest, wanted.size)
            raise self._storage_failed(target, error, rest) from error
        return target

    def clear(self) -> None:
        """Remove everything; what cannot go now goes when the next deployment is fetched."""
        with contextlib.suppress(OSError):
            for entry in list(os.scandir(self._directory)):
                _remove(entry)

    def _part(self, digest: str) -> Path:
        return self._directory / (digest + _PART)

    def _missing(self, digest: str, size: int) -> int:
        """How many bytes are not here yet; more than there should be are rubbish that will be replaced."""
        for path in (self._directory / digest, self._part(digest)):
            if path.exists():
                return max(size - path.stat().st_size, 0)
        return size

    def _locked(self) -> bool:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _storage_failed(self, path: Path, error: OSError | StorageFailed, rest: int) -> DeploymentFailed:
        if is_full(error):
            return failed(full_text(path, missing_bytes(self._directory, rest)))
        return failed(f"write {path}: {error}")


def failed(detail: str) -> DeploymentFailed:
    """A failure in V1's words; nothing live has been touched."""
    return DeploymentFailed("download", DOWNLOAD_FAILED + detail, rolled_back=True)


class _Transfer:
    """One artifact on its way into `part`."""

    def __init__(self, source: Source, pause: Pause, part: Path, wanted: Artifact) -> None:
        self._source, self._pause, self._part, self._wanted = source, pause, part, wanted
        self._next_pause = limits.FETCH_PAUSE_FIRST_S
        self._paused = 0.0
        self._refused = self._wrong = 0

    async def run(self) -> None:
        """Until the content is whole and right."""
        while True:
            progress = False
            with _Part(self._part, self._wanted) as part:
                before = part.length
                trouble = await self._request(part) if part.length < self._wanted.size else None
                progress = part.length > before
                fault = part.fault()
            if fault is None and trouble is None:
                return
            if fault is not None and (part.is_whole or trouble is None):
                self._start_over(fault)
            elif trouble is not None:
                await self._wait(trouble, progress)

    async def _request(self, part: _Part) -> GgfastError | None:
        """Ask for the rest; what went wrong, None if the answer is whole."""
        before = part.length
        try:
            await self._source.artifact(self._wanted.digest, before, part.write)
        except GgfastError as error:
            part.raise_if_failed()
            if part.is_whole:
                return None
            if isinstance(error, Rejected) and error.reason_code == _NO_SUCH_RANGE:
                part.is_whole = True  # for the control plane it has an end here
                return None
            return error
        if before < part.length < self._wanted.size:
            return LinkDown(f"the answer ended after {part.length} of {self._wanted.size} bytes")
        return None

    def _start_over(self, fault: str) -> None:
        self._part.unlink(missing_ok=True)
        self._wrong += 1
        if self._wrong >= limits.FETCH_WRONG_MAX:
            raise failed(f"{self._name}: {fault}")

    async def _wait(self, trouble: GgfastError, progress: bool) -> None:
        """Before another try. Raises what it is given up with."""
        if isinstance(trouble, Rejected) and 400 <= trouble.reason_code < 500 and trouble.reason_code not in _TRY_AGAIN:
            self._refused += 1
            if self._refused >= limits.FETCH_REFUSALS_MAX:
                raise failed(f"{self._name}: {trouble}") from trouble
        if progress:
            self._next_pause, self._paused = limits.FETCH_PAUSE_FIRST_S, 0.0
        if self._paused >= limits.FETCH_PAUSES_S:
            raise LinkDown(f"{DOWNLOAD_FAILED}{self._name}: {trouble}") from trouble
        await self._pause(self._next_pause)
        self._paused += self._next_pause
        self._next_pause = min(2 * self._next_pause, limits.FETCH_PAUSE_MAX_S)

    @property
    def _name(self) -> str:
        """For people: what the artifact is for."""
        first, *others = self._wanted.names or (self._wanted.digest,)
        return f"{first} and {len(others)} more" if others else first


class _Part:
    """The file of an unfinished download, with the digest of what it holds."""

    def __init__(self, path: Path, wanted: Artifact) -> None:
        self._path, self._wanted = path, wanted
        self._hash = hashlib.sha256()
        self._failure: OSError | None = None
        self._file: BinaryIO
        self.length = 0
        self.is_whole = False  # nothing more is to come, whether it is what was wanted or not

    def __enter__(self) -> Self:
        self._file = self._path.open("a+b", buffering=0)
        os.fchmod(self._file.fileno(), 0o600)
        self._file.seek(0)
        while chunk := self._file.read(limits.MIB):
            self._hash.update(chunk)
            self.length += len(chunk)
        self.is_whole = self.length >= self._wanted.size
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        """Append. Raises LimitReached for more than there should be, StorageFailed if the disk refuses."""
        if self.length + len(data) > self._wanted.size:
            self.is_whole, self.length = True, self.length + len(data)
            raise LimitReached("the size of an artifact in bytes", self.length, self._wanted.size)
        try:
            view = memoryview(data)
            while view:
                written = self._file.write(view)
                view = view[written:]
        except OSError as error:
            self._failure = error
            raise StorageFailed(f"{self._path} cannot be written: {error}") from error
        self._hash.update(data)
        self.length += len(data)
        self.is_whole = self.length == self._wanted.size

    def raise_if_failed(self) -> None:
        """Whatever became of it on its way through the connection: the disk's refusal is what counts."""
        if self._failure is not None:
            raise self._failure

    def fault(self) -> str | None:
        """What is wrong with the content as it is, None if nothing."""
        if self.length > self._wanted.size:
            return f"it is larger than {self._wanted.size} bytes"
        if self.length < self._wanted.size:
            return f"it ends after {self.length} bytes instead of {self._wanted.size}"
        found = self._hash.hexdigest()
        return None if found == self._wanted.digest else f"its SHA-256 is {found} instead of {self._wanted.digest}"


def _content(path: Path) -> tuple[int, str]:
    """Size and SHA-256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest


def _remove(entry: os.DirEntry[str]) -> None:
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path)
    else:
        os.unlink(entry.path)
