"""The brokers that are measured: how each is started, pinned, weighed and stopped."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.generator import BenchFailed, placed_on

OWN = "ggfast"
START_S = 20.0  # until a broker listens; the slowest peers are virtual machines with libraries to load
STOP_S = 5.0  # from SIGTERM to SIGKILL

# Nothing that makes mosquitto slower or lossy: no queue limits, no Nagle, nothing on disk, no log.
MOSQUITTO = """\
listener {port} 127.0.0.1
allow_anonymous true
max_queued_messages 0
max_inflight_messages 0
set_tcp_nodelay true
persistence false
connection_messages false
log_type error
log_dest stderr
"""


@dataclass(frozen=True)
class Peer:
    """A broker by its command; `{port}` and `{directory}` (its own, empty but for `files`) are filled in."""

    name: str
    command: tuple[str, ...]
    version: str
    files: tuple[tuple[str, str], ...] = ()

    def filled(self, text: str, port: int, directory: Path) -> str:
        """`text` with the places filled in; other braces stay as they are."""
        return text.replace("{port}", str(port)).replace("{directory}", str(directory))


@dataclass(frozen=True)
class RunningBroker:
    """A started broker."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def pids(self) -> list[int]:
        """The broker's process and all below it."""
        found = [self.process.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    found += map(int, task.read_text().split())
        return found

    def pss_kb(self) -> int:
        """Proportional set size of all its processes, in kilobytes."""
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        return total

    def last_words(self) -> str:
        """How it ended, if it has: for the sentence about a failed run."""
        if self.process.poll() is None:
            return ""
        lines = self.log.read_text(errors="replace").split("\n")
        said = " / ".join(line.strip() for line in lines[-6:] if line.strip())
        return f" The broker ended with status {self.process.returncode} and said: {said or 'nothing'}."


def own_broker() -> Peer:
    """ggfast's broker, as `ggfast-core broker` runs it."""
    command = (sys.executable, "-m", "ggfast.cli.broker", "--port", "{port}")
    return Peer(OWN, command, importlib.metadata.version("ggfast"))


def mosquitto() -> Peer:
    """The mosquitto that is installed. Raises BenchFailed if there is none."""
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise BenchFailed("mosquitto is not installed: install it (apt install mosquitto), or measure without a "
                          "peer with --only ggfast.")  # fmt: skip
    shown = subprocess.run([program, "-h"], capture_output=True, text=True).stdout
    first = shown.partition("\n")[0].split()
    command = (program, "-c", "{directory}/mosquitto.conf")
    return Peer("mosquitto", command, first[-1] if first else "unknown", (("mosquitto.conf", MOSQUITTO),))


def given(text: str) -> Peer:
    """A peer from `name=command with {port}`. Raises BenchFailed for anything else or a missing program."""
    name, _, command = text.partition("=")
    words = tuple(shlex.split(command))
    if not name or not words or not any("{port}" in word for word in words):
        raise BenchFailed(f"found --peer {text!r}, expected NAME=COMMAND with {{port}} where the port belongs.")
    if shutil.which(words[0]) is None:
        raise BenchFailed(f"peer {name} is not installed: no program {words[0]}.")
    return Peer(name, words, version="")  # name it with its version: only its maker knows how to ask


@contextlib.contextmanager
def running(peer: Peer, port: int, core: int | None) -> Iterator[RunningBroker]:
    """Start the broker on `port` of the loopback (0: a free one) and core `core`; end it afterwards.

    Raises BenchFailed if the port is taken or the broker does not listen within START_S.
    """
    directory = Path(tempfile.mkdtemp(prefix="ggfast-bench-"))
    try:
        port = _free(port)
        for name, text in peer.files:
            (directory / name).write_text(peer.filled(text, port, directory))
        log = directory / "output"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [peer.filled(word, port, directory) for word in peer.command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=placed_on(core),
                start_new_session=True,
            )
        broker = RunningBroker(process, port, log)
        try:
            _wait_until_it_listens(peer, broker)
            yield broker
        finally:
            _stop(process)
    finally:
        shutil.rmtree(directory, ignore_errors=True)  # the broker may be writing its last file


def _free(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError) as error:
            raise BenchFailed(f"port {port} cannot be used: {error}. Leave out --port for a free one.") from error
        number: int = probe.getsockname()[1]
        return number


def _wait_until_it_listens(peer: Peer, broker: RunningBroker) -> None:
    until = time.monotonic() + START_S
    while True:
        words = broker.last_words()
        if words:
            raise BenchFailed(f"{peer.name} does not start.{words}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", broker.port), 1.0):
            return
        if time.monotonic() > until:
            raise BenchFailed(f"{peer.name} does not listen on port {broker.port} within {START_S:.0f} s.")
        time.sleep(0.02)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the broker, and SIGKILL to what is left of its session."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
