"""Work that root's commands have done by another user: what it is allowed, what it inherits, what comes back."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from ggfast.cli.unprivileged import CAP_DAC_READ_SEARCH, run_as
from ggfast.errors import ConfigError, OperatingError, Problem, Rejected

UID, GID = 61_111, 61_112


def test_who_it_is() -> None:
    def look() -> dict[str, Any]:
        status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
        return {name: status[name].split() for name in ("Uid", "Gid", "Groups", "CapPrm", "CapBnd", "NoNewPrivs")}

    read_all = [f"{1 << CAP_DAC_READ_SEARCH:016x}"]
    assert run_as(UID, GID, look) == {
        "Uid": [str(UID)] * 4,
        "Gid": [str(GID)] * 4,
        "Groups": [],
        "CapPrm": read_all,
        "CapBnd": read_all,
        "NoNewPrivs": ["1"],
    }


def test_nothing_of_the_caller_is_open_and_its_terminal_is_out_of_reach(tmp_path: Path) -> None:
    def look() -> dict[str, Any]:
        try:
            os.close(os.open("/dev/tty", os.O_RDWR))
            terminal = "open"
        except OSError as error:
            terminal = error.strerror
        links = [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3, 256) if os.path.lexists(f"/proc/self/fd/{fd}")]
        return {"leader": os.getsid(0) == os.getpid(), "terminal": terminal, "links": links}

    with (tmp_path / "lock").open("w") as lock:
        high = os.dup2(lock.fileno(), 200)
        try:
            found = run_as(UID, GID, look)
        finally:
            os.close(high)
    assert found["leader"] is True
    assert found["terminal"] in ("No such device or address", "No such file or directory", "Permission denied")
    assert [link.partition(":")[0] for link in found["links"]] == ["pipe"], "its answer's"


def test_it_ends_with_its_parent() -> None:
    reader, writer = os.pipe()
    caller = os.fork()
    if caller == 0:

        def wait() -> dict[str, Any]:
            signal.pause()
            return {}

        os.close(reader)
        os.dup2(writer, 1)  # what the helper keeps open
        run_as(UID, GID, wait)
        os._exit(1)
    os.close(writer)
    deadline = time.monotonic() + 10
    while not Path(f"/proc/{caller}/task/{caller}/children").read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(caller, signal.SIGKILL)
    os.waitpid(caller, 0)
    with os.fdopen(reader, "rb") as stream:
        assert stream.read() == b""  # its end: nobody has it open any more


def test_what_comes_back() -> None:
    assert run_as(UID, GID, lambda: {"a": [1, "b"]}) == {"a": [1, "b"]}

    def refuse() -> dict[str, Any]:
        raise ConfigError("It is wrong.", [Problem("here", "this", "that")])

    with pytest.raises(Rejected, match=r"It is wrong\.\n  here: found this, expected that"):
        run_as(UID, GID, refuse)
    with pytest.raises(Rejected, match="ZeroDivisionError"):
        run_as(UID, GID, lambda: {"a": 1 // 0})
    with pytest.raises(OperatingError, match="died with status -9"):
        run_as(UID, GID, lambda: os.kill(os.getpid(), signal.SIGKILL) or {})
