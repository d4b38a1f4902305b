#!/usr/bin/env python3
"""Runs a command in a special build of this checkout that has a tree of its own, build/VARIANT.

    python packaging/variant.py VARIANT [-- COMMAND...]

    debug    bounds checks, assertions, live-object counters: the tests assert that nothing stays alive
    asan     AddressSanitizer and UndefinedBehaviorSanitizer; every Python object is a malloc block of its own
    fuzz     coverage counters and live-object counters, compiled by clang

The tree is a copy of the sources with an environment of its own, which shares the third-party packages of the
environment this runs in; nothing outside the tree is changed. Only what changed is copied and compiled again.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from prepare import CHECKOUT, COMPILED, Failed, copy_sources, digest, execute, say, sources, stamp, write_stamp

# Leaks of the interpreter itself are not ours; a failed allocation is a case that our code handles.
PTH = "ggfast-variant.pth"  # in the environment of a variant: where its modules and packages are
ASAN_OPTIONS = "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1"
UBSAN_OPTIONS = "print_stacktrace=1"
CLANG = {"CC": "clang", "LDSHARED": "clang -shared"}


@dataclass(frozen=True)
class Variant:
    """How a special build is made and run."""

    build: dict[str, str]  # environment of the build
    run: dict[str, str] = field(default_factory=dict)  # environment of the command
    preload: tuple[str, ...] = ()  # gcc's run-time libraries that must be loaded before all others


VARIANTS = {
    "debug": Variant({"GGFAST_DEBUG": "1"}),
    "asan": Variant(
        {"GGFAST_SANITIZE": "address,undefined"},
        {"PYTHONMALLOC": "malloc", "ASAN_OPTIONS": ASAN_OPTIONS, "UBSAN_OPTIONS": UBSAN_OPTIONS},
        ("libasan.so", "libubsan.so"),
    ),
    "fuzz": Variant({"GGFAST_COVERAGE": "1", **CLANG}, CLANG),
}


def main(arguments: list[str]) -> int:
    """Make the variant's tree ready and become the command in it."""
    command = arguments[2:] if arguments[1:2] == ["--"] else []
    if not arguments or arguments[0] not in VARIANTS or (arguments[1:] and not command):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        tree = prepare_variant(arguments[0])
        environment = run_environment(arguments[0], tree)
    except Failed as failure:
        print(f"ggfast: {failure}", file=sys.stderr)
        return 1
    if command:
        os.chdir(tree)
        os.execvpe(command[0], command, environment)
    return 0


def prepare_variant(name: str, checkout: Path = CHECKOUT) -> Path:
    """Bring build/NAME up to date with the checkout's sources and return it; raises Failed."""
    tree = checkout / "build" / name
    copy_sources(checkout, tree)
    made = tree / ".make"
    made.mkdir(exist_ok=True)
    flags = digest([repr(sorted(VARIANTS[name].build.items())).encode(), (tree / "setup.py").read_bytes()])
    if stamp(made, "flags") != flags:  # objects of another build look up to date
        shutil.rmtree(tree / "build", ignore_errors=True)
        for compiled in (tree / "ggfast" / "_ext").glob("*.so"):
            compiled.unlink()
    inputs = digest([flags.encode(), *((tree / path).read_bytes() for path in sources(tree, *COMPILED))])
    share_environment(tree)
    if stamp(made, "compiled") != inputs:
        say(f"compiling ext/ for {tree}")
        write_stamp(made, "flags", flags)
        settings = [f"{key}={value}" for key, value in VARIANTS[name].build.items()]
        build = [str(tree / ".venv" / "bin" / "python"), "setup.py", "-q", "build_ext", "--inplace"]
        execute(tree, ["env", *settings, *build], f"compile ext/ for {name}")
        write_stamp(made, "compiled", inputs)
    return tree


def share_environment(tree: Path) -> None:
    """Give `tree` a virtual environment that finds the tree first and then this environment's packages.

    What a .pth line names is not searched for further .pth files: the checkout itself stays unseen.
    """
    environment = tree / ".venv"
    packages = Path(sysconfig.get_paths()["purelib"])
    outer = packages / PTH  # run inside a variant: its packages are those it was given itself
    if outer.exists():
        packages = Path(outer.read_text().splitlines()[1])
    base = digest([sys.executable.encode(), sys.version.encode()])
    if stamp(environment, "base") != base:
        shutil.rmtree(environment, ignore_errors=True)
        execute(tree, [sys.executable, "-m", "venv", "--without-pip", str(environment)], "make a virtual environment")
        write_stamp(environment, "base", base)
    python = environment / "bin" / "python"
    query = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    own = Path(subprocess.check_output([str(python), "-c", query], text=True).strip())
    (own / PTH).write_text(f"{tree}\n{packages}\n")
    for program in Path(sys.executable).parent.iterdir():
        text = program.read_bytes() if program.is_file() else b""
        shebang, _, rest = text.partition(b"\n")
        if shebang == b"#!" + sys.executable.encode():
            target = environment / "bin" / program.name
            target.write_bytes(b"#!" + str(python).encode() + b"\n" + rest)
            target.chmod(program.stat().st_mode & ~stat.S_IWGRP)


def run_environment(name: str, tree: Path) -> dict[str, str]:
    """The environment of a command in the variant; raises Failed without the libraries it needs."""
    variant = VARIANTS[name]
    path = f"{tree / '.venv' / 'bin'}:{os.environ.get('PATH') or '/usr/bin:/bin'}"
    environment = {**os.environ, **variant.run, "PATH": path, "VIRTUAL_ENV": str(tree / ".venv")}
    environment.pop("PYTHONHOME", None)
    preload = []
    for library in variant.preload:
        found = subprocess.run(["gcc", f"-print-file-name={library}"], capture_output=True, text=True).stdout.strip()
        if not Path(found).is_absolute():
            raise Failed(f"gcc does not know {library}, which the build {name!r} needs")
        preload.append(str(Path(found).resolve()))
    if preload:
        environment["LD_PRELOAD"] = " ".join(preload)
    return environment


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
