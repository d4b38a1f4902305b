"""Which cores a device may connect to, and whom it shall trust there (sdk-contract 10, greengrass-core 11)."""

from __future__ import annotations

import ipaddress
from typing import Any

from ggfast.cloud.devices.identity import Identity
from ggfast.cloud.faults import Fault
from ggfast.cloud.greengrass.authorities import group_cas
from ggfast.cloud.greengrass.connectivity import connectivity_of
from ggfast.cloud.greengrass.membership import Membership, groups_of_thing
from ggfast.cloud.limits import DEVICE_GROUPS_MAX
from ggfast.cloud.store.interface import Transaction

PORT = 8_883  # of a core that tells none


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
        "Cores": [{"thingArn": core, "Connectivity": _connectivity(tx, home, core.rpartition("/")[2])}],
        "CAs": [ca["pem"] for ca in group_cas(tx, home, group.group_id)],
    }


def _connectivity(tx: Transaction, home: str, core: str) -> list[dict[str, Any]]:
    """Addresses, those of the machine itself last: clients try them in order. Ids differ, clients make them keys."""
    entries: list[dict[str, Any]] = []
    taken: set[str] = set()
    for found in sorted(connectivity_of(tx, home, core), key=lambda entry: _is_loopback(entry["HostAddress"])):
        port = found.get("PortNumber", PORT)
        name = base = found.get("Id") or f"{found['HostAddress']}:{port}"
        number = 1
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name)
        metadata = found.get("Metadata", "")
        entries.append({"Id": name, "HostAddress": found["HostAddress"], "PortNumber": port, "Metadata": metadata})
    return entries


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"
