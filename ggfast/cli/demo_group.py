"""What the demo is about: the example's things, where their files lie, and what has to be installed. Blocking."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import ggfast
from ggfast.errors import OperatingError
from ggfast.layout import Layout

EXAMPLE = Path("examples", "cold-room")
CORE = "coldroom-core"
DEVICES = ("thermometer", "display", "door")
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class DemoGroup:
    """A prepared demo: where everything is."""

    root: Path
    devices: Path
    port: int  # of the core's broker
    discovery_port: int  # of the control plane's HTTPS
    failure: Callable[[], str] = lambda: ""  # why the deployment failed, empty if it has not; blocks

    def deployed_by(self, failure: Callable[[], str]) -> DemoGroup:
        """With the way to learn how its deployment goes."""
        return replace(self, failure=failure)

    @property
    def layout(self) -> Layout:
        """The paths below the root."""
        return Layout.of(self.root, pid_directory=self.root.parent / "run")

    @property
    def cloud_ca(self) -> Path:
        """Whom devices trust as their control plane; its group CA they discover."""
        return self.root / "certs" / "root.ca.pem"

    def certificate(self, device: str) -> Path:
        """The certificate of a device; its key lies beside it."""
        return self.devices / f"{thing_name(device)}.crt"


def thing_name(device: str) -> str:
    """The thing name of one of the example's devices."""
    return f"coldroom-{device}"


def require_libraries() -> None:
    """Raise OperatingError, saying what to install, unless all of the extra `demo` is here."""
    needed = ("paho.mqtt", "greengrasssdk", "boto3", "aiohttp", "sqlite_utils", "cryptography")
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


def copy_sdk() -> list[tuple[str, Path]]:
    """Name in a package and place on disk of each file of the installed, unmodified greengrasssdk."""
    return [
        (str(file), Path(str(file.locate())))
        for file in importlib.metadata.files("greengrasssdk") or ()
        if file.parts[0] == "greengrasssdk" and file.suffix == ".py"
    ]


def free_port() -> int:
    """A loopback TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def extend_config(group: DemoGroup) -> None:
    """What this machine needs in the configuration that `create-core` made: ports that were free, loopback alone."""
    config = json.loads(group.layout.config_file.read_text(encoding="utf-8"))
    config["coreThing"] |= {"ggMqttPort": group.port, "ggDaemonPort": free_port()}
    config["runtime"] = {"cgroup": {"useSystemd": "no"}}
    config["pidFileDirectory"] = str(group.layout.pid_directory)
    config["ggfast"] = {"mqttHost": HOST}
    group.layout.pid_directory.mkdir()
    group.layout.config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
