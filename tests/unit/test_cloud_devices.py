"""Devices' identities, what their policies allow, discovery, and requests that come faster than they are done."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from cloud_desk import ACCOUNT, REGION, Desk, authority

from ggfast._ext.routes import Router
from ggfast._ext.session import Session
from ggfast.cloud.devices.discovery import discover
from ggfast.cloud.devices.identity import Identities, Identity, certificate_id_of, load
from ggfast.cloud.devices.mqtt import Permissions
from ggfast.cloud.devices.names import client_of, home_of
from ggfast.cloud.devices.requests import Requests
from ggfast.cloud.devices.routing import Asked, Routes
from ggfast.cloud.devices.waiting import Polls
from ggfast.cloud.events import CertificateEnded, CoreChanged, DeploymentReady
from ggfast.cloud.faults import Fault
from ggfast.cloud.greengrass import GREENGRASS
from ggfast.cloud.iot import IOT
from ggfast.cloud.limits import DEVICE_POLLS_OF_ONE_MAX, DEVICE_REQUESTS_DROPPED_AT, DEVICE_REQUESTS_MAX
from ggfast.cloud.operations import Reply
from ggfast.cloud.shadows import store as shadows
from ggfast.counters import Counters
from ggfast.mqtt.broker import Broker

HOME = f"{ACCOUNT}/{REGION}"
ARN = f"arn:aws:iot:{REGION}:{ACCOUNT}"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path, IOT, GREENGRASS)
    yield made
    made.close()


def allow(action: str | list[str], resource: str, effect: str = "Allow") -> dict[str, Any]:
    """A statement."""
    return {"Effect": effect, "Action": action, "Resource": resource}


def register(desk: Desk, thing: str, *statements: dict[str, Any]) -> str:
    """A thing with a certificate and a policy; the certificate's id."""
    desk.call("CreateThing", service="iot", thingName=thing, attributePayload={"attributes": {"site": "attic"}})
    made = desk.call("CreateKeysAndCertificate", service="iot", setAsActive=True)
    arn = made["certificateArn"]
    desk.call("AttachThingPrincipal", service="iot", thingName=thing, principal=arn)
    text = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    desk.call("CreatePolicy", service="iot", policyName=f"of-{thing}", policyDocument=text)
    desk.call("AttachPolicy", service="iot", policyName=f"of-{thing}", target=arn)
    return str(made["certificateId"])


def identity_of(desk: Desk, certificate_id: str) -> Identity:
    found = desk.look(lambda tx: load(tx, certificate_id))
    assert found is not None
    return found


# --- identities ----------------------------------------------------------------------------------------


def test_an_identity_has_the_things_and_policies_of_its_certificate(desk: Desk) -> None:
    certificate_id = register(
        desk,
        "lamp",
        allow("iot:Connect", f"{ARN}:client/${{iot:Connection.Thing.ThingName}}"),
        allow("iot:Publish", f"{ARN}:topic/${{iot:Connection.Thing.Attributes[site]}}/${{iot:ClientId}}"),
        allow("greengrass:Discover", f"{ARN}:thing/lamp"),
    )
    found = identity_of(desk, certificate_id)
    assert (found.home, list(found.things)) == (HOME, ["lamp"])
    assert found.allows("iot:Connect", f"{ARN}:client/lamp", "lamp")
    assert not found.allows("iot:Connect", f"{ARN}:client/other", "other")
    assert found.allows("iot:Publish", f"{ARN}:topic/attic/lamp", "lamp")
    assert not found.allows("iot:Publish", f"{ARN}:topic/attic/lamp", "other")
    assert found.allows("greengrass:Discover", f"{ARN}:thing/lamp")
    assert not found.allows("greengrass:Discover", f"{ARN}:thing/other")


