"""What a waiting core is told, when, and what it costs; the order in which discovery gives addresses; events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from cloud_desk import ACCOUNT, REGION
from cloud_fleet import CORE, HOME, Fleet, deployed, desk_for, reset

from ggfast.cloud.devices.discovery import addresses_of
from ggfast.cloud.devices.identity import Identity, load
from ggfast.cloud.devices.news import News
from ggfast.cloud.devices.routing import Asked
from ggfast.cloud.devices.trust import trust_of
from ggfast.cloud.devices.waiting import Polls
from ggfast.cloud.events import CoreChanged
from ggfast.cloud.operations import Reply
from ggfast.cloud.protocols import Request
from tests.patience import patience

ALLOWED = {"Effect": "Allow", "Action": "greengrass:*", "Resource": "*"}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(desk_for(tmp_path))
    yield made
    made.desk.close()


class Core:
    """The fleet's core, which remembers what it was told."""

    def __init__(self, fleet: Fleet, *statements: dict[str, Any]) -> None:
        self.fleet, self.desk = fleet, fleet.desk
        self.polls = Polls()
        self.desk.store.listen(self.polls.hear)
        self.news = News(self.desk.cloud, self.desk.store, self.polls)
        text = json.dumps({"Version": "2012-10-17", "Statement": list(statements or (ALLOWED,))})
        self.desk.call("CreatePolicy", service="iot", policyName="core", policyDocument=text)
        self.desk.call("AttachPolicy", service="iot", policyName="core", target=fleet.core["CertificateArn"])
        self.certificate_id = str(fleet.core["CertificateArn"]).rpartition("/")[2]
        self.deployment = self.trust = ""
        self.told: dict[str, Any] = {}

    async def _identity(self, certificate_id: str) -> Identity:
        found = await self.desk.store.read(lambda tx: load(tx, certificate_id))
        assert found is not None
        return found

    async def _ask(self, wait: int) -> Reply:
        query = urlencode({"deployment": self.deployment, "trust": self.trust, "wait": wait})
        request = Request("GET", f"/greengrass/things/{CORE}/news", query, {}, b"")
        identity = await self._identity(self.certificate_id)
        return await self.news.news(Asked(identity, request, {"ThingName": CORE}, self._identity))

    def _remember(self, reply: Reply) -> dict[str, Any]:
        if reply.status == 204:
            return {}
        assert reply.raw is not None
        found: dict[str, Any] = json.loads(reply.raw)
        self.deployment = found.get("deployment", {}).get("id", self.deployment)
        self.trust = found.get("trust", {}).get("version", self.trust)
        self.told |= found
        return found

    def ask(self) -> dict[str, Any]:
        """What it is told at once; {} for nothing."""
        return self._remember(self.desk.runner.run(self._ask(0)))

    def wait(self) -> asyncio.Task[Reply]:
        """Begin to wait."""

        async def begin() -> asyncio.Task[Reply]:
            task = asyncio.create_task(self._ask(50))
            while not self.polls.count:
                assert not task.done(), task.result()
                await asyncio.sleep(0.001)
            return task

        return self.desk.runner.run(begin())

    def woken(self, task: asyncio.Task[Reply]) -> dict[str, Any]:
        """What it is told that waits."""

        async def end() -> Reply:
            return await asyncio.wait_for(task, patience(5))

        return self._remember(self.desk.runner.run(end()))

    def hears(self, operation: str, /, **members: Any) -> dict[str, Any]:
        """What it is told that waits while somebody else does something."""
        task = self.wait()
        self.desk.call(operation, **members)
        return self.woken(task)


def status(fleet: Fleet, device: dict[str, Any], new: str) -> None:
    fleet.desk.call("UpdateCertificate", certificateId=identifier(device), newStatus=new)


def identifier(device: dict[str, Any]) -> str:
    return str(device["CertificateArn"]).rpartition("/")[2]


# --- what is told ----------------------------------------------------------------------------------------


