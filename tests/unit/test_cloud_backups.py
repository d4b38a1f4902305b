"""Backups that somebody else has written: nothing outside the folder, nothing half taken for whole."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from ggfast.cloud.backups import DIGESTS, restore
from ggfast.cloud.settings import CloudFolder
from ggfast.errors import OperatingError

Entry = tuple[str, bytes, Callable[[tarfile.TarInfo], None]]
CODE = b"code"
DIGEST = hashlib.sha256(CODE).hexdigest()
PLACE = f"artifacts/{DIGEST[:2]}/{DIGEST}"
NAMES = ("store.db", "ca.crt", "ca.key", "master.key", "cloud.json")


def plain(_entry: tarfile.TarInfo) -> None:
    pass


def a(kind: bytes, target: str = "") -> Callable[[tarfile.TarInfo], None]:
    def change(entry: tarfile.TarInfo) -> None:
        entry.type, entry.linkname = kind, target
        if kind != tarfile.GNUTYPE_SPARSE:
            entry.size = 0

    return change


def sparse(entry: tarfile.TarInfo) -> None:
    """A terabyte of nothing, in the form that names its parts in a header."""
    entry.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.map": "0,4",
        "GNU.sparse.size": str(2**40),
    }


def written(folder: Path, *more: Entry, digests: dict[str, str] | None = None) -> Path:
    """A whole backup with further entries."""
    entries: list[Entry] = [(name, name.encode(), plain) for name in NAMES] + [(PLACE, CODE, plain), *more]
    known = {name: hashlib.sha256(content).hexdigest() for name, content, _ in entries} | (digests or {})
    head = (DIGESTS, orjson.dumps({"form": 1, "files": known}), plain)
    path = folder / "backup.tar"
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as tar:
        for name, content, change in [head, *entries]:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            change(entry)
            tar.addfile(entry, io.BytesIO(content))
    return path


def test_a_whole_backup_is_restored_for_its_owner_alone(tmp_path: Path) -> None:
    root = tmp_path / "new"
    root.mkdir()
    assert restore(written(tmp_path), CloudFolder(root)) == 6
    assert (root / PLACE).read_bytes() == CODE
    modes = {path.name: path.stat().st_mode & 0o777 for path in root.rglob("*")}
    assert {name for name, mode in modes.items() if mode & 0o077} == {"ca.crt"}


OTHER = f"artifacts/00/{'0' * 64}"
HOSTILE: dict[str, Entry] = {
    "up": ("../outside", b"x", plain),
    "up from within": ("artifacts/../../outside", b"x", plain),
    "absolute": ("/tmp/outside", b"x", plain),
    "another file": ("tls/server.key", b"x", plain),
    "another place": (f"artifacts/ff/{DIGEST}", b"x", plain),
    "twice": ("ca.crt", b"ca.crt", plain),
    "link": (OTHER, b"", a(tarfile.SYMTYPE, "/etc/passwd")),
    "hard link": (OTHER, b"", a(tarfile.LNKTYPE, "ca.key")),
    "device": (OTHER, b"", a(tarfile.CHRTYPE)),
    "pipe": (OTHER, b"", a(tarfile.FIFOTYPE)),
    "folder": ("artifacts", b"", a(tarfile.DIRTYPE)),
    "sparse": (OTHER, b"abcd", sparse),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_entries_are_refused(case: str, tmp_path: Path) -> None:
    root = tmp_path / "in" / "new"
    root.mkdir(parents=True)
    with pytest.raises(OperatingError, match="does not belong to it"):
        restore(written(tmp_path, HOSTILE[case]), CloudFolder(root))
    assert not CloudFolder(root).settings.exists(), "it is no control plane"
    assert [path.name for path in tmp_path.rglob("outside")] == []


def test_what_is_not_whole_is_no_control_plane(tmp_path: Path) -> None:
    for number, digests in enumerate(({"ca.key": "0" * 64}, {OTHER: "0" * 64})):
        root = tmp_path / str(number)
        root.mkdir()
        with pytest.raises(OperatingError, match=r"not what was written|are missing"):
            restore(written(tmp_path, digests=digests), CloudFolder(root))
        assert not CloudFolder(root).settings.exists()
