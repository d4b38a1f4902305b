"""The repository holds itself to the design: import direction, doors of third-party packages, sizes, words."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGE = REPOSITORY / "ggfast"
WORKERS = PACKAGE / "core" / "workers"

# Lowest first. Packages of one level do not know each other; a package knows itself and everything lower.
LEVELS = (
    "errors limits plainfile clock counters",
    "arns fields layout log",
    "settings",
    "crypto_settings",
    "config",
    "_ext",
    "storage net sandbox",
    "mqtt group shadows",
    "core cloud ota",
    "cli",
)
LEVEL = {name: height for height, names in enumerate(LEVELS) for name in names.split()}

# Each third-party package and the only places that may import it. What is not listed may not be imported at all.
DOORS = {
    "aiohttp": ("cloud/",),
    "boto3": ("cli/demo_cloud.py",),
    "aiomqtt": ("net/mqttclient.py",),
    "cgroupspy": ("sandbox/", "cli/doctor_machine.py"),
    "cryptography": ("cli/cert.py", "cli/cert_", "cloud/"),
    "httptools": ("net/",),
    "orjson": ("storage/", "net/", "mqtt/", "group/", "shadows/", "core/", "cloud/", "config.py", "fields.py"),
    "paho": ("cli/",),
    "prctl": ("sandbox/", "cli/doctor.py"),
    "sqlite_utils": ("cloud/store/",),
    "uvloop": ("core/", "cloud/", "cli/"),
}
TEXT_SUFFIXES = {".py", ".pyx", ".pxd", ".pyi", ".md", ".txt", ".sh", ".js", ".java", ".c", ".h", ".toml", ""}
LINES_MAX = 500  # a longer file is asking to become two


def python_files() -> list[Path]:
    """Every Python file of the package, without what runs inside functions' containers."""
    return [path for path in sorted(PACKAGE.rglob("*.py")) if not path.is_relative_to(WORKERS)]


def cython_files() -> list[Path]:
    """Every Cython source and declaration file."""
    return sorted([*(REPOSITORY / "ext").glob("*.pyx"), *(PACKAGE / "_ext").glob("*.pxd")])


def text_files() -> Iterator[Path]:
    """Every text file that people wrote."""
    for folder in ("ggfast", "ext", "tests", "bench", "packaging", "examples", ".ci"):
        for path in sorted((REPOSITORY / folder).rglob("*")):
            if path.suffix in TEXT_SUFFIXES and path.is_file() and "__pycache__" not in path.parts:
                yield path
    yield from (path for path in REPOSITORY.glob("*") if path.suffix in {".md", ".toml", ".py", ".in"})
    yield REPOSITORY / "Makefile"


def module_name(path: Path) -> str:
    """`ggfast.net.tls` for its file; sources in ext/ belong to `ggfast._ext`."""
    if path.parent == REPOSITORY / "ext":
        return f"ggfast._ext.{path.stem}"
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of_python(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Full names of everything `source` imports, wherever in the file; for `from a import b` both a and a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node.level, node.module or "", module, is_package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


CYTHON_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<dots>\.*)(?P<base>[\w.]*)[ \t]+c?import[ \t]*(?P<names>\([^)]*\)|[^#\n]*)"
    r"|c?import[ \t]+(?P<plain>[^#\n]*))",
    re.MULTILINE,
)


def imports_of_cython(source: str, module: str) -> Iterator[str]:
    """The same for Cython, whose `cimport` Python's parser does not know."""
    for match in CYTHON_IMPORT.finditer(source):
        if match["plain"] is not None:
            yield from (name.split()[0] for name in match["plain"].split(",") if name.strip())
            continue
        base = absolute(len(match["dots"]), match["base"], module, is_package=False)
        for name in match["names"].strip("()").split(","):
            if name.strip():
                yield f"{base}.{name.split()[0]}"


def absolute(dots: int, base: str, module: str, is_package: bool) -> str:
    """The full name behind a relative import."""
    if not dots:
        return base
    parts = module.split(".")
    parts = parts[: len(parts) - dots + (1 if is_package else 0)]
    return ".".join([*parts, base] if base else parts)


def imports(path: Path) -> list[str]:
    """Full names of everything the file imports."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return list(imports_of_python(source, module_name(path), path.name == "__init__.py"))
    return list(imports_of_cython(source, module_name(path)))


def part_of(name: str) -> str:
    """`net` for `ggfast.net.tls`; "" for the top package itself (its version)."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LEVEL else ""


