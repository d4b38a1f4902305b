"""`greengrassd`: V1's launcher name and habits on top of `ggfast-core` (greengrass-core 3.1).

Installed as `<root>/ggc/packages/<version>/greengrassd`, reached through `<root>/ggc/core`; the root is taken
from that place, so that scripts and systemd units of a V1 installation work unchanged.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ggfast.cli import core

_COMMANDS = ("start", "stop", "restart")
_USAGE = "Usage: greengrassd [-i] {start|stop|restart} | --version"


def root_of(launcher: str) -> Path | None:
    """The Greengrass root that a launcher's path lies in, or None if it is installed elsewhere."""
    path = Path(os.path.realpath(launcher))
    below = path.parent.parent.parent  # <root>/ggc/packages/<version>/greengrassd
    if below.name == "ggc" and path.parent.parent.name == "packages":
        return below.parent
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Translate V1's few words to `ggfast-core` and run it; exit status as there."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:
        return core.main(words)
    command = [word for word in words if word != "-i"]
    if len(command) != 1 or command[0] not in _COMMANDS:
        print(_USAGE, file=sys.stderr)
        return 2
    root = root_of(os.environ.get("GGFAST_LAUNCHER", sys.argv[0]))
    return core.main([*words, *(["--root", str(root)] if root else [])])


if __name__ == "__main__":
    sys.exit(main())
