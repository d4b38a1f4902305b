"""The function manager: which functions run, who gets the next free worker, what becomes of an invocation.

    rollout(plans)    a deployment while everything runs: all of it, or what ran before goes on (rollout.py)
    apply(plans)      make the running functions these as far as possible: start of the core, way back
    invoke(...)       a request from outside the table (control socket, HTTP); workers' own come through `calls`
    adopt_all(plans)  after a restart of the daemon: go on with the workers that are still there
    stop()            end all workers in order

Messages reach a function through its ring in the router. Policy only: the spawner starts and kills, the link frames.
Sources: greengrass-core 6; sandbox 10; design 3 (the daemon may be replaced while functions run).
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from ggfast import limits
from ggfast._ext.buffers import Ring
from ggfast.arns import FunctionArn
from ggfast.clock import Clock
from ggfast.core.functions.calls import V1_LIMITS, Calls, MessageLimits, Publisher, SystemTarget
from ggfast.core.functions.candidate import Candidate
from ggfast.core.functions.environment import WorkerPlan
from ggfast.core.functions.function import FunctionRunner, new_instance
from ggfast.core.functions.invocations import (
    EMPTY_RESULT,
    Invocation,
    InvocationType,
    InvokeResult,
    refused_by,
)
from ggfast.core.functions.logs import LineSink
from ggfast.core.functions.queue import WorkPool
from ggfast.core.functions.rollout import Rollout
from ggfast.core.functions.surroundings import Channel, Exit, Surroundings
from ggfast.core.functions.tokens import KEY_BYTES, token_of
from ggfast.core.functions.worker import Worker
from ggfast.counters import Counters
from ggfast.errors import GgfastError, OperatingError, Rejected
from ggfast.log import SystemLog


class Router(Publisher, Protocol):
    """The part of the router that the manager needs."""

    def add_function(self, name: str, ring: Ring, notify: Callable[[], None]) -> None: ...
    def remove_target(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class ManagerSettings:
    """Bounds from config.json; the defaults are V1's."""

    work_items_max: int = limits.WORK_ITEMS_MAX
    concurrent_max: int = limits.ON_DEMAND_WORKERS_MAX
    idle_s: float = limits.WORKER_IDLE_S
    message_limits: MessageLimits = V1_LIMITS
    token_key: bytes = b""


@dataclass(frozen=True, slots=True)
class FunctionStatus:
    """One row of `ggfast-core status`."""

    arn: str
    name: str
    state: str
    pinned: bool
    instances: int
    pids: tuple[int, ...]
    memory_kb: int
    memory_peak_kb: int
    memory_limit_kb: int
    queued: int
    invocations: int
    errors: int
    dropped: int
    restarts: int
    p50_ms: float | None
    p99_ms: float | None
    last_error: str

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class _OnDemandSlots:
    """Who may have one of the shared on-demand workers: first a free place, then the longest unused worker of
    another function, then the end of the line."""

    def __init__(self, maximum: int, functions: Mapping[str, FunctionRunner], counters: Counters) -> None:
        self._maximum = maximum
        self._functions = functions
        self._counters = counters
        self._used = 0
        self._starving: deque[FunctionRunner] = deque()

    def acquire(self, function: FunctionRunner) -> bool:
        if self._used >= self._maximum:
            self._evict(function)
        if self._used >= self._maximum:
            if not function.live and function not in self._starving:
                self._starving.append(function)
            return False
        self._used += 1
        return True

    def take_over(self) -> None:
        """Count a worker that exists already."""
        self._used += 1

    def release(self) -> None:
        self._used -= 1
        while self._starving and self._used < self._maximum:
            function = self._starving.popleft()
            if not function.closed:
                function.pump()

    def somebody_starves(self, function: FunctionRunner) -> bool:
        return bool(self._starving) and self._starving[0] is not function

    def _evict(self, function: FunctionRunner) -> None:
        unused = [
            worker
            for runner in self._functions.values()
            if runner is not function and not runner.plan.pinned
            for worker in runner.idle_workers()
        ]
        if unused:
            self._counters.add("functions.evicted")
            min(unused, key=lambda worker: worker.idle_since).retire()


