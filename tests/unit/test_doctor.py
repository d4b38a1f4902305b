"""`ggfast-core doctor`: each check against a machine or an installation that is right, and one that is not."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ggfast.cli import doctor, doctor_core, doctor_machine
from ggfast.cli.cert import make_ca, make_device
from ggfast.cli.core import build_parser
from ggfast.cli.findings import Area, Finding, Status, as_json, can_run, verdict
from ggfast.config import Config, load_config
from ggfast.sandbox import probe
from ggfast.sandbox.probe import Probe

DAY_S = 86_400


def status_of(findings: list[Finding], name: str) -> Status:
    (finding,) = [finding for finding in findings if finding.name == name]
    return finding.status


# --- the report ------------------------------------------------------------------------------------------


def test_a_finding_is_one_line_with_what_to_do() -> None:
    area = Area("ports")
    assert str(area.ok("mqtt", "free")).split() == ["ok", "ports:", "mqtt", "free"]
    line = str(area.bad("mqtt", "in use", "a free port", "Stop it.", required=True))
    assert line.startswith("FAIL  ports: mqtt ")
    assert line.endswith(" in use; expected a free port. Stop it.")


@pytest.mark.parametrize(
    ("statuses", "runs", "words"),
    [
        ([Status.OK], True, "The core can run."),
        ([Status.OK, Status.WARN], True, "with 1 warning."),
        ([Status.WARN, Status.UNKNOWN], False, "1 requirement could not be checked"),
        ([Status.FAIL, Status.FAIL, Status.UNKNOWN], False, "cannot run: 2 requirements not met"),
    ],
)
def test_verdict(statuses: list[Status], runs: bool, words: str) -> None:
    findings = [Finding("area", str(number), status, "x") for number, status in enumerate(statuses)]
    assert can_run(findings) is runs
    assert words in verdict(findings)
    assert as_json(findings, "none")["canRun"] is runs


def test_isolation_is_named_by_what_is_missing() -> None:
    def kernel(status: Status) -> Finding:
        return Finding("kernel", "overlay", status, "x")

    assert doctor.isolation_level([kernel(Status.OK)]).endswith("system call filter)")
    assert doctor.isolation_level([kernel(Status.WARN)]).endswith("without: overlay")
    assert "missing: overlay" in doctor.isolation_level([kernel(Status.FAIL)])
    lacking = Finding("kernel", "memory controller", Status.WARN, "none")
    assert doctor.isolation_level([kernel(Status.OK), lacking]).startswith("no container (missing: memory controller)")
    assert doctor.isolation_level([kernel(Status.UNKNOWN)]).startswith("unknown")
    assert "missing" not in doctor.isolation_level([Finding("ports", "mqtt", Status.FAIL, "x")])


# --- the machine -----------------------------------------------------------------------------------------


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc of a machine that has everything."""
    files = {
        "sys/fs/protected_hardlinks": "1\n",
        "sys/fs/protected_symlinks": "1\n",
        "meminfo": "MemTotal:         512000 kB\nMemFree:  1 kB\nMemAvailable:     300000 kB\n",
        "self/mountinfo": "23 1 0:21 / / rw - ext4 /dev/root rw\n",
        "self/cgroup": "4:memory:/unit\n0::/\n",
    }
    for name, text in files.items():
        path = tmp_path / "proc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "proc"


def test_link_protection(proc: Path) -> None:
    assert doctor_machine.link_protection(proc).status is Status.OK
    (proc / "sys/fs/protected_symlinks").write_text("0\n")
    finding = doctor_machine.link_protection(proc)
    assert finding.status is Status.FAIL
    assert "fs.protected_symlinks=0" in finding.found
    assert doctor_machine.link_protection(proc, required=False).status is Status.WARN
    (proc / "sys/fs/protected_symlinks").unlink()
    assert "not there" in doctor_machine.link_protection(proc).found


