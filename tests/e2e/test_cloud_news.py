"""A waiting core hears within a second of what concerns it, by real certificates; events about deployments."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.e2e.cloud_device import EVERYTHING, Device
from tests.e2e.cloud_process import CloudProcess
from tests.patience import patience

WAIT_S = 50
HEARD_S = patience(1.0)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudProcess]:
    with CloudProcess(tmp_path_factory.mktemp("news") / "cloud") as running:
        yield running


class Listener:
    """A core that waits for news on a thread of its own, again after each answer."""

    def __init__(self, core: Device) -> None:
        self.core = core
        self.deployment = self.trust = ""
        self.heard: queue.Queue[tuple[float, dict[str, Any]]] = queue.Queue()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while not self._end.is_set():
            query = urlencode({"deployment": self.deployment, "trust": self.trust, "wait": WAIT_S})
            answer = self.core.http("GET", f"/greengrass/things/{self.core.thing}/news?{query}")
            if answer.status != 200:
                self.heard.put((time.monotonic(), {"status": answer.status}))
                return
            found = answer.json
            self.deployment = found.get("deployment", {}).get("id", self.deployment)
            self.trust = found.get("trust", {}).get("version", self.trust)
            self.heard.put((time.monotonic(), found))

    def next(self, member: str, since: float) -> Any:
        """What it hears next of that kind: HEARD_S after `since` at the latest."""
        for _ in range(20):
            at, found = self.heard.get(timeout=patience(10))
            if member in found:
                assert at - since < HEARD_S, f"heard of {member} after {at - since:.2f} s"
                return found[member]
        raise AssertionError(f"nothing was heard of {member}")

    def close(self, client: Any) -> None:
        """Its certificate ends, and so does it."""
        self._end.set()
        client.update_certificate(certificateId=self.core.certificate_id, newStatus="INACTIVE")
        self._thread.join(patience(10))
        assert not self._thread.is_alive()


def test_a_waiting_core_hears_of_deployments_and_of_what_changes_without_one(cloud: CloudProcess) -> None:
    greengrass, iot = cloud.client("greengrass"), cloud.client("iot")
    core, lamp, watcher = (Device.make(cloud, name) for name in ("gateway", "lamp", "watcher"))
    group, version = make_group(core, lamp)
    listener = Listener(core)
    try:
        assert listener.next("trust", time.monotonic())["groupId"] == ""
        with watcher.mqtt() as watching:
            assert watching.subscribe("$aws/events/greengrass/deployments/+") == [1]
            at = time.monotonic()
            made = greengrass.create_deployment(GroupId=group, GroupVersionId=version, DeploymentType="NewDeployment")
            deployment = listener.next("deployment", at)
            assert deployment["id"] == made["DeploymentId"] and deployment["document"]["Devices"]
            report(core, group, made["DeploymentId"])
            events = [watching.take() for _ in range(3)]
        assert {topic for topic, _ in events} == {f"$aws/events/greengrass/deployments/{group}"}
        assert [json.loads(payload)["detail"]["status"] for _, payload in events] == [
            *("Building", "InProgress", "Success")
        ]
        hears_of_changes(listener, greengrass, iot, group, lamp)
    finally:
        listener.close(iot)
    assert listener.heard.get(timeout=patience(10))[1] == {"status": 401}, "a core that is revoked hears that"
    lines = [json.loads(line) for line in (cloud.folder / "logs" / "events.log").read_text().splitlines()]
    assert lines[:3] == [json.loads(payload) for _, payload in events]


def hears_of_changes(listener: Listener, greengrass: Any, iot: Any, group: str, lamp: Device) -> None:
    """While the core waits: a revocation and its end, an address, a new authority, another life of certificates."""
    while not listener.heard.empty():
        listener.heard.get()
    for status, ended in (("REVOKED", [lamp.certificate_id]), ("ACTIVE", [])):
        at = time.monotonic()
        iot.update_certificate(certificateId=lamp.certificate_id, newStatus=status)
        assert listener.next("trust", at)["endedCertificates"] == ended
    at = time.monotonic()
    entries = [{"HostAddress": "10.0.0.7", "Id": "lan", "PortNumber": 8883, "Metadata": ""}]
    greengrass.update_connectivity_info(ThingName=listener.core.thing, ConnectivityInfo=entries)
    assert listener.next("trust", at)["connectivity"] == entries
    at = time.monotonic()
    greengrass.update_group_certificate_configuration(GroupId=group, CertificateExpiryInMilliseconds="864000000")
    trust = listener.next("trust", at)
    assert trust["certificateSeconds"] == 864_000
    greengrass.create_group_certificate_authority(GroupId=group)
    after = listener.next("trust", time.monotonic())
    assert after["authorities"][1:] == trust["authorities"] and len(after["authorities"]) == 2
    discovered = lamp.http("GET", "/greengrass/discover/thing/lamp").json["GGGroups"][0]
    assert discovered["CAs"] == after["authorities"]
    assert discovered["Cores"][0]["Connectivity"] == entries


def test_row_27_no_event_is_lost_when_the_control_plane_is_killed(tmp_path: Path) -> None:
    with CloudProcess(tmp_path / "cloud") as cloud:
        group, version = make_group(Device.make(cloud, "gateway"), Device.make(cloud, "lamp"))
        made = cloud.client("greengrass").create_deployment(
            GroupId=group, GroupVersionId=version, DeploymentType="NewDeployment"
        )
        cloud.kill()
        cloud.start()
        deadline = time.monotonic() + patience(10)
        told: set[str] = set()
        while told != {"Building", "InProgress"}:
            assert time.monotonic() < deadline, told
            time.sleep(0.02)
            log = cloud.folder / "logs" / "events.log"
            lines = log.read_text().split("\n")[:-1] if log.exists() else []
            details = [json.loads(line)["detail"] for line in lines]
            told = {each["status"] for each in details if each["deployment-id"] == made["DeploymentId"]}


def test_events_cannot_be_forged_and_need_a_policy(cloud: CloudProcess) -> None:
    topic = "$aws/events/greengrass/deployments/g"
    forger = Device.make(cloud, "forger")
    outsider = Device.make(
        cloud, "outsider", EVERYTHING, {"Effect": "Deny", "Action": "iot:Subscribe", "Resource": "*/greengrass/*"}
    )
    with outsider.mqtt() as client:
        assert client.subscribe("$aws/events/greengrass/deployments/#") == [128]
    with forger.mqtt(level=5) as client:
        assert client.publish(topic, b"{}") == 135


def make_group(core: Device, device: Device) -> tuple[str, str]:
    """(group id, version id) of a group with a core and a device."""
    greengrass = core.cloud.client("greengrass")
    core_entry, device_entry = (
        {"CertificateArn": each.certificate_arn, "Id": each.thing, "SyncShadow": False, "ThingArn": each.arn}
        for each in (core, device)
    )
    cores = greengrass.create_core_definition(InitialVersion={"Cores": [core_entry]})
    devices = greengrass.create_device_definition(InitialVersion={"Devices": [device_entry]})
    references = {
        "CoreDefinitionVersionArn": cores["LatestVersionArn"],
        "DeviceDefinitionVersionArn": devices["LatestVersionArn"],
    }
    group = greengrass.create_group(Name="house", InitialVersion=references)
    return group["Id"], group["LatestVersion"]


def report(core: Device, group: str, deployment: str) -> None:
    """The core has done its deployment."""
    arn = core.arn.replace("/", "%2F").replace(":", "%3A")
    path = f"/greengrass/groups/{group}/deployments/{deployment}/cores/{arn}/status"
    assert core.http("PUT", path, {"DeploymentStatus": "Success"}).status == 200