def test_a_core_is_told_what_it_does_not_know_and_nothing_twice(fleet: Fleet) -> None:
    core = Core(fleet)
    first = core.ask()
    assert "deployment" not in first
    trust = first["trust"]
    assert trust["groupId"] == "" and trust["authorities"] == trust["endedCertificates"] == trust["connectivity"] == []
    assert set(trust) == {
        *("version", "groupId", "endedCertificates", "authorities", "certificateSeconds", "connectivity", "delegation")
    }
    assert core.ask() == {}
    group = fleet.group(Functions=[fleet.function("hello")])
    started = fleet.deploy(group)
    second = core.ask()
    assert second["deployment"] == fleet.fetched()
    assert second["deployment"]["id"] == started["DeploymentId"]
    assert second["trust"]["groupId"] == group["GroupId"] and len(second["trust"]["authorities"]) == 1
    assert core.ask() == {}
    fleet.core_says(started, "Success")
    assert core.ask() == {}, "it has said so itself"
    core.deployment = ""
    assert set(core.ask()) == {"deployment"}
    core.trust = "old"
    assert set(core.ask()) == {"trust"}


def test_a_waiting_core_hears_of_whatever_it_depends_on(fleet: Fleet) -> None:
    core, lamp = Core(fleet), fleet.thing("lamp")
    group = deployed(fleet, Devices=[lamp])
    core.ask()
    one = {"GroupId": group["GroupId"]}
    before = core.told["trust"]["authorities"]
    assert core.hears("CreateGroupCertificateAuthority", **one)["trust"]["authorities"][1:] == before
    thirty = 30 * 86_400
    said = core.hears("UpdateGroupCertificateConfiguration", **one, CertificateExpiryInMilliseconds=thirty * 1_000)
    assert said["trust"]["certificateSeconds"] == thirty
    entries = [{"HostAddress": "10.0.0.7", "Id": "lan", "PortNumber": 8883}]
    said = core.hears("UpdateConnectivityInfo", ThingName=CORE, ConnectivityInfo=entries)
    assert said["trust"]["connectivity"] == [entries[0] | {"Metadata": ""}]
    said = core.hears("UpdateCertificate", certificateId=identifier(lamp), newStatus="REVOKED")
    assert said["trust"]["endedCertificates"] == [identifier(lamp)]
    said = core.hears("UpdateCertificate", certificateId=identifier(lamp), newStatus="ACTIVE")
    assert said["trust"]["endedCertificates"] == []
    again = core.hears("CreateDeployment", DeploymentType="NewDeployment", **group)
    assert set(again) == {"deployment"}


def test_who_is_not_concerned_waits_on(fleet: Fleet) -> None:
    core, lamp, stranger = Core(fleet), fleet.thing("lamp"), fleet.thing("stranger")
    deployed(fleet, Devices=[lamp])
    core.ask()
    looks = 0

    original = core.news._look

    def look(*arguments: Any) -> Any:
        nonlocal looks
        looks += 1
        return original(*arguments)

    core.news._look = look  # type: ignore[method-assign]
    task = core.wait()
    status(fleet, stranger, "REVOKED")
    other = fleet.desk.call("CreateGroup", Name="other")["Id"]
    fleet.desk.call("CreateGroupCertificateAuthority", GroupId=other)
    fleet.desk.call("UpdateConnectivityInfo", ThingName="else", ConnectivityInfo=[])
    assert not task.done() and looks == 1
    status(fleet, lamp, "INACTIVE")
    assert core.woken(task)["trust"]["endedCertificates"] == [identifier(lamp)]
    assert looks == 2


def test_what_policies_keep_from_a_core_is_said_beside_and_not_again_and_again(fleet: Fleet) -> None:
    core = Core(fleet, ALLOWED | {"Action": "greengrass:GetConnectivityInfo"})
    group = fleet.group()
    started = fleet.deploy(group)
    first = core.ask()
    arn = f"arn:aws:greengrass:{REGION}:{ACCOUNT}:/greengrass/groups/{group['GroupId']}/deployments/"
    assert set(first) == {"trust", "denied"}
    assert f"greengrass:GetDeployment on resource: {arn}{started['DeploymentId']}" in first["denied"]
    assert core.ask() == {"denied": first["denied"]}
    task = core.wait()  # it does not come back at once
    entries = [{"HostAddress": "10.0.0.7", "Id": "lan", "PortNumber": 8883}]
    fleet.desk.call("UpdateConnectivityInfo", ThingName=CORE, ConnectivityInfo=entries)
    assert core.woken(task)["trust"]["connectivity"]
    task = core.wait()
    fleet.core_says(started, "Failure", "for a test")
    fleet.deploy(group)
    assert "greengrass:GetDeployment" in core.woken(task)["denied"]


