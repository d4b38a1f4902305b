"""`ggfast-core run` and `start`: the checks, the directories, the listeners, then the supervisor.

Everything here runs as root for a moment and parses only what root wrote (config.json). The words printed by
`start` are V1's (greengrass-core 3.1), because scripts read them.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ggfast import limits
from ggfast.cli import checks, handing, install, launching, process
from ggfast.config import Config, load_config
from ggfast.errors import GgfastError, OperatingError, SandboxFailed
from ggfast.layout import DEFAULT_ROOT, Layout
from ggfast.sandbox.launch import LaunchSpec, launch


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
    layout = Layout.of(Path(os.path.realpath(arguments.root)))
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
    files = handing.hand_over(config, accounts)
    try:
        install.make_layout(config.layout, accounts)
        return _launch(config, launching.launch_spec(config, accounts, files), foreground)
    finally:
        handing.close(files)


def _launch(config: Config, spec: LaunchSpec, foreground: bool) -> int:
    if foreground:
        launch(spec, background=False)
        raise AssertionError("launch in the foreground replaces this process")
    minutes, seconds = divmod(limits.START_TIMEOUT_S, 60)
    print(f"Waiting for up to {minutes:.0f}m{seconds:.0f}s for Daemon to start", flush=True)
    try:
        pid = launch(spec, background=True)
    except SandboxFailed as error:
        hint = f"Details are in {config.layout.crash_log} and runtime.log."
        raise OperatingError(f"The Greengrass daemon process died: {error}.", hint=hint) from error
    print(f"\nGreengrass successfully started with PID: {pid}")
    return 0
