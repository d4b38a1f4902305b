"""Which cores rely on which certificates: those of their devices. So that a core is told at once when one ends.

    relying   <home>/<core>   <deployment>   group; inactive, detached: ids of certificates that have ended
                                             labels: "certificate", "attached" (certificate and thing), "group"

A core has an entry for the deployment that it runs and one for each that it may be about to run, oldest first; the
report of success leaves that one alone, the report of a failure takes it away. An entry is brought up to date by
whoever changes a certificate, in the same transaction: what a core has to know is read without looking at its devices,
of which there may be thousands.

A certificate that was attached to its device's thing when the group was deployed has also ended when it is detached.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ggfast.cloud.events import CoreChanged
from ggfast.cloud.iot.lookups import CERTIFICATES, THING_PRINCIPALS, everything, everything_found
from ggfast.cloud.store.interface import Document, Transaction

_RELYING = "relying"
_ACTIVE = "ACTIVE"


@dataclass(frozen=True, slots=True)
class Relied:
    """What a core runs, as far as the cloud knows: its group, "" for none, and its devices' certificates that are not
    good any more, sorted; those of a deployment it has not finished included."""

    group: str
    ended: tuple[str, ...]


def relied_by_core(tx: Transaction, home: str, core: str) -> Relied:
    """See `Relied`. The group is the one that the core runs, not one that it has yet to fetch, unless it runs none."""
    entries = list(everything(tx, _RELYING, f"{home}/{core}"))
    ended = {found for entry in entries for found in entry.body["inactive"] + entry.body["detached"]}
    return Relied(entries[0].body["group"] if entries else "", tuple(sorted(ended)))


def newest_group_of_core(tx: Transaction, home: str, core: str) -> str:
    """The group that a core is about to run, or runs if it has nothing new to fetch; "" for none. What a core asks for
    while it applies a deployment is for that one."""
    newest = tx.list(_RELYING, f"{home}/{core}", limit=1, newest_first=True).documents
    return str(newest[0].body["group"]) if newest else ""


# --- deployments -----------------------------------------------------------------------------------------


def handed_over(
    tx: Transaction, home: str, core: str, group: str, deployment: str, devices: Iterable[tuple[str, str]]
) -> None:
    """A core has to fetch a deployment. `devices`: certificate id and thing's name of each. A core that had this group
    before is its core no longer."""
    _forget(tx, home, _of_group(tx, home, group), but=f"{home}/{core}")
    inactive, labels, attached = [], [], []
    for certificate_id, thing in devices:
        labels.append(f"{home}/{certificate_id}")
        if not _is_active(tx, home, certificate_id):
            inactive.append(certificate_id)
        if tx.get(THING_PRINCIPALS, f"{home}/{thing}", certificate_id) is not None:
            attached.append(f"{home}/{certificate_id}/{thing}")
    tx.put(
        _RELYING,
        f"{home}/{core}",
        deployment,
        {"group": group, "inactive": inactive, "detached": []},
        {"certificate": labels, "attached": attached, "group": [f"{home}/{group}"]},
    )


def succeeded(tx: Transaction, home: str, core: str, deployment: str) -> None:
    """A core runs this deployment now and nothing else; nothing at all if it was a reset."""
    for entry in list(everything(tx, _RELYING, f"{home}/{core}")):
        if entry.name != deployment:
            tx.delete(_RELYING, entry.parent, entry.name)
    _tell(tx, home, core)


def failed(tx: Transaction, home: str, core: str, deployment: str) -> None:
    """A core does not run this deployment; it goes on with what it had."""
    if tx.delete(_RELYING, f"{home}/{core}", deployment):
        _tell(tx, home, core)


def forget_group(tx: Transaction, home: str, group: str) -> None:
    """The group is deleted: it is no core's."""
    _forget(tx, home, _of_group(tx, home, group))


# --- changes ---------------------------------------------------------------------------------------------


def group_changed(tx: Transaction, home: str, group: str) -> None:
    """Something that the core of a group depends on without a deployment is different: wake it."""
    for core in {entry.parent for entry in _of_group(tx, home, group)}:
        _tell(tx, home, core.removeprefix(f"{home}/"))


def certificate_changed(tx: Transaction, home: str, certificate_id: str) -> None:
    """A certificate has another status, is gone, or is there again; to be called after that was written."""
    ended = not _is_active(tx, home, certificate_id)
    for entry in list(everything_found(tx, _RELYING, "certificate", f"{home}/{certificate_id}")):
        _note(tx, home, entry, "inactive", certificate_id, ended=ended)


def attachment_changed(tx: Transaction, home: str, certificate_id: str, thing: str, *, attached: bool) -> None:
    """A certificate was attached to a thing or detached from it."""
    for entry in list(everything_found(tx, _RELYING, "attached", f"{home}/{certificate_id}/{thing}")):
        _note(tx, home, entry, "detached", certificate_id, ended=not attached)


def _of_group(tx: Transaction, home: str, group: str) -> list[Document]:
    return list(everything_found(tx, _RELYING, "group", f"{home}/{group}"))


def _forget(tx: Transaction, home: str, entries: Iterable[Document], but: str = "") -> None:
    """Remove entries, but those of the core under the parent `but`."""
    for entry in entries:
        if entry.parent != but:
            tx.delete(_RELYING, entry.parent, entry.name)
            _tell(tx, home, entry.parent.removeprefix(f"{home}/"))


def _note(tx: Transaction, home: str, entry: Document, member: str, certificate_id: str, *, ended: bool) -> None:
    known: list[str] = entry.body[member]
    if (certificate_id in known) == ended:
        return
    rest = [found for found in known if found != certificate_id]
    tx.put(_RELYING, entry.parent, entry.name, entry.body | {member: rest + [certificate_id] * ended})
    _tell(tx, home, entry.parent.removeprefix(f"{home}/"))


def _is_active(tx: Transaction, home: str, certificate_id: str) -> bool:
    found = tx.get(CERTIFICATES, home, certificate_id)
    return found is not None and found["status"] == _ACTIVE


def _tell(tx: Transaction, home: str, core: str) -> None:
    tx.tell(CoreChanged(home.partition("/")[2], core))
