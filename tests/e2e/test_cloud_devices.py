"""Devices and cores against a running control plane: MQTT with policies, discovery, data, deployments."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cloud_device import EVERYTHING, Device
from tests.e2e.cloud_process import ACCOUNT, REGION, CloudProcess
from tests.e2e.cloud_tools import fetched
from tests.patience import patience

ARN = f"arn:aws:iot:{REGION}:{ACCOUNT}"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudProcess]:
    with CloudProcess(tmp_path_factory.mktemp("devices") / "cloud") as running:
        yield running


@pytest.fixture(scope="module")
def core(cloud: CloudProcess) -> Device:
    return Device.make(cloud, "gateway")


@pytest.fixture(scope="module")
def device(cloud: CloudProcess) -> Device:
    return Device.make(cloud, "lamp")


def make_group(core: Device, *devices: Device, name: str = "house") -> tuple[str, str]:
    """(group id, version id) of a group with a core and devices."""
    greengrass = core.cloud.client("greengrass")
    entry = {"CertificateArn": core.certificate_arn, "Id": "core", "SyncShadow": True, "ThingArn": core.arn}
    cores = greengrass.create_core_definition(InitialVersion={"Cores": [entry]})
    entries = [
        {"CertificateArn": each.certificate_arn, "Id": f"d{number}", "SyncShadow": True, "ThingArn": each.arn}
        for number, each in enumerate(devices)
    ]
    devices_made = greengrass.create_device_definition(InitialVersion={"Devices": entries})
    group = greengrass.create_group(
        Name=name,
        InitialVersion={
            "CoreDefinitionVersionArn": cores["LatestVersionArn"],
            "DeviceDefinitionVersionArn": devices_made["LatestVersionArn"],
        },
    )
    return group["Id"], group["LatestVersion"]


@pytest.fixture(scope="module")
def group(core: Device, device: Device) -> tuple[str, str]:
    made = make_group(core, device)
    core.cloud.client("greengrass").create_group_certificate_authority(GroupId=made[0])
    return made


# --- discovery -----------------------------------------------------------------------------------------


def test_row_54_and_59_discovery_has_the_manual_addresses_in_the_shape_clients_parse(
    core: Device, device: Device, group: tuple[str, str]
) -> None:
    entries = [
        {"HostAddress": "127.0.0.1", "Id": "loopback", "PortNumber": 8883},
        {"HostAddress": "192.0.2.7", "Id": "lan", "PortNumber": 8883, "Metadata": "first floor"},
    ]
    path = f"/greengrass/things/{core.thing}/connectivityInfo"
    assert core.http("PUT", path, {"ConnectivityInfo": entries}).status == 200
    assert core.http("GET", path).json == {"ConnectivityInfo": entries}
    answer = device.http("GET", "/greengrass/discover/thing/lamp")
    assert answer.status == 200 and answer.head.startswith("HTTP/1.1 200")
    assert "transfer-encoding" not in answer.head.lower()
    (found,) = answer.json["GGGroups"]
    assert found["GGGroupId"] == group[0]
    assert found["Cores"] == [
        {
            "thingArn": core.arn,
            "Connectivity": [
                {"Id": "lan", "HostAddress": "192.0.2.7", "PortNumber": 8883, "Metadata": "first floor"},
                {"Id": "loopback", "HostAddress": "127.0.0.1", "PortNumber": 8883, "Metadata": ""},
            ],
        }
    ]
    (ca,) = found["CAs"]
    assert ca.startswith("-----BEGIN CERTIFICATE-----\n") and ca.endswith("-----END CERTIFICATE-----\n")


def test_row_55_only_the_things_own_active_certificate_with_a_policy_discovers(
    cloud: CloudProcess, core: Device, device: Device, group: tuple[str, str]
) -> None:
    path = "/greengrass/discover/thing/lamp"
    assert device.http("GET", path, certificate=False).status == 401
    assert core.http("GET", path).status == 403  # another thing's name
    assert device.http("GET", "/greengrass/discover/thing/%2e%2e").status == 403
    powerless = Device.make(cloud, "powerless", {"Effect": "Allow", "Action": "iot:*", "Resource": "*"})
    assert powerless.http("GET", "/greengrass/discover/thing/powerless").status == 403
    lonely = Device.make(cloud, "lonely")
    assert lonely.http("GET", "/greengrass/discover/thing/lonely").status == 404
    cloud.client("iot").update_certificate(certificateId=lonely.certificate_id, newStatus="REVOKED")
    refused = lonely.http("GET", "/greengrass/discover/thing/lonely")
    assert refused.status == 401 and refused.json["message"]


def test_row_56_and_57_a_device_in_two_groups_gets_both_and_in_more_than_ten_the_known_error(
    cloud: CloudProcess,
) -> None:
    wanderer = Device.make(cloud, "wanderer")
    cores = [Device.make(cloud, f"core-{number}") for number in range(2)]
    groups = [make_group(each, wanderer, name=each.thing)[0] for each in cores]
    found = wanderer.http("GET", "/greengrass/discover/thing/wanderer").json["GGGroups"]
    assert sorted(entry["GGGroupId"] for entry in found) == sorted(groups)
    assert all(len(entry["Cores"]) == 1 for entry in found)
    for number in range(9):
        make_group(cores[0], wanderer, name=f"more-{number}")
    answer = wanderer.http("GET", "/greengrass/discover/thing/wanderer")
    assert answer.status == 400
    assert answer.json["message"] == (
        "Device is a member of too many groups, devices may not be in more than 10 groups"
    )


def test_what_is_no_request_keeps_the_byte_rules_too(device: Device) -> None:
    assert device.http("BREW", "/x").status in (400, 404)
    assert device.http("GET", "/greengrass/discover/thing/" + "a" * 20_000).status == 400
    assert device.http("DELETE", "/greengrass/discover/thing/lamp").status == 405
    assert device.http("GET", "/greengrass/discover/thing/%ff").status == 400
    assert device.http("POST", "/topics/t", b"x" * 300_000).status == 413


SDKS = {
    "AWSIoTPythonSDK": """