class FunctionManager:
    """See the module. `loop` must be the running one; `function_log` gives the log of a function by its ARN."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        channel: Channel,
        router: Router,
        counters: Counters,
        log: SystemLog,
        clock: Clock,
        function_log: Callable[[str], LineSink],
        settings: ManagerSettings | None = None,
        system_targets: dict[str, SystemTarget] | None = None,
    ) -> None:
        self._settings = settings or ManagerSettings()
        self._loop = loop
        self._clock = clock
        self._router = router
        self._log = log
        self._functions: dict[str, FunctionRunner] = {}
        self._leaving: set[FunctionRunner] = set()
        self._pool = WorkPool(self._settings.work_items_max)
        self._slots = _OnDemandSlots(self._settings.concurrent_max, self._functions, counters)
        self._token_key = self._settings.token_key or secrets.token_bytes(KEY_BYTES)
        self.system_targets = system_targets if system_targets is not None else {}
        self.calls = Calls(
            router, self._settings.message_limits, self.system_targets, self.submit, clock, counters, log
        )
        self._around = Surroundings(
            loop, clock, channel, counters, log, function_log, self.calls, set(), secrets.randbits(31)
        )
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._rollout: Rollout | None = None
        self._stopped = False

    # --- deployments ------------------------------------------------------------------------------------

    def rollout(
        self, plans: Sequence[WorkerPlan], moved: Mapping[str, WorkerPlan] | None = None, *, restart_all: bool = False
    ) -> Rollout:
        """A deployment of exactly these functions, for the caller to carry out; see rollout.py for all of it."""
        self._rollout = Rollout(self, plans, moved or {}, restart_all)
        return self._rollout

    def hold(self, arns: Iterable[str]) -> None:
        """Start no worker of these functions before the next `apply` or the end of a rollout: what runs goes on, what
        finds no free worker waits. For the time in which their packages are moved."""
        for arn in arns:
            if (runner := self._functions.get(arn)) is not None:
                runner.held = True

    async def apply(self, plans: Sequence[WorkerPlan]) -> dict[str, str]:
        """Run exactly these functions as far as they can be: what cannot start is tried again and again. Untouched
        ones keep running; of a changed one the queue stays, the running handler may finish and its worker ends before
        the next one starts. Returns when workers of before are gone and pinned ones have started: what of
        the new and changed could not be, by ARN. Waits at most about WORKER_FINISH_S + WORKER_EXIT_S."""
        wanted = {plan.arn: plan for plan in plans}
        removed = [self._functions.pop(arn) for arn in list(self._functions) if arn not in wanted]
        self._leaving = {runner for runner in self._leaving if runner.workers}
        added: dict[str, FunctionRunner] = {}
        touched: list[FunctionRunner] = []
        for arn, plan in wanted.items():
            existing = self._functions.get(arn)
            if existing is None:
                added[plan.name] = self._add(plan)
                touched.append(added[plan.name])
            elif existing.plan.digest != plan.digest:
                existing.take_over(plan)
                touched.append(existing)
            else:
                touched += [existing] if existing.held else []
                existing.renew(plan)
        for runner in removed:
            self.remove(runner)
            runner.close(added.get(runner.plan.name))
        for runner in self._functions.values():
            runner.pump()
            runner.ensure()
        self._sweep_later()
        patience = limits.WORKER_FINISH_S + limits.WORKER_EXIT_S
        await asyncio.gather(
            *(runner.wait_gone(patience) for runner in removed),
            *(runner.wait_replaced(patience) for runner in touched),
            *(runner.wait_started(patience) for runner in list(self._functions.values())),
        )
        self._leaving.difference_update(runner for runner in removed if not runner.workers)
        return _problems(touched)

    async def adopt_all(self, plans: Sequence[WorkerPlan]) -> dict[str, str]:
        """Go on with workers an earlier daemon started by one of these plans, end all others, then `apply`."""
        keys = {plan.key: plan for plan in plans}
        adopted, strangers = [], []
        for row in await self._around.channel.list():
            instance = str(row["instance"])
            plan = keys.get("-".join(instance.rsplit("-", 3)[1:3]))
            runner = self._functions.get(plan.arn) if plan else None
            if plan is not None and runner is None:
                runner = self._add(plan)
            if plan is None or runner is None or not plan.adoptable or (plan.pinned and runner.workers):
                self._log.info("Ending a worker nobody needs.", workerId=instance)
                strangers.append(self._kill_stranger(instance))
                continue
            if not plan.pinned:
                self._slots.take_over()
            adopted.append(runner.adopt(instance))
        # One that a deployment had started beside another may hold what the other's successor needs: it goes first.
        await asyncio.gather(*strangers)
        for plan in plans:
            if plan.arn not in self._functions:
                self._add(plan)  # before the adopted ones speak: what they publish to it must find it
        await asyncio.gather(*(worker.adopt() for worker in adopted))
        await self.apply(plans)
        return _problems(self._functions.values())

    async def watch_start(self, arns: Iterable[str], seconds: float) -> dict[str, str]:
        """Wait until each of these pinned functions has imported its handler or failed to, at most `seconds`;
        returns the failures by ARN. A slow import is none."""
        runners = [runner for arn in arns if (runner := self._functions.get(arn)) is not None]
        await asyncio.gather(*(runner.wait_initialised(seconds) for runner in runners))
        return _problems(runners)

    async def stop(self) -> None:
        """End all workers: handlers may finish for WORKER_FINISH_S, then by force. Takes at most about 10 s."""
        self._stopped = True
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        rollout = self._rollout
        if rollout is not None:
            rollout.abandon()
        await self.apply(())
        patience = limits.WORKER_EXIT_S
        await asyncio.gather(
            *(runner.wait_gone(patience) for runner in self._leaving),
            *([rollout.wait_abandoned()] if rollout is not None else []),
        )
        for task in list(self._around.tasks):
            task.cancel()
        await asyncio.gather(*self._around.tasks, return_exceptions=True)

    def exited(self, event: Mapping[str, Any]) -> None:
        """The spawner's `exited` event."""
        worker = self._around.whose(self._token(str(event.get("instance"))).encode())
        if worker is not None:
            worker.exited(Exit.from_event(event))

    # --- invocations ------------------------------------------------------------------------------------

    async def invoke(
        self,
        arn: str,
        payload: bytes,
        client_context: bytes = b"",
        invocation_type: InvocationType = InvocationType.REQUEST_RESPONSE,
    ) -> InvokeResult:
        """Run a function and return what came of it; an Event returns at once. Never raises for what the
        function did; REFUSED says that no handler was asked."""
        if invocation_type is InvocationType.EVENT:
            try:
                self.submit(arn, Invocation(client_context, payload))
            except GgfastError as error:
                return refused_by(error)
            return EMPTY_RESULT
        future: asyncio.Future[InvokeResult] = self._loop.create_future()

        def done(result: InvokeResult) -> None:
            if not future.done():
                future.set_result(result)

        try:
            self.submit(arn, Invocation(client_context, payload, done))
        except GgfastError as error:
            return refused_by(error)
        return await future

    def submit(self, arn: str, invocation: Invocation) -> None:
        """Queue an invocation. Raises Rejected for an unknown function, LimitReached when too much work waits."""
        runner = self._functions.get(arn)
        if runner is None:
            raise Rejected(f"{arn} is not deployed on this core.", reason_code=404, hint=self._versions(arn))
        if len(invocation.context) > limits.INVOKE_CONTEXT_BYTES_MAX:
            raise Rejected("The client context is longer than 65535 bytes.", reason_code=413)
        if invocation.size > limits.INVOKE_RESULT_BYTES_MAX:
            found, maximum = invocation.size, limits.INVOKE_RESULT_BYTES_MAX
            raise Rejected(f"Payload and client context are {found} bytes, the limit is {maximum}.", reason_code=413)
        runner.submit(invocation)

    # --- looking ----------------------------------------------------------------------------------------

    @property
    def deployed(self) -> tuple[str, ...]:
        """The ARNs of the deployed functions."""
        return tuple(self._functions)

    async def status(self) -> list[FunctionStatus]:
        """One row for each deployed function, in the order of their ARNs."""
        return [await self._row(runner) for _, runner in sorted(self._functions.items())]

    def identify(self, token: bytes) -> Worker | None:
        """The worker that was given this token, for requests that come over TCP."""
        return self._around.whose(token)

    # --- for rollouts ------------------------------------------------------------------------------------

    @property
    def runners(self) -> Mapping[str, FunctionRunner]:
        """The functions that can be reached, by ARN."""
        return self._functions

    def add(self, plan: WorkerPlan) -> FunctionRunner:
        """Make a function known to everybody."""
        runner = self._add(plan)
        self._sweep_later()
        return runner

    def remove(self, runner: FunctionRunner) -> None:
        """Nobody can reach the function any more; its workers are looked after until they are gone."""
        self._functions.pop(runner.plan.arn, None)
        self._router.remove_target(runner.plan.arn)
        self._leaving = {leaving for leaving in self._leaving if leaving.workers} | {runner}

    def candidate(self, plan: WorkerPlan) -> Candidate:
        """Start a worker that has no work yet."""
        instance = new_instance(plan)
        return Candidate(self._around, plan, instance, self._token(instance))

    # --- inside -----------------------------------------------------------------------------------------

    def _add(self, plan: WorkerPlan) -> FunctionRunner:
        runner = FunctionRunner(self._around, plan, self._pool, self._slots, self._token)
        self._functions[plan.arn] = runner
        self._router.add_function(plan.arn, runner.queue.ring, runner.notify)
        return runner

    def _token(self, instance: str) -> str:
        return token_of(self._token_key, instance)

    def _versions(self, arn: str) -> str:
        """What the caller may have meant."""
        try:
            wanted = FunctionArn.parse(arn).unqualified
        except ValueError:
            return "It is not the ARN of a function."
        versions = sorted(known for known in self._functions if known.startswith(wanted + ":"))
        return f"Deployed: {', '.join(versions)}" if versions else "No version of it is part of the group."

    async def _kill_stranger(self, instance: str) -> None:
        try:
            await self._around.channel.kill(instance)
        except OperatingError as error:
            self._log.warn("A worker could not be ended.", workerId=instance, reason=str(error))

    async def _row(self, runner: FunctionRunner) -> FunctionStatus:
        memory_kb = 0
        workers = [worker for worker in runner.workers.values() if worker.pid]
        for worker in workers:
            try:
                now = await self._around.channel.stat(worker.instance)
            except OperatingError:
                continue  # it ended meanwhile
            memory_kb += max(int(now.get("memory_kb", 0)), 0)
            runner.figures.peak(int(now.get("memory_peak_kb", 0)))
        figures, plan = runner.figures, runner.plan
        return FunctionStatus(
            plan.arn,
            plan.name,
            runner.state,
            plan.pinned,
            runner.live,
            tuple(worker.pid for worker in workers),
            memory_kb,
            figures.memory_peak_kb,
            plan.memory_kb,
            len(runner.queue),
            figures.invocations,
            figures.errors,
            figures.dropped + runner.queue.ring.refused,
            figures.restarts,
            runner.durations.percentile_ms(50),
            runner.durations.percentile_ms(99),
            figures.last_error,
        )

    def _sweep_later(self) -> None:
        if self._functions and self._sweep_timer is None and not self._stopped:
            self._sweep_timer = self._loop.call_later(limits.WORKER_FRAME_SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        """Once in a while: workers unused for long, frames that never end."""
        self._sweep_timer = None
        unused_since = self._clock.monotonic() - self._settings.idle_s
        for runner in self._functions.values():
            for worker in list(runner.workers.values()):
                worker.sweep()
            if not runner.plan.pinned:
                for worker in [w for w in runner.idle_workers() if w.idle_since < unused_since]:
                    worker.retire()
        self._sweep_later()


def _problems(runners: Iterable[FunctionRunner]) -> dict[str, str]:
    return {runner.plan.arn: runner.start_problem for runner in runners if runner.start_problem}
