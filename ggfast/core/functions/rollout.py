"""One deployment of functions while they run: new workers beside the old ones, then all change over in one turn.

    prepare   new functions are there and start; a changed pinned function's next worker starts beside the present one
    switch    in one turn of the loop, with the router's table: queues go to the next plan or version
    finish    handlers of before end, removed functions do what waits for them, both for a bounded time
    abandon   instead of `switch`: what was started ends, what ran goes on; what had to stop waits for `apply`

Order holds: the next worker of a pinned function gets its first message when the one before has done its last.

A second way, for what cannot run twice: the old worker is stopped, then the new one started, and messages wait
meanwhile. Functions with a local device go this way at once: a serial port or a camera that two processes have open
gives each of them half of what it says. Others go it after a failed start beside a running worker, for that is what a
TCP port or a lock file in use looks like; only a failure with nobody in the way says that the function is broken. Code
that lacks a module or cannot be parsed fails in any company: the old worker goes on without a pause.

Every wait has a limit, so that `prepare` takes at most two times DEPLOYMENT_WATCH_S and the end of a worker between.
Source: design P4.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ggfast import limits
from ggfast.core.functions.candidate import Candidate
from ggfast.core.functions.environment import WorkerPlan
from ggfast.core.functions.function import FunctionRunner
from ggfast.errors import DeploymentFailed

BROKEN: Final = (  # in what interpreters say of code that nobody's leaving could mend
    "No module named ",
    "cannot import name ",
    "invalid syntax",
    "Cannot find module ",
    "SyntaxError",
    "ClassNotFoundException",
)


class Crew(Protocol):
    """What a rollout needs of the function manager."""

    @property
    def runners(self) -> Mapping[str, FunctionRunner]: ...
    def add(self, plan: WorkerPlan) -> FunctionRunner: ...
    def remove(self, runner: FunctionRunner) -> None: ...
    def candidate(self, plan: WorkerPlan) -> Candidate: ...


@dataclass(slots=True, eq=False)
class _Next:
    """A pinned function that a deployment starts. `before` runs it, or another version of it, until then."""

    plan: WorkerPlan
    runner: FunctionRunner
    before: FunctionRunner | None
    stop_first: bool
    candidate: Candidate | None = None

    @property
    def is_new(self) -> bool:
        return self.runner is not self.before

    @property
    def problem(self) -> str:
        return self.candidate.problem if self.candidate is not None else ""


class Rollout:
    """See the module. Used once: `prepare`, then `switch` and `finish`, or `abandon`."""

    def __init__(
        self,
        crew: Crew,
        plans: Sequence[WorkerPlan],
        moved: Mapping[str, WorkerPlan],
        restart_all: bool,
    ) -> None:
        """`moved`: plans for workers that the functions of before need until `switch`, by ARN, where the deployment has
        put their packages elsewhere. `restart_all`: also what did not change, each stopped before it is started."""
        self._crew = crew
        self._plans = {plan.arn: plan for plan in plans}
        self._restart_all = restart_all
        self._moved = {arn: plan for arn, plan in moved.items() if arn in crew.runners}
        self._removed = [runner for arn, runner in crew.runners.items() if arn not in self._plans]
        self._changed = {
            arn
            for arn, plan in self._plans.items()
            if (runner := crew.runners.get(arn)) is not None and (restart_all or runner.plan.digest != plan.digest)
        }
        self._added: list[FunctionRunner] = []
        self._next: list[_Next] = []
        self._candidates: list[Candidate] = []
        self._is_switched = self._is_over = False

    async def prepare(self) -> dict[str, str]:
        """Start what is new beside what runs; why the deployment cannot go on, by ARN, empty if it can.

        Raises DeploymentFailed if the core stops meanwhile.
        """
        for arn, plan in self._moved.items():
            self._crew.runners[arn].keep(plan)
        self._plan_starts()
        await self._start([item for item in self._next if not item.stop_first])
        failed = [item for item in self._next if item.problem]
        again = [item for item in failed if _may_be_in_the_way(item)]
        if len(again) == len(failed):
            await self._start_after([*again, *(item for item in self._next if item.stop_first)])
            failed = [item for item in self._next if item.problem]
        if self._is_over:
            raise DeploymentFailed("functions", "the core stops while the deployment is under way", rolled_back=True)
        return {item.plan.arn: item.problem for item in failed}

    @property
    def leaving(self) -> set[str]:
        """Whose workers of before are still there: until `finish` they may publish what their last messages lead to."""
        changed = {arn for arn in self._changed if arn in self._crew.runners and self._crew.runners[arn].workers}
        return changed | {runner.plan.arn for runner in self._removed if runner.workers or runner.is_busy}

    def switch(self) -> None:
        """Everything runs by the new plans from now on. Does not wait; called in the turn that swaps the table."""
        self._is_switched = self._is_over = True
        ready = {item.plan.arn: item for item in self._next}
        for plan in self._plans.values():
            runner, item = self._crew.runners[plan.arn], ready.get(plan.arn)
            if item is not None:
                self._hand_over(item)
            elif plan.arn in self._changed:
                runner.take_over(plan)
            else:
                runner.renew(plan)
        successors = {runner.plan.name: runner for runner in self._added}
        for runner in self._removed:
            self._crew.remove(runner)
            runner.drain(successors.get(runner.plan.name))

    async def finish(self) -> None:
        """Wait until nothing runs by a plan of before, at most 2 * WORKER_FINISH_S + WORKER_EXIT_S. What removed
        functions could not do in WORKER_FINISH_S is dropped and counted."""
        changed = [self._crew.runners[arn] for arn in self._changed if arn in self._crew.runners]
        patience = limits.WORKER_FINISH_S + limits.WORKER_EXIT_S
        await asyncio.gather(
            *(runner.wait_replaced(patience) for runner in changed),
            *(_let_go(runner, patience) for runner in self._removed),
        )

    def abandon(self) -> None:
        """End what was started and leave what ran; nothing happens after `switch`. What had to stop, and what would
        start from a package that is being moved back, starts nothing before the manager's next `apply`."""
        if self._is_over:
            return
        self._is_over = True
        for candidate in self._candidates:
            candidate.end()
        for runner in self._added:
            self._crew.remove(runner)
            runner.close()
        for arn in self._moved:
            if (moved := self._crew.runners.get(arn)) is not None:
                moved.held = True

    async def wait_abandoned(self) -> None:
        """Wait until what was started is gone, about 2 * WORKER_EXIT_S at most: its package can be removed then."""
        patience = limits.WORKER_STOP_S + limits.WORKER_EXIT_S
        await asyncio.gather(
            *(candidate.wait_gone(patience) for candidate in self._candidates),
            *(runner.wait_gone(patience) for runner in self._added),
        )

    # --- inside -----------------------------------------------------------------------------------------

    def _plan_starts(self) -> None:
        """Make the new functions known, the pinned ones without a worker yet: who is new may be called by who is."""
        before = {runner.plan.name: runner for runner in self._removed}
        for plan in self._plans.values():
            runner = self._crew.runners.get(plan.arn)
            if runner is None:
                runner, old = self._crew.add(plan), before.get(plan.name)
                self._added.append(runner)
                runner.held = plan.pinned
            elif plan.arn in self._changed:
                old = runner
            else:
                continue
            if plan.pinned:
                first = old is not None and (self._restart_all or _has_device(plan) or _has_device(old.plan))
                self._next.append(_Next(plan, runner, old, first))

    async def _start(self, items: Sequence[_Next]) -> None:
        await asyncio.gather(*(self._start_one(item) for item in items if not self._is_over))

    async def _start_one(self, item: _Next) -> None:
        item.candidate = self._crew.candidate(item.plan)
        self._candidates.append(item.candidate)
        if not await item.candidate.wait(limits.DEPLOYMENT_WATCH_S) and item.is_new and not self._is_over:
            self._hand_over(item)  # nobody waits for it to yield

    async def _start_after(self, items: Sequence[_Next]) -> None:
        """The second way: see the module."""
        yielding = [item.before for item in items if item.before is not None]
        for runner in yielding:
            runner.park()
        patience = limits.WORKER_FINISH_S + limits.WORKER_EXIT_S
        await asyncio.gather(*(runner.wait_gone(patience) for runner in yielding))
        await self._start(items)

    def _hand_over(self, item: _Next) -> None:
        candidate, item.candidate = item.candidate, None
        if candidate is not None:
            self._candidates.remove(candidate)
            item.runner.take_over(item.plan, candidate.worker)


def _has_device(plan: WorkerPlan) -> bool:
    return bool(plan.spec.get("devices"))


async def _let_go(runner: FunctionRunner, patience_s: float) -> None:
    await runner.wait_gone(limits.WORKER_FINISH_S)
    runner.close()
    await runner.wait_gone(patience_s)


def _may_be_in_the_way(item: _Next) -> bool:
    """Whether the worker before may be why this one could not start."""
    running = item.before is not None and bool(item.before.workers)
    return running and not any(text in item.problem for text in BROKEN)