@pytest.mark.parametrize("client_id", ["+", "#", "a/+", "x#"])
def test_a_client_id_with_a_wildcard_makes_no_filter_wider(desk: Desk, client_id: str) -> None:
    certificate_id = register(
        desk,
        "lamp",
        allow(["iot:Connect", "iot:Receive"], "*"),
        allow("iot:Subscribe", f"{ARN}:topicfilter/${{iot:ClientId}}/in"),
        allow("iot:Publish", "*"),
        allow("iot:Publish", f"{ARN}:topic/${{iot:ClientId}}/in", "Deny"),
    )
    found = identity_of(desk, certificate_id)
    assert found.allows("iot:Connect", f"{ARN}:client/{client_id}", client_id)
    assert not found.allows("iot:Subscribe", f"{ARN}:topicfilter/{client_id}/in", client_id)
    assert found.allows("iot:Subscribe", f"{ARN}:topicfilter/lamp/in", "lamp")
    assert not found.allows("iot:Publish", f"{ARN}:topic/lamp/in", client_id), "a denial counts where it may be meant"


def test_a_thing_groups_policy_counts_for_iot_and_not_for_greengrass(desk: Desk) -> None:
    certificate_id = register(desk, "lamp", allow("iot:Connect", "*"))
    desk.call("CreateThingGroup", service="iot", thingGroupName="lamps")
    desk.call("AddThingToThingGroup", service="iot", thingGroupName="lamps", thingName="lamp")
    text = json.dumps({"Version": "2012-10-17", "Statement": [allow(["iot:Publish", "greengrass:*"], "*")]})
    desk.call("CreatePolicy", service="iot", policyName="lamps", policyDocument=text)
    target = f"{ARN}:thinggroup/lamps"
    desk.call("AttachPolicy", service="iot", policyName="lamps", target=target)
    found = identity_of(desk, certificate_id)
    assert found.allows("iot:Publish", f"{ARN}:topic/t", "lamp")
    assert not found.allows("greengrass:Discover", f"{ARN}:thing/lamp")


@pytest.mark.parametrize("status", ["INACTIVE", "REVOKED"])
def test_what_is_not_active_is_nobody(desk: Desk, status: str) -> None:
    certificate_id = register(desk, "lamp", allow("iot:*", "*"))
    desk.call("UpdateCertificate", service="iot", certificateId=certificate_id, newStatus=status)
    assert desk.look(lambda tx: load(tx, certificate_id)) is None
    assert desk.look(lambda tx: load(tx, "0" * 64)) is None


def test_what_is_remembered_follows_the_registry(desk: Desk) -> None:
    certificate_id = register(desk, "lamp", allow("iot:*", "*"))
    seen: list[str] = []

    async def settled() -> None:
        for _ in range(20):
            await asyncio.sleep(0.005)

    async def begin() -> Identities:
        made = Identities(desk.store, lambda: seen.append("changed"), lambda ended: seen.append(ended))
        assert made.get(certificate_id) is None
        assert await made.find(certificate_id) is made.get(certificate_id)
        made.keep(certificate_id)
        return made

    identities = desk.runner.run(begin())
    deny = json.dumps({"Version": "2012-10-17", "Statement": [allow("iot:*", "*", "Deny")]})
    desk.call("CreatePolicyVersion", service="iot", policyName="of-lamp", policyDocument=deny, setAsDefault=True)
    desk.runner.run(settled())
    known = identities.get(certificate_id)
    assert known is not None and not known.allows("iot:Publish", f"{ARN}:topic/t", "lamp") and "changed" in seen
    desk.call("UpdateCertificate", service="iot", certificateId=certificate_id, newStatus="REVOKED")
    desk.runner.run(settled())
    assert identities.get(certificate_id) is None and certificate_id in seen
    desk.runner.run(identities.close())


# --- the authoriser ------------------------------------------------------------------------------------


class Known:
    """Identities that are what they are."""

    def __init__(self, *found: Identity) -> None:
        self._found = {identity.certificate_id: identity for identity in found}

    def get(self, certificate_id: str) -> Identity | None:
        return self._found.get(certificate_id)


