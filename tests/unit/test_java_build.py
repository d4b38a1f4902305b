"""The Java runtime's jar, the flags it is started with, and the class-data archive that it starts faster and smaller
with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from java_support import REPOSITORY, java_worker

from ggfast import limits
from ggfast.core.functions.java_archive import ensure_archive, place_archive
from ggfast.core.functions.java_flags import java_flags

BUILDER = REPOSITORY / "packaging" / "build_java.py"
JAVA_8 = 52  # the class files' version


def run_builder(output: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the build script."""
    return subprocess.run(
        [sys.executable, str(BUILDER), str(output)], capture_output=True, text=True, env=dict(os.environ, **environment)
    )


@pytest.fixture(scope="module")
def jar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runtime, freshly built."""
    output = tmp_path_factory.mktemp("jar") / "runtime.jar"
    done = run_builder(output)
    assert done.returncode == 0, done.stderr
    return output


def test_the_jar_is_reproducible_and_runs_on_java_8(jar: Path, tmp_path: Path) -> None:
    again = tmp_path / "made" / "again.jar"
    done = run_builder(again)
    assert done.returncode == 0, done.stderr
    assert again.read_bytes() == jar.read_bytes()
    assert [path.name for path in again.parent.iterdir()] == ["again.jar"]
    with zipfile.ZipFile(jar) as archive:
        names = archive.namelist()
        assert names[:2] == ["META-INF/MANIFEST.MF", "META-INF/ggfast-sources"]
        assert names[2:] == sorted(names[2:])
        classes = [archive.read(name) for name in names if name.endswith(".class")]
        assert {int.from_bytes(content[6:8]) for content in classes} == {JAVA_8}
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    assert "com/amazonaws/greengrass/ipcsdk/IPCClient.class" in names
    before = again.stat()
    done = run_builder(again, PATH="/nowhere", JAVA_HOME="")
    assert (done.returncode, done.stdout) == (0, f"{again} is up to date\n")
    assert again.stat().st_mtime_ns == before.st_mtime_ns


def test_a_missing_or_failing_compiler_is_said(tmp_path: Path) -> None:
    output = tmp_path / "runtime.jar"
    output.write_bytes(b"not a jar")
    done = run_builder(output, PATH="/nowhere", JAVA_HOME="/nowhere")
    assert done.returncode == 1
    assert "no javac" in done.stderr
    assert "Install a JDK of version 9 or newer" in done.stderr
    compiler = tmp_path / "bin" / "javac"
    compiler.parent.mkdir()
    compiler.write_text("#!/bin/sh\necho wrong version >&2\nexit 3\n")
    compiler.chmod(0o755)
    done = run_builder(output, JAVA_HOME=str(tmp_path))
    assert done.returncode == 1
    assert f"{compiler} ended with status 3:\nwrong version" in done.stderr
    assert output.read_bytes() == b"not a jar"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "runtime.jar"]


@pytest.mark.parametrize(
    ("memory_kb", "heap_kb"),
    [(2_048, limits.JAVA_HEAP_KB_MIN), (16_384, 8_192), (65_536, 32_768), (131_072, 65_536), (1_048_576, 753_664)],
)
def test_the_heap_follows_the_memory_limit(memory_kb: int, heap_kb: int) -> None:
    flags = java_flags(memory_kb, None)
    assert f"-Xmx{heap_kb}k" in flags
    assert ("-Xss256k" in flags) == (memory_kb <= limits.JAVA_SMALL_MEMORY_KB)
    assert heap_kb < memory_kb or memory_kb < limits.JAVA_HEAP_KB_MIN
    assert not any("SharedArchiveFile" in flag for flag in flags)


def test_flags_without_a_limit_and_with_an_archive() -> None:
    assert not any(flag.startswith("-Xm") for flag in java_flags(0, None))
    flags = java_flags(16_384, "/lambda/.ggfast/java.jsa")
    assert flags[:2] == ["-XX:+IgnoreUnrecognizedVMOptions", "-XX:+UnlockDiagnosticVMOptions"]
    assert flags[-2:] == ["-Xshare:auto", "-XX:SharedArchiveFile=/lambda/.ggfast/java.jsa"]


@pytest.mark.parametrize("memory_kb", [2_048, 8_192, 65_536, 262_144, 0])
def test_java_takes_the_flags_at_every_limit(jar: Path, memory_kb: int) -> None:
    with java_worker([jar], "io.ggfast.runtime.Rehearsal", flags=java_flags(memory_kb, None)) as worker:
        assert worker.value(b'{"a":[1]}', b'{"custom":{"subject":"t"}}')["topic"] == "t"
        assert worker.stop() == 0
        assert all(letter == "I" for letter, _ in worker.records())


def java() -> Path:
    """The Java that the tests use."""
    found = shutil.which("java")
    assert found is not None
    return Path(found)


def test_an_archive_is_made_once_and_fits_every_class_path(jar: Path, tmp_path: Path) -> None:
    said: list[str] = []
    cache = tmp_path / "cache"
    for number in range(limits.JAVA_ARCHIVES_MAX + 1):
        cache.mkdir(exist_ok=True)
        (cache / f"java-old{number}.jsa").touch()
    archive = ensure_archive(java(), cache, said.append, jar)
    assert archive is not None, said
    assert archive.stat().st_mode & 0o777 == 0o644
    assert len(list(cache.iterdir())) == limits.JAVA_ARCHIVES_MAX  # and nothing of its making
    made = archive.stat()
    assert ensure_archive(java(), cache, said.append, jar) == archive
    assert (archive.stat().st_mtime_ns, archive.stat().st_ino) == (made.st_mtime_ns, made.st_ino)
    assert not said
    placed = tmp_path / "code" / ".ggfast" / "java.jsa"
    placed.parent.parent.mkdir()
    for _ in range(2):
        place_archive(archive, placed)
        assert placed.read_bytes() == archive.read_bytes()
    moved = tmp_path / "elsewhere.jar"
    shutil.copyfile(jar, moved)
    flags = [*java_flags(16_384, str(placed)), "-Xshare:on"]  # `on`: does not start unless the archive is mapped
    with java_worker([moved, tmp_path], "io.ggfast.runtime.Rehearsal", flags=flags) as worker:
        assert worker.value(b'{"a":1}')["a"] == 1
        assert str(placed) in Path(f"/proc/{worker.process.pid}/maps").read_text()
    other = tmp_path / "other.jar"
    shutil.copyfile(jar, other)
    with zipfile.ZipFile(other, "a") as changed:
        changed.writestr("META-INF/more", b"")
    second = ensure_archive(java(), cache, said.append, other)
    assert second not in (None, archive), "an archive belongs to one runtime"


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("exit 1", "the rehearsal failed: it said nothing"),
        ("echo no such flag >&2; exit 1", "the rehearsal failed: no such flag"),
        ("exec sleep 60", "the rehearsal did not end within"),
        ("printf 'a\\001b'", "the rehearsal failed: a?b;"),
    ],
)
def test_a_java_that_makes_no_archive_is_a_reason_not_a_failure(
    jar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, reason: str
) -> None:
    if "sleep" in program:
        monkeypatch.setattr(limits, "JAVA_ARCHIVE_S", 0.5)
    strange = tmp_path / "bin" / "java"
    strange.parent.mkdir()
    strange.write_text(f"#!/bin/sh\n{program}\n")
    strange.chmod(0o755)
    said: list[str] = []
    assert ensure_archive(strange, tmp_path / "cache", said.append, jar) is None
    (text,) = said
    assert text.startswith(f"no class-data archive for {strange}: {reason}")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_dump_that_fails_is_a_reason(jar: Path, tmp_path: Path) -> None:
    """A Java that runs our runtime and cannot dump: some builds for small machines."""
    strange = tmp_path / "bin" / "java"
    strange.parent.mkdir()
    strange.write_text(
        f'#!/bin/sh\ncase "$*" in *-Xshare:dump*) echo "Dumping is not supported"; exit 1;; esac\nexec {java()} "$@"\n'
    )
    strange.chmod(0o755)
    said: list[str] = []
    assert ensure_archive(strange, tmp_path / "cache", said.append, jar) is None
    assert "it ended with status 1: Dumping is not supported" in said[0]
    assert ensure_archive(tmp_path / "none", tmp_path / "cache", said.append, jar) is None
    assert ensure_archive(java(), tmp_path / "cache", said.append, tmp_path / "no.jar") is None
    assert len(said) == 3
    assert list((tmp_path / "cache").iterdir()) == []
