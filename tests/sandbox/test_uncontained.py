"""Functions without a container (NoContainer): ordinary processes of the host that still end with all they started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ggfast._ext import kernel
from tests.patience import patience
from tests.sandbox.harness import Sandbox, Worker
from tests.sandbox.hostile import call_numbers
from tests.sandbox.test_supervisor import alive, daemon_pid, gone, zygote_of
from tests.sandbox.test_workers import ECHO, IDENTITY, echo

pytestmark = pytest.mark.root

CGROUPS = pytest.mark.parametrize("box", [(), ("control groups",)], ids=["groups", "no-groups"], indirect=True)

# A child that leaves its parent, its session and its descriptors behind, as daemons do.
LEAVES_A_DAEMON = """
import os, signal, time

def daemonise(tell):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(tell, b"%d\\n" % os.getpid())
            os.close(1)
            os.close(2)
            os.close(3)
            time.sleep(600)
        os._exit(0)
    os.wait()

def serve():
    daemonise(1)
    daemonise(1)
    os.write(3, b"x")
    if os.read(3, 1) == b"q":
        raise SystemExit(5)
    os.kill(os.getpid(), signal.SIGSEGV)
"""


@pytest.fixture(scope="module")
def box(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A running supervisor, with what this machine has or without some of it."""
    with Sandbox(without=getattr(request, "param", ())) as sandbox:
        yield sandbox


def free(box: Sandbox, source: str, **spec: Any) -> Worker:
    return box.spawn(source, contained=False, **spec)


def with_daemons(box: Sandbox) -> tuple[Worker, list[int]]:
    """A worker that has left two processes behind, and their numbers."""
    worker = free(box, LEAVES_A_DAEMON)
    assert worker.ipc.recv(1) == b"x"
    found = [int(word) for word in worker.output().split()]
    assert len(found) == 2
    assert all(map(alive, found))
    return worker, found


