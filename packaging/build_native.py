#!/usr/bin/env python3
"""Builds libaws-greengrass-core-sdk-c.so, the library that functions written in C and C++ are linked with.

    python packaging/build_native.py [OUTPUT]      (OUTPUT: beside its sources in ggfast/core/workers/native)

CC       the compiler and its options, `cc` unless set: CC=arm-linux-gnueabihf-gcc builds for another machine
CFLAGS   further options, for compiling and linking

A library that these very sources, compiler and options made is left as it is: its build id is their digest.
Standard library only; setup.py calls `build`.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

SOURCES = Path(__file__).resolve().parent.parent / "ggfast" / "core" / "workers" / "native"
NAME = "libaws-greengrass-core-sdk-c.so"  # programs are linked with exactly this name
VERSIONS = "exports.map"
FLAGS = (
    *("-std=gnu11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-fvisibility=hidden", "-pthread"),
    *("-Wall", "-Wextra", "-Werror"),
    *("-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"),
    *("-shared", f"-Wl,-soname,{NAME}", "-Wl,-z,relro,-z,now,-z,noexecstack"),
)
WHOLE = "-Wl,-z,defs"  # nothing may be missing; a sanitizer's run-time library is, until the program brings it
BUILD_ID_BYTES = 20


class Failed(Exception):
    """The library cannot be built; the text is the one sentence the user reads."""


def main(arguments: list[str]) -> int:
    """Build where the command line says."""
    if len(arguments) > 1 or arguments[:1] in (["-h"], ["--help"]):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        build(Path(arguments[0]) if arguments else None)
    except Failed as failure:
        print(f"ggfast: {failure}", file=sys.stderr)
        return 1
    return 0


def build(output: Path | None = None, environment: Mapping[str, str] = os.environ) -> Path:
    """Bring the library up to date and return where it is; raises Failed. Blocks while the compiler runs."""
    output = output or SOURCES / NAME
    command = compile_command(environment)
    build_id = identity(command)
    if output.is_file() and bytes.fromhex(build_id) in output.read_bytes():
        return output
    print(f"ggfast: compiling {NAME}", flush=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".native-") as directory:
        made = Path(directory) / NAME
        sources = [str(path) for path in sorted(SOURCES.glob("*.c"))]
        run([*command, f"-Wl,--build-id=0x{build_id}", "-o", str(made), *sources])
        made.chmod(0o755)
        made.replace(output)
    return output


def compile_command(environment: Mapping[str, str]) -> list[str]:
    """The compiler with all options but the output's."""
    compiler = shlex.split(environment.get("CC") or "cc")
    further = shlex.split(environment.get("CFLAGS", ""))
    whole = [] if any(flag.startswith("-fsanitize") for flag in [*compiler, *further]) else [WHOLE]
    return [*compiler, *FLAGS, f"-Wl,--version-script={SOURCES / VERSIONS}", *whole, *further]


def identity(command: list[str]) -> str:
    """What the library's content follows from, as a build id: sources, options, the compiler's own version."""
    version = run([command[0], "--version"])
    state = hashlib.sha256(repr([flag.replace(str(SOURCES), "") for flag in command]).encode())
    state.update(version)
    for path in sorted([*SOURCES.glob("*.[ch]"), SOURCES / VERSIONS]):
        content = path.read_bytes()
        state.update(f"{path.name} {len(content)}\n".encode())
        state.update(content)
    return state.hexdigest()[: 2 * BUILD_ID_BYTES]


def run(command: list[str]) -> bytes:
    """Run the compiler and return what it printed; raises Failed with its complaint."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise Failed(
            f"{NAME} needs a C compiler, and {command[0]} cannot be run ({error.strerror}): install gcc or clang "
            "with the C library's headers (Debian: gcc libc6-dev), or name one in CC."
        ) from error
    if done.returncode:
        complaint = done.stderr.decode(errors="replace").strip()
        raise Failed(f"{command[0]} ended with status {done.returncode} over {NAME}:\n{complaint}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
