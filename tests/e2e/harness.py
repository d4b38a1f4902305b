"""A whole core for tests: its root, its group folder, its devices, driven by the commands users have.

Nothing is replaced: `ggfast-core` runs as its own processes, devices are paho or mosquitto clients over mutual TLS.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import queue
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho

from tests.patience import patience

REGION = "eu-west-1"
ACCOUNT = "123456789012"
GROUP_ID = "5a0f3c1e-8f5e-4a51-9d27-3f6f4b8d2c10"  # one group in several versions, as deployments make them
CONNACK_TIMEOUT_S = patience(10.0)


def free_port() -> int:
    """A TCP port that was free a moment ago on the loopback address."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def thing_arn(name: str) -> str:
    return f"arn:aws:iot:{REGION}:{ACCOUNT}:thing/{name}"


def function_arn(name: str, version: str = "1") -> str:
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}:{version}"


def run_command(
    *arguments: str | Path, timeout_s: float = patience(90.0), check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run `ggfast-core` with these arguments and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "ggfast.cli.core", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"ggfast-core {arguments}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


@contextmanager
def open_directory(prefix: str = "ggfast-test-") -> Iterator[Path]:
    """A directory that other users may enter, removed afterwards."""
    path = Path(tempfile.mkdtemp(prefix=prefix))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def copy_sdk(target: Path) -> None:
    """Bundle the installed, unmodified greengrasssdk into a function folder, as `pip install --target` does."""
    for file in importlib.metadata.files("greengrasssdk") or ():
        if file.parts[0] == "greengrasssdk" and file.suffix == ".py":
            destination = target / file
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), destination)


