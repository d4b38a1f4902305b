"""The result of a benchmark of brokers: a JSON document with all samples, and a table for people made from it."""

from __future__ import annotations

import datetime
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.generator import REPOSITORY, BenchFailed
from bench.machine import machine
from bench.measure import NOT_MEASURED, Plan

FORMAT = 2  # of the document
FAILED = "failed"
SAMPLE_DEPTH = 5  # of a sample in the document: cases, case, samples, broker, sample
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


_whole, _tenths, _hundredths = "{:.0f}".format, "{:.1f}".format, "{:.2f}".format
FIGURES: dict[str, tuple[Figure, ...]] = {
    "load": (Figure("messages / CPU-s", lambda s: s["messages_per_cpu_second"], _rate, more_is_better=True),),
    "latency": (
        Figure("p50, us", lambda s: s["latency_us"]["p50"], _whole),
        Figure("p99, us", lambda s: s["latency_us"]["p99"], _whole),
        Figure("p99.9, us", lambda s: s["latency_us"]["p99.9"], _whole),
        Figure("CPU us / message", lambda s: 1e6 / s["messages_per_cpu_second"], _tenths),
    ),
    "connect": (Figure("CPU us / connection", lambda s: s["cpu_us_per_connection"], _whole),),
    "idle": (
        Figure("KB / connection", lambda s: s["kb_per_connection"], _hundredths),
        Figure("MB without one", lambda s: s["pss_kb_before"] / 1024, _tenths),
    ),
    "instructions": (Figure("instructions / message", lambda s: s["per_message"], _whole),),
    "system calls": (Figure("system calls / message", lambda s: s["per_message"], "{:.3f}".format),),
    "hostile": (
        Figure("p99 of the good alone, us", lambda s: s["p99_alone_us"], _whole),
        Figure("p99 beside the others, us", lambda s: s["p99_us"], _whole),
        Figure("times", lambda s: s["p99_us"] / s["p99_alone_us"], _hundredths),
        Figure("memory afterwards, MB", lambda s: s["pss_kb_after"] / 1024, _tenths),
        Figure("of that before, %", lambda s: 100 * s["pss_kb_after"] / s["pss_kb_before"], _tenths),
        Figure("broker's CPU, %", lambda s: 100 * s["cpu_share"], _whole),
    ),
}


