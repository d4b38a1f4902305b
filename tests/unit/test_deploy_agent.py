"""The order of a deployment's steps where one of them fails: it ends in the new group or in the previous one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ggfast.core.deploy.agent import DeploymentAgent
from ggfast.core.deploy.store import Recovery
from ggfast.errors import DeploymentFailed, StorageFailed
from ggfast.group.document import Group

OLD, NEW = replace(Group(), name="old"), replace(Group(), name="new")


class Store:
    """What is on disk, by name; a verb in `failing` raises."""

    def __init__(self) -> None:
        self.live, self.kept, self.failing = OLD, OLD, dict[str, Exception]()
        self.unconfirmed = False
        self.discarded: list[str] = []

    def _do(self, verb: str) -> None:
        if verb in self.failing:
            raise self.failing[verb]

    def recover(self) -> Recovery:
        self._do("recover")
        return Recovery.CLEAN

    def load_active(self) -> Group:
        return self.live

    def activate(self, staging: Path) -> Group:
        self._do("activate")
        self.live, self.kept, self.unconfirmed = NEW, self.live, True
        return NEW

    def confirm(self) -> None:
        self._do("confirm")
        self.unconfirmed = False
        self._do("settle")

    def discard(self, staging: Path) -> None:
        self.discarded.append(staging.name)

    def rollback(self) -> bool:
        self._do("rollback")
        if not self.unconfirmed:
            return False
        self.live, self.unconfirmed = self.kept, False
        return True


class Applier:
    def __init__(self) -> None:
        self.current, self.problems = OLD, dict[str, dict[str, str]]()

    async def apply(self, group: Group) -> dict[str, str]:
        self.current = group
        return self.problems.get(group.name, {})

    start = restore = apply


class Functions:
    async def watch_start(self, arns: object, seconds: float) -> dict[str, str]:
        return {}


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str, **fields: Any) -> None:
        self.lines.append(f"{message} {fields}")

    warn = error = info


class Parts:
    def __init__(self) -> None:
        self.store, self.applier, self.log = Store(), Applier(), Log()
        found: Any = (self.store, self.applier, Functions(), self.log)
        self.agent = DeploymentAgent(*found)

    def deploy(self) -> DeploymentFailed | None:
        try:
            asyncio.run(self.agent.activate(Path("staged")))
        except DeploymentFailed as error:
            return error
        return None


@pytest.fixture
def parts() -> Parts:
    return Parts()


def test_P4_success(parts: Parts) -> None:
    assert parts.deploy() is None
    assert (parts.store.live, parts.applier.current, parts.store.unconfirmed) == (NEW, NEW, False)


@pytest.mark.parametrize("verb", ["", "rollback"])
def test_P4_a_function_that_fails_brings_the_previous_group_back(parts: Parts, verb: str) -> None:
    parts.applier.problems["new"] = {"arn": "no module"}
    parts.store.failing = {verb: StorageFailed("full")}
    failed = parts.deploy()
    assert failed is not None
    assert "no module" in str(failed)
    assert parts.applier.current is OLD  # also where the disk refuses: the next start puts it back there
    assert ("could not be put back" in "".join(parts.log.lines)) is bool(verb)


def test_P4_a_deployment_that_cannot_be_confirmed_is_undone(parts: Parts) -> None:
    parts.store.failing = {"confirm": StorageFailed("read-only file system")}
    failed = parts.deploy()
    assert failed is not None
    assert (parts.store.live, parts.applier.current, failed.rolled_back) == (OLD, OLD, True)


def test_P4_a_confirmed_deployment_stays_though_the_disk_complains(parts: Parts) -> None:
    parts.store.failing = {"settle": StorageFailed("input/output error")}
    failed = parts.deploy()
    assert failed is not None
    assert (parts.store.live, parts.applier.current, failed.rolled_back) == (NEW, NEW, False)


def test_a_staged_group_that_cannot_be_activated_does_not_stay(parts: Parts) -> None:
    parts.store.failing = {"activate": DeploymentFailed("activate", "not a group", rolled_back=True)}
    assert parts.deploy() is not None
    assert (parts.store.discarded, parts.applier.current) == (["staged"], OLD)


def test_what_the_previous_group_cannot_start_again_is_told(parts: Parts) -> None:
    parts.applier.problems = {"new": {"arn": "bad"}, "old": {"its": "device is gone"}}
    assert parts.deploy() is not None
    assert any("device is gone" in line for line in parts.log.lines)


def test_a_disk_that_cannot_be_recovered_does_not_stop_the_core(parts: Parts) -> None:
    parts.store.failing = {"recover": PermissionError("staging")}
    asyncio.run(parts.agent.start())
    assert parts.applier.current == Group()
    assert "failed to load group" in parts.log.lines[0]
