"""Builds the compiled part: every source in ext/ becomes ggfast._ext.<name>.

GGFAST_EXT=a,b   build only these modules (a developer's shortcut)
GGFAST_DEBUG=1   bounds checks, assertions and live-object counters (ggfast._ext.live) in the generated C
GGFAST_SANITIZE=address,undefined   the compiler's sanitizers, ended at the first fault they see
GGFAST_COVERAGE=1   what a fuzzer needs: coverage counters (clang), live-object counters, assertions
GGFAST_JAVA=require   fail where there is no Java compiler, instead of leaving Java functions out
GGFAST_ANNOTATE=1   Cython's annotated listing of each source in build/cython

Special builds belong into a tree of their own: `packaging/variant.py` makes one.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

JOBS = min(os.cpu_count() or 1, 4)
DIAGNOSTIC = {"live"}  # modules that only debug builds contain

debug = os.environ.get("GGFAST_DEBUG") == "1"
coverage = os.environ.get("GGFAST_COVERAGE") == "1"
sanitize = os.environ.get("GGFAST_SANITIZE", "")
counted = debug or coverage
wanted = {name for name in os.environ.get("GGFAST_EXT", "").split(",") if name}
sources = [
    path
    for path in sorted(Path("ext").glob("*.pyx"))
    if (not wanted or path.stem in wanted) and (counted or path.stem not in DIAGNOSTIC)
]


def compile_flags() -> list[str]:
    """What the C compiler is told beyond the interpreter's own flags."""
    if not (counted or sanitize):
        return ["-O2", "-g0", "-fvisibility=hidden"]
    flags = ["-O1", "-g", "-UNDEBUG", "-fno-omit-frame-pointer"]
    if counted:
        flags += ["-include", "ext/live.h"]
    if coverage:
        flags.append("-fsanitize=fuzzer-no-link")
    if sanitize:
        flags += [f"-fsanitize={sanitize}", "-fno-sanitize-recover=all"]
    return flags


extensions = [
    Extension(
        f"ggfast._ext.{path.stem}",
        [path.as_posix()],
        extra_compile_args=compile_flags(),
        extra_link_args=[f"-fsanitize={sanitize}"] if sanitize and not coverage else [],
        libraries=[],
    )
    for path in sources
]


class BuildAll(build_ext):
    """The extensions, and what other languages' functions load: a shared library and a jar."""

    def run(self) -> None:
        super().run()
        if wanted:
            return
        workers = Path("." if self.inplace else self.build_lib) / "ggfast" / "core" / "workers"
        self.make("native", workers / "native" / "libaws-greengrass-core-sdk-c.so")
        if shutil.which("javac") or os.environ.get("GGFAST_JAVA") == "require":
            self.make("java", workers / "java" / "ggfast-runtime.jar")
        else:
            self.warn("no javac (Debian: default-jdk-headless): this build runs no Java functions")

    def make(self, part: str, output: Path) -> None:
        """Run one of packaging's builders."""
        output.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, f"packaging/build_{part}.py", str(output)], check=True)


setup(
    cmdclass={"build_ext": BuildAll},
    ext_modules=cythonize(
        extensions,
        build_dir="build/cython",
        nthreads=JOBS,
        include_path=["."],
        compiler_directives={
            "language_level": "3",
            "boundscheck": debug,
            "wraparound": False,
            "initializedcheck": debug,
            "cdivision": True,
            "embedsignature": False,
            "freethreading_compatible": False,
        },
        annotate=os.environ.get("GGFAST_ANNOTATE") == "1",
    ),
    options={"build_ext": {"parallel": JOBS}},
)
