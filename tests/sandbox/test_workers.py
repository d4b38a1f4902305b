"""One worker at a time: what it is, what it sees, how its end is told."""

from __future__ import annotations

import json
import os
import signal
import stat
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.harness import Sandbox, Worker

pytestmark = pytest.mark.root

IDENTITY = """
def attempt():
    import os
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\\n").split(":\\t", 1) for line in file if ":\\t" in line)
    fds = [fd for fd in range(64) if os.path.exists("/proc/self/fd/%d" % fd)]
    return {"ids": os.getresuid() + os.getresgid(), "groups": os.getgroups(), "pid": os.getpid(), "fds": fds,
            "status": status, "cwd": os.getcwd(), "environ": dict(os.environ), "session": os.getsid(0)}
"""

ECHO = """
def serve():
    import array, os, socket
    sock = socket.socket(fileno=3)
    while True:
        data, ancillary, _, _ = sock.recvmsg(4096, socket.CMSG_SPACE(4))
        if not data:
            os._exit(7)
        if data == b"\\xff" and ancillary:
            fds = array.array("i")
            fds.frombytes(ancillary[0][2])
            sock.close()
            sock = socket.socket(fileno=fds[0])
            continue
        if data == b"quit":
            raise SystemExit(5)
        if data == b"fail":
            raise ValueError("said so")
        sock.sendall(data)
"""


def lines(source: str) -> str:
    return textwrap.dedent(source)


def echo(worker: Worker, data: bytes = b"ping") -> bytes:
    worker.ipc.settimeout(10)
    worker.ipc.sendall(data)
    return worker.ipc.recv(4096)


