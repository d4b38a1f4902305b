"""Bursts of starts wait for the spawner's pace; what it refuses for other reasons is told at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from ggfast import limits
from ggfast.core.functions.starts import PacedChannel
from ggfast.errors import SandboxFailed

PER_SECOND = 20.0


class Time:
    """A clock that only sleeping moves on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.waits: list[float] = []
        monkeypatch.setattr("ggfast.core.functions.starts.asyncio.sleep", self._sleep)

    def monotonic(self) -> float:
        return self.now

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


class Spawner:
    """Counts requests as the spawner does: a bucket that holds a second's worth."""

    def __init__(self, time: Time, tokens: float = PER_SECOND, room: float = PER_SECOND) -> None:
        self.time = time
        self.room = room
        self.tokens = tokens
        self.refilled = time.now
        self.started: list[str] = []
        self.refused: list[str] = []
        self.broken = False

    async def spawn(self, instance: str, spec: Mapping[str, Any]) -> Any:
        now = self.time.now
        self.tokens = min(self.room, self.tokens + (now - self.refilled) * PER_SECOND)
        self.refilled = now
        if self.broken:
            raise SandboxFailed("mount", 2, "no such directory")
        if self.tokens < 1 - 1e-6:
            self.refused.append(instance)
            raise SandboxFailed("limit", 0, "spawns in this second")
        self.tokens -= 1
        self.started.append(instance)
        return instance


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    return Time(monkeypatch)


def paced(spawner: Spawner) -> PacedChannel:
    return PacedChannel(spawner, spawner.time, PER_SECOND)  # type: ignore[arg-type]  # only spawn is asked for


def test_a_burst_waits_instead_of_being_refused(time: Time) -> None:
    spawner, names = Spawner(time), [f"i{number}" for number in range(100)]
    channel = paced(spawner)

    async def test() -> list[Any]:
        return [await channel.spawn(name, {}) for name in names]

    assert asyncio.run(test()) == names == spawner.started
    assert spawner.refused == []
    assert len(time.waits) == 80  # the first 20 go at once
    assert sum(time.waits) == pytest.approx(4.0)


def test_those_who_come_together_get_turns_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time(monkeypatch)
    waits = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("ggfast.core.functions.starts.asyncio.sleep", sleep)
    channel = paced(Spawner(time, tokens=100, room=100))

    async def test() -> None:
        for _ in range(25):
            await channel.spawn("i", {})

    asyncio.run(test())
    assert waits == pytest.approx([0.05, 0.10, 0.15, 0.20, 0.25])


def test_starts_within_the_pace_do_not_wait(time: Time) -> None:
    channel = paced(Spawner(time))

    async def test() -> None:
        for _ in range(200):
            await channel.spawn("i", {})
            time.now += 0.06

    asyncio.run(test())
    assert time.waits == []


def test_a_refusal_for_the_rate_is_tried_again(time: Time) -> None:
    spawner = Spawner(time, tokens=0.0)  # the daemon before this one has used them up
    channel = paced(spawner)
    assert asyncio.run(channel.spawn("i", {})) == "i"
    assert spawner.refused


def test_patience_has_an_end(time: Time) -> None:
    spawner = Spawner(time, tokens=-1e9)
    with pytest.raises(SandboxFailed, match="spawns in this second"):
        asyncio.run(paced(spawner).spawn("i", {}))
    assert limits.SPAWN_PATIENCE_S <= sum(time.waits) < limits.SPAWN_PATIENCE_S + 2


def test_other_failures_are_told_at_once(time: Time) -> None:
    spawner = Spawner(time)
    spawner.broken = True
    with pytest.raises(SandboxFailed, match="no such directory"):
        asyncio.run(paced(spawner).spawn("i", {}))
    assert time.waits == []
