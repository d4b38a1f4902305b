"""The class-data archive of Java workers: the JDK's classes that workers use, in the form the machine maps.

Made once for each Java installation and runtime jar, by running that Java with our jar alone (no function's code):

    rehearsal   one worker's whole life, with the list of loaded classes written     -XX:DumpLoadedClassList
    dump        the archive of these classes                                         -Xshare:dump
    trial       a start that fails unless the archive can be mapped                  -Xshare:on

It holds classes of the JDK alone. The runtime's own would save another 0.1 MB, but then the archive is valid for one
path of the jar only, and where that differs Java does without any archive, which costs 5 MB. Measured on x86, memory
of its own for one worker without and with the archive: Java 11 13.6 and 9.9 MB, 17 10.5 and 10.0, 21 16.8 and 10.7,
25 11.7 and 10.8. Source: sandbox 9. Blocking: seconds when there is something to make, else one look.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from ggfast import limits
from ggfast.core.functions.java_flags import java_flags

RUNTIME_JAR: Final = Path(__file__).resolve().parents[1] / "workers" / "java" / "ggfast-runtime.jar"
_MAIN: Final = "io.ggfast.runtime.Main"
_HANDLER: Final = "io.ggfast.runtime.Rehearsal"
_MEMORY_KB: Final = 65_536  # the rehearsal's; decides about flags that the list of classes depends on
# What Java itself compares an archive with when it maps it: its virtual machine and its own classes.
_INSTALLATION: Final = (
    "release",
    "lib/modules",
    "lib/rt.jar",
    "jre/lib/rt.jar",
    "lib/**/libjvm.so",
    "jre/lib/**/libjvm.so",
)
_ENVIRONMENT: Final = {
    "MY_FUNCTION_ARN": "arn:aws:lambda:eu-west-1:123456789012:function:rehearsal:1",
    "ROUTER_FUNCTION_ARN": "arn:aws:lambda:::function:GGRouter",
    "ENCODING_TYPE": "json",
    "GGC_MAX_INTERFACE_VERSION": "1.5",
}
_CONTEXT: Final = b'{"custom":{"subject":"rehearsal/topic"}}'
_PAYLOAD: Final = b'{"number":1,"text":"a\\u00e9","list":[1.5,null,true],"map":{"a":12345678901}}'
_INVOCATIONS: Final = 3


class _NoArchive(Exception):
    """Why this Java gets no archive."""


def ensure_archive(
    java: Path, cache: Path, report: Callable[[str], object] = str, jar: Path = RUNTIME_JAR
) -> Path | None:
    """The archive for the Java at `java`, made in the directory `cache` if it is not there yet.

    None, with the reason given to `report`, when this Java or this machine cannot make one: workers start without.
    What is returned is complete, tried and readable for everybody. Blocking, bounded by JAVA_ARCHIVE_S for each run.
    """
    try:
        archive = cache / f"java-{_key(java, jar)}.jsa"
        if not archive.is_file():
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="java-", dir=cache) as directory:
                _make(java, jar, Path(directory), archive)
            _forget(cache, archive)
    except (_NoArchive, OSError) as error:
        report(f"no class-data archive for {java}: {error}; its functions start without one")
        return None
    return archive


def place_archive(archive: Path, target: Path) -> None:
    """Give a function the archive under the name `target`, as a link where the file system allows, else as a copy.

    Raises OSError. What was there under that name is replaced. Blocking.
    """
    target.parent.mkdir(mode=0o755, exist_ok=True)
    fresh = target.with_name(f".{target.name}.new")
    fresh.unlink(missing_ok=True)
    try:
        os.link(archive, fresh)
    except OSError:
        shutil.copyfile(archive, fresh)
        fresh.chmod(0o644)
    os.replace(fresh, target)


def archive_in(code: Path, java: Path) -> str:
    """Where below a function's code an archive lies that is valid for this Java; empty if none does. Blocking."""
    try:
        name = placed_name(java)
    except OSError:
        return ""
    return name if (code / name).is_file() else ""


def placed_name(java: Path) -> str:
    """The name below a function's code of the archive for this Java. Raises OSError."""
    return f".ggfast/java-{_key(java, RUNTIME_JAR)}.jsa"