def permissions_of(source: str, identity: Identity) -> Permissions:
    made = Permissions()
    made.identities = cast(Identities, Known(identity))
    made.certificates[source] = identity.certificate_id
    return made


def test_reserved_topics_are_closed_but_for_requests_and_regions_are_apart(desk: Desk) -> None:
    identity = identity_of(desk, register(desk, "lamp", allow("iot:*", "*")))
    source = f"{HOME}/lamp"
    permissions = permissions_of(source, identity)
    for topic, may in (
        ("t", True),
        ("$aws/things/lamp/shadow/update", True),
        ("$aws/things/lamp/shadow/name/n/get", True),
        ("$aws/things/lamp/jobs/start-next", True),
        ("$aws/things/lamp/shadow/update/accepted", False),
        ("$aws/things/lamp/jobs/notify", False),
        ("$aws/events/x", False),
        ("$other", False),
    ):
        assert permissions.may_publish(source, topic) is may, topic
    assert permissions.may_retain(source, "t") and not permissions.may_retain(source, "$aws/things/lamp/shadow/get")
    assert permissions.may_receive(source, "$aws/things/lamp/shadow/update/accepted", HOME)
    assert not permissions.may_receive(source, "t", f"{ACCOUNT}/us-east-1")
    assert not permissions.may_receive(source, "t", "$SYS")
    assert permissions.may_publish(HOME, "$aws/things/lamp/jobs/notify")
    assert not permissions.may_publish(f"{HOME}/unknown", "t")


def test_names_of_clients_may_hold_slashes() -> None:
    assert (home_of("1/r/a/b/c"), client_of("1/r/a/b/c")) == ("1/r", "a/b/c")
    assert (home_of("1/r"), client_of("1/r"), client_of("1/r/")) == ("1/r", "", "")


# --- requests ------------------------------------------------------------------------------------------


class Held:
    """A session that can be told to wait."""

    def __init__(self) -> None:
        self.said: list[bool] = []
        self.router = Router(True)

    def wait(self, on: bool) -> None:
        self.said.append(on)

    def session_of(self, _name: str) -> Session:
        """As the broker of one client."""
        return cast(Session, self)


def test_a_client_that_asks_too_fast_is_not_read_until_it_is_answered_in_order(desk: Desk) -> None:
    held, counters = Held(), Counters()

    async def flood() -> list[bool]:
        requests = Requests(desk.cloud, desk.store, cast(Broker, held), counters)
        taken = []
        for number in range(DEVICE_REQUESTS_DROPPED_AT + 5):
            body = json.dumps({"state": {"desired": {"n": number}}}).encode()
            taken.append(requests.take(f"{HOME}/lamp", "$aws/things/lamp/shadow/update", body))
            assert (held.said == [True]) is (number + 1 >= DEVICE_REQUESTS_MAX)
        await requests.close()
        return taken

    taken = desk.runner.run(flood())
    assert taken == [True] * DEVICE_REQUESTS_DROPPED_AT + [False] * 5
    assert held.said == [True, False] and counters.get("cloud.devices.slowed") == 1
    shadow = desk.look(lambda tx: shadows.get(tx, HOME, "lamp"))
    assert shadow is not None and shadow.version == DEVICE_REQUESTS_DROPPED_AT
    assert shadow.desired == {"n": DEVICE_REQUESTS_DROPPED_AT - 1}


# --- waiting for deployments ---------------------------------------------------------------------------


