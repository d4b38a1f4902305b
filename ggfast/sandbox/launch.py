"""How the command line becomes the supervisor: everything that must happen while the host is still in view.

    lock · directories opened · low oom score · own mount namespace, the host's tree read-only in it ·
    a staging file system · capabilities cut · exec of boot.py in isolated mode with an empty environment

The read-only view is what keeps a function that runs as uid 0 from writing to the host's interpreter through
/proc/self/exe (sandbox.md section 12). Control groups and /proc stay writable; what the supervisor itself
must write (PID file, crash log) it reaches through descriptors opened before.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

from ggfast import limits
from ggfast._ext import kernel
from ggfast.errors import SandboxFailed
from ggfast.sandbox import crashlog, ladder, paths, privileges
from ggfast.sandbox.cgroups import read_text, this_layout, unescape
from ggfast.sandbox.groups import denied_groups

AT_RECURSIVE, MOUNT_ATTR_RDONLY = 0x8000, 1
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_NOATIME, MS_NODIRATIME, MS_REC, MS_SLAVE, MS_RELATIME = 1024, 2048, 0x4000, 1 << 19, 1 << 21
CLONE_NEWNS: Final = 0x20000
OPTION_FLAGS: Final = {
    "nosuid": MS_NOSUID, "nodev": MS_NODEV, "noexec": MS_NOEXEC, "noatime": MS_NOATIME,
    "nodiratime": MS_NODIRATIME, "relatime": MS_RELATIME,
}  # fmt: skip
KEPT_WRITABLE: Final = frozenset({"proc", "cgroup", "cgroup2"})
OOM_SCORE: Final = -500


@dataclass(frozen=True, slots=True)
class DaemonLaunch:
    """The daemon's command, user and environment."""

    argv: tuple[str, ...]
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """Everything a supervisor needs. Paths are absolute and without links; `policy` and `worker` as in
    policy.Policy and image.load; listeners and files, which the daemon gets at each of its starts and functions
    never, are open descriptors of the caller. `without` names features of
    ladder.LADDER (and "control groups", all of them) that are not used although the kernel may have them: how the way
    down the ladder is tried on a machine that need not take it."""

    name: str
    title: str
    daemon: DaemonLaunch
    pid_file: str
    state_dir: str
    crash_log: str
    policy: Mapping[str, Any]
    worker: Mapping[str, Any]
    listeners: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)
    ready_fd: int | None = None
    without: tuple[str, ...] = ()


def launch(spec: LaunchSpec, *, background: bool) -> int:
    """Start a core. In the foreground this process becomes the supervisor and nothing returns. In the
    background a child does, and its pid is returned when the daemon has said that it serves.

    Raises SandboxFailed: what step of the start failed, or what the supervisor reported. Needs root.
    """
    if os.geteuid() != 0:
        raise SandboxFailed("launch", errno.EPERM, f"found uid {os.geteuid()}, expected root", hint="Use sudo.")
    if not background:
        _become_supervisor(spec, stderr=None)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _background_child(spec, reader, writer)
    os.close(writer)
    try:
        _await_ready(reader)
    except BaseException:  # an interrupted start must not come up later
        _end(pid)
        raise
    finally:
        os.close(reader)
    return pid


def _background_child(spec: LaunchSpec, reader: int, writer: int) -> NoReturn:
    try:
        os.close(reader)
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        ready = spec.ready_fd if spec.ready_fd is not None else writer
        changed = {name: getattr(spec, name) for name in spec.__slots__} | {"ready_fd": ready}
        _become_supervisor(LaunchSpec(**changed), stderr=null)
    except BaseException as error:
        step = error.step if isinstance(error, SandboxFailed) else "launch"
        number = error.errno if isinstance(error, SandboxFailed | OSError) else 0
        os.write(writer, json.dumps({"ok": False, "step": step, "errno": number, "error": str(error)}).encode() + b"\n")
    finally:
        os._exit(1)


def _await_ready(reader: int) -> None:
    data = b""
    while not data.endswith(b"\n"):
        readable, _, _ = select.select([reader], [], [], limits.START_TIMEOUT_S)
        part = os.read(reader, 65536) if readable else b""
        if not part:
            break
        data += part
    try:
        answer = json.loads(data) if data else {"error": "the supervisor ended or hung without a word"}
    except ValueError:
        answer = {"error": f"the supervisor said {data[:200]!r}"}
    if answer.get("ok") is True:
        return
    step = str(answer.get("step", "start"))
    raise SandboxFailed(step, int(answer.get("errno", 0)), f"start failed: {answer.get('error')}")


def _end(pid: int) -> None:
    """Stop and reap a supervisor whose start failed; it is given a moment to clean up."""
    deadline = time.monotonic() + 2 * limits.DAEMON_STOP_S  # the daemon's and the workers'
    os.kill(pid, signal.SIGTERM)
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _become_supervisor(spec: LaunchSpec, *, stderr: int | None) -> NoReturn:
    """The steps of the module's docstring, in order; ends in exec."""
    document: dict[str, Any] = asdict(spec)
    document["policy"] = {
        **spec.policy,
        "denied_gids": sorted({*denied_groups(), *spec.policy.get("denied_gids", ())}),
    }
    warnings = document["warnings"] = []
    os.makedirs(spec.state_dir, mode=0o755, exist_ok=True)
    document["lock_fd"] = lock(spec.state_dir)
    _allow_descriptors()
    for key, path in (("pid", spec.pid_file), ("crash", spec.crash_log)):
        document[f"{key}_dir_fd"] = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        document[f"{key}_name"] = os.path.basename(path)
    document["host_mounts_fd"] = None
    if stderr is not None:
        os.dup2(_crash_file(document) or stderr, 2)
    if reason := privileges.prefer_survival(OOM_SCORE):
        warnings += ladder.told({"oom score": reason})
    document["no_namespaces"] = _apart(spec, document)
    layout = this_layout()
    if layout.find("devices") is None:
        _allow_locked_memory()
    privileges.cut_bounding_set(device_programs=layout.find("devices") is None)
    _exec(document)


