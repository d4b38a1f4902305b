"""A CA of a core's own: devices believe it for the core's names and addresses and for nothing else; it can be ended."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cloud_fleet import CORE, HOME, deployed
from cryptography import x509
from issuing_support import (
    CoreThatAsks,
    Key,
    begins_before,
    handshake,
    new_key,
    openssl_says,
    request_for,
    signed_by_core,
)

from ggfast.cli.cert_x509 import host_subject
from ggfast.cli.cloud import main
from ggfast.cloud.devices.issuing import Issuing
from ggfast.cloud.events import CoreChanged
from ggfast.cloud.greengrass.authorities import (
    delegation_of,
    forbid_delegation,
    group_cas,
    revoke_delegation,
)
from ggfast.cloud.greengrass.issued import AUTHORITY, issued

DAY_S = 86_400
HOSTS = ("192.168.1.5", "fd00::7", "core.local")


@pytest.fixture
def core(tmp_path: Path) -> Iterator[CoreThatAsks]:
    made = CoreThatAsks(tmp_path)
    yield made
    made.desk.close()


def ask(core: CoreThatAsks, key: Key, hosts: Sequence[str] = HOSTS) -> dict[str, Any]:
    """A core's request for a CA of its own with `key`; the answer."""
    body = {"csr": request_for(new_key()), "hosts": list(hosts), "delegationCsr": request_for(key)}
    return core.ask(body)


def valid(pem: str) -> tuple[int, int]:
    found = x509.load_pem_x509_certificate(pem.encode())
    return int(found.not_valid_before_utc.timestamp()), int(found.not_valid_after_utc.timestamp())


class Delegated:
    """A CA that a core got, and what it signs with it."""

    def __init__(self, core: CoreThatAsks, folder: Path, hosts: Sequence[str]) -> None:
        deployed(core.fleet)
        self.folder, self.key = folder, new_key()
        self.answer = ask(core, self.key, hosts)
        self.pem = str(self.answer["delegation"]["certificate"])
        self.root = str(self.answer["delegation"]["authority"])

    def says(self, *hosts: str) -> str:
        """What OpenSSL says of a server certificate for hosts."""
        leaf = signed_by_core(self.pem, self.key, new_key(), hosts)
        return openssl_says(self.folder, self.root, [leaf, self.pem])


def test_a_device_that_trusts_the_group_ca_alone_connects(core: CoreThatAsks, tmp_path: Path) -> None:
    made, key = Delegated(core, tmp_path, HOSTS), new_key()
    group_id = core.fleet.fetched()["groupId"]
    group = core.desk.look(lambda tx: group_cas(tx, HOME, group_id))[0]["pem"]
    assert made.root == group == made.answer["authority"]
    leaf = signed_by_core(made.pem, made.key, key, HOSTS)
    assert openssl_says(tmp_path, group, [leaf, made.pem]) == ""
    for host in HOSTS:
        assert handshake(tmp_path, group, [leaf, made.pem], key, host) == ""
    assert "mismatch" in handshake(tmp_path, group, [leaf, made.pem], key, "192.168.1.6")
    stranger = signed_by_core(made.pem, made.key, key, ["10.0.0.1"])
    assert handshake(tmp_path, group, [stranger, made.pem], key, "10.0.0.1") == "permitted subtree violation"
    assert "unable to get local issuer" in handshake(tmp_path, group, [leaf], key, HOSTS[0])


@pytest.mark.parametrize(
    ("own", "others"),
    [
        (HOSTS, ["192.168.1.6", "fd00::8", "core.example", "x.core.local", "*.core.local", "local", "xcore.local"]),
        (HOSTS[:1], ["192.168.1.6", "fd00::7", "core.local"]),
        (HOSTS[1:2], ["fd00::8", "192.168.1.5", "core.local"]),
        (HOSTS[2:], ["192.168.1.5", "fd00::7", "x.core.local"]),
    ],
)
def test_it_is_good_for_its_hosts_and_no_other(
    core: CoreThatAsks, tmp_path: Path, own: Sequence[str], others: Sequence[str]
) -> None:
    made = Delegated(core, tmp_path, own)
    assert made.says(*own) == ""
    for host in others:
        assert "subtree violation" in made.says(host), host
        assert "subtree violation" in made.says(*own, host), host


def test_it_signs_no_further_authority(core: CoreThatAsks, tmp_path: Path) -> None:
    made, key, leaf_key = Delegated(core, tmp_path, HOSTS), new_key(), new_key()
    further = signed_by_core(made.pem, made.key, key, HOSTS, name="another CA", ca=True)
    leaf = signed_by_core(further, key, leaf_key, HOSTS)
    assert "path length constraint exceeded" in openssl_says(tmp_path, made.root, [leaf, further, made.pem])
    assert handshake(tmp_path, made.root, [leaf, further, made.pem], leaf_key, HOSTS[0]) != ""


