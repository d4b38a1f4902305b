"""What `start` and `deploy` find or make under the Greengrass root: directories, owners, launchers.

Nothing a user owns (config, certs) is touched. Directories the daemon writes belong to its account; the code of
functions must be readable by theirs (greengrass-core 2.2).
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path

from ggfast import __version__
from ggfast.cli.checks import Accounts
from ggfast.errors import OperatingError
from ggfast.layout import Layout
from ggfast.sandbox.crashlog import CrashLog

_OPEN = 0o755
_PRIVATE = 0o750
_LAUNCHER = 0o755


def make_layout(layout: Layout, accounts: Accounts) -> None:
    """Make what is missing, give the daemon its directories, refuse a root other users cannot reach."""
    try:
        _make_layout(layout, accounts)
    except OSError as error:
        raise OperatingError(
            f"{error.filename} cannot be prepared: {error.strerror}.",
            hint="Expected a directory of ours there, no link.",
        ) from error


def _make_layout(layout: Layout, accounts: Accounts) -> None:
    _require_reachable(layout.root)
    for directory in (layout.written, layout.control_socket.parent):
        directory.mkdir(mode=_OPEN, parents=True, exist_ok=True)  # root's: launchers and the socket lie there
    # Functions without a container see the host: their code is theirs to read, others' variables and words are not.
    private = (layout.state, layout.group, layout.staging, layout.logs)
    for directory in layout.written_directories:
        if directory != layout.written:
            _make_directory(directory, accounts, _PRIVATE if directory in private else _OPEN)
    _make_launchers(layout)


def note_crash(layout: Layout, text: str) -> None:
    """Append a start failure to crash.log, as V1 did; a root without a log directory gets one if it can."""
    try:
        layout.crash_log.parent.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        directory = os.open(layout.crash_log.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            CrashLog(directory, layout.crash_log.name).write(f"[{stamp}Z][FATAL]-{text}\n".encode())
        finally:
            os.close(directory)
    except OSError:
        pass  # the same text goes to stderr


def _require_reachable(root: Path) -> None:
    """Functions run as other users: every directory down to the root must let them pass."""
    if not root.is_dir():
        raise OperatingError(f"{root} is not a directory.", hint="It must hold config/config.json; see --root.")
    for directory in (root, *root.parents):
        if not directory.stat().st_mode & 0o001:
            raise OperatingError(
                f"{directory} has mode {directory.stat().st_mode & 0o777:03o}: other users cannot pass.",
                hint=f"Run `chmod o+x {directory}`.",
            )


def _make_directory(directory: Path, accounts: Accounts, mode: int) -> None:
    try:
        directory.mkdir(mode=mode, parents=True)
    except FileExistsError:
        pass
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchown(descriptor, accounts.daemon_uid, accounts.daemon_gid)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _make_launchers(layout: Layout) -> None:
    """`ggc/core/greengrassd` and `bin/daemon` of this version; an installation's own files are left alone."""
    layout.daemon.parent.mkdir(parents=True, exist_ok=True)
    _write_launcher(layout.launcher, "ggfast.cli.greengrassd")
    _write_launcher(layout.daemon, "ggfast.cli.core")
    if not layout.core_link.exists():
        layout.core_link.unlink(missing_ok=True)
        layout.core_link.symlink_to(Path("packages") / __version__)


def _write_launcher(path: Path, module: str) -> None:
    # -I: nothing in the caller's directory or environment may become root's code.
    command = f'GGFAST_LAUNCHER="$0" exec {shlex.quote(sys.executable)} -I -m {module} "$@"'
    text = f"#!/bin/sh\n# ggfast {__version__}\n{command}\n"
    if path.exists() and path.read_text(encoding="utf-8", errors="replace") == text:
        return
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(_LAUNCHER)
    temporary.replace(path)
