"""The example folder and what the demo makes of it."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ggfast.cli import demo_group
from ggfast.config import load_config
from ggfast.core.certificates import certificate_id
from ggfast.errors import ConfigError, OperatingError
from ggfast.group.folder import parse_folder

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "cold-room"


def test_example_is_found_beside_the_package() -> None:
    assert demo_group.example_folder() == EXAMPLE


def test_example_as_it_is_is_refused_naming_each_certificate() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_folder((EXAMPLE / "group.json").read_bytes())
    paths = {problem.path for problem in caught.value.problems}
    assert len(paths) == 4 and all(path.endswith("CertificateArn") for path in paths)


def test_everything_of_the_sdk_goes_into_a_package() -> None:
    names = {name for name, path in demo_group.copy_sdk() if path.is_file()}
    assert {"greengrasssdk/__init__.py", "greengrasssdk/IoTDataPlane.py"} <= names


def test_the_core_of_the_demo_keeps_to_itself(tmp_path: Path) -> None:
    group = demo_group.DemoGroup(tmp_path / "greengrass", tmp_path / "devices", 18_883, 18_443)
    group.layout.configuration_directory.mkdir(parents=True)
    thing = {"thingArn": "arn:aws:iot:eu-west-1:123456789012:thing/core", "iotHost": "localhost", "ggHost": "localhost"}
    thing |= {"caPath": "a", "certPath": "b", "keyPath": "c"}
    group.layout.config_file.write_text(json.dumps({"coreThing": thing}))
    demo_group.extend_config(group)
    config = load_config(group.root)
    assert config.warnings == ()
    assert not config.ggfast.local
    assert (config.ggfast.mqtt_host, config.core_thing.gg_mqtt_port) == ("127.0.0.1", 18_883)
    assert config.layout.control_socket == group.layout.control_socket
    assert config.core_thing.gg_daemon_port != 8_000
    assert group.deployed_by(lambda: "why").failure() == "why"


def test_missing_libraries_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_group, "_is_installed", lambda name: name == "cryptography")
    with pytest.raises(OperatingError, match=r"paho.mqtt, greengrasssdk, boto3, aiohttp.*pip install 'ggfast\[demo\]'"):
        demo_group.require_libraries()


def test_missing_example_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_group.ggfast, "__file__", str(tmp_path / "ggfast" / "__init__.py"))
    monkeypatch.setattr(demo_group.importlib.metadata, "files", lambda _name: None)
    with pytest.raises(OperatingError, match="Run the demo from a checkout"):
        demo_group.example_folder()


def test_readme_steps_make_a_valid_group(tmp_path: Path) -> None:
    """The shell lines of steps 1 and 2, run as they stand (without asking a package index)."""
    folder = tmp_path / "cold-room"
    shutil.copytree(EXAMPLE, folder)
    text = (EXAMPLE / "README.md").read_text()
    block = text.split("```sh\n")[3].split("```")[0]
    assert "cert device" in block
    command = f"{sys.executable} -m ggfast.cli.core"
    script = "set -e\n" + block.replace("ggfast-core", command)
    assert os.spawnlp(os.P_WAIT, "sh", "sh", "-c", f"cd {folder} && {script}") == 0
    group = parse_folder((folder / "group.json").read_bytes())
    for device in group.devices:
        assert certificate_id(folder / "certificates" / f"{device.thing_name}.crt") == device.certificate_id
    assert len(list((folder / "certificates").iterdir())) == 3


# --- the functions' own rules, with a stand-in for the SDK ---------------------------------------------------


class Sdk:
    """Records what functions publish and invoke; the counter is the real one."""

    def __init__(self) -> None:
        self.published: list[tuple[str, dict[str, Any]]] = []
        self.counter = load(EXAMPLE / "functions" / "counter" / "counter.py")

    def client(self, kind: str) -> Any:
        return {"iot-data": SimpleNamespace(publish=self.publish), "lambda": SimpleNamespace(invoke=self.invoke)}[kind]

    def publish(self, *, topic: str, payload: bytes) -> None:
        self.published.append((topic, json.loads(payload)))

    def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, Any]:
        assert FunctionName == "the counter"
        answer = json.dumps(self.counter.handler(json.loads(Payload), None)).encode()
        return {"FunctionError": "", "Payload": io.BytesIO(answer)}


def load(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sdk]:
    stand_in = Sdk()
    monkeypatch.setitem(sys.modules, "greengrasssdk", stand_in)  # type: ignore[arg-type]
    for name, value in {"COUNTER_ARN": "the counter", "LIMIT_CELSIUS": "6.0", "WINDOW": "3"}.items():
        monkeypatch.setenv(name, value)
    yield stand_in


def call(monitor: types.ModuleType, topic: str, event: dict[str, Any]) -> None:
    monitor.handler(event, SimpleNamespace(client_context=SimpleNamespace(custom={"subject": topic})))


def test_monitor_averages_and_raises_the_alarm_once_each_way(sdk: Sdk) -> None:
    monitor = load(EXAMPLE / "functions" / "monitor" / "monitor.py")
    for stamp, celsius in enumerate([3, 5, 8, 8, 8, 2, 2]):
        call(monitor, "coldroom/temperature", {"celsius": celsius, "sentAt": stamp})
    averages = [message for topic, message in sdk.published if topic == "coldroom/average"]
    assert [message["celsius"] for message in averages] == [3, 4, 5.33, 7, 8, 6, 4]
    assert [message["sentAt"] for message in averages] == list(range(7))
    alarms = [message for topic, message in sdk.published if topic == "coldroom/alarm"]
    assert [(alarm["state"], alarm["number"], alarm["sentAt"]) for alarm in alarms] == [("on", 1, 3), ("off", 2, 5)]


def test_monitor_counts_door_events_through_the_counter(sdk: Sdk) -> None:
    monitor = load(EXAMPLE / "functions" / "monitor" / "monitor.py")
    for state in ("open", "closed"):
        call(monitor, "coldroom/door", {"state": state, "sentAt": 1})
    call(monitor, "coldroom/temperature", {"celsius": 4, "sentAt": 2})
    assert sdk.published[-1][1]["doorEvents"] == 2