@pytest.mark.parametrize("own", HOSTS)
def test_something_is_permitted_of_every_kind(core: CoreThatAsks, tmp_path: Path, own: str) -> None:
    """Java compares addresses with ranges of the other family too, and fails at names that are empty."""
    made = x509.load_pem_x509_certificate(Delegated(core, tmp_path, [own]).pem.encode())
    found = made.extensions.get_extension_for_class(x509.NameConstraints).value
    permitted = {str(name.value) for name in found.permitted_subtrees or []}
    ranges = {"192.168.1.5": {"0.0.0.0/32"}, "fd00::7": {"::/128"}, "core.local": {"invalid"}}
    nobody = {"0.0.0.0/32", "::/128", "invalid"} - ranges[own]
    assert permitted == nobody | {own + {"192.168.1.5": "/32", "fd00::7": "/128"}.get(own, "")}
    name = own if own == "core.local" else "invalid"
    assert [str(excluded.value) for excluded in found.excluded_subtrees or []] == [f".{name}"]


def test_a_certificate_with_addresses_alone_has_a_subject_that_is_no_hosts(core: CoreThatAsks, tmp_path: Path) -> None:
    """OpenSSL takes a subject that looks like a host's for one where it finds no names."""
    made = Delegated(core, tmp_path, HOSTS[:1])
    leaf = signed_by_core(made.pem, made.key, new_key(), HOSTS[:1], name=HOSTS[0])
    assert "permitted subtree violation" in openssl_says(tmp_path, made.root, [leaf, made.pem])
    assert "ggfast core" in host_subject(HOSTS[:1]).rfc4514_string()
    leaf = signed_by_core(made.pem, made.key, new_key(), HOSTS[:1], name="ggfast core")
    assert openssl_says(tmp_path, made.root, [leaf, made.pem]) == ""


def test_small_tls_libraries_can_read_it(core: CoreThatAsks, tmp_path: Path) -> None:
    made = x509.load_pem_x509_certificate(Delegated(core, tmp_path, HOSTS).pem.encode())
    critical = {type(found.value) for found in made.extensions if found.critical}
    assert critical == {x509.BasicConstraints, x509.KeyUsage}, "others may be unknown to them"
    usage = made.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    assert not (usage.digital_signature or usage.crl_sign or usage.key_agreement or usage.key_encipherment)


def test_it_lives_as_long_as_the_settings_say_and_not_longer_than_its_authority(core: CoreThatAsks) -> None:
    group, now = deployed(core.fleet)["GroupId"], int(core.desk.clock.now)
    assert valid(ask(core, new_key())["delegation"]["certificate"]) == (begins_before(now), now + 365 * DAY_S)
    core.issuing = Issuing(replace(core.desk.cloud, delegated_authority_s=7_300 * DAY_S), core.desk.store)
    end = int(core.desk.look(lambda tx: group_cas(tx, HOME, group))[0]["not_after"])
    core.desk.clock.now += DAY_S
    assert valid(ask(core, new_key())["delegation"]["certificate"])[1] == end


def test_none_is_given_where_it_is_switched_off(core: CoreThatAsks) -> None:
    group = deployed(core.fleet)["GroupId"]
    off = replace(core.desk.cloud, delegated_authority_s=0)
    core.issuing = Issuing(off, core.desk.store)
    assert "delegation" not in ask(core, new_key())
    assert core.desk.look(lambda tx: delegation_of(tx, off, HOME, group)) == {"seconds": 0, "revokedBefore": 0}


def test_an_authority_from_before_delegation_signs_servers_only(core: CoreThatAsks) -> None:
    group = deployed(core.fleet)["GroupId"]

    def make_old(tx: Any) -> None:
        ca = group_cas(tx, HOME, group)[0]
        old = {member: ca[member] for member in ("pem", "not_after", "sealed_key")}
        tx.put("group-ca", f"{HOME}/{group}", ca["id"], old)

    core.desk.change(make_old)
    answer = ask(core, new_key())
    assert "delegation" not in answer
    assert answer["certificate"]
    assert core.desk.look(lambda tx: delegation_of(tx, core.desk.cloud, HOME, group))["seconds"] == 0
    core.desk.call("CreateGroupCertificateAuthority", GroupId=group, AmznClientToken="t")
    assert "delegation" in ask(core, new_key())


