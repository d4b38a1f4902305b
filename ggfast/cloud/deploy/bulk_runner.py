"""What takes the steps of bulk deployments while a control plane runs."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from ggfast.cloud.deploy.bulk_steps import run_bulk_deployments
from ggfast.cloud.events import BulkDeploymentWaiting
from ggfast.cloud.limits import BULK_LOOK_S
from ggfast.cloud.store.interface import Store
from ggfast.cloud.surroundings import Surroundings
from ggfast.errors import OperatingError

logger = logging.getLogger("ggfast.cloud.deploy")


class BulkRunner:
    """One task: a step after the other while there is work, a look every BULK_LOOK_S otherwise. What a stop or a kill
    leaves undone goes on at the next start."""

    def __init__(self, store: Store, cloud: Surroundings) -> None:
        self._store = store
        self._cloud = cloud
        self._waiting = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Go on with what was left, and with what is started from now on."""
        self._store.listen(self._hear)
        self._task = asyncio.create_task(self._run(), name="bulk deployments")

    async def stop(self) -> None:
        """The step under way is on disk, or nothing of it. Safe to call twice. Stop this before the store closes."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def _hear(self, event: object) -> None:
        if isinstance(event, BulkDeploymentWaiting):
            self._waiting.set()

    async def _run(self) -> None:
        while True:
            self._waiting.clear()
            try:
                more = await run_bulk_deployments(self._store, self._cloud)
            except OperatingError as error:  # the disk: try again at the next look
                logger.error("bulk deployments wait: %s", error)
                more = False
            if not more:
                with suppress(TimeoutError):
                    async with asyncio.timeout(BULK_LOOK_S):
                        await self._waiting.wait()
