"""`ggfast-cloud create-core`: a new core the way the console's easy creation made one, by the same operations.

Thing, keys and certificate, IoT policy, core definition, group with its CA, and the files for the device: unpacked at
/greengrass they fill `certs/` and `config/config.json` (greengrass-core 2.1).
"""

from __future__ import annotations

import argparse
import io
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggfast.cli.cloud_folder import in_folder
from ggfast.cli.cloud_init import prepare_folder
from ggfast.cloud.faults import Fault
from ggfast.cloud.iot.things import get_thing
from ggfast.cloud.keys import user_arn
from ggfast.cloud.operations import Principal
from ggfast.cloud.server import Opened, Ports
from ggfast.cloud.services import all_services
from ggfast.cloud.settings import CloudFolder, CloudSettings, load_settings
from ggfast.errors import ConfigError, OperatingError, Problem
from ggfast.storage.privatefiles import write_private

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,124}")  # of a thing, with room for what shadows of its deployments append
_OPERATOR = "command-line"
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["iot:Publish", "iot:Subscribe", "iot:Connect", "iot:Receive"],
            "Resource": ["*"],
        },
        {
            "Effect": "Allow",
            "Action": ["iot:GetThingShadow", "iot:UpdateThingShadow", "iot:DeleteThingShadow"],
            "Resource": ["*"],
        },
        {"Effect": "Allow", "Action": ["greengrass:*"], "Resource": ["*"]},
    ],
}


