#!/usr/bin/env python3
"""Builds the Java worker runtime: `python packaging/build_java.py [OUTPUT]`.

Compiles ggfast/core/workers/java/src with a JDK of version 9 or newer into Java 8 bytecode and packs it into
ggfast-runtime.jar beside src (or OUTPUT). The same compiler makes the same bytes: entries are sorted and carry no
date. The jar names the digest of its sources; when that is the digest of the sources at hand nothing is done.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

JAVA = Path(__file__).resolve().parents[1] / "ggfast" / "core" / "workers" / "java"
SOURCES = JAVA / "src"
OUTPUT = JAVA / "ggfast-runtime.jar"
DIGEST_ENTRY = "META-INF/ggfast-sources"
MANIFEST = "Manifest-Version: 1.0\r\nMain-Class: io.ggfast.runtime.Main\r\n\r\n"
COMPILE = ("--release", "8", "-encoding", "UTF-8", "-g:source,lines", "-proc:none", "-Xlint:all,-options", "-Werror")
HEAP = "-J-Xmx256m"  # the compiler would take a quarter of the machine


class Failed(Exception):
    """The jar cannot be built; the text says why and what to do."""


def main(arguments: list[str]) -> int:
    """Build the jar named in `arguments`, or the package's own."""
    if len(arguments) > 1 or (arguments and arguments[0].startswith("-")):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(build(Path(arguments[0]) if arguments else OUTPUT))
    except Failed as error:
        print(f"build_java: {error}", file=sys.stderr)
        return 1
    return 0


def build(output: Path = OUTPUT) -> str:
    """Make `output` the jar of the present sources; returns a line about what was done. Raises Failed."""
    sources = sorted(SOURCES.rglob("*.java"))
    digest = digest_of(sources)
    if built_from(output) == digest:
        return f"{output} is up to date"
    compiler = find_compiler()
    with tempfile.TemporaryDirectory(prefix="ggfast-java-") as directory:
        classes = Path(directory)
        command = [compiler, HEAP, *COMPILE, "-d", str(classes), *map(str, sources)]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        except OSError as error:
            raise Failed(f"{compiler} cannot be started: {error.strerror}") from None
        if done.returncode:
            raise Failed(f"{compiler} ended with status {done.returncode}:\n{done.stdout}{done.stderr}".rstrip())
        pack(classes, digest, output)
    return f"{output} built with {compiler}"


def find_compiler() -> str:
    """The path of javac: JAVA_HOME's, else the one on PATH. Raises Failed."""
    home = os.environ.get("JAVA_HOME", "")
    found = shutil.which("javac", path=str(Path(home, "bin"))) if home else None
    found = found or shutil.which("javac")
    if found is None:
        raise Failed(
            "no javac, neither in JAVA_HOME nor on PATH: the runtime for Java functions cannot be built. "
            "Install a JDK of version 9 or newer (Debian: openjdk-17-jdk-headless)."
        )
    return found


def digest_of(sources: list[Path]) -> str:
    """A digest of the names and contents of the sources and of what decides about the compilation."""
    total = hashlib.sha256(repr((COMPILE, MANIFEST)).encode())
    for path in sources:
        content = path.read_bytes()
        total.update(f"{path.relative_to(SOURCES).as_posix()}:{len(content)}:".encode() + content)
    return total.hexdigest()


def built_from(jar: Path) -> str:
    """The digest of the sources that `jar` was built from; "" if it is missing or not ours."""
    try:
        with zipfile.ZipFile(jar) as archive:
            return archive.read(DIGEST_ENTRY).decode()
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return ""


def pack(classes: Path, digest: str, output: Path) -> None:
    """Write the jar, whole or not at all. Entries are stored as they are: a JVM starts faster on them."""
    contents = {path.relative_to(classes).as_posix(): path.read_bytes() for path in classes.rglob("*.class")}
    first = {"META-INF/MANIFEST.MF": MANIFEST.encode(), DIGEST_ENTRY: digest.encode()}
    output.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
    try:
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for entry, content in [*first.items(), *sorted(contents.items())]:
                info = zipfile.ZipInfo(entry)  # dated 1980, the first day a zip archive knows
                info.create_system, info.external_attr = 3, 0o100644 << 16
                archive.writestr(info, content)
        os.chmod(name, 0o644)
        os.replace(name, output)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
