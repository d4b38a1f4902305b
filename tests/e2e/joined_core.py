"""A real core of a real control plane: provisioned by `create-core`, its group made and deployed through boto3.

with a_joined_core(cloud) as core:
    group = core.group
    group.device("lamp")
    echo = group.function("echo", SOURCE, Pinned=True)
    group.subscribe(thing_arn("lamp"), "ask", echo)
    core.start()
    group.deploy()
    core.discover("lamp")
    with Device(core, "lamp") as lamp: ...

`Device` of harness.py then connects with the certificate the control plane has issued, trusting the group CA that
discovery has named.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import random
import shutil
import socket
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.cloud_device import Device as CloudDevice
from tests.e2e.cloud_device import HttpAnswer
from tests.e2e.cloud_process import CloudProcess, run_cloud
from tests.e2e.harness import Core, free_port, open_directory, thing_arn
from tests.patience import patience

HOST = "127.0.0.1"
DISCOVERY_PORT = 8_443  # the only one that published discovery samples know
DEPLOYED_S = patience(60.0)
POLL_S = 0.1
KINDS = ("Core", "Device", "Function", "Subscription", "Resource", "Logger")


def loopback_address() -> str:
    """An address of the loopback network where nobody listens on DISCOVERY_PORT."""
    while True:
        address = f"127.{random.randint(1, 254)}.{random.randint(0, 255)}.{random.randint(1, 254)}"
        with socket.socket() as probe:
            try:
                probe.bind((address, DISCOVERY_PORT))
            except OSError:
                continue
            return address


def package(source: str, *, sdk: bool = True) -> bytes:
    """A function's archive: main.py, with the installed, unmodified greengrasssdk unless told otherwise."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr("main.py", source)
        for file in (importlib.metadata.files("greengrasssdk") or ()) if sdk else ():
            if file.parts[0] == "greengrasssdk" and file.suffix == ".py":
                archive.write(str(file.locate()), str(file))
    return raw.getvalue()


