"""Starts of workers in the pace that the spawner takes them: a burst of work waits its turn instead of being refused.

The spawner serves SANDBOX_SPAWNS_PER_SECOND requests, a burst of as many at once, because each costs root's time
(sandbox.md section 12). A boot with a hundred pinned functions is more, and so are 25 messages at once for an
on-demand function. To both a refusal would look like a function that can not be started.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from typing import Any

from ggfast import limits
from ggfast.clock import Clock
from ggfast.core.functions.surroundings import Channel, Spawned
from ggfast.errors import SandboxFailed


class PacedChannel:
    """A channel whose `spawn` waits for its turn, first come, first served; everything else passes at once."""

    def __init__(self, channel: Channel, clock: Clock, per_second: float = limits.SANDBOX_SPAWNS_PER_SECOND) -> None:
        self._channel = channel
        self._clock = clock
        self._interval = 1.0 / per_second
        self._ahead = (per_second - 1.0) * self._interval  # how much earlier than evenly a start of a burst may come
        self._turn_at = clock.monotonic() - 1.0

    async def spawn(self, instance: str, spec: Mapping[str, Any]) -> Spawned:
        """Raises what the channel raises; a refusal for its limits only after SPAWN_PATIENCE_S: a daemon that was
        started anew does not know what the one before had asked for."""
        give_up = self._clock.monotonic() + limits.SPAWN_PATIENCE_S
        while True:
            turn = await self._turn()
            try:
                return await self._channel.spawn(instance, spec)
            except SandboxFailed as error:
                if error.step != "limit" or turn >= give_up:
                    raise

    async def adopt(self, instance: str) -> Spawned:
        """As the channel's."""
        return await self._channel.adopt(instance)

    async def kill(self, instance: str, number: int = signal.SIGKILL) -> None:
        """As the channel's."""
        await self._channel.kill(instance, number)

    async def stat(self, instance: str) -> Mapping[str, Any]:
        """As the channel's."""
        return await self._channel.stat(instance)

    async def list(self) -> list[dict[str, Any]]:
        """As the channel's."""
        return await self._channel.list()

    async def _turn(self) -> float:
        """Wait until it is this caller's turn; when that was."""
        now = self._clock.monotonic()
        self._turn_at = turn = max(self._turn_at + self._interval, now - self._ahead)
        if turn > now:
            await asyncio.sleep(turn - now)
        return max(turn, now)
