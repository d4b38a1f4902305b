"""The table of what a kernel may lack: whole, told once, and agreeing with what is tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from ggfast._ext import kernel
from ggfast.sandbox import ladder
from ggfast.sandbox.cgroups import Hierarchy, Layout


def layout(*controllers: str, version: int = 2) -> Layout:
    return Layout((Hierarchy(version, "/nowhere", frozenset(controllers), "/nowhere"),))


def test_every_feature_says_what_functions_lose_and_what_to_do() -> None:
    for name, feature in ladder.LADDER.items():
        assert name == feature.name
        assert feature.since
        assert feature.without
        assert feature.advice.endswith(".")
        assert feature.told.startswith(f"{name} not available")
        assert feature.required is ("refused" in feature.without and name != "session keyring")


def test_what_is_missing_is_told_once_and_in_order() -> None:
    lines = ladder.told({"pidfd": "ENOSYS", "namespaces": "EPERM", "unknown": "x"})
    assert [line.split(" not ")[0] for line in lines] == ["namespaces", "pidfd"]
    assert lines[0].endswith("[EPERM]")
    assert ladder.told({}) == []


def test_controllers_that_are_bound_nowhere() -> None:
    found = ladder.group_problems(Layout(()), ())
    assert set(found) == {"memory controller", "pids controller", "cpu controller", "device rules"}


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ("memory.max memory.swap.max memory.oom.group cgroup.kill", set()),
        ("memory.max memory.swap.max memory.oom.group", {"cgroup.kill"}),
        ("memory.max memory.swap.max cgroup.kill", {"group kill"}),
        ("memory.max memory.oom.group cgroup.kill", {"swap accounting"}),
        ("cgroup.kill", set()),  # a group without controllers says nothing about them
    ],
)
def test_files_of_a_group_on_v2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: str, missing: set[str]) -> None:
    monkeypatch.setattr(ladder, "device_problem", lambda _: None)
    monkeypatch.setattr(ladder, "_has_swap", lambda: True)
    for name in files.split():
        (tmp_path / name).touch()
    found = ladder.group_problems(layout("memory", "pids", "cpu"), [str(tmp_path)])
    assert set(found) == missing


@pytest.mark.parametrize(
    ("abi", "missing"),
    [(0, {"landlock scopes", "landlock domains"}), (1, {"landlock scopes", "landlock domains"}),
     (2, {"landlock scopes"}), (5, {"landlock scopes"}), (6, set()), (9, set())],
)  # fmt: skip
def test_landlock_by_its_version(monkeypatch: pytest.MonkeyPatch, abi: int, missing: set[str]) -> None:
    monkeypatch.setattr(kernel, "landlock_abi", lambda: abi)
    found = {name for name in ladder.other_problems() if name.startswith("landlock")}
    assert found == missing


def test_a_call_the_kernel_lacks_has_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise OSError(38, "")

    monkeypatch.setitem(ladder.CALLS, "close_range", absent)
    assert ladder.call_problem("close_range") == "Function not implemented"
    assert ladder.other_problems()["close_range"] == "Function not implemented"
