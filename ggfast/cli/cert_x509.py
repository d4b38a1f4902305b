"""The X.509 part of making certificates: what `cert.py` and `cert_issued.py` need of `cryptography`.

Each function imports what it needs, so that nothing is loaded by importing this module.
"""

from __future__ import annotations

import datetime
import ipaddress
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ggfast.core.certificates import CA_CERTIFICATE, CA_KEY, Record
from ggfast.errors import OperatingError, StorageFailed
from ggfast.limits import CERTIFICATE_BACKDATE_S, CLOCK_FLOOR_S

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, PrivateKeyTypes

COMMON_NAME_MAX = 64  # X.520 upper bound ub-common-name
_DAY_S = 86_400
_DEVICE_NOT_AFTER = datetime.datetime(2049, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)  # as AWS IoT issues them
_RSA_BITS = 2_048


@contextmanager
def library() -> Iterator[None]:
    """Turn a missing `cryptography` and a refusing disk into errors that say what to do."""
    try:
        import cryptography  # noqa: F401

        yield
    except ModuleNotFoundError as error:
        raise OperatingError(
            f"Certificates need the cryptography library, which is not installed here ({error}).",
            hint="Install it with: pip install 'ggfast[certs]'",
        ) from error
    except OSError as error:
        raise StorageFailed(f"{error.filename or 'A file'}: {error.strerror or error}") from error


def ca_certificate(name: x509.Name, key: CertificateIssuerPrivateKeyTypes, days: int) -> x509.Certificate:
    """A CA that signs end certificates only. Its life is counted from 2026 on a machine whose clock was never
    set, or it would have ended before the first time server is reached."""
    from cryptography import x509

    now = int(time.time())
    begin, end = now - CERTIFICATE_BACKDATE_S, max(now, CLOCK_FLOOR_S) + days * _DAY_S
    builder = begun(name, name, key, begin, min(end, _year_9999()))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(key_usage("key_cert_sign", "crl_sign"), critical=True)
    return signed(builder, key, None)


def server_certificate(
    hosts: Sequence[str],
    key: CertificateIssuerPrivateKeyTypes,
    issuer: x509.Certificate,
    issuer_key: CertificateIssuerPrivateKeyTypes,
    days: int,
) -> x509.Certificate:
    """The core's MQTT server certificate by its own CA. Raises OperatingError if that has ended."""
    now = int(time.time())
    end = min(now + days * _DAY_S, int(issuer.not_valid_after_utc.timestamp()))
    if end <= now:
        until = issuer.not_valid_after_utc.isoformat()
        raise OperatingError(f"The group CA ended on {until}.", hint="Renew it with: cert ca --renew --out DIR")
    return server_certificate_between(hosts, key, issuer, issuer_key, now - CERTIFICATE_BACKDATE_S, end)


