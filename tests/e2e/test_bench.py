"""Every case of the broker benchmark runs, loses nothing and gives a valid document. No figure is judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.broker import CASES

TIMEOUT_S = 120.0


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", "broker", "--quick", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)


def test_every_case_runs_beside_mosquitto(tmp_path: Path, repository: Path) -> None:
    kept = tmp_path / "result.json"
    done = run("--json", str(kept))
    assert done.returncode == 0, done.stderr
    document = json.loads(kept.read_text())
    assert list(document["brokers"]) == ["ggfast", "mosquitto"]
    assert [case["name"] for case in document["cases"]] == [case.name for case in CASES]
    for case in document["cases"]:
        assert case["text"] in done.stdout
        for samples in case["samples"].values():
            assert len(samples) == 1
            if case["load"]["idle"]:
                assert samples[0]["connections"] == case["load"]["idle"]
            else:
                assert samples[0]["messages_per_cpu_second"] > 0


def test_a_peer_by_command_and_one_that_fails() -> None:
    own = f"again={sys.executable} -m ggfast.cli.broker --port {{port}}"
    tight = f"tight={sys.executable} -m ggfast.cli.broker --max-connections 20 --port {{port}}"
    done = run("--case", "fan-in", "--only", "again", "--only", "tight", "--peer", own, "--peer", tight)
    assert done.returncode == 1
    assert "50 -> 1, QoS 0, 64 B, window 20 each: tight: publisher " in done.stderr
    assert "failed" in done.stdout and "again: " not in done.stderr


@pytest.mark.parametrize("name", ["nothing", "Broker"])
def test_unknown_benchmark(name: str) -> None:
    done = subprocess.run([sys.executable, "-m", "bench", name], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 2
    assert f"found '{name}', expected one of broker, functions" in done.stderr
