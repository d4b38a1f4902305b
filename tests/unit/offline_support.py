"""A control plane that can be away, a clock that can be set, a log that can be read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from ggfast.errors import LinkDown


class SetClock:
    """Both clocks stand still until they are moved."""

    def __init__(self, wall: float) -> None:
        self.wall_s = wall
        self.monotonic_s = 1_000.0

    def wall(self) -> float:
        return self.wall_s

    def monotonic(self) -> float:
        return self.monotonic_s

    def pass_(self, seconds: float) -> None:
        self.wall_s += seconds
        self.monotonic_s += seconds


class ReadableLog:
    """A SystemLog's methods; every line with its fields as one text."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str, /, **fields: Any) -> None:
        self.lines.append(f"{message} {fields}")

    warn = error = info

    def said(self, part: str) -> int:
        return sum(part in line for line in self.lines)


class FakeControlPlane:
    """Takes addresses and gives keys; `failure` is raised instead, while it is there."""

    def __init__(self) -> None:
        self.failure: Exception | None = LinkDown("nobody answers")
        self.listed: list[list[Mapping[str, Any]]] = []
        self.attempts = 0
        self.keys: Mapping[str, Any] | None = None
        self.groups: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def _meet(self) -> None:
        self.attempts += 1
        await asyncio.sleep(0)
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure

    async def put_connectivity(self, entries: Sequence[Mapping[str, Any]]) -> None:
        await self._meet()
        self.listed.append([dict(entry) for entry in entries])

    async def credentials(self, group_id: str) -> Mapping[str, Any] | None:
        self.groups.append(group_id)
        await self._meet()
        return self.keys
