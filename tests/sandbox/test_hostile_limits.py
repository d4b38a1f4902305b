"""Hostile functions against memory, processes and what the kernel counts: bombs that others survive."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.patience import patience
from tests.sandbox.hostile import WHO, Cage, cage, cage_with, row, source

__all__ = ["cage"]
pytestmark = pytest.mark.root
ECHO = "def serve():\n    import os\n    while data := os.read(3, 64):\n        os.write(3, data)\n"
LIMIT_KB = 24_576


@row(22, "memory bomb: itself, in a child, in tmpfs", by="memory cgroup", result="killed, reported as its OOM")
@pytest.mark.parametrize("bomb", ["memory", "memory_of_child", "memory_of_files"])
@WHO
def test_row_22_memory_bomb(cage: Cage, who: str, bomb: str) -> None:
    """200 MB against a limit of 24 MB. A function whose child was killed dies as a whole; a neighbour lives on."""
    neighbour = cage.box.spawn(ECHO, **cage.identity(who))
    spec = {"memory_kb": LIMIT_KB, "tmpfs_kb": LIMIT_KB if bomb == "memory_of_files" else 1024}
    worker = cage.start(f"exhaustion.{bomb}", who, spec, patience_s=10)
    event = cage.box.wait_event(event="exited", instance=worker.instance)
    assert (event["signal"], event["exit_status"], event["oom"]) == (9, None, True), event
    assert event["memory_limit_kb"] == LIMIT_KB
    assert LIMIT_KB * 0.8 < event["memory_peak_kb"] <= LIMIT_KB
    cage.box.workers.remove(worker)
    worker.close()
    neighbour.ipc.sendall(b"alive")
    assert neighbour.ipc.recv(5) == b"alive"
    assert cage.box.end(neighbour)["oom"] is False


@row(23, "fork bomb, thread bomb", by="pids cgroup", result="EAGAIN at the limit")
@WHO
def test_row_23_fork_bomb(cage: Cage, who: str) -> None:
    """200 against a limit of 32. uid 0 has no way around it either."""
    spec = {"pids_max": 32, "memory_kb": 65_536}
    found = cage.run("exhaustion.forks", who, spec)
    assert found == {"children": 31, "answer": "EAGAIN"}
    found = cage.run("exhaustion.threads", who, spec)
    assert found == {"threads": 31, "answer": "can't start new thread"}


def test_row_23_control_forks_work_below_the_limit(cage: Cage) -> None:
    """With room for all of them the same bomb goes off: the limit is what stopped it."""
    found = cage.run("exhaustion.forks", "user", {"pids_max": 256, "memory_kb": 262_144})
    assert found == {"children": 200, "answer": "OK"}


# RunAs uids of this run's own: nobody else's limits are taken, and what an earlier run held is given back by the
# kernel only some time after its end.
SELF = 30_000 + 2 * (os.getpid() % 10_000)
OTHER = SELF + 1
SHARED_LIMITS = {"queues": "EMFILE", "pipes": "EPERM", "inotify": "EMFILE"}


@row(
    54,
    "exhaust what the kernel counts for each uid: inotify, pipes, queues",
    by="kernel's limits; a RunAs uid",
    result="EMFILE, EPERM: itself and others of its uid, nobody else",
)
def test_row_54_limits_of_the_uid() -> None:
    """A function that keeps all there is harms those that share its uid: the reason to give functions uids of their
    own. One with another uid gets everything, and so do the others as soon as the hoarder is gone. Run as ordinary
    uids only: what uid 0 would take is the host's own root's."""
    limit = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    with cage_with(policy={"uids": [SELF, OTHER], "gids": [[SELF, OTHER]]}) as own:
        as_uid = {uid: {"uid": uid, "gid": uid, "memory_kb": 65_536} for uid in (SELF, OTHER)}

        def one_of_each(uid: int) -> Any:
            return own.box.run(source("exhaustion.one_of_each", {}), **as_uid[uid])

        fresh = {"queues": "OK", "pipes": 65_536, "inotify": "OK"}
        hoarder = own.box.spawn(source("exhaustion.counted_by_user", {"most": 900}), **as_uid[SELF])
        taken = hoarder.result()["value"]
        assert {name: answer for name, (answer, _) in taken.items()} == SHARED_LIMITS, taken
        assert taken["inotify"][1] <= limit and taken["pipes"][1] > 10
        same = one_of_each(SELF)
        assert same["queues"] == "EMFILE" and same["pipes"] < 65_536
        if taken["inotify"][1] == limit:  # else its own number of descriptors was reached first
            assert same["inotify"] == "EMFILE"
        assert one_of_each(OTHER) == fresh
        own.box.end(hoarder)
        until = time.monotonic() + patience(20.0)  # the kernel gives queues back after the end of their namespace
        while one_of_each(SELF) != fresh:
            assert time.monotonic() < until


@row(54, "make timers and clocks without end", by="memory cgroup, descriptor limit", result="EMFILE; killed, or EAGAIN")
@WHO
def test_row_54_timers(cage: Cage, who: str) -> None:
    """Clocks are descriptors. Timers take kernel memory, which counts as the function's: it ends at its memory limit
    or at the kernel's number for each uid, whichever comes first. A neighbour of the same uid lives on."""
    neighbour = cage.box.spawn(ECHO, **cage.identity(who))
    worker = cage.start("exhaustion.timers", who, {"memory_kb": LIMIT_KB, "tmpfs_kb": 1024}, most=400_000)
    answer = worker.result()
    if answer:
        found = answer["value"]
        assert found["clocks"][0] == "EMFILE" and found["timers"][0] == "EAGAIN", found
        cage.box.end(worker)
    else:
        assert cage.box.wait_exit(worker)["oom"] is True
    neighbour.ipc.sendall(b"alive")
    assert neighbour.ipc.recv(5) == b"alive"
    cage.box.end(neighbour)
