"""What survives a kill -9, and what bad input costs (design P3, P4, P7)."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ggfast.cli.launching import root_name
from tests.e2e.harness import Core, Device, GroupFolder, a_core, alive, eventually, function_arn, thing_arn

COUNTER = """
import greengrasssdk
client = greengrasssdk.client("iot-data")
count = 0

def handler(event, context):
    global count
    count += 1
    client.publish(topic="count", payload=str(count))
"""


def group(core: Core) -> GroupFolder:
    folder = core.folder()
    folder.device("probe")
    counter = folder.function("counter", COUNTER, Pinned=True)
    folder.subscribe(counter, "count", thing_arn("probe"))
    folder.subscribe(thing_arn("probe"), "trigger", counter)
    folder.subscribe(thing_arn("probe"), "loop", thing_arn("probe"))
    return folder


@pytest.fixture
def core() -> Iterator[Core]:
    with a_core() as core:
        core.deploy(group(core))
        core.start()
        yield core


def counter_row(core: Core) -> dict[str, Any]:
    return next(row for row in core.status()["functions"] if row["arn"] == function_arn("counter"))


def test_P3_a_killed_daemon_comes_back_and_functions_keep_running(core: Core) -> None:
    with Device(core, "probe") as probe:
        probe.subscribe("count")
        probe.publish("trigger", "{}")
        assert probe.expect_on("count") == b"1"
        function = eventually(lambda: counter_row(core)["pids"], "the function runs")
        supervisor = core.pid
        killed = core.kill_daemon()
        eventually(lambda: probe.disconnects, "the device noticed")
        probe.wait_connected()
        assert core.pid == supervisor
        assert core.daemon_pid() != killed
        probe.subscribe("count")
        probe.publish("trigger", "{}")
        assert probe.expect_on("count") == b"2"  # the same process went on counting
        assert counter_row(core)["pids"] == function


def test_nobody_sees_connection_refused_while_the_daemon_is_away(core: Core) -> None:
    core.kill_daemon()
    with socket.create_connection(("127.0.0.1", core.port), timeout=5):
        pass


def remains(core: Core) -> list[str]:
    """Mounts and cgroups of the machine that belong to a core's root."""
    found = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(core.root) in line]
    name = f"ggfast-{root_name(core.root)}"
    for hierarchy in Path("/sys/fs/cgroup").glob("*"):
        found += [path for path, _, _ in os.walk(hierarchy) if Path(path).name == name]
    return found


def test_P4_a_killed_supervisor_leaves_nothing_after_the_next_start(core: Core) -> None:
    with Device(core, "probe") as probe:
        probe.publish("trigger", "{}", qos=1)
    first = core.pid
    workers = eventually(lambda: counter_row(core)["pids"], "the function runs")
    daemon = core.daemon_pid()
    cgroups = {line for pid in workers for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()}
    assert any("ggfast" in line for line in cgroups)
    os.kill(first, signal.SIGKILL)
    for pid in (first, daemon, *workers):
        eventually(lambda pid=pid: not alive(pid), f"process {pid} is gone")
    assert remains(core)  # the directories of the killed core: the check below can see them
    core.start()
    assert core.pid != first
    with Device(core, "probe") as probe:
        probe.subscribe("count")
        probe.publish("trigger", "{}")
        assert probe.expect_on("count") == b"1"
    core.stop()
    assert not remains(core)


def raw_tls(core: Core) -> ssl.SSLSocket:
    directory = core.directory / "device-certificates" / "probe"
    context = ssl.create_default_context(cafile=str(core.group_ca))
    context.load_cert_chain(next(directory.glob("*.crt")), next(directory.glob("*.key")))
    return context.wrap_socket(socket.create_connection(("127.0.0.1", core.port), 10), server_hostname="127.0.0.1")


