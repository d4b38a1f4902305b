"""`ggfast-core demo` as a user runs it: a real core, real devices, and nothing left behind."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "ggfast.cli.core", "demo"]
TIMEOUT_S = 120


def processes_of(directory: str) -> list[str]:
    """Command lines of all processes that name `directory`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if directory in command and path.parent.name != str(os.getpid()):
            found.append(command)
    return found


def demo_directories() -> set[Path]:
    return set(Path("/tmp").glob("ggfast-demo-*"))


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No temporary root, no process of it, no mount below it."""
    before = demo_directories()
    yield
    assert demo_directories() == before
    assert processes_of("/tmp/ggfast-demo-") == []
    assert "ggfast-demo-" not in Path("/proc/self/mountinfo").read_text()


def test_demo_sees_every_flow_and_cleans_up() -> None:
    done = subprocess.run([*COMMAND, "--seconds", "6"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    flows = [line for line in done.stdout.splitlines() if line.startswith("flow ")]
    assert len(flows) == 7
    assert sum(line.endswith("  seen") for line in flows) == 6
    assert re.search(r"device → function → device: p50 \d+\.\d\d ms, p99 \d+\.\d\d ms", done.stdout)
    assert re.search(r"^[1-9]\d* messages, [1-9]\d* function invocations", done.stdout, re.MULTILINE)
    assert len(re.findall(r"^ +\d\.\d s  ", done.stdout, re.MULTILINE)) >= 4, "a line a second"


def test_kept_directory_holds_the_core_with_its_logs(tmp_path: Path) -> None:
    keep = Path(f"/tmp/ggfast-kept-{os.getpid()}")
    try:
        command = [*COMMAND, "--seconds", "3", "--keep", str(keep)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.endswith(f"Kept: {keep}\n")
        logs = keep / "greengrass" / "ggc" / "var" / "log"
        assert "alarm on" in next(logs.rglob("coldroom-monitor.log")).read_text()
        assert processes_of(str(keep)) == []
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", str(keep)], check=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_it_with_a_summary(number: signal.Signals) -> None:
    process = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    with process.stdout, process.stderr:
        seconds = 0
        for line in process.stdout:
            seconds += bool(re.match(r" +\d+\.\d s  ", line))
            if seconds == 5:
                break
        process.send_signal(number)
        rest, complaints = process.stdout.read(), process.stderr.read()
    assert process.wait(TIMEOUT_S) == 0, rest + complaints
    assert rest.count("  seen") == 6


def test_terminal_gets_a_table_redrawn_in_place_and_ctrl_c_ends_it() -> None:
    """As in a terminal: Ctrl-C typed there goes to every process of the terminal's foreground group."""
    child, terminal = pty.fork()
    if child == 0:
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        os.execve(COMMAND[0], COMMAND, environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 40, 110, 0, 0))
    seen = b""
    until = time.monotonic() + TIMEOUT_S
    typed = False
    try:
        while time.monotonic() < until:
            try:
                seen += os.read(terminal, 65_536)
            except OSError:  # the child has closed its side: Linux answers EIO
                break
            if not typed and seen.count(b"\x1b[J") >= 10:
                os.write(terminal, b"\x03")
                typed = True
        _, status = os.waitpid(child, 0)
    finally:
        os.close(terminal)
    text = seen.decode()
    assert os.waitstatus_to_exitcode(status) == 0, text
    assert re.search(r"\x1b\[\d+A\r", text), "redrawn in place"
    assert "thermometer ╳ display" in text and "closed: not in the table" in text
    assert text.count("  seen") == 6
