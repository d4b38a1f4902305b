"""`ggfast-cloud delegation`: the CAs that a group's core has of its own, and what was signed for it. Also while it is
served: cores hear of a change within a minute, or when they are next in touch.

Devices cannot be told that a delegated CA is revoked: its core throws it away. When the core itself is in wrong hands,
a new group CA and devices that discover anew are what helps.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ggfast.cli.cloud_folder import in_folder
from ggfast.cloud.greengrass.authorities import (
    delegation_of,
    forbid_delegation,
    group_cas,
    is_delegation_forbidden,
    revoke_delegation,
)
from ggfast.cloud.greengrass.groups import get_group, groups_named
from ggfast.cloud.greengrass.issued import AUTHORITY, Record, issued
from ggfast.cloud.server import Opened
from ggfast.cloud.settings import REGION, CloudSettings
from ggfast.cloud.store.interface import Transaction
from ggfast.cloud.surroundings import Surroundings
from ggfast.errors import ConfigError, OperatingError, Problem

_DAY_S = 86_400


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ggfast-cloud delegation`."""
    parser.add_argument("group", metavar="GROUP", help="its id or name")
    parser.add_argument(
        "--dir", type=Path, default=Path(), metavar="DIR", help="the control plane's (default: this one)"
    )
    change = parser.add_mutually_exclusive_group()
    change.add_argument("--revoke", action="store_true", help="the core throws away what it has; it may get a new one")
    change.add_argument("--forbid", action="store_true", help="the core gets no new one; what it has stays good")
    change.add_argument("--allow", action="store_true", help="it may have one again")
    parser.add_argument("--region", metavar="R", help="default: the control plane's")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Change what is asked for, then show. Raises ConfigError, OperatingError, StorageFailed."""
    if args.region is not None and REGION.fullmatch(args.region) is None:
        problem = Problem("--region", repr(args.region[:80]), "a region such as eu-west-1")
        raise ConfigError("The group cannot be looked for.", [problem])

    async def work(cloud: Opened, settings: CloudSettings) -> dict[str, Any]:
        home, around = f"{settings.account}/{args.region or settings.region}", cloud.surroundings
        if args.revoke or args.forbid or args.allow:
            await cloud.store.write(lambda tx: _change(tx, around, home, args))
        return await cloud.store.read(lambda tx: _found(tx, around, home, args.group))

    found = in_folder(args.dir, work)
    if args.json:
        print(json.dumps(found))
    else:
        _show(found)
    return 0


def _change(tx: Transaction, cloud: Surroundings, home: str, args: argparse.Namespace) -> None:
    group_id = _group(tx, home, args.group)
    if args.revoke:
        revoke_delegation(tx, home, group_id, cloud.clock.wall())
    else:
        forbid_delegation(tx, home, group_id, args.forbid)


def _found(tx: Transaction, cloud: Surroundings, home: str, wanted: str) -> dict[str, Any]:
    group_id = _group(tx, home, wanted)
    delegation = delegation_of(tx, cloud, home, group_id)
    cas = group_cas(tx, home, group_id)
    if is_delegation_forbidden(tx, home, group_id):
        state = "forbidden"
    elif not cloud.delegated_authority_s:
        state = "switched off for all groups (delegatedAuthorityDays in cloud.json)"
    elif not cas:
        state = "none yet: the group has no CA"
    elif not delegation["seconds"]:
        state = "not possible: the group's CA is of a time before delegation. Make a new one"
    else:
        state = "allowed"
    return {
        "groupId": group_id,
        "delegation": state,
        **delegation,
        "issued": [_form(record, delegation["revokedBefore"]) for record in issued(tx, home, group_id)],
    }


def _group(tx: Transaction, home: str, wanted: str) -> str:
    """The id of a group by its id or name. Raises OperatingError."""
    if get_group(tx, home, wanted) is not None:
        return wanted
    found = groups_named(tx, home, wanted)
    if len(found) == 1:
        return found[0]
    if found:
        raise OperatingError(f"{len(found)} groups have the name {wanted!r}.", hint=f"Give an id: {', '.join(found)}")
    raise OperatingError(f"There is no group {wanted!r} in {home.partition('/')[2]}.", hint="Give its id or name.")


def _form(record: Record, revoked_before: int) -> dict[str, Any]:
    return {
        "kind": record.kind,
        "serial": record.serial,
        "thing": record.thing,
        "hosts": list(record.hosts),
        "issued": _date(record.at),
        "until": _date(record.until),
        "revoked": record.kind == AUTHORITY and record.since < revoked_before,
    }


def _show(found: dict[str, Any]) -> None:
    days = f", for {found['seconds'] / _DAY_S:g} days" if found["seconds"] else ""
    revoked = f"; those from before {_date(found['revokedBefore'])} are revoked" if found["revokedBefore"] else ""
    print(f"{found['groupId']}  delegated CA: {found['delegation']}{days}{revoked}")
    for entry in found["issued"]:
        until = "revoked" if entry["revoked"] else f"until {entry['until']}"
        print(f"{entry['kind']:18}  {entry['issued']}  {until}  {entry['serial']}  {entry['thing']}")
        print(f"    {' '.join(entry['hosts'])}")


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
