"""Kept results as the benchmark section of README.md and its figure: nobody writes those numbers by hand."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import plot, report
from bench.counts import methods
from bench.generator import REPOSITORY, BenchFailed

README = REPOSITORY / "README.md"
FIGURE = REPOSITORY / "docs" / "benchmark.svg"
BEGIN = "<!-- benchmark: made from bench/results by `python -m bench broker --show FILE --readme` -->"
END = "<!-- end of benchmark -->"


def update(kept: Path) -> None:
    """Put a kept result of the broker, and counts.json and hostile.json beside it, into README.md and the figure.

    Raises BenchFailed if there is no place for it or no such result.
    """
    text = README.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise BenchFailed(f"README.md has not one line {BEGIN} and one line {END}.")
    before, _, rest = text.partition(BEGIN)
    README.write_text(f"{before}{block(kept)}{rest.partition(END)[2]}")
    FIGURE.parent.mkdir(exist_ok=True)
    FIGURE.write_text(plot.drawn(report.load(kept, "broker")))


def block(kept: Path) -> str:
    """The section, from its first marker to its last. Raises BenchFailed."""
    result = report.load(kept, "broker")
    beside = {name: kept.with_name(f"{name}.json") for name in ("counts", "hostile")}
    more = [report.load(path, name) for name, path in beside.items() if path.exists()]
    parts = [BEGIN, f"![Messages per broker CPU-second]({FIGURE.relative_to(REPOSITORY)})"]
    for kind, head in (
        ("load", "Thousands of messages received per broker CPU-second (factor)"),
        ("latency", "Latency, p50 / p99 / p99.9 in µs"),
        ("connect", "Broker CPU for a client that comes and goes, µs"),
        ("idle", "Memory: KB for each connection; MB of the broker without any"),
    ):
        parts.append(_table(result, kind, head))
    for other in more:
        for kind, head in (
            ("instructions", "Instructions in user space a message"),
            ("system calls", "System calls a message"),
            ("hostile", "Good clients beside bad ones: p99 alone → beside them, µs; memory afterwards"),
        ):
            parts.append(_table(other, kind, head))
    return "\n\n".join([*filter(None, parts), _method(result, more), END])


def _table(result: dict[str, Any], kind: str, head: str) -> str:
    cases = [case for case in result["cases"] if case["kind"] == kind]
    if not cases:
        return ""
    names = list(result["brokers"])
    titles = [f"{name} {result['brokers'][name]['version']}".strip() for name in names]
    lines = [f"| {head} | {' | '.join(titles)} |", f"|{'---|' * (len(names) + 1)}"]
    for case in cases:
        cells = [_cell(kind, case["samples"][name], case["samples"][names[0]]) for name in names]
        lines.append(f"| {case['text'].replace('->', '→')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(kind: str, samples: list[dict[str, Any]], first: list[dict[str, Any]]) -> str:
    medians = _medians(kind, samples)
    if not medians:
        return report.missing(samples)
    if kind == "load":
        ours = _medians(kind, first)
        factor = "" if samples is first or not ours else f" ({ours[0] / medians[0]:.1f})"
        return _thousands(medians[0]) + factor
    if kind == "latency":
        return " / ".join(f"{value:.0f}" for value in medians[:3])
    if kind == "hostile":
        return f"{medians[0]:.0f} → {medians[1]:.0f}; {medians[4]:.0f} %"
    if kind == "idle":
        return f"{medians[0]:.1f}; {medians[1]:.1f}"
    return f"{medians[0]:,.0f}" if medians[0] >= 10 else f"{medians[0]:.3g}"


def _medians(kind: str, samples: list[dict[str, Any]]) -> list[float]:
    """The median of each figure of the kind; empty if there are none."""
    columns = [report.values_of(figure, samples) for figure in report.FIGURES[kind]]
    return [statistics.median(values) for values in columns if values]


def _thousands(value: float) -> str:
    return f"{value / 1e3:,.0f}" if value >= 1e4 else f"{value / 1e3:.1f}"


def _method(result: dict[str, Any], more: Sequence[dict[str, Any]]) -> str:
    found, settings = result["machine"], result["settings"]
    names = list(result["brokers"])
    sentences = [
        f"{found['cpu']}, {found['cores']} cores, Linux {found['kernel']}, Python {found['python']}.",
        f"Commit {result['commit'].rstrip('+')}, {result['time'][:10]}.",
        f"{report.sampled(settings)}, the brokers in turns"
        + (", broker and load on a core each." if settings["cores"] else "; broker and load shared their cores."),
        f"In brackets: how many times more {names[0]} does." if len(names) > 1 else "",
    ]
    if busy := report.busy_load(result):
        sentences.append(f"The load generator was more than {report.LOAD_BUSY:.0%} busy in {', '.join(busy)}.")
    sentences += [f"Not measured: {reason}" for reason in report.unmeasured(result)]
    for other in more:
        if ways := methods(other):
            sentences.append(f"Counted by {'; '.join(ways)}.")
    return " ".join(filter(None, sentences))
