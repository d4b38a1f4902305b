"""Files handed from root to the daemon: what is judged before a start, and what another account gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from link_support import DAY, Authority

from ggfast import limits
from ggfast.cli import doctor_core, handing
from ggfast.cli.checks import Accounts
from ggfast.cli.findings import Status
from ggfast.config import Config, parse_config
from ggfast.core.handed import Handed
from ggfast.errors import ConfigError

NOBODY = 65_534
ARN = "arn:aws:iot:eu-west-1:123456789012:thing/my_core"
LOADS = """
import sys
from ggfast.core.handed import Handed
from ggfast.net.httpclient import client_context
handed = Handed.from_arguments(sys.argv[2::2])
client_context(handed.authorities, handed.identity)
print(len(handed.descriptors()), handed.server_key.read_text())
"""


class Site:
    """The certificates of one core, and its configuration."""

    def __init__(self, root: Path) -> None:
        self.certs = root / "certs"
        self.certs.mkdir(parents=True, exist_ok=True)
        self.authority = Authority(self.certs, "ca")
        self.write("core", self.authority.issue("made"))
        self.crypto: dict[str, Any] = {
            "caPath": f"file://{self.certs}/ca.pem",
            "principals": {
                "IoTCertificate": {
                    "privateKeyPath": f"file://{self.certs}/core.key",
                    "certificatePath": f"file://{self.certs}/core.crt",
                },
                "MQTTServerCertificate": {"privateKeyPath": f"file://{self.certs}/core.key"},
            },
            "PKCS11": {"P11Provider": "/p.so", "slotLabel": "s", "slotUserPin": "0"},
        }
        self._root = root

    def write(self, name: str, whole: Path) -> None:
        """Certificate and key as files of their own."""
        certificate, mark, key = whole.read_text().partition("-----BEGIN PRIVATE KEY-----")
        (self.certs / f"{name}.crt").write_text(certificate)
        (self.certs / f"{name}.key").write_text(mark + key)
        (self.certs / f"{name}.key").chmod(0o600)

    def config(self, **own: Any) -> Config:
        hosts = {"iotHost": "iot.test", "ggHost": "gg.test"}
        document = {"coreThing": {"thingArn": ARN} | hosts, "crypto": self.crypto, "ggfast": own}
        return parse_config(json.dumps(document).encode(), self._root)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def told(config: Config) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        handing.check(config)
    return [str(problem) for problem in caught.value.problems]


def test_another_account_loads_them_and_cannot_change_them(site: Site) -> None:
    files = handing.hand_over(site.config(), Accounts(NOBODY, NOBODY, 1, 1))
    try:
        handed = Handed.from_arguments(f"{name}={fd}" for name, fd in files.items())
        assert sorted(handed.descriptors()) == sorted(files.values())
        done = subprocess.run(
            [sys.executable, "-c", LOADS, *handed.arguments()],
            pass_fds=handed.descriptors(),
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"3 {(site.certs / 'core.key').read_text()}\n"
        for fd in files.values():
            assert os.fstat(fd).st_mode & 0o777 == 0o400
            assert not os.get_inheritable(fd)
            with pytest.raises(PermissionError):
                os.pwrite(fd, b"x", 0)
    finally:
        handing.close(files)


def test_a_core_without_cloud_is_handed_nothing(site: Site) -> None:
    (site.certs / "core.key").unlink()
    assert handing.hand_over(site.config(local=True), Accounts(1, 1, 1, 1)) == {}


def test_an_expired_certificate_does_not_keep_a_core_from_starting(site: Site) -> None:
    site.write("core", site.authority.issue("old", -2 * DAY, -DAY))
    handing.check(site.config())


def test_one_file_may_hold_certificate_and_key(site: Site) -> None:
    whole = (site.certs / "core.crt").read_text() + (site.certs / "core.key").read_text()
    for name in ("core.crt", "core.key"):
        (site.certs / name).write_text(whole)
    assert handing.Reader(site.config()).read()["identity"] == whole.encode()


@pytest.mark.parametrize(
    ("name", "content", "setting", "words"),
    [
        ("ca.pem", None, "crypto.caPath", "No such file or directory"),
        ("ca.pem", b"hello", "crypto.caPath", "one or more certificates in PEM form"),
        ("core.crt", b" \n", "IoTCertificate.certificatePath", "an empty file"),
        ("core.crt", b"hello", "IoTCertificate.certificatePath", "no certificate"),
        ("core.crt", b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "certificatePath", "cannot be"),
        ("core.key", b"x" * (limits.CERTIFICATE_FILE_BYTES_MAX + 1), "privateKeyPath", "a larger file"),
        ("core.key", b"hello", "IoTCertificate.privateKeyPath", "no private key"),
    ],
)
def test_what_cannot_be_used_is_named(site: Site, name: str, content: bytes | None, setting: str, words: str) -> None:
    (site.certs / name).unlink()
    if content is not None:
        (site.certs / name).write_bytes(content)
    first = told(site.config())[0]
    assert setting in first
    assert str(site.certs / name) in first
    assert words in first


def test_keys_that_cannot_be_used(site: Site) -> None:
    other = site.authority.issue("other")
    own = (site.certs / "core.key").read_bytes()
    (site.certs / "core.key").write_text(other.read_text()[other.read_text().index("-----BEGIN PRIVATE") :])
    assert "found another key, expected the key that belongs to" in told(site.config())[0]
    key = serialization.load_pem_private_key(own, None)
    hidden = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    (site.certs / "core.key").write_bytes(hidden)
    assert "found a key with a password" in told(site.config())[0]
    (site.certs / "core.key").unlink()
    os.mkfifo(site.certs / "core.key")
    assert "not a regular file" in told(site.config())[0]


@pytest.mark.parametrize("principal", ["IoTCertificate", "MQTTServerCertificate"])
def test_keys_in_hardware_are_said_not_to_be_supported(site: Site, principal: str) -> None:
    site.crypto["principals"][principal]["privateKeyPath"] = "pkcs11:object=key;type=private"
    (problem,) = told(site.config())
    assert problem.startswith(f"crypto.principals.{principal}.privateKeyPath: found a key in a hardware module")
    assert "does not support" in problem
    findings = list(doctor_core.certificates(site.config()))
    assert [found.name for found in findings if found.status is Status.FAIL] == [f"{principal} key"]


def test_the_doctor_tells_the_days_left(site: Site) -> None:
    site.write("core", site.authority.issue("young", -DAY, timedelta(days=100, hours=1)))
    (found,) = (row for row in doctor_core.certificates(site.config()) if row.name == "core certificate")
    assert found.status is Status.OK
    assert "100 days left" in found.found


@pytest.mark.parametrize("pair", ["identity", "identity=x", "other=1", "identity=999999", "identity=1=2", ""])
def test_options_that_name_no_file(pair: str) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        Handed.from_arguments([pair])
