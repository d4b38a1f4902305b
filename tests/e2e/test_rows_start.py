"""Acceptance rows 2, 4-6, 8-10: starting, refusing to start, and coming back."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Core, Device, a_core, alive, children, eventually, run_command, thing_arn

HELLO = """
import greengrasssdk
client = greengrasssdk.client("iot-data")
client.publish(topic="hello/world", payload="started")

def handler(event, context):
    client.publish(topic="hello/world", payload="again")
"""


@pytest.fixture
def core() -> Iterator[Core]:
    with a_core() as core:
        yield core


def tree(pid: int) -> list[int]:
    """A process and everything below it."""
    found = [pid]
    for child in children(pid):
        found += tree(child)
    return found


def hello_group(core: Core) -> None:
    folder = core.folder()
    folder.device("listener")
    arn = folder.function("hello", HELLO, Pinned=True)
    folder.subscribe(arn, "hello/world", thing_arn("listener"))
    folder.subscribe(thing_arn("listener"), "hello/again", arn)
    core.deploy(folder)


def test_row_2_start_stop_restart_version(core: Core) -> None:
    started = core.start()
    lines = started.stdout.splitlines()
    assert lines[0] == "Setting up greengrass daemon"
    assert "Validating hardlink/softlink protection" in lines
    pid = core.pid
    assert lines[-1] == f"Greengrass successfully started with PID: {pid}"

    command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
    assert re.fullmatch(rf"{core.root}/ggc/packages/[0-9.]+/bin/daemon", command)
    assert Path(f"/proc/{pid}").stat().st_uid == 0

    again = core.start(check=False)
    assert again.returncode != 0
    assert f"PID: {pid}" in again.stderr
    assert core.pid == pid

    restarted = core.command("-i", "restart")
    assert restarted.returncode == 0
    assert core.pid != pid
    assert not alive(pid)

    processes = tree(core.pid)
    assert len(processes) >= 2
    stopped = core.stop()
    assert "Stopped greengrass daemon, exiting with success" in stopped.stdout
    assert not core.pid_file.exists()
    for process in processes:
        assert not alive(process)

    version = run_command("--version").stdout.strip()
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", version)


def test_row_1_the_launcher_works_from_its_usual_place(core: Core, tmp_path: Path) -> None:
    core.start()
    core.stop()
    launcher = core.root / "ggc" / "core" / "greengrassd"
    assert (core.root / "ggc" / "core").is_symlink()
    (tmp_path / "ggfast").mkdir()
    (tmp_path / "ggfast" / "__init__.py").write_text("raise SystemExit('code of the caller's directory was run')")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([launcher, *words], cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False)

    started = run("-i", "start")
    assert started.returncode == 0, started.stderr
    assert started.stdout.splitlines()[-1] == f"Greengrass successfully started with PID: {core.pid}"
    assert run("--version").returncode == 0
    assert run("restart-everything").returncode == 2
    assert run("stop").returncode == 0
    assert not core.pid_file.exists()


def test_row_2_stop_without_a_core_says_so(core: Core) -> None:
    stopped = core.stop(check=False)
    assert stopped.returncode != 0
    assert "not running" in stopped.stderr


def test_row_4_link_protection(core: Core, tmp_path: Path) -> None:
    for name in ("protected_hardlinks", "protected_symlinks"):
        (tmp_path / name).write_text("0\n")
    refused = core.command("start", "--sysctl-directory", tmp_path, check=False)
    assert refused.returncode != 0
    assert (
        "AWS Greengrass detected insecure OS configuration: No hardlink/softlink protection enabled." in refused.stderr
    )
    assert not core.pid_file.exists()
    core.command("-i", "start", "--sysctl-directory", tmp_path)
    assert core.pid_file.exists()


def test_row_5_broken_configuration(core: Core) -> None:
    config = core.root / "config" / "config.json"
    config.write_text('{"coreThing": ')
    refused = core.start(check=False)
    assert refused.returncode != 0
    assert f"Failed to parse {config}" in refused.stderr
    assert f"Failed to parse {config}" in core.crash_log()
    assert not core.pid_file.exists()


def test_row_6_version_1_0_layout(core: Core) -> None:
    config = json.loads((core.root / "config" / "config.json").read_text())
    shutil.rmtree(core.root / "config")
    (core.root / "configuration").mkdir()
    (core.root / "configuration" / "config.json").write_text(json.dumps(config))
    core.start()
    log = core.root / "var" / "log" / "system" / "runtime.log"
    eventually(lambda: log.exists() and log.stat().st_size, "runtime.log in the 1.0 place")
    assert not (core.root / "ggc" / "var" / "log").exists()


def test_row_8_no_deployment_yet(core: Core) -> None:
    core.start()
    eventually(lambda: core.log("runtime"), "lines in runtime.log")
    user_logs = core.root / "ggc" / "var" / "log" / "user"
    assert not list(user_logs.rglob("*.log"))
    context = ssl.create_default_context(cafile=str(core.group_ca))
    with pytest.raises((ssl.SSLError, ConnectionError)), socket.create_connection(("127.0.0.1", core.port), 5) as raw:
        raw.settimeout(5)
        with context.wrap_socket(raw, server_hostname="127.0.0.1") as tls:
            # TLS 1.3 reports a missing client certificate with the first read
            tls.sendall(bytes.fromhex("100c00044d5154540402003c0000"))
            if tls.recv(4) == b"":
                raise ConnectionResetError("closed without an answer")


def test_row_9_empty_group_file_recovers(core: Core) -> None:
    hello_group(core)
    group = core.root / "ggc" / "deployment" / "group" / "group.json"
    assert group.exists()
    group.write_text("{}")
    core.start()
    status = core.status()
    assert status["functions"] == []
    assert not children_named(core.pid, b"ggworker")


def test_row_10_the_deployed_group_is_back_after_a_power_cycle(core: Core) -> None:
    hello_group(core)
    core.start()
    eventually(lambda: "functions" in core.status() and core.status()["functions"], "the function in status")
    first = core.pid
    for process in tree(first):
        os.kill(process, signal.SIGKILL)
    eventually(lambda: not alive(first), "the core is dead")
    core.start()
    with Device(core, "listener") as listener:
        listener.subscribe("hello/world")
        listener.publish("hello/again", "{}")
        assert listener.expect() == ("hello/world", b"again")


def children_named(pid: int, name: bytes) -> list[int]:
    return [child for child in tree(pid) if name in Path(f"/proc/{child}/cmdline").read_bytes()]
