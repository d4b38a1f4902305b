"""What all tests share: places and ports, the leak check, and the rule for skips.

Leaks: a test must leave no child process, thread, descriptor or signal handler that was not there before it. What a
module- or session-scoped fixture starts exists before the check begins and is that fixture's own duty. A child that
a test forks and that returns into pytest instead of ending is stopped at once: it would run the rest of the suite.
In debug builds (`make debug`) the same holds for objects and memory of the compiled part.

Skips: a reason starts with `needs `, and the test stands in allowed-skips.txt; else the run fails.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import pkgutil
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SETTLE_S = 2.0  # how long what a test has stopped may take to be gone

ESCAPED_STATUS = 70  # of a forked child that came back into pytest; any number that no test uses


@pytest.fixture(scope="session")
def repository() -> Path:
    """The top of the checkout."""
    return REPOSITORY


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A temporary directory that other users can enter (pytest's own tmp_path is private to root)."""
    path = Path(tempfile.mkdtemp(prefix="ggfast-test-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture
def free_port() -> Callable[[], int]:
    """A function that names a loopback TCP port nobody listens on, another one at each call."""
    given: set[int] = set()

    def find() -> int:
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port: int = probe.getsockname()[1]
            if port not in given:
                given.add(port)
                return port

    return find


# --- leaks ---------------------------------------------------------------------------------------------


def _children() -> dict[str, str]:
    """Direct child processes of this one (zombies too): pid with start time -> command."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            for pid in (task / "children").read_text().split():
                with contextlib.suppress(OSError):
                    fields = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()
                    command = Path("/proc", pid, "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                    found[f"{pid}@{fields[19]}"] = command or f"zombie or kernel state {fields[0]}"
    return found


def _threads() -> dict[str, str]:
    return {str(thread.ident): thread.name for thread in threading.enumerate()}


def _descriptors() -> dict[str, str]:
    """Open descriptors: number with what it is -> the same, readable. Devices and files of the interpreter
    itself (a cached /dev/urandom, lazily opened code) are not counted: only what can hang or fill up."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")
            if not target.startswith(("/dev/", "/proc/")):
                found[f"{name}={target}"] = f"descriptor {name} ({target})"
    return found


def _handlers() -> dict[str, str]:
    """What the signals do that people and supervisors send."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2)
    handlers = ((number.name, signal.getsignal(number)) for number in numbers)
    return {f"{name}={handler!r}": f"handled by {handler!r}" for name, handler in handlers}


def _alive() -> dict[str, str]:
    """What of the compiled part is alive, one entry for each: only debug builds can tell."""
    watcher = sys.modules.get("ggfast._ext.live")
    counts = watcher.live_counts() if watcher is not None else {}
    return {f"{kind} {number}": "alive" for kind, count in counts.items() for number in range(1, count + 1)}


_KINDS: tuple[tuple[str, Callable[[], dict[str, str]]], ...] = (
    ("child process", _children),
    ("thread", _threads),
    ("descriptor", _descriptors),
    ("signal handler", _handlers),
    ("compiled object", _alive),
)


def _leaks(before: list[dict[str, str]]) -> list[str]:
    return [
        f"{kind} {key}: {text}"
        for (kind, look), known in zip(_KINDS, before, strict=True)
        for key, text in look().items()
        if key not in known
    ]


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail the test that leaves processes, threads, descriptors or, in debug builds, compiled objects behind."""
    before = [look() for _, look in _KINDS]
    runner = os.getpid()
    try:
        yield
    finally:
        if os.getpid() != runner:
            os._exit(ESCAPED_STATUS)
    if not _leaks(before):
        return
    _let_go(request, caplog)
    until = time.monotonic() + SETTLE_S
    while (left := _leaks(before)) and time.monotonic() < until:
        time.sleep(0.02)
    if left:
        pytest.fail("the test left behind:\n  " + "\n  ".join(left), pytrace=False)


def _let_go(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> None:
    """Forget what pytest itself still holds of a test that is over: fixtures' values, frames of logged errors."""
    request.node.funcargs.clear()
    for record in [*caplog.get_records("call"), *caplog.get_records("teardown")]:
        record.exc_info = record.args = None
    gc.collect()


def watch_compiled() -> None:
    """Load the whole compiled part and count its objects from here on, if this is a debug build."""
    if importlib.util.find_spec("ggfast._ext.live") is not None:
        for module in pkgutil.iter_modules(importlib.import_module("ggfast._ext").__path__):
            importlib.import_module(f"ggfast._ext.{module.name}")
        importlib.import_module("ggfast._ext.live").watch()


# --- skips ---------------------------------------------------------------------------------------------


class SkipRule:
    """Collects the skips of a run and turns a green run with an undeclared one into a red one."""

    def __init__(self, allowed: set[str]) -> None:
        self.allowed = allowed
        self.complaints: list[str] = []

    def judge(self, node_id: str, reason: str) -> None:
        """Note a complaint unless the skip is declared and says what it needs."""
        if not reason.startswith("needs "):
            self.complaints.append(f"{node_id}: the reason must start with 'needs ', found {reason!r}")
        elif node_id not in self.allowed:
            self.complaints.append(f"{node_id}: skipped ({reason}) but not in tests/allowed-skips.txt")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Look at each test's result."""
        self._look(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Look at modules that skip themselves."""
        self._look(report)

    def _look(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.judge(report.nodeid, reason.removeprefix("Skipped: "))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Make the run fail for undeclared skips."""
        if self.complaints and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which skips failed the run."""
        if self.complaints:
            terminalreporter.section("skips that are not allowed", red=True)
            for line in self.complaints:
                terminalreporter.write_line(line)


def allowed_skips(text: str) -> set[str]:
    """The node ids that allowed-skips.txt names."""
    return {line.partition("#")[0].strip() for line in text.splitlines()} - {""}


def pytest_configure(config: pytest.Config) -> None:
    """Install the rule for skips; in a debug build begin to count what the compiled part makes."""
    watch_compiled()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So does a shell start what it runs in the background; event loops put the usual handler in its place.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # so does nohup
    text = (REPOSITORY / "tests" / "allowed-skips.txt").read_text()
    config.pluginmanager.register(SkipRule(allowed_skips(text)), "ggfast-skips")
