"""`ggfast-core`: the one command of the edge. Each subcommand is a module with `add_arguments` and `run`.

Only the module of the subcommand asked for is imported, so that `status` on a 128 MB device does not load what
`broker` needs. Exit status: 0 done, 1 refused or failed (one clear error on stderr), 2 wrong usage.
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
    "run": ("ggfast.cli.start", "run the core in the foreground"),
    "start": ("ggfast.cli.start", "start the core in the background and wait until it serves"),
    "stop": ("ggfast.cli.stop", "stop the core and everything it started"),
    "restart": ("ggfast.cli.stop", "stop, then start"),
    "status": ("ggfast.cli.status", "what the running core does"),
    "functions": ("ggfast.cli.functions", "what each function does: state, memory, invocations, errors, durations"),
    "logs": ("ggfast.cli.logs", "what a function printed"),
    "invoke": ("ggfast.cli.invoke", "run a function of the running core"),
    "try": ("ggfast.cli.trial", "run a function package here, in the container it will have on a device"),
    "deploy": ("ggfast.cli.deploy", "deploy a group from a folder"),
    "doctor": ("ggfast.cli.doctor", "check whether this machine can run a core, and what is missing"),
    "broker": ("ggfast.cli.broker", "run the MQTT broker alone, without a group"),
    "demo": ("ggfast.cli.demo", "show a whole group at work on this machine"),
    "cert": ("ggfast.cli.cert", "make certificates for a group, its core and its devices"),
}


def build_parser(chosen: str | None) -> argparse.ArgumentParser:
    """The command line; only the `chosen` subcommand gets its own arguments."""
    parser = argparse.ArgumentParser(prog="ggfast-core", description="Runs a Greengrass group on this machine.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "-i", dest="insecure", action="store_true", help="start although the kernel does not protect links"
    )
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
    parsed = build_parser(chosen).parse_args(words)
    module = importlib.import_module(COMMANDS[parsed.command][0])
    try:
        return int(module.run(parsed))
    except GgfastError as error:
        print(f"ggfast-core: {printable(str(error), keep=chr(10))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output left; nothing more can be said
        return 1


if __name__ == "__main__":
    sys.exit(main())