def server_certificate_between(
    hosts: Sequence[str],
    key: CertificateIssuerPrivateKeyTypes,
    issuer: x509.Certificate,
    issuer_key: CertificateIssuerPrivateKeyTypes,
    begin: int,
    end: int,
) -> x509.Certificate:
    """A server certificate naming `hosts`, valid from `begin` to `end` (seconds since 1970)."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID

    builder = begun(host_subject(hosts), issuer.subject, key, begin, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    # Old clients may still use RSA key exchange (greengrass-core 10.5), which needs key encipherment.
    usages = ("digital_signature", "key_encipherment") if isinstance(key, rsa.RSAPrivateKey) else ("digital_signature",)
    builder = builder.add_extension(key_usage(*usages), critical=True)
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    builder = builder.add_extension(purposes, critical=False)
    builder = builder.add_extension(host_names(hosts), critical=False)
    return signed(builder, issuer_key, issuer)


def host_subject(hosts: Sequence[str]) -> x509.Name:
    """A subject for a server: its first name that fits, else words that are no host's.

    Where a certificate has addresses alone, OpenSSL and Java hold its subject for a name; an address or a thing's name
    there would not be among those that a delegated CA permits.
    """
    return common_name(
        next((host for host in hosts if not is_address(host) and len(host) <= COMMON_NAME_MAX), "ggfast core")
    )


def host_names(hosts: Sequence[str]) -> x509.SubjectAlternativeName:
    """Addresses become iPAddress entries, names dNSName entries: current clients check both (sdk-contract 10)."""
    from cryptography import x509

    names: list[x509.GeneralName] = [
        x509.IPAddress(ipaddress.ip_address(host)) if is_address(host) else x509.DNSName(host) for host in hosts
    ]
    return x509.SubjectAlternativeName(names)


def device_certificate(
    name: str,
    key: CertificateIssuerPrivateKeyTypes,
    issuer: x509.Certificate | None,
    issuer_key: CertificateIssuerPrivateKeyTypes | None,
) -> x509.Certificate:
    """A client certificate; signed by itself without `issuer`."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    subject = common_name(name)
    begin, end = int(time.time()) - CERTIFICATE_BACKDATE_S, int(_DEVICE_NOT_AFTER.timestamp())
    builder = begun(subject, issuer.subject if issuer is not None else subject, key, begin, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(key_usage("digital_signature"), critical=True)
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = builder.add_extension(purposes, critical=False)
    return signed(builder, issuer_key if issuer_key is not None else key, issuer)


def begun(
    subject: x509.Name, issuer: x509.Name, key: CertificateIssuerPrivateKeyTypes, begin: int, end: int
) -> x509.CertificateBuilder:
    """A certificate with what every one of ours has; `begin` and `end` in seconds since 1970."""
    from cryptography import x509

    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime.fromtimestamp(max(begin, 0), datetime.UTC))
        .not_valid_after(datetime.datetime.fromtimestamp(end, datetime.UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def signed(
    builder: x509.CertificateBuilder, key: CertificateIssuerPrivateKeyTypes, issuer: x509.Certificate | None
) -> x509.Certificate:
    """Name the issuer's key and sign. The key id is the issuer's own if it has one, so that chains are found."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ed448, ed25519

    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    if issuer is not None:
        try:
            own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
        except x509.ExtensionNotFound:
            pass
    builder = builder.add_extension(authority, critical=False)
    pure = isinstance(key, (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey))
    return builder.sign(key, None if pure else hashes.SHA256())


def key_usage(*names: str) -> x509.KeyUsage:
    """What a key may be used for, by the names that X.509 gives."""
    from cryptography import x509

    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: name in names for name in every.split()})


def common_name(text: str) -> x509.Name:
    """A name of one common name, cut to what X.520 allows."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:COMMON_NAME_MAX])])


def new_key(use_rsa: bool) -> CertificateIssuerPrivateKeyTypes:
    """RSA of 2048 bits, or P-256."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    if use_rsa:
        return rsa.generate_private_key(public_exponent=65_537, key_size=_RSA_BITS)
    return ec.generate_private_key(ec.SECP256R1())


def old_key(path: Path) -> CertificateIssuerPrivateKeyTypes | None:
    """The key in `path`, or None when there is none that can be read: then it cannot be served with either."""
    try:
        return load_key(path)
    except (OSError, OperatingError):
        return None


def load_key(path: Path) -> CertificateIssuerPrivateKeyTypes:
    """The private key in a file. Raises OSError, OperatingError if it is none that can sign."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key: PrivateKeyTypes = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise OperatingError(f"{path} holds no private key in PEM form without a password ({error}).") from error
    known = (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)
    if not isinstance(key, known):
        raise OperatingError(f"{path} holds a key that cannot sign certificates ({type(key).__name__}).")
    return key


def load_certificate(path: Path) -> x509.Certificate:
    """The first certificate in a file. Raises OSError, OperatingError if it holds none."""
    try:
        return parse_certificate(path.read_bytes())
    except ValueError as error:
        raise OperatingError(f"{path} holds no certificate in PEM or DER form ({error}).") from error


def parse_certificate(raw: bytes) -> x509.Certificate:
    """The first certificate in PEM or DER form. Raises ValueError."""
    from cryptography import x509

    return x509.load_pem_x509_certificate(raw) if b"-----BEGIN" in raw else x509.load_der_x509_certificate(raw)


def times_of(certificate: x509.Certificate) -> tuple[int, int]:
    """When it begins and ends, in seconds since 1970."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return int(begin.timestamp()), int(end.timestamp())


def load_ca(folder: Path) -> tuple[x509.Certificate, CertificateIssuerPrivateKeyTypes]:
    """The CA in a folder and its key. Raises OSError, OperatingError if they are none."""
    certificate, key = load_certificate(folder / CA_CERTIFICATE), load_key(folder / CA_KEY)
    if certificate.public_key() != key.public_key():
        raise OperatingError(f"{folder / CA_CERTIFICATE} and {folder / CA_KEY} do not belong together.")
    if not is_ca(certificate):
        raise OperatingError(f"{folder / CA_CERTIFICATE} is not a CA: its basic constraints do not say so.")
    return certificate, key


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether it may sign certificates."""
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """The addresses and names it is for."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names]


def record_of(certificate: x509.Certificate, hosts: tuple[str, ...], issuer: x509.Certificate) -> Record:
    """What the daemon has to know about a certificate of the own CA."""
    return Record(
        certificate_id=id_of(certificate),
        hosts=hosts,
        not_before=int(certificate.not_valid_before_utc.timestamp()),
        not_after=int(certificate.not_valid_after_utc.timestamp()),
        ca_id=id_of(issuer),
        ca_not_before=int(issuer.not_valid_before_utc.timestamp()),
        ca_not_after=int(issuer.not_valid_after_utc.timestamp()),
    )


def id_of(certificate: x509.Certificate) -> str:
    """AWS IoT's certificate id: SHA-256 of the DER form, in hex."""
    from cryptography.hazmat.primitives import hashes

    return certificate.fingerprint(hashes.SHA256()).hex()


def key_kind(certificate: x509.Certificate) -> str:
    """Algorithm and size of its key, for people."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.curve.name}"
    return f"RSA {key.key_size}" if isinstance(key, rsa.RSAPublicKey) else type(key).__name__


def pem_of(certificate: x509.Certificate) -> bytes:
    """Its PEM form."""
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def pem_of_key(key: CertificateIssuerPrivateKeyTypes) -> bytes:
    """Its PEM form (PKCS 8), not encrypted."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def is_address(host: str) -> bool:
    """Whether a host is an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _year_9999() -> int:
    return int(datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC).timestamp())
