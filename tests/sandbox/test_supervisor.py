"""The supervisor's own promises: start, title, the daemon's identity and restarts, ends of every kind."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path

import pytest

from ggfast import limits
from ggfast.errors import SandboxFailed
from ggfast.sandbox.cgroups import this_layout
from ggfast.sandbox.daemon import Daemon, DaemonSpec
from ggfast.sandbox.launch import launch
from tests.sandbox.harness import Sandbox
from tests.sandbox.test_workers import ECHO, echo

pytestmark = pytest.mark.root


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(*pids: int, within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.002)
    return not any(map(alive, pids))


def whoami(box: Sandbox) -> dict:  # type: ignore[type-arg]
    box.tell_daemon("whoami")
    box.wait_for(lambda: any(event.get("whoami") for event in box.events))
    return next(event for event in box.events if event.get("whoami"))


def daemon_pid(box: Sandbox) -> int:
    return int(box.wait_event(event="daemon")["pid"])


def test_what_a_start_leaves_to_see(box: Sandbox) -> None:
    assert (box.root / "run" / "daemon.pid").read_text() == f"{box.pid}\n"
    shown = Path(f"/proc/{box.pid}/cmdline").read_bytes().rstrip(b"\0").decode()
    assert shown == f"{box.root}/ggc/packages/0.1.0/bin/daemon -core-dir {box.root}"
    assert Path(f"/proc/{box.pid}/comm").read_text() == "ggfast-core\n"
    assert Path(f"/proc/{box.pid}/environ").read_bytes() == b""
    assert len(list(Path(f"/proc/{box.pid}/task").iterdir())) == 1
    soft, hard = resource.prlimit(box.pid, resource.RLIMIT_NOFILE)  # a thousand devices do not fit the usual 1024
    assert soft == min(limits.CORE_OPEN_FILES, hard) or hard == resource.RLIM_INFINITY


def test_the_supervisors_view_of_the_host_is_read_only(box: Sandbox) -> None:
    kept = {"proc", "cgroup", "cgroup2"}
    for line in Path(f"/proc/{box.pid}/mountinfo").read_text().splitlines():
        fields = line.split()
        options, kind = fields[5].split(","), fields[fields.index("-") + 1]
        assert ("rw" in options) == (kind in kept or fields[4] == str(box.root / "state")), line
    status = Path(f"/proc/{box.pid}/status").read_text()
    bounding = int(status.split("CapBnd:")[1].split()[0], 16)
    assert bounding.bit_count() <= 10 + (this_layout().find("devices") is None)  # NET_ADMIN: for device programs
    assert not bounding >> 16 & 1  # SYS_MODULE
    assert not bounding >> 19 & 1  # SYS_PTRACE


def test_the_daemon_is_nobody_special_and_sees_the_host(box: Sandbox) -> None:
    found = whoami(box)
    status = found["status"]
    assert found["uid"] == box.users.daemon_uid
    assert {status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert status["SigBlk"] == "0" * 16
    assert found["environ"] == {"LANG": "C.UTF-8"}
    assert found["writable"]
    assert found["argv"][0] == "--channel-fd"
    assert found["argv"][2] == "--listener"
    assert found["argv"][3].startswith("control=")
    expected = {0, 1, 2, int(found["argv"][1]), int(found["argv"][3].split("=")[1])}
    assert len(set(found["fds"]) - expected) == 1  # the one that lists them
    host = Path("/proc/self/ns/mnt").readlink()
    assert Path(f"/proc/{found['pid']}/ns/mnt").readlink() == host
    assert Path(f"/proc/{box.pid}/ns/mnt").readlink() != host


def test_a_dead_daemon_comes_back_and_adopts_its_workers(box: Sandbox) -> None:
    first = daemon_pid(box)
    worker = box.spawn(ECHO)
    assert echo(worker) == b"ping"
    doomed = box.spawn(ECHO)
    box.tell_daemon("die")
    assert gone(first)
    os.kill(doomed.pid, signal.SIGKILL)  # dies while nobody listens: told to the next daemon
    second = daemon_pid(box)
    assert second != first
    assert alive(worker.pid)
    assert box.wait_exit(doomed)["signal"] == 9
    assert [entry["instance"] for entry in box.request(verb="list")["instances"]] == [worker.instance]
    fresh = box.adopt(worker)
    assert echo(fresh, b"again") == b"again"
    assert "daemon ended with status 9" in box.crash_log()
    box.end(fresh)


@pytest.mark.parametrize("without", [(), ("control groups",)], ids=["groups", "no-groups"])
@pytest.mark.parametrize("stopped", [False, True])
def test_what_a_daemon_has_started_ends_with_it(stopped: bool, without: tuple[str, ...]) -> None:
    """A process that left its family is still in the daemon's control group, and then the supervisor's child."""
    with Sandbox(without=without) as own:
        first = daemon_pid(own)
        own.tell_daemon("leave")
        left = int(own.wait_event(event="left")["pid"])
        assert alive(left)
        if stopped:
            own.stop()
        else:
            own.tell_daemon("die")
            assert gone(first)
            assert daemon_pid(own) != first
        assert gone(left)
        own.wait_for(lambda: sum("/.daemon-" in path for path in own.cgroups()) == int(not stopped and not without))


def test_a_daemon_that_does_not_read_is_replaced(box: Sandbox) -> None:
    """Its answers would otherwise pile up in the root process."""
    box.events.clear()
    worker = box.spawn(ECHO)
    deaf = whoami(box)["pid"]
    box.tell_daemon("flood")
    assert daemon_pid(box) != deaf
    assert "does not read its channel: killed" in box.crash_log()
    box.end(box.adopt(worker))


def zygote_of(box: Sandbox) -> int:
    children = Path(f"/proc/{box.pid}/task/{box.pid}/children").read_text().split()
    (found,) = [pid for pid in children if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ggfast-zygote")]
    return int(found)


def test_the_zygote_holds_nothing_open(box: Sandbox) -> None:
    box.end(box.spawn(ECHO))
    links = [os.readlink(path) for path in Path(f"/proc/{zygote_of(box)}/fd").iterdir()]
    strangers = [
        link for link in links if link != "/dev/null" and not link.startswith(("socket:", "anon_inode:", "pid:"))
    ]
    assert [link for link in strangers if "crash.log" not in link] == []
    assert sum(link.startswith("socket:") for link in links) == 1


def test_a_dead_zygote_takes_its_workers_and_comes_back(box: Sandbox) -> None:
    worker, zygote = box.spawn(ECHO), zygote_of(box)
    os.kill(zygote, signal.SIGKILL)
    event = box.wait_exit(worker)
    assert (event["signal"], event["pid"]) == (9, worker.pid)
    assert gone(worker.pid)
    fresh = box.spawn(ECHO)
    assert echo(fresh) == b"ping"
    assert zygote_of(box) != zygote
    assert "zygote ended with status -9" in box.crash_log()
    box.end(fresh)


def test_hangup_is_ignored(box: Sandbox) -> None:
    os.kill(box.pid, signal.SIGHUP)
    assert box.request(verb="list")["ok"]


def test_only_one_supervisor_for_a_root(box: Sandbox) -> None:
    with pytest.raises(SandboxFailed) as caught:
        launch(box.spec(), background=True)
    assert caught.value.step == "lock"
    assert "running already" in str(caught.value)
    assert box.request(verb="list")["ok"]


def test_orderly_stop() -> None:
    with Sandbox() as box:
        pid, daemon = box.pid, daemon_pid(box)
        worker = box.spawn(ECHO)
        assert box.stop() == 0
        assert gone(pid, daemon, worker.pid)
        assert box.cgroups() == []
        assert not (box.root / "run" / "daemon.pid").exists()


def test_stop_as_a_verb() -> None:
    with Sandbox() as box:
        box.spawn(ECHO)
        assert box.request(verb="stop")["ok"]
        assert box.wait_supervisor() == 0
        assert box.cgroups() == []


def test_nothing_survives_the_supervisors_death() -> None:
    """Not the daemon, not a worker, not what a worker started; the directories go at the next start."""
    source = (
        "def serve():\n    import os, time\n    if os.fork() == 0:\n        os.setsid()\n        if os.fork() == 0:\n"
        "            os.write(3, b'x')\n            time.sleep(600)\n        os._exit(0)\n    time.sleep(600)\n"
    )
    with Sandbox() as box:
        daemon = daemon_pid(box)
        worker = box.spawn(source)
        assert worker.ipc.recv(1) == b"x"
        inside = [int(pid) for path in box.cgroups() for pid in Path(path, "cgroup.procs").read_text().split()]
        assert len(set(filter(alive, inside))) >= 2  # the spare may be there as well
        os.kill(box.pid, signal.SIGKILL)
        assert box.wait_supervisor() == -9
        assert gone(daemon, *inside)
        assert not any(str(box.root) in line for line in Path("/proc/self/mountinfo").read_text().splitlines())
        left = box.cgroups()
        assert [path for path in left if path.endswith(worker.instance)]
        assert box._control is not None
        box._control.close()
        worker.close()
        box.workers.clear()
        box.start()
        assert not [path for path in box.cgroups() if path.endswith(worker.instance)]
        box.end(box.spawn(ECHO))


def test_a_daemon_that_never_comes_up_fails_the_start() -> None:
    box = Sandbox(daemon_arguments=["--fail", "now"])
    try:
        with pytest.raises(SandboxFailed, match=f"ended {limits.DAEMON_START_ATTEMPTS} times before it was ready"):
            box.start()
        assert box.crash_log().count("told to fail") == limits.DAEMON_START_ATTEMPTS
        assert box.cgroups() == []
    finally:
        box.remove()


@pytest.mark.parametrize(
    ("policy", "image", "word"),
    [
        ({"surprise": 1}, {}, "surprise"),
        ({"uids": ["x"]}, {}, "policy.uids"),
        ({}, {"module": "no_such_module"}, "no_such_module"),
    ],
)
def test_a_wrong_launch_spec_is_reported(policy: dict, image: dict, word: str) -> None:  # type: ignore[type-arg]
    box = Sandbox(policy=policy, image=image)
    try:
        with pytest.raises(SandboxFailed, match=word):
            box.start()
    finally:
        box.remove()
        for path in sorted(box.cgroups(), reverse=True):
            os.rmdir(path)


def test_a_state_directory_behind_a_link_is_refused() -> None:
    box = Sandbox()
    try:
        (box.root / "elsewhere").mkdir()
        (box.root / "state").symlink_to("elsewhere")
        with pytest.raises(SandboxFailed, match="without links"):
            box.start()
    finally:
        box.remove()


def test_the_crash_log_is_not_written_through_a_link() -> None:
    """Its directory belongs to the daemon's user, who could point it at any file."""
    box = Sandbox()
    target = box.root / "victim"
    target.write_text("kept")
    (box.root / "log" / "crash.log").symlink_to(target)
    with box:
        box.tell_daemon("die")
        assert daemon_pid(box) != daemon_pid(box)
        assert target.read_text() == "kept"