def test_what_was_given_before_a_revocation_begins_before_it_and_nothing_else_does(core: CoreThatAsks) -> None:
    group, now = deployed(core.fleet)["GroupId"], int(core.desk.clock.now)

    def revoke() -> int:
        return core.desk.change(lambda tx: revoke_delegation(tx, HOME, group, core.desk.clock.now))

    since = [valid(ask(core, new_key())["delegation"]["certificate"])[0]]
    revoked = [revoke()]
    since.append(valid(ask(core, new_key())["delegation"]["certificate"])[0])
    revoked.append(revoke())  # in the same second
    since.append(valid(ask(core, new_key())["delegation"]["certificate"])[0])
    assert revoked == [now, now + 1]
    assert since[0] < revoked[0] <= since[1] < revoked[1] <= since[2]
    core.desk.clock.now -= 5_000  # somebody set the clock back
    assert revoke() > since[2]


def test_its_core_is_told_of_every_change(core: CoreThatAsks) -> None:
    group = deployed(core.fleet)["GroupId"]
    told = CoreChanged("eu-west-1", CORE)
    for change in (
        lambda tx: revoke_delegation(tx, HOME, group, 1.0),
        lambda tx: forbid_delegation(tx, HOME, group, True),
    ):
        core.desk.events.clear()
        core.desk.change(change)
        assert core.desk.events == [told]
    core.desk.events.clear()
    core.desk.call("CreateGroupCertificateAuthority", GroupId=group, AmznClientToken="t")
    assert told in core.desk.events
    core.desk.events.clear()
    expiry = {"CertificateExpiryInMilliseconds": 700_000_000}
    core.desk.call("UpdateGroupCertificateConfiguration", GroupId=group, **expiry)
    assert told in core.desk.events


def test_forbidding_keeps_it_from_its_core_until_it_is_allowed(core: CoreThatAsks) -> None:
    group = deployed(core.fleet)["GroupId"]
    core.desk.change(lambda tx: forbid_delegation(tx, HOME, group, True))
    assert "delegation" not in ask(core, new_key())
    core.desk.change(lambda tx: forbid_delegation(tx, HOME, group, False))
    assert "delegation" in ask(core, new_key())
    kinds = [record.kind for record in core.desk.look(lambda tx: issued(tx, HOME, group))]
    assert kinds.count(AUTHORITY) == 1


# --- the command -----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    made = tmp_path / "cloud"
    assert main(["init", str(made), "--account", "123456789012", "--region", "eu-west-1", "--host", "localhost"]) == 0
    out = str(tmp_path / "device")
    assert main(["create-core", "core9", "--dir", str(made), "--out", out, "--json"]) == 0
    capsys.readouterr()
    return made


def test_operators_see_and_change_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def command(*words: str) -> dict[str, Any]:
        assert main(["delegation", "core9", "--dir", str(folder), *words, "--json"]) == 0
        return dict(json.loads(capsys.readouterr().out))

    found = command()
    assert (found["delegation"], found["seconds"], found["revokedBefore"]) == ("allowed", 365 * DAY_S, 0)
    assert found["issued"] == []
    assert command("--revoke")["revokedBefore"] > 0
    assert command("--forbid")["delegation"] == "forbidden"
    assert command()["seconds"] == 0
    assert command("--allow")["delegation"] == "allowed"
    settings = json.loads((folder / "cloud.json").read_text())
    (folder / "cloud.json").write_text(json.dumps(settings | {"delegatedAuthorityDays": 0}))
    assert command()["delegation"].startswith("switched off for all groups")
    assert main(["delegation", found["groupId"], "--dir", str(folder)]) == 0
    assert capsys.readouterr().out.startswith(f"{found['groupId']}  delegated CA: switched off")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nobody"], "There is no group 'nobody' in eu-west-1."),
        (["core9", "--region", "us-east-1"], "There is no group 'core9' in us-east-1."),
        (["core9", "--region", "?"], "a region such as eu-west-1"),
    ],
)
def test_what_cannot_be_found_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    assert main(["delegation", *words, "--dir", str(folder)]) == 1
    assert text in capsys.readouterr().err


def test_the_command_shows_what_was_signed_and_what_is_revoked(
    core: CoreThatAsks, capsys: pytest.CaptureFixture[str]
) -> None:
    from ggfast.cli.cloud_delegation import _found, _show

    group = deployed(core.fleet)["GroupId"]
    ask(core, new_key())
    core.desk.change(lambda tx: revoke_delegation(tx, HOME, group, core.desk.clock.now))
    ask(core, new_key())
    found = core.desk.look(lambda tx: _found(tx, core.desk.cloud, HOME, "g"))
    assert [(entry["kind"], entry["revoked"]) for entry in found["issued"]] == [
        ("authority", False),
        ("authority", True),
        ("server-certificate", False),
        ("server-certificate", False),
    ]
    _show(found)
    shown = capsys.readouterr().out
    assert f"{group}  delegated CA: allowed, for 365 days; those from before " in shown
    assert shown.count("  revoked  ") == 1
    assert shown.count("    192.168.1.5 fd00::7 core.local\n") == 4
