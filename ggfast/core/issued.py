"""What the core keeps about certificates that the control plane, or a CA it delegated to the core, issued.

    <state>/server/server.crt      what the listener serves: the certificate, then the delegated CA if that signed it
    <state>/server/issued.key      its key, made here; kept over renewals
    <state>/server/delegated.crt delegated.key    the CA that may sign while there is no network
    <state>/server/issued.json     written first: what the new certificates say, and the ones they replace

A certificate that cannot be had again without a network must survive a power cut between any two writes. So the
record goes first and tells of old and new; which of them is on disk is seen by its id.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ggfast.core.certificates import (
    SERVER_CERTIFICATE,
    SERVER_KEY,
    SERVER_RECORD,
    certificate_id,
    pair_error,
    read_text,
)

ISSUED_KEY: Final = "issued.key"
ISSUED_RECORD: Final = "issued.json"
DELEGATED_CERTIFICATE: Final = "delegated.crt"
DELEGATED_KEY: Final = "delegated.key"
_OF_A_DEPLOYMENT: Final = (SERVER_CERTIFICATE, SERVER_RECORD, SERVER_KEY, ISSUED_RECORD, ISSUED_KEY)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate. `issued_at` and what follows from it: seconds since 1970 by this machine's clock, which may be
    wrong; `not_before` and `not_after`: by the issuer's."""

    certificate_id: str
    authority_id: str  #: of the group's CA at the root of its chain
    issued_at: float
    seconds: float  #: life counted from the issue
    not_before: int
    not_after: int
    hosts: tuple[str, ...]  #: that it names
    asked: tuple[str, ...] = ()  #: hosts that were asked for: not asked for again, whatever became of them
    delegated: bool = False  #: signed on this core by the delegated CA
    asked_delegation: bool = False

    @property
    def renew_at(self) -> float:
        """When two thirds of its life are over."""
        return self.issued_at + self.seconds * 2 / 3

    @property
    def ends_at(self) -> float:
        """When its life is over."""
        return self.issued_at + self.seconds


@dataclass(frozen=True, slots=True)
class Kept:
    """What is on disk and can be used."""

    served: Issued | None = None
    ca: Issued | None = None  #: the delegated CA


def read_kept(folder: Path, key: Path) -> Kept:
    """What `folder` holds; what is damaged counts as not there. Reads up to five files."""
    records = read_records(folder)
    return Kept(
        _described(folder / SERVER_CERTIFICATE, key, records),
        _described(folder / DELEGATED_CERTIFICATE, folder / DELEGATED_KEY, records),
    )


def read_records(folder: Path) -> list[Issued]:
    """Every certificate that the record tells of; none if it is missing or damaged. Reads one file."""
    try:
        rows = json.loads(read_text(folder / ISSUED_RECORD))
        return [_issued(row) for row in rows]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def records_text(folder: Path, new: Sequence[Issued]) -> str:
    """The record that tells of `new` certificates and of those on disk. Reads up to three files."""
    known = {found.certificate_id: found for found in read_records(folder)}
    on_disk = [known.get(_id_of(folder / name)) for name in (SERVER_CERTIFICATE, DELEGATED_CERTIFICATE)]
    rows = [*new, *(found for found in on_disk if found is not None)]
    return json.dumps([asdict(row) for row in rows], indent=2) + "\n"


def end_delegation(folder: Path) -> None:
    """Delete the delegated CA, its key first. Raises OSError. Blocking."""
    for name in (DELEGATED_KEY, DELEGATED_CERTIFICATE):
        (folder / name).unlink(missing_ok=True)


def forget_certificates(folder: Path) -> None:
    """Delete what came with deployments: server certificate, delegated CA, their keys. The core's own CA, which devices
    know, stays. Raises OSError. Blocking (greengrass-core 12.5)."""
    end_delegation(folder)
    for name in _OF_A_DEPLOYMENT:
        (folder / name).unlink(missing_ok=True)


def _described(certificate: Path, key: Path, records: Sequence[Issued]) -> Issued | None:
    found = _id_of(certificate)
    for record in records:
        if record.certificate_id == found and not pair_error(certificate, key):
            return record
    return None


def _id_of(path: Path) -> str:
    try:
        return certificate_id(path)
    except (OSError, ValueError):
        return ""


def _issued(row: dict[str, Any]) -> Issued:
    """One row of the record. Raises ValueError, KeyError, TypeError."""
    numbers = {name: float(row[name]) for name in ("issued_at", "seconds")}
    if not all(map(math.isfinite, numbers.values())):
        raise ValueError("times that are no numbers")
    return Issued(
        certificate_id=str(row["certificate_id"]),
        authority_id=str(row["authority_id"]),
        not_before=int(row["not_before"]),
        not_after=int(row["not_after"]),
        hosts=tuple(map(str, row["hosts"])),
        asked=tuple(map(str, row["asked"])),
        delegated=row["delegated"] is True,
        asked_delegation=row["asked_delegation"] is True,
        **numbers,
    )