@pytest.mark.parametrize(
    "data",
    [
        bytes(64),
        b"\xff" * 64,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes.fromhex("10ffffffff7f"),
        bytes.fromhex("100c00044d5154540402003c0005ffff"),
        bytes.fromhex("3003000161"),
    ],
    ids=["zeros", "ones", "http", "length", "truncated id", "publish first"],
)
def test_P7_malformed_mqtt_ends_that_connection_only(core: Core, data: bytes) -> None:
    with Device(core, "probe") as probe:
        probe.subscribe("loop")
        with raw_tls(core) as sock:
            sock.sendall(data)
            if data != bytes.fromhex("100c00044d5154540402003c0005ffff"):
                assert sock.recv(1) == b""
        probe.publish("loop", b"still here", qos=1)
        assert probe.expect() == ("loop", b"still here")
        assert probe.disconnects == 0


def test_P7_a_broken_group_is_refused_whole_and_the_old_one_serves(core: Core) -> None:
    before = (core.root / "ggc" / "deployment" / "group" / "group.json").read_bytes()
    broken = group(core)
    broken.subscribe(thing_arn("nobody"), "a/#/b", "cloud")
    broken.functions[0]["FunctionConfiguration"]["Timeout"] = "soon"
    refused = core.deploy(broken, check=False)
    assert refused.returncode != 0
    for path in ("Subscriptions[3].Source", "Subscriptions[3].Subject", "Functions[0].FunctionConfiguration.Timeout"):
        assert path in refused.stderr
    assert (core.root / "ggc" / "deployment" / "group" / "group.json").read_bytes() == before
    with Device(core, "probe") as probe:
        probe.subscribe("count")
        probe.publish("trigger", "{}")
        assert probe.expect_on("count") == b"1"


def test_P7_a_broken_package_is_refused_by_name(core: Core) -> None:
    broken = group(core)
    broken.functions[0]["Code"] = "functions/broken.zip"
    (broken.path / "functions" / "broken.zip").write_bytes(b"PK\x03\x04 not really")
    refused = core.deploy(broken, check=False)
    assert refused.returncode != 0
    assert "broken.zip" in refused.stderr
    escaping = group(core)
    with zipfile.ZipFile(escaping.path / "functions" / "escape.zip", "w") as archive:
        archive.writestr("main.py", COUNTER)
        archive.writestr("../../escaped", "x")
    escaping.functions[0]["Code"] = "functions/escape.zip"
    refused = core.deploy(escaping, check=False)
    assert refused.returncode != 0
    assert "escaped" in refused.stderr
    assert not list(core.directory.rglob("escaped"))


def test_P4_a_function_that_cannot_start_brings_the_previous_group_back(core: Core) -> None:
    with Device(core, "probe") as probe:
        probe.subscribe("count")
        probe.publish("trigger", "{}")
        assert probe.expect_on("count") == b"1"
        pids = counter_row(core)["pids"]
        broken = group(core)
        broken.function("no-import", "import no_such_module\n", Pinned=True, sdk=False)
        refused = core.deploy(broken, check=False)
        assert refused.returncode != 0
        assert "no_such_module" in refused.stderr
        assert 'Failed to import handler function "main.handler"' in core.function_log("no-import")
        probe.publish("trigger", "{}")
        assert probe.expect_on("count") == b"2"
        assert probe.disconnects == 0
        assert counter_row(core)["pids"] == pids
    active = json.loads((core.root / "ggc" / "deployment" / "group" / "group.json").read_text())
    assert [item["FunctionArn"] for item in active["GroupDefinitions"]["Lambdas"]["Content"]] == [
        function_arn("counter")
    ]


def test_P4_an_unchanged_function_survives_a_deployment(core: Core) -> None:
    pids = eventually(lambda: counter_row(core)["pids"], "the function runs")
    with Device(core, "probe") as probe:
        probe.subscribe("#")
        more = group(core)
        more.function("second", "def handler(event, context):\n    pass\n", Pinned=True, sdk=False)
        core.deploy(more)
        assert counter_row(core)["pids"] == pids
        assert probe.disconnects == 0
        probe.publish("loop", b"same session", qos=1)
        assert probe.expect() == ("loop", b"same session")


def test_P7_a_damaged_group_file_does_not_stop_the_core(core: Core) -> None:
    core.stop()
    (core.root / "ggc" / "deployment" / "group" / "group.json").write_text('{"Arn": 7, "Cores": {}')
    core.start()
    assert core.status()["functions"] == []
    assert "failed to load group" in core.log()
    core.deploy(group(core))
    eventually(lambda: counter_row(core)["pids"], "the function runs")
