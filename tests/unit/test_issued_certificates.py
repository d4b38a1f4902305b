"""The server certificate from the control plane and from the CA it delegated: when, what, and what survives."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from issuer_support import InProcess, Lines, SetClock, SigningCloud, chain_of, key_pem

from ggfast.cli import keyfiles
from ggfast.core.cloud_certificates import CloudCertificates
from ggfast.core.issued import Issued, read_kept
from ggfast.core.trust import Trust
from ggfast.errors import LinkDown, Malformed, Rejected
from ggfast.limits import CERTIFICATE_REMINDER_S, CERTIFICATE_RETRY_FIRST_S, CERTIFICATE_RETRY_S, CLOCK_FLOOR_S

DAY_S = 86_400
WEEK_S = 7 * DAY_S
NAMES = ("localhost",)


class Core:
    """A core's certificates with a clock, a helper and a control plane."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **cloud: float) -> None:
        self.folder = folder / "server"
        self.clock = SetClock()
        self.helper = InProcess(monkeypatch, self.clock)
        self.cloud = SigningCloud(self.clock, **cloud)
        self.log = Lines()
        self.server_key: Path | None = None
        self.restart()

    def restart(self) -> None:
        """Power off and on."""
        self.clock.passed = 1_000.0
        found: Any = (self.folder, self.cloud, self.server_key, self.helper, self.clock, self.log)
        self.keeper = CloudCertificates(*found)

    def look(self, hosts: Sequence[str] = NAMES) -> Issued | None:
        self.helper.calls.clear()
        self.cloud.asked.clear()
        asyncio.run(self.keeper.look(Trust.read(self.cloud.trust()), hosts))
        return self.keeper.served

    def have(self, hosts: Sequence[str] = NAMES) -> Issued:
        found = self.look(hosts)
        assert found is not None
        return found

    def offline(self) -> None:
        self.cloud.failure = LinkDown("no route to the control plane")

    def online(self) -> None:
        self.cloud.failure = None
        self.keeper.hurry()

    def chain(self) -> list[x509.Certificate]:
        return chain_of(self.folder / "server.crt")

    def verifies(self, *options: str) -> bool:
        """OpenSSL's word on what is served, at this core's time, by a device that has the newest CA."""
        ca, leaf = self.folder.parent / "device-ca.pem", self.folder.parent / "leaf.pem"
        ca.write_text(self.cloud.cas[0].pem)
        text = (self.folder / "server.crt").read_text()
        leaf.write_text(text)
        rest = self.folder.parent / "rest.pem"
        rest.write_text(text[text.index("-----END CERTIFICATE-----\n") + 26 :])
        more = ("-untrusted", str(rest)) if rest.stat().st_size else ()
        command = ["openssl", "verify", "-attime", str(int(self.clock.now)), "-CAfile", str(ca), *more, *options]
        return subprocess.run([*command, str(leaf)], capture_output=True, check=False, timeout=30).returncode == 0


@pytest.fixture
def core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Core:
    return Core(tmp_path, monkeypatch)


@pytest.fixture
def delegated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Core:
    """With a CA of 90 days that it may use."""
    core = Core(tmp_path, monkeypatch, delegation_s=90 * DAY_S)
    core.have()
    return core


# --- issue and renewal --------------------------------------------------------------------------------------


def test_row_47_row_60_a_week_from_the_issue_naming_every_listed_host(core: Core) -> None:
    core.cloud.hosts = ["127.0.0.1", "10.0.0.7", "gateway.example", "not a host"]
    found = core.have(["192.168.1.5"])
    assert core.helper.calls == ["csr", "accept"]
    assert core.cloud.asked == [("127.0.0.1", "10.0.0.7", "gateway.example", "192.168.1.5")]
    assert (found.seconds, found.renew_at - core.clock.now) == (WEEK_S, pytest.approx(WEEK_S * 2 / 3))
    for option in ("-verify_ip 10.0.0.7", "-verify_ip 192.168.1.5", "-verify_hostname gateway.example"):
        assert core.verifies("-purpose", "sslserver", *option.split())
    assert not core.verifies("-verify_ip", "10.0.0.8")
    assert core.look(["192.168.1.5"]) == found and core.cloud.asked == []


