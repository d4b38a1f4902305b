"""The demo's own conduct when things go wrong, with stand-ins for core and control plane: what it started is gone."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from ggfast.cli import demo, demo_group
from ggfast.errors import ConfigError, OperatingError

EXAMPLE = demo_group.example_folder()

STAND_IN = """
import os, pathlib, signal, sys, time
mode, place = sys.argv[1], pathlib.Path(sys.argv[2])
(place / "run").write_text(str(os.getpid()))
if mode == "no-start":
    sys.exit("port in use")
if mode == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (place / "ignoring").touch()
time.sleep(60)
"""


class StandIn:
    """Takes the place of `ggfast-core`; leaves its pid in files."""

    def __init__(self, place: Path, mode: str) -> None:
        self.place = place
        self.mode = mode
        (place / "core.py").write_text(STAND_IN)

    def __call__(self, *arguments: str) -> list[str]:
        return [sys.executable, str(self.place / "core.py"), self.mode, str(self.place), *arguments]

    def is_gone(self, command: str) -> bool:
        if command == "group":
            return (self.place / "group-gone").exists()
        pid = int((self.place / command).read_text())
        return not Path(f"/proc/{pid}").exists()


def run(directory: Path, core: StandIn, seconds: float = 5.0) -> tuple[int, str]:
    async def prepare(_demo: demo.Demo, stack: AsyncExitStack) -> demo_group.DemoGroup:
        if core.mode == "slow-group":
            (core.place / "group").write_text("1")
            stack.callback((core.place / "group-gone").touch)
            await asyncio.sleep(60)

        def failure() -> str:
            return "the document is wrong" if core.mode == "no-deploy" and (core.place / "run").exists() else ""

        return demo_group.DemoGroup(directory / "greengrass", directory / "devices", 1, 1, failure)

    out = io.StringIO()
    status = asyncio.run(demo.Demo(directory, EXAMPLE, seconds, out, core, prepare).run())
    return status, out.getvalue()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "demo").mkdir()
    return tmp_path


def test_failed_deployment_is_said_in_the_control_plane_s_words(place: Path) -> None:
    core = StandIn(place, "no-deploy")
    with pytest.raises(OperatingError, match="The deployment failed:\nthe document is wrong"):
        run(place / "demo", core)
    assert core.is_gone("run")


def test_core_that_ends_at_once_is_said_in_its_words(place: Path) -> None:
    core = StandIn(place, "no-start")
    with pytest.raises(OperatingError, match="ended with status 1:\nport in use"):
        run(place / "demo", core)
    assert core.is_gone("run")


def test_core_that_never_serves_is_stopped(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "DEMO_START_TIMEOUT_S", 0.5)
    core = StandIn(place, "silent")
    with pytest.raises(OperatingError, match=r"not ready in 0 s|not ready in 1 s"):
        run(place / "demo", core)
    assert core.is_gone("run")


def test_core_that_does_not_stop_is_killed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "DEMO_START_TIMEOUT_S", 1.5)
    monkeypatch.setattr(demo, "DEMO_STOP_TIMEOUT_S", 0.5)
    core = StandIn(place, "deaf")
    with pytest.raises(OperatingError, match="not ready"):
        run(place / "demo", core)
    assert (place / "ignoring").exists()
    assert core.is_gone("run")


@pytest.mark.parametrize(("mode", "command"), [("slow-group", "group"), ("silent", "run")])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_before_anything_is_shown_ends_in_order(
    place: Path, mode: str, command: str, number: signal.Signals
) -> None:
    core = StandIn(place, mode)
    waiter = subprocess.Popen(
        ["sh", "-c", f"while [ ! -s {place / command} ]; do sleep 0.05; done; kill -{int(number)} {os.getpid()}"]
    )
    try:
        begun = time.monotonic()
        status, said = run(place / "demo", core)
    finally:
        waiter.wait(10)
    assert status == 1
    assert said.endswith("Ended before the core served.\n")
    assert time.monotonic() - begun < 15
    assert core.is_gone(command)


def arguments(**changed: Any) -> Any:
    return Namespace(**{"seconds": 1.0, "keep": None, **changed})


def test_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(OperatingError, match="must run as root"):
        demo.run(arguments())


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_no_time_at_all_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match="--seconds"):
        demo.run(arguments(seconds=seconds))


def test_kept_directory_must_be_empty(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OperatingError, match="is not empty"):
        demo.run(arguments(keep=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_temporary_directory_is_open_to_others_and_removed() -> None:
    with demo._directory(None) as directory:
        assert directory.stat().st_mode & 0o777 == 0o755
        (directory / "deep").mkdir()
    assert not directory.exists()
    with pytest.raises(RuntimeError), demo._directory(None) as directory:
        raise RuntimeError
    assert not directory.exists()
