"""What a deployed group means for the running parts: worker plans, table, devices, loggers.

`GroupApplier.apply` is a deployment while everything runs (design P4), in the order of `group.diff`:

    plans of all functions, and whether this machine has what they need    refused here: nothing was touched
    new devices may connect; new functions and changed ones start          refused here: taken back
    in one turn: the table is swapped, queues go to new workers, certificates of changed devices end
    old handlers end, removed functions finish what waits for them, removed devices are disconnected

Until that turn the old table serves, with the entries of those that are new beside it: nobody else can send by them.
From then on it is the new table, with the old entries of functions that change or go until their last workers have
ended: what a handler publishes while it finishes had its entry when its message came. A message meets the old table or
the new one, never none. Changed pinned functions run beside their predecessors until
then. What cannot run twice is stopped first and started after, which is why functions with local devices, and those
that fail to start beside a running worker, are dark for some seconds (core/functions/rollout.py says how it is told).

`restore` is how the core gets back to the group before, and `start` how it begins: both serve what can be served.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from ggfast import limits
from ggfast._ext.routes import Router
from ggfast.config import Config
from ggfast.core.device_listener import DeviceListener
from ggfast.core.functions.environment import CoreFacts, Identity, WorkerPlan, worker_plan
from ggfast.core.functions.manager import FunctionManager
from ggfast.core.functions.models import attached_models
from ggfast.core.functions.models import prepare as prepare_models
from ggfast.core.functions.resources import attach, mount_policy, who_of
from ggfast.core.functions.rollout import Rollout
from ggfast.core.functions.runtimes import find_interpreter
from ggfast.core.identity import DeviceIdentity
from ggfast.core.spooler import MemorySpool
from ggfast.errors import DeploymentFailed, StorageFailed
from ggfast.group.diff import (
    Change,
    DeviceAdded,
    DeviceChanged,
    DeviceRemoved,
    FunctionAdded,
    FunctionChanged,
    FunctionRemoved,
    diff,
)
from ggfast.group.document import Device, Function, Group, Isolation
from ggfast.group.functions import isolation_of, runtime_of, spooler_settings
from ggfast.group.loggers import log_rules
from ggfast.group.runtimes import Language, language_of
from ggfast.group.subscriptions import rules
from ggfast.layout import Layout
from ggfast.log import Level, LogRule, Logs
from ggfast.mqtt.broker import Broker
from ggfast.sandbox.policy import Policy

RunFunctions = Callable[[Sequence[WorkerPlan]], Awaitable[dict[str, str]]]
"""FunctionManager.apply or adopt_all: what could not be started, by ARN."""

Entry = tuple[str, str, str]
"""Source, subject, target."""

Faults = dict[str, DeploymentFailed | StorageFailed]
"""Why functions cannot run on this machine, by ARN."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Parts:
    """The running parts a group is applied to."""

    table: Router
    broker: Broker
    identity: DeviceIdentity
    listener: DeviceListener
    functions: FunctionManager
    spool: MemorySpool
    logs: Logs


