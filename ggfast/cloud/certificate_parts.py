"""What the certificates of the cloud's authorities are made of, and signing requests that strangers bring."""

from __future__ import annotations

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

RSA_BITS = 2_048
RSA_BITS_LEAST = 2_048  # what TLS clients and servers still accept
SIGNS = ("digital_signature", "key_cert_sign", "crl_sign")  # usages of an authority's key
SHOWS = ("digital_signature", "key_encipherment")  # of a key whose owner shows a certificate
_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def requested(csr_pem: str, *curves: type[ec.EllipticCurve]) -> tuple[x509.Name, CertificatePublicKeyTypes]:
    """Subject and key of a signing request, whose own signature is right. The key is RSA with RSA_BITS_LEAST bits or
    more, or on one of `curves`. Raises ValueError with the reason. Blocks."""
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
        strong = isinstance(key.curve, curves)
    else:
        strong = isinstance(key, rsa.RSAPublicKey) and key.key_size >= RSA_BITS_LEAST
    if not strong:
        names = ", ".join(f"P-{curve.__name__[4:-2]}" for curve in curves)
        raise ValueError(f"its key is none of RSA with {RSA_BITS_LEAST} bits or more, NIST {names}")
    return subject, key


def common_name_of(text: str) -> x509.Name:
    """A subject of one name, cut to what may stand there."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def begun(
    subject: x509.Name,
    issuer: x509.Name,
    key: CertificatePublicKeyTypes,
    since: datetime.datetime,
    until: datetime.datetime,
) -> x509.CertificateBuilder:
    """A certificate with what every one has."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
    )


def usage(*allowed: str) -> x509.KeyUsage:
    """What a key is for, in the library's words; everything else is forbidden."""
    return x509.KeyUsage(**{name: name in allowed for name in _USAGES})


def general_name(host: str) -> x509.GeneralName:
    """A host as certificates name it: addresses and names are of different kinds."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def pem_of(certificate: x509.Certificate) -> str:
    """A certificate as text."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def key_pem_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    """A private key as text, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    ).decode()
