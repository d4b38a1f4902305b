"""Every published way to write a function does the same things here, unmodified, in one core (P9).

publish, receive a table message with its subject, invoke synchronously and asynchronously, a handled error of another
function and of its own, a time-out, a memory kill, bytes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ggfast.core.functions.runtimes import RUNTIME_FILES
from ggfast.group.runtimes import EXECUTABLE_RUNTIME
from tests.e2e.harness import Core, Device, GroupFolder, a_core, function_arn, thing_arn
from tests.unit.function_support import sdk

SCENARIO = Path(__file__).parent / "scenario"
PROBE = thing_arn("probe")
CALLEE = """
import greengrasssdk
client = greengrasssdk.client("iot-data")
def handler(event, context):
    if event.get("fail"):
        raise ValueError("the callee fails")
    client.publish(topic="callee/seen", payload=str(event["n"]))
    return {"doubled": event["n"] * 2}
"""


def fetched(kind: str) -> Path:
    """Where published packages of this kind lie; fetched once."""
    script = Path(__file__).resolve().parents[2] / "packaging" / "fetch_test_packages.py"
    return Path(subprocess.check_output([sys.executable, script, kind], text=True, timeout=600).strip())


def python_package(version: str) -> Any:
    def make(folder: Path) -> None:
        shutil.copyfile(SCENARIO / "main.py", folder / "main.py")
        shutil.copytree(sdk(version) / "greengrasssdk", folder / "greengrasssdk")

    return make


def bundle_of_2017(folder: Path) -> None:
    """The three folders that packages of 2017 hold, written to the wire contract: see tests/e2e/old_bundle."""
    shutil.copyfile(SCENARIO / "main.py", folder / "main.py")
    for source in (Path(__file__).parent / "old_bundle").iterdir():
        if source.is_dir() and source.name != "__pycache__":
            shutil.copytree(source, folder / source.name)


def node_package(folder: Path) -> None:
    shutil.copyfile(SCENARIO / "index.js", folder / "index.js")
    shutil.copytree(fetched("npm") / "node_modules", folder / "node_modules")


def java_package(folder: Path) -> None:
    """Compiled against the published Lambda interfaces, which the package brings along as users' packages do."""
    interfaces = next(fetched("maven").rglob("aws-lambda-java-core*.jar"))
    path = f"{interfaces}:{RUNTIME_FILES}/java/ggfast-runtime.jar"
    command = ["javac", "--release", "8", "-Xlint:-options", "-cp", path, "-d", folder, SCENARIO / "Scenario.java"]
    subprocess.run(command, check=True, timeout=120)
    (folder / "lib").mkdir()
    shutil.copyfile(interfaces, folder / "lib" / interfaces.name)


def c_package(folder: Path) -> None:
    native = RUNTIME_FILES / "native"
    flags = [f"-I{native}", f"-L{native}", "-laws-greengrass-core-sdk-c"]
    command = ["cc", "-O1", "-o", folder / "scenario", SCENARIO / "scenario.c", *flags]
    subprocess.run(command, check=True, timeout=120)


PACKAGES = {
    "sdk-1-3-0": (python_package("1.3.0"), "python3.7", "main.handler"),
    "sdk-1-4-0": (python_package("1.4.0"), "python3.7", "main.handler"),
    "sdk-1-5-0": (python_package("1.5.0"), "python3.8", "main.handler"),
    "sdk-1-6-1": (python_package("1.6.1"), "python3.8", "main.handler"),
    "bundle-2017": (bundle_of_2017, "python2.7", "main.handler"),
    "own-interpreter": (python_package("1.6.1"), "python3.9", "main.handler"),
    "node": (node_package, "nodejs12.x", "index.handler"),
    "java": (java_package, "java8", "Scenario::handle"),
    "c": (c_package, EXECUTABLE_RUNTIME, "scenario"),
}


def add(folder: GroupFolder, package: str) -> None:
    """Three functions of one package: for JSON, for bytes, and one that must be quick."""
    make, runtime, handler = PACKAGES[package]
    code = folder.path / "functions" / package
    code.mkdir(parents=True)
    make(code)
    kinds = ((package, "json", 20), (f"{package}-bytes", "binary", 20), (f"{package}-quick", "json", 1))
    for name, encoding, timeout_s in kinds:
        variables = {"CALLEE": function_arn("callee"), "OUT": f"out/{name}"}
        folder.functions.append(
            {
                "Id": name,
                "FunctionArn": function_arn(name),
                "Code": f"functions/{package}",
                "Handler": "Scenario::bytes" if runtime == "java8" and encoding == "binary" else handler,
                "Runtime": runtime,
                "FunctionConfiguration": {
                    "MemorySize": 65_536,
                    "Timeout": timeout_s,
                    "EncodingType": encoding,
                    "Environment": {"Variables": variables},
                },
            }
        )
        folder.subscribe(PROBE, f"in/{name}/#", function_arn(name))
        folder.subscribe(function_arn(name), f"out/{name}/#", PROBE)


