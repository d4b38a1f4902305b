"""`ggfast-cloud init`: a new control plane in an empty folder. Its first access key is shown once."""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import shutil
import socket
from pathlib import Path

from ggfast.cloud.authority import CertificateAuthority
from ggfast.cloud.keys import ADMINISTRATOR_POLICY, make_key
from ggfast.cloud.sealing import KeySealer
from ggfast.cloud.sealing import make_key as make_sealing_key
from ggfast.cloud.settings import CloudFolder, CloudSettings, parse_settings
from ggfast.cloud.store.sqlite import SqliteStore
from ggfast.errors import OperatingError
from ggfast.storage.privatefiles import sync_folder, write_private

FIRST_KEY = "administrator"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ggfast-cloud init`."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="an empty folder, or none yet")
    parser.add_argument("--account", metavar="N", help="12 digits (default: a random number)")
    parser.add_argument("--region", default="us-east-1", metavar="R", help="default region (default: %(default)s)")
    parser.add_argument(
        "--host",
        action="append",
        default=[],
        metavar="NAME",
        help="name or address of this server, repeatable; the first stands in every address given to clients",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Make the folder. Raises OperatingError if it is not empty, ConfigError for wrong options."""
    hosts = args.host or [socket.gethostname()]
    names = dict.fromkeys(
        [*hosts, "localhost", "127.0.0.1", "::1"] if args.host else ["localhost", *hosts, "127.0.0.1", "::1"]
    )
    account = args.account or f"{secrets.randbelow(9 * 10**11) + 10**11}"
    settings = CloudSettings(account=account, region=args.region, hosts=tuple(names))
    parse_settings(settings.text(), "of the command line")
    folder = CloudFolder(args.folder.absolute())
    made_here = prepare_folder(folder.root)
    try:
        key_id, secret = make(folder, settings)
    except BaseException:
        remove_content(folder.root, itself=made_here)
        raise
    show(args.json, folder, settings, key_id, secret)
    return 0


def prepare_folder(root: Path) -> bool:
    """Make sure of an empty folder for its owner alone; whether it was made here. Raises OperatingError."""
    try:
        root.mkdir(mode=0o700, parents=True)
        return True
    except FileExistsError:
        if not root.is_dir() or any(root.iterdir()):
            raise OperatingError(f"{root} is not empty.", hint="Give a new or empty folder.") from None
        root.chmod(0o700)
        return False


def remove_content(root: Path, *, itself: bool) -> None:
    """Leave nothing half made behind."""
    for path in root.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if itself:
        root.rmdir()


def make(folder: CloudFolder, settings: CloudSettings) -> tuple[str, str]:
    """Authority, sealing key, store, first access key; settings last, which make it a control plane."""
    ca_pem, ca_key_pem = CertificateAuthority.new("ggfast cloud CA")
    write_private(folder.ca_key, ca_key_pem.encode())
    write_private(folder.ca, ca_pem.encode(), mode=0o644)
    make_sealing_key(folder.master_key)
    folder.artifacts.mkdir(mode=0o700)
    sealer = KeySealer.from_file(folder.master_key)
    key = asyncio.run(_first_key(folder, settings, sealer))
    write_private(folder.settings, settings.text())
    sync_folder(folder.root)
    return key


async def _first_key(folder: CloudFolder, settings: CloudSettings, sealer: KeySealer) -> tuple[str, str]:
    import time

    store = SqliteStore(folder.store)
    try:
        return await store.write(
            lambda tx: make_key(tx, sealer, settings.account, FIRST_KEY, ADMINISTRATOR_POLICY, time.time())
        )
    finally:
        await store.close()


def show(as_json: bool, folder: CloudFolder, settings: CloudSettings, key_id: str, secret: str) -> None:
    """Print what a client needs; the secret is nowhere else in readable form."""
    if as_json:
        found = {
            "accountId": settings.account,
            "region": settings.region,
            "accessKeyId": key_id,
            "secretAccessKey": secret,
            "caPath": str(folder.ca),
        }
        print(json.dumps(found))
        return
    print(f"A control plane for account {settings.account} is ready in {folder.root}.")
    print("This is its first access key, an administrator. The secret is not shown again:\n")
    print(f"  export AWS_ACCESS_KEY_ID={key_id}")
    print(f"  export AWS_SECRET_ACCESS_KEY={secret}")
    print(f"  export AWS_DEFAULT_REGION={settings.region}")
    print(f"  export AWS_CA_BUNDLE={folder.ca}")
    print(f"  export AWS_ENDPOINT_URL=https://{settings.hosts[0]}:{settings.api_port}\n")
    print(f"Run it with: ggfast-cloud serve {folder.root}")
