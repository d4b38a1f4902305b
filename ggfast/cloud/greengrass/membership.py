"""Which groups a thing belongs to, as discovery asks (cloud-api 11): a look-up, also with 10,000 cores.

The version of a group that counts is the one it runs, or else its latest. Only that one is found by its things:

    group-things   <home>/<group>   <core version>,<device version>   Cores, Devices: ARNs of things
    membership     <home>           <group>                           Version, Things, Cores; label "thing"

Things are remembered per group version, because its definitions may be deleted while it runs. Versions that refer to
the same cores and devices share one document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ggfast.cloud.greengrass.definitions import get_definition_version
from ggfast.cloud.limits import DEVICE_GROUPS_MAX
from ggfast.cloud.store.interface import Transaction

_THINGS = "group-things"
_MEMBERSHIP = "membership"
_LABEL = "thing"


@dataclass(frozen=True, slots=True)
class Membership:
    """One group a thing is in. `core_thing_arns` has its core, or nothing; `is_core`: the thing is that core."""

    group_id: str
    version_id: str
    core_thing_arns: tuple[str, ...]
    is_core: bool


def groups_of_thing(tx: Transaction, home: str, thing_arn: str) -> list[Membership]:
    """The groups that hold the thing as core or device, oldest first; one more than allowed if there are too many."""
    page = tx.find(_MEMBERSHIP, _LABEL, _label(home, thing_arn), limit=DEVICE_GROUPS_MAX + 1)
    return [
        Membership(found.name, found.body["Version"], tuple(found.body["Cores"]), thing_arn in found.body["Cores"])
        for found in page.documents
    ]


def remember(tx: Transaction, home: str, group_id: str, references: Mapping[str, str]) -> None:
    """Note the things of a group version whose definitions exist now. `references` is the group version's content."""
    things = {
        member: [entry["ThingArn"] for entry in _entries(tx, home, references.get(reference, ""), member)]
        for reference, member in (("CoreDefinitionVersionArn", "Cores"), ("DeviceDefinitionVersionArn", "Devices"))
    }
    tx.create(_THINGS, f"{home}/{group_id}", _key(references), things)


def count(tx: Transaction, home: str, group_id: str, version_id: str, references: Mapping[str, str]) -> None:
    """This version of the group is the one that counts from now on. It must have been remembered."""
    key = _key(references)
    before = tx.get(_MEMBERSHIP, home, group_id)
    if before is not None and before["Things"] == key:
        tx.put(_MEMBERSHIP, home, group_id, before | {"Version": version_id})
        return
    things = tx.get(_THINGS, f"{home}/{group_id}", key) or {"Cores": [], "Devices": []}
    tx.put(
        _MEMBERSHIP,
        home,
        group_id,
        {"Version": version_id, "Things": key, "Cores": things["Cores"]},
        {_LABEL: [_label(home, arn) for arn in things["Cores"] + things["Devices"]]},
    )


def forget(tx: Transaction, home: str, group_id: str) -> None:
    """The group is gone."""
    tx.delete(_MEMBERSHIP, home, group_id)
    tx.delete_all(_THINGS, f"{home}/{group_id}")


def _entries(tx: Transaction, home: str, arn: str, member: str) -> list[dict[str, Any]]:
    content = get_definition_version(tx, home, arn)
    found: list[dict[str, Any]] = (content or {}).get(member, [])
    return found


def _key(references: Mapping[str, str]) -> str:
    """Names what decides about a version's things: versions are immutable, so their ids do."""
    return ",".join(
        references.get(reference, "").rpartition("/")[2]
        for reference in ("CoreDefinitionVersionArn", "DeviceDefinitionVersionArn")
    )


def _label(home: str, thing_arn: str) -> str:
    return f"{home} {thing_arn}"
