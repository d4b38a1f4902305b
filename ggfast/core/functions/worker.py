"""One worker process, from the request to start it to the news of its end.

    STARTING ─spawned─► LOADING ─I─► IDLE ◄──► BUSY
        │                  │           │         │
        └──────────────────┴─► ENDING ◄┴─────────┘ ─exited─► GONE

A program that runs its own loop asks for its work by HTTP instead: it is AWAY when no such request waits, IDLE when
one does. Work that a request has taken away is not handed out a second time: should the connection break, it ends
by its time-out.

A worker is hostile: whatever it sends, it can only end itself. An invocation it was given is settled exactly
once, whichever way the worker ends. Sources: greengrass-core 6.1, 6.7, 14.4; sandbox 10.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from enum import Enum
from typing import Any

from ggfast import limits
from ggfast._ext.frames import WorkerLink
from ggfast.core.functions.environment import WorkerPlan
from ggfast.core.functions.invocations import Invocation, InvokeResult, InvokeStatus, refused, unhandled
from ggfast.core.functions.logs import LogPipe
from ggfast.core.functions.surroundings import Exit, Owner, Side, Spawned, Surroundings, token_digest
from ggfast.errors import OperatingError
from ggfast.log import Level


class WorkerState(Enum):
    """Where a worker is in its life."""

    STARTING = "starting"
    LOADING = "loading"
    IDLE = "idle"
    BUSY = "busy"
    AWAY = "away"
    ENDING = "ending"
    GONE = "gone"


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
        self.peak_kb = 0  # memory, known at its end
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
        self.side: Side | None = None
        self.is_cut_off = False
        self._by_request = False
        self._load_s = max(plan.timeout_s, limits.WORKER_LOAD_S_MIN)
        around.workers[token_digest(token.encode())] = self

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
        if self._by_request and self.side is not None:
            self.side.give(number, invocation)
        elif not self._link.send_work(number, invocation.context, invocation.payload):
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
        if self.state in (WorkerState.IDLE, WorkerState.AWAY):
            self._stop_soon()
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
        self._cut_off()
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
        self.peak_kb = how.peak_kb
        self._link.drain()
        self._cut_off()
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

    def pass_to(self, owner: Owner) -> None:
        """Another owner is told from now on."""
        self._owner = owner

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

    @property
    def is_working(self) -> bool:
        """Whether its handler runs."""
        return self.state is WorkerState.BUSY

    # --- frames (called by the link) --------------------------------------------------------------------

    def initialised(self, ok: bool, text: str) -> None:
        """`I`: the handler's module is imported, or could not be."""
        if self.state is not WorkerState.LOADING:
            return
        self._deadline = None
        if not ok:
            self._reason = text[: limits.LOG_LINE_BYTES_MAX] or "the function could not be initialised"
            self._to_ending()
            self._arm(limits.WORKER_STOP_S)
            return
        self.was_ready = True
        self._become_idle()
        self._owner.ready(self)

    # --- the same by HTTP (called by the worker's side) -----------------------------------------------------

    def initialised_by_request(self, ok: bool, text: str) -> None:
        """It runs its own loop and is initialised, or could not be. Nothing happens when it said so before."""
        if not ok or self.state is not WorkerState.LOADING:
            self.initialised(ok, text)
            return
        self._by_request = self.was_ready = True
        self._go_away()
        self._owner.away(self)

    def asks_for_work(self) -> bool:
        """A request for work waits at its side; False when its work comes over its socket."""
        tell = self._owner.ready if self.state is WorkerState.LOADING else self._owner.freed
        if self.state is WorkerState.LOADING:
            self.initialised_by_request(True, "")
        if self._by_request and self.state is WorkerState.AWAY:
            self._become_idle()
            tell(self)
        return self._by_request

    def asks_no_more(self) -> None:
        """No request for work waits any longer."""
        if self._by_request and self.state is WorkerState.IDLE:
            self._go_away()
            self._owner.away(self)

    @property
    def context_bytes_max(self) -> int:
        """The longest client context it can be given."""
        return limits.HTTP_CONTEXT_BYTES_MAX if self._by_request else limits.INVOKE_CONTEXT_BYTES_MAX

    @property
    def may_have_earlier_work(self) -> bool:
        """Whether a result it brings may belong to an invocation of an earlier daemon."""
        return self._adopted and self.state is WorkerState.LOADING

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
        if not reason.startswith("it closed its socket"):
            self.end(reason)
        elif self._by_request or (self.plan.is_launch and self.state is WorkerState.LOADING):
            pass  # a program that has no use for its socket may close it: its exit tells the end
        else:
            self._suspicion = reason
            self._to_ending()
            self._arm(limits.WORKER_STOP_S)

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
            self._cut_off()
            self._kill()

    def _cut_off(self) -> None:
        """Hear nothing more of it."""
        self.is_cut_off = True
        if self._link is not None:
            self._link.close()
        if self.side is not None:
            self.side.close()

    def _become_idle(self) -> None:
        self.state = WorkerState.IDLE
        self._deadline = None
        self.idle_since = self._around.clock.monotonic()

    def _go_away(self) -> None:
        """Until it asks for work; an on-demand worker does so soon, or its place is given to another."""
        self.state = WorkerState.AWAY
        self._deadline = None
        if not self.plan.pinned:
            self._arm(self._load_s)

    def _stop_soon(self) -> None:
        """It has no work and takes none: X tells a worker that reads its socket to end, SIGTERM any other program."""
        self._to_ending()
        self._arm(limits.WORKER_STOP_S)
        if self.side is not None:
            self.side.retire()
        if self._by_request:
            self._around.run(self._send_term())

    def _to_ending(self) -> None:
        self.state = WorkerState.ENDING
        self._owner.ending(self)

    def _ended_handler(self, number: int, result: InvokeResult) -> None:
        if self._invocation is None or number != self._number:
            self._around.counters.add("functions.dropped.late_result")
            return
        if self.state is WorkerState.BUSY:
            if self._by_request:
                self._go_away()
            else:
                self._become_idle()
            if self._asked_to_stop:
                self._stop_soon()
        self._settle(result)

    def _settle(self, result: InvokeResult) -> None:
        invocation, self._invocation = self._invocation, None
        if invocation is not None:
            seconds = self._around.clock.monotonic() - self._run_at
            try:
                invocation.finish(result)
            except Exception as error:  # a defect on the caller's side is not this worker's end
                self._around.log.error("A result could not be passed on.", functionArn=self.arn, reason=repr(error))
            self._owner.finished(self, result, seconds)

    def _kill(self) -> None:
        self._arm(limits.WORKER_EXIT_S)
        self._around.run(self._send_kill())

    async def _send_term(self) -> None:
        try:
            await self._around.channel.kill(self.instance, signal.SIGTERM)
        except OperatingError as error:  # the news of its end is on the way, or SIGKILL follows
            self._around.log.debug("SIGTERM not sent.", functionArn=self.arn, workerId=self.instance, reason=str(error))

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
        self._cut_off()
        for pipe in self._pipes:
            pipe.drain()
        self._around.log.error(message, functionArn=self.arn, workerId=self.instance, reason=problem)
        self._settle(unhandled(problem))
        self._forget(self._reason)

    def _forget(self, problem: str) -> None:
        self.state = WorkerState.GONE
        self._around.workers.pop(token_digest(self.token.encode()), None)
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
            if self._invocation is not None:
                self._around.counters.add("functions.killed.unfinished")
            self.end("it did not stop in time")
        elif self.state is WorkerState.BUSY:
            self._around.counters.add("functions.killed.timeout")
            text = f"Task timed out after {self.plan.timeout_s:g} seconds"
            self.end(text, unhandled(text))
        elif self.state is WorkerState.AWAY:
            self.end(f"it did not ask for its next work within {self._load_s:g} seconds")
        elif self.state is WorkerState.LOADING and self.plan.pinned and not self._adopted:
            self._around.log.warn("The function is still initialising.", functionArn=self.arn, workerId=self.instance)
        elif self.state is WorkerState.LOADING:
            busy = "its handler, running since before the daemon's restart," if self._adopted else "its initialisation"
            self.end(f"{busy} took more than {self._load_s:g} seconds")
