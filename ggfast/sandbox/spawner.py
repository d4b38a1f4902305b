"""Does everything to workers that needs root; one request at a time.

What it has imported, every worker shares: the zygote is forked from it. So it reads no secret, opens nothing it
does not need, runs no thread and no event loop of a library. Its life is the supervisor's loop, which hands it
requests (`handle`) and descriptors that became readable (`ready`).

A worker's life:   spawn -> (asked; forked; plan runs, error pipe open) -> running -> dead -> groups removed
"""

from __future__ import annotations

import array
import errno
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from ggfast import limits
from ggfast._ext import kernel
from ggfast.errors import GgfastError, LimitReached, SandboxFailed
from ggfast.sandbox import grants
from ggfast.sandbox import plan as plans
from ggfast.sandbox.cgroups import Group, Tree, drain_event
from ggfast.sandbox.devices import ALWAYS, DeviceRule
from ggfast.sandbox.host import Host, MountWatch, forbidden_node
from ggfast.sandbox.instance import Opened, Steps, Worker, worker_of
from ggfast.sandbox.paths import Found, inspect
from ggfast.sandbox.policy import Policy, WorkerSpec, check_instance, refuse
from ggfast.sandbox.spare import Spare
from ggfast.sandbox.zygote import Forked, Zygote

S_IFDIR, S_IFREG = 0o040000, 0o100000
ADOPT_MARK: Final = b"\xff"
OOM_WATCH_S: Final = 2.0  # between the kernel's "out of memory" and the death it causes lie milliseconds

Answer = tuple[dict[str, Any], list[int]]
Send = Callable[[dict[str, Any], list[int]], None]


