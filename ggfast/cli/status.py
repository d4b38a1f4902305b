"""`ggfast-core status`: is it running, which group, what do its functions and devices do."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ggfast.cli import control_client, process
from ggfast.config import load_config
from ggfast.errors import LinkDown
from ggfast.layout import DEFAULT_ROOT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of status."""
    parser.add_argument("--root", type=Path, default=DEFAULT_ROOT, help="Greengrass root (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print the state; exit status 0 running, 1 running but not answering, 3 not running (as init scripts use)."""
    layout = load_config(arguments.root).layout
    running = process.find(layout)
    if running is None:
        print(json.dumps({"running": False}) if arguments.json else "Greengrass daemon is not running.")
        return 3
    running.close()
    try:
        state = control_client.request(layout.control_socket, {"verb": "status"})
    except LinkDown as error:
        print(f"Greengrass daemon is running with PID: {running.pid}, but {error}", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps({"running": True, "pid": running.pid, **state}))
    else:
        print("\n".join(render(running.pid, state)))
    return 0


def render(pid: int, state: dict[str, Any]) -> list[str]:
    """The state as lines for a person."""
    group, messages, spool = state["group"], state["broker"], state["spool"]
    heading = f"{'state':10} {'run':>4} {'memory KB':>10} {'invoked':>9} {'errors':>7} {'p50 ms':>8} {'p99 ms':>8}"
    lines = [
        f"Greengrass daemon is running with PID: {pid}",
        f"group      {group['name'] or '(nothing deployed)'}  {group['arn']}",
        f"deployment {_deployment(state['deployment'])}",
        f"messages   {messages['received']} received, {messages['delivered']} delivered",
        f"spool      {spool['messages']} messages, {spool['bytes']} of {spool['bytes_max']} bytes",
        "",
        f"{'device':40} connected",
        *(f"{row['name']:40} {'yes' if row['connected'] else 'no'}" for row in state["devices"]),
        "",
        f"{'function':40} {heading}",
        *(_function_line(row) for row in state["functions"]),
    ]
    return [*lines, *_counter_lines(state["counters"])]


def _deployment(found: dict[str, Any]) -> str:
    reported = f", {found['to_report']} not yet reported" if found["to_report"] else ""
    cloud = {"none": "no control plane", "online": "connected", "offline": "no contact"}[found["cloud"]]
    return f"{found['state']} {found['id']}{reported} ({cloud})"


def _function_line(row: dict[str, Any]) -> str:
    return (
        f"{row['name']:40} {row['state']:10} {row['instances']:4} {row['memory_kb'] or 0:10} {row['invocations']:9} "
        f"{row['errors']:7} {_milliseconds(row['p50_ms']):>8} {_milliseconds(row['p99_ms']):>8}"
    )


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _counter_lines(counters: dict[str, int]) -> list[str]:
    if not counters:
        return []
    return ["", "counters", *(f"  {name:50} {value}" for name, value in counters.items())]
