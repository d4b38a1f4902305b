"""One worker process, from the request to start it to the news of its end.

    STARTING ─spawned─► LOADING ─I─► IDLE ◄──► BUSY
        │                  │           │         │
        └──────────────────┴─► ENDING ◄┴─────────┘ ─exited─► GONE

A worker is hostile: whatever it sends, it can only end itself. An invocation it was given is settled exactly
once, whichever way the worker ends. Sources: greengrass-core 6.1, 6.7, 14.4; sandbox 10.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from ggfast import limits
from ggfast._ext.frames import WorkerLink
from ggfast.clock import Clock
from ggfast.core.functions.environment import WorkerPlan
from ggfast.core.functions.invocations import Invocation, InvokeResult, InvokeStatus, refused, unhandled
from ggfast.core.functions.logs import LineSink, LogPipe
from ggfast.counters import Counters
from ggfast.errors import OperatingError
from ggfast.log import Level, SystemLog


class Spawned(Protocol):
    """A started worker: its pid, the near ends of its socket and log pipes, now owned by the receiver."""

    @property
    def pid(self) -> int: ...
    @property
    def ipc(self) -> socket.socket: ...
    @property
    def stdout(self) -> int: ...
    @property
    def stderr(self) -> int: ...


class Channel(Protocol):
    """What the daemon can ask the spawner. Failures raise OperatingError."""

    async def spawn(self, instance: str, spec: Mapping[str, Any]) -> Spawned: ...
    async def adopt(self, instance: str) -> Spawned: ...
    async def kill(self, instance: str) -> None: ...
    async def stat(self, instance: str) -> Mapping[str, Any]: ...
    async def list(self) -> list[dict[str, Any]]: ...


class CallHandler(Protocol):
    """Where a worker's own calls go."""

    def publish(self, worker: Worker, call: int, context: bytes, payload: bytes) -> None: ...
    def call(self, worker: Worker, call: int, kind: int, arn: str, context: bytes, payload: bytes) -> None: ...


class Owner(Protocol):
    """Told about everything that happens to a worker; `gone` is the last call."""

    def ready(self, worker: Worker) -> None: ...
    def finished(self, worker: Worker, result: InvokeResult, seconds: float) -> None: ...
    def ending(self, worker: Worker) -> None: ...
    def gone(self, worker: Worker, problem: str) -> None: ...


@dataclass(slots=True)
class Surroundings:
    """What every worker of the core shares."""

    loop: asyncio.AbstractEventLoop
    clock: Clock
    channel: Channel
    counters: Counters
    log: SystemLog
    function_log: Callable[[str], LineSink]
    calls: CallHandler
    tasks: set[asyncio.Task[None]]
    number: int = 0

    def next_number(self) -> int:
        """An invocation number no running worker has."""
        self.number = (self.number + 1) & 0xFFFFFFFF
        return self.number

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine beside; it is kept until it ends."""
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class WorkerState(Enum):
    """Where a worker is in its life."""

    STARTING = "starting"
    LOADING = "loading"
    IDLE = "idle"
    BUSY = "busy"
    ENDING = "ending"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended, as the spawner saw it."""

    status: int | None = None
    signal: int | None = None
    oom: bool = False
    peak_kb: int = 0
    limit_kb: int = 0
    error: str = ""

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Exit:
        """Read the spawner's `exited` event."""
        problem = event.get("error")
        text = f"{problem.get('step')} failed: errno {problem.get('errno')}" if isinstance(problem, dict) else ""
        return cls(
            event.get("exit_status"),
            event.get("signal"),
            bool(event.get("oom")),
            int(event.get("memory_peak_kb") or 0),
            int(event.get("memory_limit_kb") or 0),
            text,
        )

    @property
    def state(self) -> str:
        """V1's words: `signal: killed`, `exit status 1`."""
        if self.error:
            return f"container set-up: {self.error}"
        if self.signal is not None:
            return f"signal: {(signal.strsignal(self.signal) or str(self.signal)).lower()}"
        return f"exit status {self.status if self.status is not None else 'unknown'}"