def test_the_key_is_rsa_private_kept_and_never_sent(core: Core) -> None:
    core.have()
    key = core.folder / "issued.key"
    before = key.read_bytes()
    public = core.chain()[0].public_key()
    assert isinstance(public, rsa.RSAPublicKey) and public.key_size == 2_048
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    core.clock.go(WEEK_S * 0.7)
    core.have()
    assert key.read_bytes() == before


def test_row_52_the_owners_p256_key_is_signed_by_the_rsa_ca(tmp_path: Path, core: Core) -> None:
    core.server_key = tmp_path / "own.pem"
    core.server_key.write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1())))
    core.restart()
    core.have()
    assert core.verifies()
    leaf = core.chain()[0]
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
    assert leaf.signature_algorithm_oid == x509.SignatureAlgorithmOID.RSA_WITH_SHA256
    assert not (core.folder / "issued.key").exists()
    core.server_key.write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1())))  # the owner rotates it
    core.restart()
    core.have()
    assert len(core.cloud.asked) == 1


def test_an_owners_key_that_is_damaged_is_not_replaced(tmp_path: Path, core: Core) -> None:
    core.server_key = tmp_path / "own.pem"
    core.server_key.write_text("no key")
    core.restart()
    assert core.look() is None
    assert core.server_key.read_text() == "no key"
    assert "holds no private key" in core.log.lines[-1]


@pytest.mark.parametrize("life", [WEEK_S, 60.0])
def test_renewal_at_two_thirds_of_any_life_from_the_issue(core: Core, life: float) -> None:
    core.cloud.seconds = life
    first = core.have()
    assert core.keeper.pause_s() == pytest.approx(min(60.0, life * 2 / 3))
    core.clock.go(life * 2 / 3 - 1)
    assert core.have() == first
    core.clock.go(1.5)
    second = core.have()
    assert second.certificate_id != first.certificate_id
    core.restart()
    assert core.have() == second and core.cloud.asked == []


def test_row_47_another_life_takes_effect_at_the_next_issue(core: Core) -> None:
    core.have()
    core.cloud.seconds = 2 * WEEK_S
    assert core.have().seconds == WEEK_S
    core.clock.go(5 * DAY_S)
    assert core.have().seconds == 2 * WEEK_S


def test_row_50_a_rotated_ca_signs_a_new_certificate_at_once(core: Core) -> None:
    first = core.have()
    core.cloud.rotate()
    second = core.have()
    assert second.authority_id != first.authority_id
    assert core.verifies()
    assert core.look() == second and core.cloud.asked == []


def test_new_hosts_are_named_at_once_and_asked_for_once(core: Core) -> None:
    core.have()
    assert "10.9.9.9" in core.have([*NAMES, "10.9.9.9"]).hosts
    core.have(NAMES)  # gone again: no reason
    assert core.cloud.asked == []
    core.cloud.change = {"certificate": None}
    before = core.have([*NAMES, "10.9.9.8"])
    assert "10.9.9.8" not in before.hosts and core.cloud.asked


@pytest.mark.parametrize(
    "change",
    [
        {"certificate": "nothing"},
        {"certificate": 7},
        {"seconds": 0},
        {"seconds": "week"},
        {"authority": ""},
        {"delegation": {"certificate": "x"}},
    ],
)
def test_an_answer_that_is_none_changes_nothing_on_disk(delegated: Core, change: dict[str, Any]) -> None:
    before = {path.name: path.read_bytes() for path in delegated.folder.iterdir()}
    delegated.cloud.change = change
    delegated.cloud.seconds = 60.0
    delegated.cloud.hosts = ["127.0.0.1", "10.1.1.1"]
    delegated.look()
    assert {path.name: path.read_bytes() for path in delegated.folder.iterdir()} == before
    assert "no certificate" in delegated.log.lines[-1]


def test_a_certificate_for_another_key_or_of_another_ca_is_refused(tmp_path: Path, core: Core) -> None:
    core.have()
    foreign = (core.folder / "server.crt").read_text()
    core.cloud.rotate()
    core.cloud.change = {"certificate": foreign}  # its signer is not the authority beside it
    core.look()
    assert "did not sign it" in core.log.lines[-1]
    (core.folder / "issued.key").unlink()
    core.cloud.cas.pop(0)
    core.clock.go(CERTIFICATE_REMINDER_S)
    core.restart()
    assert core.look() is None
    assert "another key" in core.log.lines[-1]


