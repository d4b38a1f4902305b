"""The suite's own rules: leaks and undeclared skips turn a run red."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import conftest

TESTS = Path(conftest.__file__).resolve().parent


def run_suite(directory: Path, body: str, allowed: str = "") -> subprocess.CompletedProcess[str]:
    """Run a small suite of its own under this conftest."""
    suite = directory / "tests"
    suite.mkdir()
    ours = (TESTS / "conftest.py").read_text(encoding="utf-8")
    assert "SETTLE_S = 2.0" in ours
    (suite / "conftest.py").write_text(ours.replace("SETTLE_S = 2.0", "SETTLE_S = 0.5"))
    (suite / "allowed-skips.txt").write_text(allowed)
    (suite / "test_sample.py").write_text(f"import os, signal, subprocess, threading, time, pytest\n\n{body}")
    (directory / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "tests"]
    return subprocess.run(command, cwd=directory, text=True, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("def test_it():\n    subprocess.Popen(['sleep', '3'])\n", "child process"),
        ("def test_it():\n    threading.Thread(target=time.sleep, args=(1.5,), name='dawdler').start()\n", "dawdler"),
        ("def test_it():\n    os.pipe()\n", "descriptor"),
        ("def test_it():\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n", "signal handler SIGTERM"),
        ("def test_it():\n    os.fork()\n", "child process"),
    ],
)
def test_what_is_left_behind_fails_the_test(tmp_path: Path, body: str, left: str) -> None:
    done = run_suite(tmp_path, body)
    assert done.returncode == 1
    assert left in done.stdout
    assert done.stdout.count(" in ") == 1, "one process reports"


DEBUG_BUILD = """
import sys, types
live = types.ModuleType("ggfast._ext.live")
live.counts = {"session.Session": 2}
live.live_counts = lambda: dict(live.counts)
sys.modules["ggfast._ext.live"] = live
"""


def test_what_stays_alive_in_a_debug_build_fails_the_test(tmp_path: Path) -> None:
    body = DEBUG_BUILD + "def test_it():\n    live.counts['session.Session'] = 3\n    live.counts['blocks'] = 1\n"
    done = run_suite(tmp_path, body)
    assert done.returncode == 1
    assert "compiled object session.Session 3" in done.stdout and "compiled object blocks 1" in done.stdout
    assert "session.Session 2" not in done.stdout, "it was there before"


def test_what_pytest_itself_holds_does_not_count(tmp_path: Path) -> None:
    body = """
import logging, weakref

class Made:
    def __init__(self):
        live.counts["session.Session"] += 1
        weakref.finalize(self, lambda: live.counts.update({"session.Session": 2}))

@pytest.fixture
def made():
    return Made()

def test_fixtures_value(made):
    assert made

def test_frame_of_a_logged_error():
    made = Made()
    try:
        raise ValueError(made)
    except ValueError as error:
        logging.getLogger().error("failed: %s", error, exc_info=error)
"""
    done = run_suite(tmp_path, DEBUG_BUILD + body)
    assert done.returncode == 0, done.stdout


def test_what_a_test_cleans_up_does_not_matter(tmp_path: Path) -> None:
    body = """
@pytest.fixture(scope="module")
def broker():
    with subprocess.Popen(["sleep", "30"]) as process:
        yield process
        process.kill()

def test_it(broker):
    threading.Thread(target=time.sleep, args=(0.2,)).start()
    subprocess.Popen(["sleep", "0.1"]).wait()
    reader, writer = os.pipe()
    os.close(reader), os.close(writer)
"""
    done = run_suite(tmp_path, body)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("reason", "allowed", "status"),
    [
        ("needs a printer", "", 1),
        ("needs a printer", "tests/test_sample.py::test_it  # no printer on any machine we know\n", 0),
        ("too slow", "tests/test_sample.py::test_it\n", 1),
    ],
)
def test_skips_are_declared(tmp_path: Path, reason: str, allowed: str, status: int) -> None:
    body = f"def test_it():\n    pytest.skip({reason!r})\n\ndef test_other():\n    pass\n"
    done = run_suite(tmp_path, body, allowed)
    assert done.returncode == status, done.stdout
    assert ("not allowed" in done.stdout) is bool(status)


def test_a_module_that_skips_itself_counts(tmp_path: Path) -> None:
    done = run_suite(tmp_path, "pytest.importorskip('no_such_module')\n\ndef test_it():\n    pass\n")
    assert done.returncode != 0
    assert "must start with 'needs '" in done.stdout