class Worker:
    """See the module. All methods return at once; only `launch` and `adopt` wait."""

    def __init__(self, around: Surroundings, plan: WorkerPlan, instance: str, token: str, owner: Owner) -> None:
        self.plan = plan
        self.instance = instance
        self.token = token
        self.arn = plan.arn
        self.state = WorkerState.STARTING
        self.pid = 0
        self.was_ready = False
        self.open_calls = 0
        self.started_at = around.clock.monotonic()
        self.idle_since = self.started_at
        self._around = around
        self._owner = owner
        self._link: WorkerLink | None = None
        self._pipes: tuple[LogPipe, ...] = ()
        self._invocation: Invocation | None = None
        self._number = 0
        self._run_at = 0.0
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._reason = ""
        self._suspicion = ""
        self._asked_to_stop = False
        self._exit: Exit | None = None
        self._swept_frames = -1
        self._adopted = False
        self._load_s = max(plan.timeout_s, limits.WORKER_LOAD_S_MIN)

    # --- life -----------------------------------------------------------------------------------------

    async def launch(self) -> None:
        """Have the process started and configured; the owner hears the rest."""
        try:
            spawned = await self._around.channel.spawn(self.instance, self.plan.spec)
        except OperatingError as error:
            self._lose(f"the worker could not be started: {error}", "Worker could not be created.")
            return
        self._attach(spawned)
        self._around.log.info("Created worker.", functionArn=self.arn, workerId=self.instance, pid=self.pid)
        if self._link is not None and self.state is WorkerState.STARTING:
            self.state = WorkerState.LOADING
            send = self._link.send_launch if self.plan.is_launch else self._link.send_config
            send(self.plan.config_frame(self.token))
            self._arm(limits.WORKER_SLOW_LOAD_S if self.plan.pinned else self._load_s)
        self._after_start()

    async def adopt(self) -> None:
        """Take over a worker that another daemon had started; it reports again when its handler is free."""
        self._adopted = True
        try:
            spawned = await self._around.channel.adopt(self.instance)
        except OperatingError as error:
            self._reason = f"the running worker could not be taken over: {error}"
            await self._send_kill()
            self._lose(self._reason)
            return
        self._attach(spawned)
        self._around.log.info("Adopted worker.", functionArn=self.arn, workerId=self.instance, pid=self.pid)
        if self.state is WorkerState.STARTING:
            self.state = WorkerState.LOADING
            self._load_s = self.plan.timeout_s + limits.WORKER_RESTART_GRACE_S
            self._arm(self._load_s)
        self._after_start()

    def run(self, invocation: Invocation) -> None:
        """Give an idle worker its next work."""
        assert self.state is WorkerState.IDLE and self._link is not None
        around = self._around
        self.state = WorkerState.BUSY
        self._invocation = invocation
        self._number = number = around.next_number()
        self._run_at = around.clock.monotonic()
        self._arm(self.plan.timeout_s)
        if not self._link.send_work(number, invocation.context, invocation.payload):
            self.end("it does not read its socket")

    def retire(self) -> None:
        """Ask it to stop: at once when idle, after its handler, by force when it takes too long."""
        if self.state in (WorkerState.ENDING, WorkerState.GONE) or self._asked_to_stop:
            return
        self._asked_to_stop = True
        if self.state in (WorkerState.STARTING, WorkerState.LOADING):
            self.end("it was not needed any more")
            return
        self._around.log.debug("wait 1s for container to stop", functionArn=self.arn, workerId=self.instance)
        if self._link is not None:
            self._link.send_shutdown()
        if self.state is WorkerState.IDLE:
            self._to_ending()
            self._arm(limits.WORKER_STOP_S)
        elif self._deadline is not None:
            left = self._deadline - self._around.clock.monotonic()
            self._arm(min(left, limits.WORKER_FINISH_S))

    def end(self, reason: str, result: InvokeResult | None = None) -> None:
        """End it by force; its invocation gets `result`, or Unhandled with the reason."""
        if self.state in (WorkerState.ENDING, WorkerState.GONE):
            return
        started = self.state is not WorkerState.STARTING
        self._reason = self._reason or reason
        self._to_ending()
        if self._link is not None:
            self._link.close()
        self._settle(result or unhandled(f"The function's worker was ended: {reason}"))
        if started:
            self._kill()

    def exited(self, how: Exit) -> None:
        """The spawner says that the process is dead."""
        if self.state is WorkerState.GONE:
            return
        if self._link is None:
            self._exit = how  # the answer to `spawn` is still on its way through the loop
            return
        if self.state is not WorkerState.ENDING:
            self._to_ending()
        self._link.drain()
        self._link.close()
        for pipe in self._pipes:
            pipe.drain()
        self._log_end(how)
        self._settle(unhandled(self._message(how)))
        self._forget(self._reason or how.state)

    def answer(self, call: int, result: InvokeResult) -> None:
        """Answer a call of this worker; nothing happens when the worker is gone."""
        self.open_calls -= 1
        if len(result.payload) > limits.INVOKE_RESULT_BYTES_MAX:
            result = refused(f"The answer is {len(result.payload)} bytes: more than a worker can be sent")
        if self._link is not None and not self._link.send_answer(call, result.status, result.payload):
            self.end("it does not read its socket")

    def run_beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that will answer one of this worker's calls."""
        self._around.run(work)

    def sweep(self) -> None:
        """Called every WORKER_FRAME_SWEEP_S: a frame that has not ended since the last call never will."""
        link = self._link
        if link is None or not link.inbound_bytes:
            self._swept_frames = -1
        elif self._swept_frames == link.frames:
            self.end("it sent a frame that does not end")
        else:
            self._swept_frames = link.frames

    @property
    def lives(self) -> bool:
        """Whether it runs or will run."""
        return self.state not in (WorkerState.ENDING, WorkerState.GONE)

    # --- frames (called by the link) --------------------------------------------------------------------

    def initialised(self, ok: bool, text: str) -> None:
        """`I`: the handler's module is imported, or could not be."""
        if self.state is not WorkerState.LOADING:
            return
        self._deadline = None
        if not ok:
            self._reason = text or "the function could not be initialised"
            self._to_ending()
            self._arm(limits.WORKER_STOP_S)
            return
        self.was_ready = True
        self._become_idle()
        self._owner.ready(self)

    def result(self, invocation: int, payload: bytes) -> None:
        """`R`: the handler returned."""
        if len(payload) > limits.INVOKE_RESULT_BYTES_MAX:
            self._ended_handler(
                invocation,
                unhandled(f"The result is {len(payload)} bytes, the limit is {limits.INVOKE_RESULT_BYTES_MAX}"),
            )
        else:
            self._ended_handler(invocation, InvokeResult(InvokeStatus.OK, payload))

    def error(self, invocation: int, document: bytes) -> None:
        """`E`: the handler raised."""
        self._ended_handler(invocation, InvokeResult(InvokeStatus.HANDLED, document))

    def publish(self, call: int, context: bytes, payload: bytes) -> None:
        """`P` to the router."""
        self._around.calls.publish(self, call, context, payload)

    def call(self, call: int, kind: int, arn: str, context: bytes, payload: bytes) -> None:
        """`P` to anything else."""
        self._around.calls.call(self, call, kind, arn, context, payload)

    def ended(self, reason: str) -> None:
        """The stream is over or broken; a process that closed its socket and lives on is killed."""
        if not self.lives:
            return
        if reason.startswith("it closed its socket"):
            self._suspicion = reason
            self._to_ending()
            self._arm(limits.WORKER_STOP_S)
        else:
            self.end(reason)

    # --- inside -----------------------------------------------------------------------------------------

    def _attach(self, spawned: Spawned) -> None:
        around = self._around
        self.pid = spawned.pid
        self._link = WorkerLink(around.loop, spawned.ipc.detach(), self, limits.WORKER_OUTBOUND_BYTES_MAX)
        self._link.start()
        sink = around.function_log(self.arn)
        self._pipes = tuple(
            LogPipe(around.loop, around.clock, around.counters, fd, level, sink)
            for fd, level in ((spawned.stdout, Level.INFO), (spawned.stderr, Level.ERROR))
        )

    def _after_start(self) -> None:
        if self._exit is not None:
            self.exited(self._exit)
        elif self.state is WorkerState.ENDING:
            if self._link is not None:
                self._link.close()
            self._kill()

    def _become_idle(self) -> None:
        self.state = WorkerState.IDLE
        self._deadline = None
        self.idle_since = self._around.clock.monotonic()

    def _to_ending(self) -> None:
        self.state = WorkerState.ENDING
        self._owner.ending(self)

    def _ended_handler(self, number: int, result: InvokeResult) -> None:
        if self._invocation is None or number != self._number:
            self._around.counters.add("functions.dropped.late_result")
            return
        if self.state is WorkerState.BUSY:
            self._become_idle()
            if self._asked_to_stop:
                self._to_ending()
                self._arm(limits.WORKER_STOP_S)
        self._settle(result)

    def _settle(self, result: InvokeResult) -> None:
        invocation, self._invocation = self._invocation, None
        if invocation is not None:
            seconds = self._around.clock.monotonic() - self._run_at
            invocation.finish(result)
            self._owner.finished(self, result, seconds)

    def _kill(self) -> None:
        self._arm(limits.WORKER_EXIT_S)
        self._around.run(self._send_kill())

    async def _send_kill(self) -> None:
        try:
            await self._around.channel.kill(self.instance)
        except OperatingError as error:
            self._lose(f"{self._reason or 'it had to be ended'}; {error}")

    def _lose(self, problem: str, message: str = "Worker is lost.") -> None:
        """The spawner knows no such worker (any more)."""
        if self.state is WorkerState.GONE:
            return
        self._reason = self._reason or problem
        if self.state is not WorkerState.ENDING:
            self._to_ending()
        if self._link is not None:
            self._link.close()
        for pipe in self._pipes:
            pipe.drain()
        self._around.log.error(message, functionArn=self.arn, workerId=self.instance, reason=problem)
        self._settle(unhandled(problem))
        self._forget(self._reason)

    def _forget(self, problem: str) -> None:
        self.state = WorkerState.GONE
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._owner.gone(self, "" if self._asked_to_stop else problem)

    def _message(self, how: Exit) -> str:
        if how.oom:
            return (
                f"The function's worker consumed all allocated memory: limit {how.limit_kb} KB, peak {how.peak_kb} KB"
            )
        return f"The function's worker ended: {self._reason or how.state}"

    def _log_end(self, how: Exit) -> None:
        log = self._around.log
        about = {"functionArn": self.arn, "workerId": self.instance}
        log.debug("Worker Memory Usage (KB).", **about, memSize=how.limit_kb, memUsed=how.peak_kb)
        if how.oom:
            self._reason = self._reason or self._message(how)
            self._around.counters.add("functions.killed.memory")
            log.error(
                "Worker consumed all allocated memory! Raise the function's MemorySize.",
                **about,
                memSize=how.limit_kb,
                memUsed=how.peak_kb,
            )
        if self._asked_to_stop and not self._reason:
            log.info("Worker stopped.", **about, state=how.state)
        else:
            log.warn("Worker is ungracefully killed.", **about, state=how.state, reason=self._reason or how.state)

    # --- time ---------------------------------------------------------------------------------------------

    def _arm(self, seconds: float) -> None:
        """Something is due in `seconds`. A timer that is due earlier stays and looks again: one timer serves
        many invocations."""
        now = self._around.clock.monotonic()
        self._deadline = deadline = now + seconds
        if self._timer is not None:
            if self._timer_at <= deadline:
                return
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._around.loop.call_later(max(seconds, 0.0), self._due)

    def _due(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        left = self._deadline - self._around.clock.monotonic()
        if left > 0:
            self._arm(left)
            return
        self._deadline = None
        if self.state is WorkerState.ENDING:
            self._reason = self._reason or self._suspicion
            self._kill()
        elif self._asked_to_stop:
            self.end("it did not stop in time")
        elif self.state is WorkerState.BUSY:
            self._around.counters.add("functions.killed.timeout")
            text = f"Task timed out after {self.plan.timeout_s:g} seconds"
            self.end(text, unhandled(text))
        elif self.state is WorkerState.LOADING and self.plan.pinned and not self._adopted:
            self._around.log.warn("The function is still initialising.", functionArn=self.arn, workerId=self.instance)
        elif self.state is WorkerState.LOADING:
            busy = "its handler, running since before the daemon's restart," if self._adopted else "its initialisation"
            self.end(f"{busy} took more than {self._load_s:g} seconds")
