"""`ggfast-cloud`: the one command of the control plane. Each subcommand is a module with `add_arguments` and `run`.

Exit status: 0 done, 1 refused or failed (one clear error on stderr), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from ggfast import __version__
from ggfast.cli.terminal import printable
from ggfast.errors import GgfastError

COMMANDS = {
    "init": ("ggfast.cli.cloud_init", "make a control plane in an empty folder"),
    "serve": ("ggfast.cli.cloud_serve", "run a control plane"),
    "create-core": ("ggfast.cli.cloud_core", "make a core: thing, certificate, group, and the files its device needs"),
    "create-key": ("ggfast.cli.cloud_keys", "make an access key"),
    "list-keys": ("ggfast.cli.cloud_keys", "what access keys there are"),
    "delete-key": ("ggfast.cli.cloud_keys", "remove an access key"),
    "add-object": ("ggfast.cli.cloud_files", "register a file under an address in S3: a model, bulk input"),
    "add-software": ("ggfast.cli.cloud_files", "register a release of the core software that update jobs offer"),
    "delegation": ("ggfast.cli.cloud_delegation", "CAs that cores have for renewing alone: show, revoke, forbid"),
    "backup": ("ggfast.cli.cloud_backup", "write everything into one file, also while it is served"),
    "restore": ("ggfast.cli.cloud_backup", "make a control plane from a backup"),
}


def build_parser(chosen: str | None) -> argparse.ArgumentParser:
    """The command line; only the `chosen` subcommand gets its own arguments."""
    parser = argparse.ArgumentParser(prog="ggfast-cloud", description="Runs a Greengrass control plane.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name == chosen:
            importlib.import_module(module).add_arguments(command)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run the subcommand, turn deliberate errors into one message and status 1."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    chosen = next((word for word in words if word in COMMANDS), None)
    try:
        parsed = build_parser(chosen).parse_args(words)
        return int(importlib.import_module(COMMANDS[parsed.command][0]).run(parsed))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "ggfast":
            raise
        print(
            f"ggfast-cloud: {error.name} is not installed here. Install it with: pip install 'ggfast[cloud]'",
            file=sys.stderr,
        )
        return 1
    except (GgfastError, OSError) as error:
        print(f"ggfast-cloud: {printable(str(error), keep=chr(10))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
