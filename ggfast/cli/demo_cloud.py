"""The demo's control plane, and the cold room made in it the way its users make a group: through boto3.

    <directory>/cloud/                   a control plane, served by a process of its own on ports that were free
    <directory>/greengrass/              what `ggfast-cloud create-core` gives a device
    <directory>/devices/<thing>.crt|.key what each device would carry

The example's group.json says what is in the group; functions are uploaded, published and referred to by version, things
and certificates are registered, and one deployment is asked for. The core fetches it when it starts. Blocking.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggfast.cli.demo_group import CORE, DEVICES, HOST, DemoGroup, copy_sdk, extend_config, free_port, thing_name
from ggfast.errors import OperatingError
from ggfast.limits import DEMO_START_TIMEOUT_S

ACCOUNT, REGION = "123456789012", "eu-west-1"  # as in the example's ARNs
_ROLE = f"arn:aws:iam::{ACCOUNT}:role/coldroom"
_DISCOVER = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "greengrass:Discover", "Resource": "*"}],
}
_WORDS = 2_000  # characters of what a failed command said


def cloud_command(*arguments: str) -> list[str]:
    """`ggfast-cloud` of this installation as a command line."""
    return [sys.executable, "-I", "-m", "ggfast.cli.cloud", *arguments]


@dataclass(frozen=True, slots=True)
class MadeCloud:
    """A control plane that is not served yet: what `init` printed, and its ports."""

    folder: Path
    made: Mapping[str, str]
    api_port: int
    mqtt_port: int
    https_port: int

    @property
    def serve(self) -> list[str]:
        """The command that serves it."""
        ports = {"api": self.api_port, "mqtt": self.mqtt_port, "https": self.https_port}
        options = [f"--{name}-port={port}" for name, port in ports.items()]
        return cloud_command("serve", str(self.folder), f"--host={HOST}", "--json", *options)

    def client(self, service: str) -> Any:
        """boto3's client of one of its services, with the administrator's key."""
        import boto3

        return boto3.session.Session().client(
            service,
            region_name=REGION,
            endpoint_url=f"https://localhost:{self.api_port}",
            verify=self.made["caPath"],
            aws_access_key_id=self.made["accessKeyId"],
            aws_secret_access_key=self.made["secretAccessKey"],
        )


def make_cloud(directory: Path) -> MadeCloud:
    """A new control plane below `directory`. Raises OperatingError with the words of the command that failed."""
    folder = directory / "cloud"
    options = ("--account", ACCOUNT, "--region", REGION, "--host", "localhost", "--json")
    made = json.loads(_run(cloud_command("init", str(folder), *options)))
    return MadeCloud(folder, made, free_port(), free_port(), free_port())


def make_group(cloud: MadeCloud, directory: Path, example: Path) -> DemoGroup:
    """The core's root and the cold room in a control plane that is served now, with its deployment asked for."""
    group = DemoGroup(directory / "greengrass", directory / "devices", free_port(), cloud.https_port)
    options = ("--dir", str(cloud.folder), "--out", str(group.root), "--json")
    ports = ("--mqtt-port", str(cloud.mqtt_port), "--https-port", str(cloud.https_port))
    core = json.loads(_run(cloud_command("create-core", CORE, *options, *ports)))
    extend_config(group)
    document = json.loads((example / "group.json").read_text(encoding="utf-8"))
    greengrass = cloud.client("greengrass")
    # A core of its own machine alone: what it would find out about its addresses is not how it is reached here.
    address = {"Id": "demo", "HostAddress": HOST, "PortNumber": group.port}
    greengrass.update_connectivity_info(ThingName=CORE, ConnectivityInfo=[address])
    _upload(cloud.client("lambda"), document["Functions"], example)
    devices = [entry | {"CertificateArn": _register(cloud, group, entry)} for entry in document["Devices"]]
    functions = [_only(entry, "Id", "FunctionArn", "FunctionConfiguration") for entry in document["Functions"]]
    version = greengrass.get_group(GroupId=core["groupId"])["LatestVersion"]
    before = greengrass.get_group_version(GroupId=core["groupId"], GroupVersionId=version)["Definition"]
    made = greengrass.create_group_version(
        GroupId=core["groupId"],
        CoreDefinitionVersionArn=before["CoreDefinitionVersionArn"],
        **_definition(greengrass, "device", Devices=devices),
        **_definition(greengrass, "function", Functions=functions),
        **_definition(greengrass, "subscription", Subscriptions=document["Subscriptions"]),
        **_definition(greengrass, "logger", Loggers=document["Loggers"]),
    )
    deployment = greengrass.create_deployment(
        GroupId=core["groupId"], GroupVersionId=made["Version"], DeploymentType="NewDeployment"
    )
    return group.deployed_by(lambda: _failure(greengrass, core["groupId"], deployment["DeploymentId"]))


def _definition(greengrass: Any, kind: str, **content: Any) -> dict[str, str]:
    made = getattr(greengrass, f"create_{kind}_definition")(Name=f"coldroom {kind}s", InitialVersion=content)
    return {f"{kind.capitalize()}DefinitionVersionArn": made["LatestVersionArn"]}


def _upload(client: Any, functions: list[dict[str, Any]], example: Path) -> None:
    for entry in functions:
        client.create_function(
            FunctionName=entry["FunctionArn"].split(":")[6],
            Runtime=entry["Runtime"],
            Handler=entry["Handler"],
            Role=_ROLE,
            Code={"ZipFile": _package(example / entry["Code"])},
            Publish=True,
        )


def _package(folder: Path) -> bytes:
    """A function's folder as an archive, with the published SDK in it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*.py")):
            archive.write(path, path.relative_to(folder))
        for name, path in copy_sdk():
            archive.write(path, name)
    return packed.getvalue()


def _register(cloud: MadeCloud, group: DemoGroup, entry: Mapping[str, str]) -> str:
    """Thing, certificate and policy of a device; its certificate's ARN. Key and certificate go into its folder."""
    iot = cloud.client("iot")
    name = entry["ThingArn"].rpartition("/")[2]
    iot.create_thing(thingName=name)
    keys = iot.create_keys_and_certificate(setAsActive=True)
    arn = str(keys["certificateArn"])
    iot.attach_thing_principal(thingName=name, principal=arn)
    iot.create_policy(policyName=f"{name}-discovers", policyDocument=json.dumps(_DISCOVER))
    iot.attach_policy(policyName=f"{name}-discovers", target=arn)
    group.devices.mkdir(exist_ok=True)
    certificate = group.devices / f"{name}.crt"
    certificate.write_text(keys["certificatePem"])
    key = certificate.with_suffix(".key")
    key.touch(mode=0o600)
    key.write_text(keys["keyPair"]["PrivateKey"])
    assert name in map(thing_name, DEVICES), f"the example has a device {name} that the demo does not know"
    return arn


def _failure(greengrass: Any, group_id: str, deployment_id: str) -> str:
    """Why the deployment failed, empty if it has not."""
    found = greengrass.get_deployment_status(GroupId=group_id, DeploymentId=deployment_id)
    return str(found["ErrorMessage"]) if found["DeploymentStatus"] == "Failure" else ""


def _only(entry: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: entry[name] for name in names}


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=DEMO_START_TIMEOUT_S, stdin=subprocess.DEVNULL, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise OperatingError(f"{command[4]} did not end in {DEMO_START_TIMEOUT_S:.0f} s.") from error
    if done.returncode != 0:
        raise OperatingError(f"ggfast-cloud {command[4]} failed:\n{(done.stdout + done.stderr)[-_WORDS:]}")
    return done.stdout