def test_groups_of_dead_cores_are_listed(proc: Path, tmp_path: Path) -> None:
    """On a made-up hierarchy: one core that runs, one that was killed."""
    assert list(doctor_machine.left_over(proc)) == []
    for name, process in (("ggfast-alive", "4242\n"), ("ggfast-dead", ""), ("other", "")):
        for folder in (tmp_path / "memory" / name, tmp_path / "memory" / name / "instance"):
            folder.mkdir(parents=True)
            (folder / "memory.usage_in_bytes").write_text("8192\n")
            (folder / "cgroup.procs").write_text(process if folder.name == "instance" else "")
    mounts = f"30 23 0:26 / {tmp_path}/memory rw - cgroup cgroup rw,memory\n"
    (proc / "self/mountinfo").write_text(mounts)
    (left,) = doctor_machine.left_over(proc)
    assert left.found == f"{tmp_path}/memory/ggfast-dead (8 KB)"


def test_memory(proc: Path) -> None:
    assert doctor_machine.memory(proc).status is Status.OK
    (proc / "meminfo").write_text("MemTotal: 60000 kB\nMemAvailable: 20000 kB\n")
    assert doctor_machine.memory(proc).status is Status.WARN
    (proc / "meminfo").unlink()
    assert doctor_machine.memory(proc).status is Status.UNKNOWN


def test_a_clock_without_battery_warns() -> None:
    assert doctor_machine.clock().status is Status.OK
    finding = doctor_machine.clock(now=12.0)
    assert (finding.status, finding.found) == (Status.WARN, "1970-01-01 00:00:12 UTC")


def test_accounts() -> None:
    missing = list(doctor_machine.accounts("nobody", "ggfast-no-such-user", "ggfast-no-such-group"))
    assert [finding.status for finding in missing] == [Status.OK, Status.FAIL, Status.FAIL]
    assert "useradd" in missing[1].advice
    assert "groupadd" in missing[2].advice
    root = list(doctor_machine.accounts("root", "nobody", "root"))
    assert status_of(root, "user root") is Status.FAIL


def test_one_account_for_daemon_and_functions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor_machine.pwd.getpwnam
    monkeypatch.setattr(doctor_machine.pwd, "getpwnam", lambda _: real("nobody"))
    found = list(doctor_machine.accounts("ggfast", "ggc_user", "root"))
    assert status_of(found, "separate accounts") is Status.FAIL


def test_session_shows_the_umask_and_leaves_it() -> None:
    before = os.umask(0o077)
    try:
        assert status_of(list(doctor_machine.session()), "umask") is Status.WARN
        assert os.umask(0o022) == 0o077
        assert status_of(list(doctor_machine.session()), "umask") is Status.OK
    finally:
        os.umask(before)


def test_the_first_closed_directory_is_named(open_directory: Path) -> None:
    inner = open_directory / "a" / "b"
    inner.mkdir(parents=True)
    assert doctor_machine.closed_directory(inner) is None
    (open_directory / "a").chmod(0o700)
    assert doctor_machine.closed_directory(inner) == open_directory / "a"
    assert doctor_machine.closed_directory(open_directory / "none") == open_directory / "none"


