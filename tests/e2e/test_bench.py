"""Every case of the brokers' benchmarks runs, loses nothing and gives a valid document. No figure is judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.cases import CASES
from bench.counts import COUNTS
from bench.hostile import ATTACKS
from bench.report import FIGURES

TIMEOUT_S = 120.0


def run(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", name, "--quick", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)


def kept(path: Path, name: str, *options: str) -> dict[str, Any]:
    """The document of a run that must succeed, with a figure in every sample."""
    done = run(name, "--json", str(path), *options)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(path.read_text())
    for case in document["cases"]:
        assert case["text"] in done.stdout
        for samples in case["samples"].values():
            assert len(samples) == 1
            for figure in FIGURES[case["kind"]]:
                assert isinstance(figure.of(samples[0]), float | int)
    return document


def test_every_case_runs(tmp_path: Path) -> None:
    document = kept(tmp_path / "result.json", "broker", "--only", "ggfast")
    assert list(document["brokers"]) == ["ggfast"]
    assert [case["name"] for case in document["cases"]] == [case.name for case in CASES]


def test_each_kind_of_case_runs_with_mosquitto(tmp_path: Path) -> None:
    names = ("1:1-qos2", "tls", "filters-1k", "latency", "tls-connect", "idle-burst")
    options = [word for name in names for word in ("--case", name)]
    document = kept(tmp_path / "result.json", "broker", "--only", "mosquitto", *options)
    assert [case["name"] for case in document["cases"]] == list(names)


def test_system_calls_are_counted(tmp_path: Path) -> None:
    names = [count.name for count in COUNTS if count.kind == "system calls"]
    options = [word for name in names for word in ("--case", name)]
    document = kept(tmp_path / "result.json", "counts", "--only", "ggfast", *options)
    for case in document["cases"]:
        assert 0 < case["samples"]["ggfast"][0]["per_message"] < 20


def test_instructions_are_counted(tmp_path: Path) -> None:
    """With mosquitto, which starts a hundred times faster than Python below callgrind."""
    document = kept(tmp_path / "result.json", "counts", "--only", "mosquitto", "--case", "instructions-qos1")
    assert 500 < document["cases"][0]["samples"]["mosquitto"][0]["per_message"] < 50_000


def test_attacks_run(tmp_path: Path) -> None:
    document = kept(tmp_path / "result.json", "hostile", "--only", "ggfast")
    assert [case["name"] for case in document["cases"]] == [attack.name for attack in ATTACKS]
    garbage = document["cases"][0]["samples"]["ggfast"][0]["attackers"]
    assert garbage["attempts"] >= 100 and garbage["closed_by_broker"] > 0 and garbage["bytes_sent"] > 10_000


def test_a_peer_by_command_and_one_that_fails() -> None:
    own = f"again={sys.executable} -m ggfast.cli.broker --port {{port}}"
    tight = f"tight={sys.executable} -m ggfast.cli.broker --max-connections 20 --port {{port}}"
    done = run("broker", "--case", "fan-in", "--only", "again", "--only", "tight", "--peer", own, "--peer", tight)
    assert done.returncode == 1
    assert "50 -> 1, QoS 0, 64 B, window 20 each: tight: publisher " in done.stderr
    assert "failed" in done.stdout and "again: " not in done.stderr


@pytest.mark.parametrize("name", ["nothing", "Broker"])
def test_unknown_benchmark(name: str) -> None:
    done = subprocess.run([sys.executable, "-m", "bench", name], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 2
    assert f"found '{name}', expected one of all, broker, cloud, counts, hostile" in done.stderr


@pytest.mark.root
def test_the_functions_figures_of_every_runtime(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "functions", "--seconds", "0.2", "--starts", "1"]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "functions.json")],
        capture_output=True, text=True, timeout=2 * TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "functions.json").read_bytes())
    by_runtime = found["by_runtime"]
    assert by_runtime["missing"] == {}, "a runtime of the tests is not installed"
    for name in ("python", "python + SDK", "node", "java", "executable"):
        row = by_runtime["runtimes"][name]
        assert row["ggfast_ms"]["p50"] > 0
        assert 0 < row["memory"]["unique_kb"] < 131_072
        assert (row["exec_ms"] is None) == (name == "python + SDK")
    assert by_runtime["pinned"]["functions"] == 20
    for kind in ("plain", "sdk"):
        assert 0 < by_runtime["pinned"][kind]["unique_kb"] <= by_runtime["pinned"][kind]["added_kb"] + 1024
    assert "cold start" in done.stdout


def test_the_control_planes_figures() -> None:
    command = [sys.executable, "-m", "bench", "cloud", "--cores", "20", "--deployments", "5", "--repeat", "3", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["cores"], found["deployments"]) == (20, 5)
    assert found["made_per_s"] > 0 and found["deployed_per_s"] > 0
    reads = {"ListGroups", "ListCoreDefinitions", "ListDeployments", "ListThings", "GetGroup", "DescribeThing"}
    assert set(found["requests"]) == reads | {"UpdateGroup"}
    for figures in found["requests"].values():
        assert 0 < figures["p50_ms"] <= figures["p95_ms"] <= figures["max_ms"]
    assert found["all_groups"]["pages"] == 1 and found["all_groups"]["longest_page_ms"] > 0
    for state in ("empty", "full"):
        memory = found["memory_mb"][state]
        assert 0 < memory["pss"] <= memory["rss"] <= memory["rss_max"]