@dataclass
class GroupFolder:
    """Builds the folder that `ggfast-core deploy` takes."""

    path: Path
    certificates: Path
    devices: list[dict[str, Any]] = field(default_factory=list)
    functions: list[dict[str, Any]] = field(default_factory=list)
    subscriptions: list[dict[str, Any]] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    loggers: list[dict[str, Any]] = field(default_factory=list)
    default_config: dict[str, Any] | None = None

    def device(self, name: str) -> None:
        """Register a device; its certificate is made on first use and shared by later folders."""
        directory = self.certificates / name
        if not directory.exists():
            run_command("cert", "device", "--self-signed", "--name", name, "--out", directory)
        pem = next(directory.glob("*.crt")).read_text()
        certificate_id = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
        (self.path / "certificates").mkdir(parents=True, exist_ok=True)
        (self.path / "certificates" / f"{name}.pem").write_text(pem)
        self.devices.append(
            {
                "Id": name,
                "ThingArn": thing_arn(name),
                "CertificateArn": f"arn:aws:iot:{REGION}:{ACCOUNT}:cert/{certificate_id}",
                "SyncShadow": False,
            }
        )

    def function(
        self, name: str, source: str, *, sdk: bool = True, handler: str = "main.handler", **config: Any
    ) -> str:
        """Add a Python function made of one module; returns its ARN."""
        folder = self.path / "functions" / name
        folder.mkdir(parents=True)
        (folder / "main.py").write_text(source)
        if sdk:
            copy_sdk(folder)
        configuration = {"MemorySize": 32768, "Timeout": 5, **config}
        self.functions.append(
            {
                "Id": name,
                "FunctionArn": function_arn(name),
                "Code": f"functions/{name}",
                "Handler": handler,
                "Runtime": "python3.8",
                "FunctionConfiguration": configuration,
            }
        )
        return function_arn(name)

    def subscribe(self, source: str, subject: str, target: str) -> None:
        self.subscriptions.append(
            {"Id": f"s{len(self.subscriptions)}", "Source": source, "Subject": subject, "Target": target}
        )

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "Name": "test group",
            "GroupId": GROUP_ID,
            "Cores": [
                {
                    "Id": "core",
                    "ThingArn": thing_arn("test_core"),
                    "CertificateArn": f"arn:aws:iot:{REGION}:{ACCOUNT}:cert/{'0' * 64}",
                    "SyncShadow": False,
                }
            ],
            "Devices": self.devices,
            "Functions": self.functions,
            "Subscriptions": self.subscriptions,
            "Resources": self.resources,
        }
        if self.loggers:
            document["Loggers"] = self.loggers
        if self.default_config is not None:
            document["DefaultConfig"] = self.default_config
        return document

    def write(self) -> Path:
        """Write group.json; returns the folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "group.json").write_text(json.dumps(self.document(), indent=1))
        return self.path


class Core:
    """One Greengrass root and the core that runs in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = directory / "greengrass"
        self.port = free_port()
        self.pid_directory = directory / "run"
        self.pid_directory.mkdir()
        self._folders = 0
        self.write_config()

    # --- files ---

    def config(self) -> dict[str, Any]:
        return {
            "coreThing": {
                "thingArn": thing_arn("test_core"),
                "ggMqttPort": self.port,
                "ggDaemonPort": free_port(),
            },
            "runtime": {"cgroup": {"useSystemd": "no"}},
            "pidFileDirectory": str(self.pid_directory),
            "ggfast": {"local": True, "mqttHost": "127.0.0.1"},
        }

    def write_config(self, change: Callable[[dict[str, Any]], None] | None = None) -> None:
        config = self.config()
        if change is not None:
            change(config)
        (self.root / "config").mkdir(parents=True, exist_ok=True)
        (self.root / "config" / "config.json").write_text(json.dumps(config))

    @property
    def pid_file(self) -> Path:
        return self.pid_directory / "greengrassd.pid"

    @property
    def pid(self) -> int:
        return int(self.pid_file.read_text())

    @property
    def group_ca(self) -> Path:
        return self.root / "ggc" / "var" / "state" / "server" / "ca.crt"

    def log(self, component: str = "runtime") -> str:
        path = self.root / "ggc" / "var" / "log" / "system" / f"{component}.log"
        return path.read_text() if path.exists() else ""

    def function_log(self, name: str) -> str:
        path = self.root / "ggc" / "var" / "log" / "user" / REGION / ACCOUNT / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def crash_log(self) -> str:
        path = self.root / "ggc" / "var" / "log" / "crash.log"
        return path.read_text() if path.exists() else ""

    # --- commands ---

    def command(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        return run_command(*arguments, "--root", self.root, check=check)

    def start(self, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Start with -i: the machine's link protection is not what these tests are about."""
        return self.command("-i", "start", check=check)

    def stop(self, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.command("stop", check=check)

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.command("status", "--json").stdout)
        return answer

    def folder(self) -> GroupFolder:
        self._folders += 1
        return GroupFolder(self.directory / f"group-{self._folders}", self.directory / "device-certificates")

    def deploy(self, folder: GroupFolder, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.command("deploy", folder.write(), check=check)

    # --- processes ---

    def daemon_pid(self) -> int:
        """The unprivileged daemon: the supervisor's child that runs as another user than root, with our module."""
        for pid in children(self.pid):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"ggfast.cli.daemon" in command:
                return pid
        raise AssertionError("no daemon below the supervisor")

    def kill_daemon(self) -> int:
        pid = self.daemon_pid()
        os.kill(pid, signal.SIGKILL)
        return pid


def children(pid: int) -> list[int]:
    """PIDs of the direct children of a process."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(word) for word in text.split()]


def alive(pid: int) -> bool:
    """Whether a process still runs; one that only waits to be reaped does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def eventually(condition: Callable[[], Any], what: str, timeout_s: float = patience(20.0)) -> Any:
    """Wait until `condition` returns something true and return it; fail naming what was waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not seen within {timeout_s} s: {what}")
        time.sleep(0.02)


class Device:
    """A paho client with a device's certificate; received messages wait in a queue."""

    def __init__(self, core: Core, name: str, *, client_id: str | None = None, certificate: str | None = None) -> None:
        self.name = name
        self.arn = thing_arn(name)
        self.received: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self._codes: queue.Queue[int] = queue.Queue()
        self._subscribed: queue.Queue[int] = queue.Queue()
        self.disconnects = 0
        self._core = core
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=client_id or name)
        directory = core.directory / "device-certificates" / (certificate or name)
        context = ssl.create_default_context(cafile=str(core.group_ca))
        context.load_cert_chain(next(directory.glob("*.crt")), next(directory.glob("*.key")))
        self._client.tls_set_context(context)
        self._client.on_connect = lambda _c, _u, _f, code, _p: self._codes.put(code.value)
        self._client.on_message = lambda _c, _u, message: self.received.put((message.topic, message.payload))
        self._client.on_subscribe = lambda _c, _u, _m, codes, _p: self._subscribed.put(codes[0].value)
        self._client.on_disconnect = self._on_disconnect

    def _on_disconnect(self, *_arguments: Any) -> None:
        self.disconnects += 1
        self._codes.put(-1)  # before a CONNACK: the handshake was refused

    def connect(self) -> int:
        """Connect and return the CONNACK code in MQTT 5 numbering (0 accepted, 135 not authorised, -1 closed)."""
        self._client.connect("127.0.0.1", self._core.port, keepalive=60)
        self._client.loop_start()
        return self._codes.get(timeout=CONNACK_TIMEOUT_S)

    def is_refused(self) -> bool:
        """Whether the core turns this client away, in the TLS handshake or with a CONNACK code."""
        try:
            return self.connect() != 0
        except (OSError, queue.Empty):
            return True

    def subscribe(self, topic: str, qos: int = 0) -> int:
        self._client.subscribe(topic, qos)
        return self._subscribed.get(timeout=CONNACK_TIMEOUT_S)

    def publish(self, topic: str, payload: bytes | str, qos: int = 0) -> None:
        info = self._client.publish(topic, payload, qos)
        if qos:
            info.wait_for_publish(10)

    def expect(self, timeout_s: float = patience(10.0)) -> tuple[str, bytes]:
        return self.received.get(timeout=timeout_s)

    def expect_json(self, timeout_s: float = patience(10.0)) -> Any:
        return json.loads(self.expect(timeout_s)[1])

    def expect_on(self, topic: str, timeout_s: float = patience(10.0)) -> bytes:
        """The next message on `topic`; others before it are dropped."""
        deadline = time.monotonic() + timeout_s
        while True:
            seen, payload = self.received.get(timeout=max(0.01, deadline - time.monotonic()))
            if seen == topic:
                return payload

    def wait_connected(self, timeout_s: float = patience(20.0)) -> None:
        eventually(self._client.is_connected, f"{self.name} connected again", timeout_s)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        del self._client  # paho closes its own socket pair when it is collected

    def __enter__(self) -> Device:
        code = self.connect()
        assert code == 0, f"{self.name}: CONNACK {code}"
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


@contextmanager
def a_core() -> Iterator[Core]:
    """A core in a directory of its own; stopped and gone afterwards, whatever happened."""
    with open_directory() as directory:
        core = Core(directory)
        try:
            yield core
        finally:
            if core.pid_file.exists():
                core.stop(check=False)
