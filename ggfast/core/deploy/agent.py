"""The deployment agent: what the control plane offers, or a folder holds, becomes the running group, or nothing does.

    offer ─► fetch and stage (a process of its own) ─► activate on disk (journaled) ─► apply to the running parts
                                                           │ anything fails                   │
                                                           └──► previous group, on disk and in the parts ─► report

The states are those of machine.py; every transition is on disk before anything is done because of it. One deployment is
applied at a time, behind a lock; fetching holds no lock and ends when something newer is offered. Blocking work on the
disk has a thread. Sources: greengrass-core 12.2, 12.3 (report text); design P4.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ggfast import limits
from ggfast.core.deploy.apply import GroupApplier
from ggfast.core.deploy.machine import (
    FAILURE,
    LOCAL,
    Deployment,
    Event,
    Facts,
    Record,
    Report,
    State,
    advance,
    offer_event,
)
from ggfast.core.deploy.record import Records
from ggfast.core.deploy.store import Recovery, Store
from ggfast.errors import CorruptRecord, DeploymentFailed, GgfastError, LinkDown, Malformed, StorageFailed
from ggfast.fields import shown
from ggfast.group.document import Group
from ggfast.log import SystemLog

Offer = Mapping[str, Any]
Fetch = Callable[[Offer, str], Awaitable[object]]
"""Have everything of an offer staged under a name. Raises LinkDown (again later) or DeploymentFailed."""


Followed = Callable[[Group, Mapping[str, Any] | None], Awaitable[None]]
"""Told of each group that serves from now on, and by which deployment of the control plane it came (None: none)."""


class Cleaner(Protocol):
    """What a reset does beside deploying nothing."""

    async def stage_nothing(self, deployment: Deployment) -> Path:
        """A staged group without anything in it. Raises StorageFailed."""

    async def forget(self) -> None:
        """Remove what belongs to the group and is no part of it. Raises StorageFailed."""


class DeploymentAgent:
    """See the module. Every method may be called from any task. `strict`: as V1, a deployment restarts everything."""

    def __init__(
        self,
        store: Store,
        records: Records,
        applier: GroupApplier,
        log: SystemLog,
        fetch: Fetch,
        cleaner: Cleaner,
        *,
        staging: Path,
        strict: bool = False,
        followed: Followed | None = None,
    ) -> None:
        self._store = store
        self._records = records
        self._applier = applier
        self._log = log
        self._fetch = fetch
        self._cleaner = cleaner
        self._staging = staging
        self._strict = strict
        self._followed = followed
        self._lock = asyncio.Lock()
        self._record = Record()
        self._fetching: asyncio.Task[None] | None = None
        self._fetched_into: Path | None = None
        self._applying: asyncio.Task[None] | None = None  # what was fetched, or the rest of a reset
        self._changed = asyncio.Event()

    # --- life -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bring up what is on disk, and find out what became of a deployment that was cut off. A group that cannot run
        here is reported; the core runs without it."""
        async with self._lock:
            self._record = await asyncio.to_thread(self._load_record)
            await self._bring_up()
            current = self._record.current
            live = await self._follow()
            is_new = current is not None and live is not None and live.get("id") == current.id
            await self._advance(Event.FOUND_NEW if is_new else Event.FOUND_OLD)
            if self._record.state is State.RESETTING:
                self._applying = asyncio.create_task(self._reset_later())

    async def stop(self) -> None:
        """Stop what is under way; the next start goes on with it. The parts are left to their owner."""
        tasks = [task for task in (self._fetching, self._applying) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _bring_up(self) -> None:
        try:
            recovery = await asyncio.to_thread(self._store.recover)
            if recovery is Recovery.ROLLED_BACK:
                self._log.warn("A deployment was cut off: the group before it is back.")
            group = await asyncio.to_thread(self._store.load_active)
            problems = await self._applier.start(group)
        except (GgfastError, OSError) as error:
            self._log.error("Unable to create server due to: failed to load group.", errorString=str(error))
            await self._applier.start(Group())
            return
        for arn, problem in problems.items():
            self._log.error("Function could not be started.", functionArn=arn, errorString=problem)
        self._log.info("Group is running.", group=group.arn or "(nothing deployed)")

    # --- what the control plane wants -------------------------------------------------------------------

    @property
    def record(self) -> Record:
        """What is going on."""
        return self._record

    @property
    def known(self) -> str:
        """The id of the deployment that need not be offered again; empty while an offer is missed."""
        if self.misses_offer:
            return ""
        current = self._record.current
        return current.id if current is not None and not current.is_local else self._record.last

    @property
    def misses_offer(self) -> bool:
        """Whether a deployment was being fetched when the core ended: what it was is with the control plane."""
        return self._record.state is State.FETCHING and self._fetching is None

    async def offer(self, offer: Offer) -> bool:
        """Take the newest deployment of the control plane, unless it is known; whether it was new. Returns when it is
        being fetched, or, of a reset, done. Waits for a deployment that is being applied."""
        offered = Deployment(*(_text(offer, name) for name in ("id", "type", "groupId", "versionId")))
        async with self._lock:
            found = offer_event(self._record, offered, _text(offer, "status"), _text(offer, "resetFirst"))
            if found is None:
                if not self.misses_offer or self._record.current != offered:
                    return False
                self._begin_fetching(offer, offered)
                return True
            event, deployment = found
            await self._stop_fetching()
            self._log.info("Deployment offered.", deploymentId=deployment.id, deploymentType=deployment.type)
            await self._advance(event, Facts(deployment))
            if self._record.state is State.FETCHING:
                self._begin_fetching(offer, deployment)
            elif self._record.state is State.RESETTING:
                await self._reset()
            return True

    async def withdrawn(self) -> None:
        """The control plane has nothing for this core."""
        async with self._lock:
            if self._record.state is State.FETCHING:
                await self._stop_fetching()
                await self._advance(Event.WITHDRAWN)

    async def next_report(self) -> Report:
        """The outcome that the control plane has to be told; waits for one."""
        while self._record.report is None:
            self._changed.clear()
            await self._changed.wait()
        return self._record.report

    async def acknowledged(self, report: Report) -> None:
        """The control plane knows this outcome."""
        async with self._lock:
            await self._advance(Event.ACKNOWLEDGED, Facts(report.deployment))

    # --- what a folder holds ----------------------------------------------------------------------------

    async def activate(self, staging: Path) -> Group:
        """Make a group staged from a folder the running one and return it.

        Raises DeploymentFailed with the cause; the previous group then serves as before. A deployment of the control
        plane that is being fetched is put aside: it is offered again afterwards.
        """
        async with self._lock:
            if self._record.state is State.RESETTING:
                raise DeploymentFailed(
                    "activate", "the core is being reset: try again when it is done", rolled_back=True
                )
            await self._stop_fetching()
            await self._advance(Event.STAGED, Facts(Deployment(uuid.uuid4().hex, LOCAL)))
            return await self._apply(staging)

    # --- fetching ---------------------------------------------------------------------------------------

    def _begin_fetching(self, offer: Offer, deployment: Deployment) -> None:
        self._fetched_into = self._staging / f"offer-{uuid.uuid4().hex}"
        self._fetching = asyncio.create_task(self._fetch_and_apply(offer, deployment, self._fetched_into))

    async def _stop_fetching(self) -> None:
        task, self._fetching = self._fetching, None
        if task is not None and self._fetched_into is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.to_thread(self._store.discard, self._fetched_into)

    async def _fetch_and_apply(self, offer: Offer, deployment: Deployment, staging: Path) -> None:
        failure = await self._fetched(offer, deployment, staging)
        async with self._lock:
            # Only the end of the core may cut it off from here on.
            self._fetching, self._applying = None, self._fetching
            if failure is not None:
                await self._advance(Event.FETCH_FAILED, Facts(message=failure))
                self._say_failed(deployment, failure)
                return
            await self._advance(Event.FETCHED)
            with contextlib.suppress(GgfastError):  # reported
                await self._apply(staging)

    async def _fetched(self, offer: Offer, deployment: Deployment, staging: Path) -> str | None:
        """None when everything is staged, or why it never will be."""
        pause = limits.DEPLOYMENT_RETRY_FIRST_S
        while True:
            try:
                await self._fetch(offer, staging.name)
                return None
            except LinkDown as error:
                self._log.warn("Deployment waits for the network.", deploymentId=deployment.id, reason=str(error))
            except GgfastError as error:
                await asyncio.to_thread(self._store.discard, staging)
                return str(error)
            except OSError as error:
                return f"unable to execute download step in deployment. error while downloading: {error}"
            await asyncio.sleep(pause)
            pause = min(2 * pause, limits.DEPLOYMENT_RETRY_MAX_S)

    # --- applying: the lock is held ---------------------------------------------------------------------

    async def _apply(self, staging: Path) -> Group:
        """From APPLYING to an outcome. Raises what failed, with the previous group serving."""
        deployment = self._record.current
        assert deployment is not None
        self._log.info("Deployment started.", deploymentId=deployment.id, deploymentType=deployment.type)
        try:
            group = await self._replace(staging)
        except GgfastError as error:
            await asyncio.to_thread(self._store.discard, staging)
            await self._advance(Event.APPLY_FAILED, Facts(message=str(error)))
            self._say_failed(deployment, str(error))
            raise
        await self._advance(Event.APPLIED)
        self._log.info("Deployment succeeded.", deploymentId=deployment.id, group=group.arn or "(nothing deployed)")
        return group

    async def _replace(self, staging: Path) -> Group:
        """Raises GgfastError with the previous group serving. Cancelled, it leaves the disk to the next start."""
        previous = self._applier.current
        await asyncio.to_thread(self._store.rollback)  # of one before that the disk refused to take back then
        group = await self._activate(staging, previous)
        try:
            await self._applier.apply(group, strict=self._strict)
            await asyncio.to_thread(self._store.confirm)
            await self._follow()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if not await self._restore(previous):
                self._log.error("The deployment is in place, but the disk complains.", errorString=str(error))
                return group
            if isinstance(error, DeploymentFailed):
                raise
            text = str(error) if isinstance(error, GgfastError) else f"the core failed: {error!r}"
            raise DeploymentFailed("apply", text, rolled_back=True) from error
        return group

    async def _activate(self, staging: Path, previous: Group) -> Group:
        """Put a staged group in place of the live one; no function starts from a package that is being moved. Raises
        GgfastError, and everything is as before."""
        group = await asyncio.to_thread(self._store.staged, staging)
        self._applier.hold(group)
        try:
            return await asyncio.to_thread(self._store.activate, staging)
        except GgfastError:
            await self._applier.restore(previous)  # what was held goes on
            raise

    async def _follow(self) -> Mapping[str, Any] | None:
        live = await asyncio.to_thread(self._store.live_deployment)
        if self._followed is not None:
            await self._followed(self._applier.current, live)
        return live

    async def _restore(self, previous: Group) -> bool:
        """Serve the previous group again, also where the disk refuses: the next start then repeats its part. False
        if the new one is confirmed already and stays."""
        try:
            if not await asyncio.to_thread(self._store.rollback):
                return False
        except GgfastError as error:
            self._log.error("The previous group could not be put back on disk.", errorString=str(error))
        for arn, problem in (await self._applier.restore(previous)).items():
            self._log.error("Function could not be started.", functionArn=arn, errorString=problem)
        return True

    # --- resetting: the lock is held --------------------------------------------------------------------

    async def _reset_later(self) -> None:
        async with self._lock:
            if self._record.state is State.RESETTING:
                await self._reset()

    async def _reset(self) -> None:
        """From RESETTING to an outcome; done as often as it takes, removing what is not there is no failure."""
        deployment = self._record.current
        assert deployment is not None
        try:
            staging = await self._cleaner.stage_nothing(deployment)
            await self._replace(staging)
            await self._cleaner.forget()
        except GgfastError as error:
            await self._advance(Event.RESET_FAILED, Facts(message=str(error)))
            self._say_failed(deployment, str(error))
            return
        await self._advance(Event.RESET)
        self._log.info("Deployments are reset.", deploymentId=deployment.id, deploymentType=deployment.type)

    # --- the record -------------------------------------------------------------------------------------

    async def _advance(self, event: Event, facts: Facts | None = None) -> None:
        record = advance(self._record, event, facts)
        if record == self._record:
            return
        try:
            await asyncio.to_thread(self._records.keep, record)
        except GgfastError as error:  # a crash now means that this is done once more
            self._log.error("The state of the deployment could not be kept.", errorString=str(error))
        self._record = record
        self._changed.set()

    def _load_record(self) -> Record:
        try:
            return self._records.load()
        except (StorageFailed, CorruptRecord) as error:
            self._log.error("What deployment was under way is not known.", errorString=str(error))
            return Record()

    def _say_failed(self, deployment: Deployment, detail: str) -> None:
        text = f"Deployment {deployment.id} of type {deployment.type} for group {deployment.group_id} failed error: "
        self._log.error(text + detail, deploymentId=deployment.id, status=FAILURE)


def _text(offer: Offer, name: str) -> str:
    """A member of an offer, empty where it is none. Raises Malformed for one that no id or word is: it goes into paths
    of requests, the log and the record."""
    found = offer.get(name, "")
    if not isinstance(found, str) or len(found) > limits.DEPLOYMENT_WORD_CHARACTERS_MAX or not found.isprintable():
        raise Malformed(f"{name} of an offered deployment: found {shown(found)}, expected a short text")
    return found