def test_the_interpreter_is_tried_as_another_user(monkeypatch: pytest.MonkeyPatch, open_directory: Path) -> None:
    assert doctor_machine.interpreter("nobody").found.endswith("tried as nobody")
    monkeypatch.setattr(sys, "base_prefix", str(open_directory))
    assert "is below /tmp" in doctor_machine.interpreter("nobody").found
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setattr(doctor_machine, "UNSEEN_BY_FUNCTIONS", ())
    failing = open_directory / "python"
    failing.write_text("#!/bin/sh\necho no such encoding >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(failing))
    finding = doctor_machine.interpreter("nobody")
    assert (finding.status, finding.found) == (Status.FAIL, "as nobody: no such encoding")
    failing.parent.chmod(0o700)
    assert "cannot enter" in doctor_machine.interpreter("nobody").found


def test_runtimes_are_those_the_core_has_workers_for(tmp_path: Path) -> None:
    (tmp_path / "workers" / "nodejs").mkdir(parents=True)
    programs = tmp_path / "bin"
    programs.mkdir()
    found = list(doctor_machine.runtimes(str(programs), tmp_path / "workers"))
    assert [(finding.name, finding.status) for finding in found] == [("python", Status.OK), ("nodejs", Status.WARN)]
    for name in ("node", "nodejs6.10"):
        (programs / name).touch(mode=0o755)
    found = list(doctor_machine.runtimes(str(programs), tmp_path / "workers"))
    assert found[1].found == str(programs / "nodejs6.10")


# --- an installation ----------------------------------------------------------------------------------------


@pytest.fixture
def root(open_directory: Path, free_port: Callable[[], int]) -> Path:
    """A core's root with a configuration and certificates, as a user brings it."""
    certs = open_directory / "certs"
    for folder in (certs, open_directory / "config", open_directory / "run"):
        folder.mkdir()
    make_ca(certs, name="test", days=400)
    make_device(certs, name="core", ca=certs)
    settings = {
        "coreThing": {
            "caPath": "ca.crt",
            "certPath": "core.crt",
            "keyPath": "core.key",
            "thingArn": "arn:aws:iot:eu-west-1:123456789012:thing/core",
            "iotHost": "example.iot.eu-west-1.amazonaws.com",
            "ggHost": "greengrass.iot.eu-west-1.amazonaws.com",
            "ggMqttPort": free_port(),
            "ggDaemonPort": free_port(),
        },
        "pidFileDirectory": str(open_directory / "run"),
        "ggfast": {"mqttHost": "127.0.0.1"},
    }
    (open_directory / "config" / "config.json").write_text(json.dumps(settings))
    return open_directory


@pytest.fixture
def config(root: Path) -> Config:
    return load_config(root)


def test_a_good_installation(root: Path, config: Config) -> None:
    loaded, told = doctor_core.configuration(root)
    assert loaded == config
    found = [*doctor_core.root_directory(root), *told, *doctor_core.certificates(config), *doctor_core.ports(config)]
    assert [finding for finding in found if finding.status is not Status.OK] == []
    assert len(found) == 8


def test_the_root_must_be_there_and_open(root: Path) -> None:
    (finding,) = doctor_core.root_directory(root / "none")
    assert finding.status is Status.FAIL
    (root / "certs").chmod(0o700)
    (finding,) = doctor_core.root_directory(root / "certs")
    assert f"chmod o+x {root / 'certs'}" in finding.advice
    long = root / ("x" * 80)
    long.mkdir()
    assert status_of(list(doctor_core.root_directory(long)), "path length") is Status.WARN


def test_every_fault_of_the_configuration_is_a_line(root: Path) -> None:
    path = root / "config" / "config.json"
    settings = json.loads(path.read_text())
    settings["coreThing"] |= {"ggMqttPort": 5, "thingArn": "core"}
    path.write_text(json.dumps(settings))
    loaded, told = doctor_core.configuration(root)
    assert loaded is None
    assert {finding.name for finding in told} == {"coreThing.ggMqttPort", "coreThing.thingArn"}
    assert {finding.status for finding in told} == {Status.FAIL}
    path.unlink()
    loaded, told = doctor_core.configuration(root)
    assert (loaded, [finding.status for finding in told]) == (None, [Status.FAIL])


def test_an_unknown_setting_warns(root: Path) -> None:
    path = root / "config" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"managedRespwan": True}))
    _, told = doctor_core.configuration(root)
    assert status_of(told, "managedRespwan") is Status.WARN


def test_certificates_expired_early_and_soon(config: Config) -> None:
    def at(days: int) -> dict[str, Finding]:
        return {finding.name: finding for finding in doctor_core.certificates(config, time.time() + days * DAY_S)}

    assert at(380)["cloud CA"].status is Status.WARN
    assert "expired on" in at(500)["cloud CA"].found
    assert at(500)["core certificate"].status is Status.OK
    assert at(-20)["core certificate"].found.startswith("valid from")


def test_keys_must_belong_and_be_private(root: Path, config: Config) -> None:
    key = root / "certs" / "core.key"
    key.chmod(0o644)
    assert status_of(list(doctor_core.certificates(config)), "core key mode") is Status.WARN
    key.write_bytes((root / "certs" / "ca.key").read_bytes())
    assert status_of(list(doctor_core.certificates(config)), "core key") is Status.FAIL
    key.unlink()
    assert status_of(list(doctor_core.certificates(config)), "core key") is Status.FAIL
    (root / "certs" / "core.crt").write_text("not a certificate")
    assert status_of(list(doctor_core.certificates(config)), "core certificate") is Status.FAIL