def test_a_function_is_nobody_special(box: Sandbox) -> None:
    user = box.users
    found = box.run(IDENTITY, groups=[20000])
    assert found["ids"] == [user.function_uid] * 3 + [user.function_gid] * 3
    assert (found["groups"], found["pid"], found["session"], found["cwd"]) == ([20000], 1, 1, "/")
    status = found["status"]
    assert {status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"], status["SigBlk"]) == ("1", "2", "0" * 16)
    assert found["fds"] == [0, 1, 2, 3]
    assert found["environ"] == {}


def test_root_functions_have_no_capabilities_either(box: Sandbox) -> None:
    status = box.run(IDENTITY, uid=0)["status"]
    assert status["Uid"].split() == ["0"] * 4
    assert {status[name].strip() for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}


VIEW = """
def attempt():
    import os
    def listing(path):
        try:
            return sorted(os.listdir(path))
        except OSError as error:
            return error.errno
    def writing(path):
        try:
            with open(path, "w") as file:
                file.write("x")
            return 0
        except OSError as error:
            return error.errno
    return {"list": {path: listing(path) for path in %r}, "write": {path: writing(path) for path in %r}}
"""


def view(box: Sandbox, listed: list[str], written: list[str], **spec: Any) -> dict[str, dict[str, Any]]:
    answer: dict[str, dict[str, Any]] = box.run(VIEW % (listed, written), **spec)
    return answer


def test_the_root_file_system(box: Sandbox) -> None:
    """V1's rule: writing to / and /lambda fails; /tmp is the function's own."""
    (box.root / "run" / "visible").touch()
    listed = ["/lambda", "/runtime", "/tmp", "/run", "/var", "/sys", "/dev", "/root", str(box.secret), "/proc/self/fd"]
    found = view(
        box, listed, ["/x", "/lambda/x", "/usr/x", "/etc/passwd", "/tmp/x", "/dev/shm/x", "/var/tmp/x", "/run/x"]
    )
    assert found["list"]["/lambda"] == ["fn.py"]
    assert "testworker.py" in found["list"]["/runtime"]
    assert found["list"]["/tmp"] == found["list"]["/run"] == found["list"]["/sys"] == []
    assert found["list"]["/var"] == ["run", "tmp"]
    assert found["list"]["/dev"] == [
        "fd",
        "full",
        "null",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "urandom",
        "zero",
    ]
    assert found["list"]["/root"] == found["list"][str(box.secret)] == 2
    assert found["write"]["/lambda/x"] in (13, 30)
    assert {found["write"][path] for path in ("/x", "/usr/x", "/etc/passwd", "/run/x")} == {13}
    assert {found["write"][path] for path in ("/tmp/x", "/dev/shm/x", "/var/tmp/x")} == {0}


def test_root_functions_change_nothing_of_the_host(box: Sandbox) -> None:
    before = Path("/etc/passwd").read_bytes()
    found = view(box, ["/etc/ssl"], ["/etc/passwd", "/lambda/x", "/proc/sys/kernel/core_pattern", "/dev/x"], uid=0)
    assert found["write"] == {"/etc/passwd": 0, "/lambda/x": 30, "/proc/sys/kernel/core_pattern": 30, "/dev/x": 30}
    assert Path("/etc/passwd").read_bytes() == before
    hidden = "def attempt():\n    import os\n    return [os.path.exists(p) for p in ('/etc/shadow', '/etc/gshadow')]\n"
    assert box.run(hidden, uid=0) == [False, False]


def test_sysfs_is_shown_read_only_when_granted(box: Sandbox) -> None:
    found = view(box, ["/sys"], ["/sys/kernel/uevent_helper"], sysfs=True, uid=0)
    assert "class" in found["list"]["/sys"]
    assert found["write"]["/sys/kernel/uevent_helper"] in (2, 13, 30)


def test_one_limit_for_all_writing(box: Sandbox) -> None:
    source = lines("""
        def attempt():
            written = 0
            try:
                for place in ("/tmp/a", "/dev/shm/b", "/var/tmp/c"):
                    with open(place, "wb", buffering=0) as file:
                        while written < 64 << 20:
                            written += file.write(bytes(65536))
            except OSError as error:
                return error.errno, written
        """)
    number, written = box.run(source, tmpfs_kb=2048)
    assert number == 28
    assert 1 << 20 < written <= 2 << 20


def test_volumes(box: Sandbox) -> None:
    (box.data / "rw").mkdir(exist_ok=True)
    os.chown(box.data / "rw", box.users.function_uid, box.users.function_gid)
    (box.data / "file").write_text("content")
    (box.data / "ro").mkdir(exist_ok=True)
    os.chmod(box.data / "ro", 0o777)
    mounts = [
        {"source": str(box.data / "rw"), "destination": "/volumes/rw", "writable": True},
        {"source": str(box.data / "ro"), "destination": "/tmp/ro", "writable": False},
        {"source": str(box.data / "file"), "destination": "/etc/file", "writable": False},
    ]
    found = view(box, ["/volumes"], ["/volumes/rw/made", "/tmp/ro/made", "/etc/file"], mounts=mounts)
    assert found["write"] == {"/volumes/rw/made": 0, "/tmp/ro/made": 30, "/etc/file": 30}
    assert (box.data / "rw" / "made").read_text() == "x"
    assert not Path("/volumes").exists()


def test_volume_destinations_never_pass_a_link(box: Sandbox) -> None:
    """/var/run is a link of the container's own; the failing step says which volume it was."""
    mounts = [{"source": str(box.data), "destination": "/var/run/x", "writable": False}]
    code = box.write_code("")
    spec = box.request_spec(code, mounts=mounts)
    answer = box.request(verb="spawn", instance="linked", spec=spec)
    assert (answer["ok"], answer["step"], answer["errno"]) == (False, f"volume {box.data} at /var/run/x", 40)
    assert box.request(verb="spawn", instance="linked", spec=spec)["errno"] == 40  # the name is free again


def test_a_source_that_became_a_link_is_refused(box: Sandbox) -> None:
    link = box.data / "swapped"
    link.symlink_to("/etc")
    mounts = [{"source": f"{link}/ssl", "destination": "/x", "writable": False}]
    answer = box.request(verb="spawn", instance="swap", spec=box.request_spec(box.write_code(""), mounts=mounts))
    assert (answer["step"], answer["errno"]) == ("walk", 40)


@pytest.fixture
def node() -> Iterator[Path]:
    """A node for misc device 229 (fuse), whether or not a driver stands behind it."""
    path = Path(f"/dev/ggfast-test-{os.getpid()}")
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(10, 229))
    os.chmod(path, 0o666)
    try:
        yield path
    finally:
        path.unlink()


OPEN = """
def attempt():
    import os
    def opening(flags):
        try:
            os.close(os.open(%r, flags))
            return 0
        except OSError as error:
            return error.errno
    return opening(os.O_RDONLY), opening(os.O_RDWR), opening(os.O_WRONLY)
"""


def test_devices_are_granted_with_exact_access(box: Sandbox, node: Path) -> None:
    source = OPEN % str(node)
    assert box.run(source) == [2, 2, 2]
    granted = [value in (0, 6, 19) for value in box.run(source, devices=[{"path": str(node), "access": "rw"}])]
    assert granted == [True, True, True]  # opened, or refused by the (absent) driver and not by us
    first, *others = box.run(source, devices=[{"path": str(node), "access": "r"}])
    assert first in (0, 6, 19)
    assert others == [1, 1]


@pytest.mark.parametrize("path", ["/dev/mem", "/dev/kmsg", "/dev/port"])
def test_the_kernels_own_nodes_are_never_granted(box: Sandbox, path: str) -> None:
    if not Path(path).exists():
        path = "/dev/kmsg"
    spec = box.request_spec(box.write_code(""), devices=[{"path": path, "access": "r"}])
    answer = box.request(verb="spawn", instance="mem", spec=spec)
    assert (answer["step"], answer["errno"]) == ("policy", 1)


