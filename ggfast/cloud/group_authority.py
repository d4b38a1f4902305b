"""What the CA of a group signs for the group's core: server certificates, and a CA of its own (greengrass-core 10.3).

A delegated CA lets a core renew its server certificate without us. Devices trust the group CA and know nothing of it,
so the certificate itself says all it is good for: servers under exactly the core's names and addresses, no further CA.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from ggfast.cloud.certificate_parts import SHOWS, begun, common_name_of, general_name, pem_of, requested, usage

_CURVES = (ec.SECP256R1, ec.SECP384R1)  # what devices' TLS libraries all know
_NOBODY = ("invalid", "0.0.0.0", "::")  # no server is reached under these (RFC 6761)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that was made."""

    pem: str
    serial: str  # in hex, as other tools show it
    since: float  # its validity, in seconds since 1970
    until: float


class GroupAuthority:
    """The key of one group CA. Everything blocks and raises ValueError for a signing request that cannot be used.

    Times are whole seconds since 1970. Safe to use from several threads.
    """

    def __init__(self, ca_pem: str, key_pem: str) -> None:
        self._ca = x509.load_pem_x509_certificate(ca_pem.encode())
        # It is one that we made and sealed: looking for its faults would take longer than signing.
        key = serialization.load_pem_private_key(key_pem.encode(), None, unsafe_skip_rsa_key_validation=True)
        assert isinstance(key, rsa.RSAPrivateKey)
        self._key = key

    def server_certificate(self, csr_pem: str, name: str, hosts: Sequence[str], since: int, until: int) -> Issued:
        """A certificate for a server that is reached under `hosts`; only the key is the request's."""
        _, key = requested(csr_pem, *_CURVES)
        # Old clients may still use RSA key exchange (greengrass-core 10.5), which needs key encipherment.
        usages = SHOWS if isinstance(key, rsa.RSAPublicKey) else ("digital_signature",)
        names = x509.SubjectAlternativeName([general_name(host) for host in hosts])
        builder = (
            self._begun(name, key, since, until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage(*usages), critical=True)
            .add_extension(names, critical=False)
        )
        return self._signed(builder)

    def delegated(self, csr_pem: str, name: str, hosts: Sequence[str], since: int, until: int) -> Issued:
        """A CA that signs certificates of servers under `hosts`, and none of another CA."""
        _, key = requested(csr_pem, *_CURVES)
        builder = (
            self._begun(name, key, since, until)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage("key_cert_sign"), critical=True)
            # Not critical: devices' small TLS libraries refuse critical extensions they do not know, while those that
            # know this one keep to it all the same.
            .add_extension(_constraints(hosts), critical=False)
        )
        return self._signed(builder)

    def _begun(self, name: str, key: CertificatePublicKeyTypes, since: int, until: int) -> x509.CertificateBuilder:
        return (
            begun(common_name_of(name), self._ca.subject, key, _time(since), _time(until))
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )

    def _signed(self, builder: x509.CertificateBuilder) -> Issued:
        made = builder.sign(self._key, hashes.SHA256())
        times = made.not_valid_before_utc.timestamp(), made.not_valid_after_utc.timestamp()
        return Issued(pem_of(made), f"{made.serial_number:040x}", *times)


def _constraints(hosts: Sequence[str]) -> x509.NameConstraints:
    """Exactly `hosts`. A name alone would permit every name below it too, so those are excluded.

    A kind that no host is of would be free if nothing was said of it, so one of it that is nobody's is permitted. To
    exclude all of a kind is shorter, but makes Java refuse hosts of the other kinds.
    """
    kinds = {_kind(host) for host in hosts}
    allowed = [*hosts, *(nobody for nobody in _NOBODY if _kind(nobody) not in kinds)]
    names = [host for host in allowed if not _kind(host)]
    return x509.NameConstraints(
        [x509.IPAddress(ipaddress.ip_network(host)) if _kind(host) else x509.DNSName(host) for host in allowed],
        [x509.DNSName(f".{name}") for name in names],
    )


def _kind(host: str) -> int:
    """4 or 6 for an address, 0 for a name."""
    try:
        return ipaddress.ip_address(host).version
    except ValueError:
        return 0


def _time(seconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
