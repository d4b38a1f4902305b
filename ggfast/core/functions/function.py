"""One deployed function version: its queue, its workers, its figures.

Pinned: one worker, started at once and again after each death, one request at a time, in order.
On-demand: workers as work asks for them, free ones reused, the number shared by all functions.
A deployment (rollout.py) gives a runner another plan and a worker for it; those of before, its elders, finish what they
work at, and where order counts nobody else begins until they have.
Sources: greengrass-core 6.1 (life cycle), 6.9 (concurrency); design P4.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ggfast import limits
from ggfast.core.functions.environment import WorkerPlan
from ggfast.core.functions.invocations import (
    Durations,
    Invocation,
    InvokeResult,
    InvokeStatus,
    Refusal,
    refused,
    unhandled,
)
from ggfast.core.functions.queue import WorkPool, WorkQueue
from ggfast.core.functions.surroundings import Surroundings
from ggfast.core.functions.worker import Worker, WorkerState


class Slots(Protocol):
    """The shared number of on-demand workers."""

    def acquire(self, function: FunctionRunner) -> bool: ...
    def release(self) -> None: ...
    def somebody_starves(self, function: FunctionRunner) -> bool: ...


class Backoff:
    """When to start again: at once, then after 1, 2, 4 … 60 s; anew after a worker that lived for a minute."""

    def __init__(self) -> None:
        self._failures = 0

    def after(self, lived_s: float) -> float:
        """Seconds to wait after a worker that lived this long."""
        if lived_s >= limits.WORKER_HEALTHY_S:
            self._failures = 0
        self._failures += 1
        if self._failures == 1:
            return 0.0
        return min(2.0 ** min(self._failures - 2, 16), limits.WORKER_BACKOFF_S_MAX)


@dataclass(slots=True)
class Figures:
    """What `status` tells about a function."""

    invocations: int = 0
    errors: int = 0
    dropped: int = 0
    restarts: int = 0
    last_error: str = ""
    memory_peak_kb: int = 0

    def peak(self, kb: int) -> None:
        """Remember the most memory a worker has used."""
        self.memory_peak_kb = max(self.memory_peak_kb, kb)


class FunctionRunner:
    """Runs one function version. `identify` gives a new worker its instance name and token."""

    def __init__(
        self,
        around: Surroundings,
        plan: WorkerPlan,
        pool: WorkPool,
        slots: Slots,
        token_of: Callable[[str], str],
    ) -> None:
        self.plan = plan
        self.queue = WorkQueue(pool, around.counters)
        self.workers: dict[str, Worker] = {}
        self.figures = Figures()
        self.durations = Durations()
        self.closed = False
        self._around = around
        self._slots = slots
        self._token_of = token_of
        self._idle: list[Worker] = []
        self._backoff = Backoff()
        self._retry: asyncio.TimerHandle | None = None
        self._start_problem = ""
        self._watchers: list[asyncio.Future[None]] = []
        self._predecessor: FunctionRunner | None = None  # whose workers must be gone before one of these starts
        self._ahead: FunctionRunner | None = None  # whose work comes before what waits here
        self._successor: FunctionRunner | None = None
        self._elders: list[Worker] = []  # workers of plans before, asked to stop
        self._kept_plan: WorkerPlan | None = None
        self._draining = False
        self.held = False  # whether a deployment decides when the next worker starts

    # --- work -----------------------------------------------------------------------------------------

    def notify(self) -> None:
        """The router has put messages into the ring."""
        self.pump()

    def submit(self, invocation: Invocation) -> None:
        """Queue an invocation. Raises LimitReached when the shared room for work is used up."""
        self.queue.offer(invocation)
        self.pump()

    def pump(self) -> None:
        """Give work to free workers; what is left waits, and may need more workers."""
        queue, idle = self.queue, self._idle
        while idle and not self._must_wait():
            invocation = queue.take()
            if invocation is None:
                return
            if (size := len(invocation.context)) > idle[-1].context_bytes_max:
                most = idle[-1].context_bytes_max
                self._around.counters.add("functions.refused.long_context")
                self.figures.dropped += invocation.done is None
                text = f"The client context is {size} bytes, the limit of this function is {most}"
                invocation.finish(refused(text, Refusal.TOO_LARGE))
                continue
            idle.pop().run(invocation)
        if len(queue):
            queue.absorb()
            self._grow()

    def ensure(self) -> None:
        """Start what has to run without work."""
        self._grow()

    # --- life -----------------------------------------------------------------------------------------

    def take_over(self, plan: WorkerPlan, worker: Worker | None = None) -> None:
        """Run by another plan from now on, with a worker that was started beside the others if there is one.

        Waiting work stays; the workers of before may finish what they work at, for WORKER_FINISH_S, and end.
        """
        self.plan = plan
        self.held, self._kept_plan = False, None
        self._backoff = Backoff()
        self._start_problem = ""
        self._cancel_retry()
        self._elders = list(self.workers.values())
        for elder in self._elders:
            elder.retire()
        if worker is not None and worker.lives:
            self.workers[worker.instance] = worker
            worker.pass_to(self)
            if worker.state is WorkerState.IDLE:
                self._idle.append(worker)
        self._changed()
        self.pump()
        self._grow()

    def renew(self, plan: WorkerPlan) -> None:
        """A plan that means the same for running workers; the next worker starts by it, also if it had to wait."""
        self.plan = plan
        self.unhold()
        self.pump()
        self._grow()

    def keep(self, plan: WorkerPlan) -> None:
        """Start workers by this plan for the time being: a deployment has moved the package that its own plan names."""
        self._kept_plan, self.held = plan, False
        self.pump()
        self._grow()

    def park(self) -> None:
        """End the workers and start none until told; what waits goes on waiting."""
        self.held = True
        self._cancel_retry()
        for worker in list(self.workers.values()):
            worker.retire()

    def unhold(self) -> None:
        """Workers may start by the function's own plan again; the caller calls `ensure` when they shall."""
        self.held, self._kept_plan = False, None

    def drain(self, successor: FunctionRunner | None = None) -> None:
        """Nobody can reach this function any more: finish what waits, then close; the caller ends it when that takes
        too long. Messages go to `successor`, another version of the same function, which begins with them when this
        one works no more."""
        self._draining = True
        if successor is not None:
            self._successor = successor
            if self.plan.pinned or successor.plan.pinned:
                successor._ahead = self
            self.queue.hand_messages_to(successor.queue)
        if self.held:  # nobody is there to do it
            self.close()
        else:
            self.pump()
        self._go_on()

    def close(self, successor: FunctionRunner | None = None) -> None:
        """Stop for good. Messages that wait go to `successor`, another version of the same function, which starts
        when this one's workers are gone: both may want the same serial port. Other work is refused."""
        if self.closed:
            return
        self.closed = True
        self._cancel_retry()
        if successor is not None:
            self._successor = successor
            successor._predecessor = self
            self.queue.hand_messages_to(successor.queue)
        for worker in list(self.workers.values()):
            worker.retire()
        self._fail_waiting(refused(f"{self.plan.arn} is not deployed any more"))

    def adopt(self, instance: str) -> Worker:
        """A worker of an earlier daemon; the caller awaits its `adopt()`."""
        worker = Worker(self._around, self.plan, instance, self._token_of(instance), self)
        self.workers[instance] = worker
        return worker

    @property
    def is_busy(self) -> bool:
        """Whether a handler runs, or work waits for one."""
        return bool(len(self.queue)) or any(worker.is_working for worker in self.workers.values())

    @property
    def live(self) -> int:
        """Workers that run or will run."""
        return sum(worker.lives for worker in self.workers.values())

    @property
    def state(self) -> str:
        """One word for `status`."""
        states = {worker.state for worker in self.workers.values()}
        if states & {WorkerState.BUSY, WorkerState.IDLE, WorkerState.AWAY}:
            return "running"
        if WorkerState.STARTING in states or WorkerState.LOADING in states:
            return "starting"
        if self._retry is not None or (self.held and not states):
            return "waiting to restart"
        return "stopping" if states else "stopped"

    @property
    def started(self) -> bool:
        """Whether there is nothing to wait for after a deployment: a worker is loading or ready, or failed."""
        if not self.plan.pinned or self.held or self._retry is not None or self._start_problem:
            return True
        return any(w.pid and w.lives and w not in self._elders for w in self.workers.values())

    @property
    def initialised(self) -> bool:
        """Whether a worker of the present plan has imported its handler."""
        return any(w.was_ready and w not in self._elders for w in self.workers.values())

    @property
    def start_problem(self) -> str:
        """Why the last worker did not get as far as its first work, empty if it did."""
        return self._start_problem

    def idle_workers(self) -> list[Worker]:
        """Free workers, the longest unused first."""
        return self._idle

    async def wait_gone(self, timeout_s: float) -> None:
        """Wait until no worker is left, at most `timeout_s`."""
        await self._wait_for(lambda: not self.workers, timeout_s)

    async def wait_replaced(self, timeout_s: float) -> None:
        """Wait until no worker of an earlier plan is left, at most `timeout_s`: its package may go then."""
        await self._wait_for(lambda: not self._elders, timeout_s)

    async def wait_started(self, timeout_s: float) -> None:
        """Wait until there is nothing to wait for after a deployment, at most `timeout_s`."""
        await self._wait_for(lambda: self.started, timeout_s)

    async def wait_initialised(self, timeout_s: float) -> None:
        """Wait until a worker has imported its handler or failed to, at most `timeout_s`."""
        await self._wait_for(lambda: self.initialised or bool(self._start_problem), timeout_s)

    # --- what workers tell ------------------------------------------------------------------------------

    def ready(self, worker: Worker) -> None:
        """A worker can take work."""
        self._start_problem = ""
        self._idle.append(worker)
        self._changed()
        self.pump()

    def away(self, worker: Worker) -> None:
        """A worker that asks for its work does not ask at present."""
        self._start_problem = ""
        if worker in self._idle:
            self._idle.remove(worker)
        self._changed()

    def finished(self, worker: Worker, result: InvokeResult, seconds: float) -> None:
        """A handler call is over, one way or another."""
        figures = self.figures
        figures.invocations += 1
        self.durations.add(seconds)
        if result.status is not InvokeStatus.OK:
            figures.errors += 1
            figures.last_error = result.payload[:512].decode("utf-8", "replace")
        if worker.state is WorkerState.IDLE:
            self.freed(worker)
        self._go_on()

    def freed(self, worker: Worker) -> None:
        """A worker is idle again: it takes the next work, or makes room where other functions wait for a place."""
        if not self.plan.pinned and self._slots.somebody_starves(self) and (self.live > 1 or not len(self.queue)):
            worker.retire()
            return
        self._idle.append(worker)
        self.pump()

    def ending(self, worker: Worker) -> None:
        """A worker takes no more work."""
        if worker in self._idle:
            self._idle.remove(worker)
        if not worker.plan.pinned:  # its own plan: a deployment may have changed the function's
            self._slots.release()

    def gone(self, worker: Worker, problem: str) -> None:
        """A worker is dead; `problem` is empty when it was asked to stop."""
        del self.workers[worker.instance]
        if worker in self._elders:
            self._elders.remove(worker)
        self.figures.peak(worker.peak_kb)
        if problem and not self.closed:
            self.figures.last_error = problem
            self._died(worker, problem)
        if not self.closed:
            self._grow()
        self._go_on()
        self._changed()

    # --- inside -----------------------------------------------------------------------------------------

    def _must_wait(self) -> bool:
        """Whether work that came before what waits here is still being done."""
        if self._ahead is not None:
            if self._ahead.is_busy:
                return True
            self._ahead = None
        return any(elder.is_working and (self.plan.pinned or elder.plan.pinned) for elder in self._elders)

    def _go_on(self) -> None:
        """A handler is done or a worker gone: somebody may have waited for that."""
        if self._elders and not self.closed:
            self.pump()
        if self._draining and not self.is_busy:
            self.close()
        if self._successor is not None and not self._successor.closed:
            self._successor.pump()
            self._successor.ensure()

    def _died(self, worker: Worker, problem: str) -> None:
        if worker.was_ready and not self.plan.pinned:
            return
        if not worker.was_ready:
            self._start_problem = problem
        self.figures.restarts += 1
        self._around.counters.add("functions.restarts")
        delay = self._backoff.after(self._around.clock.monotonic() - worker.started_at)
        if delay:
            self._retry = self._around.loop.call_later(delay, self._try_again)
        if not self.plan.pinned:
            self._fail_waiting(unhandled(f"The function could not be started: {problem}"))

    def _try_again(self) -> None:
        self._retry = None
        self._grow()

    def _cancel_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _grow(self) -> None:
        if self.closed or self.held:
            return
        if self._predecessor is not None:
            if self._predecessor.workers:
                return
            self._predecessor = None
        if self.plan.pinned:
            if not self.workers and self._retry is None:
                self._start()
            return
        if self._retry is not None:
            if len(self.queue):
                self._fail_waiting(unhandled(f"The function could not be started: {self._start_problem}"))
            return
        starting = sum(w.state in (WorkerState.STARTING, WorkerState.LOADING) for w in self.workers.values())
        while starting < len(self.queue) and self._slots.acquire(self):
            self._start()
            starting += 1

    def _start(self) -> None:
        plan = self._kept_plan or self.plan
        instance = new_instance(plan)
        worker = Worker(self._around, plan, instance, self._token_of(instance), self)
        self.workers[instance] = worker
        self._around.run(worker.launch())

    def _fail_waiting(self, result: InvokeResult) -> None:
        for invocation in self.queue.clear():
            if invocation.done is None:
                self.figures.dropped += 1
                self._around.counters.add("functions.dropped.not_running")
            invocation.finish(result)

    async def _wait_for(self, condition: Callable[[], bool], timeout_s: float) -> None:
        deadline = self._around.clock.monotonic() + timeout_s
        while not condition():
            watcher = self._around.loop.create_future()
            self._watchers.append(watcher)
            try:
                await asyncio.wait_for(watcher, max(deadline - self._around.clock.monotonic(), 0.0))
            except TimeoutError:
                return

    def _changed(self) -> None:
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)


def new_instance(plan: WorkerPlan) -> str:
    """A name no other worker has; it tells a later daemon which plan the worker runs by."""
    return f"{plan.name[:24]}-{plan.key}-{secrets.token_hex(4)}"