def test_a_worker_may_become_another_program(box: Sandbox) -> None:
    """How everything but Python runs: execve from the worker, which keeps its descriptors and nothing else."""
    script = "env >&3; echo out; echo err >&2; ls /proc/$$/fd >&3; exit 3"
    source = f"import os\nos.set_inheritable(3, True)\nos.execve('/bin/sh', ['sh', '-c', {script!r}], {{'A': 'b'}})\n"
    worker = box.spawn(source)
    worker.ipc.settimeout(10)
    data = b""
    while part := worker.ipc.recv(4096):
        data += part
    text = data.decode().split()
    assert sorted(line for line in text if "=" in line and not line.startswith(("PWD", "_"))) == ["A=b"]
    assert [line for line in text if line in list("456789")] == []
    assert (worker.output(), worker.output(worker.stderr)) == (b"out\n", b"err\n")
    event = box.wait_exit(worker)
    assert (event["exit_status"], event["signal"], event["oom"]) == (3, None, False)


def test_exits_are_told_with_their_reason(box: Sandbox) -> None:
    worker = box.spawn(ECHO)
    worker.ipc.sendall(b"quit")
    event = box.wait_exit(worker)
    assert (event["pid"], event["exit_status"], event["signal"], event["oom"]) == (worker.pid, 5, None, False)
    worker = box.spawn(ECHO)
    worker.ipc.sendall(b"fail")
    assert b"ValueError: said so" in worker.output(worker.stderr, 5.0)
    assert box.wait_exit(worker)["exit_status"] == 1
    worker = box.spawn(ECHO)
    assert box.end(worker)["signal"] == int(signal.SIGKILL)


BOMB = """
def attempt():
    import os
    if %r and (child := os.fork()):
        os.waitpid(child, 0)
        import time
        time.sleep(30)
    kept = [bytearray(1 << 20) for _ in range(200)]
    return len(kept)
"""


@pytest.mark.parametrize("in_child", [False, True])
def test_memory_limit_is_reported_as_such(box: Sandbox, in_child: bool) -> None:
    """In a child, too: half a function is worse than none, so all of it dies (v1 needs our help for that)."""
    other = box.spawn(ECHO)
    worker = box.spawn(BOMB % in_child, memory_kb=16_384)
    event = box.wait_exit(worker)
    assert (event["oom"], event["signal"], event["memory_limit_kb"]) == (True, 9, 16_384)
    assert 12_000 < event["memory_peak_kb"] <= 16_384
    assert echo(other) == b"ping"
    box.end(other)


def test_the_smallest_memory_limit_starts(box: Sandbox) -> None:
    assert box.run("def attempt():\n    return 1\n", memory_kb=2_048) == 1


def test_process_limit(box: Sandbox) -> None:
    source = lines("""
        def attempt():
            import os
            made = 0
            try:
                while made < 100:
                    if os.fork() == 0:
                        import time
                        time.sleep(30)
                        os._exit(0)
                    made += 1
            except OSError as error:
                return error.errno, made
        """)
    assert box.run(source, pids_max=10) == [11, 9]


def test_stat_list_and_kill(box: Sandbox) -> None:
    worker = box.spawn(ECHO, memory_kb=20_000)
    assert echo(worker) == b"ping"
    found = box.request(verb="stat", instance=worker.instance)
    assert found["memory_limit_kb"] == 20_000
    assert 0 < found["memory_kb"] <= found["memory_peak_kb"] <= 20_000
    assert (found["pids"], found["oom_kills"]) == (1, 0)
    assert found["cpu_ms"] >= 0
    listed = box.request(verb="list")["instances"]
    assert [(entry["instance"], entry["pid"]) for entry in listed] == [(worker.instance, worker.pid)]
    assert len(listed[0]["spec_hash"]) == 16
    assert box.request(verb="kill", instance=worker.instance, signal=9)["ok"]
    box.wait_exit(worker)
    assert box.request(verb="list")["instances"] == []
    for verb in ("kill", "stat", "adopt"):
        answer = box.request(verb=verb, instance=worker.instance)
        assert (answer["ok"], answer["errno"]) == (False, 3)


