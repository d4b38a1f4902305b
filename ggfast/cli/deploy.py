"""`ggfast-core deploy FOLDER`: a group from a folder, checked whole, then made the running one.

Reading and unpacking happen as the daemon's account (cli/unprivileged.py). With a core running the daemon applies the
staged group and reports; without one it is put in place and runs at the next start.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from ggfast import limits
from ggfast.cli import checks, control_client, install, process
from ggfast.cli.terminal import printable
from ggfast.cli.unprivileged import run_as
from ggfast.config import Config, load_config
from ggfast.core.deploy.folder import stage_folder
from ggfast.core.deploy.store import Store
from ggfast.core.functions.resources import require_attachable
from ggfast.group.validate import GroupRules
from ggfast.layout import DEFAULT_ROOT
from ggfast.sandbox.launch import lock


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of deploy."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="holds group.json, code and certificates")
    parser.add_argument("--root", type=Path, default=DEFAULT_ROOT, help="Greengrass root (default %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Deploy; exit status 0 once the group runs, or is in place for the next start. Blocking."""
    checks.require_root("ggfast-core deploy")
    config = load_config(arguments.root)
    accounts = checks.accounts(config)
    install.make_layout(config.layout, accounts)
    folder = arguments.folder.absolute()
    running = process.find(config.layout)
    ids = (accounts.daemon_uid, accounts.daemon_gid)
    if running is None:
        held = lock(str(config.layout.control_socket.parent))  # nobody starts, stops or deploys meanwhile
        try:
            name = _staged(ids, config, folder, recover=True)
            functions = (accounts.function_uid, accounts.function_gid)
            done = run_as(*ids, lambda: _activate(config, name, functions))
        finally:
            os.close(held)
        print(f"Group {done['group']} is in place: it runs at the next start.")
        return 0
    running.close()
    request = {"verb": "activate", "staging": _staged(ids, config, folder, recover=False)}
    done = control_client.request(config.layout.control_socket, request, timeout_s=limits.DEPLOY_TIMEOUT_S)
    print(f"Group {done['group']} is running.")
    return 0


def _staged(ids: tuple[int, int], config: Config, folder: Path, *, recover: bool) -> str:
    staged = run_as(*ids, lambda: _stage(config, folder, recover=recover))
    for note in staged["notes"]:
        print(f"note: {printable(str(note))}", file=sys.stderr)
    return str(staged["staging"])


def _stage(config: Config, folder: Path, *, recover: bool) -> dict[str, Any]:
    """In the unprivileged child: check everything and write the side directory."""
    if recover:  # a running daemon has done so at its own start
        Store(config.layout, fsync=config.ggfast.fsync).recover()
    staged = stage_folder(folder, config.layout, rules=GroupRules.of(config))
    return {"staging": staged.directory.name, "notes": list(staged.notes)}


def _activate(config: Config, name: str, functions: tuple[int, int]) -> dict[str, Any]:
    """In the unprivileged child, without a core: put the staged group in place, if it can run on this machine."""
    store = Store(config.layout, fsync=config.ggfast.fsync)
    group = store.activate(config.layout.staging / name)
    try:
        require_attachable(group, config, functions)
    except BaseException:
        store.rollback()
        raise
    store.confirm()
    return {"group": group.arn}
