"""Function packages, mostly hostile ones (sandbox row 52): refused, and nothing is left in or outside the target."""

from __future__ import annotations

import importlib.util
import io
import marshal
import os
import socket
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ggfast import limits
from ggfast.core.functions import packages
from ggfast.core.functions.handlers import make_executable, missing_handler
from ggfast.core.functions.packages import unpack
from ggfast.errors import ConfigError, LimitReached, StorageFailed
from ggfast.group.runtimes import Language

MAIN = b"def handler(event, context):\n    return event\n"
Archive = Callable[..., Path]


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """A function that writes a zip of (name, content, Unix mode) entries, names and modes exactly as given."""

    def write(*entries: tuple[str | bytes, bytes, int], method: int = zipfile.ZIP_DEFLATED, system: int = 3) -> Path:
        path = tmp_path / "package.zip"
        with zipfile.ZipFile(path, "w", method) as zipped:
            for name, content, mode in entries:
                info = zipfile.ZipInfo("x")
                info.filename = info.orig_filename = name if isinstance(name, str) else name.decode("latin-1")
                info.external_attr = mode << 16
                info.create_system = system
                info.compress_type = method
                zipped.writestr(info, content)
        return path

    return write


def tree(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Relative name → permission bits and content of every file that came with the package."""
    return {
        str(path.relative_to(directory)): (stat.S_IMODE(path.stat().st_mode), path.read_bytes())
        for path in sorted(directory.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def assert_refused(source: Path, tmp_path: Path, text: str = "") -> None:
    before = sorted(os.walk(tmp_path))
    with pytest.raises(ConfigError, match=text or None) as error:
        unpack(source, tmp_path / "target")
    assert error.value.problems
    assert source.name in str(error.value)
    assert sorted(os.walk(tmp_path)) == before, "nothing inside or outside the target"


# --- what is taken ---


def test_folder_and_zip_of_the_same_content_are_the_same_package(archive: Archive, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "lib" / "empty").mkdir(parents=True)
    (folder / "main.py").write_bytes(MAIN)
    (folder / "lib" / "tool").write_bytes(b"#!/bin/sh\n")
    (folder / "lib" / "tool").chmod(0o711)
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "main.cpython-311.pyc").write_bytes(b"stale")
    zipped = archive(("lib/tool", b"#!/bin/sh\n", 0o100755), ("main.py", MAIN, 0o100640))
    first = unpack(folder, tmp_path / "first")
    second = unpack(zipped, tmp_path / "second")
    assert (first.digest, first.files, first.size_bytes) == (second.digest, 2, len(MAIN) + 10)
    assert tree(tmp_path / "first") == tree(tmp_path / "second")
    assert tree(tmp_path / "first") == {"lib/tool": (0o755, b"#!/bin/sh\n"), "main.py": (0o644, MAIN)}
    assert (tmp_path / "first" / "lib" / "empty").is_dir()


def test_digest_follows_names_contents_and_executability(archive: Archive, tmp_path: Path) -> None:
    packed = [
        [("a", b"1", 0o644)],
        [("a", b"2", 0o644)],
        [("b", b"1", 0o644)],
        [("a", b"1", 0o755)],
        [("a", b"1", 0o644), ("b", b"", 0o644)],
        [("a", b"", 0o644), ("b", b"1", 0o644)],
    ]
    digests = [unpack(archive(*entries), tmp_path / str(n)).digest for n, entries in enumerate(packed)]
    assert len(set(digests)) == len(packed)
    assert unpack(archive(("b", b"", 0o644), ("a", b"1", 0o644)), tmp_path / "order").digest == digests[4]


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_modes_do_not_depend_on_the_umask(mask: int, archive: Archive, tmp_path: Path) -> None:
    source = archive(("d/", b"", 0o40777), ("d/a.py", MAIN, 0o100777), ("d/b.py", MAIN, 0o100600))
    before = os.umask(mask)
    try:
        unpack(source, tmp_path / "target")
    finally:
        os.umask(before)
    assert tree(tmp_path / "target") == {"d/a.py": (0o755, MAIN), "d/b.py": (0o644, MAIN)}
    for path in (tmp_path / "target").rglob("*"):
        wanted = 0o755 if path.is_dir() or path.name == "a.py" else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_owner_is_given_to_everything(archive: Archive, tmp_path: Path) -> None:
    unpack(archive(("d/a.py", MAIN, 0o100644)), tmp_path / "target", owner=(4321, 4322))
    for path in (tmp_path / "target", *(tmp_path / "target").rglob("*")):
        assert (path.stat().st_uid, path.stat().st_gid) == (4321, 4322), path


def test_archives_of_other_systems(archive: Archive, tmp_path: Path) -> None:
    unpack(archive(("a.py", MAIN, 0), system=0), tmp_path / "dos")
    unpack(archive(("a.py", MAIN, 0o100755), method=zipfile.ZIP_STORED), tmp_path / "stored")
    assert tree(tmp_path / "dos") == {"a.py": (0o644, MAIN)}
    assert tree(tmp_path / "stored") == {"a.py": (0o755, MAIN)}


def test_an_archive_with_a_comment_and_one_behind_a_shell_script(archive: Archive, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive(("a.py", MAIN, 0o644)), "a") as zipped:
        zipped.comment = b"PK\x05\x06 and more" + b"x" * 1_000
    assert unpack(tmp_path / "package.zip", tmp_path / "target").files == 1


def test_modules_are_compiled_for_the_place_they_run_in(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "m.py").write_bytes(MAIN)
    (folder / "old.py").write_bytes(b"print 'two'\n")
    (folder / "nul.py").write_bytes(b"a\0b")
    (folder / "deep.py").write_bytes(b"(" * 5_000 + b")" * 5_000)
    (folder / "big.py").write_bytes(b"#" * (limits.PACKAGE_COMPILE_BYTES_MAX + 1))
    package = unpack(folder, tmp_path / "target")
    compiled = Path(importlib.util.cache_from_source(str(tmp_path / "target" / "sub" / "m.py"))).read_bytes()
    assert int.from_bytes(compiled[4:8], "little") == 0b01, "unchecked hash"
    assert marshal.loads(compiled[16:]).co_filename == "/lambda/sub/m.py"
    assert {note.split()[0] for note in package.notes} == {"old.py", "nul.py", "deep.py"}
    without = unpack(folder, tmp_path / "other", python=False)
    assert without.notes == ()
    assert without.digest == package.digest
    assert not list((tmp_path / "other").rglob("__pycache__"))


def test_compiling_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    unpack(tmp_path / "folder", tmp_path / "target")
    assert not (tmp_path / "ran").exists()


def test_modules_of_handlers(tmp_path: Path) -> None:
    for name in ("main.py", "pkg/__init__.py", "pkg/sub.py", "with-dash.py", "native.cpython-311-x86_64-linux-gnu.so"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for handler in ("main.handler", "pkg.handler", "pkg.sub.f", "pkg/sub.f", "with-dash.f", "native.f"):
        assert missing_handler(Language.PYTHON, tmp_path, handler) == "", handler
    for handler in ("other.handler", "pkg.other.f", "mai.n"):
        assert missing_handler(Language.PYTHON, tmp_path, handler).startswith("a module "), handler


def test_files_of_other_handlers(tmp_path: Path) -> None:
    for name in ("index.js", "lib/deep.mjs", "dir/index.js", "bin/echo", "com/acme/Fn.class", "com/acme/Fn$In.class"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for jar in ("fat.jar", "lib/part.jar"):
        with zipfile.ZipFile(tmp_path / jar, "w") as archive:
            archive.writestr(f"org/{jar[:3]}/Main.class", b"")
    (tmp_path / "broken.jar").write_bytes(b"no archive")
    there = {
        Language.NODEJS: ("index.handler", "lib/deep.f", "dir.f"),
        Language.JAVA: ("com.acme.Fn::run", "com.acme.Fn$In", "org.fat.Main::m", "org.lib.Main"),
        Language.EXECUTABLE: ("bin/echo",),
    }
    absent = {
        Language.NODEJS: ("other.handler", "lib/inde.x"),
        Language.JAVA: ("com.acme.Other", "Fn::run"),
        Language.EXECUTABLE: ("echo", "bin"),
    }
    for language, handlers in there.items():
        assert [missing_handler(language, tmp_path, handler) for handler in handlers] == [""] * len(handlers)
        assert all(missing_handler(language, tmp_path, handler) for handler in absent[language])
    make_executable(tmp_path, "bin/echo")
    assert (tmp_path / "bin" / "echo").stat().st_mode & 0o777 == 0o755


def test_hostile_archives_of_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jar = tmp_path / "a.jar"

    def missing() -> str:
        return missing_handler(Language.JAVA, tmp_path, "Fn::run")

    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr("\xe9.class", b"")
        archive.writestr("Fn.class", b"")
    good = jar.read_bytes()
    assert missing() == ""
    jar.write_bytes(b"#!/bin/sh\nexec java -jar $0\n" + good)
    assert missing() == ""
    directory = good.index(b"PK\x01\x02")
    jar.write_bytes(good[:directory] + good[directory:].replace("\xe9".encode(), b"\xff\xfe"))  # no UTF-8, as it says
    assert missing() == ""
    for damaged in (
        good[:directory] + good[directory:].replace(b"PK\x01\x02", b"PK\x01\x01"),
        good[:directory] + b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 9, 9, 0, 0, 0),
        b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 1, 1, 1000, 0, 0),
    ):
        jar.write_bytes(damaged)
        assert missing().startswith("a class Fn")
    # What is too large to be searched may hold anything.
    jar.write_bytes(b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 0xFFFF, 0xFFFF, 1000, 0, 0))
    assert missing() == ""
    jar.write_bytes(good)
    monkeypatch.setattr(limits, "PACKAGE_JAR_DIRECTORY_BYTES_MAX", 100)
    assert missing() == ""


# --- hostile archives ---


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "a/../../evil",
        "a/..",
        "..",
        "/etc/evil",
        "//evil",
        "C:/evil",
        "c:\\evil",
        "a\\..\\..\\evil",
        "..\\evil",
        "./evil",
        "a/./evil",
        "a//evil",
        ".",
        "a\0b",
        "a\nb",
        "\x7f",
        "a\u2028b",
        "x" * 241,
        "/".join(["d" * 200] * 6),
        "d/" * 33 + "f",
        "é" * 121,
    ],
)
def test_names_that_leave_or_mislead(name: str, archive: Archive, tmp_path: Path) -> None:
    assert_refused(archive(("ok.py", MAIN, 0o644), (name, b"x", 0o644)), tmp_path)
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("name", ["../evil/", "/evil/", "a/../b/"])
def test_directories_that_leave(name: str, archive: Archive, tmp_path: Path) -> None:
    assert_refused(archive((name, b"", 0o40755)), tmp_path)


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        (stat.S_IFLNK | 0o777, "a symbolic link"),
        (stat.S_IFCHR | 0o666, "neither"),
        (stat.S_IFBLK | 0o660, "neither"),
        (stat.S_IFIFO | 0o644, "neither"),
        (stat.S_IFSOCK | 0o644, "neither"),
        (stat.S_IFDIR | 0o755, "neither"),
        (stat.S_IFREG | 0o4755, "setuid"),
        (stat.S_IFREG | 0o2755, "setgid"),
        (0o4755, "setuid"),
    ],
)
def test_kinds_and_modes(mode: int, text: str, archive: Archive, tmp_path: Path) -> None:
    assert_refused(archive(("ok.py", MAIN, 0o644), ("thing", b"/etc/passwd", mode)), tmp_path, text)


@pytest.mark.parametrize(
    "names",
    [
        ("a.py", "A.py"),
        ("lib/x.py", "Lib/y.py"),
        ("stra\u00dfe", "STRASSE"),
        ("e\u0301", "\u00e9"),
        ("a", "a"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("a/", "a"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_clash(names: tuple[str, str], archive: Archive, tmp_path: Path) -> None:
    assert_refused(archive(*((name, b"", 0) for name in names)), tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_directory_twice_is_no_clash(archive: Archive, tmp_path: Path) -> None:
    source = archive(("a/", b"", 0o40755), ("a/x", b"1", 0o644), ("a/", b"", 0o42755), ("a/b/", b"", 0o40755))
    assert unpack(source, tmp_path / "target").files == 1


def test_bombs(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = bytes(limits.PACKAGE_RATIO_FREE_BYTES + 1)
    assert_refused(archive(("zeros", zeros, 0o644)), tmp_path, "times the packed size")
    monkeypatch.setattr(limits, "PACKAGE_BYTES_MAX", 1_000)
    assert_refused(archive(("a", bytes(600), 0o644), ("b", bytes(600), 0o644)), tmp_path, "1200 bytes unpacked")
    monkeypatch.setattr(limits, "PACKAGE_ENTRIES_MAX", 3)
    assert_refused(archive(*((f"f{n}", b"", 0) for n in range(4))), tmp_path, "4 entries")
    monkeypatch.setattr(limits, "PACKAGE_ARCHIVE_BYTES_MAX", 10)
    assert_refused(archive(("a", b"", 0)), tmp_path, "an archive of")


def patch(path: Path, at: int, layout: str, value: int) -> None:
    data = bytearray(path.read_bytes())
    struct.pack_into(layout, data, at, value)
    path.write_bytes(data)


def central(path: Path) -> int:
    return path.read_bytes().index(b"PK\x01\x02")


def test_an_entry_longer_than_it_says(archive: Archive, tmp_path: Path) -> None:
    source = archive(("a", b"x" * 100_000, 0o644))
    patch(source, central(source) + 24, "<L", 1_000)
    assert_refused(source, tmp_path, "longer than the 1000 bytes")


def test_an_entry_shorter_than_it_says(archive: Archive, tmp_path: Path) -> None:
    source = archive(("a", b"x" * 1_000, 0o644))
    patch(source, central(source) + 24, "<L", 2_000)
    assert_refused(source, tmp_path, "damaged")


def test_a_wrong_checksum(archive: Archive, tmp_path: Path) -> None:
    source = archive(("a", b"x" * 1_000, 0o644))
    patch(source, central(source) + 16, "<L", 1)
    assert_refused(source, tmp_path, "damaged")


@pytest.mark.parametrize("flag", [0x1, 0x40, 0x2000])
def test_encrypted_entries(flag: int, archive: Archive, tmp_path: Path) -> None:
    source = archive(("a", b"x", 0o644))
    patch(source, central(source) + 8, "<H", flag)
    assert_refused(source, tmp_path, "encrypted")
    source = archive(("a", b"x", 0o644))
    patch(source, 6, "<H", flag)
    assert_refused(source, tmp_path, "encrypted")


def test_other_methods(archive: Archive, tmp_path: Path) -> None:
    assert_refused(archive(("a", b"x", 0o644), method=zipfile.ZIP_LZMA), tmp_path, "method 14")
    assert_refused(archive(("a", b"x", 0o644), method=zipfile.ZIP_BZIP2), tmp_path, "method 12")


def test_two_names_for_one_entry(archive: Archive, tmp_path: Path) -> None:
    source = archive(("good", b"x", 0o644))
    data = source.read_bytes()
    source.write_bytes(data.replace(b"good", b"evil", 1))
    assert_refused(source, tmp_path, "another name")


def test_overlapping_entries(archive: Archive, tmp_path: Path) -> None:
    source = archive(("a", bytes(1_000), 0o644), ("b", bytes(1_000), 0o644))
    second = source.read_bytes().rindex(b"PK\x01\x02")
    patch(source, second + 42, "<L", 0)
    assert_refused(source, tmp_path, "overlaps")


def test_a_name_that_is_not_utf8(archive: Archive, tmp_path: Path) -> None:
    source = archive(("caf\u00e9", b"x", 0o644))
    source.write_bytes(source.read_bytes().replace("caf\u00e9".encode(), b"caf\xff\xfe"))
    assert_refused(source, tmp_path, "not UTF-8")


def test_archives_that_are_none(archive: Archive, tmp_path: Path) -> None:
    whole = archive(("a", b"x" * 5_000, 0o644), ("b", os.urandom(500), 0o644)).read_bytes()
    end = whole.rindex(b"PK\x05\x06")
    many = bytearray(whole)
    struct.pack_into("<HH", many, end + 8, 0xFFFF, 0xFFFF)
    for data in (b"", b"PK", b"#!/bin/sh\n", whole[:-1], whole[: end + 10], whole[20:], bytes(many), whole[:end] * 2):
        (tmp_path / "package.zip").write_bytes(data)
        assert_refused(tmp_path / "package.zip", tmp_path)


def test_sixty_four_bit_entries(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped, zipped.open("a", "w", force_zip64=True) as entry:
        entry.write(b"x")
    (tmp_path / "p.zip").write_bytes(buffer.getvalue())
    patch(tmp_path / "p.zip", central(tmp_path / "p.zip") + 24, "<L", 0xFFFFFFFF)
    assert_refused(tmp_path / "p.zip", tmp_path)


# --- hostile folders ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "folder"
    (path / "sub").mkdir(parents=True)
    (path / "main.py").write_bytes(MAIN)
    return path


def test_links_inside_become_files(folder: Path, tmp_path: Path) -> None:
    os.symlink("main.py", folder / "alias.py")
    os.symlink("../main.py", folder / "sub" / "up.py")
    os.symlink(folder / "main.py", folder / "absolute.py")
    unpack(folder, tmp_path / "target")
    assert set(tree(tmp_path / "target")) == {"main.py", "alias.py", "sub/up.py", "absolute.py"}
    assert not any(path.is_symlink() for path in (tmp_path / "target").rglob("*"))


@pytest.mark.parametrize("target", ["/etc/passwd", "../secret", "sub", ".", "nowhere", "loop", "/dev/zero"])
def test_links_elsewhere(target: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    os.symlink(target, folder / "loop")
    assert_refused(folder, tmp_path, "a symbolic link")


@pytest.mark.parametrize("step", ["_folder_file", "_judge", "_write"])
def test_directories_that_become_links_meanwhile(
    step: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key").write_text("of root")
    (folder / "sub" / "key").write_text("no secret")
    original = getattr(packages, step)

    def exchange(*arguments: Any) -> Any:
        if not (folder / "sub").is_symlink():
            os.rename(folder / "sub", tmp_path / "moved")
            os.symlink(tmp_path / "private", folder / "sub")
        return original(*arguments)

    monkeypatch.setattr(packages, step, exchange)
    with pytest.raises(ConfigError, match="symbolic link"):
        unpack(folder, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_package_below_a_link(folder: Path, archive: Archive, tmp_path: Path) -> None:
    os.symlink(tmp_path, tmp_path / "link")
    assert_refused(tmp_path / "link" / folder.name, tmp_path, "symbolic link")
    assert_refused(tmp_path / "link" / archive(("a.py", MAIN, 0)).name, tmp_path, "symbolic link")


def test_special_files(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "pipe")
    assert_refused(folder, tmp_path, "neither")
    (folder / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        assert_refused(folder, tmp_path, "neither")
    (folder / "socket").unlink()
    os.mknod(folder / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert_refused(folder, tmp_path, "neither")


def test_setuid_files_in_folders(folder: Path, tmp_path: Path) -> None:
    (folder / "main.py").chmod(0o4755)
    assert_refused(folder, tmp_path, "setuid")


def test_folder_names_that_mislead(folder: Path, tmp_path: Path) -> None:
    (folder / "a\nb").write_bytes(b"")
    assert_refused(folder, tmp_path, "control characters")
    (folder / "a\nb").unlink()
    (folder / os.fsdecode(b"\xff")).write_bytes(b"")
    assert_refused(folder, tmp_path, "not UTF-8")


def test_deep_folders(folder: Path, tmp_path: Path) -> None:
    (folder / ("d/" * 40)).mkdir(parents=True)
    assert_refused(folder, tmp_path, "deep|levels")


def test_a_package_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed):
        unpack(tmp_path / "missing.zip", tmp_path / "target")
    assert_refused(Path("/dev/null"), tmp_path, "regular file")
    os.symlink("/dev/null", tmp_path / "null.zip")
    assert_refused(tmp_path / "null.zip", tmp_path, "a symbolic link")


# --- the disk ---


def test_no_room(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PACKAGE_SPARE_BYTES", 1 << 62)
    with pytest.raises(LimitReached, match="Make room"):
        unpack(folder, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_failing_disk_leaves_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packages.os, "fchmod", fail)
    with pytest.raises(StorageFailed, match="No space left"):
        unpack(folder, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_an_existing_target_is_not_touched(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "precious").write_text("p")
    with pytest.raises(StorageFailed):
        unpack(folder, tmp_path / "target")
    assert (tmp_path / "target" / "precious").read_text() == "p"
