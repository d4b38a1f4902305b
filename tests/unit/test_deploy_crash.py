"""Power cut or kill -9 at every single step of an activation: the old group or the new one, never a mixture (P4)."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deploy_support import OTHER, THIRD, Folder, deploy, live
from group_support import FUNCTION

from ggfast.core.deploy.folder import stage_folder
from ggfast.core.deploy.store import Recovery, Store, load_active
from ggfast.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.of(tmp_path / "greengrass")


@pytest.fixture
def store(layout: Layout) -> Store:
    return Store(layout, fsync=False)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "folder")
    made.function(FUNCTION)
    made.function(OTHER)
    made.model("stays", permission="rw")
    made.model("changes")
    made.model("goes")
    return made


def in_child(action: Callable[[], object], before: Callable[[], None]) -> int:
    """Run `action` in a forked child that dies like by kill -9 whenever `before` decides; its wait status."""
    pid = os.fork()
    if pid == 0:
        try:
            before()
            action()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return os.waitpid(pid, 0)[1]


def die_at(step: int) -> Callable[[], None]:
    """Prepare the process to be killed right before its `step`-th change to the disk."""

    def prepare() -> None:
        left = step
        changing = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.listdir", "shutil.rmtree"}

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            if event in changing:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)

    return prepare


def change_everything(folder: Folder) -> None:
    folder.function(FUNCTION, "def handler(e, c): return 2\n")
    folder.remove(OTHER)
    folder.function(THIRD)
    folder.model("stays", permission="rw")  # the function above is a new entry
    folder.model("changes", "other weights")
    folder.forget_model("goes")
    folder.model("comes", "new weights")


@pytest.mark.parametrize("first", [False, True], ids=["second deployment", "first deployment"])
def test_P4_killed_at_every_step_of_activation(first: bool, folder: Folder, layout: Layout, store: Store) -> None:
    if not first:
        deploy(folder, layout, store)
    old = live(layout)
    change_everything(folder)
    step, new, seen = 0, None, set()
    while True:
        step += 1
        assert step < 500
        staged = stage_folder(folder.write(), layout).directory

        def activate(staged: Path = staged) -> None:
            store.activate(staged)
            store.confirm()

        status = in_child(activate, die_at(step))
        outcome = store.recover()
        assert not layout.journal.exists()
        assert not layout.previous.exists()
        assert list(layout.staging.iterdir()) == []
        after = live(layout)
        if after == old:
            seen.add("old")
        else:
            new = new or after
            assert after == new, f"neither the old nor the new group after step {step}"
            assert outcome is Recovery.CLEAN
            seen.add("new")
            load_active(layout)
            put_back(folder, layout, store, first)
            assert live(layout) == old
            change_everything(folder)
        if status == 0:
            break
        assert os.WIFSIGNALED(status), f"step {step}: the child failed by itself"
    assert seen == {"old", "new"}
    assert step > 15


def put_back(folder: Folder, layout: Layout, store: Store, first: bool) -> None:
    """Make the old group the live one again."""
    if first:
        for path in (layout.group, layout.functions, layout.models):
            os.rename(path, path.with_name(f"{path.name}-{time.monotonic_ns()}"))
        layout.functions.mkdir()
        layout.models.mkdir()
        return
    folder.forget_model("comes")
    folder.function(FUNCTION)
    folder.function(OTHER)
    folder.remove(THIRD)
    folder.document["Functions"].sort(key=lambda item: item["Id"])
    for name in ("stays", "changes", "goes"):
        folder.model(name, permission="rw" if name == "stays" else "ro")
    deploy(folder, layout, store)


def test_P4_killed_at_every_step_of_recovery(folder: Folder, layout: Layout, store: Store) -> None:
    deploy(folder, layout, store)
    old = live(layout)
    change_everything(folder)
    for step in range(1, 500):
        store.activate(stage_folder(folder.write(), layout).directory)
        status = in_child(store.recover, die_at(step))
        if os.WIFSIGNALED(status):
            in_child(store.recover, die_at(random.Random(step).randrange(1, 10)))
        store.recover()
        assert live(layout) == old
        assert not layout.journal.exists()
        if status == 0:
            break
    assert step > 10


def test_P4_killed_at_any_moment(folder: Folder, layout: Layout, store: Store) -> None:
    deploy(folder, layout, store)
    old = live(layout)
    change_everything(folder)
    chance = random.Random(4)
    for _ in range(15):
        staged = stage_folder(folder.write(), layout).directory
        pid = os.fork()
        if pid == 0:
            store.activate(staged)
            time.sleep(60)
            os._exit(0)
        time.sleep(chance.uniform(0, 0.004))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        store.recover()
        assert live(layout) == old, "not confirmed: the old group"
