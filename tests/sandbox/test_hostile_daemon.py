"""A daemon that was taken over: what it can ask the spawner for, and what its asking does to the supervisor.

The harness's daemon is a relay, so these tests say what a hostile one would.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ggfast.sandbox import disks, plan
from ggfast.sandbox.policy import OWN_CODE
from tests.sandbox.harness import DEADLINE_S
from tests.sandbox.hostile import Cage, cage, cage_with

__all__ = ["cage"]
pytestmark = pytest.mark.root


def _spawn(cage: Cage, **fields: Any) -> dict[str, Any]:
    """The answer to a spawn request; a worker that starts all the same is ended."""
    code = cage.box.write_code("def attempt():\n    return 0\n")
    answer = cage.box.request(verb="spawn", instance="asked", spec=cage.box.request_spec(code, **fields))
    if answer["ok"]:
        cage.box.request(verb="kill", instance="asked", signal=9)
        cage.box.wait_event(event="exited", instance="asked")
    return answer


def _alive(cage: Cage) -> bool:
    return cage.box.request(verb="list")["ok"] is True


HALF = "\ud800"  # half of a surrogate pair: JSON can say it, no file system can


@pytest.mark.parametrize(
    "fields",
    [
        {"code_dir": f"/{HALF}"},
        {"hostname": HALF},
        {"runtime": HALF},
        {"contained": HALF},
        {"devices": [{"path": f"/dev/{HALF}", "access": "r"}]},
        {"devices": [{"path": "/dev/null", "access": HALF}]},
        {"mounts": [{"source": f"/{HALF}", "destination": "/mnt", "writable": False}]},
        {"mounts": [{"source": "/srv", "destination": f"/{HALF}", "writable": False}]},
        {HALF: 1},
        {"memory_kb": 10**4000},
        {"memory_kb": float("nan")},
        {"memory_kb": float("inf")},
        {"uid": -1},
        {"uid": True},
        {"groups": [2**64]},
        {"mounts": [[]]},
        {"mounts": {"source": "/"}},
        {"exec": ["/bin/sh"]},
        {"contained": False, "mounts": [{"source": "/srv", "destination": "/mnt", "writable": False}]},
    ],
    ids=str,
)
def test_malformed_requests_are_refused_and_cost_nothing(cage: Cage, fields: dict[str, Any]) -> None:
    """Refused by the policy, in words; the next request is served."""
    answer = _spawn(cage, **fields)
    assert (answer["ok"], answer["step"]) == (False, "policy"), answer
    assert _alive(cage)


@pytest.mark.parametrize(
    "packet",
    [b"[]", b"{", b"\xff\xfe", b"null", b"[" * 60_000, b'{"id":[],"verb":{}}', b'{"verb":"kill","instance":"../x"}',
     b'{"id":1e999,"verb":"list"}', b'{"id":-1,"verb":"spawn","instance":"x","spec":[]}',
     json.dumps({"verb": "stat", "instance": HALF, "id": 5}).encode()],
    ids=lambda packet: repr(packet[:20]),
)  # fmt: skip
def test_packets_that_are_no_requests(cage: Cage, packet: bytes) -> None:
    """The relay passes bytes on as they are."""
    control = cage.box._control
    assert control is not None
    control.send(packet)
    assert _alive(cage)
    cage.box._answers.clear()


@pytest.mark.parametrize(
    "path", ["/dev/mem", "/dev/kmsg", "/dev/port", "/dev/shm", "/dev", "/dev/../dev/vda", "/etc/passwd"]
)
def test_devices_that_nobody_gets(cage: Cage, path: str) -> None:
    """Also when an administrator's group asks for them: the kernel's memory and log are no device for functions."""
    answer = _spawn(cage, devices=[{"path": path, "access": "rw"}], uid=0)
    assert answer["ok"] is False
    assert answer["step"] in ("policy", "walk"), answer


def test_the_disk_of_the_host_is_never_handed_out(cage: Cage) -> None:
    """Neither by its own node nor by another name for the same device."""
    number = os.stat("/").st_dev
    node = Path(f"/dev/ggfast-hostile-{os.getpid()}")
    os.mknod(node, 0o060666, number)
    try:
        answer = _spawn(cage, devices=[{"path": str(node), "access": "rw"}], uid=0)
    finally:
        node.unlink()
    assert (answer["ok"], answer["step"]) == (False, "policy"), answer


@pytest.mark.parametrize("own", OWN_CODE)
def test_what_the_core_runs_is_never_a_writable_volume(cage: Cage, own: str) -> None:
    """Else a function could put code where the next start executes it as root. What lies above is the same."""
    for source in (own, os.path.dirname(own)):
        mounts = [{"source": source, "destination": "/mnt", "writable": True}]
        answer = _spawn(cage, mounts=mounts, uid=0)
        assert (answer["ok"], answer["step"]) == (False, "policy"), (source, answer)


def test_a_hidden_link_hides_what_it_leads_to() -> None:
    """The policy names the link; functions see neither it nor its target."""
    with cage_with() as own:  # only for a directory outside of /tmp
        (own.place / "real").mkdir()
        (own.place / "real" / "key").write_text("secret")
        (own.place / "link").symlink_to("real")
        with cage_with(policy={"hidden": [str(own.place / "link")]}) as other:
            for name in ("link/key", "real/key", "link"):
                assert other.run("files.readable", "user", path=str(own.place / name)) == "ENOENT"
            assert other.run("files.readable", "user", path=str(own.visible)) == "OK"


def test_what_is_hidden_may_be_made_later() -> None:
    """A name that does not exist when a function starts stays hidden when the host makes it."""
    with cage_with() as own:
        late = own.place / "late"
        with cage_with(policy={"hidden": [str(late)]}) as other:
            text = (
                "def attempt():\n    import os\n    os.write(3, b'x'); os.read(3, 1)\n"
                f"    return os.path.exists({str(late)!r})\n"
            )
            worker = other.box.spawn(text)
            assert worker.ipc.recv(1) == b"x"
            late.write_text("secret")
            worker.ipc.sendall(b"x")
            assert worker.result()["value"] is False
            other.box.end(worker)


def _descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_adopting_again_and_again_costs_no_descriptor(cage: Cage) -> None:
    """A worker that never reads keeps every socket that it is sent in its queue; the supervisor keeps one."""
    worker = cage.box.spawn("def serve():\n    import time\n    time.sleep(600)\n")
    cage.box.wait_spare()
    before = _descriptors(cage.box.pid)
    answers = [cage.box.request(verb="adopt", instance=worker.instance)["ok"] for _ in range(40)]
    cage.box.wait_for(lambda: _descriptors(cage.box.pid) <= before)  # closed just after the answer is sent
    assert answers[0] is True
    cage.box.end(worker)
    assert _alive(cage)


def test_the_rate_of_spawns_is_limited() -> None:
    """Forks cost root's time: more than the policy's number in a second are refused, also malformed ones."""
    with cage_with(policy={"spawns_per_second": 5}) as own:
        answers = [_spawn(own, uid=12345) for _ in range(12)]
        assert "limit" in {answer["step"] for answer in answers}
        assert sum(answer["step"] == "policy" for answer in answers) <= 8


def test_a_name_can_be_used_again_at_once(cage: Cage) -> None:
    """The second life of an instance does not inherit the first one's death by memory."""
    first = cage.start("exhaustion.memory", "user", {"memory_kb": 16_384, "tmpfs_kb": 1024})
    cage.box.wait_event(event="exited", instance=first.instance, oom=True)
    cage.box.workers.remove(first)
    first.close()
    second = cage.box.spawn("def attempt():\n    return 1\n", instance=first.instance)
    assert second.result()["value"] == 1
    assert cage.box.request(verb="stat", instance=first.instance)["oom_kills"] == 0
    assert cage.box.end(second)["oom"] is False


