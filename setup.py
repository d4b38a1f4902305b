"""Builds the compiled part: every source in ext/ becomes ggfast._ext.<name>.

GGFAST_EXT=a,b   build only these modules (a developer's shortcut)
GGFAST_DEBUG=1   bounds checks, live-object counters and line tracing in the generated C
GGFAST_ANNOTATE=1   Cython's annotated listing of each source in build/cython
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

JOBS = min(os.cpu_count() or 1, 4)

debug = os.environ.get("GGFAST_DEBUG") == "1"
wanted = {name for name in os.environ.get("GGFAST_EXT", "").split(",") if name}
sources = [path for path in sorted(Path("ext").glob("*.pyx")) if not wanted or path.stem in wanted]

extensions = [
    Extension(
        f"ggfast._ext.{path.stem}",
        [path.as_posix()],
        extra_compile_args=["-O1", "-g", "-UNDEBUG"] if debug else ["-O2", "-g0", "-fvisibility=hidden"],
        define_macros=[("GGFAST_DEBUG", "1" if debug else "0")],
        libraries=[],
    )
    for path in sources
]

setup(
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
