"""Which policies count for a certificate: its own and those of the thing groups its things are in (cloud-api 7)."""

from __future__ import annotations

from collections.abc import Iterable

from ggfast.cloud.iot.lookups import (
    ATTACHMENTS,
    GROUPS,
    POLICIES,
    POLICY_VERSIONS,
    everything,
    groups_of_thing,
    things_of_certificate,
)
from ggfast.cloud.store.interface import Transaction


def policies_of_certificate(tx: Transaction, home: str, certificate_id: str, *, groups: bool = True) -> list[str]:
    """Documents of the default versions of all policies that count for it, as text. `groups=False` leaves out those
    of thing groups, which do not count for Greengrass actions (greengrass-core 10.4)."""
    names = dict.fromkeys(policies_of_target(tx, home, f"cert/{certificate_id}"))
    if groups:
        for thing in things_of_certificate(tx, home, certificate_id):
            for group in groups_of_thing(tx, home, thing):
                names |= dict.fromkeys(policies_of_group(tx, home, group))
    return documents_of(tx, home, names)


def policies_of_target(tx: Transaction, home: str, target: str) -> list[str]:
    """Names of the policies attached to "cert/<id>" or "thinggroup/<name>"."""
    return [document.name for document in everything(tx, ATTACHMENTS, f"{home}/{target}")]


def policies_of_group(tx: Transaction, home: str, group: str) -> list[str]:
    """Names of the policies attached to a thing group or to one it lies in."""
    body = tx.get(GROUPS, home, group)
    chain = [group, *(body["ancestors"][::-1] if body is not None else [])]
    return [name for each in chain for name in policies_of_target(tx, home, f"thinggroup/{each}")]


def documents_of(tx: Transaction, home: str, names: Iterable[str]) -> list[str]:
    """The default versions' documents of policies."""
    found = []
    for name in names:
        policy = tx.get(POLICIES, home, name)
        version = None if policy is None else tx.get(POLICY_VERSIONS, f"{home}/{name}", policy["default"])
        if version is not None:
            found.append(version["document"])
    return found
