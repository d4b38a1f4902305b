"""Function packages: from a folder or a zip archive to a directory a function can be run from, safely.

A package is somebody else's. Everything in it is judged before the first byte is written (sandbox row 52): names that
leave the target, absolute names, links, devices, setuid files, names that differ only by case, encryption, bombs.
Refused packages leave nothing behind. Files become 0644, or 0755 if they were executable, directories 0755.
Blocking; meant for a thread or a command.
"""

from __future__ import annotations

import errno
import hashlib
import os
import py_compile
import re
import shutil
import stat
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from ggfast import limits
from ggfast.core.functions import tararchive
from ggfast.core.functions.archive import Entry, read_content, read_entries
from ggfast.errors import ConfigError, LimitReached, Problem, StorageFailed

CODE_DIRECTORY: Final = "/lambda"  # where a function sees its package; tracebacks name files there
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_CHUNK_BYTES: Final = 256 * limits.KIB  # one read, one write


@dataclass(frozen=True, slots=True)
class Package:
    """An unpacked package: `digest` is a SHA-256 over names, contents and executability, whatever form it came in."""

    digest: str
    files: int
    size_bytes: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Form:
    """What kind of package is taken: its name in texts, what is said to be expected, its bounds in bytes."""

    noun: str = "function package"
    expected: str = "a function package: a folder or a zip archive"
    archive_bytes_max: int = field(default_factory=lambda: limits.PACKAGE_ARCHIVE_BYTES_MAX)
    bytes_max: int = field(default_factory=lambda: limits.PACKAGE_BYTES_MAX)
    folder: bool = True  # else a .tar.gz may stand for the zip
    needs_parents: bool = False  # of a .tar.gz: every file lies in a directory that the archive holds


@dataclass(frozen=True, slots=True)
class _Item:
    """One file or directory to be written."""

    name: str
    is_directory: bool
    executable: bool
    size_bytes: int
    content: Callable[[], Iterator[bytes]]


def unpack(
    source: Path,
    target: Path,
    *,
    python: bool = True,
    owner: tuple[int, int] | None = None,
    form: Form | None = None,
) -> Package:
    """Write the package at the real path `source` (folder, zip or what `form` takes) into the new directory `target`.

    `python` also compiles its modules, so that workers need not. `owner` (uid, gid) is given to everything written.
    Raises ConfigError naming each entry at fault, LimitReached if the disk has no room, StorageFailed if it fails.
    """
    form = form or Form()
    try:
        with _Source(source, target, form) as items:
            _judge(source, items, form)
            total = sum(item.size_bytes for item in items)
            _need_room(target.parent, total)
            _make_directory(target, owner)
            try:
                digest = _write(items, target, owner)
                notes = _compile(target, owner) if python else []
            except BaseException as error:
                shutil.rmtree(target, ignore_errors=True)
                if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                    _need_room(target.parent, total)  # somebody else has filled the disk meanwhile: says by how much
                raise
    except ValueError as error:
        raise _refused(source, form, [Problem(source.name, str(error), form.expected)]) from None
    except OSError as error:
        raise StorageFailed(f"the {form.noun} {source} cannot be unpacked to {target}: {error}") from error
    files = [item for item in items if not item.is_directory]
    return Package(digest, len(files), sum(item.size_bytes for item in files), tuple(notes))


class _Source:
    """The items of a folder or an archive; the archive stays open while they are read."""

    def __init__(self, source: Path, target: Path, form: Form) -> None:
        self._source = source
        self._target = target
        self._form = form
        self._file = None if source.is_dir() else os.fdopen(open_in_place(source), "rb")

    def __enter__(self) -> list[_Item]:
        try:
            if self._file is None:
                if not self._form.folder:
                    raise ValueError("a folder")
                return _folder_items(self._source)
            if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
                raise ValueError("neither a folder nor a regular file")
            file = self._file
            if not self._form.folder and file.peek(2)[:2] == tararchive.MAGIC:
                return _tar_items(file, self._source, self._target, self._form)
            entries = read_entries(file, self._form.archive_bytes_max)
            return [_archive_item(entry, lambda entry=entry: read_content(file, entry)) for entry in entries]  # type: ignore[misc]  # a default argument binds the loop variable
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()


def _archive_item(entry: Entry, content: Callable[[], Iterator[bytes]]) -> _Item:
    kind = stat.S_IFMT(entry.mode)
    if kind == stat.S_IFLNK:
        raise _Fault(entry.name, "a symbolic link")
    if kind not in (0, stat.S_IFDIR if entry.is_directory else stat.S_IFREG):
        raise _Fault(entry.name, "neither a regular file nor a directory")
    if not entry.is_directory and entry.mode & (stat.S_ISUID | stat.S_ISGID):
        raise _Fault(entry.name, "a setuid or setgid file")
    name = entry.name.removesuffix("/") if entry.is_directory else entry.name
    return _Item(name, entry.is_directory, bool(entry.mode & 0o111), entry.size_bytes, content)


