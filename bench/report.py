"""The result of the broker benchmark: a JSON document with all samples, and a table for people made from it."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.generator import REPOSITORY, BenchFailed

FORMAT = 1  # of the document
FAILED = "failed"
LOAD_BUSY = 0.9  # share of its core from which the load generator may have kept a broker waiting


@dataclass(frozen=True)
class Figure:
    """One row of the table: how it is read from a sample, and how it is written."""

    text: str
    of: Callable[[dict[str, Any]], float]
    write: Callable[[float], str]
    more_is_better: bool = False


def _rate(value: float) -> str:
    return f"{value / 1e6:.2f} M" if value >= 1e6 else f"{value / 1e3:.0f} k" if value >= 1e4 else f"{value:.0f}"


LOAD_FIGURES = (Figure("messages / CPU-s", lambda s: s["messages_per_cpu_second"], _rate, more_is_better=True),)
LATENCY_FIGURES = (
    Figure("p50, us", lambda s: s["latency_us"]["p50"], "{:.0f}".format),
    Figure("p99, us", lambda s: s["latency_us"]["p99"], "{:.0f}".format),
    Figure("p99.9, us", lambda s: s["latency_us"]["p99.9"], "{:.0f}".format),
    Figure("CPU us / message", lambda s: 1e6 / s["messages_per_cpu_second"], "{:.1f}".format),
)
IDLE_FIGURES = (
    Figure("KB / connection", lambda s: s["kb_per_connection"], "{:.2f}".format),
    Figure("MB without one", lambda s: s["pss_kb_before"] / 1024, "{:.1f}".format),
)


def progress(text: str) -> None:
    """One line on standard error that the next one replaces; nothing when that is no terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def new_result(brokers: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """A document without cases."""
    return {
        "benchmark": "broker",
        "format": FORMAT,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "settings": settings,
        "brokers": brokers,
        "cases": [],
    }


def machine() -> dict[str, Any]:
    """What the figures belong to."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            model = line.partition(":")[2].strip()
            break
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "uvloop": importlib.metadata.version("uvloop"),
    }


def commit() -> str:
    """The checkout's commit, with `+` if files differ from it; `unknown` outside a checkout."""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(REPOSITORY), *words], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        found = git("rev-parse", "--short=12", "HEAD")
        return f"{found}{'+' if git('status', '--porcelain', '--untracked-files=no') else ''}" if found else "unknown"
    except OSError:
        return "unknown"


def save(result: dict[str, Any], path: Path) -> None:
    """Write the document. Raises BenchFailed."""
    try:
        path.write_text(json.dumps(result, indent=1) + "\n")
    except OSError as error:
        raise BenchFailed(f"the result cannot be kept in {path}: {error.strerror}.") from error


def load(path: Path) -> dict[str, Any]:
    """Read a document that save() wrote. Raises BenchFailed for anything else."""
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BenchFailed(f"{path} cannot be read: {error}.") from error
    if not isinstance(result, dict) or (result.get("benchmark"), result.get("format")) != ("broker", FORMAT):
        raise BenchFailed(f"{path} is not a result of this benchmark (format {FORMAT}).")
    return result


def failures(result: dict[str, Any]) -> list[str]:
    """A sentence for each sample without figures."""
    return [
        f"{case['text']}: {name}: {sample['error']}"
        for case in result["cases"]
        for name, samples in case["samples"].items()
        for sample in samples
        if "error" in sample
    ]


def table(result: dict[str, Any]) -> str:
    """Medians and the spread (lowest to highest sample) of each broker, and how many times better the first one is."""
    names = list(result["brokers"])
    head = ["", ""]
    for name in names:
        head.append(f"{name} {result['brokers'][name]['version']}".rstrip())
        head += ["factor"] if name != names[0] else []
    rows = [head]
    for case in result["cases"]:
        for at, figure in enumerate(figures_of(case)):
            rows.append([case["text"] if at == 0 else "", figure.text, *_cells(case["samples"], names, figure)])
    widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join([*lines, "", _legend(result)])


def figures_of(case: dict[str, Any]) -> tuple[Figure, ...]:
    """The rows of a case."""
    return IDLE_FIGURES if case["load"]["idle"] else LATENCY_FIGURES if case["load"]["rate"] else LOAD_FIGURES


def _cells(samples: dict[str, list[dict[str, Any]]], names: list[str], figure: Figure) -> list[str]:
    cells: list[str] = []
    first: float | None = None
    for name in names:
        values = [figure.of(sample) for sample in samples[name] if "error" not in sample]
        complete = len(values) == len(samples[name])
        median = statistics.median(values) if values and complete else None
        cells.append(_with_spread(figure, values) if median is not None else FAILED)
        if name == names[0]:
            first = median
        elif first and median:
            cells.append(f"{first / median if figure.more_is_better else median / first:.1f}x")
        else:
            cells.append("-")
    return cells


def _with_spread(figure: Figure, values: list[float]) -> str:
    text = figure.write(statistics.median(values))
    return text if len(values) == 1 else f"{text} ({figure.write(min(values))} to {figure.write(max(values))})"


def busy_load(result: dict[str, Any]) -> list[str]:
    """Cases and brokers in whose samples the load generator was nearly busy, at the median."""
    found = []
    for case in result["cases"]:
        for name, samples in case["samples"].items():
            shares = [s["load_cpu_seconds"] / s["seconds"] for s in samples if "load_cpu_seconds" in s]
            if shares and statistics.median(shares) > LOAD_BUSY:
                found.append(f"{case['name']} ({name})")
    return found


def _legend(result: dict[str, Any]) -> str:
    found, settings = result["machine"], result["settings"]
    cores, first = settings["cores"], next(iter(result["brokers"]))
    where = (
        f"broker on core {cores[0]}, load on core {cores[1]}" if cores else "broker and load NOT on cores of their own"
    )
    busy = busy_load(result)
    return (
        f"Medians of {settings['repeat']} samples of {settings['seconds']:g} s (lowest to highest); {where}.\n"
        "Messages are those received; CPU time is the broker's, user and system, all its processes.\n"
        f"factor: how many times better {first} is than the broker left of it (below 1: worse).\n"
        + (f"The load was more than {LOAD_BUSY:.0%} busy itself in {', '.join(busy)}.\n" if busy else "")
        + f"{found['cpu']}, {found['cores']} cores, {found['machine']}, Linux {found['kernel']}, "
        f"Python {found['python']}, uvloop {found['uvloop']}; commit {result['commit']}, {result['time']}."
    )