from AWSIoTPythonSDK.core.greengrass.discovery.providers import DiscoveryInfoProvider
provider = DiscoveryInfoProvider(ca, certificate, key, "localhost", port, 20)
found = provider.discover(thing)
print(found.getAllCores()[0].coreThingArn, found.getAllCas()[0][0], len(found.getAllCas()[0][1]) > 500)
""",
    "awsiotsdk": """
from awscrt import io
from awsiot.greengrass_discovery import DiscoveryClient
options = io.TlsContextOptions.create_client_with_mtls_from_path(certificate, key)
options.override_default_trust_store_from_path(None, ca)
bootstrap = io.ClientBootstrap(io.EventLoopGroup(1), io.DefaultHostResolver(io.EventLoopGroup(1)))
client = DiscoveryClient(bootstrap, io.SocketOptions(), io.ClientTlsContext(options), "", gg_server_name="localhost")
client.port = port
(group,) = client.discover(thing).result(20).gg_groups
print(group.cores[0].thing_arn, group.gg_group_id, len(group.certificate_authorities[0]) > 500)
""",
}


@pytest.fixture(scope="module")
def device_sdks() -> Path:
    """The published device SDKs."""
    return fetched("device-sdks")


@pytest.mark.parametrize("sdk", SDKS)
def test_row_54_published_sdks_discover_with_their_own_clients(
    sdk: str, device_sdks: Path, core: Device, device: Device, group: tuple[str, str]
) -> None:
    cloud = core.cloud
    head = f"ca, certificate, key = {str(cloud.ca_path)!r}, {str(device.certificate)!r}, {str(device.key)!r}\n"
    head += f"port, thing = {cloud.https_port}, 'lamp'\n"
    done = subprocess.run(
        [sys.executable, "-c", head + SDKS[sdk]],
        env={"PYTHONPATH": str(device_sdks), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=patience(60),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [core.arn, group[0], "True"]


# --- MQTT ----------------------------------------------------------------------------------------------


def test_policies_decide_about_connect_publish_subscribe_receive_and_retain(cloud: CloudProcess) -> None:
    limited = Device.make(
        cloud,
        "limited",
        {"Effect": "Allow", "Action": "iot:Connect", "Resource": f"{ARN}:client/${{iot:Connection.Thing.ThingName}}"},
        {"Effect": "Allow", "Action": "iot:Publish", "Resource": f"{ARN}:topic/out/${{iot:ClientId}}/*"},
        {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": f"{ARN}:topicfilter/in/*"},
        {"Effect": "Allow", "Action": "iot:Receive", "Resource": f"{ARN}:topic/in/public"},
    )
    assert limited.mqtt("somebody-else").code == 135  # not authorised, as paho says it
    other = Device.make(cloud, "other")
    with limited.mqtt(level=5) as client, other.mqtt() as writer:
        assert client.subscribe("in/#", "out/#") == [1, 135]
        assert writer.subscribe("out/#") == [1]
        assert client.publish("out/limited/a", b"1") == 0
        assert writer.take() == ("out/limited/a", b"1")
        assert client.publish("out/other/a", b"2") == 135
        assert client.publish("out/limited/a", b"3", retain=True) == 135
        writer.publish("in/private", b"4")
        writer.publish("in/public", b"5")
        assert client.take() == ("in/public", b"5")
        assert not client.gone.is_set()
    with limited.mqtt() as older:
        older.send("out/other/a", b"6", 1)
        assert older.gone.wait(patience(10))


def test_a_changed_policy_counts_for_clients_that_are_in(cloud: CloudProcess) -> None:
    changing, iot = Device.make(cloud, "changing"), cloud.client("iot")
    with changing.mqtt(level=5) as client:
        assert client.publish("a/b", b"1") in (0, 16)
        name = iot.list_attached_policies(target=changing.certificate_arn)["policies"][0]["policyName"]
        deny = {"Effect": "Deny", "Action": "iot:Publish", "Resource": f"{ARN}:topic/a/*"}
        text = json.dumps({"Version": "2012-10-17", "Statement": [EVERYTHING, deny]})
        iot.create_policy_version(policyName=name, policyDocument=text, setAsDefault=True)
        deadline = time.monotonic() + patience(5)
        while client.publish("a/b", b"2") != 135:
            assert time.monotonic() < deadline
        assert client.publish("b", b"3") in (0, 16)


def test_a_revoked_certificate_ends_the_connection_it_made(cloud: CloudProcess) -> None:
    doomed = Device.make(cloud, "doomed")
    with doomed.mqtt() as client:
        cloud.client("iot").update_certificate(certificateId=doomed.certificate_id, newStatus="REVOKED")
        assert client.gone.wait(patience(5))
    assert doomed.mqtt().code == 135


def test_a_certificate_of_another_ca_is_trusted_from_its_registration_on(cloud: CloudProcess, tmp_path: Path) -> None:
    foreign = Device.make(cloud, "foreign")
    certificate, key = tmp_path / "own.crt", tmp_path / "own.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "30", "-subj", "/CN=factory", "-out", str(certificate), "-keyout", str(key)),
        ],
        check=True,
        capture_output=True,
    )
    foreign.certificate, foreign.key = certificate, key
    assert foreign.mqtt().code == -1  # no handshake
    iot = cloud.client("iot")
    made = iot.register_certificate_without_ca(certificatePem=certificate.read_text(), status="ACTIVE")
    iot.attach_thing_principal(thingName="foreign", principal=made["certificateArn"])
    policies = iot.list_attached_policies(target=foreign.certificate_arn)["policies"]
    iot.attach_policy(policyName=policies[0]["policyName"], target=made["certificateArn"])
    with foreign.mqtt(level=5) as client:
        assert client.publish("t", b"x") in (0, 16)


def test_regions_hear_nothing_of_each_other(cloud: CloudProcess, device: Device) -> None:
    away = Device.make(cloud, "lamp", region="us-east-1")
    with device.mqtt() as here, away.mqtt() as there:
        here.subscribe("#")
        there.subscribe("#")
        there.publish("t", b"there", retain=True)
        here.publish("t", b"here")
        assert here.take() == ("t", b"here") and there.take() == ("t", b"there")
        assert here.messages.empty() and not here.gone.is_set()


def test_shadows_are_the_same_by_mqtt_and_by_https(device: Device) -> None:
    shadow = "$aws/things/lamp/shadow"
    with device.mqtt() as client:
        client.subscribe(f"{shadow}/#")
        for number in range(20):
            client.send(f"{shadow}/update", {"state": {"desired": {"n": number}}, "clientToken": f"t{number}"})
        tokens = []
        while len(tokens) < 20:
            topic, document = client.take_json()
            if topic == f"{shadow}/update/accepted":
                tokens.append(document["clientToken"])
        assert tokens == [f"t{number}" for number in range(20)]
        found = device.http("GET", "/things/lamp/shadow")
        assert found.status == 200 and found.json["state"]["desired"] == {"n": 19}
        assert device.http("POST", "/things/lamp/shadow", {"state": {"reported": {"n": 19}}}).status == 200
        reported: Any = None
        while reported != {"n": 19}:
            topic, document = client.take_json()
            reported = document["state"].get("reported") if topic == f"{shadow}/update/accepted" else None
        api = json.loads(device.cloud.client("iot-data").get_thing_shadow(thingName="lamp")["payload"].read())
        assert api["state"] == {"desired": {"n": 19}, "reported": {"n": 19}}
        client.send(f"{shadow}/get", {})
        topic, document = client.take_json()
        while topic != f"{shadow}/get/accepted":
            topic, document = client.take_json()
        assert document["state"] == api["state"]


def test_messages_by_https_and_by_the_api_reach_subscribers_and_are_retained(device: Device) -> None:
    with device.mqtt() as client:
        client.subscribe("news/#")
        assert device.http("POST", "/topics/news/a?qos=1", b"one").status == 200
        device.cloud.client("iot-data").publish(topic="news/b", qos=1, retain=True, payload=b"two")
        assert [client.take(), client.take()] == [("news/a", b"one"), ("news/b", b"two")]
        client.publish("news/c", b"three", retain=True)
    deadline = time.monotonic() + patience(5)
    data = device.cloud.client("iot-data")
    while {entry["topic"] for entry in data.list_retained_messages()["retainedTopics"]} < {"news/b", "news/c"}:
        assert time.monotonic() < deadline
    with device.mqtt("lamp-2") as late:
        late.subscribe("news/#")
        assert sorted([late.take(), late.take()]) == [("news/b", b"two"), ("news/c", b"three")]


# --- deployments ---------------------------------------------------------------------------------------


def test_a_waiting_core_hears_of_its_deployment_at_once_and_reports_it(
    core: Device, device: Device, group: tuple[str, str]
) -> None:
    greengrass, path = core.cloud.client("greengrass"), f"/greengrass/things/{core.thing}/deployment"
    assert core.http("GET", path).status == 204
    assert device.http("GET", path).status == 403
    answers: list[tuple[float, Any]] = []

    def wait() -> None:
        answer = core.http("GET", f"{path}?wait=30")
        answers.append((time.monotonic(), answer))

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.5)
    made = greengrass.create_deployment(GroupId=group[0], GroupVersionId=group[1], DeploymentType="NewDeployment")
    began = time.monotonic()
    waiting.join(patience(40))
    ((at, answer),) = answers
    assert answer.status == 200 and at - began < patience(1.0)
    found = answer.json
    assert (found["id"], found["groupId"]) == (made["DeploymentId"], group[0])
    assert core.http("GET", f"{path}?after={found['id']}&wait=0").status == 204
    encoded = core.arn.replace(":", "%3A").replace("/", "%2F")
    status = f"/greengrass/groups/{group[0]}/deployments/{found['id']}/cores/{encoded}/status"
    assert device.http("PUT", status, {"DeploymentStatus": "Success"}).status == 403
    assert core.http("PUT", status, {"DeploymentStatus": "Odd"}).status == 400
    assert core.http("PUT", status, {"DeploymentStatus": "Success"}).status == 200
    done = greengrass.get_deployment_status(GroupId=group[0], DeploymentId=found["id"])
    assert done["DeploymentStatus"] == "Success"
    assert core.http("GET", "/greengrass/artifacts/" + "0" * 64).status == 404


def test_a_core_gets_keys_of_its_groups_role_and_a_device_those_of_a_role_alias(
    core: Device, device: Device, group: tuple[str, str]
) -> None:
    cloud = core.cloud
    path = f"/greengrass/groups/{group[0]}/credentials"
    assert core.http("GET", path).status == 404
    trust = {"Effect": "Allow", "Action": "sts:AssumeRole"}
    principal = {"Principal": {"Service": ["greengrass.amazonaws.com", "credentials.iot.amazonaws.com"]}}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust | principal]})
    role = cloud.client("iam").create_role(RoleName="edge", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    cloud.client("greengrass").associate_role_to_group(GroupId=group[0], RoleArn=role)
    keys = core.http("GET", path).json["credentials"]
    assert set(keys) == {"accessKeyId", "secretAccessKey", "sessionToken", "expiration"}
    assert device.http("GET", path).status == 403
    cloud.client("iot").create_role_alias(roleAlias="lamps", roleArn=role)
    alias = "/role-aliases/lamps/credentials"
    assert "sessionToken" in device.http("GET", alias, x_amzn_iot_thingname="lamp").json["credentials"]
    assert device.http("GET", alias, x_amzn_iot_thingname="gateway").status == 403
    assert device.http("GET", "/role-aliases/none/credentials").status == 404
