"""What the kernel may lack and what functions then lose: one table for the log at start and for `doctor`.

A feature is found by trying it, never by a version number; `since` only helps to choose a kernel. What is needed for
containers is refused with its name where it is missing (functions without a container run on); everything else has a
way to do without, and its effect for functions is said once, never left to be found out (sandbox.md section 14).

Not here, because nothing is built on them: openat2 (paths are walked component by component), CLONE_INTO_CGROUP
(a child joins by its own write), cgroup.freeze.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from ggfast._ext import kernel
from ggfast.sandbox.cgroups import Layout, read_text
from ggfast.sandbox.devices import ALWAYS, device_program

FOR_ALL: Final = ("system call filter",)  # without these not even functions with NoContainer run
LANDLOCK_SCOPES_ABI: Final = 6
LANDLOCK_DOMAIN_ABI: Final = 2  # before, every domain forbids to move files from one directory to another


@dataclass(frozen=True, slots=True)
class Feature:
    """One thing a kernel may have. `without` is the effect for functions, `advice` what to do about it. `required`:
    containers are not possible without it."""

    name: str
    since: str
    without: str
    advice: str
    required: bool = False

    @property
    def told(self) -> str:
        """The line for the log of a machine that lacks it."""
        return f"{self.name} not available ({self.since}): {self.without}"


_KERNEL = "Use a kernel with this feature; functions with NoContainer run without it."

LADDER: Final = {
    feature.name: feature
    for feature in (
        Feature(
            "namespaces", "Linux 3.8", "functions in containers are refused",
            "Run as root with all its capabilities, in an outer container privileged. " + _KERNEL, required=True,
        ),
        Feature(
            "memory controller", "CONFIG_MEMCG", "functions in containers are refused",
            "Boot with `cgroup_enable=memory cgroup_memory=1` and mount the cgroup file systems.", required=True,
        ),
        Feature(
            "device rules", "Linux 4.15 on cgroup v2", "functions in containers are refused",
            "Mount cgroup2 (Linux 4.15 or newer) or the v1 devices controller.", required=True,
        ),
        Feature("own /proc", "Linux 3.8", "functions in containers are refused", _KERNEL, required=True),
        Feature(
            "system call filter", "Linux 3.17", "functions are refused",
            "Use a kernel with CONFIG_SECCOMP_FILTER on x86-64 or ARM.", required=True,
        ),
        Feature(
            "pids controller", "Linux 4.3",
            "processes and threads of a container are bounded by its memory alone, those outside one by nothing",
            "Enable CONFIG_CGROUP_PIDS.",
        ),
        Feature(
            "cpu controller", "Linux 4.15 on cgroup v2",
            "functions share the processor without weights, and their processor time is not counted",
            "Enable CONFIG_CGROUP_SCHED.",
        ),
        Feature(
            "swap accounting", "CONFIG_MEMCG_SWAP",
            "a memory limit does not count what was swapped out: functions get more than their MemorySize",
            "Boot with `swapaccount=1`, or run without swap.",
        ),
        Feature(
            "group kill", "Linux 4.19 on cgroup v2",
            "a function that loses one process to its memory limit runs on with the others",
            "Use a newer kernel, or cgroup v1.",
        ),
        Feature(
            "cgroup.kill", "Linux 5.14 on cgroup v2", "none: left-over processes are ended one by one",
            "Nothing to do.",
        ),
        Feature(
            "cgroup namespaces", "Linux 4.6", "functions see the path of their control group, no more",
            "Nothing to do.",
        ),
        Feature(
            "overlay root", "Linux 4.4 with CONFIG_TMPFS_XATTR",
            "roots are made of read-only binds: a volume's destination must exist below a directory of the host, "
            "or lie in /tmp, /mnt or /media or directly below /",
            "Use a kernel with overlayfs, and a root that is not itself stacked twice.",
        ),
        Feature(
            "landlock scopes", "Linux 6.12", "functions can connect to abstract sockets of the host",
            "Do not run services that listen on abstract sockets.",
        ),
        Feature(
            "landlock domains", "Linux 5.19",
            "functions without a container can look into programs of other functions with the same uid",
            "Set kernel.yama.ptrace_scope=1, and give functions without a container uids of their own (RunAs).",
        ),
        Feature(
            "session keyring", "CONFIG_KEYS", "none: functions are refused key calls", "Nothing to do.",
        ),
        Feature(
            "oom score", "CAP_SYS_RESOURCE", "when memory runs out the core is killed as soon as a function",
            "Run the core with CAP_SYS_RESOURCE.",
        ),
        Feature(
            "mount_setattr", "Linux 5.12", "none: mounts are made read-only one by one", "Nothing to do.",
        ),
        Feature(
            "close_range", "Linux 5.9", "none: descriptors are closed one by one, so starts are slower",
            "Nothing to do.",
        ),
        Feature(
            "pidfd", "Linux 5.3", "none: `stop` finds the core by its number and title alone", "Nothing to do.",
        ),
    )
}  # fmt: skip


def try_mount_setattr() -> None:
    """Raises OSError where the kernel lacks it; changes nothing."""
    try:
        kernel.mount_setattr(b"/", 0, 0, 0)
    except PermissionError:
        pass  # it is there; what is missing is told as "namespaces"


def try_close_range() -> None:
    """Raises OSError where the kernel lacks it; no descriptor has such a number."""
    kernel.close_range(0x7FFF_FFF0, 0x7FFF_FFFF)


def try_pidfd() -> None:
    """Raises OSError where the kernel lacks it."""
    os.close(kernel.pidfd_open(os.getpid()))


CALLS: Final[dict[str, Callable[[], None]]] = {
    "mount_setattr": try_mount_setattr, "close_range": try_close_range, "pidfd": try_pidfd,
}  # fmt: skip


def call_problem(name: str) -> str | None:
    """Why one of CALLS cannot be had, or None."""
    try:
        CALLS[name]()
    except OSError as error:
        return os.strerror(error.errno or 0)
    return None


def device_problem(layout: Layout) -> str | None:
    """Why devices cannot be ruled, or None."""
    if layout.find("devices") is not None:
        return None
    if layout.unified is None:
        return "neither a v1 devices controller nor a v2 tree"
    try:
        os.close(kernel.load_device_program(device_program(ALWAYS)))
    except OSError as error:
        return f"device program refused: {error.strerror}"
    return None


def group_problems(layout: Layout, tops: Iterable[str]) -> dict[str, str]:
    """Missing features of control groups, by name; `tops` are directories of ours, in which the files of a group that
    may have limits can be seen."""
    found: dict[str, str] = {}
    for name in ("memory", "pids", "cpu"):
        if layout.find(name) is None:
            found[f"{name} controller"] = "not bound to any hierarchy"
    if problem := device_problem(layout):
        found["device rules"] = problem
    memory = layout.find("memory")
    files = {name for top in tops for name in _names(top)}
    limit = "memory.max" if memory is not None and memory.version == 2 else "memory.limit_in_bytes"
    if memory is not None and limit in files:
        swap = "memory.swap.max" if memory.version == 2 else "memory.memsw.limit_in_bytes"
        if swap not in files and _has_swap():
            found["swap accounting"] = f"no {swap}"
        if memory.version == 2 and "memory.oom.group" not in files:
            found["group kill"] = "no memory.oom.group"
    if layout.unified is not None and files and "cgroup.kill" not in files:
        found["cgroup.kill"] = "no cgroup.kill"
    return found


def other_problems() -> dict[str, str]:
    """Missing features that are found without a child and without a control group."""
    found: dict[str, str] = {}
    if not os.path.exists("/proc/self/ns/cgroup"):
        found["cgroup namespaces"] = "no /proc/self/ns/cgroup"
    if not os.path.exists("/proc/key-users"):
        found["session keyring"] = "no /proc/key-users"
    version = kernel.landlock_abi()
    shown = f"Landlock ABI {version}" if version else "no Landlock"
    if version < LANDLOCK_SCOPES_ABI:
        found["landlock scopes"] = shown
    if version < LANDLOCK_DOMAIN_ABI:
        found["landlock domains"] = shown
    for name in CALLS:
        if problem := call_problem(name):
            found[name] = problem
    return found


def told(problems: dict[str, str]) -> list[str]:
    """The lines for the log, in the table's order."""
    return [f"{feature.told} [{problems[name]}]" for name, feature in LADDER.items() if name in problems]


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _has_swap() -> bool:
    try:
        return len(read_text("/proc/swaps").splitlines()) > 1
    except OSError:
        return False