# --- no network ---------------------------------------------------------------------------------------------


def test_row_49_offline_at_the_end_the_old_one_is_served_and_that_is_said_hourly(core: Core) -> None:
    first = core.have()
    core.offline()
    core.clock.go(8 * DAY_S)
    for _ in range(10):
        assert core.have() == first
        core.clock.go(450)
    told = core.log.about("has expired")
    assert len(told) == 2 and "delegation" in told[0]
    core.online()
    assert core.have() != first and core.verifies()


def test_attempts_fit_into_the_life_that_is_left(core: Core) -> None:
    core.cloud.seconds = 60.0
    core.have()
    core.offline()
    core.clock.go(40.0)
    attempts = 0
    while core.clock.wall() < core.have().ends_at:
        attempts += len(core.cloud.asked)
        core.clock.go(max(core.keeper.pause_s(), 0.1))
    assert 3 <= attempts <= 20
    core.clock.go(10 * 60)
    core.look()
    assert 0 < core.keeper.pause_s() <= 60.0


def test_attempts_of_a_long_life_are_an_hour_apart_at_last(core: Core) -> None:
    core.have()
    core.offline()
    core.clock.go(5 * DAY_S)
    pauses = []
    for _ in range(15):
        core.look()
        pauses.append(core.keeper.pause_s())
        core.clock.go(pauses[-1])
    assert pauses == sorted(pauses) and (pauses[0], pauses[-1]) == (CERTIFICATE_RETRY_FIRST_S, CERTIFICATE_RETRY_S)


def test_P3_the_delegated_ca_signs_while_the_control_plane_is_away(delegated: Core) -> None:
    first = delegated.have()
    delegated.offline()
    delegated.clock.go(5 * DAY_S)
    second = delegated.have()
    assert delegated.helper.calls == ["csr", "sign"]
    assert second.delegated and second.authority_id == first.authority_id
    assert len(delegated.chain()) == 2 and delegated.verifies("-purpose", "sslserver", "-verify_ip", "127.0.0.1")
    for _ in range(4):  # a month
        delegated.clock.go(6 * DAY_S)
        delegated.have()
        assert delegated.verifies()
    delegated.online()
    assert not delegated.have().delegated
    assert len(delegated.chain()) == 1 and delegated.verifies()


def test_P3_the_delegated_ca_signs_for_addresses_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    core = Core(tmp_path, monkeypatch, delegation_s=90 * DAY_S)
    core.have(["10.0.0.7", "2001:db8::7"])
    core.offline()
    core.clock.go(5 * DAY_S)
    assert core.have(["10.0.0.7", "2001:db8::7"]).delegated
    assert core.verifies("-verify_ip", "2001:db8::7") and core.verifies("-verify_ip", "10.0.0.7")


def test_P3_the_end_of_the_delegated_ca_is_the_end(delegated: Core) -> None:
    delegated.offline()
    delegated.cloud.seconds = 40 * DAY_S  # so that a life is cut
    for _ in range(4):
        delegated.clock.go(25 * DAY_S)
        last = delegated.have()
    assert last.not_after == chain_of(delegated.folder / "delegated.crt")[0].not_valid_after_utc.timestamp()
    assert delegated.log.about("has expired") and delegated.have() == last


def test_a_host_outside_the_delegation_waits_for_the_control_plane(delegated: Core) -> None:
    delegated.offline()
    before = delegated.have([*NAMES, "10.4.4.4"])
    assert delegated.helper.calls == ["csr"] and not before.delegated
    delegated.clock.go(5 * DAY_S)
    found = delegated.have([*NAMES, "10.4.4.4"])
    assert found.delegated and "10.4.4.4" not in found.hosts and delegated.verifies()


def test_a_core_that_is_refused_does_not_go_on_by_itself(delegated: Core) -> None:
    delegated.clock.go(5 * DAY_S)
    delegated.cloud.failure = Rejected("not authorized", reason_code=403)
    assert not delegated.have().delegated
    delegated.cloud.failure = Rejected("overloaded", reason_code=503)
    delegated.keeper.hurry()
    assert delegated.have().delegated


