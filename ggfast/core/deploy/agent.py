"""The deployment agent: a staged group becomes the running one, or the previous group stays.

    activate on disk (journaled) ─► apply to the running parts ─► watch new functions start ─► confirm
                                         │ anything fails                    │
                                         └──────► previous group on disk and in the parts ◄──┘

One deployment at a time. Whatever happens, a restart finds one whole group on disk (core/deploy/store.py).
Sources: greengrass-core 12.2, 12.3 (report text); design P4.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from ggfast import limits
from ggfast.core.deploy.apply import GroupApplier, failure_of
from ggfast.core.deploy.store import Recovery, Store
from ggfast.core.functions.manager import FunctionManager
from ggfast.errors import DeploymentFailed, GgfastError
from ggfast.group.document import Group
from ggfast.log import SystemLog


class DeploymentAgent:
    """Activates staged groups. Every method may be called from any task; deployments queue behind a lock."""

    def __init__(self, store: Store, applier: GroupApplier, functions: FunctionManager, log: SystemLog) -> None:
        self._store = store
        self._applier = applier
        self._functions = functions
        self._log = log
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Bring up what is on disk. A group that cannot run here is reported; the core runs without it."""
        async with self._lock:
            try:
                recovery = self._store.recover()
                if recovery is Recovery.ROLLED_BACK:
                    self._log.warn("A deployment was cut off: the group before it is back.")
                group = self._store.load_active()
                problems = await self._applier.start(group)
            except (GgfastError, OSError) as error:
                self._log.error("Unable to create server due to: failed to load group.", errorString=str(error))
                await self._applier.start(Group())
                return
            for arn, problem in problems.items():
                self._log.error("Function could not be started.", functionArn=arn, errorString=problem)
            self._log.info("Group is running.", group=group.arn or "(nothing deployed)")

    async def activate(self, staging: Path) -> Group:
        """Make the staged group the running one and return it.

        Raises DeploymentFailed with the cause; the previous group then serves as before.
        """
        async with self._lock:
            previous = self._applier.current
            self._log.info("Deployment started.", staging=staging.name)
            try:
                group = await self._replace(staging, previous)
            except GgfastError as error:
                self._log.error("Deployment failed.", errorString=str(error))
                self._store.discard(staging)
                raise
            self._log.info("Deployment succeeded.", group=group.arn)
            return group

    async def _replace(self, staging: Path, previous: Group) -> Group:
        group = self._store.activate(staging)
        try:
            problems = await self._applier.apply(group)
            fresh = _fresh_functions(previous, group)
            problems |= await self._functions.watch_start(fresh, limits.DEPLOYMENT_WATCH_S)
            if problems:
                raise failure_of({arn: problems[arn] for arn in problems if arn in fresh} or problems)
            self._store.confirm()
        except BaseException as error:
            rolled_back = await self._restore(previous)
            if isinstance(error, DeploymentFailed) or not isinstance(error, GgfastError):
                raise
            raise DeploymentFailed("apply", str(error), rolled_back=rolled_back) from error
        return group

    async def _restore(self, previous: Group) -> bool:
        """Serve the previous group again, also where the disk refuses: the next start then repeats its part. False
        if the new one is confirmed already and stays."""
        try:
            if not self._store.rollback():
                return False
        except GgfastError as error:
            self._log.error("The previous group could not be put back on disk.", errorString=str(error))
        for arn, problem in (await self._applier.restore(previous)).items():
            self._log.error("Function could not be started.", functionArn=arn, errorString=problem)
        return True


def _fresh_functions(previous: Group, group: Group) -> set[str]:
    """ARNs of pinned functions that a deployment starts: new ones and changed ones."""
    known = {function.arn: function for function in previous.user_functions}
    return {
        function.arn
        for function in group.user_functions
        if function.configuration.pinned and known.get(function.arn) != function
    }