def progress(text: str) -> None:
    """One line on standard error that the next one replaces; nothing when that is no terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def complain(text: str, name: str, sample: dict[str, Any]) -> None:
    """Say on standard error that a sample failed, if it did."""
    if "error" in sample:
        progress("")
        print(f"bench: {text}: {name}: {sample['error']}", file=sys.stderr)


def new_result(benchmark: str, plan: Plan) -> dict[str, Any]:
    """A document without cases."""
    brokers = {peer.name: {"version": peer.version, "command": _shown(peer.command)} for peer in plan.peers}
    return {
        "benchmark": benchmark,
        "format": FORMAT,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine(),
        "settings": {
            "seconds": plan.seconds,
            "warm_up_s": plan.warm_up_s,
            "repeat": plan.repeat,
            "cores": list(plan.cores) if plan.cores else None,
            "quick": plan.quick,
        },
        "brokers": brokers,
        "cases": [],
    }


def _shown(command: Sequence[str]) -> list[str]:
    """A command without the places where this machine keeps things."""
    return [Path(command[0]).name, *(word.replace(f"{REPOSITORY}/", "") for word in command[1:])]


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
    """Write the document, a sample to a line. Raises BenchFailed."""
    try:
        path.write_text(_text(result) + "\n")
    except OSError as error:
        raise BenchFailed(f"the result cannot be kept in {path}: {error.strerror}.") from error


def _text(value: Any, depth: int = 0) -> str:
    """JSON broken into lines down to the samples; numbers have six digits."""
    held = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if depth == SAMPLE_DEPTH or not any(isinstance(one, dict | list) for one in held):
        return json.dumps(_rounded(value))
    begin, end = "{}" if isinstance(value, dict) else "[]"
    names = [f"{json.dumps(name)}: " for name in value] if isinstance(value, dict) else [""] * len(value)
    line = "\n" + " " * depth
    parts = (f"{line} {name}{_text(one, depth + 1)}" for name, one in zip(names, held, strict=True))
    return f"{begin}{','.join(parts)}{line}{end}"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(held) for key, held in value.items()}
    return [_rounded(held) for held in value] if isinstance(value, list) else value


def load(path: Path, benchmark: str) -> dict[str, Any]:
    """Read a document that save() wrote. Raises BenchFailed for anything else."""
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BenchFailed(f"{path} cannot be read: {error}.") from error
    if not isinstance(result, dict) or (result.get("benchmark"), result.get("format")) != (benchmark, FORMAT):
        raise BenchFailed(f"{path} is not a result of the benchmark {benchmark} (format {FORMAT}).")
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
    return FIGURES[case["kind"]]


def values_of(figure: Figure, samples: list[dict[str, Any]]) -> list[float]:
    """The figure in each sample; empty if one of them has failed or was not measured."""
    if any("error" in sample or NOT_MEASURED in sample for sample in samples):
        return []
    return [figure.of(sample) for sample in samples]


def _cells(samples: dict[str, list[dict[str, Any]]], names: list[str], figure: Figure) -> list[str]:
    cells: list[str] = []
    first: float | None = None
    for name in names:
        values = values_of(figure, samples[name])
        median = statistics.median(values) if values else None
        cells.append(_with_spread(figure, values) if values else missing(samples[name]))
        if name == names[0]:
            first = median
        elif first and median:
            cells.append(f"{first / median if figure.more_is_better else median / first:.1f}x")
        else:
            cells.append("-")
    return cells


def missing(samples: list[dict[str, Any]]) -> str:
    """What stands where a figure is not."""
    return FAILED if any("error" in sample for sample in samples) else NOT_MEASURED


def unmeasured(result: dict[str, Any]) -> list[str]:
    """Each reason why something was not measured, once."""
    found = {
        sample[NOT_MEASURED]
        for case in result["cases"]
        for samples in case["samples"].values()
        for sample in samples
        if NOT_MEASURED in sample
    }
    return sorted(found)


def _with_spread(figure: Figure, values: list[float]) -> str:
    text = figure.write(statistics.median(values))
    return text if len(values) == 1 else f"{text} ({figure.write(min(values))} to {figure.write(max(values))})"


def sampled(settings: dict[str, Any]) -> str:
    """How often and how long was measured, as the begin of a sentence."""
    if settings["repeat"] == 1:
        return f"One sample of {settings['seconds']:g} s"
    return f"Medians (lowest to highest) of {settings['repeat']} samples of {settings['seconds']:g} s"


def busy_load(result: dict[str, Any]) -> list[str]:
    """Cases and brokers in whose samples the load generator was nearly busy, at the median."""
    found = []
    for case in result["cases"]:
        for name, samples in case["samples"].items():
            shares = load_shares(samples)
            if shares and statistics.median(shares) > LOAD_BUSY:
                found.append(f"{case['name']} ({name})")
    return found


def load_shares(samples: list[dict[str, Any]]) -> list[float]:
    """How much of its core the load generator used, by sample."""
    return [s["load_cpu_seconds"] / s["seconds"] for s in samples if "messages" in s and "load_cpu_seconds" in s]


def _legend(result: dict[str, Any]) -> str:
    found, settings = result["machine"], result["settings"]
    cores, first = settings["cores"], next(iter(result["brokers"]))
    where = (
        f"broker on core {cores[0]}, load on core {cores[1]}" if cores else "broker and load NOT on cores of their own"
    )
    busy = busy_load(result)
    return (
        f"{sampled(settings)}; {where}.\n"
        "Messages are those received; CPU time is the broker's, user and system, all its processes.\n"
        f"factor: how many times better {first} is than the broker left of it (below 1: worse).\n"
        + (f"The load was more than {LOAD_BUSY:.0%} busy itself in {', '.join(busy)}.\n" if busy else "")
        + "".join(f"{NOT_MEASURED}: {reason}\n" for reason in unmeasured(result))
        + f"{found['cpu']}, {found['cores']} cores, {found['machine']}, Linux {found['kernel']}, "
        f"Python {found['python']}, uvloop {found['uvloop']}; commit {result['commit']}, {result['time']}."
    )