def test_trust_has_its_own_permission(fleet: Fleet) -> None:
    core = Core(fleet, ALLOWED | {"Action": "greengrass:GetDeployment"})
    fleet.deploy(fleet.group())
    found = core.ask()
    assert set(found) == {"deployment", "denied"}
    assert f"GetConnectivityInfo on resource: arn:aws:greengrass:{REGION}:{ACCOUNT}:" in found["denied"]
    assert found["denied"].endswith(f"/greengrass/things/{CORE}/connectivityInfo")


# --- which certificates have ended -----------------------------------------------------------------------


def ended(fleet: Fleet) -> list[str]:
    found: list[str] = fleet.desk.look(lambda tx: trust_of(tx, fleet.desk.cloud, HOME, CORE))["endedCertificates"]
    return found


def test_certificates_end_by_status_detaching_and_deletion_and_come_back(fleet: Fleet) -> None:
    lamp, door = fleet.thing("lamp"), fleet.thing("door")
    status(fleet, door, "INACTIVE")
    deployed(fleet, Devices=[lamp, door])
    assert ended(fleet) == [identifier(door)]
    status(fleet, door, "ACTIVE")
    assert ended(fleet) == []
    principal = {"thingName": "lamp", "principal": lamp["CertificateArn"]}
    fleet.desk.call("DetachThingPrincipal", **principal)
    assert ended(fleet) == [identifier(lamp)]
    status(fleet, lamp, "REVOKED")
    status(fleet, lamp, "ACTIVE")
    assert ended(fleet) == [identifier(lamp)], "it is its thing's no longer"
    fleet.desk.call("AttachThingPrincipal", **principal)
    assert ended(fleet) == []
    fleet.desk.call("DetachThingPrincipal", **principal)
    status(fleet, lamp, "INACTIVE")
    fleet.desk.call("DeleteCertificate", certificateId=identifier(lamp), forceDelete=True)
    assert ended(fleet) == [identifier(lamp)]


def test_a_certificate_that_was_never_attached_is_good(fleet: Fleet) -> None:
    lamp = fleet.thing("lamp")
    principal = {"thingName": "lamp", "principal": lamp["CertificateArn"]}
    fleet.desk.call("DetachThingPrincipal", **principal)
    deployed(fleet, Devices=[lamp])
    assert ended(fleet) == []
    status(fleet, lamp, "REVOKED")
    assert ended(fleet) == [identifier(lamp)]


def test_until_a_deployment_is_done_certificates_of_both_versions_count(fleet: Fleet) -> None:
    lamp, door = fleet.thing("lamp"), fleet.thing("door")
    group = deployed(fleet, Devices=[lamp])
    later = {"GroupId": group["GroupId"], "GroupVersionId": fleet.version(group["GroupId"], Devices=[door])}
    status(fleet, lamp, "REVOKED")
    status(fleet, door, "INACTIVE")
    both = sorted([identifier(lamp), identifier(door)])
    started = fleet.deploy(later)
    assert ended(fleet) == both
    fleet.core_says(started, "Failure", "for a test")
    assert ended(fleet) == [identifier(lamp)], "the core goes on with the first version"
    started = fleet.deploy(later)
    assert ended(fleet) == both
    fleet.core_says(started, "Success")
    assert ended(fleet) == [identifier(door)]
    undone = reset(fleet, group)
    assert ended(fleet) == [identifier(door)], "it runs until the core has reset itself"
    fleet.core_says(undone, "Success")
    assert ended(fleet) == []


