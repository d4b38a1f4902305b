"""The broker benchmark's choices, refusals and tables; what it measures is tried in e2e/test_bench.py."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import broker, cases, choices, generator, measure, peers, report, running
from bench.generator import BenchFailed


def result(samples: dict[str, list[dict[str, Any]]], kind: str = "load") -> dict[str, Any]:
    """A document with one case."""
    return {
        "benchmark": "broker",
        "format": report.FORMAT,
        "time": "2026-01-02T03:04:05+00:00",
        "commit": "abc",
        "machine": {"cpu": "C", "cores": 2, "machine": "m", "kernel": "6", "python": "3.11.2", "uvloop": "0.23"},
        "settings": {"seconds": 1.0, "warm_up_s": 0.1, "repeat": 3, "cores": [0, 1]},
        "brokers": {name: {"version": "2.0", "command": [name]} for name in samples},
        "cases": [{"name": "1:1", "text": "one", "kind": kind, "load": {}, "samples": samples}],
    }


def rates(*values: float) -> list[dict[str, Any]]:
    return [{"messages_per_cpu_second": value} for value in values]


def row(document: dict[str, Any], at: int = 2) -> list[str]:
    return [cell for cell in report.table(document).splitlines()[at].split("  ") if cell]


def test_table_gives_median_spread_and_factor() -> None:
    document = result({"ggfast": rates(3e6, 2e6, 2.5e6), "other": rates(250_000, 260_000, 240_000)})
    cells = [cell.strip() for cell in row(document)]
    assert cells == [
        "one",
        "messages / CPU-s",
        "2.50 M (2.00 M to 3.00 M)",
        "250 k (240 k to 260 k)",
        "10.0x",
    ]
    assert report.failures(document) == []


def test_factor_of_a_cost_is_turned_round() -> None:
    memory = {"ggfast": [{"kb_per_connection": 2.0, "pss_kb_before": 2_048}],
              "other": [{"kb_per_connection": 1.0, "pss_kb_before": 1_024}]}  # fmt: skip
    assert [cell.strip() for cell in row(result(memory, "idle"))][2:] == ["2.00", "1.00", "0.5x"]


def test_one_failed_sample_fails_the_figure() -> None:
    document = result({"ggfast": [*rates(1e6), {"error": "lost 3."}], "other": rates(1e5, 1e5)})
    assert [cell.strip() for cell in row(document)][2:] == ["failed", "100 k (100 k to 100 k)", "-"]
    assert report.failures(document) == ["one: ggfast: lost 3."]


def test_busy_load_is_said() -> None:
    samples = [
        {"messages": 9, "messages_per_cpu_second": 1e6, "load_cpu_seconds": share, "seconds": 1.0}
        for share in (0.8, 0.95, 0.95)
    ]
    document = result({"ggfast": samples, "other": samples[:2]})
    assert report.busy_load(document) == ["1:1 (ggfast)"]
    assert "The load was more than 90% busy itself in 1:1 (ggfast)." in report.table(document)


def test_saved_result_is_shown_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = result({"ggfast": rates(1e6)})
    report.save(document, tmp_path / "result.json")
    assert broker.main(["--show", str(tmp_path / "result.json")]) == 0
    assert capsys.readouterr().out.strip() == report.table(document).strip()


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"benchmark": "counts", "format": 2})])
def test_what_is_no_result_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(BenchFailed, match=r"result\.json"):
        report.load(tmp_path / "result.json", "broker")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--case", "nothing"], "found --case nothing, expected one of 1:1, "),
        (["--only", "nothing"], "found --only nothing, expected one of ggfast, mosquitto"),
        (["--peer", "other"], "found --peer 'other', expected NAME=COMMAND"),
        (["--peer", "other=/bin/true"], "expected NAME=COMMAND with {port}"),
        (["--peer", "other=no-such-program-here {port}"], "peer other is not installed: no program no-such-program-"),
        (["--tls-peer", "other=x"], "found --tls-peer other, expected the name of a --peer"),
        (["--readme"], "found --readme alone, expected --show FILE"),
        (["--cores", "0"], "found --cores 0, expected two numbers"),
        (["--cores", "0,0"], "found --cores 0,0, expected two different ones of"),
        (["--seconds", "0"], "found --seconds 0 --repeat"),
        (["--repeat", "0"], "expected more than nothing of both"),
        (["--show", "/nonexistent/result.json"], "/nonexistent/result.json cannot be read"),
    ],
)
def test_refusals_are_sentences(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert broker.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("bench: ") and words in captured.err
    assert not captured.out


def test_missing_mosquitto_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.shutil, "which", lambda *_, **__: None)
    with pytest.raises(BenchFailed, match=r"mosquitto is not installed: .*--only ggfast"):
        choices.choose_peers([], [])
    assert [peer.name for peer in choices.choose_peers(["ggfast"], [])] == ["ggfast"]


def test_missing_compiler_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    generator.tls_missing()  # is asked once
    monkeypatch.setattr(generator.shutil, "which", lambda *_, **__: None)
    with pytest.raises(BenchFailed, match="no C compiler"):
        generator.build()


def test_sources_that_do_not_compile_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "load.c").write_text("int main(void) { return nothing; }\n")
    monkeypatch.setattr(generator, "SOURCES", tmp_path)
    monkeypatch.setattr(generator, "BUILT", tmp_path / "built")
    with pytest.raises(BenchFailed, match=r"cannot compile the load generator:\n.*load\.c"):
        generator.build()


def test_taken_port_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with (
            pytest.raises(BenchFailed, match=f"port {port} cannot be used: .*in use"),
            running.running(peers.own_broker(), port, None),
        ):
            pass


def test_broker_that_ends_is_quoted() -> None:
    peer = peers.given(f"other={sys.executable} -c 'import sys; sys.exit(\"no licence\")' {{port}}")
    with (
        pytest.raises(BenchFailed, match=r"other does not start\. The broker ended with status 1 and said: no licence"),
        running.running(peer, 0, None),
    ):
        pass


def test_broker_that_does_not_listen_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "START_S", 0.1)
    with (
        pytest.raises(BenchFailed, match=r"other does not listen on port \d+ within"),
        running.running(peers.given("other=sleep 1000 {port}"), 0, None),
    ):
        pass


def test_broker_runs_on_its_core_with_files_filled_in() -> None:
    core = min(os.sched_getaffinity(0))
    script = "import os, sys; os.execvp(sys.executable, [sys.executable, '-m', 'http.server', '--bind', '127.0.0.1', "
    script += "open(sys.argv[1]).read()])"
    command = (sys.executable, "-c", script, "{directory}/port")
    with running.running(peers.Peer("other", command, "1", (("port", "{port}"),)), 0, core) as found:
        assert os.sched_getaffinity(found.process.pid) == {core}
        assert found.pids() == [found.process.pid]
        assert found.pss_kb() > 1_000
        assert found.last_words() == ""
    assert found.process.returncode is not None


def test_tls_files_are_filled_in() -> None:
    script = "import os, sys; os.execvp(sys.executable, [sys.executable, '-m', 'http.server', '--bind', '127.0.0.1', "
    script += "sys.argv[1], '--directory', os.path.dirname(sys.argv[2])])"
    command = (sys.executable, "-c", script, "{port}", "{cert}", "{key}", "{ca}")
    peer = peers.Peer("other", (), "1", tls_command=command)
    with running.running(peer, 0, None, tls=True) as found:
        served = Path(f"/proc/{found.process.pid}/cmdline").read_bytes().split(b"\0")[-2].decode()
        for name in ("server.pem", "server-key.pem", "ca.pem"):
            assert "BEGIN" in (Path(served) / name).read_text()


def test_a_peer_without_a_tls_form_is_not_measured_with_tls() -> None:
    plain = peers.given(f"other={sys.executable} {{port}}")
    case = next(case for case in cases.CASES if case.tls)
    plan = measure.Plan((case,), (plain,), 0.1, 0.1, 1, 0, None)
    sample = measure.measure(case, plain, plan)
    assert sample == {"not measured": "how other is started with TLS is unknown; say it with --tls-peer."}
    document = result({"ggfast": rates(1e6), "other": [sample]})
    assert [cell.strip() for cell in row(document)][2:] == ["1.00 M", "not measured", "-"]
    assert "not measured: how other is started" in report.table(document)
    assert report.failures(document) == []


@pytest.mark.parametrize("file", ["mosquitto.conf", "flashmq.conf"])
def test_a_known_configuration_file_does_for_both(file: str) -> None:
    peer = peers.given(f"other={sys.executable} {{directory}}/{file}")
    plain, secure = dict(peer.form(False)[1])[file], dict(peer.form(True)[1])[file]
    assert "{port}" in plain and "{cert}" not in plain
    assert all(place in secure for place in ("{port}", "{cert}", "{key}", "{ca}"))
    assert secure.count("{\n") == secure.count("\n}\n") == plain.count("\n}\n")


def test_without_headers_there_is_no_tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(generator, "tls_missing", lambda: generator.NO_HEADERS)
    monkeypatch.setattr(generator, "BUILT", tmp_path)
    plain = peers.given(f"other={sys.executable} {{port}}")
    case = next(case for case in cases.CASES if case.tls)
    monkeypatch.setattr(measure, "tls_missing", generator.tls_missing)
    sample = measure.measure(case, plain, measure.Plan((case,), (plain,), 0.1, 0.1, 1, 0, None))
    assert sample == {"not measured": f"{generator.NO_HEADERS}."}
    with pytest.raises(BenchFailed, match=r"apt install libssl-dev"):
        generator.tls_options()
    with pytest.raises(BenchFailed, match="built without OpenSSL"), socket.create_server(("127.0.0.1", 0)) as listener:
        files = ["--cert", "a", "--key", "b", "--ca", "c", "--port", str(listener.getsockname()[1])]
        generator.run_load([*files, "--window", "1"], 1.0, None)


def test_names_of_cases_are_different() -> None:
    assert len({case.name for case in cases.CASES}) == len({case.text for case in cases.CASES}) == len(cases.CASES)
    assert [case.name for case in cases.choose_cases(["tls", "1:1"])] == ["1:1", "tls"]
