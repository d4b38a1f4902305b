"""What certificates on the core's disk are called, say and belong to. Read without a cryptography library.

Certificates are found by the same id as everywhere else: SHA-256 of the DER form. Every certificate has a record
beside it, written by the helper that made it, because the daemon cannot read X.509.
"""

from __future__ import annotations

import hashlib
import json
import ssl
from dataclasses import dataclass
from pathlib import Path

from ggfast.limits import CERTIFICATE_BACKDATE_S, CERTIFICATE_FILE_BYTES_MAX

CA_CERTIFICATE = "ca.crt"
CA_KEY = "ca.key"
CA_PREVIOUS = "ca.previous.crt"
SERVER_CERTIFICATE = "server.crt"
SERVER_KEY = "server.key"
SERVER_RECORD = "server.json"


@dataclass(frozen=True, slots=True)
class Record:
    """`server.json`: what the certificates beside it say. Times are seconds since 1970 UTC."""

    certificate_id: str
    hosts: tuple[str, ...]
    not_before: int
    not_after: int
    ca_id: str
    ca_not_before: int
    ca_not_after: int

    @property
    def renew_at(self) -> int:
        """When two thirds of the server certificate's life are over."""
        return _two_thirds(self.not_before, self.not_after)

    @property
    def ca_renew_at(self) -> int:
        """When two thirds of the CA's life are over."""
        return _two_thirds(self.ca_not_before, self.ca_not_after)


def _two_thirds(not_before: int, not_after: int) -> int:
    """The moment at which two thirds of a life are over, counted from the issue: the first hour lies before it."""
    issued = min(not_before + CERTIFICATE_BACKDATE_S, not_after)
    return issued + (not_after - issued) * 2 // 3


def pem_id(pem: str) -> str:
    """SHA-256 of the DER form of the first certificate in a PEM text. Raises ValueError when it holds none."""
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    start = pem.find(begin)
    stop = pem.find(end, start)
    if start < 0 or stop < 0:
        raise ValueError("no PEM certificate")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem[start : stop + len(end)] + "\n")).hexdigest()


def certificate_id(path: Path) -> str:
    """SHA-256 of the DER form of the first certificate in the PEM file, in hex: AWS IoT's certificate id.

    Raises OSError, or ValueError when the file holds no certificate."""
    try:
        return pem_id(read_text(path))
    except ValueError as error:
        raise ValueError(f"{path} holds no PEM certificate") from error


def read_record(path: Path) -> Record | None:
    """The record, or None when there is none or it is not one (it is then made again, never repaired)."""
    try:
        raw = json.loads(read_text(path))
        numbers = [raw[key] for key in ("not_before", "not_after", "ca_not_before", "ca_not_after")]
        if not all(type(number) is int for number in numbers):
            return None
        return Record(
            certificate_id=str(raw["certificate_id"]),
            hosts=tuple(str(host) for host in raw["hosts"]),
            not_before=numbers[0],
            not_after=numbers[1],
            ca_id=str(raw["ca_id"]),
            ca_not_before=numbers[2],
            ca_not_after=numbers[3],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_record(record: Record) -> str:
    """The record as the text of `server.json`."""
    fields = {name: getattr(record, name) for name in Record.__slots__}
    return json.dumps(fields, indent=2) + "\n"


def pair_error(certificate: Path, key: Path) -> str:
    """Why this certificate and key cannot be used together; empty when they can. Reads two files."""
    for path in (certificate, key):
        if not path.exists():
            return f"{path.name} is missing"
    try:
        # An empty password: OpenSSL would otherwise ask for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        return f"{certificate.name} and {key.name} do not belong together or cannot be read ({error})"
    return ""


def read_text(path: Path) -> str:
    """A small ASCII file. Raises OSError, ValueError for a larger one or other bytes. Blocking."""
    with path.open("rb") as file:
        raw = file.read(CERTIFICATE_FILE_BYTES_MAX + 1)
    if len(raw) > CERTIFICATE_FILE_BYTES_MAX:
        raise ValueError(f"{path} is larger than {CERTIFICATE_FILE_BYTES_MAX} bytes: no certificate or record")
    return raw.decode("ascii")
