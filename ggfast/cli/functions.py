"""`ggfast-core functions`: what every deployed function does, needs and last got wrong."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ggfast.cli import control_client
from ggfast.cli.terminal import printable
from ggfast.config import load_config
from ggfast.layout import DEFAULT_ROOT

_COLUMNS = (
    f"{'function':32} {'state':18} {'run':>4} {'wait':>5} {'KB now':>8} {'KB peak':>8} {'KB limit':>8} "
    f"{'invoked':>9} {'errors':>7} {'p50 ms':>9} {'p99 ms':>9}"
)
_ERROR_CHARACTERS = 160


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of functions."""
    parser.add_argument("--root", type=Path, default=DEFAULT_ROOT, help="Greengrass root (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print one row a function. Raises LinkDown if no core is running."""
    layout = load_config(arguments.root).layout
    answer = control_client.request(layout.control_socket, {"verb": "functions"})
    print(json.dumps(answer) if arguments.json else "\n".join(render(answer["functions"])))
    return 0


def render(rows: list[dict[str, Any]]) -> list[str]:
    """The rows as lines for a person; a function's last error stands below it."""
    if not rows:
        return ["No function is deployed."]
    lines = [_COLUMNS]
    for row in rows:
        lines.append(_line(row))
        if row["last_error"]:
            lines.append(f"    last error: {shortened(row['last_error'])}")
    return lines


def shortened(text: str) -> str:
    """One line of a text, cut to what a screen shows."""
    flat = printable(" ".join(text.split()))
    return flat if len(flat) <= _ERROR_CHARACTERS else flat[: _ERROR_CHARACTERS - 1] + "…"


def _line(row: dict[str, Any]) -> str:
    name = f"{row['name']}:{row['arn'].rpartition(':')[2]}"
    limit = row["memory_limit_kb"] or "-"
    return (
        f"{name:32} {row['state'] + (' (pinned)' if row['pinned'] else ''):18} {row['instances']:4} {row['queued']:5} "
        f"{row['memory_kb'] or '-':>8} {row['memory_peak_kb'] or '-':>8} {limit:>8} "
        f"{row['invocations']:9} {row['errors']:7} {_milliseconds(row['p50_ms']):>9} {_milliseconds(row['p99_ms']):>9}"
    )


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
