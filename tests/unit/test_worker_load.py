"""The handler's module loaded without the import system is the module that `import` would give."""

from __future__ import annotations

import importlib
import py_compile
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

WORKERS = Path(__file__).resolve().parents[2] / "ggfast" / "core" / "workers" / "python"
SOURCE = '''"""Doc."""
import json
value = json.dumps(__name__)

def fail():
    raise ValueError("here")
'''


@pytest.fixture
def ggload(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(WORKERS))
    module = importlib.import_module("ggload")
    yield module
    for name in ("ggload", "handler_module"):
        sys.modules.pop(name, None)


def package(
    directory: Path, mode: py_compile.PycInvalidationMode = py_compile.PycInvalidationMode.UNCHECKED_HASH
) -> str:
    (directory / "handler_module.py").write_text(SOURCE)
    py_compile.compile(
        str(directory / "handler_module.py"), dfile="/somewhere/else.py", doraise=True, invalidation_mode=mode
    )
    return str(directory)


def test_it_is_the_module_that_import_gives(
    ggload: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = package(tmp_path)
    fast = ggload.load(directory, "handler_module")
    assert fast is sys.modules.pop("handler_module")
    monkeypatch.syspath_prepend(directory)
    slow = importlib.import_module("handler_module")
    for name in ("__name__", "__file__", "__cached__", "__package__", "__doc__", "value"):
        assert getattr(fast, name) == getattr(slow, name), name
    assert set(vars(fast)) == set(vars(slow))
    for name in ("name", "origin", "cached", "has_location", "parent", "submodule_search_locations"):
        assert getattr(fast.__spec__, name) == getattr(slow.__spec__, name), name
    try:
        fast.fail()
    except ValueError as error:
        assert traceback.extract_tb(error.__traceback__)[-1].filename == str(tmp_path / "handler_module.py")
    sys.modules["handler_module"] = fast
    assert importlib.reload(fast) is fast


@pytest.mark.parametrize("case", ["no byte code", "checked", "package", "extension", "dotted", "imported", "damaged"])
def test_everything_else_is_left_to_import(ggload: ModuleType, tmp_path: Path, case: str) -> None:
    directory = package(tmp_path)
    name = "handler_module"
    cached = next((tmp_path / "__pycache__").iterdir())
    if case == "no byte code":
        cached.unlink()
    elif case == "checked":
        package(tmp_path, py_compile.PycInvalidationMode.CHECKED_HASH)
    elif case == "package":
        (tmp_path / name).mkdir()
    elif case == "extension":
        (tmp_path / f"{name}.abi3.so").touch()
    elif case == "dotted":
        name = "sub.handler_module"
    elif case == "imported":
        sys.modules[name] = ModuleType(name)
    elif case == "damaged":
        cached.write_bytes(b"\0" * 16)
    assert ggload.load(directory, name) is None


def test_a_module_that_fails_is_not_left_behind(ggload: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "handler_module.py").write_text("raise RuntimeError('at import')\n")
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(tmp_path / "handler_module.py"), doraise=True, invalidation_mode=mode)
    with pytest.raises(RuntimeError, match="at import"):
        ggload.load(str(tmp_path), "handler_module")
    assert "handler_module" not in sys.modules
