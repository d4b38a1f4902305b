"""`ggfast-core cert`: makes and shows certificates. The only module that loads `cryptography`, and only here.

    ca       a group CA                                   ca.crt, ca.key
    server   the core's MQTT server certificate           server.crt, server.key, server.json
    device   a certificate for a device or a core         <thing>.crt, <thing>.key
    show     what a certificate says

Every making command prints the certificate id (SHA-256 of the DER form, in hex: AWS IoT's certificate id) as
the only line of its standard output, for scripts. The daemon runs this module as a short-lived process, so
the resident core never carries the library; a person runs it as a subcommand of `ggfast-core`.

Keys are created with mode 0600 and never overwritten unless asked (`keyfiles.py`).
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ggfast.cli.keyfiles import refuse_existing, write_file
from ggfast.core.certificates import (
    CA_CERTIFICATE,
    CA_KEY,
    SERVER_CERTIFICATE,
    SERVER_KEY,
    SERVER_RECORD,
    Record,
    normal_hosts,
    write_record,
)
from ggfast.errors import ConfigError, GgfastError, OperatingError, Problem, StorageFailed
from ggfast.limits import (
    CA_DAYS_DEFAULT,
    CA_DAYS_MAX,
    CERTIFICATE_BACKDATE_S,
    CLOCK_FLOOR_S,
    SERVER_CERTIFICATE_DAYS_DEFAULT,
    SERVER_CERTIFICATE_DAYS_MAX,
    SERVER_CERTIFICATE_DAYS_MIN,
)

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes, PrivateKeyTypes

_DAY_S = 86_400
_COMMON_NAME_MAX = 64  # X.520 upper bound ub-common-name
_DEVICE_NOT_AFTER = datetime.datetime(2049, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)  # as AWS IoT issues them
_RSA_BITS = 2_048
_THING_NAME = re.compile(r"[a-zA-Z0-9:_-]{1,128}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ggfast-core cert`."""
    commands = parser.add_subparsers(dest="cert_command", required=True, metavar="COMMAND")
    making = argparse.ArgumentParser(add_help=False)
    making.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the files go")
    making.add_argument("--rsa", action="store_true", help="an RSA key of 2048 bits instead of P-256")
    making.add_argument("--force", action="store_true", help="replace files that are there")

    ca = commands.add_parser("ca", parents=[making], help="make a group CA")
    ca.add_argument("--name", default="ggfast group CA", metavar="N", help="common name (default: %(default)s)")
    ca.add_argument("--days", type=int, default=CA_DAYS_DEFAULT, metavar="N", help="life (default: %(default)s)")
    ca.add_argument("--renew", action="store_true", help="new dates for the CA in DIR: same key, same name")

    server = commands.add_parser("server", parents=[making], help="make the core's MQTT server certificate")
    server.add_argument("--ca", type=Path, required=True, metavar="DIR", help="folder with ca.crt and ca.key")
    server.add_argument("--host", action="append", default=[], metavar="H", help="address or name, repeatable")
    default = SERVER_CERTIFICATE_DAYS_DEFAULT
    server.add_argument("--days", type=int, default=default, metavar="N", help="life (default: %(default)s)")
    server.add_argument("--keep-key", action="store_true", help="use the server.key in DIR if it can be read")

    device = commands.add_parser("device", parents=[making], help="make a certificate for a device or a core")
    issuer = device.add_mutually_exclusive_group(required=True)
    issuer.add_argument("--ca", type=Path, metavar="DIR", help="folder with ca.crt and ca.key")
    issuer.add_argument("--self-signed", action="store_true", help="no CA: trust by registration alone")
    device.add_argument("--name", required=True, metavar="THING", help="thing name of the device")

    show = commands.add_parser("show", help="print what a certificate says")
    show.add_argument("file", type=Path, metavar="FILE", help="certificate in PEM or DER form")


