"""packaging/prepare.py: what it decides, on made-up trees; what it installs is shown by `make test` itself."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "packaging" / "prepare.py"


@pytest.fixture
def prepare(monkeypatch: pytest.MonkeyPatch, open_directory: Path) -> ModuleType:
    """The script as a module, looking at a small checkout of its own."""
    spec = importlib.util.spec_from_file_location("prepare", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    checkout = open_directory / "checkout"
    (checkout / "ggfast").mkdir(parents=True)
    (checkout / "packaging").mkdir()
    (checkout / "ggfast" / "__init__.py").write_text("")
    (checkout / "run").write_text("#!/bin/sh\n")
    (checkout / "run").chmod(0o700)
    monkeypatch.setattr(module, "CHECKOUT", checkout)
    monkeypatch.setattr(module, "MIRRORS", open_directory / "mirrors")
    monkeypatch.setattr(module, "HIDDEN_FROM_FUNCTIONS", ())
    return module


def test_a_reachable_checkout_is_used_in_place(prepare: ModuleType) -> None:
    assert prepare.working_tree() == (prepare.CHECKOUT, "")


def test_an_unreachable_checkout_is_mirrored(prepare: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    place = prepare.CHECKOUT
    place.parent.chmod(0o700)
    tree, reason = prepare.working_tree()
    assert tree.is_relative_to(prepare.MIRRORS)
    assert reason == f"other users cannot enter {place.parent}"
    place.parent.chmod(0o755)
    (place / "ggfast" / "__init__.py").chmod(0o600)
    assert "cannot read" in prepare.working_tree()[1]
    (place / "ggfast" / "__init__.py").chmod(0o644)
    monkeypatch.setattr(prepare, "HIDDEN_FROM_FUNCTIONS", (str(place.parent),))
    assert "containers" in prepare.working_tree()[1]


def test_the_mirror_follows_the_checkout(prepare: ModuleType) -> None:
    checkout, tree = prepare.CHECKOUT, prepare.MIRRORS / "x"
    (checkout / "build").mkdir()
    (checkout / "build" / "made").write_text("")
    prepare.mirror(tree)
    assert sorted(map(str, prepare.sources(tree))) == ["ggfast/__init__.py", "run"]
    assert (tree / "run").stat().st_mode & 0o777 == 0o755
    assert not (tree / "build").exists()
    assert (checkout / ".venv").readlink() == tree / ".venv"

    os.utime(tree / "run", (1, 1))
    (checkout / "ggfast" / "__init__.py").write_text("x = 1\n")
    (checkout / "new.py").write_text("")
    (tree / "ggfast" / "made.so").write_text("compiled in the mirror")
    prepare.mirror(tree)
    assert (tree / "run").stat().st_mtime == 1
    assert (tree / "ggfast" / "__init__.py").read_text() == "x = 1\n"
    (checkout / "new.py").unlink()
    prepare.mirror(tree)
    assert not (tree / "new.py").exists()
    assert (tree / "ggfast" / "made.so").exists()


def test_debian_packages_are_asked_for_only_when_missing(
    prepare: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listing = "# packages\nhave run # x\nlack run # x\nlack-too test # x\nextra optional # x\n"
    (prepare.CHECKOUT / "packaging" / "debian-packages.txt").write_text(listing)
    calls: list[tuple[str, ...]] = []
    answers = {"extra": "E: no such package"}
    monkeypatch.setattr(prepare.shutil, "which", lambda _: "/usr/bin/dpkg-query")
    monkeypatch.setattr(prepare, "installed_packages", lambda names: {"have"} & set(names))
    monkeypatch.setattr(prepare, "apt_get", lambda *words: calls.append(words) or answers.get(words[-1], ""))

    prepare.install_system_packages("run")
    assert [call[0] for call in calls] == ["update", "install", "install"]
    assert calls[1][-1:] == ("lack",)
    assert "going on without the optional package extra" in capsys.readouterr().out

    calls.clear()
    monkeypatch.setattr(prepare, "installed_packages", lambda names: set(names) - {"extra"})
    prepare.install_system_packages("test")
    assert calls == []

    monkeypatch.setattr(prepare, "installed_packages", lambda _: set())
    answers["lack-too"] = "E: Unable to locate package lack-too"
    with pytest.raises(prepare.Failed, match="could not be installed: E: Unable to locate package lack-too"):
        prepare.install_system_packages("test")


def test_the_interpreter_is_new_enough_and_reachable(
    prepare: ModuleType, monkeypatch: pytest.MonkeyPatch, open_directory: Path
) -> None:
    assert prepare.choose_interpreter().exists()
    monkeypatch.setattr(prepare, "PYTHON_FLOOR", (9, 9))
    with pytest.raises(prepare.Failed, match=r"no Python 9\.9 or newer.*is older"):
        prepare.choose_interpreter()
    monkeypatch.setattr(prepare, "PYTHON_FLOOR", (3, 11))
    monkeypatch.setattr(prepare, "unreachable", lambda _: "closed")
    with pytest.raises(prepare.Failed, match="cannot be reached by other users"):
        prepare.choose_interpreter()


def test_a_failed_step_is_one_sentence(prepare: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(prepare.Failed, match=r"could not bake: `sh -c echo burnt; exit 3 \.\.\.` ended with status 3"):
        prepare.execute(prepare.CHECKOUT, ["sh", "-c", "echo burnt; exit 3"], "bake")
    assert capsys.readouterr().err == "    burnt\n"


def test_stamps_name_content_not_dates(prepare: ModuleType, open_directory: Path) -> None:
    assert prepare.stamp(open_directory, "x") == ""
    prepare.write_stamp(open_directory, "x", prepare.digest([b"ab", b"c"]))
    assert prepare.stamp(open_directory, "x") == prepare.digest(iter([b"ab", b"c"]))
    assert prepare.digest([b"ab", b"c"]) != prepare.digest([b"a", b"bc"])


def test_clean_removes_what_was_made_and_nothing_else(prepare: ModuleType) -> None:
    made = prepare.CHECKOUT / ".venv"
    made.mkdir()
    (prepare.CHECKOUT / "ggfast" / "x.so").touch()
    (prepare.CHECKOUT / ".git").mkdir()
    prepare.clean(prepare.CHECKOUT)
    left = {path.name for path in prepare.CHECKOUT.rglob("*")}
    assert left == {"ggfast", "packaging", "__init__.py", "run", ".git"}


def test_wrong_use_shows_how() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "fly"], text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr.split()[:2]) == (2, ["python3", "packaging/prepare.py"])
