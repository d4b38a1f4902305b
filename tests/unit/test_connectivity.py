"""Publishing the core's addresses: what, when, again and again while nobody answers, and not twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ggfast import limits
from ggfast.config import parse_config
from ggfast.core.connectivity import RECORD, Connectivity
from ggfast.errors import LinkDown, Rejected
from ggfast.net.addresses import Address
from tests.unit.http_support import run, until
from tests.unit.offline_support import FakeControlPlane, ReadableLog, SetClock

HOME = (Address("127.0.0.1", "lo"), Address("192.168.1.5", "eth0"), Address("172.17.0.1", "docker0"))
ELSEWHERE = (Address("127.0.0.1", "lo"), Address("10.0.0.7", "wlan0"), Address("fd00::7", "wlan0"))


class Machine:
    """A core's machine: its disk, its addresses, and the control plane it belongs to."""

    def __init__(self, root: Path, **own: Any) -> None:
        thing = {"thingArn": "arn:aws:iot:eu-west-1:123456789012:thing/gw", "ggMqttPort": 9000}
        document = {"coreThing": thing, "ggfast": {"local": True, **own}}
        self.config = parse_config(json.dumps(document).encode(), root)
        self.config.layout.state.mkdir(parents=True, exist_ok=True)
        self.addresses = HOME
        self.cloud = FakeControlPlane()
        self.cloud.failure = None
        self.log = ReadableLog()
        self.changes = 0

    @contextlib.asynccontextmanager
    async def running(self, *, detect: bool = True, local: bool = False) -> AsyncIterator[Connectivity]:
        loop, cloud = asyncio.get_running_loop(), None if local else self.cloud
        log: Any = self.log
        core = Connectivity(loop, cloud, self.config, SetClock(1.8e9), log, self.changed, lambda: self.addresses)
        core.configure(detect)
        await core.start()
        try:
            yield core
        finally:
            await core.stop()

    def changed(self) -> None:
        self.changes += 1
        raise RuntimeError("a renewal that fails must not end the watch")

    def move(self, core: Connectivity, addresses: tuple[Address, ...]) -> None:
        self.addresses = addresses
        core._watch.look()

    def record_is_there(self) -> bool:
        return (self.config.layout.state / RECORD).exists()

    def hosts(self) -> list[list[str]]:
        return [[entry["HostAddress"] for entry in entries] for entries in self.cloud.listed]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(limits, "ADDRESS_SETTLE_S", 0.01)
    monkeypatch.setattr(limits, "CONNECTIVITY_RETRY_S", 0.02)
    return Machine(tmp_path)


def test_row_43_and_58_addresses_are_published_with_the_local_port(machine: Machine) -> None:
    async def body() -> None:
        async with machine.running() as core:
            await until(lambda: machine.cloud.listed, "the first publication")
            entry = {"Id": "AUTOIP_192.168.1.5_1", "HostAddress": "192.168.1.5", "PortNumber": 9000, "Metadata": ""}
            assert machine.cloud.listed == [[entry]]
            assert {"localhost", "127.0.0.1", "192.168.1.5"} <= set(core.hosts())
            assert "172.17.0.1" not in core.hosts()
            machine.move(core, ELSEWHERE)
            await until(lambda: len(machine.cloud.listed) == 2, "the second publication")
            assert [entry["Id"] for entry in machine.cloud.listed[1]] == ["AUTOIP_10.0.0.7_1", "AUTOIP_fd00::7_2"]
            assert {"10.0.0.7", "fd00::7"} <= set(core.hosts())
            assert machine.changes == 1
            machine.move(core, (*ELSEWHERE, Address("172.18.0.1", "br-0123456789ab")))
            await core._watch._look()
            assert (machine.changes, core.status()["addresses"]) == (1, ["10.0.0.7", "fd00::7"])
            assert (len(machine.cloud.listed), core.status()["publishedAt"]) == (2, 1.8e9)

    run(body())


def test_row_59_without_the_detector_the_list_is_left_to_people(machine: Machine) -> None:
    async def body() -> None:
        async with machine.running(detect=False) as core:
            machine.move(core, ELSEWHERE)
            await until(lambda: machine.changes, "the change")
            assert "10.0.0.7" in core.hosts()  # the certificate names them all the same
            assert machine.cloud.attempts == 0
            core.configure(True)
            await until(lambda: machine.cloud.listed, "a publication once the group has the detector")
            core.configure(False)
            assert not (machine.config.layout.state / RECORD).exists()
            core.configure(True)  # somebody may have written a list meanwhile
            await until(lambda: len(machine.cloud.listed) == 2, "a publication when it is back")

    run(body())


