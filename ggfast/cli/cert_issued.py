"""The helper's part of certificates that the control plane issues, or a CA that it delegated to the core.

    csr      signing requests on standard output; keys that are not there are made
    accept   check the control plane's answer (JSON on standard input) and keep what it issued
    sign     a server certificate by the delegated CA

The daemon runs them (`core/cloud_certificates.py`). Certificates and their record are written as `core/issued.py` says.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ggfast.cli import keyfiles
from ggfast.cli.cert_x509 import (
    host_names,
    host_subject,
    hosts_of,
    id_of,
    is_ca,
    library,
    load_certificate,
    load_key,
    new_key,
    old_key,
    parse_certificate,
    pem_of,
    pem_of_key,
    server_certificate_between,
    times_of,
)
from ggfast.core.certificate_hosts import nameable, normal_hosts
from ggfast.core.certificates import SERVER_CERTIFICATE
from ggfast.core.issued import (
    DELEGATED_CERTIFICATE,
    DELEGATED_KEY,
    ISSUED_RECORD,
    Issued,
    read_records,
    records_text,
)
from ggfast.errors import Malformed, OperatingError
from ggfast.limits import CERTIFICATE_FILE_BYTES_MAX

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The options of `csr`, `accept` and `sign`."""
    csr = commands.add_parser("csr", help="print signing requests for the control plane")
    csr.add_argument("--key", type=Path, required=True, metavar="FILE", help="the server's key")
    csr.add_argument("--fixed", action="store_true", help="the key is the owner's: never make another")
    csr.add_argument("--ca-key", type=Path, metavar="FILE", help="also ask for a CA with this key")
    csr.add_argument("--host", action="append", default=[], metavar="H", help="address or name, repeatable")

    accept = commands.add_parser("accept", help="keep what the control plane issued")
    accept.add_argument("--out", type=Path, required=True, metavar="DIR", help="where certificates are kept")
    accept.add_argument("--key", type=Path, required=True, metavar="FILE", help="the server's key")

    sign = commands.add_parser("sign", help="make a server certificate by the delegated CA")
    sign.add_argument("--out", type=Path, required=True, metavar="DIR", help="where certificates are kept")
    sign.add_argument("--key", type=Path, required=True, metavar="FILE", help="the server's key")
    sign.add_argument("--host", action="append", default=[], metavar="H", help="address or name, repeatable")
    sign.add_argument("--seconds", type=float, required=True, metavar="S", help="its life")


def make_requests(args: argparse.Namespace) -> str:
    """Signing requests in PEM form as JSON: `csr`, and `delegationCsr` with --ca-key.

    Keys are RSA of 2048 bits, because devices of V1's time may know nothing else. Raises OperatingError for a fixed
    key that cannot be used, StorageFailed when the disk refuses."""
    hosts = normal_hosts(args.host)
    with library():
        found = {"csr": _request(load_key(args.key) if args.fixed else _kept_key(args.key), hosts)}
        if args.ca_key is not None:
            found["delegationCsr"] = _request(_kept_key(args.ca_key), hosts)
        return json.dumps(found)


def accept_answer(args: argparse.Namespace) -> str:
    """Keep what the control plane answered; the certificate's id. Raises Malformed, naming what is wrong, before
    anything is written; StorageFailed."""
    text = sys.stdin.read(8 * CERTIFICATE_FILE_BYTES_MAX)
    with library():
        try:
            asked = json.loads(text)
            return _accept(args.out, load_key(args.key), asked)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Malformed(f"The control plane's answer is no certificate: {error!r}.") from error


def sign_delegated(args: argparse.Namespace) -> str:
    """Have the delegated CA sign a certificate for the hosts; its id. Raises OperatingError, StorageFailed.

    Its life begins with the CA's and ends with it at the latest: the dates that a better clock than ours has given. A
    certificate that is replaced does not end sooner by it."""
    hosts = normal_hosts(args.host)
    with library():
        ca, ca_key = load_certificate(args.out / DELEGATED_CERTIFICATE), load_key(args.out / DELEGATED_KEY)
        known = {found.certificate_id: found for found in read_records(args.out)}
        about = known.get(id_of(ca))
        if about is None or ca.public_key() != ca_key.public_key():
            raise OperatingError("The delegated CA is damaged: its record or its key is another's.")
        now = time.time()
        begin, last = times_of(ca)
        end = last if now < begin else min(int(now + args.seconds), last)
        served = known.get(_id_at(args.out / SERVER_CERTIFICATE))
        if served is not None and served.authority_id == about.authority_id:
            end = max(end, min(served.not_after, last))
        if end <= now:
            raise OperatingError("The delegated CA has ended.", hint="Only the control plane can give another.")
        made = server_certificate_between(hosts, load_key(args.key), ca, ca_key, begin, end)
        life = float(end - max(now, begin))
        new = _record(made, about.authority_id, now, life, hosts, delegated=True, asked_delegation=True)
        _keep(args.out, pem_of(made) + pem_of(ca), [new, about])
        return new.certificate_id