def test_adopt_gives_a_new_socket_and_ends_the_old(box: Sandbox) -> None:
    worker = box.spawn(ECHO)
    assert echo(worker, b"one") == b"one"
    worker.ipc.shutdown(2)  # SHUT_RDWR would end the socket for the spawner's copy as well: it may be gone
    worker.close()
    box.workers.remove(worker)
    answer = box.request(verb="adopt", instance=worker.instance)
    assert not answer["ok"]
    assert answer["step"] == "adopt"
    box.end(worker)

    worker = box.spawn(ECHO)
    assert echo(worker, b"one") == b"one"
    for word in (b"two", b"three"):  # `adopt` closes the old descriptors, as a daemon that dies does
        worker = box.adopt(worker)
        assert echo(worker, word) == word
    box.end(worker)


def test_a_second_instance_of_a_name_is_refused(box: Sandbox) -> None:
    worker = box.spawn(ECHO)
    spec = box.request_spec(box.write_code(""))
    answer = box.request(verb="spawn", instance=worker.instance, spec=spec)
    assert (answer["step"], answer["errno"]) == ("instance", 17)
    box.end(worker)


def test_ps_shows_which_function_it_is(box: Sandbox) -> None:
    worker = box.spawn(ECHO, instance="shown-in-ps")
    assert Path(f"/proc/{worker.pid}/cmdline").read_bytes().rstrip(b"\0") == b"ggfast-worker shown-in-ps"
    assert Path(f"/proc/{worker.pid}/oom_score_adj").read_text().strip() == "500"
    box.end(worker)


def test_the_preloaded_heap_is_shared(box: Sandbox) -> None:
    """Guard of the memory promise (P8): a worker has less than a megabyte for itself alone, also when others were
    started after it: the process they are all forked from must not move on."""
    workers = [box.spawn(ECHO) for _ in range(3)]
    assert all(echo(worker) == b"ping" for worker in workers)
    for worker in workers:
        sizes: dict[str, int] = {}
        for line in Path(f"/proc/{worker.pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, value = line.split(":")
            sizes[name] = int(value.split()[0])
        assert sizes["Private_Clean"] + sizes["Private_Dirty"] < 1_000
        assert sizes["Shared_Dirty"] > 3_000
    for worker in workers:
        box.end(worker)


def test_refusals_on_the_channel(box: Sandbox) -> None:
    assert box.request(verb="spawn", instance="x", spec={})["errno"] == 1
    assert box.request(verb="exec", instance="x")["errno"] == 1
    assert box.request(verb=["spawn"])["errno"] == 1
    assert box.request(verb="list", instance="x")["errno"] == 1
    assert box.request(verb="kill", instance="../x", signal=9)["errno"] == 1
    spec = box.request_spec(box.write_code(""), uid=1)
    assert "uid" in box.request(verb="spawn", instance="x", spec=spec)["error"]
    spec = box.request_spec(str(box.code / "gone"))
    assert box.request(verb="spawn", instance="x", spec=spec)["errno"] == 2
    file = box.code / "file"
    file.touch()
    assert box.request(verb="spawn", instance="x", spec=box.request_spec(str(file)))["errno"] == 1
    worker = box.spawn(ECHO)
    for number in (0, 65, -1, "9", None, True):
        assert not box.request(verb="kill", instance=worker.instance, signal=number)["ok"]
    assert echo(worker) == b"ping"
    box.end(worker)


@pytest.mark.parametrize(
    "packet", [b"{", b"[]", b"null", b'{"verb":', b"\xff\xfe", b"[" * 30_000, b'"' + b"x" * 60_000]
)
def test_garbage_on_the_channel_is_answered(box: Sandbox, packet: bytes) -> None:
    assert box._control is not None
    box._control.send(packet)
    box.wait_for(lambda: -1 in box._answers)
    assert "no JSON object" in box._answers.pop(-1)[0]["error"]
    assert box.request(verb="list")["ok"]


def test_two_hundred_lives_leave_nothing(box: Sandbox) -> None:
    code = box.write_code(ECHO)

    def traces() -> tuple[int, int, list[str]]:
        box.wait_spare()
        box.wait_for(lambda: len(groups()) <= tops)
        fds = len(os.listdir(f"/proc/{box.pid}/fd"))
        return fds, len(Path(f"/proc/{box.pid}/mountinfo").read_text().splitlines()), groups()

    def groups() -> list[str]:
        return [path for path in box.cgroups() if "/.spare-" not in path and "/.daemon-" not in path]

    tops = len([path for path in groups() if path.endswith(box.name)])
    for _ in range(5):
        box.end(box.spawn(code=code))
    before = traces()
    while (again := traces()) != before:  # until the supervisor has come to rest, on however busy a machine
        before = again
    for _ in range(200):
        worker = box.spawn(code=code)
        worker.ipc.sendall(b"quit")
        assert box.wait_exit(worker)["exit_status"] == 5
    box.wait_for(lambda: traces() == before)  # the supervisor may still be busy with the last one's end
    assert json.dumps(box.events) == "[]" or {event["event"] for event in box.events} == {"daemon"}