@CGROUPS
def test_row_76_it_is_a_process_of_the_host(box: Sandbox) -> None:
    """greengrass-core 17.1: sees host PIDs, its folder is the working directory; also where there are no cgroups."""
    listing = IDENTITY.replace('"session"', '"pids": [n for n in os.listdir("/proc") if n.isdigit()], "session"')
    worker = free(box, listing, groups=[20000])
    found = worker.result()["value"]
    user = box.users
    assert found["ids"] == [user.function_uid] * 3 + [user.function_gid] * 3
    assert (found["groups"], found["pid"], found["session"]) == ([20000], worker.pid, worker.pid)
    assert {str(os.getpid()), str(box.pid)} <= set(found["pids"])
    assert found["cwd"].startswith(str(box.code))
    for kind in ("mnt", "pid", "ipc", "uts", "net", "user"):
        assert Path(f"/proc/{worker.pid}/ns/{kind}").readlink() == Path(f"/proc/self/ns/{kind}").readlink(), kind
    status = found["status"]
    assert {status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"], status["SigBlk"]) == ("1", "2", "0" * 16)
    assert (found["fds"], found["environ"]) == ([0, 1, 2, 3], {})
    assert [entry["pid"] for entry in box.request(verb="list")["instances"]] == [worker.pid]
    statistics = box.request(verb="stat", instance=worker.instance)
    assert (statistics["ok"], statistics["memory_limit_kb"]) == (True, 0)
    assert box.end(worker)["pid"] == worker.pid


@CGROUPS
@pytest.mark.parametrize("how", ["kill", "exit", "crash"])
def test_what_it_started_ends_with_it(box: Sandbox, how: str) -> None:
    worker, left = with_daemons(box)
    if how == "kill":
        event = box.end(worker)
    else:
        worker.ipc.sendall(b"q" if how == "exit" else b"c")
        event = box.wait_exit(worker)
    assert (event["exit_status"], event["signal"]) == {"kill": (None, 9), "exit": (5, None), "crash": (None, 11)}[how]
    assert not any(map(alive, left))  # all are dead before it is told


@CGROUPS
def test_signals_reach_the_function_and_not_its_keeper(box: Sandbox) -> None:
    source = (
        "import os, signal, time\n\ndef serve():\n"
        "    signal.signal(signal.SIGTERM, lambda *_: os.write(3, b'term'))\n"
        "    os.write(3, b'x')\n    while True:\n        time.sleep(1)\n"
    )
    worker = free(box, source)
    assert worker.ipc.recv(1) == b"x"
    for _ in range(2):
        assert box.request(verb="kill", instance=worker.instance, signal=int(signal.SIGTERM))["ok"]
        assert worker.ipc.recv(4) == b"term"
    refused = box.request(verb="kill", instance=worker.instance, signal=int(signal.SIGSTOP))
    assert (refused["ok"], "SIGSTOP" in refused["error"]) == (False, True)
    assert box.request(verb="kill", instance=worker.instance, signal=int(signal.SIGUSR1))["ok"]
    assert box.wait_exit(worker)["signal"] == int(signal.SIGUSR1)


@CGROUPS
@pytest.mark.parametrize("number", range(32, 65))
def test_no_signal_ends_the_keeper_alone(box: Sandbox, number: int) -> None:
    """Nor the two that the C library keeps for itself and does not block."""
    worker, left = with_daemons(box)
    assert box.request(verb="kill", instance=worker.instance, signal=number)["ok"]
    assert box.wait_exit(worker)["signal"] == (9 if number == kernel.KEEPER_END else number)
    assert not any(map(alive, left))


@CGROUPS
def test_nothing_of_it_survives_its_keeper(box: Sandbox) -> None:
    """Which root alone can kill, or a machine without memory."""
    worker, left = with_daemons(box)
    os.kill(_parent(worker.pid), signal.SIGKILL)
    assert box.wait_exit(worker)["signal"] == 9
    assert gone(worker.pid, *left)
    again = free(box, ECHO)
    assert echo(again) == b"ping"
    box.end(again)


# Each process of a chain ends when it has forked the next.
CHAINS = """
import os

def forked():
    while True:
        try:
            return os.fork() == 0
        except BlockingIOError:
            pass                          # as many as there may be

def serve():
    for _ in range(40):
        if forked():
            os.closerange(1, 4)
            while forked():
                pass
            os._exit(0)
    os.write(3, b"x")
    os.read(3, 1)
"""


@CGROUPS
def test_processes_that_are_never_there_when_they_are_looked_for(box: Sandbox) -> None:
    """A look at /proc is slower than they are: whether they are there is seen by how often the machine forks."""
    title = f"chains-{box.pid}"
    worker = free(box, CHAINS, pids_max=100, instance=title)
    assert worker.ipc.recv(1) == b"x"
    busy = _forks_in_a_window()
    assert box.end(worker)["signal"] == 9
    assert busy > 10  # forty chains with a twentieth of a processor make more
    # One chain that is left forks about as often as all of them did, in every window: nobody needs the processors.
    windows: list[int] = []
    while not windows or windows[-1] > busy // 10:
        assert len(windows) < 50, (busy, windows)
        windows.append(_forks_in_a_window())
    assert _processes_called(title) == []


@pytest.mark.parametrize("without", [(), ("control groups",), ("namespaces",)], ids=str)
@pytest.mark.parametrize("victim", ["supervisor", "zygote"])
def test_nothing_of_it_survives_those_above(without: tuple[str, ...], victim: str) -> None:
    """Without a PID namespace, and with or without a control group."""
    with Sandbox(without=without) as own:
        worker, left = with_daemons(own)
        os.kill(own.pid if victim == "supervisor" else zygote_of(own), signal.SIGKILL)
        assert gone(worker.pid, *left)
        if victim == "zygote":
            assert own.wait_exit(worker)["signal"] == 9
            assert echo(free(own, ECHO)) == b"ping"
            return
        assert own.wait_supervisor() == -9
        assert own._control is not None
        own._control.close()
        worker.close()
        own.workers.clear()
        own.start()  # sweeps
        assert not [path for path in own.cgroups() if path.endswith(worker.instance)]


def test_a_new_daemon_adopts_it(box: Sandbox) -> None:
    daemon_pid(box)
    worker = free(box, ECHO)
    assert echo(worker) == b"ping"
    box.tell_daemon("die")
    daemon_pid(box)
    fresh = box.adopt(worker)
    assert fresh.pid == worker.pid
    assert echo(fresh, b"again") == b"again"
    box.end(fresh)


def test_a_failing_step_is_told_and_leaves_nothing(box: Sandbox) -> None:
    code = box.write_code(ECHO)
    code.chmod(0o700)
    before = box.cgroups()
    spec = box.request_spec(code, contained=False)
    for _ in range(3):
        answer = box.request(verb="spawn", instance="closed", spec=spec)
        assert (answer["ok"], answer["step"], answer["errno"]) == (False, "working directory", 13)
    box.wait_for(lambda: [path for path in box.cgroups() if path.endswith("closed")] == [])
    assert set(box.cgroups()) - set(before) == set()


def test_limits_where_they_are_given(box: Sandbox) -> None:
    bomb = "def attempt():\n    return len([bytearray(1 << 20) for _ in range(200)])\n"
    assert box.run(bomb, contained=False) == 200
    worker = free(box, bomb, memory_kb=32_768)
    event = box.wait_exit(worker)
    assert (event["oom"], event["signal"], event["memory_limit_kb"]) == (True, 9, 32_768)
    forks = (
        "def attempt():\n    import os, time\n    made = 0\n    try:\n        while made < 100:\n"
        "            if os.fork() == 0:\n                time.sleep(600)\n            made += 1\n"
        "    except BlockingIOError:\n        pass\n    return made\n"
    )
    worker = free(box, forks, pids_max=20)
    assert worker.result()["value"] == 19
    box.end(worker)
    box.wait_for(lambda: not [path for path in box.cgroups() if path.endswith("/" + worker.instance)])


@pytest.mark.parametrize("without", ["control groups", "memory controller", "namespaces"])
def test_row_76_a_machine_without_it_refuses_containers_alone(without: str) -> None:
    with Sandbox(without=(without,)) as own:
        answer = own.request(verb="spawn", instance="c", spec=own.request_spec(own.write_code("")))
        assert not answer["ok"]
        assert "NoContainer" in answer["error"]
        assert "containers are refused, functions with NoContainer run" in own.crash_log()
        assert echo(free(own, ECHO)) == b"ping"


OUTER = """
from tests.sandbox.harness import Sandbox
from tests.sandbox.test_workers import ECHO, echo
with Sandbox() as box:
    assert echo(box.spawn(ECHO, contained=False)) == b"ping"
    refused = box.request(verb="spawn", instance="c", spec=box.request_spec(box.write_code("")))
    print(refused["error"])
    print(box.crash_log())
"""


def test_an_outer_container_without_privileges_runs_it() -> None:
    """With the capabilities that container engines leave: no SYS_ADMIN, so no namespace and no mount (17.1, Docker)."""
    root = Path(__file__).parents[2]
    kept = sum(1 << number for number in (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31))
    done = subprocess.run(
        [sys.executable, "-c", OUTER], preexec_fn=lambda: kernel.drop_bounding(kept), cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "this machine cannot have containers: mount namespace: Operation not permitted" in done.stdout
    assert "NoContainer" in done.stdout.splitlines()[0]


# --- what it must not do ----------------------------------------------------------------------------------

LOOKING = """
import ctypes, errno, os, signal

def outcome(call, *arguments):
    try:
        call(*arguments)
        return "OK"
    except OSError as error:
        return errno.errorcode[error.errno]

def syscall(name, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(N[name], *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")

def attempt():
    return {str(pid): {
        "kill": outcome(os.kill, pid, 0), "ptrace": outcome(syscall, 'ptrace', 16, pid, 0, 0),
        "mem": outcome(os.open, "/proc/%%d/mem" %% pid, os.O_RDWR),
        "environ": outcome(lambda: os.read(os.open("/proc/%%d/environ" %% pid, os.O_RDONLY), 1)),
        "fd": outcome(os.open, "/proc/%%d/fd/3" %% pid, os.O_RDWR),
        "root": outcome(os.listdir, "/proc/%%d/root/" %% pid)} for pid in %r}
"""
ATTEMPTS = f"N = {call_numbers()!r}\n{LOOKING}"
SLEEPS = "import os\nos.set_inheritable(3, True)\nos.execve('/bin/sleep', ['sleep', '600'], {'SECRET': 'x'})\n"


def test_row_56_the_core_is_out_of_reach(box: Sandbox) -> None:
    """Another uid: neither signalled nor looked into. The keeper is root's too."""
    daemon = daemon_pid(box) if any(e.get("event") == "daemon" for e in box.events) else _daemon_of(box)
    other = free(box, ECHO)
    keeper = _parent(other.pid)
    found = box.run(ATTEMPTS % [daemon, box.pid, zygote_of(box), keeper], contained=False)
    for outcomes in found.values():
        assert outcomes.pop("ptrace") == "EPERM"
        assert outcomes.pop("kill") == "EPERM"
        assert set(outcomes.values()) == {"EACCES"}
    box.end(other)


@pytest.mark.parametrize("contained", [True, False])
def test_other_programs_of_the_same_uid_are_not_looked_into(box: Sandbox, contained: bool) -> None:
    """A program started by execve may be traced by its uid again: the Landlock domain stands between. Signals it
    can send: that takes a uid of its own (RunAs)."""
    peer = box.spawn(SLEEPS, contained=contained)
    box.wait_for(lambda: Path(f"/proc/{peer.pid}/comm").read_text() == "sleep\n")
    control = subprocess.run(
        [sys.executable, "-I", "-c", f"import os; os.open('/proc/{peer.pid}/mem', os.O_RDWR); print('open')"],
        user=box.users.function_uid, group=box.users.function_gid, extra_groups=[], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert control.stdout == "open\n", control.stderr  # what nothing of ours around it can do
    found = box.run(ATTEMPTS % [peer.pid], contained=False)[str(peer.pid)]
    assert found.pop("kill") == "OK"
    assert found.pop("ptrace") == "EPERM"
    assert set(found.values()) == {"EACCES"}
    box.end(peer)


def test_what_is_refused_is_what_container_engines_refuse(box: Sandbox) -> None:
    source = ATTEMPTS.replace("%%", "%").split("def attempt")[0] + (
        "def attempt():\n    user, files = 0x10000000, 0x400\n"
        "    return [outcome(syscall, 'unshare', user), outcome(syscall, 'clone', user | 17, 0, 0, 0, 0),"
        " outcome(syscall, 'clone3', 0, 0), outcome(syscall, 'bpf', 0, 0, 0), outcome(syscall, 'io_uring_setup', 1, 0),"
        " outcome(syscall, 'keyctl', 0, 0, 0, 0, 0), outcome(syscall, 'unshare', files)]\n"
    )
    assert box.run(source, contained=False) == ["EPERM", "EPERM", "ENOSYS", "EPERM", "EPERM", "EPERM", "OK"]


ORDINARY = """
def attempt():
    import os, socket, stat, subprocess, tempfile, threading
    with tempfile.TemporaryDirectory() as where:
        os.mkdir(where + "/a")
        os.mkdir(where + "/b")
        open(where + "/a/x", "w").close()
        os.rename(where + "/a/x", where + "/b/x")         # a Landlock domain forbids this unless it is granted
        os.link(where + "/b/x", where + "/a/y")
        os.rename(where + "/b", where + "/a/b")
        os.mkfifo(where + "/p")
        os.chmod(where + "/a/y", 0o4755)
        mode = stat.S_IMODE(os.stat(where + "/a/y").st_mode)
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()
    for family in (socket.AF_CAN, 31, 38):                # CAN, Bluetooth, ciphers: the kernel's answer
        try:
            socket.socket(family, socket.SOCK_RAW if family == socket.AF_CAN else socket.SOCK_SEQPACKET).close()
        except OSError as error:
            assert error.errno != 1, family
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    done = subprocess.run(["ps", "-e", "-o", "pid="], capture_output=True, text=True)
    return mode, len(done.stdout.split()) > 3, subprocess.run(["sh", "-c", "exit 7"]).returncode
"""


def test_ordinary_programs_run_as_anywhere(box: Sandbox) -> None:
    assert box.run(ORDINARY, contained=False) == [0o4755, True, 7]


def test_files_of_the_host_are_the_real_ones(box: Sandbox) -> None:
    """Written through the host's mounts, not the read-only view of the process it is forked from."""
    source = f"def attempt():\n    open({str(box.data / 'made')!r}, 'w').write('x')\n"
    box.run(source, contained=False)
    assert (box.data / "made").read_text() == "x"
    assert (box.data / "made").stat().st_uid == box.users.function_uid


def _forks_in_a_window() -> int:
    """How many processes and threads the machine makes in a short while."""
    before = _forks()
    time.sleep(patience(0.1))
    return _forks() - before


def _forks() -> int:
    lines = Path("/proc/stat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("processes "))


def _processes_called(instance: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and instance.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def _daemon_of(box: Sandbox) -> int:
    children = Path(f"/proc/{box.pid}/task/{box.pid}/children").read_text().split()
    return next(int(pid) for pid in children if int(pid) != zygote_of(box))


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
