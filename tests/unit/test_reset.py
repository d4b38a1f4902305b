"""What a reset leaves behind: nothing of the group, everything of the owner (greengrass-core 12.5)."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ggfast.clock import SystemClock
from ggfast.core.deploy.machine import Deployment
from ggfast.core.deploy.reset import Reset, stage_nothing
from ggfast.core.deploy.store import Store
from ggfast.counters import Counters
from ggfast.errors import StorageFailed
from ggfast.group.document import Group
from ggfast.layout import Layout
from ggfast.log import Level, Logs

R1 = Deployment("r1", "ForceResetDeployment", "g")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    found = Layout.of(tmp_path)
    for directory in found.written_directories:
        directory.mkdir(parents=True, exist_ok=True)
    (found.group / "group.json").write_text("{}")
    package = found.function("arn:aws:lambda:eu-west-1:123456789012:function:f:1")
    package.mkdir()
    (package / "main.py").write_text("x = 1")
    return found


def test_nothing_is_a_group_like_any_other(layout: Layout) -> None:
    store = Store(layout)
    group = store.activate(stage_nothing(layout, R1))
    assert group == Group() == store.load_active()
    live = store.live_deployment()
    assert live is not None
    assert (live["id"], live["groupId"]) == ("r1", "g")
    store.confirm()
    assert os.listdir(layout.functions) == []


def test_a_reset_that_is_undone_brings_everything_back(layout: Layout) -> None:
    store = Store(layout)
    store.activate(stage_nothing(layout, R1))
    assert store.rollback()
    assert len(os.listdir(layout.functions)) == 1
    assert store.live_deployment() is None


def test_logs_of_functions_and_downloads_go_and_system_logs_stay(layout: Layout) -> None:
    logs = Logs(layout.logs, SystemClock(), Counters())
    logs.function("eu-west-1", "123456789012", "f").write(Level.INFO, "said")
    logs.system("runtime").info("kept")
    layout.downloads.mkdir()
    (layout.downloads / "part").write_text("x")
    told: list[str] = []

    async def forget() -> None:
        told.append("a part")

    reset = Reset(layout, logs, [forget])
    asyncio.run(reset.forget())
    asyncio.run(reset.forget())
    assert told == ["a part"] * 2
    assert os.listdir(layout.user_logs) == os.listdir(layout.downloads) == []
    assert "kept" in (layout.system_logs / "runtime.log").read_text()
    logs.function("eu-west-1", "123456789012", "f").write(Level.INFO, "said again")  # a later group has the function
    assert [path.name for path in layout.user_logs.rglob("*.log")] == ["f.log"]
    logs.close()


def test_a_disk_that_refuses_is_said_and_leaves_no_staging(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageFailed, match="No space left"):
        stage_nothing(layout, R1)
    assert os.listdir(layout.staging) == []


def test_the_deployment_is_named_in_what_is_staged(layout: Layout) -> None:
    staged = stage_nothing(layout, R1)
    found = json.loads((staged / "group" / "deployment.json").read_text())
    assert found == {"id": "r1", "type": "ForceResetDeployment", "groupId": "g", "versionId": ""}
