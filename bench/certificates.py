"""Throw-away P-256 certificates for mutual TLS: an authority, the broker's, the clients'."""

from __future__ import annotations

import atexit
import datetime
import functools
import ipaddress
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

VALID = datetime.timedelta(days=2)


@dataclass(frozen=True)
class Certificates:
    """PEM files, readable by every broker's user, gone when the benchmark ends."""

    authority: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


@functools.cache
def made() -> Certificates:
    """This run's certificates, made at the first call."""
    directory = Path(tempfile.mkdtemp(prefix="ggfast-bench-tls-"))
    directory.chmod(0o755)
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("bench authority", authority_key, "bench authority", authority_key, authority=True)
    files = Certificates(
        *(directory / f"{name}.pem" for name in ("ca", "server", "server-key", "client", "client-key"))
    )
    _write(files.authority, authority)
    for name, certificate, key in (
        ("127.0.0.1", files.server, files.server_key),
        ("bench client", files.client, files.client_key),
    ):
        own = ec.generate_private_key(ec.SECP256R1())
        _write(certificate, _certificate(name, own, "bench authority", authority_key))
        _write(key, own)
    return files


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    authority: bool = False,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - VALID)
        .not_valid_after(now + VALID)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    )
    return builder.sign(issuer_key, hashes.SHA256())


def _write(path: Path, what: x509.Certificate | ec.EllipticCurvePrivateKey) -> None:
    if isinstance(what, x509.Certificate):
        path.write_bytes(what.public_bytes(serialization.Encoding.PEM))
        return
    path.write_bytes(
        what.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    path.chmod(0o644)  # a broker may run as another user; the key is worth nothing