def test_a_broken_link_in_the_middle_counts_as_no_link(delegated: Core) -> None:
    delegated.clock.go(5 * DAY_S)
    delegated.cloud.failure = Malformed("half an answer")
    assert delegated.have().delegated


@pytest.mark.parametrize("how", ["not allowed", "revoked"])
def test_a_revoked_ca_and_its_key_are_deleted(delegated: Core, how: str) -> None:
    delegated.offline()
    delegated.clock.go(5 * DAY_S)
    assert delegated.have().delegated
    old = (delegated.folder / "delegated.key").read_bytes()
    delegated.online()
    if how == "revoked":
        delegated.cloud.revoked_before = int(delegated.clock.now)
    else:
        delegated.cloud.delegation_s = 0.0
    found = delegated.have()
    assert not found.delegated and len(delegated.cloud.asked) == 1
    left = {path.name for path in delegated.folder.iterdir()}
    if how == "revoked":  # and a new one with another key is there at once
        assert (delegated.folder / "delegated.key").read_bytes() != old
    else:
        assert not left & {"delegated.key", "delegated.crt"}
    delegated.look()
    assert delegated.cloud.asked == []


def test_a_revoked_ca_signs_nothing_more(delegated: Core) -> None:
    delegated.offline()
    delegated.cloud.revoked_before = int(delegated.clock.now)
    delegated.clock.go(8 * DAY_S)
    assert not delegated.have().delegated


def test_a_delegated_ca_under_a_lost_ca_signs_nothing(delegated: Core) -> None:
    delegated.cloud.rotate()
    delegated.cloud.cas.pop()
    delegated.offline()
    delegated.clock.go(8 * DAY_S)
    assert not delegated.have().delegated


def test_the_delegated_ca_is_renewed_at_two_thirds_of_its_own_life(delegated: Core) -> None:
    delegated.cloud.delegation_s = 3 * DAY_S
    delegated.clock.go(5 * DAY_S)
    delegated.have()
    first = chain_of(delegated.folder / "delegated.crt")[0]
    delegated.clock.go(2 * DAY_S + 10)
    delegated.have()
    assert chain_of(delegated.folder / "delegated.crt")[0].serial_number != first.serial_number


def test_a_delegation_that_is_not_given_is_not_asked_for_all_the_time(core: Core) -> None:
    core.have()
    core.cloud.delegation_s = 60.0
    core.cloud.change = {"delegation": None}  # from an old CA
    core.have()
    assert len(core.cloud.asked) == 1
    core.clock.go(DAY_S)
    core.have()
    assert core.cloud.asked == []


# --- clocks -------------------------------------------------------------------------------------------------


def test_an_unset_clock_drops_nothing_and_the_network_cures_it(delegated: Core) -> None:
    first = delegated.have()
    delegated.offline()
    delegated.clock.now = 1_000.0
    delegated.restart()
    second = delegated.have()
    ends = chain_of(delegated.folder / "delegated.crt")[0].not_valid_after_utc.timestamp()
    assert second.delegated and second.not_after == ends  # dates by the only clock that was right
    delegated.restart()
    assert delegated.have() == second and delegated.helper.calls == ["csr"]
    delegated.clock.now = first.issued_at + DAY_S
    delegated.online()
    assert not delegated.have().delegated and delegated.verifies()


def test_an_unset_clock_without_delegation_keeps_serving(core: Core) -> None:
    first = core.have()
    core.offline()
    core.clock.now = 1_000.0
    for _ in range(2):
        assert core.have() == first
        core.restart()
    assert core.log.about("has expired") == []


def test_a_clock_that_nobody_sets_renews_by_the_time_that_passes(core: Core) -> None:
    cloud_clock = SetClock()
    core.cloud.clock = cloud_clock
    core.clock.now = 1_000.0
    first = core.have()
    core.look()
    assert core.cloud.asked == []
    core.clock.go(5 * DAY_S)
    cloud_clock.go(5 * DAY_S)
    assert core.have() != first


