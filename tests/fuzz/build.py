"""Builds what fuzzing needs beside the compiled part: the module of the targets, and the fuzzing program.

    python tests/fuzz/build.py DIRECTORY [program]

In the tree of the fuzz variant both are made, with clang and its counters; in an ordinary checkout only the
module, to play inputs one by one. The working directory is the tree. Nothing is done when nothing has changed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path("tests/fuzz")
MODULE = "ggfast_fuzz_targets"
INPUTS = (HERE, Path("ggfast/_ext"), Path("ext"))


def stamp_of(program: bool) -> str:
    """A name for the content of everything the module is made from."""
    total = hashlib.sha256(f"{sys.version} {program}".encode())
    for folder in INPUTS:
        for path in sorted([*folder.glob("*.p[yx][xdy]"), *folder.glob("*.p?i"), *folder.glob("*.[ch]")]):
            total.update(path.read_bytes())
    return total.hexdigest()


def build(into: Path, program: bool) -> None:
    """Make the module, and the program if asked for, in `into`; CalledProcessError if it cannot be done."""
    stamp = into / "stamp"
    wanted = stamp_of(program)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    build_module(into, ["-O1", "-g", "-fsanitize=fuzzer-no-link"] if program else ["-O0", "-g0"])
    if program:
        build_program(into)
    stamp.write_text(wanted)


def build_module(into: Path, flags: list[str]) -> None:
    """Compile targets.pyx."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension

    extension = Extension(MODULE, [str(HERE / "targets.pyx")], extra_compile_args=flags)
    directives = {"language_level": "3", "freethreading_compatible": False}
    modules = cythonize(
        [extension], build_dir=str(into / "cython"), include_path=["."], compiler_directives=directives, quiet=True
    )
    distribution = Distribution({"ext_modules": modules})
    command = distribution.get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(into), str(into / "objects")
    distribution.run_command("build_ext")


def build_program(into: Path) -> None:
    """Link the engine, the harness and the interpreter's library."""
    setting = sysconfig.get_config_var
    library = f"-lpython{setting('LDVERSION')}"
    places = [f"-L{setting('LIBDIR')}", f"-L{setting('LIBPL')}", f"-Wl,-rpath,{setting('LIBDIR')}"]
    compile_it = ["clang", "-O2", "-g", "-fsanitize=fuzzer", "-rdynamic", f"-I{sysconfig.get_paths()['include']}"]
    system = [*str(setting("LIBS")).split(), *str(setting("SYSLIBS")).split()]
    subprocess.run(
        [*compile_it, str(HERE / "harness.c"), "-o", str(into / "fuzz"), *places, library, *system], check=True
    )


if __name__ == "__main__":
    os.environ.setdefault("SOURCE_DATE_EPOCH", "0")
    build(Path(sys.argv[1]), sys.argv[2:] == ["program"])
