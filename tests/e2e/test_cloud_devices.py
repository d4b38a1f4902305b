"""Devices and cores against a running control plane: MQTT with policies, discovery, data, deployments."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ggfast.cli.cloud import main
from tests.e2e.cloud_device import EVERYTHING, Device
from tests.e2e.cloud_process import ACCOUNT, REGION, CloudProcess, run_cloud
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


# --- packages ------------------------------------------------------------------------------------------


def packed(size: int) -> bytes:
    """The code of a function, or a model: a zip of at least `size` bytes."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("handler.py", "def main(event, context):\n    return event\n")
        members.writestr("data", os.urandom(size))
    return archive.getvalue()


def deployed(core: Device, group: tuple[str, str]) -> list[dict[str, Any]]:
    """Deploy; the artifacts that the core is told of."""
    made = core.cloud.client("greengrass").create_deployment(
        GroupId=group[0], GroupVersionId=group[1], DeploymentType="NewDeployment"
    )
    answer = core.http("GET", f"/greengrass/things/{core.thing}/deployment?wait=20")
    assert answer.status == 200 and answer.json["id"] == made["DeploymentId"]
    return list(answer.json["artifacts"])


def test_code_and_models_travel_to_their_core_and_to_no_other(cloud: CloudProcess, tmp_path: Path) -> None:
    greengrass, owner, rival = cloud.client("greengrass"), Device.make(cloud, "owner"), Device.make(cloud, "rival")
    code, model = packed(300_000), packed(50_000)
    function = cloud.client("lambda").create_function(
        FunctionName="packed",
        Runtime="python3.8",
        Handler="handler.main",
        Role=f"arn:aws:iam::{ACCOUNT}:role/none",
        Code={"ZipFile": code},
        Publish=True,
    )
    configuration = {"MemorySize": 16_384, "Timeout": 3, "Pinned": False}
    entry = {"FunctionArn": function["FunctionArn"], "Id": "f", "FunctionConfiguration": configuration}
    functions = greengrass.create_function_definition(InitialVersion={"Functions": [entry]})
    (tmp_path / "m.zip").write_bytes(model)
    run_cloud("add-object", cloud.folder, "https://s3.amazonaws.com/models/m.zip", tmp_path / "m.zip")
    data = {"S3Uri": "s3://models/m.zip", "DestinationPath": "/model"}
    container = {"S3MachineLearningModelResourceData": data}
    resources = greengrass.create_resource_definition(
        InitialVersion={"Resources": [{"Id": "m", "Name": "model", "ResourceDataContainer": container}]}
    )
    group_id, version = make_group(owner, name="owner")
    before = greengrass.get_group_version(GroupId=group_id, GroupVersionId=version)["Definition"]
    version = greengrass.create_group_version(
        GroupId=group_id,
        CoreDefinitionVersionArn=before["CoreDefinitionVersionArn"],
        FunctionDefinitionVersionArn=functions["LatestVersionArn"],
        ResourceDefinitionVersionArn=resources["LatestVersionArn"],
    )["Version"]
    digests = {hashlib.sha256(content).hexdigest(): content for content in (code, model)}
    found = deployed(owner, (group_id, version))
    assert {entry["digest"]: entry["size"] for entry in found} == {name: len(text) for name, text in digests.items()}
    assert deployed(rival, make_group(rival, name="rival")) == []
    for digest, content in digests.items():
        path = f"/greengrass/artifacts/{digest}"
        whole = owner.http("GET", path)
        assert (whole.status, whole.body == content) == (200, True)
        part = owner.http("GET", path, Range="bytes=1000-1999")
        assert (part.status, part.body == content[1_000:2_000]) == (206, True)
        rest = owner.http("GET", path, Range=f"bytes={len(content) - 7}-")
        assert (rest.status, rest.body) == (206, content[-7:])
        assert owner.http("GET", path, Range=f"bytes={len(content)}-").status == 416
        assert rival.http("GET", path).status == 404
        assert rival.http("GET", path, Range="bytes=0-9").status == 404
        assert rival.http("GET", path, certificate=False).status == 401
    assert owner.http("GET", "/greengrass/artifacts/..%2Fstore.db").status == 404


