"""Rows 24-26, 30, 43, 58, 59 and 100 on a real core of a real control plane."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.e2e.cloud_process import ACCOUNT, REGION, CloudProcess, run_cloud
from tests.e2e.cloud_tools import fetched
from tests.e2e.harness import Device, eventually, thing_arn
from tests.e2e.joined_core import DISCOVERY_PORT, JoinedCore, a_joined_core, loopback_address
from tests.patience import patience

pytestmark = [pytest.mark.root, pytest.mark.slow]

ECHO = """
import json
import os
import urllib.error
import urllib.request
import greengrasssdk
iot = greengrasssdk.client("iot-data")

def handler(event, context):
    if isinstance(event, dict) and event.get("do") == "keys":
        request = urllib.request.Request(os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"])
        request.add_header("Authorization", os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"])
        try:
            return json.loads(urllib.request.urlopen(request, timeout=20).read())
        except urllib.error.HTTPError as error:
            return {"status": error.code}
    print("echoing")
    iot.update_thing_shadow(thingName="kept", payload='{"state": {"reported": {"n": 1}}}')
    iot.publish(topic="back", payload=json.dumps(event))
"""


@pytest.fixture(scope="module")
def address() -> str:
    return loopback_address()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, address: str) -> Iterator[CloudProcess]:
    """A control plane with a second name: published samples know one port for discovery."""
    folder = tmp_path_factory.mktemp("rows") / "cloud"
    options = ["--account", ACCOUNT, "--region", REGION, "--host", "localhost", "--json"]
    made = json.loads(run_cloud("init", folder, *options).stdout)
    settings = json.loads((folder / "cloud.json").read_text())
    (folder / "cloud.json").write_text(json.dumps(settings | {"hosts": [*settings["hosts"], address]}))
    with CloudProcess(folder, made=made) as running:
        yield running


@pytest.fixture(scope="module")
def core(cloud: CloudProcess) -> Iterator[JoinedCore]:
    with a_joined_core(cloud) as core:
        core.reconfigure(lambda config: config["coreThing"].update(mqttMaxConnectionRetryInterval=1))
        group = core.group
        for name in ("one", "two"):
            group.device(name)
        echo = group.function("echo", ECHO)
        group.subscribe(thing_arn("one"), "there", echo)
        group.subscribe(echo, "back", thing_arn("one"))
        group.subscribe(thing_arn("one"), "hello/world/pubsub", thing_arn("two"))
        core.start()
        group.deploy()
        core.discover(group.things["one"])
        yield core


def echoes(core: JoinedCore) -> bool:
    with Device(core, "one") as one:
        one.subscribe("back", 1)
        one.publish("there", '"hello"', qos=1)
        return one.expect() == ("back", b'"hello"')


# --- module 4: the published sample -----------------------------------------------------------------------


@contextlib.contextmanager
def forwarded(address: str, port: int) -> Iterator[None]:
    """DISCOVERY_PORT of an address leads to another port, byte for byte."""
    listener = socket.create_server((address, DISCOVERY_PORT))
    threads: list[threading.Thread] = []

    def copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                with near, socket.create_connection(("127.0.0.1", port)) as far:
                    back = threading.Thread(target=copy, args=(far, near))
                    back.start()
                    copy(near, far)
                    back.join()

    threads.append(threading.Thread(target=serve))
    threads[0].start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        threads[0].join(patience(10))
        listener.close()


def test_row_30_module_4_with_the_stock_sample(
    core: JoinedCore, cloud: CloudProcess, address: str, tmp_path: Path
) -> None:
    sample = fetched("device-samples") / "samples" / "greengrass" / "basicDiscovery.py"

    def run(name: str, mode: str) -> subprocess.Popen[str]:
        thing = core.group.things[name]
        place = tmp_path / name
        place.mkdir()
        files = ["-r", cloud.ca_path, "-c", thing.certificate, "-k", thing.key]
        words = ["-e", address, *files, "-n", name, "-t", "hello/world/pubsub", "-m", mode, "-M", "from the sample"]
        return subprocess.Popen(
            [sys.executable, "-u", str(sample), *map(str, words)],
            cwd=place,
            env={"PYTHONPATH": str(fetched("device-sdks")), "PATH": os.environ["PATH"]},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    with forwarded(address, cloud.https_port):
        hearer = run("two", "subscribe")
        teller = run("one", "publish")
        try:
            assert hearer.stdout is not None and teller.stdout is not None
            timer = threading.Timer(patience(60), hearer.kill)
            timer.start()
            said = []
            for line in hearer.stdout:
                said.append(line)
                if "from the sample" in line:
                    break
            timer.cancel()
            assert "from the sample" in said[-1], "".join(said)
        finally:
            for process in (hearer, teller):
                process.kill()
                process.communicate()


# --- addresses --------------------------------------------------------------------------------------------


def test_row_43_58_and_59_automatic_and_manual_addresses(core: JoinedCore) -> None:
    group = core.group
    manual = core.discover(group.things["one"])
    assert [entry["HostAddress"] for entry in manual] == ["127.0.0.1"]  # without the detector's entry nothing else
    core.stop()
    core.reconfigure(lambda config: config["ggfast"].update(detectLoopback=True))
    core.start()
    detector = "arn:aws:lambda:::function:GGIPDetector:1"
    group.functions["detector"] = {"Id": "detector", "FunctionArn": detector, "FunctionConfiguration": {"Pinned": True}}
    group.deploy()

    def detected() -> list[dict[str, Any]] | None:
        found = core.discover(group.things["one"])
        return found if all(entry["Id"].startswith("AUTOIP_") for entry in found) else None

    found = eventually(detected, "discovery has what the core detected", patience(20))
    assert "127.0.0.1" in [entry["HostAddress"] for entry in found]
    assert {entry["PortNumber"] for entry in found} == {core.port}
    del group.functions["detector"]
    group.deploy()
    core.reachable_at("127.0.0.1")
    assert len(core.discover(group.things["one"])) == 1
    assert echoes(core)


# --- keys of the group role -------------------------------------------------------------------------------


def keys(core: JoinedCore) -> Any:
    done = core.command("invoke", "echo", "--payload", '{"do": "keys"}')
    return json.loads(done.stdout)


def test_row_100_functions_get_the_group_roles_keys_also_offline(core: JoinedCore, cloud: CloudProcess) -> None:
    assert keys(core) == {"status": 404}
    iam, group = cloud.client("iam"), core.group
    trust = {"Effect": "Allow", "Principal": {"Service": "greengrass.amazonaws.com"}, "Action": "sts:AssumeRole"}
    role = iam.create_role(
        RoleName="group-role", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    )["Role"]["Arn"]
    group.api.associate_role_to_group(GroupId=group.group_id, RoleArn=role)
    found = eventually(lambda: got(core), "the keys are there", patience(90))
    assert set(found) >= {"AccessKeyId", "SecretAccessKey", "Token", "Expiration"}
    sts = cloud.client(
        "sts",
        aws_access_key_id=found["AccessKeyId"],
        aws_secret_access_key=found["SecretAccessKey"],
        aws_session_token=found["Token"],
    )
    assert ":assumed-role/group-role/" in sts.get_caller_identity()["Arn"]
    sealed = b"".join(path.read_bytes() for path in (core.root / "ggc" / "var" / "state").rglob("*") if path.is_file())
    assert found["SecretAccessKey"].encode() not in sealed
    core.stop()
    core.reconfigure(lambda config: config["coreThing"].update(ggHttpPort=1))  # nobody is there
    core.start()
    try:
        assert keys(core) == found
    finally:
        core.stop()
        core.reconfigure(lambda config: config["coreThing"].update(ggHttpPort=cloud.https_port))
        core.start()


def got(core: JoinedCore) -> Any:
    found = keys(core)
    return found if "AccessKeyId" in found else None


# --- resets -----------------------------------------------------------------------------------------------


def is_clean(core: JoinedCore) -> bool:
    state = core.root / "ggc" / "var" / "state"
    gone = (state / "server" / "server.crt", state / "shadow" / "shadows.db", state / "credentials")
    functions = list((core.deployment_directory / "lambda").iterdir())
    logs = list((core.root / "ggc" / "var" / "log" / "user").iterdir())
    return not functions and not logs and not any(path.exists() for path in gone)


def test_row_24_and_26_a_reset_leaves_what_is_the_owners(core: JoinedCore) -> None:
    group = core.group
    assert echoes(core)
    eventually(lambda: "echoing" in core.function_log("echo"), "the function has logged")
    assert (core.root / "ggc" / "var" / "state" / "shadow" / "shadows.db").exists()
    reset = group.reset()
    with pytest.raises(ClientError, match=r"is InProgress|has already been reset"):
        group.reset()
    assert group.ended(reset)["DeploymentStatus"] == "Success"
    assert is_clean(core)
    assert core.functions() == {}
    certs = {path.name for path in (core.root / "certs").iterdir()}
    assert "root.ca.pem" in certs and len(certs) == 4
    assert (core.root / "config" / "config.json").exists()
    group.deploy()
    core.discover(group.things["one"])
    assert echoes(core)


def test_row_25_a_forced_reset_reaches_a_core_that_was_off(core: JoinedCore) -> None:
    group = core.group
    core.stop()
    reset = group.reset(force=True)
    assert group.status(reset)["DeploymentStatus"] == "Success"
    assert not is_clean(core)
    core.start()
    eventually(lambda: is_clean(core), "the core has cleaned itself", patience(20))
    last = time.monotonic()
    group.deploy()
    core.discover(group.things["one"])
    assert echoes(core), time.monotonic() - last
    group.ended(group.reset(force=True))
    group.api.delete_group(GroupId=group.group_id)
