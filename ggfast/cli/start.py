"""`ggfast-core run` and `start`: the checks, the directories, the listeners, then the supervisor.

Everything here runs as root for a moment and parses only what root wrote (config.json). The words printed by
`start` are V1's (greengrass-core 3.1), because scripts read them.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
from pathlib import Path
from typing import Any

from ggfast import limits
from ggfast.cli import checks, install, launching, process
from ggfast.config import Config, load_config
from ggfast.errors import GgfastError, OperatingError
from ggfast.layout import DEFAULT_ROOT, Layout
from ggfast.sandbox.launch import launch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of run, start and restart."""
    parser.add_argument("--root", type=Path, default=DEFAULT_ROOT, help="Greengrass root (default %(default)s)")
    parser.add_argument(
        "--sysctl-directory", type=Path, default=Path("/proc/sys/fs"), help=argparse.SUPPRESS
    )  # tests cannot switch the machine's own protection


def run(arguments: argparse.Namespace) -> int:
    """Start the core. `run` becomes the supervisor and does not return; `start` returns when the core serves."""
    foreground = arguments.command == "run"
    checks.require_root(f"ggfast-core {arguments.command}")
    if not foreground:
        print("Setting up greengrass daemon", flush=True)
    layout = Layout.of(Path(os.path.abspath(arguments.root)))
    try:
        config = load_config(arguments.root)
        layout = config.layout
        return _run_checked(arguments, config, foreground)
    except GgfastError as error:
        install.note_crash(layout, str(error))
        raise


def _run_checked(arguments: argparse.Namespace, config: Config, foreground: bool) -> int:
    if not foreground:
        print("Validating hardlink/softlink protection", flush=True)
    if not arguments.insecure:
        checks.require_link_protection(arguments.sysctl_directory)
    running = process.find(config.layout)
    if running is not None:
        running.close()
        raise OperatingError(
            f"Greengrass daemon is already running with PID: {running.pid}", hint="Stop it first, or use restart."
        )
    accounts = checks.accounts(config)
    install.make_layout(config.layout, accounts)
    if foreground:
        launch(launching.launch_spec(config, accounts, ready_fd=None), background=False)
        raise AssertionError("launch in the foreground replaces this process")
    return _start(config, accounts)


def _start(config: Config, accounts: checks.Accounts) -> int:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    launch(launching.launch_spec(config, accounts, ready_fd=writer), background=True)
    os.close(writer)
    minutes, seconds = divmod(limits.START_TIMEOUT_S, 60)
    print(f"Waiting for up to {minutes}m{seconds}s for Daemon to start", flush=True)
    report = _read_report(reader, limits.START_TIMEOUT_S)
    if report.get("ok"):
        print(f"\nGreengrass successfully started with PID: {report['pid']}")
        return 0
    running = process.find(config.layout)
    if running is not None:
        running.close()
    pid = report.get("pid", "unknown")
    print(f"The Greengrass daemon process with [pid = {pid}] died", file=sys.stderr)
    reason = report.get("error", "it gave no reason")
    raise OperatingError(f"{reason}.", hint=f"Details are in {config.layout.crash_log} and runtime.log beside it.")


def _read_report(reader: int, timeout_s: float) -> dict[str, Any]:
    """The supervisor's one JSON line, or what stands for its absence."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    data = b""
    while not data.endswith(b"\n"):
        if not poll.poll(timeout_s * 1000):
            return {"ok": False, "error": f"the daemon did not answer within {timeout_s:.0f} s"}
        chunk = os.read(reader, 4096)
        if not chunk:
            return {"ok": False, "error": "the supervisor ended before the daemon served"}
        data += chunk
    found: dict[str, Any] = json.loads(data)
    return found