@pytest.mark.parametrize("jump", [-100 * DAY_S, -DAY_S, 400 * DAY_S])
def test_a_clock_that_was_set_asks_once_and_keeps_what_works(delegated: Core, jump: float) -> None:
    true = SetClock()
    delegated.cloud.clock = true
    assert delegated.clock.now + jump > CLOCK_FLOOR_S
    first = delegated.have()
    delegated.clock.now += jump
    delegated.offline()
    offline = delegated.have()
    delegated.clock.now -= jump
    assert delegated.verifies(), "what a wrong clock made must hold at the right time"
    assert offline.not_after >= first.not_after
    delegated.clock.now += jump
    delegated.online()
    found = delegated.have()
    assert found.not_after == pytest.approx(true.now + WEEK_S, abs=2)
    delegated.clock.go(60)
    delegated.look()
    assert delegated.cloud.asked == [], "a clock that is off must not ask all the time"


# --- power cuts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_before", range(1, 6))
@pytest.mark.parametrize("what", ["first", "renewal", "delegated"])
def test_P2_a_power_cut_between_two_writes_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, stop_before: int
) -> None:
    core = Core(tmp_path, monkeypatch, delegation_s=90 * DAY_S)
    before = None
    if what != "first":
        before = core.have()
        core.clock.go(5 * DAY_S)
    if what == "delegated":
        core.offline()
    writes, real = 0, keyfiles.write_file

    def dying(path: Path, content: bytes, *, mode: int, force: bool) -> None:
        nonlocal writes
        writes += 1
        if writes == stop_before:
            raise KeyboardInterrupt
        real(path, content, mode=mode, force=force)

    monkeypatch.setattr(keyfiles, "write_file", dying)
    try:
        core.look()
    except KeyboardInterrupt:
        pass
    else:
        assert stop_before > writes
    monkeypatch.setattr(keyfiles, "write_file", real)
    core.offline()
    core.restart()
    kept = read_kept(core.folder, core.folder / "issued.key")
    if before is not None:
        assert kept.served is not None and kept.ca is not None, "a working certificate was lost"
        assert core.have() is not None and core.verifies()
    core.online()
    assert not core.have().delegated and core.verifies()


@pytest.mark.parametrize("name", ["server.crt", "issued.json", "issued.key", "delegated.crt", "delegated.key"])
@pytest.mark.parametrize("damage", ["gone", "cut", "empty", "other"])
def test_any_damaged_file_is_made_again(delegated: Core, name: str, damage: str) -> None:
    path = delegated.folder / name
    match damage:
        case "gone":
            path.unlink()
        case "other":
            path.write_text('[{"certificate_id": 7}]')
        case _:
            path.write_bytes(path.read_bytes()[:50] if damage == "cut" else b"")
    delegated.clock.go(5 * DAY_S)
    delegated.restart()
    delegated.have()
    assert delegated.verifies()
    kept = read_kept(delegated.folder, delegated.folder / "issued.key")
    assert kept.served is not None and kept.ca is not None


def test_the_record_stays_small(delegated: Core) -> None:
    for _ in range(4):
        delegated.clock.go(5 * DAY_S)
        delegated.have()
    assert len(json.loads((delegated.folder / "issued.json").read_text())) == 4


def test_a_full_disk_is_said_and_tried_again(core: Core) -> None:
    first = core.have()
    core.helper.broken = "No space left on device"
    core.clock.go(5 * DAY_S)
    assert core.have() == first
    assert "No space left" in core.log.lines[-1]
    core.helper.broken = ""
    core.clock.go(core.keeper.pause_s())
    assert core.have() != first


def test_forgetting_leaves_the_cores_own_ca(delegated: Core) -> None:
    (delegated.folder / "ca.crt").write_text("the core's own")
    asyncio.run(delegated.keeper.forget())
    assert [path.name for path in delegated.folder.iterdir()] == ["ca.crt"]
    delegated.have()
    assert delegated.verifies()


# --- what the control plane says ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"groupId": 7, "endedCertificates": "x", "authorities": ["no", 7], "connectivity": [1, {"HostAddress": []}]},
        {"delegation": 1, "certificateSeconds": True, "connectivity": {}},
        {"delegation": {"seconds": -1, "revokedBefore": "x"}, "certificateSeconds": float("nan")},
    ],
)
def test_nonsense_counts_as_not_said(found: dict[str, Any]) -> None:
    assert Trust.read(found) == Trust()
