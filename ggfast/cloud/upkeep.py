"""What has to be done from time to time while a control plane runs, whoever asks for what.

Each chore is a function of a transaction and the time; it does a bounded piece and says how much it did. One that did
a full piece is called again at once, after others had their turn at the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from ggfast.cloud.dispatch import forget_tokens
from ggfast.cloud.jobs.rollout import expire
from ggfast.cloud.limits import UPKEEP_JOBS_S, UPKEEP_SWEEP_S
from ggfast.cloud.shadows.store import forget
from ggfast.cloud.store.interface import Store, Transaction
from ggfast.cloud.surroundings import Surroundings
from ggfast.errors import OperatingError

logger = logging.getLogger("ggfast.cloud.upkeep")


@dataclass(frozen=True, slots=True)
class Chore:
    """One thing to do every `every_s` seconds."""

    name: str
    every_s: float
    work: Callable[[Transaction, Surroundings, float], int]


CHORES = (
    Chore("time-outs and rollout of jobs", UPKEEP_JOBS_S, expire),
    Chore("versions of deleted shadows", UPKEEP_SWEEP_S, lambda tx, _cloud, now: forget(tx, now)),
    Chore("client tokens", UPKEEP_SWEEP_S, lambda tx, _cloud, now: forget_tokens(tx, now)),
)


class Upkeep:
    """Does the chores, one after the other. `start` once; `stop` before the store closes."""

    def __init__(self, store: Store, cloud: Surroundings, chores: tuple[Chore, ...] = CHORES) -> None:
        self._store = store
        self._cloud = cloud
        self._chores = chores
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin; every chore is done once soon."""
        self._tasks = [asyncio.create_task(self._repeat(chore), name=chore.name) for chore in self._chores]

    async def stop(self) -> None:
        """What is under way is on disk, or nothing of it. Safe to call twice."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    async def _repeat(self, chore: Chore) -> None:
        while True:
            try:
                while await self._store.write(lambda tx: chore.work(tx, self._cloud, self._cloud.clock.wall())):
                    await asyncio.sleep(0)
            except OperatingError as error:  # the disk: the next turn may find it better
                logger.error("upkeep waits chore=%s: %s", chore.name, error)
            except Exception:
                logger.exception("upkeep failed chore=%s", chore.name)
            await asyncio.sleep(chore.every_s)
