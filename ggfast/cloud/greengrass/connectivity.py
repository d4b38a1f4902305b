"""Where devices reach a core: the addresses discovery gives them (greengrass-core 11.4).

An update replaces the whole list. The core's thing need not be known here, as groups need not be for their roles.
"""

from __future__ import annotations

from collections import Counter
from typing import Any
from uuid import uuid4

from ggfast.cloud.events import CoreChanged
from ggfast.cloud.faults import Fault
from ggfast.cloud.greengrass.service import GREENGRASS
from ggfast.cloud.limits import CONNECTIVITY_ENTRIES_MAX
from ggfast.cloud.operations import Call, Reply
from ggfast.cloud.shapes import Items, Record, Text, Whole, need
from ggfast.cloud.store.interface import Transaction

_COLLECTION = "connectivity"
_PATH = "/greengrass/things/{ThingName}/connectivityInfo"
_THING = Text(1, 128, r"[a-zA-Z0-9:_-]+")
_ENTRY = Record(
    {
        "HostAddress": need(Text(1, 255)),
        "Id": Text(1, 512),  # of any characters: AUTOIP_fe80::1_3
        "Metadata": Text(0, 1_024),
        "PortNumber": Whole(1, 65_535),
    }
)


def connectivity_of(tx: Transaction, home: str, thing: str) -> list[dict[str, Any]]:
    """The addresses of a core: `HostAddress`, and as given `Id`, `PortNumber`, `Metadata`."""
    found = tx.get(_COLLECTION, home, thing)
    entries: list[dict[str, Any]] = [] if found is None else found["ConnectivityInfo"]
    return entries


def connectivity_with_times(tx: Transaction, home: str, thing: str) -> list[tuple[dict[str, Any], float]]:
    """The same, each with the time since which it has been in every list that was given; seconds since 1970."""
    found = tx.get(_COLLECTION, home, thing)
    since = {} if found is None else found.get("Since", {})
    return [(entry, since.get(_place(entry), 0.0)) for entry in connectivity_of(tx, home, thing)]


@GREENGRASS.operation("GetConnectivityInfo", f"GET {_PATH}", {"ThingName": _THING}, resource=_PATH)
def get_connectivity(call: Call) -> Reply:
    """The addresses; none for a core that has not told any."""
    return Reply({"ConnectivityInfo": connectivity_of(call.tx, call.home, call.params["ThingName"])})


@GREENGRASS.operation(
    "UpdateConnectivityInfo",
    f"PUT {_PATH}",
    {"ThingName": _THING, "ConnectivityInfo": need(Items(_ENTRY, 0, CONNECTIVITY_ENTRIES_MAX))},
    writes=True,
    resource=_PATH,
)
def update_connectivity(call: Call) -> Reply:
    """Replace the addresses."""
    entries = call.params["ConnectivityInfo"]
    for identifier, times in Counter(entry["Id"] for entry in entries if "Id" in entry).items():
        if times > 1:
            raise Fault(
                GREENGRASS.invalid_code, f"ConnectivityInfo: {times} entries have the Id '{identifier}', expected one."
            )
    thing, version, now = call.params["ThingName"], str(uuid4()), call.cloud.clock.wall()
    known = {_place(entry): since for entry, since in connectivity_with_times(call.tx, call.home, thing)}
    if entries != connectivity_of(call.tx, call.home, thing):
        call.tx.tell(CoreChanged(call.region, thing))
    since = {_place(entry): known.get(_place(entry), now) for entry in entries}
    call.tx.put(_COLLECTION, call.home, thing, {"ConnectivityInfo": entries, "Since": since, "Version": version})
    return Reply({"Version": version})


def _place(entry: dict[str, Any]) -> str:
    return f"{entry['HostAddress']} {entry.get('PortNumber', '')}"