def _tar_items(file: BinaryIO, source: Path, target: Path, form: Form) -> list[_Item]:
    entries = tararchive.read_entries(file, form.archive_bytes_max, form.bytes_max)
    held: set[str] = set()
    for entry in entries:
        parent = entry.name.rpartition("/")[0]
        if entry.is_directory:
            held.add(entry.name)
        elif parent not in held and (parent or form.needs_parents) and not _name_fault(entry.name):
            text = f"open {target}/{entry.name}: no such file or directory"
            raise ValueError(f"Error while unpacking the file from {source} to {target}, error: {text}")
    contents = tararchive.Contents(file, form.archive_bytes_max, form.bytes_max)
    return [
        _Item(entry.name, entry.is_directory, bool(entry.mode & 0o111), entry.size_bytes, partial(contents.read, entry))
        for entry in entries
        if entry.name
    ]


class _Fault(ValueError):
    """One entry is not taken."""

    def __init__(self, name: str, found: str) -> None:
        super().__init__(f"{name[:80]!r} is {found}")


def _folder_items(root: Path) -> list[_Item]:
    """Everything below `root` but compiled modules. A link to a file of the same folder counts as that file."""
    inside = f"{root}/"
    items: list[_Item] = []
    pending = [""]
    while pending:
        prefix = pending.pop()
        with _members(root / prefix) as found:
            for member in found:
                name = prefix + member.name
                if member.is_dir(follow_symlinks=False):
                    if member.name != "__pycache__":
                        items.append(_Item(name, True, False, 0, lambda: iter(())))
                        pending.append(name + "/")
                else:
                    items.append(_folder_file(root / name, name, inside))
                if len(items) > limits.PACKAGE_ENTRIES_MAX:
                    raise ValueError(f"more than {limits.PACKAGE_ENTRIES_MAX} entries")
        if prefix.count("/") > limits.PACKAGE_DEPTH_MAX:
            raise _Fault(prefix, f"more than {limits.PACKAGE_DEPTH_MAX} directories deep")
    return items


@contextmanager
def _members(directory: Path) -> Iterator[Iterator[os.DirEntry[str]]]:
    descriptor = open_in_place(directory)
    try:
        with os.scandir(descriptor) as found:
            yield found
    finally:
        os.close(descriptor)


def open_in_place(path: Path) -> int:
    """A descriptor for reading what lies at this real path. Raises ValueError if the path holds a link, OSError.

    Whoever owns the folder can exchange a directory of it for a link at any moment, and we may read what they may not.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise _Fault(path.name, "a symbolic link") from None
    if os.readlink(f"/proc/self/fd/{descriptor}") != os.fspath(path):
        os.close(descriptor)
        raise _Fault(path.name, "not where it was: a directory above it was moved, or is a symbolic link")
    return descriptor


def _folder_file(path: Path, name: str, inside: str) -> _Item:
    if path.is_symlink():
        target = os.path.realpath(path)
        if not target.startswith(inside) or not os.path.isfile(target):
            raise _Fault(name, f"a symbolic link to {os.readlink(path)!r}, which is no file of the package")
        path = Path(target)
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode):
        raise _Fault(name, "neither a regular file nor a directory")
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise _Fault(name, "a setuid or setgid file")
    return _Item(name, False, bool(status.st_mode & 0o111), status.st_size, lambda: _file_content(path, status.st_size))


def _file_content(path: Path, size: int) -> Iterator[bytes]:
    descriptor = open_in_place(path)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _Fault(path.name, "no longer a regular file")
        length = 0
        while chunk := file.read(_CHUNK_BYTES):
            length += len(chunk)
            if length > size:
                break
            yield chunk
        if length != size:
            raise _Fault(path.name, "a file that changed while it was read")


# --- judging ----------------------------------------------------------------------------------------------


def _judge(source: Path, items: list[_Item], form: Form) -> None:
    problems: list[Problem] = []
    kinds: dict[str, bool] = {}
    spelled: dict[str, str] = {}
    for item in items:
        fault = _name_fault(item.name) or _clash(item, kinds, spelled)
        if fault:
            problems.append(Problem(ascii(item.name)[:100], fault, "a plain name below the package's root"))
        if len(problems) >= limits.PACKAGE_FAULTS_MAX:
            break
    total = sum(item.size_bytes for item in items)
    if len(items) > limits.PACKAGE_ENTRIES_MAX:
        problems.append(Problem(source.name, f"{len(items)} entries", f"at most {limits.PACKAGE_ENTRIES_MAX}"))
    if total > form.bytes_max:
        problems.append(Problem(source.name, f"{total} bytes unpacked", f"at most {form.bytes_max}"))
    if source.is_file() and total > limits.PACKAGE_RATIO_FREE_BYTES:
        packed = source.stat().st_size
        if total > packed * limits.PACKAGE_RATIO_MAX:
            found = f"{total} bytes out of {packed}"
            problems.append(Problem(source.name, found, f"at most {limits.PACKAGE_RATIO_MAX} times the packed size"))
    if problems:
        raise _refused(source, form, problems)


def _name_fault(name: str) -> str:
    """What is wrong with an entry's name, empty if nothing."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return "a name that is not UTF-8"
    parts = name.split("/")
    if name.startswith("/") or _DRIVE.match(name):
        return "an absolute name"
    if any(part == ".." for part in parts):
        return "a name that leaves the package"
    if "\\" in name or any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in name):
        return "a name with a backslash or control characters"
    if any(part in ("", ".") for part in parts):
        return "a name with empty parts or dots alone"
    if len(encoded) > limits.PACKAGE_NAME_BYTES_MAX or any(
        len(part.encode()) > limits.PACKAGE_NAME_PART_BYTES_MAX for part in parts
    ):
        return f"a name of {len(encoded)} bytes"
    if len(parts) > limits.PACKAGE_DEPTH_MAX:
        return f"a name of {len(parts)} levels"
    return ""