def upward(module: str, imported: list[str]) -> list[str]:
    """Those imports of `module` that do not point down."""
    here = part_of(module)
    wrong = []
    for name in imported:
        if name.split(".")[0] != "ggfast":
            continue
        there = part_of(name)
        known = there or name.split(".")[1:] in ([], ["__version__"])
        if not known or (there and there != here and not (here and LEVEL[there] < LEVEL[here])):
            wrong.append(name)
    return wrong


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("ggfast.net.tls", "import ggfast.core.runtime", ["ggfast.core.runtime"]),
        ("ggfast.net.tls", "from ggfast import core", ["ggfast.core"]),
        ("ggfast.net.tls", "from ..storage import files", ["ggfast.storage.files"]),
        ("ggfast.net.tls", "from . import http\nfrom .http import x\nfrom ggfast import errors, __version__", []),
        ("ggfast.net.tls", "def f():\n    from ggfast.sandbox.plan import x", ["ggfast.sandbox.plan.x"]),
        ("ggfast.errors", "import ggfast.limits", ["ggfast.limits"]),
        ("ggfast.core.a.b", "from ... import mqtt\nfrom ..c import d\nimport json", []),
        ("ggfast.core.a", "import ggfast.unheard_of", ["ggfast.unheard_of"]),
    ],
)
def test_the_direction_check_sees_every_form(module: str, source: str, wrong: list[str]) -> None:
    assert upward(module, list(imports_of_python(source, module, is_package=False))) == wrong


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("from ggfast._ext.buffers cimport (\n    InBuffer,\n    OutBuffer)\nfrom .topics cimport x", []),
        ("from ggfast.mqtt.broker import x  # why", ["ggfast.mqtt.broker.x"]),
        ("cdef f():\n    from ggfast cimport core", ["ggfast.core"]),
        ("cimport ggfast.net.tls as t, cython", ["ggfast.net.tls"]),
        ("from ggfast.errors import Malformed\nfrom libc.string cimport memcpy", []),
    ],
)
def test_the_direction_check_reads_cython(source: str, wrong: list[str]) -> None:
    assert upward("ggfast._ext.session", list(imports_of_cython(source, "ggfast._ext.session"))) == wrong


def test_imports_point_down() -> None:
    found = [
        f"{path.relative_to(REPOSITORY)} imports {name}"
        for path in [*python_files(), *cython_files()]
        for name in upward(module_name(path), imports(path))
    ]
    assert not found, "imports go downward only (design, section 5):\n" + "\n".join(found)