def _apart(spec: LaunchSpec, document: dict[str, Any]) -> str | None:
    """A view of our own, for containers. Where the kernel refuses it (an outer container without privileges) functions
    without a container can run all the same: the reason."""
    host_mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if "namespaces" in spec.without:
            raise PermissionError(errno.EPERM, "left out")
        kernel.unshare(CLONE_NEWNS)
    except OSError as error:
        os.close(host_mounts)
        fd = paths.open_walk(spec.state_dir)
        os.fchdir(fd)
        os.close(fd)
        return f"mount namespace: {os.strerror(error.errno or 0)}"
    document["host_mounts_fd"] = host_mounts
    read_only_view()
    _staging(spec.state_dir)
    return None


def _exec(document: dict[str, Any]) -> NoReturn:
    named = [document[name] for name in ("lock_fd", "pid_dir_fd", "crash_dir_fd", "host_mounts_fd", "ready_fd")]
    handed = (*document["listeners"].values(), *document["files"].values())
    inherited = [fd for fd in (*named, *handed) if fd is not None]
    memory = os.memfd_create("ggfast-launch", 0)
    os.write(memory, json.dumps(document).encode())
    # Exactly these: a descriptor that a shell or service manager left open must not reach daemon or workers.
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd > 2 and os.path.lexists(f"/proc/self/fd/{fd}"):
            os.set_inheritable(fd, fd in inherited or fd == memory)
    script = str(Path(__file__).with_name("boot.py"))
    # The last argument only makes room: the title is written over the arguments.
    argv = [sys.executable, "-I", "-S", "-E", "-B", "-X", "no_debug_ranges", script, str(memory), document["title"]]
    os.execve(sys.executable, argv, {})


def read_only_view() -> None:
    """Make the whole host tree read-only in this mount namespace, which is our own; raises SandboxFailed."""
    try:
        kernel.mount(b"", b"/", b"", MS_REC | MS_SLAVE, b"")
        mounts = [line.split(" ") for line in read_text("/proc/self/mountinfo").splitlines()]
        writable = [os.fsencode(unescape(m[4])) for m in mounts if m[m.index("-") + 1] in KEPT_WRITABLE]
        try:
            kernel.mount_setattr(b"/", AT_RECURSIVE, MOUNT_ATTR_RDONLY, 0)
            for path in writable:
                kernel.mount_setattr(path, 0, 0, MOUNT_ATTR_RDONLY)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
            read_only_one_by_one(mounts)
    except OSError as error:
        raise SandboxFailed("read-only view", error.errno or 0, f"mount namespace: {error.strerror}") from None


def read_only_one_by_one(mounts: list[list[str]]) -> None:
    """Before Linux 5.12: each mount by itself. A mount that another one covers cannot be reached, by anybody."""
    for fields in mounts:
        path, options = unescape(fields[4]), fields[5].split(",")
        if fields[fields.index("-") + 1] in KEPT_WRITABLE:
            continue
        flags = MS_REMOUNT | MS_BIND | MS_RDONLY | sum(OPTION_FLAGS.get(option, 0) for option in options)
        try:
            kernel.mount(b"", os.fsencode(path), b"", flags, b"")
        except OSError:
            if path == "/":
                raise


def _staging(state_dir: str) -> None:
    """A small file system over the state directory, in our view only, to mount containers in. It is entered
    here and never named again, so nobody can exchange it; walked both times, so that no link leads elsewhere."""
    fd = paths.open_walk(state_dir)
    try:
        kernel.mount(b"ggfast", f"/proc/self/fd/{fd}".encode(), b"tmpfs", MS_NOSUID | MS_NODEV, b"size=16k,mode=700")
    except OSError as error:
        raise SandboxFailed("staging", error.errno or 0, f"tmpfs on {state_dir}: {error.strerror}") from None
    finally:
        os.close(fd)
    fd = paths.open_walk(state_dir)
    os.fchdir(fd)
    os.close(fd)
    os.mkdir("s", 0o700)


def lock(state_dir: str) -> int:
    """A descriptor that holds the root: one supervisor, or one change of its group on disk, at a time. Raises
    SandboxFailed where somebody has it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(os.path.join(state_dir, "supervisor.lock"), flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        text = f"{state_dir}: a supervisor of this root is running already, or a deployment"
        raise SandboxFailed("lock", errno.EAGAIN, text, hint="Stop it first, or wait for it.") from None
    return fd


def _allow_descriptors() -> None:
    """A device costs the daemon one, a function both of them three to five; the soft limit is for select(2)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.CORE_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, limits.CORE_OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _allow_locked_memory() -> None:
    """Device programs count as locked memory before Linux 5.11. Not allowed: each of them says so when it is loaded."""
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, OSError):
        pass


def _crash_file(document: Mapping[str, Any]) -> int | None:
    try:
        return crashlog.open_log(document["crash_dir_fd"], document["crash_name"])[0]
    except OSError as error:
        document["warnings"].append(f"crash log: {error}")
        return None
