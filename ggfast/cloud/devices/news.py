"""What a core waits for: its deployments, and what its devices depend on without one.

    GET /greengrass/things/<thing>/news?deployment=<id>&trust=<version>&wait=<seconds>
    GET /greengrass/things/<thing>/deployment?after=<id>&wait=<seconds>                   deployments alone

They need greengrass:GetDeployment on the deployment, and greengrass:GetConnectivityInfo on the core's addresses.

The query names what the core knows, nothing if it knows none. 200: `deployment` (see `reports.latest_for_core`) and
`trust` (see `trust.trust_of`), each if it is another one; `denied` says which part the policies keep from the core.
204: nothing else than it knows. The form is our own; actions and resources are V1's (greengrass-core 10.4).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import orjson

from ggfast.cloud.deploy import reports
from ggfast.cloud.devices.routing import Asked, Routes
from ggfast.cloud.devices.trust import trust_of
from ggfast.cloud.devices.waiting import Polls, seconds_to_wait
from ggfast.cloud.faults import Fault
from ggfast.cloud.operations import Reply
from ggfast.cloud.store.interface import Store, Transaction
from ggfast.cloud.surroundings import Surroundings

Json = dict[str, Any]


@dataclass(slots=True)
class _Found:
    """One look: what the core does not know, and why it does not get all of it."""

    members: Json = field(default_factory=dict)
    denials: list[str] = field(default_factory=list)

    @property
    def denied(self) -> str:
        return "; ".join(self.denials)


class News:
    """The handlers; `add_to` makes their paths known."""

    def __init__(self, cloud: Surroundings, store: Store, polls: Polls) -> None:
        self._cloud = cloud
        self._store = store
        self._polls = polls

    def add_to(self, routes: Routes) -> None:
        """See the module."""
        routes.add("GET /greengrass/things/{ThingName}/news", self.news)
        routes.add("GET /greengrass/things/{ThingName}/deployment", self.deployment)

    async def news(self, asked: Asked) -> Reply:
        """Whatever the core does not know; waits for it."""
        thing = asked.params["ThingName"]
        looks: list[_Found] = []

        async def look(asked: Asked) -> Reply | None:
            found = await self._store.read(lambda tx: self._look(tx, asked, thing))
            looks.append(found)
            # What was denied from the beginning is no news, or the core would ask again and again.
            if not found.members and found.denied in ("", looks[0].denied):
                return None
            return Reply(raw=await asyncio.to_thread(_written, found))

        reply = await self._polls.until(asked, thing, seconds_to_wait(asked), look)
        if reply is not None:
            return reply
        return Reply(raw=_written(looks[-1])) if looks[-1].denied else Reply(status=204)

    async def deployment(self, asked: Asked) -> Reply:
        """The newest deployment of a core that is not `after`; waits for it. 204: there is none."""
        thing = asked.params["ThingName"]

        async def look(asked: Asked) -> Reply | None:
            found = _Found()
            await self._store.read(lambda tx: self._add_deployment(tx, asked, thing, asked.query("after"), found))
            if found.denied:
                raise Fault("AccessDeniedException", found.denied, status=403)
            if not found.members:
                return None
            return Reply(raw=await asyncio.to_thread(orjson.dumps, found.members["deployment"]))

        return await self._polls.until(asked, thing, seconds_to_wait(asked), look) or Reply(status=204)

    def _look(self, tx: Transaction, asked: Asked, thing: str) -> _Found:
        found = _Found()
        self._add_deployment(tx, asked, thing, asked.query("deployment"), found)
        resource = f"/greengrass/things/{thing}/connectivityInfo"
        if _is_denied(asked, "greengrass:GetConnectivityInfo", resource, found):
            return found
        trust = trust_of(tx, self._cloud, asked.identity.home, thing)
        if trust["version"] != asked.query("trust"):
            found.members["trust"] = trust
        return found

    def _add_deployment(self, tx: Transaction, asked: Asked, thing: str, known: str, found: _Found) -> None:
        """The document may be megabytes: it is read for a core that does not have it and may, and for nobody else."""
        home = asked.identity.home
        group, deployment = reports.name_of_latest(tx, home, thing)
        if deployment in ("", known):
            return
        resource = f"/greengrass/groups/{group}/deployments/{deployment}"
        if _is_denied(asked, "greengrass:GetDeployment", resource, found):
            return
        latest = reports.latest_for_core(tx, home, thing)
        if latest is not None:
            found.members["deployment"] = latest


def _is_denied(asked: Asked, action: str, resource: str, found: _Found) -> bool:
    try:
        asked.require(action, asked.identity.arn_of("greengrass", resource))
    except Fault as fault:
        found.denials.append(fault.message)
        return True
    return False


def _written(found: _Found) -> bytes:
    return orjson.dumps(found.members | ({"denied": found.denied} if found.denied else {}))
