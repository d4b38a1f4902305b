"""Hostile functions against processes, identities, limits and what they inherit (sandbox.md section 13)."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from ggfast.sandbox import privileges
from tests.sandbox.hostile import ATTEMPTS, PYTHON, WHO, Cage, cage, cage_with, call_numbers, row, victim

__all__ = ["cage"]
pytestmark = pytest.mark.root


@row(1, "signals to host processes, kill(-1)", by="PID namespace", result="ESRCH; host unaffected")
@WHO
def test_row_01_signals(cage: Cage, who: str) -> None:
    """The victim has the function's own uid: no permission check stands between them."""
    with victim(cage.identity(who)["uid"]) as target:
        found = cage.run("processes.signals", who, victim=target.pid)
        assert os.getpriority(os.PRIO_PROCESS, target.pid) == os.getpriority(os.PRIO_PROCESS, 0)
    del found["nice"]  # reaches the function's own processes only
    assert set(found.values()) == {"ESRCH"}, found


def test_row_01_control_signals_reach_the_victim_from_outside(cage: Cage) -> None:
    """Without the namespace the same calls find the process."""
    with victim(cage.user) as target:
        found = cage.outside("processes.pidfd", "user", victim=target.pid)
        program = f"import os; os.kill({target.pid}, 0)"
        subprocess.run([PYTHON, "-I", "-c", program], user=cage.user, group=cage.group, extra_groups=[], check=True)
    assert found == {"victim": "OK", "own": "OK"}


@row(2, "list processes", by="PID namespace, fresh /proc", result="only its own, as 1")
@WHO
def test_row_02_list_processes(cage: Cage, who: str) -> None:
    """/proc knows the container's processes only."""
    with victim(cage.user) as target:
        found = cage.run("processes.processes", who, victim=target.pid)
        assert target.pid in cage.outside("processes.processes", who, victim=target.pid)["numbers"]
    assert found == {"pid": 1, "numbers": [1], "self": "1", "victim": "ENOENT"}


@row(3, "ptrace, process_vm_readv/writev, pidfd_getfd, kcmp", by="seccomp", result="EPERM, even on its own child")
@WHO
def test_row_03_memory_of_others(cage: Cage, who: str) -> None:
    """The target is the caller's own child: outside all of it is allowed."""
    assert set(cage.outside("processes.memory_of_others", who).values()) == {"OK"}
    assert set(cage.run("processes.memory_of_others", who).values()) == {"EPERM"}


@row(4, "pidfd_open of a host process", by="PID namespace", result="ESRCH")
@WHO
def test_row_04_pidfd_open(cage: Cage, who: str) -> None:
    """The number means nothing inside."""
    with victim(cage.user) as target:
        assert cage.run("processes.pidfd", who, victim=target.pid) == {"victim": "ESRCH", "own": "OK"}


@row(7, "unshare and clone into new namespaces; clone3", by="seccomp", result="EPERM; ENOSYS")
@WHO
def test_row_07_new_namespaces(cage: Cage, who: str) -> None:
    """Eight kinds, two calls. A plain clone works: that is what fork is."""
    control = cage.outside("processes.namespaces", who)
    assert control["unshare user"] == control["clone user"] == "OK"
    assert control["clone3"] == "EINVAL"
    found = cage.run("processes.namespaces", who)
    assert (found.pop("clone plain"), found.pop("clone3")) == ("OK", "ENOSYS")
    assert set(found.values()) == {"EPERM"}, found


@row(8, "setns to a namespace it can name", by="seccomp, no descriptors", result="EPERM")
@WHO
def test_row_08_enter_namespace(cage: Cage, who: str) -> None:
    """Its own namespaces are the only ones it finds; joining them again would be harmless, and root may."""
    assert cage.outside("processes.enter_namespace", "root")["uts"] == "OK"
    assert set(cage.run("processes.enter_namespace", who).values()) == {"EPERM"}


@row(32, "setuid program, setuid, setgroups, capset", by="no_new_privs, nosuid, capabilities", result="EPERM; same uid")
@WHO
def test_row_32_other_identity(cage: Cage, who: str) -> None:
    """A setuid-root copy of id(1) in plain sight; uid 0 has no capability to become somebody else either."""
    program = cage.place / "id"
    if not program.exists():
        shutil.copy("/usr/bin/id", program)
        program.chmod(0o4755)
    options = {"suid": str(program), "other": cage.user}
    if who == "user":
        assert cage.outside("processes.identities", who, **options)["program"] == 0
    else:
        assert cage.outside("processes.identities", who, **options)["setgroups"] == "OK"
    found = cage.run("processes.identities", who, **options)
    assert found["program"] == cage.identity(who)["uid"]
    assert {found[name] for name in ("setuid", "setresuid", "setgid", "setgroups", "capset")} == {"EPERM"}, found
    assert int(found["effective after exec"], 16) == int(found["bounding"], 16) == 0
    assert (found["no_new_privs"], found["seccomp"]) == ("1", "2")


