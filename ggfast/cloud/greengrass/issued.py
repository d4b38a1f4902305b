"""What group CAs have signed for cores: a bounded record for operators.

issued-server-certificate, issued-authority   <home>/<group>   <serial>   thing, hosts, at, since, until
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from ggfast.cloud.limits import CERTIFICATES_KEPT_MAX
from ggfast.cloud.store.interface import Transaction

SERVER = "server-certificate"
AUTHORITY = "authority"  # delegated to the core
_KINDS = (AUTHORITY, SERVER)


@dataclass(frozen=True, slots=True)
class Record:
    """One certificate, made at `at`, valid from `since` to `until`; in seconds since 1970."""

    kind: str
    serial: str
    thing: str
    hosts: tuple[str, ...]
    at: float
    since: float
    until: float


def remember_issued(tx: Transaction, home: str, group_id: str, record: Record) -> None:
    """Keep a record; the oldest of its kind go when there are too many."""
    collection, parent = f"issued-{record.kind}", f"{home}/{group_id}"
    body = asdict(record)
    del body["kind"], body["serial"]
    tx.put(collection, parent, record.serial, body)
    spare = tx.count(collection, parent) - CERTIFICATES_KEPT_MAX
    if spare > 0:
        for old in tx.list(collection, parent, limit=spare).documents:
            tx.delete(collection, parent, old.name)


def issued(tx: Transaction, home: str, group_id: str) -> list[Record]:
    """What is known to have been signed for a group's core: first its CAs, each kind newest first."""
    return [
        Record(kind, found.name, **found.body | {"hosts": tuple(found.body["hosts"])})
        for kind in _KINDS
        for found in tx.list(
            f"issued-{kind}", f"{home}/{group_id}", limit=CERTIFICATES_KEPT_MAX, newest_first=True
        ).documents
    ]