@dataclass(frozen=True, slots=True)
class NewCore:
    """What was made."""

    name: str
    thing_arn: str
    group_id: str
    certificate_id: str
    certificate_pem: str
    private_key_pem: str
    public_key_pem: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ggfast-cloud create-core`."""
    parser.add_argument("name", metavar="NAME", help="of thing and group")
    parser.add_argument(
        "--dir", type=Path, default=Path(), metavar="DIR", help="the control plane's (default: this one)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="PATH", help="folder, or file ending in .tar.gz (default: NAME-setup)"
    )
    parser.add_argument("--region", metavar="R", help="default: the control plane's")
    for name in ("mqtt", "https"):
        text = f"port at which the device reaches the server (default: `{name}Port` of cloud.json)"
        parser.add_argument(f"--{name}-port", type=int, metavar="N", help=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Make the core. Raises ConfigError, OperatingError, StorageFailed; what was made before a refusal stays."""
    if _NAME.fullmatch(args.name) is None:
        raise ConfigError("The core cannot be made.", [Problem("NAME", repr(args.name[:160]), f"{_NAME.pattern}")])
    folder = CloudFolder(args.dir.absolute())
    settings = load_settings(folder)
    ports = Ports(
        settings.api_port,
        settings.mqtt_port if args.mqtt_port is None else args.mqtt_port,
        settings.https_port if args.https_port is None else args.https_port,
    )
    _check_ports(ports)
    out: Path = args.out or Path(f"{args.name}-setup")
    archive = out.name.endswith((".tar.gz", ".tgz"))
    if archive and out.exists():
        raise OperatingError(f"{out} is there already.", hint="Give another --out.")
    made_here = False if archive else prepare_folder(out)
    region = args.region or settings.region

    async def work(cloud: Opened, _: CloudSettings) -> NewCore:
        return await make_core(cloud, settings, region, args.name)

    try:
        core = in_folder(args.dir, work, ports)
    except BaseException:
        if made_here:
            out.rmdir()
        raise
    files = device_files(core, settings.hosts[0], ports, folder.ca.read_text())
    _write_archive(out, files) if archive else _write_folder(out, files)
    _show(args.json, core, out)
    return 0


def _check_ports(ports: Ports) -> None:
    problems = [
        Problem(f"--{name}-port", str(port), "1 to 65535: where the device reaches the server")
        for name, port in (("mqtt", ports.mqtt), ("https", ports.https))
        if not 1 <= port <= 65_535
    ]
    if problems:
        raise ConfigError("The core cannot be made.", problems)


async def make_core(cloud: Opened, settings: CloudSettings, region: str, name: str) -> NewCore:
    """The operations, one after the other. Raises OperatingError with the refusal of one."""
    services = all_services()
    operator = Principal(user_arn(settings.account, _OPERATOR), _OPERATOR, lambda _action, _resource: True)

    async def call(service: str, operation: str, **members: Any) -> Mapping[str, Any]:
        found = services[service]
        try:
            reply = await cloud.dispatcher.run(found, found.operations[operation], members, operator, region)
        except Fault as fault:
            raise OperatingError(f"{service} {operation} was refused: {fault.code} {fault.message}") from fault
        return reply.members

    home = f"{settings.account}/{region}"
    if await cloud.store.read(lambda tx: get_thing(tx, home, name)) is not None:
        raise OperatingError(f"There is a thing {name!r} already.", hint="Give another name.")
    thing = await call("iot", "CreateThing", thingName=name)
    keys = await call("iot", "CreateKeysAndCertificate", setAsActive=True)
    policy = f"{name}-policy"
    await call("iot", "CreatePolicy", policyName=policy, policyDocument=json.dumps(POLICY))
    await call("iot", "AttachPolicy", policyName=policy, target=keys["certificateArn"])
    await call("iot", "AttachThingPrincipal", thingName=name, principal=keys["certificateArn"])
    core = {"Id": "core", "ThingArn": thing["thingArn"], "CertificateArn": keys["certificateArn"], "SyncShadow": True}
    definition = await call(
        "greengrass", "CreateCoreDefinition", Name=f"{name}-cores", InitialVersion={"Cores": [core]}
    )
    version = {"CoreDefinitionVersionArn": definition["LatestVersionArn"]}
    group = await call("greengrass", "CreateGroup", Name=name, InitialVersion=version)
    await call("greengrass", "CreateGroupCertificateAuthority", GroupId=group["Id"])
    return NewCore(
        name=name,
        thing_arn=thing["thingArn"],
        group_id=group["Id"],
        certificate_id=keys["certificateId"],
        certificate_pem=keys["certificatePem"],
        private_key_pem=keys["keyPair"]["PrivateKey"],
        public_key_pem=keys["keyPair"]["PublicKey"],
    )


def device_files(core: NewCore, host: str, ports: Ports, ca_pem: str) -> dict[str, tuple[bytes, int]]:
    """What the device needs: content and mode by path below /greengrass."""
    short = core.certificate_id[:10]  # as the setup archive named its files
    thing = {
        "caPath": "root.ca.pem",
        "certPath": f"{short}.cert.pem",
        "keyPath": f"{short}.private.key",
        "thingArn": core.thing_arn,
        "iotHost": host,
        "ggHost": host,
        "keepAlive": 600,
        "iotMqttPort": ports.mqtt,
        "iotHttpPort": ports.https,
        "ggHttpPort": ports.https,
    }
    config = {
        "coreThing": thing,
        "runtime": {"cgroup": {"useSystemd": "yes"}},
        "managedRespawn": False,
    }
    return {
        "config/config.json": ((json.dumps(config, indent=2) + "\n").encode(), 0o644),
        "certs/root.ca.pem": (ca_pem.encode(), 0o644),
        f"certs/{short}.cert.pem": (core.certificate_pem.encode(), 0o644),
        f"certs/{short}.public.key": (core.public_key_pem.encode(), 0o644),
        f"certs/{short}.private.key": (core.private_key_pem.encode(), 0o600),
    }


def _write_folder(out: Path, files: Mapping[str, tuple[bytes, int]]) -> None:
    out.chmod(0o755)  # it is a Greengrass root: functions' users have to pass; the key alone is private
    for name, (content, mode) in files.items():
        path = out / name
        path.parent.mkdir(mode=0o755, exist_ok=True)
        write_private(path, content, mode)


def _write_archive(out: Path, files: Mapping[str, tuple[bytes, int]]) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            tar.addfile(entry, io.BytesIO(content))
    write_private(out, packed.getvalue())


def _show(as_json: bool, core: NewCore, out: Path) -> None:
    if as_json:
        found = {
            "thingName": core.name,
            "thingArn": core.thing_arn,
            "groupId": core.group_id,
            "certificateId": core.certificate_id,
            "path": str(out),
        }
        print(json.dumps(found))
        return
    print(f"The core {core.name} and its group {core.group_id} are there.")
    print(f"{out} holds what goes below /greengrass on the device; its private key is nowhere else.")
