"""Prepares the demo's root: the example group with its SDK and certificates filled in, and a config.json.

    <directory>/greengrass/config/config.json    local mode, loopback, ports that were free
    <directory>/cold-room/                       working copy of examples/cold-room, ready to deploy
    <directory>/devices/<thing>.crt|.key         what each device would carry

Blocking; touches nothing outside the directory.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

import ggfast
from ggfast.cli.cert import make_device
from ggfast.errors import OperatingError
from ggfast.layout import Layout

EXAMPLE = Path("examples", "cold-room")
CORE = "coldroom-core"
DEVICES = ("thermometer", "display", "door")
HOST = "127.0.0.1"
_PLACEHOLDER = "CERTIFICATE-OF-"  # in the example's CertificateArn members, followed by the thing name
_CORE_ARN = f"arn:aws:iot:eu-west-1:123456789012:thing/{CORE}"


@dataclass(frozen=True, slots=True)
class DemoGroup:
    """A prepared demo: where everything is."""

    root: Path
    folder: Path
    devices: Path
    port: int

    @property
    def layout(self) -> Layout:
        """The paths below the root."""
        return Layout.of(self.root, pid_directory=self.root.parent / "run")

    @property
    def ca(self) -> Path:
        """The group CA, made by the core at its first start."""
        return self.layout.server_key.parent / "ca.crt"

    def certificate(self, device: str) -> Path:
        """The certificate of a device; its key lies beside it."""
        return self.devices / f"{thing_name(device)}.crt"


def thing_name(device: str) -> str:
    """The thing name of one of the example's devices."""
    return f"coldroom-{device}"


def require_libraries() -> None:
    """Raise OperatingError, saying what to install, unless all of the extra `demo` is here."""
    needed = ("paho.mqtt", "greengrasssdk", "cryptography")
    missing = [name for name in needed if not _is_installed(name)]
    if missing:
        raise OperatingError(
            f"The demo needs {', '.join(missing)}, not installed here.", hint="Install: pip install 'ggfast[demo]'"
        )


def example_folder() -> Path:
    """The example group, in the checkout or as the installed package brought it. Raises OperatingError."""
    beside = Path(ggfast.__file__).parent.parent / EXAMPLE
    if (beside / "group.json").is_file():
        return beside
    try:
        installed = importlib.metadata.files("ggfast") or []
    except importlib.metadata.PackageNotFoundError:
        installed = []
    for file in installed:
        if file.parts[-3:] == (*EXAMPLE.parts, "group.json"):
            return Path(str(file.locate())).resolve().parent
    raise OperatingError(
        f"The example group {EXAMPLE} is neither beside the package nor installed with it (looked at {beside}).",
        hint="Run the demo from a checkout.",
    )


def prepare(directory: Path, example: Path) -> DemoGroup:
    """Fill `directory`, which other users may enter. Raises OperatingError or OSError."""
    group = DemoGroup(directory / "greengrass", directory / "cold-room", directory / "devices", free_port())
    shutil.copytree(example, group.folder, ignore=shutil.ignore_patterns("__pycache__", "certificates"))
    copy_sdk(group.folder / "functions" / "monitor")
    ids = {CORE: make_device(group.root / "certs", name=CORE, ca=None)}
    certificates = group.folder / "certificates"
    certificates.mkdir()
    for device in DEVICES:
        name = thing_name(device)
        ids[name] = make_device(group.devices, name=name, ca=None)
        shutil.copyfile(group.certificate(device), certificates / f"{name}.pem")
    document = group.folder / "group.json"
    document.write_text(fill_in(document.read_text(encoding="utf-8"), ids), encoding="utf-8")
    _write_config(group)
    return group


def fill_in(document: str, ids: dict[str, str]) -> str:
    """`document` with each placeholder replaced by the certificate id of its thing. Raises OperatingError if a
    placeholder is missing or left over: the example and the demo would then not be about the same things."""
    for name, certificate_id in ids.items():
        placeholder = f'{_PLACEHOLDER}{name}"'
        if document.count(placeholder) != 1:
            raise OperatingError(f"group.json has {document.count(placeholder)} times {placeholder}, expected once.")
        document = document.replace(placeholder, f'{certificate_id}"')
    if _PLACEHOLDER in document:
        raise OperatingError("group.json has a certificate placeholder for a thing the demo does not know.")
    return document


def copy_sdk(package: Path) -> None:
    """Bundle the installed, unmodified greengrasssdk into a function package, as `pip install --target` does."""
    for file in importlib.metadata.files("greengrasssdk") or ():
        if file.parts[0] == "greengrasssdk" and file.suffix == ".py":
            target = package / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), target)


def free_port() -> int:
    """A loopback TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _write_config(group: DemoGroup) -> None:
    config = {
        "coreThing": {"thingArn": _CORE_ARN, "ggMqttPort": group.port, "ggDaemonPort": free_port()},
        "runtime": {"cgroup": {"useSystemd": "no"}},
        "pidFileDirectory": str(group.layout.pid_directory),
        "ggfast": {"local": True, "mqttHost": HOST},
    }
    group.layout.pid_directory.mkdir()
    group.layout.configuration_directory.mkdir(parents=True)
    group.layout.config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
