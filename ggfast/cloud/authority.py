"""The cloud's own certificate authority: certificates for things, for our servers, and group CAs.

Client certificates are RSA 2048 and live to the end of 2049, as AWS IoT issues them; ids are SHA-256 of the DER form.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_CLIENT_NOT_AFTER = datetime.datetime(2049, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
_BACKDATE = datetime.timedelta(minutes=2)  # clocks of devices and servers differ
CA_LIFE = datetime.timedelta(days=20 * 365)
_SERVER_LIFE = datetime.timedelta(days=825)  # what current TLS clients accept at most
_RSA_BITS = 2_048
_CSR_BITS_MIN = 2_048  # what TLS clients and servers still accept
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
        key = rsa.generate_private_key(65_537, _RSA_BITS)
        now = datetime.datetime.now(datetime.UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])
        certificate = (
            _begun(name, name, key.public_key(), now - _BACKDATE, now + CA_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return _pem(certificate), _key_pem(key)

    def new_keys_and_certificate(self, common_name: str) -> tuple[str, str, str]:
        """See `surroundings.Authority`."""
        key = rsa.generate_private_key(65_537, _RSA_BITS)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return self._client(name, key.public_key()), public.decode(), _key_pem(key)

    def certificate_for(self, csr_pem: str) -> str:
        """See `surroundings.Authority`. Only name and key are taken from the request."""
        try:
            request = x509.load_pem_x509_csr(csr_pem.encode())
            valid = request.is_signature_valid
            key = request.public_key()
            subject = request.subject
        except Exception as error:  # the library raises many kinds for hostile input
            raise ValueError(f"not a certificate signing request in PEM form ({type(error).__name__})") from error
        if not valid:
            raise ValueError("the signing request's own signature is wrong")
        if isinstance(key, ec.EllipticCurvePublicKey):
            strong = isinstance(key.curve, _CURVES)
        else:
            strong = isinstance(key, rsa.RSAPublicKey) and key.key_size >= _CSR_BITS_MIN
        if not strong:
            raise ValueError(f"its key is none of RSA with {_CSR_BITS_MIN} bits or more, NIST P-256, P-384, P-521")
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
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
        until = min(now + _SERVER_LIFE, self._ca.not_valid_after_utc)
        certificate = (
            _begun(name, self._ca.subject, key.public_key(), now - _BACKDATE, until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
            .add_extension(self._issuer_id(), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return _pem(certificate), _key_pem(key)

    def _client(self, subject: x509.Name, key: CertificatePublicKeyTypes) -> str:
        now = datetime.datetime.now(datetime.UTC)
        until = min(_CLIENT_NOT_AFTER, self._ca.not_valid_after_utc)
        certificate = (
            _begun(subject, self._ca.subject, key, now - _BACKDATE, until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(self._issuer_id(), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return _pem(certificate)

    def _issuer_id(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._ca.public_key())  # type: ignore[arg-type]


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    key: CertificatePublicKeyTypes,
    since: datetime.datetime,
    until: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not signs,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    ).decode()