def test_limits_of_the_policy() -> None:
    with Sandbox(policy={"instances_max": 2, "spawns_per_second": 0.01}) as box:
        worker = box.spawn(ECHO)
        spec = box.request_spec(box.write_code(ECHO))
        answer = box.request(verb="spawn", instance="fast", spec=spec)
        assert (answer["step"], answer["errno"]) == ("limit", 11)
        assert "spawns in this second" in answer["error"]
        box.end(worker)
    with Sandbox(policy={"instances_max": 1}) as box:
        box.spawn(ECHO)
        answer = box.request(verb="spawn", instance="more", spec=box.request_spec(box.write_code(ECHO)))
        assert "instances is 2, the limit is 1" in answer["error"]


def test_restart_delays_double_and_start_again_after_a_healthy_minute() -> None:
    now = [100.0]
    daemon = Daemon(DaemonSpec(("/bin/true",), 1, 1, (), {}), {}, -1, lambda: now[0])
    delays = []
    for _ in range(9):
        daemon.died()
        assert daemon.restart_at is not None
        delays.append(round(daemon.restart_at - now[0], 3))
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]
    assert daemon.ready()
    now[0] += limits.DAEMON_HEALTHY_S - 1
    daemon.died()
    assert daemon.restart_at == now[0] + 10.0
    assert not daemon.ready()
    now[0] += limits.DAEMON_HEALTHY_S
    daemon.died()
    assert daemon.restart_at == now[0] + 0.1
