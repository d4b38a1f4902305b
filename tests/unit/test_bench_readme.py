"""README.md's benchmark section and its figure are what the kept results give; nobody writes them by hand."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from test_bench_broker import rates, result

from bench import counts, hostile, plot, readme, report
from bench.generator import BenchFailed

KEPT = readme.REPOSITORY / "bench" / "results" / "broker.json"
SVG = "{http://www.w3.org/2000/svg}"


def test_readme_is_what_the_kept_results_give() -> None:
    text = readme.README.read_text()
    section = text[text.index(readme.BEGIN) : text.index(readme.END) + len(readme.END)]
    assert section == readme.block(KEPT), "python -m bench broker --show bench/results/broker.json --readme"
    assert readme.FIGURE.read_text() == plot.drawn(report.load(KEPT, "broker"))


def test_kept_results_name_no_place_of_a_machine() -> None:
    for path in KEPT.parent.glob("*.json"):
        assert not re.search(r'"/(?!proc|dev)[a-z]+/', path.read_text()), path
        assert not json.loads(path.read_text())["settings"]["quick"], f"{path} holds a smoke test"


def document(tmp_path: Path) -> Path:
    made = result({"ggfast": rates(2e6, 3e6, 4e6), "other": rates(1e5, 1e5, 1e5)})
    latency = {"latency_us": {"p50": 50.4, "p99": 99.6, "p99.9": 200.0}, "messages_per_cpu_second": 1e5}
    memory = {"kb_per_connection": 2.04, "pss_kb_before": 1_024}
    for kind, sample in (("latency", latency), ("idle", memory), ("connect", {"cpu_us_per_connection": 1_200.0})):
        samples = {"ggfast": [sample], "other": [{"not measured": "no reason."}]}
        made["cases"].append({"name": kind, "text": f"the {kind}", "kind": kind, "load": {}, "samples": samples})
    report.save(made, tmp_path / "broker.json")
    return tmp_path / "broker.json"


def test_a_section_has_a_table_for_each_kind(tmp_path: Path) -> None:
    section = readme.block(document(tmp_path))
    assert "| one | 3,000 | 100 (30.0) |" in section
    assert "| the latency | 50 / 100 / 200 | not measured |" in section
    assert "| the idle | 2.0; 1.0 | not measured |" in section
    assert "| the connect | 1,200 | not measured |" in section
    assert "Not measured: no reason." in section
    assert "hostile" not in section and section.startswith(readme.BEGIN) and section.endswith(readme.END)


def test_counts_and_attacks_beside_it_are_taken_in(tmp_path: Path) -> None:
    kept = document(tmp_path)
    counted = result({"ggfast": [{"per_message": 1_234.5, "method": "by hand"}]}, "instructions") | {
        "benchmark": "counts"
    }
    sample = {"p99_alone_us": 100.0, "p99_us": 150.0, "pss_kb_before": 1_000, "pss_kb_after": 1_010, "cpu_share": 0.5}
    attacked = result({"ggfast": [sample]}, "hostile") | {"benchmark": "hostile"}
    report.save(counted, tmp_path / "counts.json")
    report.save(attacked, tmp_path / "hostile.json")
    section = readme.block(kept)
    assert "| one | 1,234 |" in section and "Counted by by hand." in section
    assert "| one | 100 → 150; 101 % |" in section


def test_update_replaces_the_section_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, figure = tmp_path / "README.md", tmp_path / "docs" / "figure.svg"
    page.write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    monkeypatch.setattr(readme, "README", page)
    monkeypatch.setattr(readme, "REPOSITORY", tmp_path)
    monkeypatch.setattr(readme, "FIGURE", figure)
    kept = document(tmp_path)
    readme.update(kept)
    assert page.read_text() == f"before\n{readme.block(kept)}\nafter\n"
    assert figure.read_text() == plot.drawn(report.load(kept, "broker"))
    page.write_text("no place")
    with pytest.raises(BenchFailed, match=r"README\.md has not one line"):
        readme.update(kept)


def test_bars_are_as_long_as_the_logarithm_of_what_they_show() -> None:
    made = result({"ggfast": rates(1e6), "other": rates(1e4), "third <&>": [{"error": "lost."}]})
    page = ElementTree.fromstring(plot.drawn(made))
    widths = [float(bar.get("width", "0")) for bar in page.iter(f"{SVG}rect") if bar.get("x") == str(plot.LEFT)]
    unit = (plot.WIDTH - plot.LEFT - plot.RIGHT) / 2
    assert len(made["brokers"]) == 3 and len(widths) == 1  # the shortest is where the scale begins
    assert math.isclose(widths[0], 2 * unit, abs_tol=0.1)
    texts = [text.text for text in page.iter(f"{SVG}text")]
    assert {"1 M", "10 k", "failed", "third <&> 2.0"} <= set(texts)
    assert "prefers-color-scheme: dark" in plot.STYLE


def test_promises_are_compared_with_the_median(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def counted(*values: float) -> dict[str, Any]:
        samples = {"ggfast": [{"per_message": value, "method": "by hand"} for value in values]}
        made = result(samples, "instructions") | {"benchmark": "counts"}
        made["cases"][0]["load"]["limit"] = 1_500
        return made

    assert counts.verdicts(counted(1_400, 1_600, 1_500)) == [(True, "instructions, one: at most 1500 kept")]
    assert counts.verdicts(counted(1_600, 1_501, 1_400)) == [(False, "instructions, one: at most 1500 EXCEEDED")]
    report.save(counted(1_600), tmp_path / "counts.json")
    assert counts.main(["--show", str(tmp_path / "counts.json")]) == 0
    assert counts.main(["--check", "--show", str(tmp_path / "counts.json")]) == 1
    assert "by hand" in capsys.readouterr().out


def test_attacks_are_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    did = {"attempts": 7, "seconds": 2.0, "closed_by_broker": 5, "refused": 1, "left": 1, "bytes_sent": 3_000_000}
    sample = {"p99_alone_us": 100.0, "p99_us": 150.0, "pss_kb_before": 1_000, "pss_kb_after": 1_010, "cpu_share": 0.5}
    made = result({"ggfast": [sample | {"attackers": did, "seed": 4}]}, "hostile") | {"benchmark": "hostile"}
    report.save(made, tmp_path / "hostile.json")
    assert hostile.main(["--show", str(tmp_path / "hostile.json")]) == 0
    said = capsys.readouterr().out
    assert (
        "ggfast, seed 4: 7 connections in 2 s, 5 closed by the broker, 1 refused, 1 left by the attacker; 3.0 MB"
        in said
    )
    assert "1.50" in said and "101.0" in said
