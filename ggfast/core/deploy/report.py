"""The deployment agent's contact with the control plane: hears of deployments and of trust, tells outcomes.

Two loops, each on a connection of its own: one waits for news, one tells what has been done. Both go on for ever, with
growing pauses while the control plane cannot be reached: a core may be offline for weeks (design P3).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ggfast import limits
from ggfast.core.deploy.agent import DeploymentAgent
from ggfast.core.deploy.machine import Report
from ggfast.errors import GgfastError, LinkDown, Rejected
from ggfast.log import SystemLog

if TYPE_CHECKING:
    from ggfast.core.controlplane import News

_NEVER_TAKEN = (400, 404)  # such a report will not be taken however often it is told


class Cloud(Protocol):
    """The part of core.controlplane.ControlPlane that is needed."""

    async def news(self, deployment: str, trust: str, wait_s: int) -> News: ...
    async def report(self, group_id: str, deployment_id: str, status: str, message: str) -> None: ...


class Trusted(Protocol):
    """What is known of the group's certificates; core.kept_trust.KeptTrust."""

    @property
    def version(self) -> str: ...
    async def take(self, found: Mapping[str, Any]) -> None: ...


class Contact:
    """See the module. `start` once, `stop` once; `online` says whether the last exchange went well."""

    def __init__(
        self,
        cloud: Cloud,
        agent: DeploymentAgent,
        trust: Trusted,
        log: SystemLog,
        *,
        pause_max_s: float,
        reached: Callable[[], None] = lambda: None,
    ) -> None:
        """`reached` is called when the control plane answers again: others may have waited for it too."""
        self.online = False
        self._reached = reached
        self._cloud = cloud
        self._agent = agent
        self._trust = trust
        self._log = log
        self._pause_max_s = pause_max_s
        self._said = ""
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin; returns at once."""
        self._tasks = [
            asyncio.create_task(self._for_ever(self._hear), name="news"),
            asyncio.create_task(self._for_ever(self._tell), name="reports"),
        ]

    async def stop(self) -> None:
        """End both loops."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _for_ever(self, turn: Callable[[], Awaitable[None]]) -> None:
        pause = limits.DEPLOYMENT_RETRY_FIRST_S
        while True:
            try:
                await turn()
            except GgfastError as error:
                self._say(error)
            except Exception as error:  # a defect of ours must not cut the core off for good
                self._log.error("The contact with the control plane failed.", reason=repr(error))
            else:
                pause = limits.DEPLOYMENT_RETRY_FIRST_S
                continue
            self.online = False
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # a site's cores must not all come at once
            pause = min(2 * pause, self._pause_max_s)

    async def _hear(self) -> None:
        agent = self._agent
        missing = agent.misses_offer
        # The first question waits for nothing: its answer says that the control plane is there.
        wait_s = limits.NEWS_WAIT_S if self.online and not missing else 0
        news = await self._cloud.news(agent.known, self._trust.version, wait_s)
        if not self.online:
            self.online, self._said = True, ""
            self._log.info("Deployment agent connected to cloud.")
            self._reached()
        if news.trust is not None:
            await self._trust.take(news.trust)
        if news.deployment is not None and await agent.offer(news.deployment):
            return
        if news.denied:
            raise Rejected(f"The control plane keeps news from this core: {news.denied}", reason_code=403)
        if news.deployment is not None:
            await asyncio.sleep(limits.DEPLOYMENT_RETRY_FIRST_S)  # it offers what is known: not as fast as it can
        elif missing:
            await agent.withdrawn()

    async def _tell(self) -> None:
        report = await self._agent.next_report()
        try:
            await self._report(report)
        except Rejected as error:
            if error.reason_code not in _NEVER_TAKEN:
                raise
            self._log.error("failed to report deployment status back to cloud", reason=str(error))
        await self._agent.acknowledged(report)

    async def _report(self, report: Report) -> None:
        deployment = report.deployment
        try:
            await self._cloud.report(deployment.group_id, deployment.id, report.status, report.message)
        except LinkDown as error:
            raise LinkDown(f"failed to report deployment status back to cloud: {error}") from error

    def _say(self, error: GgfastError) -> None:
        """Once until something else is wrong, or all was well in between."""
        if str(error) != self._said:
            self._said = str(error)
            self._log.warn("The control plane cannot be asked.", reason=str(error))