@row(38, "32-bit calls, x32, unknown numbers", by="seccomp", result="SIGSYS; ENOSYS")
@WHO
def test_row_38_foreign_calls(cage: Cage, who: str) -> None:
    """mseal and statmount exist in this kernel and are newer than the filter's table: absent for functions."""
    if "arch_prctl" not in call_numbers():
        pytest.skip("needs x86-64: int 0x80 and x32 exist nowhere else")
    options = {"mseal": 462, "statmount": 457}
    control = cage.outside("processes.foreign_calls", who, **options)
    assert control["int 0x80"] == "exit 0"
    found = cage.run("processes.foreign_calls", who, **options)
    assert found.pop("int 0x80") == "signal 31"
    assert set(found.values()) == {"ENOSYS"}, found


@row(39, "TIOCSTI, TIOCLINUX, TIOCSETD; find a terminal", by="seccomp, setsid", result="EPERM; no tty")
@WHO
def test_row_39_terminal(cage: Cage, who: str) -> None:
    """Descriptor 0 is no terminal: a request that passes the filter says ENOTTY, as TIOCGWINSZ does. The kernel
    looks at the low half of a request only, so must the filter."""
    control = cage.outside("processes.terminal", who)
    assert {control["TIOCSTI"], control["TIOCLINUX"], control["TIOCSETD"]} == {"ENOTTY"}
    found = cage.run("processes.terminal", who)
    assert found.pop("TIOCGWINSZ") == "ENOTTY"
    assert (found.pop("/dev/tty"), found.pop("/dev/ptmx"), found.pop("tty of stat")) == ("ENOENT", "ENOENT", 0)
    assert set(found.values()) == {"EPERM"}, found


@row(40, "raise limits, niceness, real time, I/O class", by="capabilities", result="EPERM, EACCES")
@WHO
def test_row_40_limits(cage: Cage, who: str) -> None:
    """setpriority answers EACCES where the others answer EPERM. Core files are off."""
    assert cage.outside("processes.limits", "root", scores=[])["fifo"] == "OK"
    found = cage.run("processes.limits", who, scores=[])
    assert found.pop("lower nice by one") == "OK"
    assert (found.pop("core is"), found.pop("oom score is"), found.pop("oom scores")) == (0, 500, {})
    assert found.pop("nice") == "EACCES"
    assert set(found.values()) == {"EPERM"}, found


@row(40, "lower its OOM score", by="CAP_SYS_RESOURCE of the supervisor", result="EACCES; never below the ordinary 0")
@WHO
def test_row_40_oom_score(cage: Cage, who: str) -> None:
    """Below what any process of the host has without asking: never. Below its own 500: only where the supervisor
    lacks the capability to make that the minimum, as the start's warning says; then it gets as far as 0."""
    effective = int(Path("/proc/self/status").read_text().split("CapEff:")[1].split()[0], 16)
    fixed = bool(effective >> privileges.SYS_RESOURCE & 1)
    found = cage.run("processes.limits", who, scores=["499", "0", "-1", "-500", "-1000"])["oom scores"]
    within = "EACCES" if fixed else "OK"
    assert found == {"499": within, "0": within, "-1": "EACCES", "-500": "EACCES", "-1000": "EACCES"}
    assert fixed or "oom_score_adj" in cage.box.crash_log()


def _host_pids(cage: Cage, instance: str) -> list[int]:
    """Every process of an instance, by the host's numbers."""
    files = [f"{path}/cgroup.procs" for path in cage.box.cgroups() if path.endswith("/" + instance)]
    return sorted({int(pid) for file in files for pid in open(file, encoding="ascii").read().split()})


def _alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


def _removed(group: str) -> bool:
    try:
        os.rmdir(group)
    except OSError:
        return not os.path.isdir(group)
    return True


