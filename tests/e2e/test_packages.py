"""What we hand out: the wheel and the source archive hold what they must, and install without a network.

Builds use the tools of this environment (no isolation). The installed copies see this environment's third-party
packages through a .pth line, so nothing is downloaded.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MADE = ("*.so", "*.jar", "*.egg-info", "__pycache__", ".*", "build", "dist")
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")


def run(*command: str | Path, cwd: Path, path: str = "") -> str:
    """Run a command to its end and return what it printed; its output is the failure's text."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment = {**kept, "PIP_NO_INDEX": "1", "PYTHONPATH": path} if path else {**kept, "PIP_NO_INDEX": "1"}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def build(kind: str, source: Path, into: Path) -> Path:
    """Build an sdist or a wheel of `source` and return the file."""
    run(sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", into, source, cwd=into)
    (made,) = into.glob("*.tar.gz" if kind == "sdist" else "*.whl")
    return made


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory that is removed at the end: build trees are large."""
    path = tmp_path_factory.mktemp("packages")
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def checkout(work: Path) -> Path:
    """A clean copy of the sources: building must not leave anything in the tree under test."""
    ignored = shutil.ignore_patterns(*MADE)
    return Path(shutil.copytree(REPOSITORY, work / "checkout", ignore=ignored))


@pytest.fixture(scope="module")
def sdist(work: Path, checkout: Path) -> Path:
    into = work / "sdist"
    into.mkdir()
    return build("sdist", checkout, into)


@pytest.fixture(scope="module")
def unpacked(work: Path, sdist: Path) -> Path:
    """The source archive as a packager has it."""
    (work / "unpacked").mkdir()
    run("tar", "-xzf", sdist, "-C", work / "unpacked", cwd=work)
    (source,) = (work / "unpacked").iterdir()
    return source


@pytest.fixture(scope="module")
def wheel(work: Path, unpacked: Path) -> Path:
    into = work / "wheel"
    into.mkdir()
    return build("wheel", unpacked, into)


def names_in_sdist(sdist: Path) -> set[str]:
    with tarfile.open(sdist) as archive:
        return {member.name.partition("/")[2] for member in archive if member.isfile()}


def package_files(checkout: Path) -> set[str]:
    """Every file of the package that people wrote."""
    found = (path for path in (checkout / "ggfast").rglob("*") if path.is_file())
    return {
        path.relative_to(checkout).as_posix()
        for path in found
        if path.suffix not in {".so", ".jar", ".pyc"} and "__pycache__" not in path.parts
    }


def compiled_modules(checkout: Path) -> set[str]:
    """What the sources in ext/ become."""
    return {f"ggfast/_ext/{path.stem}{SUFFIX}" for path in (checkout / "ext").glob("*.pyx") if path.stem != "live"}


RUNTIMES = {
    "ggfast/core/workers/native/libaws-greengrass-core-sdk-c.so",
    "ggfast/core/workers/java/ggfast-runtime.jar",
}


def test_the_source_archive_has_all_that_building_needs(checkout: Path, sdist: Path) -> None:
    names = names_in_sdist(sdist)
    sources = {path.relative_to(checkout).as_posix() for path in (checkout / "ext").iterdir()}
    needed = {"LICENSE", "NOTICE", "README.md", "pyproject.toml", "setup.py", "Makefile", "packaging/prepare.py"}
    assert not (package_files(checkout) | sources | needed) - names
    assert not [name for name in names if name.endswith((".so", ".jar", ".pyc")) or name.startswith("tests")]
    assert not [name for name in names if name.startswith(("build/", "ext/")) and name.endswith(".c")]


def test_the_wheel_has_the_compiled_modules_and_nothing_foreign(checkout: Path, wheel: Path) -> None:
    sources = {name for name in package_files(checkout) if name.endswith((".c", ".java", ".map")) or "native/" in name}
    headers = {name for name in sources if name.endswith("/greengrasssdk.h")}
    expected = (package_files(checkout) - sources | headers) | compiled_modules(checkout) | RUNTIMES
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert not expected - names
    assert not {name for name in names - expected if ".dist-info/" not in name}
    assert {name.rpartition("/")[2] for name in names} >= {"LICENSE", "NOTICE"}
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert wheel.name.endswith(f"-cp{sys.version_info[0]}{sys.version_info[1]}-{platform}.whl") or "abi" in wheel.name


def fresh_environment(at: Path) -> Path:
    """A virtual environment that sees this one's third-party packages but not this one's ggfast."""
    venv.create(at, with_pip=False, symlinks=True)
    site = at / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    theirs = site / "third-party"
    theirs.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if "ggfast" not in path.name and path.suffix != ".pth" and path.name != "__pycache__":
            (theirs / path.name).symlink_to(path)
    (site / "third-party.pth").write_text(f"{theirs}\n")
    return at / "bin"


def install(programs: Path, *what: str | Path, cwd: Path) -> None:
    """Install into the environment with this one's pip; it may not ask for anything else."""
    pip = [sys.executable, "-m", "pip", "--python", programs / "python"]
    run(*pip, "install", "-q", "--no-deps", *what, cwd=cwd)


def check_installed(programs: Path, package: Path, modules: set[str], cwd: Path) -> None:
    """The installed program runs, and its modules come from `package`."""
    version = run(programs / "ggfast-core", "--version", cwd=cwd).strip()
    where = "import ggfast, ggfast._ext, pathlib; print(pathlib.Path(ggfast.__file__).parent, ggfast.__version__)"
    place, number = run(programs / "python", "-c", where, cwd=cwd).split()
    assert Path(place) == package
    assert number in version
    for name in modules:
        module = name.removesuffix(SUFFIX).replace("/", ".")
        code = f"import {module} as m; assert m.__file__.endswith({SUFFIX!r}), m.__file__"
        run(programs / "python", "-c", code, cwd=cwd)


def test_the_wheel_installs_and_runs(work: Path, checkout: Path, wheel: Path) -> None:
    programs = fresh_environment(work / "from-wheel")
    install(programs, wheel, cwd=work)
    site = programs.parent / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    check_installed(programs, site / "ggfast", compiled_modules(checkout), work)


def test_an_editable_install_runs_from_the_sources(work: Path, unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two modules stand for all: the wheel has shown that the others are built, and each takes seconds."""
    monkeypatch.setenv("GGFAST_EXT", "kernel,topics")
    programs = fresh_environment(work / "editable")
    install(programs, "--no-build-isolation", "-e", unpacked, cwd=work)
    two = {f"ggfast/_ext/{name}{SUFFIX}" for name in ("kernel", "topics")}
    check_installed(programs, unpacked / "ggfast", two, work)
