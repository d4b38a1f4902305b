"""Which program runs a function, and with which words: the table of runtimes, and its way into a worker.

    python*      the core's own interpreter, forked warm; another one if config.json names it for the id
    nodejs*      the installed Node.js          java*   the installed Java
    executable   the function's own file

`ggfast.runtimes` in config.json maps a runtime id to an interpreter: {"nodejs12.x": "/opt/node/bin/node"}. Without
an entry a program of the id's own name is looked for first, as V1 did (greengrass-core 6.2), then the ordinary
name. Sources: sdk-contract 3 to 7; sandbox 9 (flags).
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ggfast import limits
from ggfast.core.functions.java_flags import java_flags
from ggfast.errors import DeploymentFailed
from ggfast.group.document import Function
from ggfast.group.functions import runtime_of
from ggfast.group.runtimes import Language, language_of
from ggfast.sandbox.paths import below_any
from ggfast.sandbox.policy import HIDDEN_ALWAYS

SEARCHED: Final = ("/usr/local/bin", "/usr/bin", "/bin")
RUNTIME_MOUNT: Final = "/runtime"
RUNTIME_FILES: Final = Path(__file__).resolve().parent.parent / "workers"
JAVA_TEXT: Final = "Installed Java version must be greater than or equal to 8"
# What a container replaces by its own, whatever the host has there.
_REPLACED: Final = ("/tmp", "/run", "/var", "/dev", "/proc", "/sys", "/lambda", "/runtime", *HIDDEN_ALWAYS)
_ORDINARY: Final = {Language.NODEJS: ("node", "nodejs"), Language.JAVA: ("java",)}
_INSTALL: Final = {Language.NODEJS: "apt install nodejs", Language.JAVA: "apt install default-jre-headless"}
_PRODUCT: Final = {Language.NODEJS: "Node.js 12 or later", Language.JAVA: "Java 8 or later"}
# Our own part of a runtime that a build may lack, and what it takes to build it.
_BUILT: Final = {
    Language.JAVA: ("java/ggfast-runtime.jar", "a Java compiler"),
    Language.EXECUTABLE: ("native/libaws-greengrass-core-sdk-c.so", "a C compiler"),
}
_JAVA_VERSION: Final = re.compile(r'^JAVA_VERSION="(?:1\.)?(\d+)', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Launch:
    """The program a worker becomes. `environment` stands under the function's own; a `PATH`-like variable that both
    have is joined, ours first. `adoptable`: whether it can go on with another daemon."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    stdio: bool = False
    adoptable: bool = False
    python: bool = False  # our own runtime in another interpreter: it takes its configuration as one variable


def find_interpreter(function: Function, configured: Mapping[str, str], hidden: Sequence[str] | None = ()) -> str:
    """The program for a function's runtime; empty: the core's own Python, or the function is one itself.

    `hidden` are the trees containers do not see, None for a function without one. Raises DeploymentFailed that names what to install. Looks at a few
    paths; does not run anything.
    """
    runtime = runtime_of(function)
    language = language_of(runtime) or Language.PYTHON
    path = configured.get(runtime, "")
    _check_built(function, language)
    if not path and language in _ORDINARY:
        path = _search((runtime, *_ORDINARY[language]))
        if not path:
            names = ", ".join((runtime, *_ORDINARY[language]))
            text = f"found none of {names} in {', '.join(SEARCHED)}, expected {_PRODUCT[language]}: install it "
            text += f"(Debian: {_INSTALL[language]}) or name it under ggfast.runtimes in config.json"
            raise _failure(function, text)
    if not path:
        return ""
    real = os.path.realpath(path)
    if not _executable(real):
        text = f"found no executable file at {path}, expected the interpreter that config.json names"
        raise _failure(function, text)
    if hidden is not None and (hiding := below_any(real, (*_REPLACED, *hidden))):
        text = f"found its interpreter {path} at {real}; containers do not see {hiding}: install it elsewhere"
        raise _failure(function, text)
    if language is Language.JAVA:
        _check_java(function, real)
    return path


