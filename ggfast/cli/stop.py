"""`ggfast-core stop` and `restart`, with V1's words (greengrass-core 3.1)."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from ggfast import limits
from ggfast.cli import checks, handing, process
from ggfast.cli import start as start_command
from ggfast.config import load_config
from ggfast.errors import OperatingError, SandboxFailed
from ggfast.layout import Layout
from ggfast.sandbox.launch import lock


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of stop and restart: those of start, which restart needs."""
    start_command.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Stop the core of a root; restart then starts it again. Blocking until every process is gone."""
    checks.require_root(f"ggfast-core {arguments.command}")
    if arguments.command == "restart":  # what could not come up again is not taken down
        handing.check(load_config(arguments.root))
    stopped = stop(arguments)
    if arguments.command == "restart":
        return start_command.run(arguments)
    if not stopped:
        print("ggfast-core: Greengrass daemon is not running.", file=sys.stderr)
        return 1
    return 0


def _require_unheld(layout: Layout) -> None:
    """A supervisor without a PID file is on its way up or down: "not running" would soon be untrue."""
    try:
        os.close(lock(str(layout.control_socket.parent)))
    except FileNotFoundError:
        pass  # never started here
    except SandboxFailed as error:
        text = "Greengrass daemon is just being started or stopped, or a deployment is at work."
        raise OperatingError(text, hint="Try again in a moment.") from error


def stop(arguments: argparse.Namespace) -> bool:
    """End the running core; False if there is none. Raises OperatingError if it cannot be ended."""
    layout = load_config(arguments.root).layout
    running = process.find(layout)
    if running is None:
        _require_unheld(layout)
        return False
    try:
        print(f"Stopping greengrass daemon of PID: {running.pid}", flush=True)
        running.signal(signal.SIGTERM)
        if not running.wait(limits.STOP_TIMEOUT_S):
            print(f"It did not end within {limits.STOP_TIMEOUT_S} s: killing it", file=sys.stderr)
            running.signal(signal.SIGKILL)
            if not running.wait(limits.KILL_TIMEOUT_S):
                raise OperatingError(
                    f"process {running.pid} cannot be killed.", hint="It hangs in the kernel: look at dmesg."
                )
            layout.pid_file.unlink(missing_ok=True)
    finally:
        running.close()
    print("Stopped greengrass daemon, exiting with success")
    return True
