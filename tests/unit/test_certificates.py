"""When the core's own certificate is due, what is done then, and what survives a crash or a failing helper."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from issuer_support import InProcess, SetClock

from ggfast.cli import cert
from ggfast.core import certificate_helper, certificate_hosts, certificates, own_ca
from ggfast.core.own_ca import ServerCertificate, ensure_server_certificate
from ggfast.errors import ConfigError, OperatingError
from ggfast.limits import CERTIFICATE_RETRY_S, CLOCK_FLOOR_S

HOSTS = ("127.0.0.1", "localhost")
DAY_S = 86_400


class Core:
    """A state directory with a clock and a helper."""

    def __init__(self, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.state = state
        self.folder = state / "server"
        self.clock = SetClock()
        self.helper = InProcess(monkeypatch, self.clock)

    def ensure(self, hosts: Sequence[str] = HOSTS) -> ServerCertificate:
        self.helper.calls.clear()
        return asyncio.run(ensure_server_certificate(self.state, hosts, days=7, run=self.helper, clock=self.clock))


@pytest.fixture
def core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Core:
    return Core(tmp_path, monkeypatch)


def test_first_start_makes_everything_and_the_second_nothing(core: Core) -> None:
    first = core.ensure()
    assert core.helper.calls == ["ca", "server"]
    assert first.renewed and not first.ca_replaced and first.warnings == ()
    assert first.hosts == HOSTS
    week = 7 * DAY_S
    assert core.clock.now + week * 0.6 < first.renew_at < core.clock.now + week * 0.7
    second = core.ensure()
    assert core.helper.calls == []
    assert not second.renewed
    assert (second.certificate_id, second.renew_at) == (first.certificate_id, first.renew_at)


def test_renewal_is_due_at_two_thirds_and_keeps_ca_and_key(core: Core) -> None:
    first = core.ensure()
    key, ca = first.key.read_bytes(), first.ca.read_bytes()
    core.clock.now = first.renew_at - 1
    assert not core.ensure().renewed
    core.clock.now = first.renew_at
    second = core.ensure()
    assert second.renewed and core.helper.calls == ["server"]
    assert second.certificate_id != first.certificate_id
    assert second.renew_at > first.renew_at
    assert (second.key.read_bytes(), second.ca.read_bytes()) == (key, ca)


def test_new_host_renews_and_a_vanished_one_does_not(core: Core) -> None:
    core.ensure()
    assert not core.ensure(["LOCALHOST."]).renewed
    second = core.ensure([*HOSTS, "10.1.2.3"])
    assert second.renewed and second.hosts == (*HOSTS, "10.1.2.3")
    assert not core.ensure(HOSTS).renewed


def test_ca_is_renewed_with_its_key_when_two_thirds_of_its_life_are_over(core: Core) -> None:
    first = core.ensure()
    record = certificates.read_record(core.folder / "server.json")
    assert record is not None
    ca, ca_key = first.ca.read_bytes(), (core.folder / "ca.key").read_bytes()
    core.clock.now = record.ca_renew_at
    second = core.ensure()
    assert core.helper.calls == ["server", "ca --renew", "server"]
    assert not second.ca_replaced
    assert second.ca.read_bytes() != ca and (core.folder / "ca.key").read_bytes() == ca_key
    core.ensure()
    assert core.helper.calls == []


@pytest.mark.parametrize("name", ["ca.key", "ca.crt"])
def test_lost_ca_is_replaced_and_reported(core: Core, name: str) -> None:
    first = core.ensure()
    old = first.ca.read_bytes()
    (core.folder / name).unlink()
    second = core.ensure()
    assert core.helper.calls == ["ca", "server"]
    assert second.ca_id != first.ca_id
    if name == "ca.key":  # devices hold the certificate: the old one stays for discovery
        assert second.ca_replaced and "must discover again" in second.warnings[0]
        assert (core.folder / "ca.previous.crt").read_bytes() == old


@pytest.mark.parametrize("name", ["server.crt", "server.key", "server.json"])
@pytest.mark.parametrize("damage", ["gone", "cut", "empty"])
def test_any_damaged_file_is_made_again(core: Core, name: str, damage: str) -> None:
    core.ensure()
    path = core.folder / name
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:50] if damage == "cut" else b"")
    assert core.ensure().renewed
    assert core.helper.calls == ["server"]
    assert not core.ensure().renewed


@pytest.mark.parametrize("stop_before", [1, 2, 3, 4, 5])
def test_crash_between_any_two_writes_heals_at_the_next_start(
    core: Core, stop_before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise P2's habit for certificates: first start writes five files; die before the n-th."""
    writes = 0
    real = cert.write_file

    def dying(path: Path, content: bytes, *, mode: int, force: bool) -> None:
        nonlocal writes
        writes += 1
        if writes == stop_before:
            raise KeyboardInterrupt
        real(path, content, mode=mode, force=force)

    monkeypatch.setattr(cert, "write_file", dying)
    with pytest.raises(KeyboardInterrupt):
        core.ensure()
    monkeypatch.setattr(cert, "write_file", real)
    result = core.ensure()
    assert own_ca.server_due(core.folder, HOSTS, core.clock.now) == ""
    assert certificates.pair_error(result.ca, core.folder / "ca.key") == ""