def run(args: argparse.Namespace) -> int:
    """Do what `args` says. Returns the exit status: 0 done, 1 refused or failed (said on standard error)."""
    try:
        if args.cert_command == "ca" and args.renew:
            print(renew_ca(args.out, days=args.days))
        elif args.cert_command == "ca":
            print(make_ca(args.out, name=args.name, days=args.days, rsa=args.rsa, force=args.force))
        elif args.cert_command == "server":
            options = {"days": args.days, "rsa": args.rsa, "force": args.force, "keep_key": args.keep_key}
            print(make_server(args.ca, args.out, hosts=args.host, **options))
        elif args.cert_command == "device":
            print(make_device(args.out, name=args.name, ca=args.ca, rsa=args.rsa, force=args.force))
        else:
            print(show_certificate(args.file), end="")
    except (GgfastError, OSError) as error:
        print(f"ggfast-core cert: {error}", file=sys.stderr)
        return 1
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m ggfast.cli.cert`: the same as a process of its own."""
    parser = argparse.ArgumentParser(prog="ggfast-core cert", description="Make and show certificates.")
    add_arguments(parser)
    return run(parser.parse_args(argv))


def make_ca(out: Path, *, name: str, days: int, rsa: bool = False, force: bool = False) -> str:
    """Make a self-signed group CA; its certificate id. Raises ConfigError for a name or life out of range,
    OperatingError when a file is there already, StorageFailed when the disk refuses."""
    if not 0 < len(name) <= _COMMON_NAME_MAX:
        raise _wrong("--name", f"{len(name)} characters", f"1 to {_COMMON_NAME_MAX} characters")
    _check_days(days, 1, CA_DAYS_MAX)
    with _library():
        paths = (out / CA_CERTIFICATE, out / CA_KEY)
        refuse_existing(paths, force)
        key = _new_key(rsa)
        certificate = _ca_certificate(_common_name(name), key, days)
        write_file(paths[1], _key_pem(key), mode=0o600, force=force)
        write_file(paths[0], _pem(certificate), mode=0o644, force=force)
        return _id(certificate)


def renew_ca(out: Path, *, days: int) -> str:
    """Give the CA in `out` new dates with the key and name it has: devices that trust the old certificate
    accept what the new one signs. Raises OperatingError for a CA that somebody else issued."""
    _check_days(days, 1, CA_DAYS_MAX)
    with _library():
        old, key = _load_ca(out)
        if old.subject != old.issuer:
            raise OperatingError(
                f"{out / CA_CERTIFICATE} was issued by {old.issuer.rfc4514_string()}.",
                hint="Only its issuer can renew it: get a new one there, or make a group CA here.",
            )
        certificate = _ca_certificate(old.subject, key, days)
        write_file(out / CA_CERTIFICATE, _pem(certificate), mode=0o644, force=True)
        return _id(certificate)


def make_server(
    ca: Path,
    out: Path,
    *,
    hosts: Sequence[str],
    days: int,
    rsa: bool = False,
    force: bool = False,
    keep_key: bool = False,
) -> str:
    """Make the core's MQTT server certificate for `hosts`, signed directly by the CA in `ca`; its id.

    Addresses become iPAddress entries, names dNSName entries: current clients check both (sdk-contract 10). Its
    life ends with the CA's at the latest. With `keep_key` an existing readable key is used again, so that a
    renewal replaces one file and a crash cannot part key and certificate."""
    names = normal_hosts(hosts)
    _check_days(days, SERVER_CERTIFICATE_DAYS_MIN, SERVER_CERTIFICATE_DAYS_MAX)
    with _library():
        issuer, issuer_key = _load_ca(ca)
        paths = (out / SERVER_CERTIFICATE, out / SERVER_KEY)
        old_key = _old_key(paths[1]) if keep_key else None
        refuse_existing(paths[:1] if old_key is not None else paths, force)
        key = old_key if old_key is not None else _new_key(rsa)
        certificate = _server_certificate(names, key, issuer, issuer_key, days)
        if old_key is None:
            write_file(paths[1], _key_pem(key), mode=0o600, force=force)
        write_file(paths[0], _pem(certificate), mode=0o644, force=force)
        # Last, and always replaced: it describes the files above.
        record = write_record(_record(certificate, names, issuer)).encode()
        write_file(out / SERVER_RECORD, record, mode=0o644, force=True)
        return _id(certificate)


def make_device(out: Path, *, name: str, ca: Path | None, rsa: bool = False, force: bool = False) -> str:
    """Make a client certificate for the thing `name`, signed by the CA in `ca` or by itself; its id.

    Trust is by registration of the id in the group (greengrass-core 10.2), so a self-signed one serves as well.
    The common name is the thing name, cut to the 64 characters X.520 allows."""
    if not _THING_NAME.fullmatch(name):
        raise _wrong("--name", repr(name), "a thing name: 1 to 128 of a-z A-Z 0-9 : _ -")
    with _library():
        paths = (out / f"{name}.crt", out / f"{name}.key")
        refuse_existing(paths, force)
        issuer, issuer_key = _load_ca(ca) if ca is not None else (None, None)
        key = _new_key(rsa)
        certificate = _device_certificate(name, key, issuer, issuer_key)
        write_file(paths[1], _key_pem(key), mode=0o600, force=force)
        write_file(paths[0], _pem(certificate), mode=0o644, force=force)
        return _id(certificate)


def show_certificate(path: Path) -> str:
    """What the certificate in `path` says, as `name: value` lines. Raises OperatingError if it is none."""
    with _library():
        certificate = _load_certificate(path)
        fields = {
            "certificate id": _id(certificate),
            "subject": certificate.subject.rfc4514_string(),
            "issuer": certificate.issuer.rfc4514_string(),
            "serial": f"{certificate.serial_number:x}",
            "not before": certificate.not_valid_before_utc.isoformat(),
            "not after": certificate.not_valid_after_utc.isoformat(),
            "key": _key_kind(certificate),
            "authority": "yes" if _is_ca(certificate) else "no",
            "hosts": ", ".join(_hosts(certificate)) or "none",
        }
        return "".join(f"{name}: {value}\n" for name, value in fields.items())


# --- the X.509 part: each function imports what it needs ------------------------------------------------


@contextmanager
def _library() -> Iterator[None]:
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


def _ca_certificate(name: x509.Name, key: CertificateIssuerPrivateKeyTypes, days: int) -> x509.Certificate:
    """A CA that signs end certificates only. Its life is counted from 2026 on a machine whose clock was never
    set, or it would have ended before the first time server is reached."""
    from cryptography import x509

    now = int(time.time())
    begin, end = now - CERTIFICATE_BACKDATE_S, max(now, CLOCK_FLOOR_S) + days * _DAY_S
    builder = _builder(name, name, key, begin, min(end, _year_9999()))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
    return _signed(builder, key, None)


def _server_certificate(
    hosts: Sequence[str],
    key: CertificateIssuerPrivateKeyTypes,
    issuer: x509.Certificate,
    issuer_key: CertificateIssuerPrivateKeyTypes,
    days: int,
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID

    now = int(time.time())
    end = min(now + days * _DAY_S, int(issuer.not_valid_after_utc.timestamp()))
    if end <= now:
        until = issuer.not_valid_after_utc.isoformat()
        raise OperatingError(f"The group CA ended on {until}.", hint="Renew it with: cert ca --renew --out DIR")
    name = next((host for host in hosts if not _is_address(host) and len(host) <= _COMMON_NAME_MAX), hosts[0])
    builder = _builder(_common_name(name), issuer.subject, key, now - CERTIFICATE_BACKDATE_S, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    # Old clients may still use RSA key exchange (greengrass-core 10.5), which needs key encipherment.
    usages = ("digital_signature", "key_encipherment") if isinstance(key, rsa.RSAPrivateKey) else ("digital_signature",)
    builder = builder.add_extension(_key_usage(*usages), critical=True)
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    builder = builder.add_extension(purposes, critical=False)
    names: list[x509.GeneralName] = [
        x509.IPAddress(ipaddress.ip_address(host)) if _is_address(host) else x509.DNSName(host) for host in hosts
    ]
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _signed(builder, issuer_key, issuer)


def _device_certificate(
    name: str,
    key: CertificateIssuerPrivateKeyTypes,
    issuer: x509.Certificate | None,
    issuer_key: CertificateIssuerPrivateKeyTypes | None,
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    subject = _common_name(name)
    begin, end = int(time.time()) - CERTIFICATE_BACKDATE_S, int(_DEVICE_NOT_AFTER.timestamp())
    builder = _builder(subject, issuer.subject if issuer is not None else subject, key, begin, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage("digital_signature"), critical=True)
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = builder.add_extension(purposes, critical=False)
    return _signed(builder, issuer_key if issuer_key is not None else key, issuer)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: CertificateIssuerPrivateKeyTypes, begin: int, end: int
) -> x509.CertificateBuilder:
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


def _signed(
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


def _key_usage(*names: str) -> x509.KeyUsage:
    from cryptography import x509

    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: name in names for name in every.split()})


def _common_name(text: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:_COMMON_NAME_MAX])])


def _new_key(use_rsa: bool) -> CertificateIssuerPrivateKeyTypes:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    if use_rsa:
        return rsa.generate_private_key(public_exponent=65_537, key_size=_RSA_BITS)
    return ec.generate_private_key(ec.SECP256R1())


def _old_key(path: Path) -> CertificateIssuerPrivateKeyTypes | None:
    """The key in `path`, or None when there is none that can be read: then it cannot be served with either."""
    try:
        return _load_key(path)
    except (OSError, OperatingError):
        return None


def _load_key(path: Path) -> CertificateIssuerPrivateKeyTypes:
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


def _load_certificate(path: Path) -> x509.Certificate:
    from cryptography import x509

    raw = path.read_bytes()
    try:
        if b"-----BEGIN" in raw:
            return x509.load_pem_x509_certificate(raw)
        return x509.load_der_x509_certificate(raw)
    except ValueError as error:
        raise OperatingError(f"{path} holds no certificate in PEM or DER form ({error}).") from error


def _load_ca(folder: Path) -> tuple[x509.Certificate, CertificateIssuerPrivateKeyTypes]:
    certificate, key = _load_certificate(folder / CA_CERTIFICATE), _load_key(folder / CA_KEY)
    if certificate.public_key() != key.public_key():
        raise OperatingError(f"{folder / CA_CERTIFICATE} and {folder / CA_KEY} do not belong together.")
    if not _is_ca(certificate):
        raise OperatingError(f"{folder / CA_CERTIFICATE} is not a CA: its basic constraints do not say so.")
    return certificate, key


def _is_ca(certificate: x509.Certificate) -> bool:
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _hosts(certificate: x509.Certificate) -> list[str]:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(name.value) for name in names]


def _record(certificate: x509.Certificate, hosts: tuple[str, ...], issuer: x509.Certificate) -> Record:
    return Record(
        certificate_id=_id(certificate),
        hosts=hosts,
        not_before=int(certificate.not_valid_before_utc.timestamp()),
        not_after=int(certificate.not_valid_after_utc.timestamp()),
        ca_id=_id(issuer),
        ca_not_before=int(issuer.not_valid_before_utc.timestamp()),
        ca_not_after=int(issuer.not_valid_after_utc.timestamp()),
    )


def _id(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives import hashes

    return certificate.fingerprint(hashes.SHA256()).hex()


def _key_kind(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.curve.name}"
    return f"RSA {key.key_size}" if isinstance(key, rsa.RSAPublicKey) else type(key).__name__


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: CertificateIssuerPrivateKeyTypes) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


# --- checks -------------------------------------------------------------------------------------------


def _check_days(days: int, least: int, most: int) -> None:
    if not least <= days <= most:
        raise _wrong("--days", str(days), f"{least} to {most}")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _year_9999() -> int:
    return int(datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC).timestamp())


def _wrong(option: str, found: str, expected: str) -> ConfigError:
    return ConfigError("The command line is wrong:", [Problem(option, found, expected)])


if __name__ == "__main__":
    sys.exit(main())
