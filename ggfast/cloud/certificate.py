"""The servers' own certificate: made at start when there is none, it is about to end, or names were added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from ggfast.cloud.authority import CertificateAuthority
from ggfast.cloud.limits import SERVER_CERTIFICATE_RENEW_S
from ggfast.storage.privatefiles import write_private


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """Files for a TLS context, and the certificate's end in seconds since 1970."""

    certificate: Path
    key: Path
    end: float


def server_certificate(
    folder: Path, authority: CertificateAuthority, hosts: Sequence[str], now: float
) -> ServerCertificate:
    """The certificate in `folder`, made anew if it no longer serves. Blocks. Raises OSError."""
    certificate, key, record = folder / "server.crt", folder / "server.key", folder / "server.json"
    try:
        known = orjson.loads(record.read_bytes())
        certificate_id, _, end = authority.check(certificate.read_text())
        if (
            known == {"hosts": list(hosts), "ca": authority.ca_pem, "id": certificate_id}
            and key.is_file()
            and end - now > SERVER_CERTIFICATE_RENEW_S
        ):
            return ServerCertificate(certificate, key, end)
    except (OSError, ValueError):
        pass  # none yet, or a start that was cut short
    folder.mkdir(mode=0o700, exist_ok=True)
    record.unlink(missing_ok=True)
    certificate_pem, key_pem = authority.server_certificate(hosts)
    certificate_id, _, end = authority.check(certificate_pem)
    write_private(key, key_pem.encode())
    write_private(certificate, (certificate_pem + authority.ca_pem).encode())
    write_private(record, orjson.dumps({"hosts": list(hosts), "ca": authority.ca_pem, "id": certificate_id}))
    return ServerCertificate(certificate, key, end)
