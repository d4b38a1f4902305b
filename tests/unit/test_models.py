"""Machine-learning models: hostile archives, unpacked once, gates and links (greengrass-core 8, sandbox row 52)."""

from __future__ import annotations

import gzip
import io
import os
import random
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from group_support import FULL, FUNCTION, changed, parse, problems_of

from ggfast import limits
from ggfast.core.functions import models, packages
from ggfast.core.functions.model_archives import stage_model
from ggfast.core.functions.models import CONTENT, WRITABLE, prepare, resource_prefix
from ggfast.errors import ConfigError, LimitReached, SandboxFailed, StorageFailed
from ggfast.group.document import (
    Execution,
    Function,
    FunctionConfiguration,
    Group,
    Isolation,
    ModelOwner,
    Permission,
    Resource,
    ResourceAccessPolicy,
    S3Model,
)
from ggfast.layout import Layout
from ggfast.sandbox.policy import Mount, Policy

Entry = tuple[str, bytes, dict[str, Any]]


def entry(name: str, content: bytes = b"", **fields: Any) -> Entry:
    return name, content, fields


def folder(name: str, **fields: Any) -> Entry:
    return entry(name, type=tarfile.DIRTYPE, mode=0o755, **fields)


def tar_bytes(*entries: Entry, form: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar archive with exactly these headers."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, content, fields in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def repaired(data: bytes, at: int = 0) -> bytes:
    """The same with the checksum of the header at `at` made right."""
    header = data[at : at + 148] + b" " * 8 + data[at + 156 : at + 512]
    return data[: at + 148] + b"%06o\0 " % sum(header) + data[at + 156 :]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def written(data: bytes) -> Path:
        path = tmp_path / "model.tar.gz"
        path.write_bytes(data)
        return path

    return written


def tree(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Relative name → permission bits and content; directories have none."""
    return {
        str(path.relative_to(directory)): (
            stat.S_IMODE(path.lstat().st_mode),
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(directory.rglob("*"))
    }


def staged(archive: Path, *, needs_parent: bool = False, **more: Any) -> tuple[Path, str]:
    target, live = archive.parent / "staged", archive.parent / "live"
    target.mkdir(exist_ok=True)
    live.mkdir(exist_ok=True)
    return target, stage_model(archive, target, live, needs_parent=needs_parent, **more)


def refused(archive: Path, **more: Any) -> str:
    """The text of the refusal; nothing may be left behind."""
    with pytest.raises(ConfigError) as error:
        staged(archive, **more)
    assert list((archive.parent / "staged").iterdir()) == []
    assert {path.name for path in archive.parent.iterdir()} == {archive.name, "staged", "live"}
    assert "The model archive" in str(error.value)
    return str(error.value)


# --- what is taken ----------------------------------------------------------------------------------------

GOOD = (folder("net"), entry("net/weights", b"w" * 70_000), entry("net/run", b"#!", mode=0o4711 & 0o777))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_gz_and_its_modes(form: int, write: Callable[[bytes], Path]) -> None:
    target, digest = staged(write(gzip.compress(tar_bytes(*GOOD, form=form))), needs_parent=True)
    assert tree(target / digest / CONTENT) == {
        "net": (0o755, b""),
        "net/weights": (0o644, b"w" * 70_000),
        "net/run": (0o755, b"#!"),
    }
    assert stat.S_IMODE((target / digest).stat().st_mode) == 0o700, "nobody but the core passes"
    assert stat.S_IMODE((target / digest / CONTENT).stat().st_mode) == 0o755


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names(form: int, write: Callable[[bytes], Path]) -> None:
    name = "/".join(["d" * 30] * (4 if form == tarfile.USTAR_FORMAT else 20))
    parents = [folder("/".join(["d" * 30] * depth)) for depth in range(1, name.count("/") + 1)]
    target, digest = staged(write(gzip.compress(tar_bytes(*parents, entry(name, b"deep"), form=form))))
    assert (target / digest / CONTENT / name).read_bytes() == b"deep"


def test_an_archive_made_in_its_own_directory(write: Callable[[bytes], Path]) -> None:
    data = tar_bytes(folder("./"), entry("./labels", b"cat"), folder("./a"), entry("./a/b", b"c"))
    target, digest = staged(write(gzip.compress(data)), needs_parent=True)
    assert set(tree(target / digest / CONTENT)) == {"labels", "a", "a/b"}


def test_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("net/weights", b"w")
    target, digest = staged(tmp_path / "model.zip", needs_parent=True)
    assert tree(target / digest / CONTENT)["net/weights"] == (0o644, b"w")


def test_the_form_for_functions_that_may_write(write: Callable[[bytes], Path]) -> None:
    target, digest = staged(write(gzip.compress(tar_bytes(*GOOD))), writable=True)
    assert {path.name for path in target.iterdir()} == {digest, digest + WRITABLE}
    assert {name: mode for name, (mode, _) in tree(target / (digest + WRITABLE) / CONTENT).items()} == {
        "net": 0o777,
        "net/weights": 0o666,
        "net/run": 0o777,
    }
    assert stat.S_IMODE((target / (digest + WRITABLE)).stat().st_mode) == 0o700


def test_an_unpacked_model_is_not_unpacked_again(write: Callable[[bytes], Path], tmp_path: Path) -> None:
    archive = write(gzip.compress(tar_bytes(*GOOD), mtime=0))
    target, digest = staged(archive)
    before = (target / digest / CONTENT / "net/weights").stat()
    staged(archive)
    after = (target / digest / CONTENT / "net/weights").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    os.rename(target / digest, tmp_path / "live" / digest)
    staged(archive)
    assert list(target.iterdir()) == []
    (tmp_path / "live" / digest / CONTENT).rename(tmp_path / "gone")
    staged(archive)
    assert (target / digest / CONTENT / "net/weights").is_file(), "a damaged one is"


# --- V1's rule about parents ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "s3", "sagemaker"),
    [
        ((entry("weights", b"w"),), False, True),
        ((entry("net/weights", b"w"),), False, False),
        ((folder("net"), entry("net/deep/weights", b"w")), False, False),
        ((entry("net/weights", b"w"), folder("net")), False, False),
        ((folder("net"), entry("net/weights", b"w")), True, True),
    ],
)
def test_files_need_a_directory_of_the_archive(
    entries: tuple[Entry, ...], s3: bool, sagemaker: bool, write: Callable[[bytes], Path]
) -> None:
    archive = write(gzip.compress(tar_bytes(*entries)))
    for needs_parent, good in ((True, s3), (False, sagemaker)):
        if good:
            target, digest = staged(archive, needs_parent=needs_parent)
            shutil.rmtree(target / digest)
        else:
            text = refused(archive, needs_parent=needs_parent)
            assert f"Error while unpacking the file from {archive} to " in text
            assert ": no such file or directory" in text


# --- hostile archives -------------------------------------------------------------------------------------

LINK = {"linkname": "/etc/passwd"}
HOSTILE: dict[str, tuple[tuple[Entry, ...], str]] = {
    "symbolic link": ((entry("a", type=tarfile.SYMTYPE, **LINK),), "is a symbolic link"),
    "hard link": ((entry("x", b"1"), entry("a", type=tarfile.LNKTYPE, linkname="x")), "is a hard link"),
    "link then file through it": (
        (entry("a", type=tarfile.SYMTYPE, linkname="/tmp"), entry("a/b", b"x")),
        "is a symbolic link",
    ),
    "character device": ((entry("a", type=tarfile.CHRTYPE, devmajor=1, devminor=3),), "is a device"),
    "block device": ((entry("a", type=tarfile.BLKTYPE, devmajor=8),), "is a device"),
    "pipe": ((entry("a", type=tarfile.FIFOTYPE),), "is a named pipe"),
    "contiguous": ((entry("a", b"x", type=tarfile.CONTTYPE),), "an entry of type '7'"),
    "sparse": ((entry("a", type=tarfile.GNUTYPE_SPARSE),), "is a sparse file"),
    "vendor": ((entry("a", type=b"Z"),), "an entry of type 'Z'"),
    "absolute": ((entry("/etc/x", b"x"),), "an absolute name"),
    "absolute directory": ((folder("/etc"),), "an absolute name"),
    "parent": ((entry("../x", b"x"),), "a name that leaves"),
    "parent inside": ((folder("a"), folder("a/.."), entry("a/../../x", b"x")), "a name that leaves"),
    "parent directory": ((folder(".."),), "a name that leaves"),
    "dots behind dots": ((entry("./../x", b"x"),), "a name that leaves"),
    "empty parts": ((folder("a"), folder("a//b"), entry("a//b/x", b"x")), "empty parts"),
    "dot inside": ((folder("a"), folder("a/."), entry("a/./x", b"x")), "dots alone"),
    "backslash": ((entry("a\\..\\x", b"x"),), "a backslash"),
    "control": ((entry("a\nb", b"x"),), "control characters"),
    "drive": ((entry("C:x", b"x"),), "an absolute name"),
    "twice": ((entry("a", b"1"), entry("a", b"2")), "a second entry"),
    "case": ((entry("a", b"1"), entry("A", b"2")), "only by case"),
    "file as directory": ((entry("a", b"1"), folder("a"), entry("a/b", b"2")), "a second entry"),
    "setuid": ((entry("a", b"1", mode=0o4755),), "setuid or setgid"),
    "setgid": ((entry("a", b"1", mode=0o2755),), "setuid or setgid"),
    "too deep": (
        tuple(folder("/".join("d" * depth)) for depth in range(1, limits.PACKAGE_DEPTH_MAX + 2)),
        f"a name of {limits.PACKAGE_DEPTH_MAX + 1} levels",
    ),
    "long part": ((entry("n" * 250, b"1"),), "a name of 250 bytes"),
    "name of nothing": ((entry("./", b"1"),), "a file without a name"),
    "name ends in a slash": ((entry("a/", b"1", type=b"0"),), "empty parts"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=["gnu", "pax"])
def test_hostile_tar_archives(name: str, form: int, write: Callable[[bytes], Path]) -> None:
    entries, text = HOSTILE[name]
    data = tar_bytes(entry("first", b"harmless"), *entries, form=form)
    if name == "name ends in a slash":  # the library takes it off
        data = repaired(data.replace(b"a\0", b"a/", 1) if b"a/\0" not in data else data, 1024)
    assert text in refused(write(gzip.compress(data)))


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    """An extended header before a small file."""
    header = tar_bytes(entry("ext", records, type=kind))[: 512 + -(-len(records) // 512) * 512]
    return header + tar_bytes(entry("file", b"content"))


def record(key: str, value: str) -> bytes:
    body = f" {key}={value}\n".encode()
    size = len(body) + 1
    while len(str(size)) + len(body) != size:
        size = len(str(size)) + len(body)
    return str(size).encode() + body


EXTENDED: dict[str, tuple[bytes, str]] = {
    "sparse": (pax(record("GNU.sparse.major", "1")), "'GNU.sparse.major', which models do not need"),
    "size": (pax(record("size", "100000000")), "'size', which models do not need"),
    "link": (pax(record("linkpath", "/etc")), "'linkpath', which models do not need"),
    "name for all": (pax(record("path", "a"), b"g"), "'path', which models do not need"),
    "size for all": (pax(record("size", "1"), b"g"), "'size', which models do not need"),
    "two names": (pax(record("path", "a") + record("path", "b")), "two names"),
    "name that leaves": (pax(record("path", "../a")), "a name that leaves"),
    "binary name": (pax(b"11 path=\xff\xfe\n"[:2] + b" path=\xff\xfe\n"), "not UTF-8"),
    "other encoding": (pax(record("hdrcharset", "BINARY")), "expected UTF-8"),
    "length of nothing": (pax(b"0 path=a\n"), "damaged"),
    "length too far": (pax(b"999 path=a\n"), "damaged"),
    "length of letters": (pax(b"xx path=a\n"), "damaged"),
    "huge number": (pax(b"9" * 400 + b" path=a\n"), "damaged"),
    "no value": (pax(b"7 path\n"), "damaged"),
    "empty": (pax(b""), "an extended header of 0 bytes"),
    "long name and extended name": (
        tar_bytes(entry("L", b"long\0", type=b"L"))[:1024] + pax(record("path", "b")),
        "has two names",
    ),
    "long name with a second inside": (
        tar_bytes(entry("L", b"long\0er", type=b"L"))[:1024] + tar_bytes(entry("f", b"1")),
        "a long name that is damaged",
    ),
    "long name of nothing": (tar_bytes(entry("L", b"long\0", type=b"L")), "ends with a long name of nothing"),
    "huge extension": (
        tar_bytes(entry("x", b"a" * (limits.MODEL_EXTENSION_BYTES_MAX + 1), type=b"x")),
        f"at most {limits.MODEL_EXTENSION_BYTES_MAX} are allowed",
    ),
}


@pytest.mark.parametrize("name", EXTENDED)
def test_hostile_extended_headers(name: str, write: Callable[[bytes], Path]) -> None:
    data, text = EXTENDED[name]
    assert text in refused(write(gzip.compress(data)))


def test_many_extended_headers(write: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    file = tar_bytes(entry("file", b"content"))
    extension = pax(record("comment", "y" * 1000)).removesuffix(file)
    monkeypatch.setattr(limits, "MODEL_EXTENSIONS_BYTES_MAX", 5 * 1100)
    assert "more than 5500 bytes of extended headers" in refused(write(gzip.compress(extension * 6 + file)))
    assert staged(write(gzip.compress(extension * 5 + file)))


def test_harmless_extended_headers(write: Callable[[bytes], Path]) -> None:
    records = record("mtime", "1.5") + record("LIBARCHIVE.xattr.user.x", "y") + record("path", "other")
    target, digest = staged(write(gzip.compress(pax(records))))
    assert tree(target / digest / CONTENT) == {"other": (0o644, b"content")}


PLAIN = tar_bytes(entry("a", b"x" * 1000), entry("b", b"y"))
BROKEN: dict[str, tuple[bytes, str]] = {
    "no archive": (b"hello", "not a zip archive"),
    "empty": (b"", "not a zip archive"),
    "gzip of text": (gzip.compress(b"hello" * 1000), "not a tar archive"),
    "gzip of nothing": (gzip.compress(b""), "cut off"),
    "gzip of a zip": (gzip.compress(b"PK\x05\x06" + bytes(600)), "not a tar archive"),
    "cut off gzip": (gzip.compress(PLAIN)[:-20], "cut off"),
    "wrong checksum": (gzip.compress(PLAIN)[:-8] + b"\1\2\3\4" + gzip.compress(PLAIN)[-4:], "a damaged gzip file"),
    "wrong length": (gzip.compress(PLAIN)[:-4] + b"\1\2\3\4", "a damaged gzip file"),
    "bytes behind": (gzip.compress(PLAIN) + b"more", "bytes behind its end"),
    "two members": (gzip.compress(PLAIN[:512]) + gzip.compress(PLAIN[512:]), "bytes behind its end"),
    "content cut off": (gzip.compress(PLAIN[:700]), "cut off"),
    "no end": (gzip.compress(PLAIN[:2560]), "cut off"),
    "one empty block": (gzip.compress(PLAIN[:3072]), "cut off"),
    "empty block inside": (gzip.compress(bytes(512) + PLAIN), "an empty header in it"),
    "an archive behind the end": (gzip.compress(PLAIN + PLAIN), "bytes behind its end"),
    "header checksum": (gzip.compress(b"b" + PLAIN[1:]), "a damaged one"),
    "old format": (gzip.compress(repaired(PLAIN[:257] + bytes(8) + PLAIN[265:])), "not a tar archive"),
    "negative length": (gzip.compress(repaired(PLAIN[:124] + b"-0000000001\0" + PLAIN[136:])), "no octal number"),
    "binary length": (gzip.compress(repaired(PLAIN[:124] + b"\x80" + bytes(10) + b"\5" + PLAIN[136:])), "no octal"),
    "empty length": (gzip.compress(repaired(PLAIN[:124] + bytes(12) + PLAIN[136:])), "no octal number"),
    "huge length": (gzip.compress(repaired(PLAIN[:124] + b"77777777777\0" + PLAIN[136:])), "cut off"),
    "huge mode": (gzip.compress(repaired(PLAIN[:100] + b"0120644\0" + PLAIN[108:])), "setuid or setgid"),
    "name that is not UTF-8": (gzip.compress(repaired(b"\xff" + PLAIN[1:])), "not UTF-8"),
    "directory with content": (
        gzip.compress(repaired(PLAIN[:156] + b"5" + PLAIN[157:])),
        "a directory of 1000 bytes",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_archives_that_are_none(name: str, write: Callable[[bytes], Path]) -> None:
    data, text = BROKEN[name]
    assert text in refused(write(data))


def test_a_folder_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(StorageFailed):
        staged(tmp_path / "model")


def test_bombs(write: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PACKAGE_RATIO_FREE_BYTES", limits.MIB)
    zeros = tar_bytes(folder("a"), entry("a/b", bytes(8 * limits.MIB)))
    assert "more than 100 times its packed size" in refused(write(gzip.compress(zeros)))
    monkeypatch.setattr(limits, "PACKAGE_RATIO_MAX", 1_000_000)
    monkeypatch.setattr(limits, "MODEL_BYTES_MAX", 4 * limits.MIB)
    assert f"at most {4 * limits.MIB}" in refused(write(gzip.compress(zeros)))
    monkeypatch.setattr(limits, "MODEL_HEADERS_BYTES_MAX", limits.MIB)
    assert f"more than {5 * limits.MIB} bytes unpacked" in refused(write(gzip.compress(zeros)))
    monkeypatch.setattr(limits, "MODEL_ARCHIVE_BYTES_MAX", 100)
    assert "at most 100 are allowed" in refused(write(gzip.compress(zeros)))


def test_too_many_entries(write: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PACKAGE_ENTRIES_MAX", 10)
    assert "at most 10" in refused(write(gzip.compress(tar_bytes(*(entry(str(n)) for n in range(11))))))
    assert "more than 10 entries" in refused(write(gzip.compress(tar_bytes(*(entry(str(n)) for n in range(30))))))
    many = b"".join(pax(record("mtime", "1"))[:1024] for _ in range(30))
    assert "more than 10 entries" in refused(write(gzip.compress(many)))


def test_no_room(write: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PACKAGE_SPARE_BYTES", 1 << 60)
    with pytest.raises(LimitReached):
        staged(write(gzip.compress(tar_bytes(*GOOD))))


def test_a_failing_disk_leaves_nothing(
    write: Callable[[bytes], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packages.os, "fchmod", failing)
    with pytest.raises(StorageFailed, match="No space left"):
        staged(write(gzip.compress(tar_bytes(*GOOD))))
    assert list((tmp_path / "staged").iterdir()) == []


# --- random archives --------------------------------------------------------------------------------------


def random_entries(chance: random.Random) -> list[Entry]:
    """Mostly harmless; sometimes not."""
    entries: list[Entry] = []
    directories = [""]
    for _ in range(chance.randrange(1, 12)):
        parent = chance.choice(directories)
        name = parent + chance.choice(["a", "b", "weights", "é", "x" * 120, "..", ".", "A", "ab c"])
        kind = chance.random()
        if kind < 0.3:
            entries.append(folder(name))
            directories.append(name + "/")
        elif kind < 0.93:
            content = chance.randbytes(chance.choice([0, 1, 511, 512, 513, 5000]))
            entries.append(entry(name, content, mode=chance.choice([0o644, 0o755, 0o600, 0o4755, 0o444])))
        else:
            entries.append(entry(name, type=chance.choice([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])))
    return entries


def damaged(data: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.6:
        return data
    at = chance.randrange(len(data))
    changed_byte = bytes([data[at] ^ 1 << chance.randrange(8)])
    return data[:at] + changed_byte + data[at + 1 :]


@pytest.mark.parametrize("seed", range(300))
def test_what_is_taken_unpacks_like_the_reference(seed: int, write: Callable[[bytes], Path], tmp_path: Path) -> None:
    chance = random.Random(seed)
    form = chance.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    try:
        plain = damaged(tar_bytes(*random_entries(chance), form=form), chance)
    except ValueError:
        plain = b""  # a name too long for the format
    archive = write(gzip.compress(plain))
    try:
        target, digest = staged(archive)
    except ConfigError:
        assert list((tmp_path / "staged").iterdir()) == []
        return
    reference = {}
    with tarfile.open(fileobj=io.BytesIO(plain)) as read:
        for member in read:
            name = os.path.normpath(member.name)
            if name != ".":
                content = read.extractfile(member)
                mode = 0o755 if member.isdir() or member.mode & 0o111 else 0o644
                reference[name] = (mode, content.read() if content else b"")
    assert tree(target / digest / CONTENT) == reference


# --- gates and links --------------------------------------------------------------------------------------

DIGEST = "ab" * 32
OTHER = "cd" * 32


def a_model(resource_id: str, digest: str = DIGEST, destination: str = "/m/x", owner: str = "") -> Resource:
    owned = ModelOwner(owner, Permission.RW) if owner else None
    return Resource(resource_id, resource_id, S3Model(destination, "s3://b/k", owned, digest=digest))


def a_group(*resources: Resource, isolation: Isolation | None = Isolation.NO_CONTAINER) -> Group:
    policies = tuple(ResourceAccessPolicy(resource.id) for resource in resources)
    configuration = FunctionConfiguration(resources=policies, execution=Execution(isolation))
    return Group(functions=(Function("f", FUNCTION, configuration=configuration),), resources=resources)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    layout = Layout.of(tmp_path / "greengrass")
    for digest in (DIGEST, OTHER):
        (layout.models / digest / CONTENT).mkdir(parents=True)
        (layout.models / digest).chmod(0o700)
        (layout.models / digest / CONTENT / "weights").write_text(digest)
    return layout


def as_user(gid: int, *groups: int, path: str) -> bytes:
    """What an account without other rights reads at `path`, or the error's name."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(60_001, 60_001, 60_001)
            with open(path, "rb") as file:
                os.write(writer, file.read())
        except OSError as error:
            os.write(writer, (error.strerror or "").encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        answer = file.read()
    os.waitpid(pid, 0)
    return answer


def test_owners_share_one_copy_and_nobody_else_gets_in(layout: Layout) -> None:
    group = a_group(a_model("r1", owner="61001"), a_model("r2", destination="/m/y", owner="61002"))
    path = str(layout.models / DIGEST / CONTENT / "weights")
    prepare(layout, group, Group())
    assert as_user(61_001, path=path) == DIGEST.encode()
    assert as_user(60_001, 61_002, path=path) == DIGEST.encode()
    assert as_user(61_003, path=path) == b"Permission denied"
    assert as_user(61_001, path=path.replace(DIGEST, OTHER)) == b"Permission denied"
    prepare(layout, a_group(a_model("r1", owner="61002")), group)
    assert as_user(61_001, path=path) == b"Permission denied"
    assert as_user(61_002, path=path) == DIGEST.encode()
    prepare(layout, a_group(a_model("r1")), group)
    assert as_user(61_002, path=path) == b"Permission denied"
    assert stat.S_IMODE((layout.models / DIGEST).stat().st_mode) == 0o700


def test_preparing_twice_changes_nothing(layout: Layout) -> None:
    group = a_group(a_model("r1", owner="61001"))
    prepare(layout, group, Group())
    before = {path: path.lstat().st_ctime_ns for path in layout.deployment.rglob("*")}
    prepare(layout, group, group)
    assert {path: path.lstat().st_ctime_ns for path in layout.deployment.rglob("*")} == before


def test_a_file_system_without_access_lists(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", unsupported)
    prepare(layout, a_group(a_model("r1")), Group())  # nothing to grant
    with pytest.raises(StorageFailed, match="keeps no access control lists"):
        prepare(layout, a_group(a_model("r1", owner="61001")), Group())


def test_links_stand_at_the_destinations(layout: Layout) -> None:
    group = a_group(a_model("r1", owner="61001"), a_model("r2", OTHER, "/m/deep/y", "61001"))
    prepare(layout, group, Group())
    prefix = resource_prefix(layout, group, group.functions[0])
    assert as_user(61_001, path=prefix + "/m/x/weights") == DIGEST.encode()
    assert as_user(61_001, path=prefix + "/m/deep/y/weights") == OTHER.encode()
    assert as_user(60_001, path=prefix + "/m/x/weights") == b"Permission denied"


def test_another_model_is_another_prefix_and_the_old_one_stays_for_a_rollback(layout: Layout) -> None:
    old, new = a_group(a_model("r1", owner="61001")), a_group(a_model("r1", OTHER, owner="61001"))
    prepare(layout, old, Group())
    prepare(layout, new, old)
    prefixes = {resource_prefix(layout, group, group.functions[0]) for group in (old, new)}
    assert {str(path) for path in layout.model_links.iterdir()} == prefixes
    (layout.model_links / "new-left-behind").mkdir()
    prepare(layout, new, new)
    assert {str(path) for path in layout.model_links.iterdir()} == {resource_prefix(layout, new, new.functions[0])}
    prepare(layout, Group(), Group())
    assert list(layout.model_links.iterdir()) == []


def test_prefixes(layout: Layout) -> None:
    contained = a_group(a_model("r1"), isolation=None)
    assert resource_prefix(layout, contained, contained.functions[0]) == "/"
    without = a_group()
    assert resource_prefix(layout, without, without.functions[0]) == ""


def test_what_a_group_needs_on_disk() -> None:
    policy = ResourceAccessPolicy("r1", Permission.RW)
    configuration = FunctionConfiguration(resources=(policy,))
    group = Group(functions=(Function("f", FUNCTION, configuration=configuration),), resources=(a_model("r1"),))
    assert models.model_names(group) == {DIGEST, DIGEST + WRITABLE}
    assert models.model_names(a_group(a_model("r1", owner="1"))) == {DIGEST}, "nobody writes without a container"
    assert models.read_instead_of_written(a_group(a_model("r1", owner="1"))) == [(FUNCTION, "r1")]
    assert models.model_names(a_group(a_model("r1", owner="1"), isolation=None)) == {DIGEST, DIGEST + WRITABLE}


# --- V1's words (Appendix B) ------------------------------------------------------------------------------

POLICY = "E.ResourceAccessPolicies[0]"
DATA = "Resources[0].ResourceDataContainer.S3MachineLearningModelResourceData"


def document(permission: Any, owner: Any = None, isolation: str = "GreengrassContainer") -> dict[str, Any]:
    data = {"DestinationPath": "/models/x", "S3Uri": "s3://bucket/key.zip"}
    if owner is not None:
        data["OwnerSetting"] = owner
    made = changed(FULL, "Resources[0].ResourceDataContainer", {"S3MachineLearningModelResourceData": data})
    made = changed(made, "Resources[0].Archive", "models/x.zip")
    made = changed(made, f"{POLICY}.Permission", permission)
    made = changed(made, "E.ResourceAccessPolicies[1]", ...)
    made = changed(made, "E.Execution", {"IsolationMode": isolation})
    if isolation == "NoContainer":
        made = changed(changed(made, "E.AccessSysfs", False), "F.MemorySize", ...)
    return made


RO, RW = ({"GroupOwner": "61001", "GroupPermission": permission} for permission in ("ro", "rw"))


def texts_of(made: dict[str, Any], **rules: Any) -> list[str]:
    return [str(problem) for problem in problems_of(made, **rules)]


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (
            document("ro", {"GroupOwner": "x"}),
            (
                "InvalidMLModelOwner - GroupOwnerSetting is provided in ML model resource, but GroupOwner or "
                "GroupPermission is not present"
            ),
        ),
        (
            document("ro", RO, "NoContainer"),
            (
                "NoContainer function cannot configure permission when attaching Machine Learning resources. "
                f"{FUNCTION} refers to Machine Learnin resource r1 with permission ro in resource access policy."
            ),
        ),
        (
            document(...),
            (
                f"Function {FUNCTION} refers to Machine Learning resource r1 with missing permission in both "
                "ResourceAccessPolicy and resource OwnerSetting."
            ),
        ),
        (
            document(..., None, "NoContainer"),
            (
                f"Function {FUNCTION} refers to Machine Learning resource r1 with missing permission in both "
                "ResourceAccessPolicy and resource OwnerSetting."
            ),
        ),
        (
            document("rw", RO),
            (
                f'Function {FUNCTION} refers to Machine Learning resource r1 with permission "rw", while resource '
                'owner setting GroupPermission only allows "ro".'
            ),
        ),
    ],
)
def test_v1s_words(made: dict[str, Any], text: str) -> None:
    assert any(text in found for found in texts_of(made))


@pytest.mark.parametrize(
    "made",
    [document("ro"), document("rw"), document(..., RO), document("ro", RW), document(..., RO, "NoContainer")],
)
def test_models_that_are_fine(made: dict[str, Any]) -> None:
    assert isinstance(parse(made).resources[0].data, S3Model)


def test_nested_destinations_without_a_container() -> None:
    made = document(..., RO, "NoContainer")
    second = changed(made["Resources"][0], "Name", "second") | {"Id": "r9"}
    second = changed(second, "ResourceDataContainer.S3MachineLearningModelResourceData.DestinationPath", "/models/x/y")
    made["Resources"].append(second)
    made = changed(made, "E.ResourceAccessPolicies", [{"ResourceId": "r1"}, {"ResourceId": "r9"}])
    text = f"NoContainer Function {FUNCTION} refers to resources of nested destination path."
    assert any(text in found for found in texts_of(made))


def test_a_shared_group_is_a_leak_unless_attached() -> None:
    made = changed(document("ro", RO), "E.Execution.RunAs", {"Uid": 1001, "Gid": 61001})
    parse(made)
    made = changed(made, "E.ResourceAccessPolicies", [])
    text = f"Lambda {FUNCTION} gains access to resource r1 by sharing the same group owner id"
    assert any(text in found for found in texts_of(made))
    parse(changed(made, "E.Execution.RunAs", {"Uid": 0, "Gid": 61001}), allow_root=True)
    parse(changed(made, "E.Execution.RunAs", {"Uid": 1001, "Gid": 61002}))
    by_default = changed(made, "E.Execution.RunAs", ...)
    by_default = changed(by_default, "DefaultConfig.Execution", {})
    assert any(text in found for found in texts_of(by_default, function_gid=61001))


def test_destinations_of_models() -> None:
    for wrong in (
        "/proc/x",
        "/lambda",
        "/runtime/x",
        "/",
        "relative",
        "/a/../b",
        "/a:b",
        "/a,b",
        "/a\\b",
        "/a\nb",
        "/" + "n" * 256,
        "/ab" * 400,
    ):
        assert texts_of(changed(document("ro"), f"{DATA}.DestinationPath", wrong)), wrong


def test_an_archive_is_needed() -> None:
    text = "Resources[0].Archive: found nothing, expected the model's .zip or .tar.gz in the folder"
    assert any(text in found for found in texts_of(changed(document("ro"), "Resources[0].Archive", ...)))


def test_the_digest_is_not_the_documents_to_say() -> None:
    made = changed(document("ro"), f"{DATA}.ArchiveSha256", DIGEST)
    data = parse(made).resources[0].data
    assert isinstance(data, S3Model)
    assert data.digest == ""


def test_access_lists_are_as_the_kernel_gives_them_back(tmp_path: Path) -> None:
    made = models._access_list([100, 200])
    os.setxattr(tmp_path, "system.posix_acl_access", made)
    assert os.getxattr(tmp_path, "system.posix_acl_access") == made
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750, "the mask stands where the group's bits were"


def test_a_leak_through_the_group_of_another_model() -> None:
    made = document(..., RO, "NoContainer")
    second = changed(made["Resources"][0], "Name", "second") | {"Id": "r9"}
    second = changed(second, "ResourceDataContainer.S3MachineLearningModelResourceData.DestinationPath", "/models/z")
    made["Resources"].append(second)
    text = f"Lambda {FUNCTION} gains access to resource r9 by sharing the same group owner id"
    assert any(text in found for found in texts_of(made))


def test_names_are_bounded_before_they_are_kept(write: Callable[[bytes], Path]) -> None:
    assert "the start of a name of 5000 characters" in refused(write(gzip.compress(pax(record("path", "n" * 5000)))))


# --- what the spawner lets through ------------------------------------------------------------------------

SPAWNER = Policy.from_json(
    {
        "uids": [999],
        "gids": [999],
        "code_prefixes": ["/g/lambda"],
        "hidden": ["/g"],
        "denied_sources": ["/g"],
        "model_prefixes": ["/g/models"],
    }
)
SHARED, OWN = f"/g/models/{DIGEST}/content", f"/g/models/{DIGEST}-w/content"


def test_model_mounts_the_spawner_makes() -> None:
    assert SPAWNER.mount_fault(Mount(SHARED, "/m", False), 999) == ""
    assert SPAWNER.mount_fault(Mount(OWN, "/m", False, True), 999) == ""


@pytest.mark.parametrize(
    "mount",
    [
        Mount(SHARED, "/m", True),
        Mount(OWN, "/m", True),
        Mount(SHARED, "/lambda/m", False),
        Mount(SHARED, "/", False),
        Mount(OWN, "/m,upperdir=x", False, True),
        Mount(OWN, "/m:/etc", False, True),
        Mount(OWN, "/m\\", False, True),
        Mount(OWN, "/m" * 600, False, True),
        Mount("/g/models", "/m", False),
        Mount(f"/g/models/{DIGEST}", "/m", False),
        Mount(f"{SHARED}/deeper", "/m", False),
        Mount(f"/g/models/{DIGEST}-x/content", "/m", False),
        Mount("/g/models/other/content", "/m", False),
        Mount(f"/g/other/{DIGEST}/content", "/m", False),
        Mount("/srv", "/m", False, True),
        Mount("/dev/shm", "/dev/shm", True, True),
    ],
    ids=str,
)
def test_model_mounts_it_refuses(mount: Mount) -> None:
    assert SPAWNER.mount_fault(mount, 999)


def test_a_private_copy_inside_a_volume_is_refused() -> None:
    def spec(*mounts: tuple[str, str, bool]) -> dict[str, Any]:
        entries = [{"source": s, "destination": d, "writable": False, "private": p} for s, d, p in mounts]
        return {"code_dir": "/g/lambda/f", "uid": 999, "gid": 999, "memory_kb": 16_384, "mounts": entries}

    SPAWNER.validate(spec(("/srv", "/a", False), (OWN, "/b", True)))
    for nested in ("/a", "/a/b"):
        with pytest.raises(SandboxFailed, match=f"private destination {nested} lies in /a"):
            SPAWNER.validate(spec(("/srv", "/a", False), (OWN, nested, True)))
