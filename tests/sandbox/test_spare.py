"""The process forked ahead of the next request: used when it fits, replaced when not, never in the way."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.sandbox.harness import Sandbox
from tests.sandbox.test_supervisor import alive

SEEN = """
def attempt():
    import os
    return {"uid": os.getuid(), "pids": sorted(int(n) for n in os.listdir("/proc") if n.isdigit()),
            "tmp": os.statvfs("/tmp").f_blocks * os.statvfs("/tmp").f_frsize, "sys": os.listdir("/sys") != []}
"""
IDLE = "def serve():\n    import time\n    time.sleep(600)\n"


def spare_pid(box: Sandbox) -> int:
    """The process in the spare's memory group."""
    for path in box.cgroups():
        if "/.spare-" in path and Path(path, "memory.stat").exists():
            for pid in Path(path, "cgroup.procs").read_text().split():
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ggfast-spare"):
                    return int(pid)
    return 0


def waiting(box: Sandbox) -> int:
    """The spare's pid, once it has done its part."""
    box.wait_for(lambda: spare_pid(box))
    return spare_pid(box)


def test_the_next_request_of_the_same_kind_gets_the_spare(box: Sandbox) -> None:
    box.end(box.spawn(IDLE))
    ahead = waiting(box)
    worker = box.spawn(IDLE)
    assert worker.pid == ahead
    limit = box.request(verb="stat", instance=worker.instance)["memory_limit_kb"]
    assert limit == box.request_spec(Path("/"))["memory_kb"]
    assert waiting(box) not in (0, ahead)
    box.end(worker)


@pytest.mark.parametrize("by_spare", [False, True])
def test_a_container_is_the_same_either_way(box: Sandbox, by_spare: bool) -> None:
    other = {"tmpfs_kb": 2048} if by_spare else {"tmpfs_kb": 1024}
    box.end(box.spawn(IDLE, **other))
    waiting(box)
    seen = box.run(SEEN, tmpfs_kb=2048)
    assert seen["uid"] != 0
    assert seen["pids"] == [1]
    assert seen["tmp"] == 2048 * 1024
    assert seen["sys"] is False


def test_a_request_of_another_kind_replaces_it(box: Sandbox) -> None:
    box.end(box.spawn(IDLE, tmpfs_kb=1024))
    ahead = waiting(box)
    worker = box.spawn(IDLE, tmpfs_kb=2048)
    assert worker.pid != ahead
    box.wait_for(lambda: not Path(f"/proc/{ahead}").exists())
    fresh = waiting(box)
    other = box.spawn(IDLE, tmpfs_kb=2048)
    assert other.pid == fresh
    box.end(worker)
    box.end(other)


def test_a_killed_spare_costs_nothing_but_itself(box: Sandbox) -> None:
    box.end(box.spawn(IDLE))
    ahead = waiting(box)
    os.kill(ahead, signal.SIGKILL)
    box.wait_for(lambda: not Path(f"/proc/{ahead}").exists())
    worker = box.spawn(IDLE)
    assert worker.pid != ahead
    box.end(worker)
    waiting(box)


def test_a_spare_whose_own_part_failed_costs_no_request(box: Sandbox) -> None:
    """It is stopped before it has read its request and then killed: the request is served without it."""
    box.end(box.spawn(IDLE))
    ahead = waiting(box)
    os.kill(ahead, signal.SIGSTOP)
    assert box._control is not None
    spec = box.request_spec(box.write_code(IDLE))
    box._control.send(json.dumps({"id": 4711, "verb": "spawn", "instance": "again", "spec": spec}).encode())
    assert box.request(verb="list")["ok"]  # it has been given to the spare by now
    assert 4711 not in box._answers
    os.kill(ahead, signal.SIGKILL)
    box.wait_for(lambda: 4711 in box._answers)
    answer, fds = box._answers.pop(4711)
    for fd in fds:
        os.close(fd)
    assert (answer["ok"], answer["pid"] != ahead) == (True, True), answer
    assert box.request(verb="kill", instance="again", signal=9)["ok"]
    box.wait_event(event="exited", instance="again")


def test_a_refused_request_leaves_the_spare(box: Sandbox) -> None:
    box.end(box.spawn(IDLE))
    ahead = waiting(box)
    code = box.write_code(IDLE)
    refused = box.request(verb="spawn", instance="refused", spec=box.request_spec(code, uid=4242))
    assert refused["step"] == "policy"
    worker = box.spawn(code=code)
    assert worker.pid == ahead
    box.end(worker)


def test_a_failed_set_up_in_a_spare_is_told_by_its_step(box: Sandbox) -> None:
    box.end(box.spawn(IDLE))
    waiting(box)
    code = box.write_code(IDLE)
    mounts = [{"source": str(code), "destination": "/lambda2/x/../y", "writable": False}]
    refused = box.request(verb="spawn", instance="refused", spec=box.request_spec(code, mounts=mounts))
    assert refused["ok"] is False
    worker = box.spawn(code=code)
    box.end(worker)


def test_it_ends_with_the_supervisor() -> None:
    with Sandbox() as own:
        own.end(own.spawn(IDLE))
        ahead = waiting(own)
        os.kill(own.pid, signal.SIGKILL)
        own.wait_supervisor()
        own.wait_for(lambda: not alive(ahead))
