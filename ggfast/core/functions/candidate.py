"""A worker that is started beside the function that runs, to take its place when it is ready.

It belongs to nobody's queue until a `FunctionRunner` takes it over; until then nothing is handed to it, whatever it
publishes or asks counts as its function's. It is started once: why it failed is what the deployment reports.
"""

from __future__ import annotations

import asyncio

from ggfast.core.functions.environment import WorkerPlan
from ggfast.core.functions.invocations import InvokeResult
from ggfast.core.functions.surroundings import Surroundings
from ggfast.core.functions.worker import Worker


class Candidate:
    """See the module. Made on the loop, which starts the worker at once."""

    def __init__(self, around: Surroundings, plan: WorkerPlan, instance: str, token: str) -> None:
        self.worker = Worker(around, plan, instance, token, self)
        self.problem = ""
        self._settled: asyncio.Future[None] = around.loop.create_future()
        self._gone: asyncio.Future[None] = around.loop.create_future()
        around.run(self.worker.launch())

    async def wait(self, timeout_s: float) -> str:
        """Wait until its handler is imported or it has failed to, at most `timeout_s`; why it failed. A slow import is
        no failure."""
        await asyncio.wait([self._settled], timeout=timeout_s)
        return self.problem

    async def wait_gone(self, timeout_s: float) -> None:
        """Wait until its process has ended, at most `timeout_s`."""
        await asyncio.wait([self._gone], timeout=timeout_s)

    def end(self) -> None:
        """It will not be needed."""
        self.worker.retire()

    # --- what the worker tells ---------------------------------------------------------------------------

    def ready(self, worker: Worker) -> None:
        """It can take work."""
        self._settle()

    def freed(self, worker: Worker) -> None:
        """It asks for work again: it waits, as long as it is a candidate."""

    def away(self, worker: Worker) -> None:
        """It runs and asks for its work later."""
        self._settle()

    def finished(self, worker: Worker, result: InvokeResult, seconds: float) -> None:
        """It is given none."""

    def ending(self, worker: Worker) -> None:
        """It is on its way out."""

    def gone(self, worker: Worker, problem: str) -> None:
        """It is dead. Who had been ready before has not failed: its function starts it again."""
        if not worker.was_ready:
            self.problem = problem or "it was not needed any more"
        self._settle()
        if not self._gone.done():
            self._gone.set_result(None)

    def _settle(self) -> None:
        if not self._settled.done():
            self._settled.set_result(None)