def test_loopback_is_published_where_that_is_asked_for(machine: Machine, tmp_path: Path) -> None:
    both = Machine(tmp_path, detectLoopback=True, detectSkipInterfaces=[])

    async def body() -> None:
        async with both.running():
            await until(lambda: both.cloud.listed, "the publication")
        assert [entry["Id"] for entry in both.cloud.listed[0]] == [
            "AUTOIP_127.0.0.1_0",
            "AUTOIP_192.168.1.5_1",
            "AUTOIP_172.17.0.1_2",
        ]

    run(body())


def test_an_empty_list_replaces_nothing(machine: Machine) -> None:
    async def body() -> None:
        machine.addresses = (Address("127.0.0.1", "lo"), Address("172.17.0.1", "docker0"))
        async with machine.running() as core:
            await until(lambda: machine.log.said("No address that devices could use"), "the warning")
            machine.move(core, HOME)
            await until(lambda: machine.cloud.listed, "the publication")

    run(body())


def test_it_is_tried_until_somebody_answers_and_said_once(machine: Machine) -> None:
    async def body() -> None:
        machine.cloud.failure = LinkDown("nobody answers")
        async with machine.running() as core:
            await until(lambda: machine.cloud.attempts >= 3, "three attempts")
            machine.move(core, ELSEWHERE)
            await until(lambda: "10.0.0.7" in core.hosts(), "the new address")
            machine.cloud.failure = None
            await until(lambda: machine.cloud.listed, "the publication")
            assert machine.hosts() == [["10.0.0.7", "fd00::7"]]  # what is true now, not what was
        assert machine.log.said("could not be published") == 1

    run(body())


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (Rejected("not for you", reason_code=403), "greengrass:UpdateConnectivityInfo"),
        (Rejected("no such thing", reason_code=404), "no such thing"),
        (RuntimeError("a mistake"), "a mistake"),
    ],
)
def test_a_refusal_is_explained_and_tried_again_later(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, failure: Exception, text: str
) -> None:
    monkeypatch.setattr(limits, "CONNECTIVITY_REFUSED_S", 0.02)

    async def body() -> None:
        machine.cloud.failure = failure
        async with machine.running():
            await until(lambda: machine.cloud.attempts >= 2, "a second attempt")
            assert machine.log.said(text) == 1
            machine.cloud.failure = None
            await until(lambda: machine.cloud.listed, "the publication")

    run(body())


def test_a_restart_publishes_only_what_is_new(machine: Machine) -> None:
    async def body() -> None:
        for _ in range(2):
            async with machine.running() as core:
                await until(lambda: core.status()["publishedAt"] and machine.record_is_there(), "the record")
                await until(lambda: not core._due.is_set(), "the decision")
        assert machine.hosts() == [["192.168.1.5"]]
        machine.addresses = ELSEWHERE
        async with machine.running():
            await until(lambda: len(machine.cloud.listed) == 2, "the new address")

    run(body())


def test_what_was_replaced_while_the_core_was_away_is_published_anew(machine: Machine) -> None:
    async def body() -> None:
        async with machine.running():
            await until(machine.record_is_there, "the record")
        listed = machine.cloud.listed[0]
        async with machine.running() as core:
            core.told(listed)
            core.told([])  # later it is somebody's wish
            await until(lambda: not core._due.is_set(), "the decision")
        assert machine.cloud.attempts == 1
        async with machine.running() as core:
            core.told([{"Id": "mine", "HostAddress": "gw.example", "PortNumber": 8883, "Metadata": ""}])
            await until(lambda: len(machine.cloud.listed) == 2, "the list of the core again")

    run(body())


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"whom": 1, "entries": [1]}', b'{"whom": "somebody else"}'])
def test_a_damaged_record_costs_one_publication(machine: Machine, content: bytes) -> None:
    (machine.config.layout.state / RECORD).write_bytes(content)

    async def body() -> None:
        async with machine.running():
            await until(lambda: machine.cloud.listed, "the publication")

    run(body())


def test_a_state_directory_that_is_gone_costs_no_publication(machine: Machine) -> None:
    machine.config.layout.state.rmdir()

    async def body() -> None:
        async with machine.running():
            await until(lambda: machine.log.said("is not remembered"), "the warning")
        assert machine.hosts() == [["192.168.1.5"]]

    run(body())


def test_a_core_without_a_cloud_has_addresses_too(machine: Machine) -> None:
    async def body() -> None:
        async with machine.running(local=True) as core:
            machine.move(core, ELSEWHERE)
            await until(lambda: machine.changes, "the change")
            assert "fd00::7" in core.hosts()
        assert machine.cloud.attempts == 0
        waiting: Any = machine.log
        core = Connectivity(asyncio.get_running_loop(), None, machine.config, SetClock(0.0), waiting)
        assert "127.0.0.1" in core.hosts()  # before the start as well

    run(body())
