"""Hostile functions against memory and processes: bombs that the container ends and others survive."""

from __future__ import annotations

import pytest

from tests.sandbox.hostile import WHO, Cage, cage, row

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