@dataclass
class CloudGroup:
    """A group in the control plane: what its next version holds. Every change is an API call by boto3."""

    cloud: CloudProcess
    group_id: str
    certificates: Path
    core: dict[str, Any]
    things: dict[str, CloudDevice] = field(default_factory=dict)
    devices: dict[str, dict[str, Any]] = field(default_factory=dict)
    functions: dict[str, dict[str, Any]] = field(default_factory=dict)
    subscriptions: list[dict[str, Any]] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    loggers: list[dict[str, Any]] = field(default_factory=list)
    default_config: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.api = self.cloud.client("greengrass")
        self._lambda = self.cloud.client("lambda")

    # --- members ---

    def device(self, name: str, *, member: bool = True) -> CloudDevice:
        """A thing with a certificate and a policy; a device of the group unless it shall be a stranger to it."""
        made = CloudDevice.make(self.cloud, name)
        place = self.certificates / name
        place.mkdir(parents=True)
        made.certificate = Path(shutil.move(made.certificate, place / f"{name}.crt"))
        made.key = Path(shutil.move(made.key, place / f"{name}.key"))
        self.things[name] = made
        if member:
            self.admit(made)
        return made

    def admit(self, device: CloudDevice) -> None:
        """A thing becomes a device of the group."""
        self.devices[device.thing] = {
            "Id": device.thing,
            "ThingArn": device.arn,
            "CertificateArn": device.certificate_arn,
            "SyncShadow": False,
        }

    def function(
        self, name: str, source: str | bytes, *, sdk: bool = True, handler: str = "main.handler", **configuration: Any
    ) -> str:
        """Make a function of one module or an archive, publish it, and put it into the group by an alias; the alias's
        ARN."""
        self._lambda.create_function(
            FunctionName=name,
            Runtime="python3.8",
            Role=f"arn:aws:iam::{self.cloud.account}:role/lambda",
            Handler=handler,
            Code={"ZipFile": source if isinstance(source, bytes) else package(source, sdk=sdk)},
            Publish=True,
        )
        arn: str = self._lambda.create_alias(FunctionName=name, Name="live", FunctionVersion="1")["AliasArn"]
        self.functions[name] = {
            "Id": name,
            "FunctionArn": arn,
            "FunctionConfiguration": {"MemorySize": 32_768, "Timeout": 5, **configuration},
        }
        return arn

    def new_code(self, name: str, source: str, *, sdk: bool = True) -> str:
        """Publish other code and move the alias to it; the new version."""
        archive = package(source, sdk=sdk)
        version: str = self._lambda.update_function_code(FunctionName=name, ZipFile=archive, Publish=True)["Version"]
        self.point(name, version)
        return version

    def point(self, name: str, version: str) -> None:
        """Move a function's alias."""
        self._lambda.update_alias(FunctionName=name, Name="live", FunctionVersion=version)

    def subscribe(self, source: str, subject: str, target: str) -> None:
        """A further subscription."""
        identifier = f"s{len(self.subscriptions)}"
        self.subscriptions.append({"Id": identifier, "Source": source, "Subject": subject, "Target": target})

    # --- deployments ---

    def version(self) -> str:
        """Make a group version of everything; its id."""
        content: dict[str, list[dict[str, Any]]] = {
            "Core": [self.core],
            "Device": list(self.devices.values()),
            "Function": list(self.functions.values()),
            "Subscription": self.subscriptions,
            "Resource": self.resources,
            "Logger": self.loggers,
        }
        references = {}
        for kind in KINDS:
            first: dict[str, Any] = {f"{kind}s": content[kind]}
            if kind == "Function" and self.default_config is not None:
                first["DefaultConfig"] = self.default_config
            create = getattr(self.api, f"create_{kind.lower()}_definition")
            references[f"{kind}DefinitionVersionArn"] = create(InitialVersion=first)["LatestVersionArn"]
        return str(self.api.create_group_version(GroupId=self.group_id, **references)["Version"])

    def begin(self, version: str = "", **again: str) -> str:
        """Start a deployment of a version (a new one by default), or of what `again` says; its id."""
        what = again or {"DeploymentType": "NewDeployment", "GroupVersionId": version or self.version()}
        return str(self.api.create_deployment(GroupId=self.group_id, **what)["DeploymentId"])

    def status(self, deployment: str) -> dict[str, Any]:
        """GetDeploymentStatus."""
        found: dict[str, Any] = self.api.get_deployment_status(GroupId=self.group_id, DeploymentId=deployment)
        return found

    def ended(self, deployment: str, timeout_s: float = DEPLOYED_S) -> dict[str, Any]:
        """Its status once it has succeeded or failed; fails the test if it does neither."""
        deadline = time.monotonic() + timeout_s
        while (found := self.status(deployment))["DeploymentStatus"] in ("Building", "InProgress"):
            assert time.monotonic() < deadline, f"still {found['DeploymentStatus']} after {timeout_s} s"
            time.sleep(POLL_S)
        return found

    def deploy(self, version: str = "", **again: str) -> str:
        """Deploy to the end, which must be Success; the deployment's id."""
        deployment = self.begin(version, **again)
        found = self.ended(deployment)
        assert found["DeploymentStatus"] == "Success", found.get("ErrorMessage")
        return deployment

    def refused(self, version: str = "") -> str:
        """Deploy to the end, which must be Failure; its message."""
        deployment = self.begin(version)
        found = self.ended(deployment)
        assert found["DeploymentStatus"] == "Failure", found
        message: str = found["ErrorMessage"]
        expected = f"Deployment {deployment} of type NewDeployment for group {self.group_id} failed error: "
        assert message.startswith(expected), message
        return message.removeprefix(expected)

    def reset(self, *, force: bool = False) -> str:
        """Begin a reset; its id."""
        return str(self.api.reset_deployments(GroupId=self.group_id, Force=force)["DeploymentId"])


