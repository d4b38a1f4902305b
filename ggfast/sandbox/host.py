"""What this machine looks like to the plan builder, found out once when the supervisor starts."""

from __future__ import annotations

import os
import select
from dataclasses import dataclass, replace
from typing import Final

from ggfast._ext import kernel
from ggfast.sandbox import ladder, seccomp, uncontained
from ggfast.sandbox.cgroups import read_text, unescape
from ggfast.sandbox.disks import disk_majors, node_fault
from ggfast.sandbox.paths import below_any

# Separate partitions below these are bound read-only into every container; an overlay sees one mount only.
PARTITIONS_SHOWN: Final = ("/usr", "/opt", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/srv", "/home")
# Kernel interfaces and views of the host that are no place for programs.
FILESYSTEMS_NEVER_SHOWN: Final = frozenset(
    {"proc", "sysfs", "cgroup", "cgroup2", "devtmpfs", "devpts", "tmpfs", "autofs", "mqueue", "debugfs"}
    | {"tracefs", "securityfs", "configfs", "bpf", "pstore", "efivarfs", "fusectl", "hugetlbfs", "nsfs"}
)
# Of a fresh /proc: read-only for everybody, because write access there goes by uid and not by capability.
PROC_READ_ONLY: Final = (
    *("sys", "irq", "bus", "fs", "scsi", "acpi", "asound", "driver", "tty", "sysrq-trigger", "mtrr", "dynamic_debug"),
)
# The last ones tell uid 0 about everybody's memory, again without asking for a capability.
PROC_MASKED: Final = (
    *("kcore", "keys", "key-users", "timer_list", "timer_stats", "sched_debug", "kallsyms", "kmsg", "slabinfo"),
    *("kpagecount", "kpageflags", "kpagecgroup", "vmallocinfo", "pagetypeinfo", "page_owner", "latency_stats"),
)
RESOLVER: Final = "/etc/resolv.conf"


@dataclass(frozen=True, slots=True)
class Host:
    """Facts, not choices."""

    overlay: bool  # else the root is made of read-only binds
    cgroup_namespaces: bool
    partitions: tuple[str, ...]
    proc_read_only: tuple[str, ...]
    proc_masked: tuple[str, ...]
    block_majors: frozenset[int]  # of mounted file systems: never handed to functions
    top_level: tuple[tuple[str, str], ...]  # entries of / for the bind root: (name, link target or "")
    landlock_scopes: bool
    landlock_domains: bool
    seccomp_filter: bytes
    seccomp_uncontained: bytes  # for functions without a container
    seccomp_flags: int
    rlimits: tuple[tuple[int, int], ...]


def examine(*, overlay: bool) -> Host:
    """Look around; `overlay` is the result of trying it out. Blocking, about a millisecond. Raises SandboxFailed on
    an architecture without a table of system calls."""
    landlock = kernel.landlock_abi()
    mountinfo = read_text("/proc/self/mountinfo")
    return Host(
        overlay=overlay,
        cgroup_namespaces=os.path.exists("/proc/self/ns/cgroup"),
        partitions=find_partitions(mountinfo),
        proc_read_only=tuple(name for name in PROC_READ_ONLY if os.path.exists("/proc/" + name)),
        proc_masked=tuple(name for name in PROC_MASKED if os.path.exists("/proc/" + name)),
        block_majors=disk_majors(mountinfo, _swaps()),
        top_level=_top_level(),
        landlock_scopes=landlock >= ladder.LANDLOCK_SCOPES_ABI,
        landlock_domains=landlock >= ladder.LANDLOCK_DOMAIN_ABI,
        seccomp_filter=seccomp.filter_bytes(),
        seccomp_uncontained=uncontained.filter_bytes(),
        seccomp_flags=seccomp.install_flags(os.uname().release),
        rlimits=_rlimits(),
    )


class MountWatch:
    """Tells when file systems came or went since the last look, without reading the list."""

    def __init__(self) -> None:
        self._fd = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLPRI)  # the kernel says POLLERR|POLLPRI after a change
        self._looked = False

    def refreshed(self, host: Host) -> Host:
        """`host` as it is now; the same object when nothing changed. Takes a microsecond then."""
        if not self._poll.poll(0) and self._looked:
            return host
        self._looked = True
        mountinfo = read_text("/proc/self/mountinfo")
        return replace(host, partitions=find_partitions(mountinfo), block_majors=disk_majors(mountinfo, _swaps()))


def find_partitions(mountinfo: str) -> tuple[str, ...]:
    """Mount points to show besides `/`, parents first."""
    found = []
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        path, kind = unescape(fields[4]), fields[fields.index("-") + 1]
        if kind not in FILESYSTEMS_NEVER_SHOWN and below_any(path, PARTITIONS_SHOWN) is not None:
            found.append(path)
    return tuple(sorted(set(found)))


def _swaps() -> str:
    try:
        return read_text("/proc/swaps")
    except OSError:  # a kernel without swap
        return ""


def resolver_directory() -> str | None:
    """Where the resolver's configuration really lies when /etc/resolv.conf is a link out of /etc, else None."""
    real = os.path.realpath(RESOLVER)
    return None if os.path.dirname(real) == "/etc" else os.path.dirname(real)


def forbidden_node(kind: int, node: int, host: Host) -> str | None:
    """Why a device is never handed out: the kernel's memory, a disk the host lives on, or a raw door to one."""
    return node_fault(kind, node, host.block_majors)


def _top_level() -> tuple[tuple[str, str], ...]:
    entries = []
    for entry in sorted(os.scandir("/"), key=lambda entry: entry.name):
        if entry.is_symlink():
            entries.append((entry.name, os.readlink(entry.path)))
        elif entry.is_dir():
            entries.append((entry.name, ""))
    return tuple(entries)


def _rlimits() -> tuple[tuple[int, int], ...]:
    """(resource, value): CORE, NOFILE, MEMLOCK; never above what we have ourselves."""
    wanted = {"Max core file size": (4, 0), "Max open files": (7, 1024), "Max locked memory": (8, 65536)}
    result = []
    for line in read_text("/proc/self/limits").splitlines():
        for title, (number, value) in wanted.items():
            if line.startswith(title):
                hard = line[26:].split()[1]  # columns: name, soft, hard, unit
                result.append((number, value if hard == "unlimited" else min(value, int(hard))))
    return tuple(result)
