"""Which functions of a group are served where something that one of them needs is missing, or does not answer."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from group_support import FUNCTION

from ggfast.config import parse_config
from ggfast.core.deploy import apply
from ggfast.core.deploy.apply import GroupApplier, aside
from ggfast.core.functions.environment import WorkerPlan
from ggfast.errors import DeploymentFailed, StorageFailed
from ggfast.group.document import (
    Function,
    FunctionConfiguration,
    Group,
    GroupOwnerSetting,
    LocalVolume,
    Permission,
    Resource,
    ResourceAccessPolicy,
    ResourceData,
    S3Model,
)
from ggfast.group.runtimes import EXECUTABLE_RUNTIME

OTHER = FUNCTION.replace("counter", "other")
CORE = "arn:aws:iot:eu-west-1:123456789012:thing/core"


class Functions:
    """Remembers what was to run, and by which way."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []

    async def apply(self, plans: Sequence[WorkerPlan]) -> dict[str, str]:
        self.calls.append(("apply", [plan.arn for plan in plans]))
        return {}

    async def adopt_all(self, plans: Sequence[WorkerPlan]) -> dict[str, str]:
        self.calls.append(("adopt_all", [plan.arn for plan in plans]))
        return {}


class Core:
    def __init__(self, root: Path) -> None:
        for directory in ("ggc/deployment/lambda", "ggc/deployment/models"):
            (root / directory).mkdir(parents=True)
        document = {"coreThing": {"thingArn": CORE}, "ggfast": {"local": True}}
        self.functions, self.parts = Functions(), MagicMock()
        self.parts.functions = self.functions
        self.parts.listener.set_devices = self._devices
        self.applier = GroupApplier(parse_config(json.dumps(document).encode(), root), self.parts, (61_111, 61_111))

    async def _devices(self, paths: object) -> None:
        pass


@pytest.fixture
def core(tmp_path: Path) -> Core:
    return Core(tmp_path)


def two_functions(needed: ResourceData) -> Group:
    """The first needs the resource."""
    policy = ResourceAccessPolicy("r", Permission.RO)
    first = Function("one", FUNCTION, "main.handler", configuration=FunctionConfiguration(resources=(policy,)))
    second = Function("two", OTHER, "main.handler")
    return Group(functions=(first, second), resources=(Resource("r", "r", needed),))


def volume(path: Path) -> LocalVolume:
    return LocalVolume(str(path), "/data", GroupOwnerSetting(auto_add=True))


def test_P3_a_core_starts_what_it_can(core: Core, tmp_path: Path) -> None:
    group = two_functions(volume(tmp_path / "unplugged"))
    problems = asyncio.run(core.applier.start(group))
    assert core.functions.calls == [("adopt_all", [OTHER])]
    assert list(problems) == [FUNCTION]
    assert "unplugged: No such file or directory" in problems[FUNCTION]
    assert core.applier.current is group
    core.parts.table.set_table.assert_called_once()


def test_P4_a_deployment_is_refused_before_anything_is_touched(core: Core, tmp_path: Path) -> None:
    with pytest.raises(DeploymentFailed, match="unplugged: No such file"):
        asyncio.run(core.applier.apply(two_functions(volume(tmp_path / "unplugged"))))
    assert core.functions.calls == [] and core.parts.method_calls == []


def test_P4_the_previous_group_is_restored_without_what_is_gone(core: Core, tmp_path: Path) -> None:
    assert list(asyncio.run(core.applier.restore(two_functions(volume(tmp_path / "unplugged"))))) == [FUNCTION]
    assert core.functions.calls == [("apply", [OTHER])]


def test_a_function_that_was_deployed_and_is_wrong_all_the_same(
    core: Core, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "find_interpreter", lambda *_: "")
    wrong = FunctionConfiguration(exec_args='"', runtime_override=EXECUTABLE_RUNTIME)
    one, two = two_functions(volume(tmp_path)).functions
    group = Group(functions=(replace(one, configuration=wrong), two))
    assert "No closing quotation" in asyncio.run(core.applier.start(group))[FUNCTION]
    assert core.functions.calls == [("adopt_all", [OTHER])]


def test_models_that_cannot_be_prepared(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise StorageFailed("no access lists")

    monkeypatch.setattr(apply, "prepare_models", fail)
    group = two_functions(S3Model("/models/x", "s3://b/k", None, digest="a1" * 32))
    assert asyncio.run(core.applier.start(group)) == {FUNCTION: "no access lists"}
    with pytest.raises(StorageFailed, match="no access lists"):
        asyncio.run(core.applier.apply(group))
    assert core.functions.calls == [("adopt_all", [OTHER])]


def test_a_mount_that_hangs_stops_neither_the_loop_nor_the_others(
    core: Core, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = threading.Event()
    attach = apply.attach

    def look(group: Group, function: Function, *more: Any) -> Any:
        if function.arn == FUNCTION:
            alive.wait()
        return attach(group, function, *more)

    async def start() -> tuple[dict[str, str], int]:
        turns = 0
        starting = asyncio.ensure_future(core.applier.start(two_functions(volume(tmp_path))))
        while not starting.done():
            turns += 1
            await asyncio.sleep(0.01)
        return await starting, turns

    monkeypatch.setattr(apply, "attach", look)
    monkeypatch.setattr(aside, "__defaults__", (0.2,))
    try:
        problems, turns = asyncio.run(start())
    finally:
        alive.set()
    assert "could not be looked at within 0.2 s" in problems[FUNCTION]
    assert core.functions.calls == [("adopt_all", [OTHER])]
    assert turns > 3


def test_what_is_raised_aside_is_raised_here() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(aside(fail))
    assert asyncio.run(aside(threading.get_ident)) != threading.get_ident()