def test_a_core_fetches_the_software_that_an_update_job_names(
    cloud: CloudProcess, core: Device, tmp_path: Path
) -> None:
    content = os.urandom(70_000)
    (tmp_path / "release").write_bytes(content)
    release = (cloud.folder, "armv7l", "raspbian", "9.9.9", tmp_path / "release")
    made = json.loads(run_cloud("add-software", *release, "--json").stdout)
    assert made["sha256"] == hashlib.sha256(content).hexdigest()
    job = cloud.client("greengrass").create_software_update_job(
        S3UrlSignerRole=f"arn:aws:iam::{ACCOUNT}:role/signer",
        SoftwareToUpdate="core",
        UpdateTargets=[core.arn],
        UpdateTargetsArchitecture="armv7l",
        UpdateTargetsOperatingSystem="raspbian",
    )
    assert job["PlatformSoftwareVersion"] == "9.9.9"
    artifact = json.loads(cloud.client("iot").get_job_document(jobId=job["IotJobId"])["document"])["artifact"]
    assert (artifact["sha256"], artifact["size"]) == (made["sha256"], len(content))
    assert core.http("GET", artifact["path"]).body == content
    assert core.http("GET", artifact["path"].replace("9.9.9", "9.9.8")).status == 404
    assert core.http("GET", artifact["path"].replace("raspbian", "openwrt")).status == 404
    narrow = Device.make(cloud, "narrow", {"Effect": "Allow", "Action": "iot:*", "Resource": "*"})
    assert narrow.http("GET", artifact["path"]).status == 403


def test_files_that_cannot_be_registered_are_named(
    cloud: CloudProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for words, named in (
        (("add-object", cloud.folder, "http://x/y", tmp_path / "file"), "URI"),
        (("add-object", cloud.folder, "s3://bucket/key", tmp_path / "none"), "none"),
        (("add-object", cloud.folder, "s3://bucket/key", tmp_path / "file", "--region", "x"), "--region"),
        (("add-software", cloud.folder, "x86_64", "openwrt", "1", tmp_path / "file"), "openwrt/x86_64"),
        (("add-software", cloud.folder, "x86_64", "ubuntu", "a/b", tmp_path / "file"), "VERSION"),
    ):
        assert main([str(word) for word in words]) == 1
        assert named in capsys.readouterr().err


def test_a_restart_keeps_what_was_and_follows_new_settings(tmp_path: Path) -> None:
    with CloudProcess(tmp_path / "cloud") as cloud:
        core = Device.make(cloud, "gateway")
        group = make_group(core)
        deployed(core, group)
        role = f"arn:aws:iam::{ACCOUNT}:role/real"
        cloud.client("greengrass").associate_role_to_group(GroupId=group[0], RoleArn=role)
        credentials = f"/greengrass/groups/{group[0]}/credentials"
        assert core.http("GET", credentials).status == 403  # no such role here
        deployment = core.http("GET", "/greengrass/things/gateway/deployment").json
        with core.mqtt() as client:
            for topic, payload in (("one", b"first"), ("one", b"second"), ("gone", b"x"), ("gone", b"")):
                assert client.publish(f"kept/{topic}", payload, retain=True) == 0
        assert core.http("POST", "/things/gateway/shadow?name=s", {"state": {"desired": {"on": True}}}).status == 200
        settings = json.loads((cloud.folder / "cloud.json").read_text())
        keys = {"Version": 1, "AccessKeyId": "ASIAREAL", "SecretAccessKey": "s3same", "SessionToken": "token"}
        settings["credentialsProcess"] = ["/bin/echo", json.dumps(keys)]
        (cloud.folder / "cloud.json").write_text(json.dumps(settings))
        cloud.restart()
        found = core.http("GET", credentials).json["credentials"]
        assert (found["accessKeyId"], found["sessionToken"]) == ("ASIAREAL", "token")
        with core.mqtt() as client:
            client.subscribe("kept/#")
            assert client.take() == ("kept/one", b"second")
            client.publish("kept/marker", b"m")
            assert client.take() == ("kept/marker", b"m")
        assert core.http("GET", "/things/gateway/shadow?name=s").json["state"]["desired"] == {"on": True}
        assert core.http("GET", "/greengrass/things/gateway/deployment").json == deployment