class JoinedCore(Core):
    """The root as `create-core` filled it, settled for tests: own ports and files, no systemd, loopback."""

    def __init__(self, directory: Path, cloud: CloudProcess, name: str) -> None:
        self.cloud = cloud
        self.thing = name
        options = ["--mqtt-port", str(cloud.mqtt_port), "--https-port", str(cloud.https_port), "--json"]
        setup = directory / "setup.tar.gz"
        made = json.loads(run_cloud("create-core", name, "--dir", cloud.folder, "--out", setup, *options).stdout)
        with tarfile.open(setup) as archive:
            archive.extractall(directory / "greengrass")
        self._provisioned = json.loads((directory / "greengrass" / "config" / "config.json").read_text())
        super().__init__(directory)
        self.group = CloudGroup(cloud, made["groupId"], directory / "device-certificates", self._core_entry(made))

    def _core_entry(self, made: dict[str, str]) -> dict[str, Any]:
        certificate = f"arn:aws:iot:{self.cloud.region}:{self.cloud.account}:cert/{made['certificateId']}"
        return {"Id": "core", "ThingArn": made["thingArn"], "CertificateArn": certificate, "SyncShadow": False}

    def config(self) -> dict[str, Any]:
        """As provisioned, with what differs in tests."""
        config = json.loads(json.dumps(self._provisioned))
        config["coreThing"] |= {"ggMqttPort": self.port, "ggDaemonPort": free_port()}
        config["runtime"]["cgroup"]["useSystemd"] = "no"
        return config | {"pidFileDirectory": str(self.pid_directory), "ggfast": {"mqttHost": HOST}}

    def reconfigure(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change config.json as it is; takes effect at the next start."""
        path = self.root / "config" / "config.json"
        config = json.loads(path.read_text())
        change(config)
        path.write_text(json.dumps(config))

    @property
    def arn(self) -> str:
        return thing_arn(self.thing)

    @property
    def group_ca(self) -> Path:
        """What devices have learned to trust; see `discover`."""
        return self.directory / "group-ca.pem"

    @property
    def deployment_directory(self) -> Path:
        return self.root / "ggc" / "deployment"

    def live(self) -> dict[str, Any]:
        """The deployment that the group on disk came by."""
        found: dict[str, Any] = json.loads((self.deployment_directory / "group" / "deployment.json").read_text())
        return found

    def document(self) -> dict[str, Any]:
        """group.json."""
        found: dict[str, Any] = json.loads((self.deployment_directory / "group" / "group.json").read_text())
        return found

    def reachable_at(self, *hosts: str) -> None:
        """Tell the control plane where devices find this core: connectivity as people enter it."""
        entries = [{"Id": f"h{at}", "HostAddress": host, "PortNumber": self.port} for at, host in enumerate(hosts)]
        self.group.api.update_connectivity_info(ThingName=self.thing, ConnectivityInfo=entries)

    def discovery(self, device: CloudDevice) -> HttpAnswer:
        """What discovery tells a device."""
        return device.http("GET", f"/greengrass/discover/thing/{device.thing}")

    def discover(self, device: CloudDevice) -> list[dict[str, Any]]:
        """Let a device discover; its group's CAs are what `Device` trusts from now on. The core's addresses."""
        answer = self.discovery(device)
        assert answer.status == 200, answer.body
        (found,) = [entry for entry in answer.json["GGGroups"] if entry["GGGroupId"] == self.group.group_id]
        self.group_ca.write_text("".join(found["CAs"]))
        addresses: list[dict[str, Any]] = found["Cores"][0]["Connectivity"]
        return addresses

    def functions(self) -> dict[str, dict[str, Any]]:
        """What `status` says of each function, by name."""
        return {row["name"]: row for row in self.status()["functions"]}


@contextmanager
def a_joined_core(cloud: CloudProcess, name: str = "gateway", *, host: str = HOST) -> Iterator[JoinedCore]:
    """A provisioned core in a directory of its own, reachable at `host`; stopped and gone afterwards."""
    with open_directory() as directory:
        core = JoinedCore(directory, cloud, name)
        core.reachable_at(host)
        try:
            yield core
        finally:
            if core.pid_file.exists():
                core.stop(check=False)
