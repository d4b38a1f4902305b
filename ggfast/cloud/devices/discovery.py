"""Which cores a device may connect to, and whom it shall trust there (sdk-contract 10, greengrass-core 11)."""

from __future__ import annotations

import ipaddress
from typing import Any

from ggfast.cloud.devices.identity import Identity
from ggfast.cloud.faults import Fault
from ggfast.cloud.greengrass.authorities import group_cas
from ggfast.cloud.greengrass.connectivity import connectivity_with_times
from ggfast.cloud.greengrass.membership import Membership, groups_of_thing
from ggfast.cloud.limits import DEVICE_GROUPS_MAX
from ggfast.cloud.store.interface import Transaction

PORT = 8_883  # of a core that tells none
DETECTED = "AUTOIP_"  # what the ids of addresses begin with that a core has found itself
_NEAR, _OTHER, _LINK_LOCAL, _LOOPBACK = range(4)  # the last two lead nowhere from another machine, or seldom
_NAME = 7  # behind IP versions


def discover(tx: Transaction, identity: Identity, thing: str) -> dict[str, Any]:
    """The document for a thing whose certificate may discover. Raises Fault: in no group, in too many."""
    home = identity.home
    groups = groups_of_thing(tx, home, identity.arn_of("iot", f"thing/{thing}"))
    if len(groups) > DEVICE_GROUPS_MAX:
        text = f"Device is a member of too many groups, devices may not be in more than {DEVICE_GROUPS_MAX} groups"
        raise Fault("BadRequestException", text)
    found = [_group(tx, home, group) for group in groups if group.core_thing_arns]
    if not found:
        raise Fault("ResourceNotFoundException", f"The thing {thing} is in no group that has a core.", status=404)
    return {"GGGroups": found}


def _group(tx: Transaction, home: str, group: Membership) -> dict[str, Any]:
    core = group.core_thing_arns[0]
    return {
        "GGGroupId": group.group_id,
        "Cores": [{"thingArn": core, "Connectivity": addresses_of(tx, home, core.rpartition("/")[2])}],
        "CAs": [ca["pem"] for ca in group_cas(tx, home, group.group_id)],
    }


def addresses_of(tx: Transaction, home: str, core: str) -> list[dict[str, Any]]:
    """Addresses in the order in which clients try them. Ids differ, clients make them keys.

    What somebody entered by hand comes before what the core found, in the order given. Of what it found, addresses in
    its own network come first, IPv4 before IPv6, names last, and of each kind the one that it found last. What leads
    nowhere from another machine comes last of all, whoever entered it.
    """
    found = enumerate(connectivity_with_times(tx, home, core))
    entries: list[dict[str, Any]] = []
    taken: set[str] = set()
    for _, (entry, _) in sorted(found, key=lambda each: _place(each[0], *each[1])):
        port = entry.get("PortNumber", PORT)
        name = base = entry.get("Id") or f"{entry['HostAddress']}:{port}"
        number = 1
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name)
        metadata = entry.get("Metadata", "")
        entries.append({"Id": name, "HostAddress": entry["HostAddress"], "PortNumber": port, "Metadata": metadata})
    return entries


def _place(position: int, entry: dict[str, Any], since: float) -> tuple[float, ...]:
    """What an entry is sorted by."""
    kind, family = _kind_of(entry["HostAddress"])
    last = max(kind - _OTHER, 0)
    if not entry.get("Id", "").startswith(DETECTED):
        return last, 0, position
    return last, 1, kind, family, -since, position


def _kind_of(host: str) -> tuple[int, int]:
    """How near an address is, and its version."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return (_LOOPBACK, 0) if host.lower() == "localhost" else (_OTHER, _NAME)
    if address.is_loopback or address.is_unspecified:
        return _LOOPBACK, address.version
    if address.is_link_local or address.is_multicast:
        return _LINK_LOCAL, address.version
    return (_NEAR if address.is_private else _OTHER), address.version