def test_a_used_port_is_named(config: Config) -> None:
    with socket.create_server(("127.0.0.1", config.core_thing.gg_mqtt_port)):
        finding = next(doctor_core.ports(config))
    assert (finding.status, finding.name) == (Status.FAIL, "local MQTT")
    assert "ggMqttPort" in finding.advice
    assert next(doctor_core.ports(config)).status is Status.OK


def test_a_broken_pid_file_is_named(root: Path, config: Config) -> None:
    (root / "run" / "greengrassd.pid").write_text("soon\n")
    assert status_of(list(doctor_core.ports(config)), "PID file") is Status.FAIL


# --- the command -----------------------------------------------------------------------------------------------


@pytest.fixture
def good_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the machine's own checks find everything: what it is like is not this test's business."""
    fine = [Area("machine").ok("all", "fine")]
    for name in ("left_over", "accounts", "session", "runtimes"):
        monkeypatch.setattr(doctor_machine, name, lambda *_, **__: fine)
    for name in ("link_protection", "interpreter", "memory", "clock"):
        monkeypatch.setattr(doctor_machine, name, lambda *_, **__: fine[0])
    monkeypatch.setattr(doctor, "probe_all", lambda: [Probe("overlay", False, False, "EINVAL", "a mount", "Go on.")])


def run_doctor(*words: str | Path) -> int:
    return doctor.run(build_parser("doctor").parse_args(["doctor", *map(str, words)]))


def test_the_command_reports_and_decides(good_machine: None, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_doctor("--root", root) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("warn  kernel: overlay")
    assert lines[-2].endswith("without: overlay")
    assert lines[-1] == "The core can run, with 1 warning."
    (root / "certs" / "core.key").unlink()
    assert run_doctor("--root", root, "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert report["canRun"] is False
    assert [check["name"] for check in report["checks"] if check["status"] == "fail"] == ["core key"]


def test_row_76_a_machine_that_cannot_have_containers_can_run_the_core(
    good_machine: None, monkeypatch: pytest.MonkeyPatch, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """greengrass-core 17.1: functions with NoContainer need no control groups."""
    monkeypatch.setattr(probe.ladder, "group_problems", lambda *_: {"memory controller": "not bound"})
    monkeypatch.setattr(doctor, "probe_all", probe.probe_all)
    assert run_doctor("--root", root) == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if "memory controller" in line).startswith("warn")
    assert lines[-2].endswith("only functions with isolation mode NoContainer can run")


def test_without_an_installation_only_the_machine_is_judged(
    good_machine: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "DEFAULT_ROOT", tmp_path / "none")
    assert run_doctor() == 0
    assert doctor.NOTHING_INSTALLED in capsys.readouterr().out
    assert run_doctor("--root", tmp_path / "none") == 1


@pytest.fixture
def as_nobody(repository: Path) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ggfast.cli.core", *map(str, words)]
        return subprocess.run(
            command, cwd=repository, user="nobody", group="nogroup", extra_groups=[], text=True, capture_output=True,
            timeout=60, check=False, env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip

    yield run


def test_without_root_it_says_what_it_could_not_check(
    as_nobody: Callable[..., subprocess.CompletedProcess[str]], root: Path
) -> None:
    done = as_nobody("doctor", "--root", root)
    assert done.returncode == 1, done.stderr
    assert not done.stderr
    unknown = [line for line in done.stdout.splitlines() if line.startswith("?")]
    assert [line.split()[1:3] for line in unknown] == [["kernel:", "features"], ["certificates:", "core"]]
    assert all("Run as root" in line for line in unknown)


def test_the_real_machine_answers_every_probe() -> None:
    """As root on any kernel: no probe raises, and each bad one says what to do."""
    found = doctor.kernel()
    assert len(found) > 1
    assert all(finding.advice and finding.expected for finding in found if finding.status is not Status.OK)