def test_crash_inside_a_renewal_leaves_a_pair_that_serves(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    first = core.ensure()
    core.clock.now = first.renew_at
    real = cert.write_file

    def dying(path: Path, content: bytes, *, mode: int, force: bool) -> None:
        if path.name == "server.json":
            raise KeyboardInterrupt
        real(path, content, mode=mode, force=force)

    monkeypatch.setattr(cert, "write_file", dying)
    with pytest.raises(KeyboardInterrupt):
        core.ensure()
    assert certificates.pair_error(first.certificate, first.key) == ""
    monkeypatch.setattr(cert, "write_file", real)
    assert core.ensure().renewed


def test_failing_renewal_goes_on_with_the_old_certificate_P3(core: Core) -> None:
    first = core.ensure()
    core.clock.now = first.renew_at + 5 * DAY_S  # even past its end: connected devices go on
    core.helper.broken = "the library is gone"
    second = core.ensure()
    assert second.certificate_id == first.certificate_id and not second.renewed
    assert "the library is gone" in second.warnings[0]
    assert second.renew_at == core.clock.now + CERTIFICATE_RETRY_S
    core.helper.broken = ""
    assert core.ensure().renewed


def test_failure_with_nothing_to_serve_is_an_error(core: Core) -> None:
    core.helper.broken = "the library is gone"
    with pytest.raises(OperatingError, match="the library is gone"):
        core.ensure()


def test_clock_without_battery_does_not_spoil_a_good_certificate(core: Core) -> None:
    first = core.ensure()
    core.clock.now = 1_000.0
    assert core.ensure().certificate_id == first.certificate_id
    assert core.helper.calls == []


def test_clock_that_was_ahead_is_cured(core: Core) -> None:
    core.clock.now += 400 * DAY_S
    core.ensure()
    core.clock.now -= 400 * DAY_S
    assert core.clock.now > CLOCK_FLOOR_S
    assert core.ensure().renewed


def test_impossible_hosts_are_refused_before_anything_is_made(core: Core) -> None:
    with pytest.raises(ConfigError) as caught:
        core.ensure(["good.example", "not good", "1.2.3"])
    assert len(caught.value.problems) == 2
    assert not core.folder.exists()


def test_real_helper_process_makes_what_openssl_accepts(tmp_path: Path) -> None:
    result = asyncio.run(ensure_server_certificate(tmp_path, HOSTS, days=7))
    command = ["openssl", "verify", "-CAfile", result.ca, "-verify_ip", "127.0.0.1", result.certificate]
    assert subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0


def test_helper_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hanging = tmp_path / "hanging"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    monkeypatch.setattr(certificate_helper.sys, "executable", str(hanging))
    monkeypatch.setattr(certificate_helper, "CERTIFICATE_HELPER_TIMEOUT_S", 0.2)
    with pytest.raises(OperatingError, match="did not end"):
        asyncio.run(certificate_helper.run_helper(["show", "x"]))


def test_helper_that_cannot_start_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(certificate_helper.sys, "executable", str(tmp_path / "none"))
    with pytest.raises(OperatingError, match="could not be started"):
        asyncio.run(certificate_helper.run_helper(["show", "x"]))


def test_folder_that_cannot_be_written_is_said(core: Core) -> None:
    core.folder.parent.joinpath("server").write_text("a file where the folder should be")
    with pytest.raises(OperatingError, match="cannot be kept"):
        core.ensure()


# --- addresses of this machine -----------------------------------------------------------------------------


def test_local_hosts_can_all_be_named() -> None:
    hosts = certificate_hosts.local_hosts()
    assert {"localhost", "127.0.0.1"} <= set(hosts)
    assert certificate_hosts.normal_hosts(hosts) == hosts
