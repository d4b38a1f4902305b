"""`ggfast-core cert`, judged by OpenSSL: chains, handshakes and files, not by the library that made them."""

from __future__ import annotations

import json
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from ggfast.cli import cert
from ggfast.core import certificates
from ggfast.errors import ConfigError, LimitReached, OperatingError
from ggfast.limits import CERTIFICATE_BACKDATE_S, CERTIFICATE_HOSTS_MAX, CLOCK_FLOOR_S

DAY_S = 86_400
HOSTS = ("127.0.0.1", "::1", "localhost", "gateway.example")


def openssl(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["openssl", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def verifies(ca: Path, certificate: Path, *options: str) -> bool:
    return openssl("verify", "-x509_strict", "-CAfile", ca, *options, certificate).returncode == 0


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    cert.make_ca(tmp_path / "ca", name="a group CA", days=30)
    return tmp_path / "ca"


def make_server(ca: Path, out: Path, hosts: Sequence[str] = HOSTS, days: int = 7, **options: bool) -> str:
    return cert.make_server(ca, out, hosts=hosts, days=days, **options)


# --- chains and names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rsa", [False, True], ids=["p256", "rsa"])
def test_server_certificate_chains_to_its_ca_and_names_every_host(tmp_path: Path, rsa: bool) -> None:
    cert.make_ca(tmp_path / "ca", name="a group CA", days=30, rsa=rsa)
    make_server(tmp_path / "ca", tmp_path, rsa=rsa)
    trust, server = tmp_path / "ca" / "ca.crt", tmp_path / "server.crt"
    assert verifies(trust, server, "-purpose", "sslserver", "-verify_ip", "127.0.0.1")
    assert verifies(trust, server, "-purpose", "sslserver", "-verify_ip", "::1")
    assert verifies(trust, server, "-purpose", "sslserver", "-verify_hostname", "gateway.example")
    assert not verifies(trust, server, "-verify_hostname", "127.0.0.1"), "an address must not be a dNSName"
    assert not verifies(trust, server, "-verify_hostname", "other.example")
    assert not verifies(trust, server, "-purpose", "sslclient"), "a stolen server key must not make a device"
    text = openssl("x509", "-in", server, "-noout", "-text").stdout
    assert ("rsaEncryption" if rsa else "prime256v1") in text
    assert ("sha256WithRSAEncryption" if rsa else "ecdsa-with-SHA256") in text


def test_another_ca_does_not_verify(tmp_path: Path, ca: Path) -> None:
    make_server(ca, tmp_path)
    cert.make_ca(tmp_path / "stranger", name="a group CA", days=30)
    assert not verifies(tmp_path / "stranger" / "ca.crt", tmp_path / "server.crt")


def test_ca_signs_end_certificates_only(tmp_path: Path, ca: Path) -> None:
    text = openssl("x509", "-in", ca / "ca.crt", "-noout", "-text").stdout
    assert "CA:TRUE, pathlen:0" in text
    assert "Certificate Sign, CRL Sign" in text
    assert "Subject Key Identifier" in text and "Authority Key Identifier" in text
    device = tmp_path / "not-a-ca"
    cert.make_device(device, name="d", ca=ca)
    (device / "d.crt").rename(device / "ca.crt")
    (device / "d.key").rename(device / "ca.key")
    with pytest.raises(OperatingError, match="is not a CA"):
        make_server(device, tmp_path / "server")


def test_times_allow_for_skewed_clocks_and_end_with_the_ca(tmp_path: Path, ca: Path) -> None:
    before = int(time.time())
    make_server(ca, tmp_path, days=1_000)
    record = certificates.read_record(tmp_path / "server.json")
    assert record is not None
    assert record.not_before <= before - CERTIFICATE_BACKDATE_S + 5
    assert record.not_after == record.ca_not_after, "a server certificate must not outlive its CA"
    make_server(ca, tmp_path, days=7, force=True)
    record = certificates.read_record(tmp_path / "server.json")
    assert record is not None
    assert before + 7 * DAY_S <= record.not_after <= int(time.time()) + 7 * DAY_S


def test_ca_made_with_a_dead_clock_lives_on_when_the_clock_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 100.0)
    cert.make_ca(tmp_path, name="a group CA", days=7_305)
    now = str(CLOCK_FLOOR_S + 365 * DAY_S)
    assert verifies(tmp_path / "ca.crt", tmp_path / "ca.crt", "-attime", now)
    assert verifies(tmp_path / "ca.crt", tmp_path / "ca.crt", "-attime", "200")


def test_devices_of_both_kinds_serve_as_clients_until_2049(tmp_path: Path, ca: Path) -> None:
    cert.make_device(tmp_path / "signed", name="thermometer", ca=ca)
    cert.make_device(tmp_path / "self", name="thermometer", ca=None)
    signed, alone = tmp_path / "signed" / "thermometer.crt", tmp_path / "self" / "thermometer.crt"
    assert verifies(ca / "ca.crt", signed, "-purpose", "sslclient")
    assert not verifies(ca / "ca.crt", signed, "-purpose", "sslserver")
    assert openssl("verify", "-CAfile", alone, "-purpose", "sslclient", alone).returncode == 0
    ends = openssl("x509", "-in", alone, "-noout", "-enddate", "-subject").stdout
    assert "Dec 31 23:59:59 2049" in ends
    assert "CN = thermometer" in ends


def test_printed_id_is_the_fingerprint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cert.main(["device", "--self-signed", "--name", "door", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out.strip()
    words = openssl("x509", "-in", tmp_path / "door.crt", "-noout", "-fingerprint", "-sha256").stdout
    assert printed == words.strip().rpartition("=")[2].replace(":", "").lower()
    assert printed == certificates.certificate_id(tmp_path / "door.crt")


def test_long_thing_names_are_cut_in_the_common_name_only(tmp_path: Path) -> None:
    name = "t" * 128
    cert.make_device(tmp_path, name=name, ca=None)
    assert f"subject: CN={'t' * 64}\n" in cert.show_certificate(tmp_path / f"{name}.crt")


def test_show_says_what_openssl_says(tmp_path: Path, ca: Path) -> None:
    made = make_server(ca, tmp_path)
    shown = dict(line.partition(": ")[::2] for line in cert.show_certificate(tmp_path / "server.crt").splitlines())
    assert shown["certificate id"] == made
    assert shown["hosts"] == ", ".join(HOSTS)
    assert shown["issuer"] == "CN=a group CA"
    assert shown["authority"] == "no"
    assert shown["key"] == "EC secp256r1"
    serial = openssl("x509", "-in", tmp_path / "server.crt", "-noout", "-serial").stdout.strip()
    assert int(serial.partition("=")[2], 16) == int(shown["serial"], 16)


def handshake(ca: Path, folder: Path, name: str, device: Path) -> tuple[str, bytes | None]:
    """A real mutual handshake over a socket pair; the name checked and the client certificate the server saw."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.crt", folder / "server.key")
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(device.with_suffix(".crt"))
    client = ssl.create_default_context(cafile=str(ca))
    client.load_cert_chain(device.with_suffix(".crt"), device.with_suffix(".key"))
    near, far = socket.socketpair()
    near.settimeout(10)
    far.settimeout(10)
    seen: list[bytes | None] = []

    def serve() -> None:
        try:
            with server.wrap_socket(far, server_side=True) as tls:
                seen.append(tls.getpeercert(binary_form=True))
                tls.recv(1)
        except OSError:
            pass
        finally:
            far.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(near, server_hostname=name) as tls:
            version = tls.version() or ""
            tls.send(b"x")
    finally:
        near.close()
        thread.join()
    return version, seen[0] if seen else None


@pytest.mark.parametrize("name", HOSTS)
def test_mutual_handshake_with_name_checking(tmp_path: Path, ca: Path, name: str) -> None:
    make_server(ca, tmp_path)
    cert.make_device(tmp_path, name="door", ca=None)
    version, seen = handshake(ca / "ca.crt", tmp_path, name, tmp_path / "door")
    assert version == "TLSv1.3"
    assert seen == ssl.PEM_cert_to_DER_cert((tmp_path / "door.crt").read_text())


def test_handshake_refuses_another_name(tmp_path: Path, ca: Path) -> None:
    make_server(ca, tmp_path, ["127.0.0.1"])
    cert.make_device(tmp_path, name="door", ca=None)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(ca / "ca.crt", tmp_path, "127.0.0.2", tmp_path / "door")


# --- files --------------------------------------------------------------------------------------------------


def test_keys_are_private_and_nothing_else_is_left(tmp_path: Path, ca: Path) -> None:
    make_server(ca, ca)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in ca.iterdir()}
    assert modes == {"ca.crt": 0o644, "ca.key": 0o600, "server.crt": 0o644, "server.key": 0o600, "server.json": 0o644}


def test_existing_files_are_kept_unless_forced(ca: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in ca.iterdir()}
    assert cert.main(["ca", "--out", str(ca)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert f"{ca / 'ca.crt'} and {ca / 'ca.key'} exist already. Give --force" in said.err
    assert {path.name: path.read_bytes() for path in ca.iterdir()} == before
    assert cert.main(["ca", "--out", str(ca), "--force"]) == 0
    assert all(path.read_bytes() != before[path.name] for path in ca.iterdir())


def test_renewed_ca_keeps_the_trust_of_devices_that_hold_the_old_one(tmp_path: Path, ca: Path) -> None:
    old = tmp_path / "old-ca.crt"
    old.write_bytes((ca / "ca.crt").read_bytes())
    key = (ca / "ca.key").read_bytes()
    cert.renew_ca(ca, days=60)
    make_server(ca, tmp_path)
    assert (ca / "ca.key").read_bytes() == key
    assert (ca / "ca.crt").read_bytes() != old.read_bytes()
    assert verifies(old, tmp_path / "server.crt")
    assert verifies(ca / "ca.crt", tmp_path / "server.crt")


def test_kept_key_is_used_again_and_an_unreadable_one_replaced(tmp_path: Path, ca: Path) -> None:
    make_server(ca, tmp_path)
    key = (tmp_path / "server.key").read_bytes()
    make_server(ca, tmp_path, keep_key=True, force=True)
    assert (tmp_path / "server.key").read_bytes() == key
    (tmp_path / "server.key").write_bytes(key[:40])
    make_server(ca, tmp_path, keep_key=True, force=True)
    assert certificates.pair_error(tmp_path / "server.crt", tmp_path / "server.key") == ""


# --- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hosts", "part"),
    [
        (["fe80::1%eth0"], "zone"),
        (["gate way"], "neither an IP address nor an ASCII host name"),
        (["gäteway"], "ASCII"),
        (["192.168.1.300"], "looks like an IPv4 address"),
        ([""], "neither"),
        ([], "at least one host"),
    ],
)
def test_hosts_that_no_certificate_can_name_are_refused(tmp_path: Path, ca: Path, hosts: list[str], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        make_server(ca, tmp_path / "out", hosts)
    assert not (tmp_path / "out").exists()


def test_too_many_hosts_are_refused(tmp_path: Path, ca: Path) -> None:
    with pytest.raises(LimitReached):
        make_server(ca, tmp_path, [f"10.0.0.{number}" for number in range(CERTIFICATE_HOSTS_MAX + 1)])


@pytest.mark.parametrize("days", ["6", "0", "-1", "3651"])
def test_days_out_of_range_are_refused(tmp_path: Path, ca: Path, days: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["server", "--ca", str(ca), "--out", str(tmp_path), "--host", "localhost", "--days", days]
    assert cert.main(words) == 1
    assert f"--days: found {days}, expected 7 to 3650" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a/b", "", "ä", "t" * 129, ".."])
def test_names_that_are_no_thing_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="thing name"):
        cert.make_device(tmp_path / "out", name=name, ca=None)
    assert not (tmp_path / "out").exists()


def test_ca_of_another_issuer_cannot_be_renewed(tmp_path: Path, ca: Path) -> None:
    middle = tmp_path / "middle"
    key, text = middle / "ca.key", tmp_path / "extensions"
    middle.mkdir()
    text.write_text("basicConstraints=critical,CA:TRUE\n")
    assert openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key).returncode == 0
    request = tmp_path / "request"
    assert openssl("req", "-new", "-key", key, "-subj", "/CN=middle", "-out", request).returncode == 0
    sign = ["x509", "-req", "-in", request, "-CA", ca / "ca.crt", "-CAkey", ca / "ca.key", "-CAcreateserial"]
    assert openssl(*sign, "-extfile", text, "-days", "30", "-out", middle / "ca.crt").returncode == 0
    with pytest.raises(OperatingError, match="was issued by CN=a group CA"):
        cert.renew_ca(middle, days=60)
    make_server(middle, tmp_path / "server")  # it signs all the same, without any key identifier of its own
    served = tmp_path / "server" / "server.crt"
    assert openssl("verify", "-CAfile", middle / "ca.crt", "-partial_chain", served).returncode == 0


@pytest.mark.parametrize("name", ["ca.crt", "ca.key"])
def test_damaged_ca_files_are_named(tmp_path: Path, ca: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (ca / name).write_text("-----BEGIN NOTHING-----\n")
    assert cert.main(["server", "--ca", str(ca), "--out", str(tmp_path), "--host", "localhost"]) == 1
    assert str(ca / name) in capsys.readouterr().err
    (ca / name).unlink()
    assert cert.main(["server", "--ca", str(ca), "--out", str(tmp_path), "--host", "localhost"]) == 1
    assert str(ca / name) in capsys.readouterr().err
    assert not (tmp_path / "server.key").exists()


def test_foreign_ca_key_is_refused(tmp_path: Path, ca: Path) -> None:
    cert.make_ca(tmp_path / "other", name="other", days=30)
    (ca / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    with pytest.raises(OperatingError, match="do not belong together"):
        make_server(ca, tmp_path)


def test_missing_library_is_said_with_its_cure(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from ggfast.cli.cert import main; sys.exit(main(['ca', '--out', sys.argv[1]]))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "pip install 'ggfast[certs]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_library_is_not_loaded_by_importing_the_command() -> None:
    program = "import sys, ggfast.cli.cert, ggfast.core.certificates; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=30).returncode == 0


def test_record_is_plain_json(tmp_path: Path, ca: Path) -> None:
    made = make_server(ca, tmp_path)
    record = json.loads((tmp_path / "server.json").read_text())
    assert record["certificate_id"] == made
    assert record["ca_id"] == certificates.certificate_id(ca / "ca.crt")
    assert record["hosts"] == list(HOSTS)
