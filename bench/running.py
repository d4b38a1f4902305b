"""A broker that is being measured: started on its core, weighed, stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.generator import BenchFailed, placed_on
from bench.peers import Peer

START_S = 20.0  # until a broker listens; the slowest peers are virtual machines with libraries to load
START_COUNTED_S = 180.0  # the same below a tool that runs it instruction by instruction
STOP_S = 5.0  # from SIGTERM to SIGKILL
STOP_COUNTED_S = 60.0


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


@contextlib.contextmanager
def running(
    peer: Peer, port: int, core: int | None, *, tls: bool = False, below: Sequence[str] = ()
) -> Iterator[RunningBroker]:
    """Start the broker on `port` of the loopback (0: a free one) and core `core`; end it afterwards.

    `below`: a program with its arguments that runs the broker and counts what it does.
    Raises BenchFailed if the port is taken, the broker has no TLS form or does not listen within START_S.
    """
    command, files = peer.form(tls)
    patience = (START_COUNTED_S, STOP_COUNTED_S) if below else (START_S, STOP_S)
    directory = Path(tempfile.mkdtemp(prefix="ggfast-bench-"))
    try:
        port = _free(port)
        for name, text in files:
            (directory / name).write_text(peer.filled(text, port, directory))
        log = directory / "output"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [peer.filled(word, port, directory) for word in (*below, *command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=placed_on(core),
                start_new_session=True,
            )
        broker = RunningBroker(process, port, log)
        try:
            _wait_until_it_listens(peer, broker, patience[0])
            yield broker
        finally:
            _stop(process, patience[1])
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


def _wait_until_it_listens(peer: Peer, broker: RunningBroker, patience_s: float) -> None:
    until = time.monotonic() + patience_s
    while True:
        words = broker.last_words()
        if words:
            raise BenchFailed(f"{peer.name} does not start.{words}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", broker.port), 1.0):
            return
        if time.monotonic() > until:
            raise BenchFailed(f"{peer.name} does not listen on port {broker.port} within {patience_s:.0f} s.")
        time.sleep(0.02)


def _stop(process: subprocess.Popen[bytes], patience_s: float) -> None:
    """SIGTERM to the broker, and SIGKILL to what is left of its session."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