def _key(java: Path, jar: Path) -> str:
    """A name for everything an archive depends on, without running Java. Raises OSError."""
    real = java.resolve(strict=True)
    home = real.parent.parent
    parts: list[object] = [str(real), hashlib.sha256(jar.read_bytes()).hexdigest(), java_flags(_MEMORY_KB, None)]
    for path in sorted({real, *(found for pattern in _INSTALLATION for found in home.glob(pattern))}):
        status = path.stat()
        parts.append((str(path), status.st_size, status.st_mtime_ns))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _make(java: Path, jar: Path, directory: Path, archive: Path) -> None:
    """Make and try the archive; it gets its name when all has succeeded."""
    classes, fresh = directory / "classes", directory / "archive"
    flags = java_flags(_MEMORY_KB, None)
    _rehearse([str(java), *flags, f"-XX:DumpLoadedClassList={classes}", "-cp", str(jar), _MAIN], directory)
    if not classes.is_file():
        raise _NoArchive("it does not list its classes (-XX:DumpLoadedClassList)")
    # The class path decides about the archive's validity, and workers have their own: an archive with none fits all.
    dump = ["-XX:+UnlockDiagnosticVMOptions", "-XX:+UseSerialGC", f"-Xmx{limits.JAVA_ARCHIVE_HEAP_MB}m", "-Xshare:dump"]
    dump += [f"-XX:SharedClassListFile={classes}", f"-XX:SharedArchiveFile={fresh}", "-cp", str(directory / "none")]
    _run([str(java), *dump], directory)
    if not fresh.is_file():
        raise _NoArchive("it writes no archive (-Xshare:dump)")
    _run([str(java), *flags, f"-XX:SharedArchiveFile={fresh}", "-Xshare:on", "-version"], directory)
    fresh.chmod(0o644)
    with fresh.open("rb") as file:
        os.fsync(file.fileno())  # Java believes an archive's content: a torn one would crash every worker
    os.replace(fresh, archive)


def _run(command: Sequence[str], directory: Path) -> None:
    try:
        done = subprocess.run(
            command, cwd=directory, env=_ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=limits.JAVA_ARCHIVE_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise _NoArchive(f"{command[-1]} did not end within {limits.JAVA_ARCHIVE_S:.0f} s") from None
    if done.returncode:
        raise _NoArchive(f"it ended with status {done.returncode}: {_last_words(done.stdout)}")


def _rehearse(command: Sequence[str], directory: Path) -> None:
    """Run a worker with all its work waiting in its socket; it ends by itself."""
    ours, theirs = socket.socketpair()
    with ours, theirs, tempfile.TemporaryFile(dir=directory) as log:
        frames = [
            struct.pack("<IBIH", 7 + len(_CONTEXT) + len(_PAYLOAD), ord("W"), number, len(_CONTEXT))
            + _CONTEXT
            + _PAYLOAD
            for number in range(_INVOCATIONS)
        ]
        ours.sendall(b"".join([*frames, struct.pack("<IB", 1, ord("X"))]))
        worker = subprocess.Popen(
            [*command, f"--handler={_HANDLER}"],
            cwd=directory,
            env=_ENVIRONMENT,
            stdin=theirs.fileno(),
            stdout=log,
            stderr=log,
        )
        theirs.close()
        try:
            kinds = _kinds(_receive(ours, time.monotonic() + limits.JAVA_ARCHIVE_S))
            worker.wait(limits.JAVA_ARCHIVE_S)
        except (TimeoutError, subprocess.TimeoutExpired):
            raise _NoArchive(f"the rehearsal did not end within {limits.JAVA_ARCHIVE_S:.0f} s") from None
        finally:
            worker.kill()
            worker.wait()
        log.seek(0)
        if kinds.count("R") != _INVOCATIONS:
            raise _NoArchive(f"the rehearsal failed: {_last_words(log.read())}")


def _receive(ours: socket.socket, deadline: float) -> bytes:
    """All that the worker sends until it ends. Raises TimeoutError."""
    received = b""
    while True:
        ours.settimeout(max(deadline - time.monotonic(), 0.001))
        with contextlib.suppress(ConnectionResetError):
            if data := ours.recv(65_536):
                received += data
                continue
        return received


def _kinds(frames: bytes) -> str:
    """The types of all whole frames."""
    kinds, at = "", 0
    while at + 5 <= len(frames):
        kinds += chr(frames[at + 4])
        at += 4 + int(struct.unpack_from("<I", frames, at)[0])
    return kinds


def _last_words(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return "".join(c if c.isprintable() else "?" for c in lines[-1][:200]) if lines else "it said nothing"


def _forget(cache: Path, newest: Path) -> None:
    """Remove the oldest archives above the number kept; functions that have one keep it by their own name."""
    others = [path for path in cache.glob("java-*.jsa") if path != newest]
    others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in others[limits.JAVA_ARCHIVES_MAX - 1 :]:
        path.unlink(missing_ok=True)
