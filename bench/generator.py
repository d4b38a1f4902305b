"""The load generator: compiles bench/load/*.c into build/bench/ when needed, and runs it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import certificates

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCES = REPOSITORY / "bench" / "load"
BUILT = REPOSITORY / "build" / "bench"
COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror")
WITH_TLS, TLS_LIBRARIES = ("-DBENCH_TLS",), ("-lssl", "-lcrypto")
NO_HEADERS = "OpenSSL's headers are not installed (apt install libssl-dev)"
DESCRIPTORS = 16_384  # of broker and load: 1000 connections need more than the usual 1024
GRACE_S = 60.0  # beyond the length of a run: connecting, draining, noticing a loss


class BenchFailed(Exception):
    """A benchmark cannot give a figure; the text is the sentence the user reads."""


def build() -> Path:
    """The compiled load generator. The name carries a hash of the sources, so an old one is never run.

    Raises BenchFailed without a working C compiler.
    """
    files = sorted(SOURCES.glob("*.[ch]"))
    flags, libraries = (FLAGS, ()) if tls_missing() else ((*FLAGS, *WITH_TLS), TLS_LIBRARIES)
    digest = hashlib.sha256(" ".join((_compiler(), *flags)).encode())
    for file in files:
        digest.update(file.read_bytes())
    program = BUILT / f"load-{digest.hexdigest()[:12]}"
    if not program.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        half_made = program.with_suffix(f".{os.getpid()}")
        sources = [str(file) for file in files if file.suffix == ".c"]
        command = [_compiler(), *flags, *sources, "-o", str(half_made), *libraries]
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode != 0:
            raise BenchFailed(f"{_compiler()} cannot compile the load generator:\n{made.stderr.strip()}")
        half_made.rename(program)
    return program


def _compiler() -> str:
    found = next(filter(None, map(shutil.which, (os.environ.get("CC", ""), *COMPILERS))), None)
    if found is None:
        raise BenchFailed(f"no C compiler for the load generator: expected one of {', '.join(COMPILERS)} on PATH.")
    return found


@functools.cache
def tls_missing() -> str:
    """Why the load generator knows no TLS; empty if it does. Raises BenchFailed without a C compiler."""
    probe = "#include <openssl/ssl.h>\n"
    command = [_compiler(), "-E", "-x", "c", "-", "-o", os.devnull]
    return NO_HEADERS if subprocess.run(command, input=probe, capture_output=True, text=True).returncode else ""


def tls_options() -> list[str]:
    """What makes the load speak mutual TLS. Raises BenchFailed if it cannot."""
    if missing := tls_missing():
        raise BenchFailed(f"{missing}.")
    files = certificates.made()
    return ["--cert", str(files.client), "--key", str(files.client_key), "--ca", str(files.authority)]


def placed_on(core: int | None, *, yielding: bool = False) -> Callable[[], None]:
    """What a child does before it becomes another program: go to its core, allow itself many descriptors.

    `yielding`: it runs only when nobody else wants the core, so it does not disturb a load that measures time.
    """

    def place() -> None:
        if core is not None:
            os.sched_setaffinity(0, {core})
        if yielding:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

    return place


def run_load(options: Sequence[str], seconds: float, core: int | None) -> dict[str, Any]:
    """Run the load for about `seconds` and return its figures. Blocks. Raises BenchFailed, for a loss too."""
    command = [str(build()), *options]
    with _started(command, core) as process:
        try:
            output, errors = process.communicate(timeout=seconds + GRACE_S)
        except subprocess.TimeoutExpired:
            raise BenchFailed(f"the load did not end within {seconds + GRACE_S:.0f} s.") from None
    return _figures(output, errors, process.returncode)


@contextlib.contextmanager
def load_beside(options: Sequence[str], seconds: float, core: int | None) -> Iterator[dict[str, Any]]:
    """Another load that yields the core to the one that is measured; the dictionary holds its figures afterwards.

    Raises BenchFailed as run_load() does.
    """
    figures: dict[str, Any] = {}
    with _started([str(build()), *options], core, yielding=True) as process:
        yield figures
        try:
            output, errors = process.communicate(timeout=seconds + GRACE_S)
        except subprocess.TimeoutExpired:
            raise BenchFailed(f"the load did not end within {seconds + GRACE_S:.0f} s.") from None
    figures |= _figures(output, errors, process.returncode)


@contextlib.contextmanager
def idle_connections(port: int, count: int, core: int | None, options: Sequence[str] = ()) -> Iterator[None]:
    """Hold `count` connected clients that do nothing. Raises BenchFailed if the broker refuses or drops some."""
    with _started([str(build()), "--port", str(port), "--idle", str(count), *options], core) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if "connected" not in line:
            output, errors = process.communicate(timeout=GRACE_S)
            _figures(line + output, errors, process.returncode)
        yield
        output, errors = process.communicate(timeout=GRACE_S)
    if process.returncode != 0:
        _figures(output, errors, process.returncode)


@contextlib.contextmanager
def _started(command: Sequence[str], core: int | None, *, yielding: bool = False) -> Iterator[subprocess.Popen[str]]:
    pipe, place = subprocess.PIPE, placed_on(core, yielding=yielding)
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, preexec_fn=place)
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def _figures(output: str, errors: str, status: int) -> dict[str, Any]:
    try:
        figures: dict[str, Any] = json.loads(output)
    except ValueError:
        said = (errors or output).strip() or "nothing"
        raise BenchFailed(f"the load generator ended with status {status} and said {said}.") from None
    if "error" in figures:
        raise BenchFailed(f"{figures['error']}.")
    return figures
