"""`doctor`'s look at the machine: accounts, protections, left-over cgroups, interpreter, memory, clock, runtimes.

Nothing is changed. Each check takes the places it reads as arguments, so that tests can show it other machines.
Sources: greengrass-core 1.5 (requirements), 3.2 and 3.3 (V1's own checks), sandbox 6 and 14.
"""

from __future__ import annotations

import grp
import os
import pwd
import resource
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ggfast import limits
from ggfast.cli.checks import LINK_PROTECTION
from ggfast.cli.findings import Area, Finding
from ggfast.sandbox.cgroups import PREFIX, detect

PROC: Final = Path("/proc")
# Of the machine's own, because a container has them fresh or not at all (sandbox 4).
UNSEEN_BY_FUNCTIONS: Final = ("/dev", "/proc", "/root", "/run", "/sys", "/tmp", "/var")
INTERPRETER_TIMEOUT_S: Final = 60  # a cold start from a slow flash card
WORKERS: Final = Path(__file__).resolve().parent.parent / "core" / "workers"
RUNTIMES: Final = {  # folder below core/workers: programs, best first (greengrass-core 1.5)
    "nodejs": ("nodejs12.x", "nodejs8.10", "nodejs6.10", "nodejs", "node"),
    "java": ("java8", "java"),
}


# --- accounts ------------------------------------------------------------------------------------------


def accounts(daemon_user: str, function_user: str, function_group: str) -> Iterator[Finding]:
    """The daemon's account and the functions' default one, which must not be the same."""
    area = Area("accounts")
    uids = {}
    for name in (daemon_user, function_user):
        make = f"Create it with `useradd --system --no-create-home --shell /usr/sbin/nologin {name}`."
        try:
            uids[name] = pwd.getpwnam(name).pw_uid
        except KeyError:
            yield area.bad(f"user {name}", "no such user", "an account without login", make, required=True)
            continue
        if uids[name] == 0:
            advice = "Name an ordinary account in config.json (ggfast.daemonUser, ggfast.functionUser)."
            yield area.bad(f"user {name}", "uid 0", "an account that is not root", advice, required=True)
        else:
            yield area.ok(f"user {name}", f"uid {uids[name]}")
    try:
        yield area.ok(f"group {function_group}", f"gid {grp.getgrnam(function_group).gr_gid}")
    except KeyError:
        make = f"Create it with `groupadd --system {function_group}`."
        yield area.bad(f"group {function_group}", "no such group", "the functions' group", make, required=True)
    if len(uids) == 2 and len(set(uids.values())) == 1:
        advice = "Functions could read the daemon's keys: give the daemon an account of its own."
        yield area.bad("separate accounts", "one uid for both", "two uids", advice, required=True)


# --- protections of the kernel and of the session --------------------------------------------------------


def link_protection(proc: Path = PROC, *, required: bool = True) -> Finding:
    """Hard and symbolic links must be protected, or the core starts only with -i (greengrass-core 3.2)."""
    values = {name: _read(proc / "sys" / "fs" / name) or "not there" for name in LINK_PROTECTION}
    found = ", ".join(f"fs.{name}={value}" for name, value in values.items())
    area = Area("protection")
    if all(value == "1" for value in values.values()):
        return area.ok("links", found)
    settings = " ".join(f"fs.{name}=1" for name in LINK_PROTECTION)
    advice = f"Set them with `sysctl -w {settings}` and in /etc/sysctl.d, or start with -i."
    return area.bad("links", found, "both 1", advice, required=required)


def session() -> Iterator[Finding]:
    """What the core inherits from whoever starts it: umask and the limit of open files."""
    area = Area("session")
    mask = os.umask(0o022)
    os.umask(mask)
    if mask & ~0o022:
        advice = "Start the core with `umask 0022`: functions must be able to read what it unpacks."
        yield area.bad("umask", f"{mask:04o}", "0022 or less", advice, required=False)
    else:
        yield area.ok("umask", f"{mask:04o}")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shown = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
    if hard != resource.RLIM_INFINITY and hard < limits.OPEN_FILES_MIN:
        advice = f"Raise it with `ulimit -n {limits.OPEN_FILES_MIN}` or LimitNOFILE= in the unit."
        yield area.bad("open files", shown, f"at least {limits.OPEN_FILES_MIN}", advice, required=False)
    else:
        yield area.ok("open files", shown)


# --- cgroups -------------------------------------------------------------------------------------------


def left_over(proc: Path = PROC) -> Iterator[Finding]:
    """What killed cores left in a v1 memory hierarchy; silent when there is nothing."""
    tree = detect(_read(proc / "self" / "mountinfo"), _read(proc / "self" / "cgroup")).find("memory")
    left = [] if tree is None or tree.version != 1 else [g for g in core_groups(tree.mount) if not g.processes]
    if left:
        found = ", ".join(f"{group.path} ({group.memory_kb} KB)" for group in left)
        advice = "A core that was killed left them; it removes them when it starts again."
        yield Area("cgroups").bad("left over", found, "no groups without a core", advice, required=False)


@dataclass(frozen=True, slots=True)
class CoreGroup:
    """The v1 memory group of a core, with everything below it."""

    path: str
    processes: int
    memory_kb: int


