"""Server certificates of cores: whom devices believe them to, for how long, and what a core may not ask."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cloud_desk import authority
from cloud_fleet import CORE, HOME, deployed, reset
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from issuing_support import CoreThatAsks, begins_before, handshake, new_key, openssl_says, request_for

from ggfast.cloud.certificate import server_certificate
from ggfast.cloud.devices import issuing
from ggfast.cloud.devices.server import DeviceServers
from ggfast.cloud.faults import Fault
from ggfast.cloud.greengrass.authorities import certificate_seconds, group_cas
from ggfast.cloud.greengrass.issued import SERVER, issued
from ggfast.cloud.hosts import host_of, usable_hosts
from ggfast.cloud.limits import CERTIFICATE_HOSTS_MAX, CERTIFICATES_BURST, CERTIFICATES_PER_S
from ggfast.counters import Counters
from tests.patience import patience

WAIT_S = patience(10.0)
WEEK_S = 7 * 86_400


@pytest.fixture
def core(tmp_path: Path) -> Iterator[CoreThatAsks]:
    made = CoreThatAsks(tmp_path)
    yield made
    made.desk.close()


def names(pem: str) -> list[str]:
    found = x509.load_pem_x509_certificate(pem.encode()).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [f"{type(name).__name__}:{name.value}" for name in found.value]


def test_row_60_devices_believe_it_under_every_name_and_address(core: CoreThatAsks, tmp_path: Path) -> None:
    group = deployed(core.fleet)["GroupId"]
    core.tells_addresses("192.168.1.5", "FE80::1%eth0", "Core.Local.", "no host")
    key = new_key()
    answer = core.ask({"csr": request_for(key), "hosts": ["fd00:0::7", "192.168.1.5", "core.local"]})
    discovered = core.desk.look(lambda tx: group_cas(tx, HOME, group))[0]["pem"]
    assert answer["authority"] == discovered
    assert answer["hosts"] == ["192.168.1.5", "core.local", "fd00::7"]
    pem = answer["certificate"]
    assert names(pem) == ["IPAddress:192.168.1.5", "DNSName:core.local", "IPAddress:fd00::7"]
    for host in answer["hosts"]:
        assert handshake(tmp_path, discovered, [pem], key, host) == ""
        kind = "-verify_hostname" if host == "core.local" else "-verify_ip"
        assert openssl_says(tmp_path, discovered, [pem], kind, host) == ""
    assert "mismatch" in handshake(tmp_path, discovered, [pem], key, "192.168.1.6")
    assert "delegation" not in answer


def test_it_comes_by_https_for_the_cores_own_certificate(core: CoreThatAsks, tmp_path: Path) -> None:
    deployed(core.fleet)
    made = core.desk.call("CreateKeysAndCertificate", service="iot", setAsActive=True)
    core.desk.call("AttachThingPrincipal", thingName=CORE, principal=made["certificateArn"])
    core.desk.call("AttachPolicy", service="iot", policyName="core", target=made["certificateArn"])
    (tmp_path / "core.pem").write_text(made["certificatePem"] + made["keyPair"]["PrivateKey"])
    context = ssl.create_default_context(cadata=authority().ca_pem)
    context.load_cert_chain(tmp_path / "core.pem")
    body = json.dumps({"csr": request_for(new_key()), "hosts": ["10.0.0.1"], "delegationCsr": request_for(new_key())})
    head = f"POST /greengrass/things/{CORE}/serverCertificate HTTP/1.1\r\nHost: localhost\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()
    mqtt, https = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]

    async def ask() -> tuple[bytes, dict[str, Any]]:
        servers = DeviceServers(
            core.desk.cloud, core.desk.store, core.desk.dispatcher, mqtt=mqtt, https=https, folder=tmp_path,
            certificate=lambda: server_certificate(tmp_path / "tls", authority(), ("localhost",), time.time()),
            counters=Counters(),
        )  # fmt: skip
        await servers.start()
        try:
            port = https.getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            found = json.loads(await reader.readexactly(length))
            writer.transport.abort()
            return answer, found
        finally:
            await servers.stop()

    try:
        head_of_answer, answer = core.desk.runner.run(asyncio.wait_for(ask(), WAIT_S))
    finally:
        mqtt.close()
        https.close()
    assert head_of_answer.startswith(b"HTTP/1.1 200 ")
    assert answer.keys() == {"certificate", "authority", "seconds", "hosts", "delegation"}
    assert openssl_says(tmp_path, answer["authority"], [answer["certificate"]], "-verify_ip", "10.0.0.1") == ""


def test_it_lives_as_long_as_the_group_says_from_a_little_before_now(core: CoreThatAsks) -> None:
    group, now = deployed(core.fleet)["GroupId"], int(core.desk.clock.now)
    body = {"csr": request_for(new_key()), "hosts": ["a"]}

    def life() -> tuple[int, int, int]:
        answer = core.ask(body)
        found = x509.load_pem_x509_certificate(answer["certificate"].encode())
        times = found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()
        return int(times[0]), int(times[1]), answer["seconds"]

    assert life() == (begins_before(now), now + WEEK_S, WEEK_S)
    most = {"CertificateExpiryInMilliseconds": 2_592_000_000}
    core.desk.call("UpdateGroupCertificateConfiguration", GroupId=group, **most)
    assert life()[2] == 30 * 86_400
    core.issuing = issuing.Issuing(replace(core.desk.cloud, server_certificate_s=30), core.desk.store)
    assert life()[2] == 30
    shown = core.desk.look(
        lambda tx: certificate_seconds(tx, replace(core.desk.cloud, server_certificate_s=45), HOME, group)
    )
    assert shown == 45


def test_it_does_not_outlive_its_authority(core: CoreThatAsks) -> None:
    group = deployed(core.fleet)["GroupId"]
    body = {"csr": request_for(new_key()), "hosts": ["a"]}
    end = int(core.desk.look(lambda tx: group_cas(tx, HOME, group))[0]["not_after"])
    core.desk.clock.now = end - 100
    answer = core.ask(body)
    assert answer["seconds"] == 100
    core.desk.clock.now = end
    with pytest.raises(Fault, match="has no certificate authority that is valid") as refused:
        core.ask(body)
    assert refused.value.status == 404


def test_row_48_after_rotation_the_newest_authority_signs(core: CoreThatAsks) -> None:
    group = deployed(core.fleet)["GroupId"]
    before = core.ask({"csr": request_for(new_key()), "hosts": ["a"]})["authority"]
    core.desk.call("CreateGroupCertificateAuthority", GroupId=group, AmznClientToken="t")
    after = core.ask({"csr": request_for(new_key()), "hosts": ["a"]})["authority"]
    assert [ca["pem"] for ca in core.desk.look(lambda tx: group_cas(tx, HOME, group))] == [after, before]


def test_it_is_for_the_group_that_the_core_is_about_to_run(core: CoreThatAsks) -> None:
    body = {"csr": request_for(new_key()), "hosts": ["a"]}

    def signer() -> str:
        pem = core.ask(body)["authority"]
        signers = core.desk.look(lambda tx: {group_cas(tx, HOME, group)[0]["pem"]: group for group in groups})
        return str(signers[pem])

    with pytest.raises(Fault, match="No group is deployed to the core core1") as refused:
        core.ask(body)
    assert refused.value.status == 404
    first = deployed(core.fleet)
    second = core.fleet.group("second")
    started = core.fleet.deploy(second)
    groups = [first["GroupId"], second["GroupId"]]
    assert signer() == second["GroupId"]
    core.fleet.core_says(started, "Failure", "it cannot run here")
    assert signer() == first["GroupId"], "the core went back to what it had"
    reset(core.fleet, second, Force=True)
    reset(core.fleet, first, Force=True)
    with pytest.raises(Fault, match="No group is deployed"):
        core.ask(body)


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65_537, 2_048)])
def test_keys_that_devices_know_are_taken(core: CoreThatAsks, tmp_path: Path, key: Any) -> None:
    deployed(core.fleet)
    answer = core.ask({"csr": request_for(key), "hosts": ["localhost"]})
    assert handshake(tmp_path, answer["authority"], [answer["certificate"]], key, "localhost") == ""


def test_requests_that_cannot_be_used_say_why(core: CoreThatAsks) -> None:
    deployed(core.fleet)
    good = request_for(new_key())
    broken = good[:-60] + "AAAA" + good[-56:]
    weak = request_for(rsa.generate_private_key(65_537, 1_024))
    odd = request_for(ec.generate_private_key(ec.SECP521R1()))
    kinds = "its key is none of RSA with 2048 bits or more, NIST P-256, P-384"
    for body, text in [
        (b"\xff", "The body is not JSON"),
        (b"[]", "The body is JSON of type list"),
        ({}, "csr: found NoneType, expected a signing request"),
        ({"csr": 7}, "csr: found int"),
        ({"csr": "x" * 10_000}, "csr: found 10000 characters"),
        ({"csr": "x", "hosts": ["a"]}, "csr: not a certificate signing request in PEM form"),
        ({"csr": good.replace("CERTIFICATE REQUEST", "CERTIFICATE"), "hosts": ["a"]}, "csr: not a certificate signing"),
        ({"csr": broken, "hosts": ["a"]}, "csr: "),
        ({"csr": weak, "hosts": ["a"]}, f"csr: {kinds}."),
        ({"csr": odd, "hosts": ["a"]}, f"csr: {kinds}."),
        ({"csr": good}, "hosts: none, and the core has told no addresses"),
        ({"csr": good, "hosts": "a"}, "hosts: found str"),
        ({"csr": good, "hosts": [7]}, "hosts: '' is no IP address"),
        ({"csr": good, "hosts": ["*.local"]}, "hosts: '*.local' is no IP address without zone and no DNS name"),
        ({"csr": good, "hosts": ["fe80::1%1"]}, "hosts: 'fe80::1%1'"),
        ({"csr": good, "hosts": ["a"] * 65}, "hosts: found 65 of them, expected a list of up to 64"),
        ({"csr": good, "hosts": ["a"], "delegationCsr": weak}, f"delegationCsr: {kinds}."),
    ]:
        core.desk.clock.now += 1 / CERTIFICATES_PER_S  # so that its rate is no reason
        with pytest.raises(Fault) as refused:
            core.ask(body)
        assert refused.value.status == 400
        assert refused.value.message.startswith(text)


def test_damaged_requests_are_refused_and_nothing_else(core: CoreThatAsks) -> None:
    deployed(core.fleet)
    good, luck = request_for(new_key()), random.Random(6)
    for _ in range(200):
        text = list(good)
        for _ in range(luck.randint(1, 4)):
            text[luck.randrange(len(text))] = luck.choice("AZaz09+/=-\n\x00é")
        core.desk.clock.now += 1 / CERTIFICATES_PER_S
        try:
            core.ask({"csr": "".join(text), "hosts": ["a"], "delegationCsr": "".join(text)})
        except Fault as refused:
            assert refused.status == 400, refused.message


def test_only_a_core_that_may_gets_one_for_itself(core: CoreThatAsks, tmp_path: Path) -> None:
    deployed(core.fleet)
    with pytest.raises(Fault, match="not attached to the thing other") as refused:
        core.ask({"csr": request_for(new_key()), "hosts": ["a"]}, thing="other")
    assert refused.value.status == 403
    (tmp_path / "other").mkdir()
    mute = CoreThatAsks(tmp_path / "other", action="greengrass:GetDeployment")
    try:
        text = f"greengrass:CreateCertificate on resource: .*/greengrass/things/{CORE}$"
        with pytest.raises(Fault, match=text) as refused:
            mute.ask({"csr": request_for(new_key()), "hosts": ["a"]})
        assert refused.value.status == 403
    finally:
        mute.desk.close()


def test_a_core_that_asks_too_often_waits(core: CoreThatAsks) -> None:
    deployed(core.fleet)
    body = {"csr": "x", "hosts": ["a"]}
    for _ in range(int(CERTIFICATES_BURST)):
        with pytest.raises(Fault, match="csr: "):
            core.ask(body)
    with pytest.raises(Fault, match="Rate exceeded") as refused:
        core.ask(body)
    assert refused.value.status == 429
    core.desk.clock.now += 1 / CERTIFICATES_PER_S
    with pytest.raises(Fault, match="csr: "):
        core.ask(body)


def test_what_no_longer_holds_is_not_signed(core: CoreThatAsks, monkeypatch: pytest.MonkeyPatch) -> None:
    group, sign = deployed(core.fleet)["GroupId"], issuing._sign
    to_thread = asyncio.to_thread

    async def slowly(work: Any, *arguments: Any) -> Any:
        made = await to_thread(work, *arguments)
        if work is sign:
            await core.desk.store.write(lambda tx: tx.delete_all("group-ca", f"{HOME}/{group}"))
        return made

    monkeypatch.setattr(asyncio, "to_thread", slowly)
    with pytest.raises(Fault, match="has no certificate authority"):
        core.ask({"csr": request_for(new_key()), "hosts": ["a"]})
    assert core.desk.look(lambda tx: issued(tx, HOME, group)) == []


def test_what_was_signed_is_remembered_within_bounds(
    core: CoreThatAsks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ggfast.cloud.greengrass.issued.CERTIFICATES_KEPT_MAX", 2)
    caplog.set_level("INFO", "ggfast.cloud.devices")
    group = deployed(core.fleet)["GroupId"]
    serials = []
    for host in ("a", "b", "c"):
        pem = core.ask({"csr": request_for(new_key()), "hosts": [host]})["certificate"]
        serials.append(f"{x509.load_pem_x509_certificate(pem.encode()).serial_number:040x}")
    found = core.desk.look(lambda tx: issued(tx, HOME, group))
    assert [(record.kind, record.serial, record.thing, record.hosts) for record in found] == [
        (SERVER, serials[2], CORE, ("c",)),
        (SERVER, serials[1], CORE, ("b",)),
    ]
    assert {record.until - record.at for record in found} == {WEEK_S}
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(serials)
    for serial, line in zip(serials, lines, strict=True):
        assert f"kind=server-certificate thing={CORE} group={group} serial={serial} until=" in line
    reset(core.fleet, {"GroupId": group}, Force=True)
    core.desk.call("DeleteGroup", GroupId=group)
    assert core.desk.look(lambda tx: issued(tx, HOME, group)) == [], "its records go with the group"


def test_told_addresses_come_first_when_there_are_too_many(core: CoreThatAsks) -> None:
    deployed(core.fleet)
    core.tells_addresses(*[f"10.0.0.{number}" for number in range(60)])
    asked = [f"10.0.1.{number}" for number in range(60)]
    found = core.ask({"csr": request_for(new_key()), "hosts": asked})["hosts"]
    assert len(found) == CERTIFICATE_HOSTS_MAX
    assert found == [f"10.0.0.{number}" for number in range(60)] + asked[:4]


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("FD00:0:0::1", "fd00::1"),
        ("Core-1.Local.", "core-1.local"),
        ("my_core", "my_core"),
        ("a." * 126 + "a", "a." * 126 + "a"),
    ],
)
def test_hosts_have_one_spelling(text: str, spelling: str) -> None:
    assert host_of(text) == spelling


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a..b",
        "*.a",
        "a b",
        "-a",
        "a-",
        "a" * 64,
        "a." * 127 + "a",
        "1.2.3",
        "1.2.3.4.5",
        "::1%lo",
        "x/24",
        "é",
        "a\n",
    ],
)
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(ValueError, match="is no IP address without zone and no DNS name without wildcard"):
        host_of(text)
    assert usable_hosts([text, "A", "a"]) == ["a"]