class GroupApplier:
    """Applies group values to the running parts. Not re-entrant: one apply at a time."""

    def __init__(self, config: Config, parts: Parts, function_ids: tuple[int, int]) -> None:
        """`function_ids`: uid and gid of the default function account."""
        self._config = config
        self._function_ids = function_ids
        self._parts = parts
        self._current = Group()
        self._mounts = Policy.from_json(mount_policy(config))

    @property
    def current(self) -> Group:
        """The group the parts serve now."""
        return self._current

    async def start(self, group: Group) -> dict[str, str]:
        """Like `restore` for the first group after the daemon's start: functions still running are taken over."""
        return await self._serve(group, *await self._prepare(group), self._parts.functions.adopt_all)

    def hold(self, group: Group) -> None:
        """To be called before the packages of `group` replace those on disk: until `apply` or `restore` no worker
        starts from a package that is being moved. What runs goes on, what finds no free worker waits."""
        self._parts.functions.hold(
            change.old.arn if isinstance(change, FunctionChanged) else change.function.arn
            for change in diff(self._current, group)
            if isinstance(change, FunctionChanged | FunctionRemoved)
        )

    async def apply(self, group: Group, *, strict: bool = False) -> dict[str, str]:
        """Make the parts serve `group`, whose files are in place; returns an empty dictionary. See the module.

        With `strict` every function is restarted and every device disconnected, as V1 did it; a persistent session
        stays. Raises DeploymentFailed or StorageFailed with V1's words, or is cancelled: then the parts serve the
        group before, and its functions that had to be stopped come back with `restore`, once its files have. A
        cancellation after the change-over leaves the new group served. Takes at most about three times
        DEPLOYMENT_WATCH_S beyond looking at files.
        """
        plans, faults = await self._prepare(group)
        for fault in faults.values():
            raise fault
        before, changes = self._current, diff(self._current, group)
        rollout = self._parts.functions.rollout(plans, await self._moved_plans(changes), restart_all=strict)
        try:
            await self._admit(group, changes)
            if problems := await rollout.prepare():
                raise failure_of(problems)
            # The only one of these steps that could refuse.
            self._swap_table(_with_entries_of(rollout.leaving, rules(group), rules(before)))
            rollout.switch()
            self._change_over(group, changes)
        except BaseException:
            rollout.abandon()
            if self._current is before:
                await self._take_back(before, group, rollout)
            raise
        try:
            await rollout.finish()
        finally:
            self._swap_table(rules(group))
        await self._dismiss(before, changes, strict)
        return {}

    async def restore(self, group: Group) -> dict[str, str]:
        """Like `apply` for a group that was accepted before: a function that cannot run here any more, because of a
        device that was taken out, is left out and returned; everything else is served."""
        return await self._serve(group, *await self._prepare(group), self._parts.functions.apply)

    async def _prepare(self, group: Group) -> tuple[list[WorkerPlan], Faults]:
        """The plans of all functions that can run here, and why the others cannot."""
        faults: Faults = {}
        plans = []
        try:
            await aside(partial(prepare_models, self._config.layout, group, self._current))
        except (DeploymentFailed, StorageFailed) as error:
            faults = {function.arn: error for function in group.user_functions if has_models(group, function)}
        for function in group.user_functions:
            try:
                plans += [await aside(partial(self._plan, group, function))] if function.arn not in faults else []
            except DeploymentFailed as error:
                faults[function.arn] = error
            except (OSError, ValueError) as error:  # what nobody has thought of must not keep the core from starting
                detail = f"Function {function.arn} cannot be prepared: {error}"
                faults[function.arn] = DeploymentFailed("functions", detail, rolled_back=True)
        return plans, faults

    async def _moved_plans(self, changes: Sequence[Change]) -> dict[str, WorkerPlan]:
        """By ARN, how functions of the group served now start while their packages are put aside."""
        plans = {}
        for change in changes:
            if not isinstance(change, FunctionChanged | FunctionRemoved):
                continue
            function = change.old if isinstance(change, FunctionChanged) else change.function
            code = self._config.layout.previous_functions / function.arn
            if function.is_system or not code.is_dir():
                continue
            # One whose device or interpreter is gone would not start by its own plan either.
            with suppress(DeploymentFailed, OSError, ValueError):
                plans[function.arn] = await aside(partial(self._plan, self._current, function, code))
        return plans

    async def _admit(self, group: Group, changes: Sequence[Change]) -> None:
        """Who is new may connect, send and be sent to by others who are."""
        added = [change.device for change in changes if isinstance(change, DeviceAdded)]
        functions = [change.function for change in changes if isinstance(change, FunctionAdded)]
        newcomers = {device.thing_arn for device in added} | {function.arn for function in functions}
        present = rules(self._current)
        if newcomers:
            self._swap_table(_with_entries_of(newcomers, present, rules(group)))
        self._parts.identity.set_devices((*self._current.devices, *added))
        await self._let_in(*self._current.devices, *group.devices)

    def _swap_table(self, entries: Sequence[Entry]) -> None:
        """One assignment. A core serves what it has rather than a table that it cannot read."""
        try:
            self._parts.table.set_table(entries)
        except ValueError as error:
            text = f"Error while processing. group config is invalid: subscriptions: {error}"
            raise DeploymentFailed("table", text, rolled_back=True) from error

    def _change_over(self, group: Group, changes: Sequence[Change]) -> None:
        """The parts beside table and functions, in the same turn."""
        parts = self._parts
        self._current = group
        parts.logs.configure(*log_rules(group))
        parts.spool.resize(spooler_settings(group).size_bytes)
        parts.identity.set_devices(group.devices)
        for change in changes:
            if isinstance(change, DeviceChanged) and change.must_reconnect:
                parts.broker.disconnect(change.old.thing_arn)

    async def _take_back(self, before: Group, rejected: Group, rollout: Rollout) -> None:
        """What `_admit` has given, and what was started. Everything that cannot wait comes first."""
        parts = self._parts
        parts.table.set_table(rules(before))
        parts.identity.set_devices(before.devices)
        staying = {device.thing_arn for device in before.devices}
        for device in rejected.devices:
            if device.thing_arn not in staying:
                self._expel(device)
        await self._let_in(*before.devices)
        await rollout.wait_abandoned()

    async def _dismiss(self, before: Group, changes: Sequence[Change], strict: bool) -> None:
        """Those who are not in the group any more."""
        await self._let_in(*self._current.devices)
        for change in changes:
            if isinstance(change, DeviceRemoved):
                self._expel(change.device)
        for device in before.devices if strict else ():
            self._parts.broker.disconnect(device.thing_arn)

    def _expel(self, device: Device) -> None:
        self._parts.broker.disconnect(device.thing_arn)
        self._parts.broker.forget(device.thing_arn)  # a session kept for it would hold its messages for nobody

    async def _let_in(self, *devices: Device) -> None:
        """Whose certificates the listener takes; who comes in by one says the identity."""
        layout = self._config.layout
        paths = dict.fromkeys(layout.certificate(device.certificate_id) for device in devices)
        await self._parts.listener.set_devices([path if path.exists() else _put_aside(layout, path) for path in paths])

    async def _serve(
        self, group: Group, plans: Sequence[WorkerPlan], faults: Faults, run: RunFunctions
    ) -> dict[str, str]:
        parts = self._parts
        before, self._current = self._current, group
        parts.logs.configure(*log_rules(group))
        parts.spool.resize(spooler_settings(group).size_bytes)
        parts.identity.set_devices(group.devices)
        parts.table.set_table(rules(group))
        problems = {arn: str(fault) for arn, fault in faults.items()} | await run(plans)
        await self._let_in(*group.devices)
        staying = {device.thing_arn: device.certificate_id for device in group.devices}
        for device in before.devices:
            if device.thing_arn not in staying:
                self._expel(device)
            elif staying[device.thing_arn] != device.certificate_id:
                parts.broker.disconnect(device.thing_arn)
        return problems

    def _plan(self, group: Group, function: Function, code: Path | None = None) -> WorkerPlan:
        settings = self._config.ggfast
        hidden = (str(self._config.layout.root), str(self._config.layout.written), *settings.hidden_paths)
        contained = isolation_of(group, function) is not Isolation.NO_CONTAINER
        who = who_of(group, function, self._config, self._function_ids)
        code = code or self._config.layout.function(function.arn)
        interpreter = find_interpreter(function, dict(settings.runtimes), hidden if contained else None)
        return worker_plan(
            function,
            self._facts(group),
            Identity(who.uid, who.gid),
            str(code),
            code_digest=function.code_digest,
            attachments=attach(group, function, who, self._config.layout, self._mounts),
            interpreter=interpreter,
            java_archive=_java_archive(function, code, interpreter),
            contained=contained,
            log_level=(log_rules(group)[1] or LogRule(Level.FATAL)).level,
        )

    def _facts(self, group: Group) -> CoreFacts:
        thing = self._config.core_thing
        host = thing.iot_host
        return CoreFacts(
            thing_name=thing.thing_arn.name,
            thing_arn=str(thing.thing_arn),
            region=thing.thing_arn.region,
            account=thing.thing_arn.account,
            group_name=group.name,
            group_id=group.group_id,
            daemon_port=thing.gg_daemon_port,
            mqtt_endpoint=host,
            http_endpoint=thing.gg_host,
            mqtt_port=thing.iot_mqtt_port,
            keep_alive_s=thing.keep_alive_s,
            proxies=_proxies(self._config),
        )


