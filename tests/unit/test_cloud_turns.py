"""Slow work before transactions: one key takes its turns, others go past it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud_desk import ACCOUNT, REGION, Desk

from ggfast.cloud.faults import Fault
from ggfast.cloud.limits import PREPARED_OF_ONE_MAX
from ggfast.cloud.operations import Call, Principal, Reply, Service

SLOW = Service("slow", protocol="rest-json", invalid_code="Invalid")
_go = threading.Event()
_counting = threading.Lock()
_running = {"now": 0, "most": 0}


def _before(_cloud: Any, _params: dict[str, Any]) -> str:
    with _counting:
        _running["now"] += 1
        _running["most"] = max(_running.values())
    _go.wait(20)
    with _counting:
        _running["now"] -= 1
    return "made"


@SLOW.operation("Make", "POST /make", {}, before=_before)
def make(call: Call) -> Reply:
    return Reply({"prepared": call.prepared})


def _refuse(_cloud: Any, _params: dict[str, Any]) -> None:
    raise Fault("Invalid", "no")


@SLOW.operation("Fail", "POST /fail", {}, before=_refuse)
def fail(_call: Call) -> Reply:
    raise AssertionError("never reached")


@SLOW.operation("Quick", "POST /quick", {}, before=lambda _cloud, _params: "quick")
def quick(call: Call) -> Reply:
    return Reply({"prepared": call.prepared})


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path, SLOW)
    _go.clear()
    _running.update(now=0, most=0)
    yield desk
    _go.set()
    desk.close()


@pytest.mark.parametrize(
    "arn", [f"arn:aws:iam::{ACCOUNT}:user/busy", f"arn:aws:sts::{ACCOUNT}:assumed-role/busy/session{{}}"]
)
def test_one_key_leaves_threads_to_others(desk: Desk, arn: str) -> None:
    async def ask(operation: str, who: str) -> Reply:
        principal = Principal(who, "AKIA", lambda *_: True)
        return await desk.dispatcher.run(SLOW, SLOW.operations[operation], {}, principal, REGION)

    async def run() -> list[Reply]:
        many = [asyncio.create_task(ask("Make", arn.format(number))) for number in range(40)]
        other = await asyncio.wait_for(ask("Quick", f"arn:aws:iam::{ACCOUNT}:user/other"), 10)
        assert other.members == {"prepared": "quick"} and not any(task.done() for task in many)
        many[-1].cancel()
        _go.set()
        made = await asyncio.gather(*many[:-1])
        for _ in range(3):  # a refusal gives its turn back
            with pytest.raises(Fault, match="no"):
                await ask("Fail", arn.format(0))
        return made

    assert [reply.members["prepared"] for reply in desk.runner.run(run())] == ["made"] * 39
    assert _running == {"now": 0, "most": PREPARED_OF_ONE_MAX}
