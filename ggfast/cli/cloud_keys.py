"""`ggfast-cloud create-key`, `list-keys`, `delete-key`: who may call the control plane. A running one follows within
seconds."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from ggfast.cli.cloud_folder import add_folder, in_folder
from ggfast.cloud.keys import ADMINISTRATOR_POLICY, AccessKey, all_keys, delete_key, make_key
from ggfast.cloud.server import Opened
from ggfast.cloud.settings import CloudSettings
from ggfast.errors import ConfigError, OperatingError, Problem

_POLICY_BYTES_MAX = 65_536  # far past what a policy may have: a wrong file is not read whole


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command the parser is for."""
    add_folder(parser)
    command = parser.prog.rpartition(" ")[2]
    if command == "create-key":
        parser.add_argument("--name", required=True, metavar="N", help="whose key it is; stands in its ARN")
        allowed = parser.add_mutually_exclusive_group(required=True)  # nobody gets everything by leaving a word out
        allowed.add_argument("--policy", type=Path, metavar="FILE", help="what it may do, in IAM's syntax")
        allowed.add_argument("--administrator", action="store_true", help="it may do everything")
    elif command == "delete-key":
        parser.add_argument("key", metavar="KEY", help="the key's id or name")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Do what the command says. Raises ConfigError, OperatingError, StorageFailed."""
    if args.command == "create-key":
        return _create(args)
    if args.command == "delete-key":
        return _delete(args)
    keys = in_folder(args.folder, _all)
    if args.json:
        print(json.dumps([_shown(key) for key in keys]))
    for key in [] if args.json else keys:
        print(f"{key.key_id}  {'active' if key.active else 'inactive':8}  {key.created}  {key.name}")
    return 0


def _create(args: argparse.Namespace) -> int:
    policy = ADMINISTRATOR_POLICY if args.policy is None else _read_policy(args.policy)

    async def create(cloud: Opened, settings: CloudSettings) -> tuple[str, str]:
        around = cloud.surroundings
        return await cloud.store.write(
            lambda tx: make_key(tx, around.sealer, settings.account, args.name, policy, around.clock.wall())
        )

    key_id, secret = in_folder(args.folder, create)
    if args.json:
        print(json.dumps({"name": args.name, "accessKeyId": key_id, "secretAccessKey": secret}))
    else:
        print(f"AWS_ACCESS_KEY_ID={key_id}\nAWS_SECRET_ACCESS_KEY={secret}")
        print("The secret is not shown again.", file=sys.stderr)
    return 0


def _delete(args: argparse.Namespace) -> int:
    async def delete(cloud: Opened, settings: CloudSettings) -> str | None:
        return await cloud.store.write(lambda tx: delete_key(tx, settings.account, args.key))

    key_id = in_folder(args.folder, delete)
    if key_id is None:
        raise OperatingError(f"There is no access key {args.key!r}.", hint="`ggfast-cloud list-keys` shows them.")
    print(json.dumps({"accessKeyId": key_id}) if args.json else f"{key_id} is gone.")
    return 0


async def _all(cloud: Opened, settings: CloudSettings) -> list[AccessKey]:
    return await cloud.store.read(lambda tx: list(all_keys(tx, settings.account)))


def _shown(key: AccessKey) -> dict[str, object]:
    state = "Active" if key.active else "Inactive"
    return {"accessKeyId": key.key_id, "name": key.name, "state": state, "created": key.created}


def _read_policy(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(_POLICY_BYTES_MAX + 1)
    try:
        if len(content) <= _POLICY_BYTES_MAX:
            return content.decode()
        found = f"more than {_POLICY_BYTES_MAX} bytes"
    except UnicodeDecodeError:
        found = "bytes that are not UTF-8"
    raise ConfigError("The access key cannot be made.", [Problem(str(path), found, "a policy document (IAM syntax)")])