def _java_archive(function: Function, code: Path, interpreter: str) -> str:
    if language_of(runtime_of(function)) is not Language.JAVA:
        return ""
    # A group without Java functions does not load what makes archives.
    from ggfast.core.functions.java_archive import archive_in

    return archive_in(code, Path(interpreter))


async def aside(work: Callable[[], Result], timeout_s: float = limits.DEPLOYMENT_LOOK_S) -> Result:
    """The result of `work`, which looks at paths that a group names: they may lie on a network mount that hangs.

    Raises what it raises, DeploymentFailed if it has not ended after `timeout_s`. Does not block: the work has a thread
    of its own, which nobody waits for at the end of the process.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # None only where Result is

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:
            failure = error
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="look", daemon=True).start()
    try:
        return await asyncio.wait_for(done, timeout_s)
    except TimeoutError:
        text = f"what a function needs could not be looked at within {timeout_s:g} s, expected files that answer: "
        text += "a network mount may be dead"
        raise DeploymentFailed("resources", text, rolled_back=True) from None


def has_models(group: Group, function: Function) -> bool:
    """Whether a function is attached to a model."""
    return next(attached_models(group, function), None) is not None


def failure_of(problems: dict[str, str]) -> DeploymentFailed:
    """The deployment error for functions that did not start (Appendix B's wording)."""
    detail = "; ".join(f"worker with {arn} failed to initialize: {problem}" for arn, problem in problems.items())
    return DeploymentFailed("functions", detail, rolled_back=True)


def _with_entries_of(sources: Set[str], table: Sequence[Entry], other: Sequence[Entry]) -> list[Entry]:
    """`table`, and what `other` has for these sources."""
    known = set(table)
    return [*table, *(entry for entry in other if entry[0] in sources and entry not in known)]


def _put_aside(layout: Layout, path: Path) -> Path:
    """Where an unconfirmed activation has put a file of the group before."""
    return layout.previous / path.relative_to(layout.deployment)


def _proxies(config: Config) -> dict[str, str]:
    proxy = config.core_thing.network_proxy
    if proxy is None:
        return {}
    return {"http_proxy": proxy.url, "https_proxy": proxy.url, "no_proxy": ",".join(proxy.no_proxy_addresses)}