def launch_of(
    function: Function, interpreter: str, memory_kb: int, code: str, runtime: str, archive: str = ""
) -> Launch | None:
    """How the function's workers start; None: as a fork of the warm Python image.

    `code` and `runtime` are the package and the runtime files as the worker sees them; `memory_kb` 0: no limit.
    `archive`: where below the code Java's class-data archive is, empty for none.
    """
    language = language_of(runtime_of(function)) or Language.PYTHON
    handler = f"--handler={function.handler}"
    if language is Language.NODEJS:
        argv = (interpreter, *node_flags(memory_kb), f"{runtime}/nodejs/main.js", handler)
        return Launch(argv, {"NODE_PATH": f"{runtime}/nodejs/node_modules:{code}/node_modules:{code}"})
    if language is Language.JAVA:
        jar = f"{runtime}/java/ggfast-runtime.jar"
        path = f"{jar}:{code}:{code}/*:{code}/lib/*"
        flags = java_flags(memory_kb, f"{code}/{archive}" if archive else None)
        return Launch((interpreter, *flags, "-cp", path, "io.ggfast.runtime.Main", handler), stdio=True)
    if language is Language.EXECUTABLE:
        words = tuple(shlex.split(function.configuration.exec_args))
        library = {"LD_LIBRARY_PATH": f"{runtime}/native"}
        return Launch((f"{code}/{function.handler}", *words), library, adoptable=True)
    if interpreter:
        return Launch((interpreter, "-B", f"{runtime}/python/ggmain.py"), adoptable=True, python=True)
    return None


def node_flags(memory_kb: int) -> list[str]:
    """V8's heap by the function's limit: what a 10 to 16 MB function needs to live through much garbage, at the price
    of speed, and nothing of it where there is room. Measured: workers/nodejs/README.md."""
    if not memory_kb:
        return []
    megabytes = memory_kb // 1024
    if memory_kb < limits.NODE_SMALL_MEMORY_KB:
        heap = max(megabytes // 2, limits.NODE_HEAP_MB_MIN)
        return ["--lite-mode", "--max-semi-space-size=1", "--v8-pool-size=0", f"--max-old-space-size={heap}"]
    small = ["--max-semi-space-size=1", "--v8-pool-size=0"] if memory_kb <= limits.NODE_MEDIUM_MEMORY_KB else []
    return [*small, f"--max-old-space-size={megabytes}"]


def _search(names: Sequence[str]) -> str:
    paths = (os.path.join(directory, name) for name in names for directory in SEARCHED)
    return next((path for path in paths if _executable(path)), "")


def _executable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _check_built(function: Function, language: Language) -> None:
    """Whether this installation has our part of the runtime: it is built where a compiler for it was."""
    needed = _BUILT.get(language)
    if needed and not (RUNTIME_FILES / needed[0]).is_file():
        text = f"found no {needed[0]} in this installation, expected it beside {RUNTIME_FILES}: it was built without "
        raise _failure(function, f"{text}{needed[1]}; install a complete build of ggfast")


def _check_java(function: Function, real: str) -> None:
    """Refuse a Java before 8 by the release file beside it; where there is none the start will tell."""
    home = os.path.dirname(os.path.dirname(real))
    for path in (f"{home}/release", f"{os.path.dirname(home)}/release"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                found = _JAVA_VERSION.search(file.read(limits.CONFIG_BYTES_MAX))
        except OSError:
            continue
        if found and int(found[1]) < 8:
            raise _failure(function, f"worker failed to initialize with reason {JAVA_TEXT}; found {found[1]} at {home}")
        return


def _failure(function: Function, text: str) -> DeploymentFailed:
    detail = f"Function {function.arn}, runtime {runtime_of(function)}: {text}"
    return DeploymentFailed("functions", detail, rolled_back=True)