def test_every_top_level_name_has_a_level() -> None:
    names = {module_name(path).split(".")[1] for path in python_files() if path.parent != PACKAGE}
    names |= {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    assert names <= set(LEVEL), f"give these a level: {sorted(names - set(LEVEL))}"


def test_third_party_packages_come_in_by_their_doors() -> None:
    found = []
    for path in python_files():
        here = path.relative_to(PACKAGE).as_posix()
        for name in imports(path):
            top = name.split(".")[0]
            if top in sys.stdlib_module_names or top == "ggfast":
                continue
            if not here.startswith(DOORS.get(top, ())):
                found.append(f"{here} imports {top}; its doors: {', '.join(DOORS.get(top, ())) or 'none'}")
    assert not found, "\n".join(found)


def test_workers_stand_alone() -> None:
    found = []
    for path in sorted((WORKERS / "python").rglob("*.py")):
        own = {at.stem if at.is_file() else at.name for at in (WORKERS / "python").rglob("*")}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            found += [
                f"{path.relative_to(REPOSITORY)} imports {name}"
                for name in names
                if name.split(".")[0] not in sys.stdlib_module_names | own
            ]
    assert not found, "what runs inside a container uses the standard library alone:\n" + "\n".join(found)


# What would bring network data, keys or other people's code into the process that runs as root.
NEVER_IN_THE_ROOT_PROCESS = {"ssl", "_ssl", "http", "email", "urllib", "asyncio", "sqlite3", "ctypes", "pickle"}


def test_p6_the_root_process_loads_the_sandbox_alone() -> None:
    """The supervisor, imported as it is started: without site-packages, so nothing third-party can be there."""
    code = f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); import ggfast.sandbox.supervisor; print(*sys.modules)"
    command = [sys.executable, "-I", "-S", "-E", "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    ours = {name for name in loaded if name.startswith("ggfast.") and part_of(name) != "sandbox"}
    assert ours <= {"ggfast._ext", "ggfast._ext.kernel", "ggfast.errors", "ggfast.limits"}
    assert not NEVER_IN_THE_ROOT_PROCESS & set(loaded)
    assert "ggfast.sandbox.supervisor" in loaded


def test_files_stay_readable() -> None:
    files = [*PACKAGE.rglob("*.py"), *(REPOSITORY / "ext").glob("*.pyx")]
    counts = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    long = [f"{count} {path.relative_to(REPOSITORY)}" for path, count in counts.items() if count > LINES_MAX]
    assert not long, f"over {LINES_MAX} lines: {long}"


def test_public_names_are_documented() -> None:
    found = []
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        here = path.relative_to(REPOSITORY)
        if tree.body and not ast.get_docstring(tree):
            found.append(f"{here}: module")
        for node in tree.body:
            public = isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name[0] != "_"
            if public and not ast.get_docstring(node):
                found.append(f"{here}:{node.lineno} {node.name}")
    assert not found, "without a docstring:\n" + "\n".join(found)


def test_every_compiled_module_has_a_typed_face() -> None:
    bare = [path.name for path in (REPOSITORY / "ext").glob("*.pyx") if not face(path).is_file()]
    assert not bare, f"no .pyi in ggfast/_ext for {bare}"


def test_every_compiled_module_is_explained() -> None:
    explained = set(re.findall(r"^\| `(\w+)` \|", (REPOSITORY / "ext" / "README.md").read_text(), re.MULTILINE))
    sources = {path.stem for path in (REPOSITORY / "ext").glob("*.pyx")}
    assert sources <= explained, f"add to the table of ext/README.md: {sources - explained}"


def face(source: Path) -> Path:
    """The type declarations that belong to a Cython source."""
    return PACKAGE / "_ext" / f"{source.stem}.pyi"


BOUND = re.compile(r"[A-Z0-9_]*(?:MAX|MIN|LIMIT|TIMEOUT)(?:_[A-Z]+)?")


def test_bounds_have_reasons() -> None:
    """A number that bounds something stands in limits.py, or says beside itself why it is what it is."""
    found = []
    for path in set(python_files()) - {PACKAGE / "limits.py"}:
        source = path.read_text(encoding="utf-8")
        lines = source.splitlines()
        for node in ast.parse(source).body:
            target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
            value = getattr(node, "value", None)
            if isinstance(target, ast.Name) and BOUND.fullmatch(target.id) and isinstance(value, ast.Constant):
                around = lines[max(node.lineno - 2, 0)].lstrip()
                if not comment_on(lines[node.lineno - 1]) and not around.startswith("#"):
                    found.append(f"{path.relative_to(REPOSITORY)}:{node.lineno} {target.id}")
    assert not found, "bounds without a reason:\n" + "\n".join(found)


def comment_on(line: str) -> bool:
    """Whether a line of Python carries a comment."""
    kinds = (token.type for token in tokenize.generate_tokens(io.StringIO(line.strip() + "\n").readline))
    return tokenize.COMMENT in kinds


def test_dependencies_say_why() -> None:
    lines = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    bare = [line.strip() for line in lines if re.match(r'\s+"[A-Za-z0-9_-]+(\[.*\])?[<>=]', line) and "#" not in line]
    assert not bare, f"dependencies without a reason: {bare}"


def test_the_gpl_package_stays_optional() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    with_prctl = {
        name for name, needs in project["optional-dependencies"].items() if any("prctl" in need for need in needs)
    }
    assert with_prctl == {"prctl"}
    assert not any("prctl" in need for need in project["dependencies"])


def test_debian_packages_say_why() -> None:
    for line in (REPOSITORY / "packaging" / "debian-packages.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(
                r"[a-z0-9.+-]+ +(run|test|fuzz|vm|guest(-[a-z0-9]+)?|optional)(:[a-z0-9+-]+)? +# \S.*", line
            ), line


# Put together from pieces so that this file does not find itself.
UNFINISHED = re.compile("|".join(["TO" + "DO", "FIX" + "ME", r"\bXX" + r"X\b", "for " + "now\\b"]))
SOMEBODYS_MACHINE = re.compile(
    "|".join([re.escape(f"{REPOSITORY}/"), r"/root/\.(?!ssh)", "py" + "env", "/home/" + "[a-z]+/"])
)


@pytest.mark.parametrize("pattern", [UNFINISHED, SOMEBODYS_MACHINE], ids=["unfinished work", "a developer's machine"])
def test_no_text_mentions(pattern: re.Pattern[str]) -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()[:100]}"
        for path in text_files()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)


def test_continuous_integration_runs_the_test_command() -> None:
    script = (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")
    assert re.search(r"^exec make test$", script, re.MULTILINE)


@pytest.mark.parametrize("module", [module_name(path) for path in python_files()])
def test_imports_alone(module: str) -> None:
    """Each module can be the first one imported, and warns of nothing."""
    command = [sys.executable, "-W", "error", "-c", f"import {module}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
