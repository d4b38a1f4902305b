"""What a core may report and wait for, and which connections give way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
from aiohttp.web_protocol import RequestHandler
from cloud_desk import ACCOUNT, REGION
from cloud_fleet import CORE, HOME, Fleet, certificate, desk_for

from ggfast.cloud.devices import https
from ggfast.cloud.devices.cores import Cores
from ggfast.cloud.devices.identity import Identity, load
from ggfast.cloud.devices.news import News
from ggfast.cloud.devices.routing import Asked
from ggfast.cloud.devices.waiting import Polls
from ggfast.cloud.events import CertificateEnded
from ggfast.cloud.faults import Fault
from ggfast.cloud.protocols import Request


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    desk = desk_for(tmp_path)
    made = Fleet(desk)
    text = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "greengrass:*", "Resource": "*"}]}
    desk.call("CreatePolicy", service="iot", policyName="core", policyDocument=json.dumps(text))
    desk.call("AttachPolicy", service="iot", policyName="core", target=made.core["CertificateArn"])
    yield made
    desk.close()


class Core:
    """Requests of the fleet's core."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.polls = Polls()
        self.cores = Cores(fleet.desk.cloud, fleet.desk.store)
        self.news = News(fleet.desk.cloud, fleet.desk.store, self.polls)
        self.certificate_id = str(fleet.core["CertificateArn"]).rpartition("/")[2]

    async def identity(self, certificate_id: str) -> Identity:
        found = await self.fleet.desk.store.read(lambda tx: load(tx, certificate_id))
        assert found is not None
        return found

    async def asked(self, path: str, body: Any = None, query: str = "", **params: str) -> Asked:
        raw = b"" if body is None else json.dumps(body).encode()
        identity = await self.identity(self.certificate_id)
        return Asked(identity, Request("PUT", path, query, {}, raw), params, self.identity)

    async def report(self, group: str, deployment: str) -> None:
        arn = f"arn:aws:iot:{REGION}:{ACCOUNT}:thing/{CORE}"
        path = f"/greengrass/groups/{group}/deployments/{deployment}/cores/{quote(arn, safe='')}/status"
        asked = await self.asked(
            path, {"DeploymentStatus": "Success"}, GroupId=group, DeploymentId=deployment, CoreArn=arn
        )
        await self.cores.report(asked)


def test_a_core_reports_a_deployment_by_its_own_group_alone(fleet: Fleet) -> None:
    core, other = Core(fleet), fleet.group("other")
    started = fleet.deploy(fleet.group())
    with pytest.raises(Fault, match=f"The group {other['GroupId']} has no deployment"):
        fleet.desk.runner.run(core.report(other["GroupId"], started["DeploymentId"]))
    assert fleet.status(started)["DeploymentStatus"] == "InProgress"
    fleet.desk.runner.run(core.report(started["GroupId"], started["DeploymentId"]))
    assert fleet.status(started)["DeploymentStatus"] == "Success"


def test_who_waits_is_turned_away_when_its_certificate_is_now_another_regions(fleet: Fleet) -> None:
    core, started = Core(fleet), fleet.deploy(fleet.group())
    desk = fleet.desk
    register = {"certificatePem": certificate(CORE), "status": "ACTIVE", "region": "us-east-1"}
    desk.call("RegisterCertificateWithoutCA", service="iot", **register)

    async def begin() -> asyncio.Task[Any]:
        asked = await core.asked("/", query=f"after={started['DeploymentId']}&wait=50", ThingName=CORE)
        task = asyncio.create_task(core.news.deployment(asked))
        while not core.polls.count:
            await asyncio.sleep(0.002)
        return task

    waiting = desk.runner.run(begin())
    desk.call("UpdateCertificate", service="iot", certificateId=core.certificate_id, newStatus="INACTIVE")

    async def after() -> None:
        assert (await core.identity(core.certificate_id)).home != HOME
        core.polls.hear(CertificateEnded(core.certificate_id))
        with pytest.raises(Fault, match="now another region's"):
            await waiting

    desk.runner.run(after())


class Place:
    """A connection, for its server and its transport."""

    def __init__(self) -> None:
        self.aborted = False
        self._task_handler = None

    def abort(self) -> None:
        self.aborted = True


def test_past_the_bound_the_oldest_connection_without_a_good_certificate_gives_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(https, "DEVICE_CONNECTIONS_MAX", 3)
    places = [Place() for _ in range(6)]

    async def scenario() -> None:
        async def handler(_request: object) -> Any:
            raise AssertionError("nobody asks here")

        server = https._Server(handler)

        def arrive(place: Place) -> RequestHandler:
            found = cast(RequestHandler, place)
            server.connection_made(found, cast(asyncio.Transport, place))
            return found

        first, _, third = (arrive(place) for place in places[:3])
        server.known(first)
        server.connection_lost(third)
        for place in places[3:5]:
            arrive(place)
        assert [place.aborted for place in places] == [False, True, False, False, False, False]
        server.connection_lost(cast(RequestHandler, places[1]))
        for place in (places[0], *places[3:5]):
            server.known(cast(RequestHandler, place))
        arrive(places[5])
        assert places[5].aborted, "all others are devices"

    asyncio.run(scenario())