@pytest.fixture(scope="module")
def core() -> Iterator[Core]:
    with a_core() as core:
        core.write_config(lambda config: config["ggfast"].update(runtimes={"python3.9": "/usr/bin/python3"}))
        folder = core.folder()
        folder.device("probe")
        folder.function("callee", CALLEE)
        folder.subscribe(function_arn("callee"), "callee/#", PROBE)
        for package in PACKAGES:
            add(folder, package)
        core.deploy(folder)
        core.start()
        yield core


@pytest.fixture(params=list(PACKAGES))
def package(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def probe(core: Core, package: str) -> Iterator[Device]:
    device = Device(core, "probe")
    try:
        assert device.connect() == 0
        device.subscribe(f"out/{package}/#")
        device.subscribe(f"out/{package}-bytes/#")
        device.subscribe("callee/#")
        yield device
    finally:
        device.close()


def asked(core: Core, package: str, wish: str) -> dict[str, Any]:
    """Invoke from the command line: status and payload."""
    done = core.command("invoke", package, "--payload", json.dumps({"do": wish}), "--json", check=False)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_p9_every_package_does_the_same(core: Core, package: str, probe: Device) -> None:
    probe.publish(f"in/{package}/deep/topic", json.dumps({"do": "echo", "text": "grüße"}).encode())
    topic, payload = probe.expect()
    echoed = json.loads(payload)
    assert topic == f"out/{package}/echo"
    assert echoed["event"] == {"do": "echo", "text": "grüße"}
    subject = echoed["subject"] if "subject" in echoed else echoed["context"]["custom"]["subject"]
    assert subject == f"in/{package}/deep/topic"

    assert asked(core, package, "invoke")["status"] == "OK"
    said = dict([probe.expect(), probe.expect()])
    assert json.loads(said[f"out/{package}/invoke"]) == {"error": "", "payload": {"doubled": 40}}
    assert said["callee/seen"] == b"20"

    assert asked(core, package, "invoke event")["status"] == "OK"
    said = dict([probe.expect(), probe.expect()])
    assert json.loads(said[f"out/{package}/event"])["error"] == ""
    assert said["callee/seen"] == b"1"

    assert asked(core, package, "invoke failing")["status"] == "OK"
    failed = json.loads(probe.expect()[1])
    assert failed["error"] == "Handled"
    assert failed["payload"]["errorMessage"] == "the callee fails"


def test_p9_errors_of_every_package(core: Core, package: str) -> None:
    raised = asked(core, package, "raise")
    assert (raised["status"], raised["function_error"]) == ("HANDLED", "Handled")
    assert json.loads(raised["payload"])["errorMessage"] == "raised on purpose"

    killed = asked(core, package, "grow")
    assert (killed["status"], killed["function_error"]) == ("UNHANDLED", "Unhandled")
    assert "consumed all allocated memory" in killed["payload"]

    slow = asked(core, f"{package}-quick", "sleep")
    assert (slow["status"], slow["function_error"]) == ("UNHANDLED", "Unhandled")
    assert "timed out after 1 seconds" in slow["payload"]

    assert asked(core, package, "nothing special")["status"] == "OK"


def test_p9_bytes_of_every_package(core: Core, package: str, probe: Device) -> None:
    data = bytes(range(256)) * 40
    probe.publish(f"in/{package}-bytes/x", data)
    topic, payload = probe.expect()
    assert topic == f"out/{package}-bytes/bytes"
    assert payload == data[::-1]


def test_java_functions_share_the_class_data_made_at_deployment(core: Core) -> None:
    assert asked(core, "java", "nothing special")["status"] == "OK"
    (archive,) = (core.root / "ggc" / "deployment" / "lambda" / function_arn("java") / ".ggfast").glob("*.jsa")
    rows = json.loads(core.command("functions", "--json").stdout)["functions"]
    (pid,) = next(row["pids"] for row in rows if row["name"] == "java")
    assert f"/lambda/.ggfast/{archive.name}" in Path(f"/proc/{pid}/maps").read_text()
    (other,) = (core.root / "ggc" / "deployment" / "lambda" / function_arn("java-bytes") / ".ggfast").glob("*.jsa")
    assert other.stat().st_ino == archive.stat().st_ino, "a copy each instead of one file"
