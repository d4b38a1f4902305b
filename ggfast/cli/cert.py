"""`ggfast-core cert`: makes and shows certificates. This and its siblings alone load `cryptography`.

    ca       a group CA                                   ca.crt, ca.key
    server   the core's MQTT server certificate           server.crt, server.key, server.json
    device   a certificate for a device or a core         <thing>.crt, <thing>.key
    show     what a certificate says
    csr, accept, sign    the daemon's: see `cert_issued.py`

Every making command prints the certificate id (SHA-256 of the DER form, in hex: AWS IoT's certificate id) as
the only line of its standard output, for scripts. The daemon runs this module as a short-lived process, so
the resident core never carries the library; a person runs it as a subcommand of `ggfast-core`.

Keys are created with mode 0600 and never overwritten unless asked (`keyfiles.py`).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from ggfast.cli import cert_issued
from ggfast.cli.cert_x509 import (
    COMMON_NAME_MAX,
    ca_certificate,
    common_name,
    device_certificate,
    hosts_of,
    id_of,
    is_ca,
    key_kind,
    library,
    load_ca,
    load_certificate,
    new_key,
    old_key,
    pem_of,
    pem_of_key,
    record_of,
    server_certificate,
)
from ggfast.cli.keyfiles import refuse_existing, write_file
from ggfast.core.certificate_hosts import normal_hosts
from ggfast.core.certificates import (
    CA_CERTIFICATE,
    CA_KEY,
    SERVER_CERTIFICATE,
    SERVER_KEY,
    SERVER_RECORD,
    write_record,
)
from ggfast.errors import ConfigError, GgfastError, OperatingError, Problem
from ggfast.limits import (
    CA_DAYS_DEFAULT,
    CA_DAYS_MAX,
    SERVER_CERTIFICATE_DAYS_DEFAULT,
    SERVER_CERTIFICATE_DAYS_MAX,
    SERVER_CERTIFICATE_DAYS_MIN,
)

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

    cert_issued.add_commands(commands)
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
        elif args.cert_command in cert_issued.COMMANDS:
            print(cert_issued.COMMANDS[args.cert_command](args))
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
    if not 0 < len(name) <= COMMON_NAME_MAX:
        raise _wrong("--name", f"{len(name)} characters", f"1 to {COMMON_NAME_MAX} characters")
    _check_days(days, 1, CA_DAYS_MAX)
    with library():
        paths = (out / CA_CERTIFICATE, out / CA_KEY)
        refuse_existing(paths, force)
        key = new_key(rsa)
        certificate = ca_certificate(common_name(name), key, days)
        write_file(paths[1], pem_of_key(key), mode=0o600, force=force)
        write_file(paths[0], pem_of(certificate), mode=0o644, force=force)
        return id_of(certificate)


def renew_ca(out: Path, *, days: int) -> str:
    """Give the CA in `out` new dates with the key and name it has: devices that trust the old certificate
    accept what the new one signs. Raises OperatingError for a CA that somebody else issued."""
    _check_days(days, 1, CA_DAYS_MAX)
    with library():
        old, key = load_ca(out)
        if old.subject != old.issuer:
            raise OperatingError(
                f"{out / CA_CERTIFICATE} was issued by {old.issuer.rfc4514_string()}.",
                hint="Only its issuer can renew it: get a new one there, or make a group CA here.",
            )
        certificate = ca_certificate(old.subject, key, days)
        write_file(out / CA_CERTIFICATE, pem_of(certificate), mode=0o644, force=True)
        return id_of(certificate)


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
    with library():
        issuer, issuer_key = load_ca(ca)
        paths = (out / SERVER_CERTIFICATE, out / SERVER_KEY)
        kept = old_key(paths[1]) if keep_key else None
        refuse_existing(paths[:1] if kept is not None else paths, force)
        key = kept if kept is not None else new_key(rsa)
        certificate = server_certificate(names, key, issuer, issuer_key, days)
        if kept is None:
            write_file(paths[1], pem_of_key(key), mode=0o600, force=force)
        write_file(paths[0], pem_of(certificate), mode=0o644, force=force)
        # Last, and always replaced: it describes the files above.
        record = write_record(record_of(certificate, names, issuer)).encode()
        write_file(out / SERVER_RECORD, record, mode=0o644, force=True)
        return id_of(certificate)


def make_device(out: Path, *, name: str, ca: Path | None, rsa: bool = False, force: bool = False) -> str:
    """Make a client certificate for the thing `name`, signed by the CA in `ca` or by itself; its id.

    Trust is by registration of the id in the group (greengrass-core 10.2), so a self-signed one serves as well.
    The common name is the thing name, cut to the 64 characters X.520 allows."""
    if not _THING_NAME.fullmatch(name):
        raise _wrong("--name", repr(name), "a thing name: 1 to 128 of a-z A-Z 0-9 : _ -")
    with library():
        paths = (out / f"{name}.crt", out / f"{name}.key")
        refuse_existing(paths, force)
        issuer, issuer_key = load_ca(ca) if ca is not None else (None, None)
        key = new_key(rsa)
        certificate = device_certificate(name, key, issuer, issuer_key)
        write_file(paths[1], pem_of_key(key), mode=0o600, force=force)
        write_file(paths[0], pem_of(certificate), mode=0o644, force=force)
        return id_of(certificate)


def show_certificate(path: Path) -> str:
    """What the certificate in `path` says, as `name: value` lines. Raises OperatingError if it is none."""
    with library():
        certificate = load_certificate(path)
        fields = {
            "certificate id": id_of(certificate),
            "subject": certificate.subject.rfc4514_string(),
            "issuer": certificate.issuer.rfc4514_string(),
            "serial": f"{certificate.serial_number:x}",
            "not before": certificate.not_valid_before_utc.isoformat(),
            "not after": certificate.not_valid_after_utc.isoformat(),
            "key": key_kind(certificate),
            "authority": "yes" if is_ca(certificate) else "no",
            "hosts": ", ".join(hosts_of(certificate)) or "none",
        }
        return "".join(f"{name}: {value}\n" for name, value in fields.items())


# --- checks -------------------------------------------------------------------------------------------


def _check_days(days: int, least: int, most: int) -> None:
    if not least <= days <= most:
        raise _wrong("--days", str(days), f"{least} to {most}")


def _wrong(option: str, found: str, expected: str) -> ConfigError:
    return ConfigError("The command line is wrong:", [Problem(option, found, expected)])


if __name__ == "__main__":
    sys.exit(main())