@row(41, "clear the death signal, daemonise, outlive the function", by="seccomp, PID namespace", result="dies with it")
@WHO
def test_row_41_outlive_the_function(cage: Cage, who: str) -> None:
    """prctl says that it worked and did nothing; the grandchild dies with the namespace's first process."""
    worker = cage.start("processes.outlive", who)
    assert worker.result()["value"] == {"cleared": "OK", "signal": 9}
    pids = _host_pids(cage, worker.instance)
    assert len(pids) == 2 and _alive(pids) == pids
    cage.box.end(worker)
    cage.box.wait_for(lambda: not _alive(pids))


@row(41, "outlive a killed supervisor", by="parent-death signal, PID namespace", result="dies with it")
def test_row_41_outlive_the_supervisor() -> None:
    """SIGKILL, so that nobody cleans up; both kinds of function at once."""
    with cage_with() as own:
        workers = [own.start("processes.outlive", who) for who in ("user", "root")]
        assert all(worker.result()["ok"] for worker in workers)
        pids = [pid for worker in workers for pid in _host_pids(own, worker.instance)]
        assert len(pids) == 4 and _alive(pids) == pids
        own.box.kill_supervisor()
        for worker in workers:  # the end of the pipe: every process that held it is gone
            assert worker.output(timeout_s=10) == b""
            worker.close()
        own.box.workers.clear()
        groups = own.box.cgroups()  # nobody is left to remove them: the next start of the same core would
        own.box.wait_for(lambda: not _alive(pids))
        for path in sorted(groups, reverse=True):
            own.box.wait_for(lambda path=path: _removed(path))


@row(42, "find inherited descriptors", by="close_range", result="0 to 3 only")
@WHO
def test_row_42_descriptors(cage: Cage, who: str) -> None:
    """null, two log pipes, the daemon's socket; one more is the directory being listed."""
    found = cage.run("processes.descriptors", who)
    assert found.pop("cwd") == "/"
    assert len(found.pop("listed")) == 5
    assert found == {"0": stat.S_IFCHR, "1": stat.S_IFIFO, "2": stat.S_IFIFO, "3": stat.S_IFSOCK}


NEEDLES = {
    name: f"ggfast-needle-{name}-{os.urandom(8).hex()}"
    for name in ("environment", "stderr", "channel", "name", "policy")
}


def _masked(text: str) -> bytes:
    return bytes(byte ^ 0x5A for byte in text.encode())


@row(43, "scan its own memory for what others left there", by="the zygote reads no secret", result="nothing")
@WHO
def test_row_43_memory_of_the_image(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's memory is the zygote's. What the daemon sends to another worker, what it writes to its log and
    what stood in the environment of whoever started the core must not be in it, nor what other instances there are.
    The control is the policy, which is read before the zygote begins and is no secret."""
    monkeypatch.setenv("GGFAST_TEST_SECRET", NEEDLES["environment"])
    words = ("--say", _masked(NEEDLES["stderr"]).hex())
    policy = {"denied_sources": ["/srv/" + NEEDLES["policy"]]}
    with cage_with(daemon_program=ATTEMPTS / "talking_daemon.py", daemon_arguments=words, policy=policy) as own:
        other = own.box.spawn(
            "def serve():\n    import os\n    while os.read(3, 4096):\n        os.write(3, b'x')\n",
            instance=NEEDLES["name"],
            # A longer request than the next one's: nothing of it may stay behind the end of that.
            mounts=[
                {
                    "source": str(own.place / "empty"),
                    "destination": f"/mnt/{number}{NEEDLES['name']}",
                    "writable": False,
                }
                for number in range(20)
            ],
        )
        other.ipc.sendall(NEEDLES["channel"].encode() * 20)
        assert other.ipc.recv(1) == b"x"
        own.box.wait_for(lambda: NEEDLES["stderr"] in own.box.crash_log())
        needles = {name: _masked(text).hex() for name, text in NEEDLES.items()}
        found = own.run("processes.scan_memory", who, {"memory_kb": 131072}, needles=needles)
        assert found["found"].pop("policy") > 0, "the scan does not see the image's memory"
        assert set(found["found"].values()) == {0}, found


@row(44, "read the zygote's environment", by="clean exec, not dumpable", result="EACCES or empty")
@WHO
def test_row_44_environment(cage: Cage, who: str) -> None:
    """Forked workers are not dumpable: for a user the file is root's. uid 0 may read it and finds nothing."""
    found = cage.run("processes.environment", who)
    assert found["self"] == found["1"] == (["EACCES", 0] if who == "user" else ["OK", 0])
    assert set(found["os.environ"]) <= {"LC_CTYPE"}  # the interpreter's own
    assert found["cmdline"].strip("\0").startswith("ggfast-worker")
