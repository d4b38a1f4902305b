"""packaging/variant.py: trees of their own for special builds; `make debug` and the others show the builds."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "packaging" / "variant.py"


@pytest.fixture(scope="module")
def variant() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("variant", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["variant"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(open_directory: Path) -> Path:
    """Sources with a setup.py that says how it was called instead of compiling."""
    (open_directory / "ggfast" / "_ext").mkdir(parents=True)
    (open_directory / "ext").mkdir()
    (open_directory / "ggfast" / "__init__.py").write_text("place = __file__\n")
    (open_directory / "ext" / "a.pyx").write_text("")
    (open_directory / "ggfast" / "_ext" / "a.pxd").write_text("")
    (open_directory / "setup.py").write_text(
        "import os, sys\nopen('calls_cache', 'a').write(os.environ['GGFAST_DEBUG'] + ' '.join(sys.argv) + chr(10))\n"
    )
    return open_directory


def test_a_variant_is_built_once_in_a_tree_of_its_own(variant: ModuleType, checkout: Path) -> None:
    tree = variant.prepare_variant("debug", checkout)
    assert tree == checkout / "build" / "debug"
    variant.prepare_variant("debug", checkout)
    assert (tree / "calls_cache").read_text() == "1setup.py -q build_ext --inplace\n"
    assert not (checkout / "calls_cache").exists()


def test_what_changed_is_built_again(variant: ModuleType, checkout: Path) -> None:
    tree = variant.prepare_variant("debug", checkout)
    old = tree / "ggfast" / "_ext" / "a.so"
    old.write_text("")
    (checkout / "ext" / "a.pyx").write_text("# changed\n")
    variant.prepare_variant("debug", checkout)
    assert len((tree / "calls_cache").read_text().splitlines()) == 2 and old.exists()
    (checkout / "setup.py").write_text((checkout / "setup.py").read_text() + "# other flags\n")
    variant.prepare_variant("debug", checkout)
    assert not old.exists(), "an object of another build looks up to date"


def test_its_environment_finds_the_tree_first(variant: ModuleType, checkout: Path) -> None:
    tree = variant.prepare_variant("debug", checkout)
    code = "import ggfast, pytest, sys; print(ggfast.place, sys.prefix)"
    shown = subprocess.run([tree / ".venv" / "bin" / "python", "-c", code], cwd="/", capture_output=True, text=True)
    assert shown.stdout.split() == [str(tree / "ggfast" / "__init__.py"), str(tree / ".venv")], shown.stderr
    first = (tree / ".venv" / "bin" / "pytest").read_text().splitlines()[0]
    assert first == f"#!{tree / '.venv' / 'bin' / 'python'}"


def test_the_sanitizers_are_loaded_first(variant: ModuleType, checkout: Path) -> None:
    environment = variant.run_environment("asan", checkout)
    names = [Path(path).name for path in environment["LD_PRELOAD"].split()]
    assert [name.partition(".")[0] for name in names] == ["libasan", "libubsan"]
    assert environment["PYTHONMALLOC"] == "malloc"
    assert "LD_PRELOAD" not in variant.run_environment("debug", checkout).keys() - os.environ.keys()


def test_it_says_how_it_is_used() -> None:
    for wrong in ([], ["release"], ["debug", "pytest"]):
        done = subprocess.run([sys.executable, str(SCRIPT), *wrong], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and "variant.py VARIANT" in done.stderr
