"""The figure of the README: bars on a logarithmic scale, as SVG that follows the reader's light or dark setting."""

from __future__ import annotations

import math
import statistics
from typing import Any
from xml.sax.saxutils import escape

from bench import report

WIDTH, LEFT, RIGHT = 940, 290, 70  # of the figure, of the names, of the numbers after the longest bar
TOP, BAR, GAP, LEGEND = 44, 11, 12, 20  # heights: of the title, of a bar, between groups, of the line of brokers
COLOURS = ("#2f7ed8", "#8a8f98", "#e08a2e", "#3a9b5c", "#a25ac4", "#c94f4f", "#5b6b7a")
STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 14px }
.value { font-size: 10px }
.grid { stroke: #d0d7de }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .grid { stroke: #3d444d }
}"""


def drawn(result: dict[str, Any]) -> str:
    """Every case that gives messages per CPU-second, a bar for each broker."""
    names = list(result["brokers"])
    groups = [case for case in result["cases"] if case["kind"] == "load"]
    values = {(case["name"], name): _median(case["samples"][name]) for case in groups for name in names}
    known = [value for value in values.values() if value]
    low, high = (math.floor(math.log10(min(known))), math.log10(max(known))) if known else (0, 1.0)
    scale = (WIDTH - LEFT - RIGHT) / max(high - low, 0.1)
    parts, y = [], TOP + LEGEND
    for case in groups:
        parts.append(_text(LEFT - 8, y + len(names) * BAR / 2 + 4, case["text"].replace("->", "→"), anchor="end"))
        for at, name in enumerate(names):
            value = values[case["name"], name]
            length = (math.log10(value) - low) * scale if value else 0.0
            if length:
                parts.append(
                    f'<rect x="{LEFT}" y="{y + at * BAR}" width="{length:.1f}" height="{BAR - 1}" '
                    f'fill="{COLOURS[at % len(COLOURS)]}"/>'
                )
            shown = _short(value) if value else report.missing(case["samples"][name])
            parts.append(_text(LEFT + length + 4, y + at * BAR + BAR - 2, shown, kind="value"))
        y += len(names) * BAR + GAP
    return "\n".join([*_head(result, names, y), *_grid(low, high, scale, y), *parts, "</svg>", ""])


def _head(result: dict[str, Any], names: list[str], height: float) -> list[str]:
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height + 16:.0f}" role="img">',
        "<title>Messages received per broker CPU-second</title>",
        f"<style>{STYLE}</style>",
        _text(8, 20, "Messages received per broker CPU-second (logarithmic; longer is better)", kind="title"),
    ]
    x = 8.0
    for at, name in enumerate(names):
        label = f"{name} {result['brokers'][name]['version']}".strip()
        lines.append(f'<rect x="{x:.0f}" y="34" width="10" height="10" fill="{COLOURS[at % len(COLOURS)]}"/>')
        lines.append(_text(x + 14, 43, label))
        x += 30 + 7 * len(label)
    return lines


def _grid(low: int, high: float, scale: float, bottom: float) -> list[str]:
    lines = []
    for power in range(low, math.floor(high) + 1):
        x = LEFT + (power - low) * scale
        lines.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP + LEGEND - 6}" y2="{bottom:.0f}"/>')
        lines.append(_text(x, bottom + 11, _short(10.0**power), kind="value", anchor="middle"))
    return lines


def _text(x: float, y: float, text: str, *, kind: str = "", anchor: str = "") -> str:
    given = f' class="{kind}"' if kind else ""
    given += f' text-anchor="{anchor}"' if anchor else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{given}>{escape(text)}</text>'


def _median(samples: list[dict[str, Any]]) -> float:
    values = report.values_of(report.FIGURES["load"][0], samples)
    return statistics.median(values) if values else 0.0


def _short(value: float) -> str:
    return f"{value / 1e6:.3g} M" if value >= 1e6 else f"{value / 1e3:.3g} k" if value >= 1e3 else f"{value:.0f}"