def test_the_daemon_has_no_terminal_and_its_own_session(cage: Cage) -> None:
    """Else it could type into the shell that started the core in the foreground."""
    cage.box.tell_daemon("whoami")
    answers: list[dict[str, Any]] = []

    def told() -> bool:
        answers.extend(event for event in cage.box.events if "whoami" in event)
        return bool(answers)

    cage.box.wait_for(told, DEADLINE_S)
    pid = answers[0]["pid"]
    cage.box.events.clear()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    session, terminal = int(fields[3]), int(fields[4])
    assert (session, terminal) == (pid, 0)
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory with a file and an empty directory in it."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.53\n")
    (tmp_path / "sub").mkdir()
    yield tmp_path


def test_sockets_beside_the_resolver_are_noticed(directory: Path) -> None:
    """A read-only mount does not keep anybody from connecting."""
    assert plan.has_sockets(str(directory)) is False
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(directory / "sub" / "control"))
        assert plan.has_sockets(str(directory)) is True
    assert plan.has_sockets(str(directory / "missing")) is True


def test_a_raw_door_to_a_disk_is_never_handed_out(cage: Cage) -> None:
    """A character device whose driver reaches the disks below their block devices (here any that the kernel has)."""
    text = Path("/proc/devices").read_text()
    known = [major for major in range(512) if disks.raw_driver(major, text)]
    if not known:
        pytest.skip("needs a kernel with one of the drivers of disks.RAW_DRIVERS")
    node = Path(f"/dev/ggfast-hostile-{os.getpid()}")
    os.mknod(node, 0o020666, os.makedev(known[0], 0))
    try:
        answer = _spawn(cage, devices=[{"path": str(node), "access": "rw"}], uid=0)
    finally:
        node.unlink()
    assert (answer["ok"], answer["step"]) == (False, "policy"), answer
