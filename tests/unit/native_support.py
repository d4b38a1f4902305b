"""Builds the C library and programs linked with it, plain and under sanitizers, once for each test run."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from worker_support import Posting, Worker, environment

REPOSITORY = Path(__file__).resolve().parents[2]
NATIVE = REPOSITORY / "ggfast" / "core" / "workers" / "native"
LIBRARY = "libaws-greengrass-core-sdk-c.so"
BUILD = REPOSITORY / "packaging" / "build_native.py"
PROGRAM = Path(__file__).with_name("native") / "program.c"
PARTS = Path(__file__).with_name("native") / "parts.c"
PLAIN = ""
ADDRESS = "-fsanitize=address,undefined"
THREAD = "-fsanitize=thread"
# The leak check needs ptrace, which not every machine gives; test_memory_stays_bounded looks for leaks.
SANITIZER_ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=0:exitcode=99",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "exitcode=98:halt_on_error=1",
}


@dataclass(frozen=True)
class Built:
    """A program, where its library is, and the sanitizer both have ("" where the compiler has none)."""

    program: Path
    library: Path
    sanitizer: str

    @property
    def environment(self) -> dict[str, str]:
        more = SANITIZER_ENVIRONMENT if self.sanitizer else {}
        return {"LD_LIBRARY_PATH": str(self.library.parent), **more}


@functools.cache
def directory() -> Path:
    """Where everything is built: gone with the test process."""
    made = tempfile.mkdtemp(prefix="ggfast-native-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def build(output: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run packaging/build_native.py."""
    return subprocess.run(
        [sys.executable, str(BUILD), str(output)],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def compile_c(output: Path, *arguments: str, compiler: str = "cc") -> Path:
    """Compile and link; the compiler's complaints fail the test."""
    command = [compiler, "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-o", str(output), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return output


@functools.cache
def usable(sanitizer: str) -> str:
    """`sanitizer` if a program compiled with it runs here, else none."""
    source = directory() / "probe.c"
    source.write_text("int main(void) { return 0; }\n")
    probe = directory() / "probe"
    made = subprocess.run(["cc", *sanitizer.split(), "-o", str(probe), str(source)], capture_output=True, check=False)
    runs = made.returncode == 0 and subprocess.run([str(probe)], capture_output=True, check=False).returncode == 0
    return sanitizer if runs else PLAIN


@functools.cache
def built(sanitizer: str = PLAIN) -> Built:
    """The library and tests/unit/native/program.c, both with the sanitizer if it works here."""
    flags = usable(sanitizer) if sanitizer else PLAIN
    where = directory() / (flags.strip("-").replace(",", "-").replace("=", "-") or "plain")
    where.mkdir(exist_ok=True)
    done = build(where / LIBRARY, CFLAGS=f"{flags} -g" if flags else "")
    assert done.returncode == 0, done.stderr
    failing = [] if flags else ["-DFAILING"]
    linked = ["-I", str(NATIVE), "-L", str(where), "-laws-greengrass-core-sdk-c", "-pthread"]
    program = compile_c(where / "program", *flags.split(), *failing, str(PROGRAM), *linked)
    return Built(program, where / LIBRARY, flags)


@functools.cache
def parts() -> Path:
    """tests/unit/native/parts.c with the library's parts in it, under the address sanitizer if that works here."""
    sources = [str(NATIVE / name) for name in ("incoming.c", "json.c", "text.c")]
    return compile_c(directory() / "parts", *usable(ADDRESS).split(), "-I", str(NATIVE), str(PARTS), *sources)


def start(program: Built, tmp_path: Path, *arguments: str, **more: str) -> Worker:
    values = environment(ENCODING_TYPE="binary", **program.environment, **more)
    return Worker([str(program.program), *arguments], values, tmp_path)


def say(*fields: str | bytes) -> bytes:
    return b"\x1f".join(field if isinstance(field, bytes) else field.encode() for field in fields)


def ask(worker: Worker, *fields: str | bytes, context: bytes = b"") -> bytes:
    """One invocation that asks nothing of the core."""
    worker.work(1, say(*fields), context)
    return worker.result(1)


def request(worker: Worker, status: int, answer: bytes, *fields: str | bytes) -> tuple[Posting, bytes]:
    """One invocation that makes one request: what it sent, and "<error> <status> <what it read>"."""
    worker.work(2, say(*fields))
    posting = worker.posting()
    assert posting.call > 0
    worker.answer(posting.call, status, answer)
    return posting, worker.result(2)