class Spawner:
    """Verbs of the channel, except `ready` and `stop`, which are the supervisor's.

    `send` queues an answer or event with descriptors; `watch`/`unwatch` add descriptors to the supervisor's poll.
    `host_mounts` is the mount namespace of functions without a container (None: this process has not left it);
    `refusal` says why there can be no containers.
    """

    def __init__(
        self,
        policy: Policy,
        zygote: Zygote,
        runtime_dir: str,
        tree: Tree,
        host: Host,
        *,
        host_mounts: int | None,
        refusal: SandboxFailed | None,
        send: Send,
        watch: Callable[[int], None],
        unwatch: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.workers: dict[str, Worker] = {}
        self.unremoved: list[Group] = []
        self._suspects: dict[str, float] = {}  # instances out of memory, and until when to look at their counter
        self._policy = policy
        self._runtime_dir = runtime_dir
        self._tree = tree
        self._host = host
        self._host_mounts = host_mounts
        self._refusal = refusal
        self._mounts = MountWatch()
        self._send = send
        self._watch = watch
        self._unwatch = unwatch
        self._clock = clock
        self._tokens = max(1.0, policy.spawns_per_second)
        self._refilled = clock()
        self._serial = 0
        self.zygote = zygote
        self._spare = Spare(zygote, tree)
        self._watch(zygote.descriptor)

    def zygote_died(self) -> None:
        """Every worker has died with it: tell so, and start another."""
        self._read_zygote()
        self._unwatch(self.zygote.descriptor)
        self.zygote.died()
        for worker in list(self.workers.values()):
            self._ended(worker, int(signal.SIGKILL))
        self._drop_spare()
        self._start_zygote()

    def _start_zygote(self) -> None:
        """Where there is no memory for one it is tried again with the next spare; until then requests are refused."""
        try:
            self.zygote.start()
        except OSError:
            self._spare.due_at = self._clock() + limits.SPARE_RETRY_S
            return
        self._spare.due_at = self._clock()
        self._watch(self.zygote.descriptor)

    def disown(self) -> None:
        """The daemon is dead: what it had asked for and not got is nobody's, and its numbers are the next one's."""
        for worker in self.workers.values():
            if not worker.started:
                worker.request = None
                self._kill_quietly(worker)

    # --- requests ---------------------------------------------------------------------------------------

    def handle(self, message: Mapping[str, Any]) -> None:
        """Answer one request; never raises for anything the request says."""
        request = message.get("id")
        if not isinstance(request, int) or isinstance(request, bool):
            request = -1
        try:
            answer, fds = self._dispatch(request, message)
        except GgfastError as error:
            self._refuse(request, error)
        except OSError as error:
            self._refuse(request, SandboxFailed("spawner", error.errno or 0, str(error)))
        else:
            if answer:
                self._send({"id": request, "ok": True, **answer}, fds)

    def _refuse(self, request: int | None, error: GgfastError) -> None:
        step = error.step if isinstance(error, SandboxFailed) else "limit"
        number = error.errno if isinstance(error, SandboxFailed) else errno.EAGAIN
        self._send({"id": request, "ok": False, "step": step, "errno": number, "error": str(error)[:2000]}, [])

    def _dispatch(self, request: int, message: Mapping[str, Any]) -> Answer:
        verb = message.get("verb")
        allowed = {"spawn": {"instance", "spec"}, "kill": {"instance", "signal"}, "stat": {"instance"}}
        allowed |= {"adopt": {"instance"}, "list": set()}
        if not isinstance(verb, str) or verb not in allowed:
            raise refuse(f"verb: found {str(verb)[:40]!r}, expected one of {sorted([*allowed, 'ready', 'stop'])}")
        if unknown := sorted(set(message) - allowed[verb] - {"id", "verb"}):
            raise refuse(f"{verb}: found unknown fields {unknown[:8]}")
        if verb == "list":
            return {"instances": [self._describe(worker) for worker in self.workers.values() if worker.started]}, []
        instance = check_instance(message.get("instance"))
        if verb == "spawn":
            self._spawn(request, instance, message.get("spec"))
            return {}, []
        worker = self.workers.get(instance)
        if worker is None or not worker.started:
            raise SandboxFailed("instance", errno.ESRCH, f"instance {instance}: found none running")
        if verb == "kill":
            return self._kill(worker, message.get("signal", int(signal.SIGKILL)))
        if verb == "stat":
            return self._stat(worker)
        return self._adopt(worker)

    @staticmethod
    def _describe(worker: Worker) -> dict[str, Any]:
        return {"instance": worker.instance, "pid": worker.number, "spec_hash": worker.spec.hash}

    def _kill(self, worker: Worker, number: object) -> Answer:
        if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= 64:
            raise refuse(f"signal: found {str(number)[:20]!r}, expected 1 to 64")
        if not worker.spec.contained and number == signal.SIGSTOP:
            raise refuse("signal: found SIGSTOP, expected another for a function without a container")
        self._signal(worker, number)
        return {"instance": worker.instance}, []

    def _stat(self, worker: Worker) -> Answer:
        now = worker.group.statistics()
        return {"instance": worker.instance, **{name: getattr(now, name) for name in now.__slots__}}, []

    def _adopt(self, worker: Worker) -> Answer:
        """A new socket for a new daemon: the worker gets its end through the old one, which then ends."""
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with socket.socket(fileno=os.dup(worker.ipc)) as old:
            try:
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [far.fileno()]))]
                old.sendmsg([ADOPT_MARK], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                old.shutdown(socket.SHUT_RDWR)
            except OSError as error:
                near.close()
                raise SandboxFailed(
                    "adopt",
                    error.errno or 0,
                    f"instance {worker.instance}: its old socket cannot carry the new one: {error.strerror}",
                    hint="The worker does not read: kill it.",
                ) from None
            finally:
                far.close()
        os.close(worker.ipc)
        worker.ipc = near.detach()
        return {"pid": worker.number, "instance": worker.instance}, worker.descriptors

    # --- spawn ------------------------------------------------------------------------------------------

    def _spawn(self, request: int, instance: str, document: object) -> None:
        if instance in self.workers:
            raise SandboxFailed("instance", errno.EEXIST, f"instance {instance}: exists already, expected a new name")
        self._check_rate()
        spec = self._policy.validate(document)
        self._host = self._mounts.refreshed(self._host)
        if not self.zygote.has_image:
            raise refuse("spec: found no worker module loaded, expected one to fork workers from")
        self._check_name(instance)
        self._start(request, instance, spec, by_spare=True)

    def _start(self, request: int, instance: str, spec: WorkerSpec, *, by_spare: bool) -> None:
        if spec.contained:
            worker = self._spawn_contained(request, instance, spec, by_spare)
        else:
            worker = self._spawn_uncontained(request, instance, spec)
        self.workers[instance] = worker
        self._watch(worker.error_pipe)
        if worker.oom_event is not None:
            self._watch(worker.oom_event)

    def _retry(self, request: int, worker: Worker) -> None:
        """A spare whose own part failed says nothing of the request: once more, without one."""
        try:
            self._start(request, worker.instance, worker.spec, by_spare=False)
        except GgfastError as error:
            self._refuse(request, error)
        except OSError as error:
            self._refuse(request, SandboxFailed("spawner", error.errno or 0, str(error)))

    def _spawn_contained(self, request: int, instance: str, spec: WorkerSpec, by_spare: bool) -> Worker:
        if self._refusal is not None:
            raise self._refusal
        mounts, devices, granted = self._inspect(spec)
        around = plans.Surroundings(
            join_first=(),
            by_spare=False,
            hidden=self._policy.hidden_for(spec.uid),
            runtime_dir=self._runtime_dir,
            mounts=mounts,
            devices=devices,
            title=f"ggfast-worker {instance}",
        )
        waiting = self._spare.group_for(plans.house_of(spec, around.hidden, self._host)) if by_spare else None
        group = waiting or self._tree.create(instance)
        around = replace(around, join_first=group.join_first, by_spare=waiting is not None)
        rules = [*ALWAYS, *granted]
        try:
            with self._opened(group, spec, rules) as opened:
                serial = self._next_serial()
                pid, steps = self._ask(serial, spec, around, opened)
                return worker_of(instance, spec, serial, pid, group, steps, opened, request)
        except BaseException:
            if waiting is not None:
                self._spare.drop()
            raise
        finally:
            self._renew_spare()

    def _spawn_uncontained(self, request: int, instance: str, spec: WorkerSpec) -> Worker:
        self._inspect_code(spec)
        group = self._tree.create_uncontained(instance)
        with self._opened(group, spec, None) as opened:
            serial = self._next_serial()
            mounts = [] if self._host_mounts is None else [self._host_mounts]
            title = f"ggfast-worker {instance}"
            made = plans.build_uncontained(spec, group.join_first, title, self._host, setns=bool(mounts))
            self.zygote.keep(serial, made.data, [*opened.far, *mounts])
            return worker_of(instance, spec, serial, 0, group, made.steps, opened, request)

    @contextmanager
    def _opened(self, group: Group, spec: WorkerSpec, rules: list[DeviceRule] | None) -> Iterator[Opened]:
        """The limits of `group` and the descriptors of one worker; taken back when the block fails."""
        opened = Opened()
        try:
            group.limit(spec.memory_kb, spec.pids_max, rules)
            opened.open()
            if (event := group.oom_event()) is not None:
                opened.near.append(event)
            yield opened
        except BaseException:
            for fd in opened.near:
                os.close(fd)
            if not group.remove():
                self.unremoved.append(group)
            raise
        finally:
            for fd in opened.far:
                os.close(fd)

    def _ask(self, serial: int, spec: WorkerSpec, around: plans.Surroundings, opened: Opened) -> tuple[int, Steps]:
        """Give the plan to the spare if there is one, else to the zygote; the pid, if it is known, and the steps."""
        made = plans.build(spec, around, self._host)
        pid = self._spare.send(made.data, opened.far) if around.by_spare else 0
        if not pid:
            if around.by_spare:  # it died a moment ago
                made = plans.build(spec, replace(around, by_spare=False), self._host)
            self.zygote.spawn(serial, made.data, opened.far)
        return pid, made.steps

    def _check_name(self, instance: str) -> None:
        """The group of an earlier worker of this name would be removed with the new one in it."""
        if any(group.instance == instance for group in self.unremoved):
            self.remove_groups()
        if any(group.instance == instance for group in self.unremoved):
            text = f"instance {instance}: found processes of an earlier one, expected a new name"
            raise SandboxFailed("instance", errno.EBUSY, text)

    def _check_rate(self) -> None:
        policy, now = self._policy, self._clock()
        burst = max(1.0, policy.spawns_per_second)
        self._tokens = min(burst, self._tokens + (now - self._refilled) * policy.spawns_per_second)
        self._refilled = now
        if len(self.workers) >= policy.instances_max:
            raise LimitReached("instances", len(self.workers) + 1, policy.instances_max)
        if self._tokens < 1:
            raise LimitReached("spawns in this second", int(burst) + 1, int(burst))
        self._tokens -= 1

    def _inspect(self, spec: WorkerSpec) -> tuple[list[Found], list[Found], list[DeviceRule]]:
        """Look at every path of the request; the executor compares again."""
        self._inspect_code(spec)
        mounts = [inspect(mount.source) for mount in spec.mounts]
        for mount, found in zip(spec.mounts, mounts, strict=True):
            if found.kind not in (S_IFDIR, S_IFREG):
                raise refuse(f"spec.mounts: found neither a directory nor a file at {mount.source}")
        devices, rules = grants.look(spec.devices, lambda kind, node: forbidden_node(kind, node, self._host))
        return mounts, devices, rules

    @staticmethod
    def _inspect_code(spec: WorkerSpec) -> None:
        if inspect(spec.code_dir).kind != S_IFDIR:
            raise refuse(f"spec.code_dir: found a file at {spec.code_dir}, expected a directory")

    def _next_serial(self) -> int:
        self._serial = (self._serial + 1) & 0xFFFFFFFF
        return self._serial

    # --- the spare ----------------------------------------------------------------------------------------

    @property
    def spare_due_at(self) -> float | None:
        """When `make_spare` has something to do."""
        return self._spare.due_at

    def make_spare(self) -> None:
        """Have a process forked ahead of the next request, if it is time."""
        now = self._clock()
        if self._spare.due_at is not None and now >= self._spare.due_at:
            self._drop_spare()
            if self.zygote.descriptor < 0:
                self._start_zygote()
            else:
                self._spare.make(self._next_serial(), now)

    def _renew_spare(self) -> None:
        """After a request: the next spare is for one like it. One that waits for another kind goes."""
        if not self._spare.fits:
            self._drop_spare()
            self._spare.due_at = self._clock() + limits.SPARE_DELAY_S

    def _drop_spare(self) -> None:
        group = self._spare.drop()
        if group is not None and not group.remove():
            self.unremoved.append(group)

    # --- events -----------------------------------------------------------------------------------------

    def ready(self, fd: int) -> None:
        """A watched descriptor is readable: the zygote, the end of a set-up, or a group out of memory."""
        if fd == self.zygote.descriptor:
            self._read_zygote()
            return
        for worker in list(self.workers.values()):
            if fd == worker.error_pipe:
                self._setup_news(worker)
            elif fd == worker.oom_event:
                drain_event(fd)
                self._suspects[worker.instance] = self._clock() + OOM_WATCH_S
        self.watch_memory()

    def watch_memory(self) -> bool:
        """v1 has no group kill, and half a function is worse than none: end whole functions of which the kernel
        killed a part. The news comes before the counter moves, so this is called again for a moment; whether
        it must be."""
        for instance, until in list(self._suspects.items()):
            worker = self.workers.get(instance)
            if worker is not None and worker.group.oom_kills() > 0:
                self._kill_quietly(worker)
            elif worker is not None and self._clock() < until:
                continue
            del self._suspects[instance]
        return bool(self._suspects)

    def _setup_news(self, worker: Worker) -> None:
        try:
            while part := os.read(worker.error_pipe, 64):
                worker.records += part
        except BlockingIOError:
            return
        self._unwatch(worker.error_pipe)
        os.close(worker.error_pipe)
        worker.error_pipe = -1
        self._maybe_started(worker)

    def _maybe_started(self, worker: Worker) -> None:
        """Answer once both are known: the pid from the zygote, and that the plan was completed."""
        if worker.error_pipe < 0 < worker.pid and worker.last_record and worker.last_record[0] == kernel.DONE:
            worker.started = True
            self._send(
                {"id": worker.request, "ok": True, "instance": worker.instance, "pid": worker.number},
                worker.descriptors,
            )

    def _read_zygote(self) -> None:
        for news in self.zygote.news():
            if isinstance(news, Forked):
                if not self._spare.forked(news.serial, news.pid, self._clock()):
                    self._forked(news)
            elif group := self._spare.ended(news.pid, self._clock()):
                self.unremoved.append(group)
            else:
                worker = next((worker for worker in self.workers.values() if worker.pid == news.pid), None)
                if worker is not None:
                    self._ended(worker, news.status)

    def _forked(self, news: Forked) -> None:
        worker = next((worker for worker in self.workers.values() if worker.serial == news.serial), None)
        if worker is None:
            return
        if news.pid > 0:
            worker.pid = news.pid
            self._maybe_started(worker)
            if worker.request is None:
                self._kill_quietly(worker)
            return
        del self.workers[worker.instance]
        step = SandboxFailed("fork", -news.pid, f"fork: {os.strerror(-news.pid)}")
        self._forget(worker)
        self._refuse(worker.request, step)

    def _ended(self, worker: Worker, status: int) -> None:
        """A worker is dead: answer or tell, and clean up."""
        if worker.error_pipe >= 0:
            self._setup_news(worker)
        del self.workers[worker.instance]
        statistics = worker.group.statistics()
        if worker.failed_as_spare and worker.request is not None and not statistics.oom_kills:
            self._forget(worker)
            self._retry(worker.request, worker)
            return
        if not worker.started:
            failure = worker.set_up_failure(status, statistics.oom_kills > 0)
            self._refuse(worker.request, failure)  # only now: the name is free again
        else:
            self._send(worker.exited(status, statistics), [])
        self._forget(worker)

    def _forget(self, worker: Worker) -> None:
        if worker.error_pipe >= 0:
            self._unwatch(worker.error_pipe)
            os.close(worker.error_pipe)
        if worker.oom_event is not None:
            self._unwatch(worker.oom_event)
            os.close(worker.oom_event)
        for fd in worker.descriptors:
            os.close(fd)
        if not worker.group.remove():
            self.unremoved.append(worker.group)

    def remove_groups(self) -> bool:
        """Try again to remove groups that were still busy; True when none is left."""
        self.unremoved = [group for group in self.unremoved if not group.remove()]
        return not self.unremoved

    def kill_all(self) -> None:
        """SIGKILL to every worker; their ends come through the zygote."""
        self._drop_spare()
        self.disown()
        for worker in self.workers.values():
            self._kill_quietly(worker)

    def _kill_quietly(self, worker: Worker) -> None:
        try:
            if worker.pid:
                self._signal(worker, int(signal.SIGKILL))
        except SandboxFailed:
            pass  # no zygote: its death has killed the worker

    def _signal(self, worker: Worker, number: int) -> None:
        """A keeper passes signals on; SIGKILL it could not, so it is told in its own way."""
        to_keeper = not worker.spec.contained and number == signal.SIGKILL
        self.zygote.kill(worker.pid, kernel.KEEPER_END if to_keeper else number)
