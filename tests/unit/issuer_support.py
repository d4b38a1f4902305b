"""The control plane's signatures without one, a clock that tests set, the certificate helper without a process."""

from __future__ import annotations

import contextlib
import datetime
import functools
import io
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from ggfast.cli import cert, cert_issued, cert_x509
from ggfast.cloud.group_authority import GroupAuthority
from ggfast.core.certificate_helper import HelperResult
from ggfast.limits import CERTIFICATE_BACKDATE_S

DAY_S = 86_400


class SetClock:
    """A wall clock that tests set; `go` moves both clocks, as time does."""

    def __init__(self) -> None:
        self.now = time.time()
        self.passed = 1_000.0

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.passed

    def go(self, seconds: float) -> None:
        self.now += seconds
        self.passed += seconds


class InProcess:
    """The helper without a process: the same commands, counted; fails on demand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, clock: SetClock) -> None:
        self.calls: list[str] = []
        self.broken: str = ""
        self.keys = 0
        monkeypatch.setattr(time, "time", lambda: clock.now)
        monkeypatch.setattr(cert_issued, "new_key", self.new_key)
        for module in (cert_issued, cert_x509):
            monkeypatch.setattr(module, "load_key", load_key_once)

    def new_key(self, _: bool) -> rsa.RSAPrivateKey:
        """Another one each time, the same ones in every test."""
        self.keys += 1
        return rsa_key(f"core {self.keys}")

    async def __call__(self, arguments: Sequence[str], text: str = "") -> HelperResult:
        self.calls.append(" ".join(arguments[:1]) + (" --renew" if "--renew" in arguments else ""))
        if self.broken:
            return HelperResult(1, "", self.broken)
        out, err, stdin = io.StringIO(), io.StringIO(), sys.stdin
        sys.stdin = io.StringIO(text)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                status = cert.main(arguments)
        finally:
            sys.stdin = stdin
        return HelperResult(status, out.getvalue(), err.getvalue())


class Lines:
    """A system log as a list."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str, **fields: Any) -> None:
        self.lines.append(f"{message} {fields}")

    warn = error = info

    def about(self, text: str) -> list[str]:
        return [line for line in self.lines if text in line]


@functools.cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    """The CA key called so: made once, because it takes long."""
    return rsa.generate_private_key(65_537, 2_048)


_load_key = cert_x509.load_key
_loaded: dict[bytes, Any] = {}


def load_key_once(path: Path) -> Any:
    """The helper's `load_key` without checking the primes of one key again and again, which takes long."""
    content = path.read_bytes()
    if content not in _loaded:
        _loaded[content] = _load_key(path)
    return _loaded[content]


def key_pem(key: Any) -> bytes:
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))


class Ca:
    """A group CA. `now`: the issuer's clock."""

    def __init__(self, name: str, now: float) -> None:
        key, subject = rsa_key(name), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(moment(now - DAY_S)).not_valid_after(moment(now + 7_300 * DAY_S))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        usage = dict.fromkeys(("digital_signature", "content_commitment", "key_encipherment"), False)
        usage |= dict.fromkeys(("data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False)
        builder = builder.add_extension(x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True), critical=True)
        made = builder.sign(key, hashes.SHA256())
        self.pem = made.public_bytes(serialization.Encoding.PEM).decode()
        self.authority = GroupAuthority(self.pem, key_pem(key).decode())


class SigningCloud:
    """What a core sees of the control plane."""

    def __init__(self, clock: Any, *, seconds: float = 7 * 86_400, delegation_s: float = 0.0) -> None:
        self.clock = clock
        self.seconds, self.delegation_s, self.revoked_before = seconds, delegation_s, 0
        self.cas = [Ca("first", clock.wall())]
        self.failure: Exception | None = None
        self.ended: list[str] = []
        self.hosts: list[str] = ["127.0.0.1"]
        self.asked: list[tuple[str, ...]] = []
        self.change: dict[str, Any] = {}  # members of the answer that are to be wrong

    def rotate(self, name: str = "second") -> None:
        self.cas.insert(0, Ca(name, self.clock.wall()))

    def trust(self) -> dict[str, Any]:
        return {
            "version": "1",
            "groupId": "a-group",
            "endedCertificates": self.ended,
            "authorities": [ca.pem for ca in self.cas],
            "certificateSeconds": self.seconds,
            "connectivity": [{"Id": h, "HostAddress": h, "PortNumber": 8883, "Metadata": ""} for h in self.hosts],
            "delegation": {"seconds": self.delegation_s, "revokedBefore": self.revoked_before},
        }

    async def server_certificate(self, csr: str, hosts: Sequence[str], delegation_csr: str | None) -> Mapping[str, Any]:
        self.asked.append(tuple(hosts))
        if self.failure is not None:
            raise self.failure
        ca, now = self.cas[0], int(self.clock.wall())
        since = now - CERTIFICATE_BACKDATE_S
        made = ca.authority.server_certificate(csr, "core", hosts, since, now + int(self.seconds))
        answer: dict[str, Any] = {"certificate": made.pem, "authority": ca.pem, "seconds": self.seconds}
        if delegation_csr is not None and self.delegation_s:
            since = max(since, int(self.revoked_before))
            made = ca.authority.delegated(delegation_csr, "core's CA", hosts, since, now + int(self.delegation_s))
            answer["delegation"] = {"certificate": made.pem, "authority": ca.pem}
        return answer | self.change


def moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC)


def chain_of(path: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(path.read_bytes())