def core_groups(mount: str) -> list[CoreGroup]:
    """The groups of cores below a v1 memory hierarchy; none without cgroupspy, which reads such trees."""
    try:
        from cgroupspy.trees import Tree
    except ImportError:
        return []
    folder, name = os.path.split(mount)
    try:
        tree = Tree(root_path=f"{folder}/", groups=[name.encode()])
        return [
            CoreGroup(
                os.fsdecode(node.full_path),
                sum(len(below.controller.procs) for below in tree.walk(node)),
                node.controller.usage_in_bytes // 1024,
            )
            for node in tree.walk()
            if node.name.startswith(PREFIX.encode())
        ]
    except OSError:  # groups come and go while the tree is read
        return []


# --- interpreter, memory, clock, runtimes -----------------------------------------------------------------


def interpreter(user: str) -> Finding:
    """Other users must reach the interpreter and the package: as root this is tried, else read off the modes."""
    area = Area("interpreter")
    package = Path(__file__).resolve().parent.parent
    advice = "Install ggfast below a directory that everybody may enter, such as /opt, with an interpreter from /usr."
    for path in (Path(sys.executable), Path(sys.executable).resolve(), Path(sys.base_prefix), package):
        closed = closed_directory(path)
        if closed is not None:
            found = f"{path}: other users cannot enter {closed}"
            return area.bad("reachable", found, "mode o+x on every directory above", advice, required=True)
        unseen = next((place for place in UNSEEN_BY_FUNCTIONS if path.is_relative_to(place)), None)
        if unseen is not None:
            found = f"{path} is below {unseen}, which containers do not show"
            return area.bad("reachable", found, "a place that functions see", advice, required=True)
    version = ".".join(map(str, sys.version_info[:3]))
    if os.geteuid() != 0 or not _exists(user):
        return area.ok("reachable", f"Python {version} at {sys.executable}")
    entry = pwd.getpwnam(user)
    command = [sys.executable, "-I", "-c", "import ggfast.errors"]
    try:
        tried = subprocess.run(
            command, cwd="/", env={}, user=entry.pw_uid, group=entry.pw_gid, extra_groups=[], text=True,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=INTERPRETER_TIMEOUT_S, check=False,
        )  # fmt: skip
        complaint = (tried.stderr.strip().splitlines() or ["no output"])[-1] if tried.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        complaint = str(error)
    if complaint:
        return area.bad("reachable", f"as {user}: {complaint}", "import ggfast succeeds", advice, required=True)
    return area.ok("reachable", f"Python {version} at {sys.executable}, tried as {user}")


def closed_directory(path: Path) -> Path | None:
    """The first directory on the way to `path` that other users cannot enter, `path` included if it is one."""
    for directory in [*reversed(path.parents), path]:
        try:
            mode = directory.stat().st_mode
        except OSError:
            return directory
        if stat.S_ISDIR(mode) and not mode & stat.S_IXOTH:
            return directory
    return None


def memory(proc: Path = PROC) -> Finding:
    """The whole memory of the machine (greengrass-core 1.5: 128 MB)."""
    area = Area("memory")
    lines = dict(line.partition(":")[::2] for line in _read(proc / "meminfo").splitlines())
    try:
        total_kb = int(lines["MemTotal"].split()[0])
        free_kb = int(lines["MemAvailable"].split()[0])
    except (KeyError, ValueError, IndexError):
        return area.unknown("size", f"{proc / 'meminfo'} does not say", "Mount /proc.")
    found = f"{total_kb // 1024} MB, {free_kb // 1024} MB of it available"
    if total_kb < limits.MACHINE_MEMORY_KB_MIN:
        expected = f"at least {limits.MACHINE_MEMORY_KB_MIN // 1024} MB"
        return area.bad("size", found, expected, "Expect functions to be killed for lack of memory.", required=False)
    return area.ok("size", found)


def clock(now: float | None = None) -> Finding:
    """A clock from before this software was made makes every certificate look not valid yet."""
    area = Area("clock")
    seconds = time.time() if now is None else now
    found = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
    if seconds < limits.CLOCK_FLOOR_S:
        expected = "after " + time.strftime("%Y-%m-%d", time.gmtime(limits.CLOCK_FLOOR_S))
        advice = "Set it (`date -s`, NTP); the core runs, but the cloud's certificates will be refused."
        return area.bad("sanity", found, expected, advice, required=False)
    return area.ok("sanity", found)


def runtimes(path: str | None = None, workers: Path = WORKERS) -> Iterator[Finding]:
    """The languages functions can be written in; Python is this interpreter."""
    area = Area("runtimes")
    yield area.ok("python", f"{sys.version_info[0]}.{sys.version_info[1]}, for functions of every Python runtime")
    for name, programs in RUNTIMES.items():
        if not (workers / name).is_dir():
            continue
        program = next(filter(None, (shutil.which(program, path=path) for program in programs)), None)
        if program:
            yield area.ok(name, program)
        else:
            advice = f"Install it if a function needs it; the name {programs[0]} on PATH is found first."
            yield area.bad(name, "Not found", f"one of {', '.join(programs)} on PATH", advice, required=False)


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _read(path: Path) -> str:
    """The text of a small kernel file; "" if there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