def _clash(item: _Item, kinds: dict[str, bool], spelled: dict[str, str]) -> str:
    """Whether the item, or a directory it lies in, cannot stand beside what was there before."""
    parts = item.name.split("/")
    for depth in range(1, len(parts) + 1):
        path = "/".join(parts[:depth])
        is_directory = depth < len(parts) or item.is_directory
        first = spelled.setdefault(unicodedata.normalize("NFC", path).casefold(), path)
        if first != path:
            return f"a name that differs from {ascii(first)[:80]} only by case or accents"
        if path in kinds and (kinds[path] != is_directory or not is_directory):
            return "a second entry of the same name"
        kinds[path] = is_directory
    return ""


def _need_room(directory: Path, wanted: int) -> None:
    status = os.statvfs(directory)
    room = status.f_bavail * status.f_frsize
    if wanted + limits.PACKAGE_SPARE_BYTES > room:
        hint = f"Make room in {directory}: {limits.PACKAGE_SPARE_BYTES} bytes must stay free."
        raise LimitReached("the unpacked size of the package in bytes", wanted, max(room, 0), hint=hint)


def _refused(source: Path, form: Form, problems: list[Problem]) -> ConfigError:
    return ConfigError(f"The {form.noun} {source.name} is refused.", problems)


# --- writing ----------------------------------------------------------------------------------------------


def _write(items: list[_Item], target: Path, owner: tuple[int, int] | None) -> str:
    """Write all items below the empty directory `target`; the digest of the package."""
    made = {""}
    lines = []
    for item in items:
        path = target / item.name
        _make_parents(target, item.name if item.is_directory else os.path.dirname(item.name), made, owner)
        if item.is_directory:
            continue
        content = hashlib.sha256()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            for chunk in item.content():
                content.update(chunk)
                file.write(chunk)
            os.fchmod(file.fileno(), 0o755 if item.executable else 0o644)
            if owner is not None:
                os.fchown(file.fileno(), *owner)
        lines.append(f"{item.name}\0{int(item.executable)}\0{item.size_bytes}\0{content.hexdigest()}\n".encode())
    return hashlib.sha256(b"".join(sorted(lines))).hexdigest()


def _make_parents(target: Path, directory: str, made: set[str], owner: tuple[int, int] | None) -> None:
    parts = directory.split("/")
    for depth in range(1, len(parts) + 1):
        path = "/".join(parts[:depth])
        if path not in made:
            _make_directory(target / path, owner)
            made.add(path)


def _make_directory(path: Path, owner: tuple[int, int] | None) -> None:
    path.mkdir()
    path.chmod(0o755)
    if owner is not None:
        os.chown(path, *owner)


def _compile(target: Path, owner: tuple[int, int] | None) -> list[str]:
    """Compile every module beside its source; what does not compile is noted, the function may never import it."""
    notes: list[str] = []
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in sorted(target.rglob("*.py")):
            name = path.relative_to(target)
            if not path.is_file() or path.stat().st_size > limits.PACKAGE_COMPILE_BYTES_MAX:
                continue
            try:
                compiled = py_compile.compile(
                    str(path), dfile=f"{CODE_DIRECTORY}/{name}", doraise=True, invalidation_mode=mode
                )
            except (py_compile.PyCompileError, OSError, ValueError, RecursionError, MemoryError) as error:
                if len(notes) < limits.PACKAGE_FAULTS_MAX:
                    notes.append(f"{name} is not compiled: {str(error).strip().splitlines()[-1][:200]}")
                continue
            if compiled is not None:
                _settle_compiled(Path(compiled), owner)
    return notes


def _settle_compiled(compiled: Path, owner: tuple[int, int] | None) -> None:
    compiled.chmod(0o644)
    compiled.parent.chmod(0o755)
    if owner is not None:
        os.chown(compiled, *owner)
        os.chown(compiled.parent, *owner)
