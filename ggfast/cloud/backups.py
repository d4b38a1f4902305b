"""One file that holds a whole control plane, written while it is served, and the way back.

A tar of mode 0600: `digests.json` (SHA-256 of every other file, first), settings, authority, sealing key, a copy of
the store made by SQLite's own backup (one unchanging state), and the artifacts. Artifacts are taken after the store:
each one a document names was on disk before the document, so none is missing.
"""

from __future__ import annotations

import hashlib
import io
import os
import sqlite3
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path

import orjson

from ggfast.cloud.limits import BACKUP_LIST_BYTES_MAX, COPY_BYTES
from ggfast.cloud.settings import CloudFolder
from ggfast.errors import OperatingError
from ggfast.storage.privatefiles import sync_folder

DIGESTS = "digests.json"
_FORM = 1


def back_up(folder: CloudFolder, target: Path) -> int:
    """Write the backup; how many files are in it. Nothing is at `target` unless all is. Blocks for as long as reading
    everything takes. Raises OperatingError if `target` is there already, OSError when the disk refuses."""
    if os.path.lexists(target):
        raise OperatingError(f"{target} is there already.", hint="Give a new name; backups are not replaced.")
    with tempfile.TemporaryDirectory(prefix=".backup-", dir=target.parent) as place:
        copy = Path(place) / "store.db"
        _copy_store(folder.store, copy)
        files = {"store.db": copy}
        files |= {path.name: path for path in (folder.settings, folder.ca, folder.ca_key, folder.master_key)}
        for path in sorted(folder.artifacts.glob("*/*")):
            if not path.name.startswith("."):
                files[f"artifacts/{path.parent.name}/{path.name}"] = path
        part = Path(place) / "backup.tar"
        _write(part, files)
        os.link(part, target)
    sync_folder(target.parent)
    return len(files)


def restore(source: Path, folder: CloudFolder) -> int:
    """Make a control plane in an empty folder; how many files. Every digest is checked before settings make it one.
    Blocks. Raises OperatingError for a file that is no whole backup, OSError when the disk refuses."""
    try:
        with tarfile.open(source, "r:") as tar:
            return _unpack(tar, folder)
    except (tarfile.TarError, ValueError, KeyError, EOFError) as error:
        raise OperatingError(f"{source} is no backup of a control plane, or a damaged one: {error}.") from error


def _copy_store(store: Path, copy: Path) -> None:
    descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.close(descriptor)
    try:
        with (
            closing(sqlite3.connect(f"file:{_quoted(store)}?mode=ro", uri=True)) as live,
            closing(sqlite3.connect(copy)) as kept,
        ):
            live.backup(kept)
            kept.execute("PRAGMA journal_mode = DELETE")
            kept.commit()
    except sqlite3.Error as error:
        raise OperatingError(f"the store {store} cannot be copied: {error}.") from error


def _write(part: Path, files: dict[str, Path]) -> None:
    digests = {name: _digest(path) for name, path in files.items()}
    head = orjson.dumps({"form": _FORM, "files": digests}, option=orjson.OPT_INDENT_2)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        with tarfile.open(fileobj=file, mode="w:", format=tarfile.PAX_FORMAT) as tar:
            entry = tarfile.TarInfo(DIGESTS)
            entry.size, entry.mode = len(head), 0o600
            tar.addfile(entry, io.BytesIO(head))
            for name, path in files.items():
                with path.open("rb") as content:
                    entry = tarfile.TarInfo(name)
                    entry.size, entry.mode = os.fstat(content.fileno()).st_size, 0o600
                    tar.addfile(entry, content)
        file.flush()
        os.fsync(file.fileno())


def _unpack(tar: tarfile.TarFile, folder: CloudFolder) -> int:
    head = tar.next()
    if head is None or head.name != DIGESTS or not head.isreg() or head.issparse() or head.size > BACKUP_LIST_BYTES_MAX:
        raise ValueError("its list of digests is missing")
    listed = tar.extractfile(head)
    assert listed is not None
    document = orjson.loads(listed.read())
    if not isinstance(document, dict) or document.get("form") != _FORM or not isinstance(document.get("files"), dict):
        raise ValueError("its list of digests is of another form")
    expected: dict[str, str] = document["files"]
    folder.artifacts.mkdir(mode=0o700)
    settings: bytes | None = None
    seen = set()
    while (entry := tar.next()) is not None:
        plain = entry.isreg() and not entry.issparse()  # a sparse file fills a disk from a few bytes
        if entry.name not in expected or entry.name in seen or not plain or not _is_ours(entry.name):
            raise ValueError(f"it holds {entry.name!r}, which does not belong to it")
        seen.add(entry.name)
        target = folder.root / entry.name
        if entry.name == folder.settings.name:
            target = target.with_suffix(".part")
            settings = b""
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _extract(tar, entry, target) != expected[entry.name]:
            raise ValueError(f"{entry.name} is not what was written")
    if seen != set(expected) or settings is None:
        raise ValueError("files are missing in it")
    sync_folder(folder.root)
    os.replace(folder.settings.with_suffix(".part"), folder.settings)
    sync_folder(folder.root)
    return len(seen)


def _extract(tar: tarfile.TarFile, entry: tarfile.TarInfo, target: Path) -> str:
    content = tar.extractfile(entry)
    assert content is not None
    digest = hashlib.sha256()
    mode = 0o644 if entry.name == "ca.crt" else 0o600
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        while part := content.read(COPY_BYTES):
            digest.update(part)
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _is_ours(name: str) -> bool:
    """Whether a name leads to a place of the folder that a backup fills, and nowhere else."""
    parts = name.split("/")
    if len(parts) == 1:
        return name in ("store.db", "cloud.json", "ca.crt", "ca.key", "master.key")
    digest = parts[-1]
    hexadecimal = len(digest) == 64 and set(digest) <= set("0123456789abcdef")
    return len(parts) == 3 and parts[0] == "artifacts" and hexadecimal and parts[1] == digest[:2]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