def test_a_core_keeps_its_group_until_it_runs_another_one(fleet: Fleet) -> None:
    def group_now(thing: str = CORE) -> str:
        return str(fleet.desk.look(lambda tx: trust_of(tx, fleet.desk.cloud, HOME, thing))["groupId"])

    first, second = deployed(fleet)["GroupId"], fleet.group("second")
    started = fleet.deploy(second)
    assert group_now() == first
    fleet.core_says(started, "Failure", "for a test")
    assert group_now() == first
    fleet.core_says(fleet.deploy(second), "Success")
    assert group_now() == second["GroupId"]
    replacement = fleet.thing("core2")
    fleet.desk.events.clear()
    moved = {"GroupId": second["GroupId"], "GroupVersionId": fleet.version(second["GroupId"], Cores=[replacement])}
    fleet.deploy(moved)
    assert (group_now(), group_now("core2")) == ("", second["GroupId"])
    assert CoreChanged(REGION, CORE) in fleet.desk.events
    reset(fleet, second, Force=True)
    assert group_now("core2") == ""


def test_a_deleted_group_is_no_cores(fleet: Fleet) -> None:
    group = deployed(fleet)
    reset(fleet, group)
    fleet.desk.call("DeleteGroup", GroupId=group["GroupId"])
    trust = fleet.desk.look(lambda tx: trust_of(tx, fleet.desk.cloud, HOME, CORE))
    assert trust["groupId"] == "" and trust["authorities"] == []


def test_a_core_with_many_devices_costs_a_poll_no_more_than_one_with_few(fleet: Fleet) -> None:
    """Counted in statements of the store, so that it holds on any machine."""

    def statements() -> int:
        def work(tx: Any) -> int:
            seen: list[str] = []
            tx._connection.set_trace_callback(seen.append)
            try:
                trust_of(tx, fleet.desk.cloud, HOME, CORE)
            finally:
                tx._connection.set_trace_callback(None)
            return len(seen)

        return fleet.desk.look(work)

    deployed(fleet, Devices=[fleet.thing("d0")])
    few = statements()
    deployed(fleet, name="many", Devices=[fleet.thing(f"e{number}") for number in range(30)])
    assert statements() == few <= 12


# --- addresses -------------------------------------------------------------------------------------------


def told(fleet: Fleet, *entries: tuple[str, str]) -> list[str]:
    """The hosts as discovery has them; each entry is an id and a host."""
    body = [{"Id": name, "HostAddress": host} for name, host in entries]
    fleet.desk.call("UpdateConnectivityInfo", ThingName=CORE, ConnectivityInfo=body)
    return [entry["HostAddress"] for entry in fleet.desk.look(lambda tx: addresses_of(tx, HOME, CORE))]


def found(*hosts: str) -> list[tuple[str, str]]:
    return [(f"AUTOIP_{host}_{number}", host) for number, host in enumerate(hosts)]


def test_detected_addresses_come_in_the_order_of_their_use(fleet: Fleet) -> None:
    wanted = ["192.168.1.5", "fd00::5", "8.8.8.8", "2606:4700::1", "core.example", "169.254.1.1", "fe80::1%eth0"]
    wanted += ["127.0.0.1", "::1", "localhost", "0.0.0.0"]
    hosts = told(fleet, *found(*reversed(wanted)))
    assert hosts[:5] == wanted[:5]
    assert set(hosts[5:7]) == set(wanted[5:7]) and set(hosts[7:]) == set(wanted[7:])


def test_of_detected_addresses_of_one_kind_the_newest_comes_first(fleet: Fleet) -> None:
    told(fleet, *found("10.0.0.1", "8.8.8.8"))
    fleet.desk.clock.now += 60
    assert told(fleet, *found("10.0.0.1", "10.0.0.2", "8.8.8.8")) == ["10.0.0.2", "10.0.0.1", "8.8.8.8"]
    fleet.desk.clock.now += 60
    assert told(fleet, *found("10.0.0.1", "10.0.0.2", "1.1.1.1")) == ["10.0.0.2", "10.0.0.1", "1.1.1.1"]


def test_what_was_entered_by_hand_keeps_its_order_before_what_was_detected(fleet: Fleet) -> None:
    entries = [*found("10.0.0.1"), ("b", "core.example"), ("lo", "127.0.0.1"), ("a", "8.8.8.8")]
    assert told(fleet, *entries) == ["core.example", "8.8.8.8", "10.0.0.1", "127.0.0.1"]