def test_polls_are_woken_by_what_concerns_them_and_bounded() -> None:
    async def scenario() -> None:
        polls = Polls()
        mine, other = polls.begin(REGION, "core", "c"), polls.begin("us-east-1", "core", "d")
        waits = [asyncio.create_task(polls.wait(waiting, 5)) for waiting in (mine, other)]
        await asyncio.sleep(0)
        polls.hear(DeploymentReady(REGION, "core", "d"))
        assert await waits[0] and not waits[1].done()
        polls.hear(CertificateEnded("d"))
        assert await waits[1]
        assert not await polls.wait(mine, 0.001)
        polls.hear(CoreChanged(REGION, "core"))
        assert await polls.wait(mine, 5)  # heard before it waited
        assert not await polls.wait(other, 0.001)
        crowd = [asyncio.create_task(polls.wait(mine, 5)) for _ in range(DEVICE_POLLS_OF_ONE_MAX)]
        await asyncio.sleep(0)
        assert polls.count == DEVICE_POLLS_OF_ONE_MAX
        assert not await polls.wait(mine, 5)
        polls.close()
        assert await asyncio.gather(*crowd) == [False] * DEVICE_POLLS_OF_ONE_MAX
        assert polls.count == 0

    asyncio.run(scenario())


# --- discovery -----------------------------------------------------------------------------------------


def test_ids_of_addresses_differ_and_loopback_comes_last(desk: Desk) -> None:
    certificate_id = register(desk, "lamp", allow("greengrass:*", "*"))
    identity = identity_of(desk, certificate_id)
    with pytest.raises(Fault) as refused:
        desk.look(lambda tx: discover(tx, identity, "lamp"))
    assert refused.value.status == 404
    core = {"CertificateArn": identity.arn, "Id": "c", "ThingArn": f"{ARN}:thing/core", "SyncShadow": True}
    cores = desk.call("CreateCoreDefinition", service="greengrass", InitialVersion={"Cores": [core]})
    lamp = {"CertificateArn": identity.arn, "Id": "d", "ThingArn": f"{ARN}:thing/lamp", "SyncShadow": True}
    devices = desk.call("CreateDeviceDefinition", service="greengrass", InitialVersion={"Devices": [lamp]})
    versions = {
        "CoreDefinitionVersionArn": cores["LatestVersionArn"],
        "DeviceDefinitionVersionArn": devices["LatestVersionArn"],
    }
    desk.call("CreateGroup", service="greengrass", Name="g", InitialVersion=versions)
    hosts = ["127.0.0.1", "::1", "core.local", "core.local", "192.0.2.1"]
    info = [{"HostAddress": host} for host in hosts]
    desk.call("UpdateConnectivityInfo", service="greengrass", ThingName="core", ConnectivityInfo=info)
    (group,) = desk.look(lambda tx: discover(tx, identity, "lamp"))["GGGroups"]
    entries = group["Cores"][0]["Connectivity"]
    assert [entry["HostAddress"] for entry in entries] == ["core.local", "core.local", "192.0.2.1", "127.0.0.1", "::1"]
    assert len({entry["Id"] for entry in entries}) == 5
    assert {(entry["PortNumber"], entry["Metadata"]) for entry in entries} == {(8883, "")}


# --- paths ---------------------------------------------------------------------------------------------


def test_paths_are_taken_apart_before_they_are_decoded() -> None:
    async def handler(_asked: Asked) -> Reply:
        return Reply()

    routes = Routes()
    routes.add("GET /a/{Name}/b", handler)
    routes.add("POST /topics/{Topic...}", handler)
    assert routes.find("GET", "/a/x%2Fy/b")[1] == {"Name": "x/y"}
    assert routes.find("POST", "/topics/one/t%20wo/three")[1] == {"Topic": "one/t wo/three"}
    for method, path, status in (
        ("GET", "/a//b", 404),
        ("GET", "/a/x", 404),
        ("GET", "/topics", 404),
        ("POST", "/topics/", 404),
        ("PUT", "/a/x/b", 405),
        ("GET", "/a/%ff/b", 400),
        ("GET", "/a/%00/b", 400),
    ):
        with pytest.raises(Fault) as refused:
            routes.find(method, path)
        assert refused.value.status == status, path


def test_certificate_ids_are_those_of_the_authority() -> None:
    pem, _, _ = authority().new_keys_and_certificate("x")
    der = base64.b64decode("".join(pem.strip().splitlines()[1:-1]))
    assert authority().check(pem)[0] == certificate_id_of(der)