COMMANDS: Final[dict[str, Callable[[argparse.Namespace], str]]] = {
    "csr": make_requests,
    "accept": accept_answer,
    "sign": sign_delegated,
}


def _accept(out: Path, key: CertificateIssuerPrivateKeyTypes, asked: dict[str, Any]) -> str:
    answer, now = asked["answer"], time.time()
    made, root = _chain(answer, key)
    if is_ca(made):
        raise ValueError("the server certificate is a CA")
    begin, end = times_of(made)
    seconds = answer["seconds"]
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
        raise ValueError(f"seconds is {seconds!r}, expected a number above 0")
    life = min(float(seconds), float(end - begin))
    wanted, wants_ca = tuple(asked["hosts"]), asked["askedDelegation"] is True
    new = [_record(made, id_of(root), now, life, wanted, asked_delegation=wants_ca)]
    delegated = answer.get("delegation") if wants_ca else None
    if delegated is None:
        _keep(out, pem_of(made), new)
        return new[0].certificate_id
    ca, ca_root = _chain(delegated, load_key(out / DELEGATED_KEY))
    if not is_ca(ca):
        raise ValueError("the delegated certificate is no CA")
    left = _left(*times_of(ca), now)
    new.append(_record(ca, id_of(ca_root), now, left, new[0].hosts))
    _keep(out, pem_of(made), new, pem_of(ca))
    return new[0].certificate_id


def _left(begin: int, end: int, now: float) -> float:
    """How much of a life is left at its issue; all of it by a clock that is outside of it."""
    return float(end - now) if begin <= now < end else float(end - begin)


def _chain(answer: dict[str, Any], key: CertificateIssuerPrivateKeyTypes) -> tuple[x509.Certificate, x509.Certificate]:
    """A certificate for our key, and the group's CA that signed it. Raises ValueError, KeyError, TypeError."""
    made = parse_certificate(answer["certificate"].encode())
    root = parse_certificate(answer["authority"].encode())
    if made.public_key() != key.public_key():
        raise ValueError("it was issued for another key")
    try:
        made.verify_directly_issued_by(root)
    except Exception as error:  # the library raises several kinds
        raise ValueError("the authority beside it did not sign it") from error
    return made, root


def _record(
    made: x509.Certificate,
    root: str,
    now: float,
    life: float,
    asked: tuple[str, ...],
    *,
    delegated: bool = False,
    asked_delegation: bool = False,
) -> Issued:
    begin, end = times_of(made)
    return Issued(
        certificate_id=id_of(made),
        authority_id=root,
        issued_at=now,
        seconds=life,
        not_before=begin,
        not_after=end,
        hosts=nameable(hosts_of(made)) or asked,
        asked=asked,
        delegated=delegated,
        asked_delegation=asked_delegation,
    )


def _keep(out: Path, chain: bytes, new: list[Issued], ca: bytes = b"") -> None:
    """Record first, then the certificates it tells of (`core/issued.py`)."""
    keyfiles.write_file(out / ISSUED_RECORD, records_text(out, new).encode(), mode=0o644, force=True)
    if ca:
        keyfiles.write_file(out / DELEGATED_CERTIFICATE, ca, mode=0o644, force=True)
    keyfiles.write_file(out / SERVER_CERTIFICATE, chain, mode=0o644, force=True)


def _kept_key(path: Path) -> CertificateIssuerPrivateKeyTypes:
    """The key in `path`; a new one, on disk when this returns, if there is none that can be read."""
    key = old_key(path)
    if key is None:
        key = new_key(True)
        keyfiles.write_file(path, pem_of_key(key), mode=0o600, force=os.path.lexists(path))
    return key


def _request(key: CertificateIssuerPrivateKeyTypes, hosts: tuple[str, ...]) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    builder = x509.CertificateSigningRequestBuilder().subject_name(host_subject(hosts))
    builder = builder.add_extension(host_names(hosts), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def _id_at(path: Path) -> str:
    try:
        return id_of(load_certificate(path))
    except (OSError, OperatingError):
        return ""
