"""The cloud's own certificate authority: certificates for things, for our servers, and group CAs.

Client certificates are RSA 2048 and live to the end of 2049, as AWS IoT issues them; ids are SHA-256 of the DER form.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from ggfast.cloud.certificate_parts import (
    RSA_BITS,
    SHOWS,
    SIGNS,
    begun,
    common_name_of,
    general_name,
    key_pem_of,
    pem_of,
    requested,
    usage,
)

_CLIENT_NOT_AFTER = datetime.datetime(2049, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
_BACKDATE = datetime.timedelta(minutes=2)  # clocks of devices and servers differ
CA_LIFE = datetime.timedelta(days=20 * 365)
_SERVER_LIFE = datetime.timedelta(days=825)  # what current TLS clients accept at most
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


class CertificateAuthority:
    """See the module and `surroundings.Authority`. Safe to use from several threads; everything blocks."""

    def __init__(self, ca_pem: str, key_pem: str) -> None:
        self.ca_pem = ca_pem
        self._ca = x509.load_pem_x509_certificate(ca_pem.encode())
        key = serialization.load_pem_private_key(key_pem.encode(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
        self._key: CertificateIssuerPrivateKeyTypes = key

    @classmethod
    def new(cls, common_name: str, path_length: int = 0) -> tuple[str, str]:
        """(certificate PEM, private key PEM) of a new self-signed authority with an RSA key: every client knows RSA.
        `path_length`: how many authorities may stand between it and a certificate."""
        key = rsa.generate_private_key(65_537, RSA_BITS)
        now = datetime.datetime.now(datetime.UTC)
        name = common_name_of(common_name)
        certificate = (
            begun(name, name, key.public_key(), now - _BACKDATE, now + CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
            .add_extension(usage(*SIGNS), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return pem_of(certificate), key_pem_of(key)

    def new_keys_and_certificate(self, common_name: str) -> tuple[str, str, str]:
        """See `surroundings.Authority`."""
        key = rsa.generate_private_key(65_537, RSA_BITS)
        name = common_name_of(common_name)
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return self._client(name, key.public_key()), public.decode(), key_pem_of(key)

    def certificate_for(self, csr_pem: str) -> str:
        """See `surroundings.Authority`. Only name and key are taken from the request."""
        subject, key = requested(csr_pem, *_CURVES)
        return self._client(subject, key)

    def check(self, certificate_pem: str) -> tuple[str, float, float]:
        """See `surroundings.Authority`."""
        try:
            found = x509.load_pem_x509_certificates(certificate_pem.encode())
            certificate = found[0]
            times = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
            certificate.public_key()
            der = certificate.public_bytes(serialization.Encoding.DER)
        except Exception as error:  # the library raises many kinds for hostile input
            raise ValueError(f"not a certificate in PEM form ({type(error).__name__})") from error
        return hashlib.sha256(der).hexdigest(), *times

    def issued(self, certificate_pem: str, ca_pem: str = "") -> bool:
        """See `surroundings.Authority`."""
        try:
            certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
            certificate.verify_directly_issued_by(x509.load_pem_x509_certificate((ca_pem or self.ca_pem).encode()))
        except Exception:  # the library raises many kinds for hostile input
            return False
        return True

    def new_group_ca(self, common_name: str) -> tuple[str, str]:
        """See `surroundings.Authority`."""
        return self.new(common_name, path_length=1)  # one more: a core's delegated authority

    def server_certificate(self, hosts: Sequence[str]) -> tuple[str, str]:
        """(certificate PEM, private key PEM) for a server of ours, valid for names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        name = common_name_of(hosts[0])
        until = min(now + _SERVER_LIFE, self._ca.not_valid_after_utc)
        certificate = (
            begun(name, self._ca.subject, key.public_key(), now - _BACKDATE, until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage(*SHOWS), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([general_name(host) for host in hosts]), critical=False)
            .add_extension(self._issuer_id(), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return pem_of(certificate), key_pem_of(key)

    def _client(self, subject: x509.Name, key: CertificatePublicKeyTypes) -> str:
        now = datetime.datetime.now(datetime.UTC)
        until = min(_CLIENT_NOT_AFTER, self._ca.not_valid_after_utc)
        certificate = (
            begun(subject, self._ca.subject, key, now - _BACKDATE, until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage(*SHOWS), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(self._issuer_id(), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return pem_of(certificate)

    def _issuer_id(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._ca.public_key())  # type: ignore[arg-type]
