"""From a validated request to the bytes that the executor (ext/kernel.pyx) runs in the forked child.

This file is what a function's container *is*, top to bottom in the order of execution (sandbox.md section 3):

    charged   cgroups first, so that every page is paid for by the function
    apart     own mount, IPC, UTS and cgroup namespaces (the PID namespace comes with the fork)
    rooted    overlay of the host's / with a size-limited tmpfs on top, or read-only binds where overlay fails
    furnished fresh /proc, five device nodes, /tmp, /lambda, /runtime, volumes, granted devices
    enclosed  pivot_root, the host's tree detached
    disarmed  only descriptors 0-3, no capabilities, own ids, parent-death signal, no_new_privs, filter

Everything the host shows is hidden, replaced or read-only before the first line of a function's code.
"""

from __future__ import annotations

import functools
import os
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ggfast._ext import kernel
from ggfast.sandbox import uncontained
from ggfast.sandbox.host import Host, resolver_directory
from ggfast.sandbox.paths import Found, below_any
from ggfast.sandbox.policy import WorkerSpec

CODE: Final = {name: number for number, (name, _) in enumerate(kernel.OPERATIONS)}

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_REC, MS_PRIVATE = 0x4000, 1 << 18
MNT_DETACH: Final = 2
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
# Abstract unix sockets and signals. No file rules: they would forbid what the mounts forbid already, tell a function
# EXDEV where it moves files, and cost each open() a quarter more (4.3 instead of 3.5 us on x86, Linux 6.18).
LANDLOCK_SCOPES: Final = 3
STAGING: Final = "s"  # a directory in the supervisor's working directory: each container's tmpfs goes there

# Names in the tmpfs: upper and work directory of the overlay, merged root, and what is bound into it.
UPPER, WORK, ROOT, TMP, SHM, VAR_TMP = "u", "w", "m", "t", "h", "v"
OPAQUE: Final = (("/run", 0o755), ("/var", 0o755))
NODES: Final = (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9))
LINKS: Final = (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2"))
DEV_OPTIONS: Final = "size=64k,nr_inodes=128,mode=755"


@dataclass(frozen=True, slots=True)
class Plan:
    """The bytes, and for each operation what a failure of it is called."""

    data: bytes
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What one container gets besides its request: groups to join, descriptors, and what was found on disk."""

    join_first: Sequence[str]
    by_spare: bool  # a spare has joined the groups and built the house
    hidden: Sequence[str]
    runtime_dir: str
    mounts: Sequence[Found]
    devices: Sequence[Found]
    title: str


class Builder:
    """Collects operations; one method per operation of the executor."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._steps: list[str] = []

    def add(
        self, step: str, operation: str, *strings: str | bytes, n: Sequence[int] = (), optional: bool = False
    ) -> None:
        """Append one operation; `step` is what its failure is called."""
        texts = [text if isinstance(text, bytes) else os.fsencode(text) for text in strings]
        body = b"".join(struct.pack("<I", len(text)) + text + b"\0" for text in texts)
        size = (kernel.HEADER_BYTES + len(body) + 7) & ~7
        numbers = [*n, 0, 0, 0, 0][:4]
        head = struct.pack("<BBBBI4Q", CODE[operation], int(optional), len(texts), 0, size, *numbers)
        self._parts.append((head + body).ljust(size, b"\0"))
        self._steps.append(step)

    def mount(self, step: str, source: str, target: str, kind: str, flags: int, data: str = "") -> None:
        """mount(2) relative to the staging directory."""
        self.add(step, "mount", source, target, kind, data, n=(flags,))

    def remount(self, step: str, target: str, flags: int) -> None:
        """Change the flags of one mount."""
        self.mount(step, "", target, "", MS_REMOUNT | MS_BIND | flags)

    def directory(self, step: str, path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        """mkdir with exactly this mode and owner."""
        self.add(step, "mkdir", path, n=(mode, uid, gid))

    def bind(self, step: str, source: str, destination: str, flags: int, found: Found) -> None:
        """Bind a host path into the new root, both walked without links; it must still be what was found."""
        node = found.kind in (stat.S_IFCHR, stat.S_IFBLK)
        create = stat.S_IFDIR if found.kind == stat.S_IFDIR else stat.S_IFREG
        numbers = (flags, found.kind, found.node if node else 0, create)
        self.add(step, "bind", source, destination, n=numbers)

    def extend(self, part: Plan) -> None:
        """Append operations made earlier."""
        self._parts.append(part.data)
        self._steps.extend(part.steps)

    def finish(self) -> Plan:
        """The plan."""
        return Plan(b"".join(self._parts), tuple(self._steps))


DIRECTORY: Final = Found(stat.S_IFDIR, 0, 0)


def build(spec: WorkerSpec, around: Surroundings, host: Host) -> Plan:
    """The whole plan; looks at the host's disk only for owners of directories above hidden trees."""
    plan = Builder()
    if not around.by_spare:
        plan.extend(beginning(around.join_first))
        plan.extend(_built(house_of(spec, around.hidden, host)))
    for device, found in zip(spec.devices, around.devices, strict=True):
        # A directory of the host: nobody makes or removes nodes there. What may be done to them the rules say.
        flags = MS_NOSUID | MS_NOEXEC | (MS_RDONLY if found.kind == stat.S_IFDIR else 0)
        plan.bind(f"device {device.path}", device.path, device.path, flags, found)
    plan.remount("seal /dev", ROOT + "/dev", MS_RDONLY | MS_NOSUID | MS_NOEXEC)
    _contents(plan, spec, around)
    if not host.overlay:
        plan.remount("seal the root", ROOT, MS_RDONLY | MS_NOSUID | MS_NODEV)
    _enclose(plan)
    _disarm(plan, spec, around, host)
    return plan.finish()


@dataclass(frozen=True, slots=True)
class House:
    """What a container's root depends on before a function's own paths come into it."""

    tmpfs_kb: int
    sysfs: bool
    hidden: tuple[str, ...]
    host: Host


def house_of(spec: WorkerSpec, hidden: Sequence[str], host: Host) -> House:
    """The house a request asks for, as the disk is now."""
    found = tuple(path for path in sorted(set(hidden)) if _can_hide(path, host))
    return House(spec.tmpfs_kb, spec.sysfs, found, host)


def ahead(join_first: Sequence[str], house: House) -> Plan:
    """What a spare does before it gets its request."""
    plan = Builder()
    plan.extend(beginning(join_first))
    plan.extend(_built(house))
    plan.add("title", "title", "ggfast-spare")
    return plan.finish()


@functools.lru_cache(maxsize=32)  # one entry per memory size in use, times root or not
def _built(house: House) -> Plan:
    """The part that differs little between functions, made once: two thirds of the operations."""
    host = house.host
    plan = Builder()
    separate(plan, cgroup_namespace=host.cgroup_namespaces)
    _stage(plan, house.tmpfs_kb)
    if host.overlay:
        _overlay_root(plan, house.hidden, host)
    else:
        _bind_root(plan, house.hidden, host)
    _devices(plan)
    _proc(plan, host)
    if house.sysfs:
        flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
        plan.mount("mount /sys", "sysfs", ROOT + "/sys", "sysfs", flags)
    return plan.finish()


def container_trial() -> Builder:
    """The part of a plan that decides whether this machine can have containers at all."""
    plan = Builder()
    separate(plan, cgroup_namespace=False)
    plan.mount("own /proc", "proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    return plan


def overlay_trial(directory: str = ".") -> Builder:
    """The part of a plan that decides whether this machine can have overlay roots; `directory` holds STAGING."""
    plan = Builder()
    plan.add("enter trial", "chdir", directory)
    separate(plan, cgroup_namespace=False)
    plan.mount("trial tmpfs", "ggfast", STAGING, "tmpfs", MS_NOSUID | MS_NODEV, "size=256k,mode=755")
    plan.add("enter staging", "chdir", STAGING)
    for name in (UPPER, WORK, ROOT):
        plan.directory("make staging", name)
    plan.directory("opaque /run", UPPER + "/run")
    plan.add("opaque /run", "opaque", UPPER + "/run")
    plan.mount("mount overlay", "overlay", ROOT, "overlay", MS_NOSUID | MS_NODEV, _overlay_options())
    return plan


def _overlay_options() -> str:
    return f"lowerdir=/,upperdir={UPPER},workdir={WORK}"


def beginning(join_first: Sequence[str]) -> Plan:
    """What every worker does first and no request changes."""
    plan = Builder()
    plan.add("signals", "signals", n=(0,))
    plan.add("umask", "umask", n=(0o022,))
    # Workers die before the daemon when the whole machine runs out of memory.
    plan.add("oom score", "write", "/proc/self/oom_score_adj", "500", optional=True)
    for path in join_first:
        plan.add(f"join {path}", "write", path, "0")
    return plan.finish()


def separate(plan: Builder, *, cgroup_namespace: bool) -> None:
    """Namespaces of its own; the PID namespace comes with the fork."""
    plan.add("new session", "setsid")
    flags = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | (CLONE_NEWCGROUP if cgroup_namespace else 0)
    plan.add("unshare namespaces", "unshare", n=(flags,))
    # Private, not slave: what the host mounts below a volume later would come in with the host's own flags, writable
    # inside a read-only volume. The host's tree is detached at the end, so its unmounts need not be followed.
    plan.mount("private mounts", "", "/", "", MS_REC | MS_PRIVATE)


def _stage(plan: Builder, tmpfs_kb: int) -> None:
    options = f"size={tmpfs_kb}k,nr_inodes={max(1024, tmpfs_kb // 4)},mode=755"
    plan.mount("staging tmpfs", "ggfast", STAGING, "tmpfs", MS_NOSUID | MS_NODEV, options)
    plan.add("enter staging", "chdir", STAGING)
    for name in (UPPER, WORK, ROOT):
        plan.directory("make staging", name)
    for name in (TMP, SHM):
        plan.directory("make staging", name, 0o1777)


def _overlay_root(plan: Builder, hidden: Sequence[str], host: Host) -> None:
    made: set[str] = set()
    for path, mode in OPAQUE:
        plan.directory(f"opaque {path}", UPPER + path, mode)
        plan.add(f"opaque {path}", "opaque", UPPER + path)
        made.add(path)
    _furnish_var(plan, UPPER)
    covered = [path for path, _ in OPAQUE] + ["/tmp", "/dev", "/proc", "/sys"]
    later = []
    for path in hidden:
        if below_any(path, covered) is not None:
            continue
        if below_any(path, host.partitions) is not None:
            later.append(path)
        else:
            _parents(plan, path, made)
            plan.add(f"hide {path}", "whiteout", UPPER + path)
            covered.append(path)
    plan.mount("mount overlay", "overlay", ROOT, "overlay", MS_NOSUID | MS_NODEV, _overlay_options())
    for partition in host.partitions:
        if below_any(partition, covered) is None:
            plan.bind(f"show {partition}", partition, partition, MS_RDONLY | MS_NOSUID | MS_NODEV, _kind(partition))
    for path in later:
        _cover(plan, path)


def _can_hide(path: str, host: Host) -> bool:
    """What exists, and where whiteouts work also what does not yet: it may be made while the function runs."""
    if os.path.lexists(path):
        return True
    return host.overlay and os.path.isdir(os.path.dirname(path)) and below_any(path, host.partitions) is None


def _parents(plan: Builder, path: str, made: set[str]) -> None:
    """Directories above a whiteout, with the owner and mode of those they stand for."""
    above = os.path.dirname(path)
    if above == "/" or above in made:
        return
    _parents(plan, above, made)
    status = os.lstat(above)
    plan.directory(f"hide {path}", UPPER + above, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    made.add(above)


def _bind_root(plan: Builder, hidden: Sequence[str], host: Host) -> None:
    """Where overlay cannot be had: an empty root, the host's top-level directories bound read-only into it."""
    plan.mount("bind root", ROOT, ROOT, "", MS_BIND)
    # Mount points can be made in directories of ours alone: those that are there for it are.
    own = ["tmp", "dev", "proc", "sys", "lambda", "runtime", "mnt", "media", *(path[1:] for path, _ in OPAQUE)]
    for name in own:
        plan.directory(f"make /{name}", f"{ROOT}/{name}")
    _furnish_var(plan, ROOT)
    plan.directory("make /var/tmp", VAR_TMP, 0o1777)
    plan.mount("mount /var/tmp", VAR_TMP, ROOT + "/var/tmp", "", MS_BIND)  # writable when the root is sealed
    own.append("lost+found")
    covered = ["/" + name for name in own]
    for name, link in host.top_level:
        path = "/" + name
        if name in own or path in hidden:
            covered.append(path)
        elif link:
            plan.add(f"link {path}", "symlink", link, ROOT + path)
        else:
            plan.bind(f"show {path}", path, path, MS_RDONLY | MS_NOSUID | MS_NODEV, DIRECTORY)
    for partition in host.partitions:
        if below_any(partition, covered) is None:
            plan.bind(f"show {partition}", partition, partition, MS_RDONLY | MS_NOSUID | MS_NODEV, _kind(partition))
    for path in hidden:
        if below_any(path, covered) is None:
            _cover(plan, path)
            covered.append(path)


def _furnish_var(plan: Builder, base: str) -> None:
    plan.directory("make /var/tmp", base + "/var/tmp", 0o1777)
    plan.add("make /var/run", "symlink", "/run", base + "/var/run")


def _cover(plan: Builder, path: str) -> None:
    """Hide below a bind, where no whiteout works: an empty read-only file system, or an unreadable node."""
    if os.path.isdir(path):
        plan.mount(f"hide {path}", "ggfast", ROOT + path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV, "size=4k,mode=0")
    else:
        plan.bind(f"hide {path}", "/dev/null", path, MS_RDONLY | MS_NOSUID | MS_NOEXEC, NULL_NODE)


NULL_NODE: Final = Found(stat.S_IFCHR, 0, os.makedev(1, 3))


def _kind(path: str) -> Found:
    return DIRECTORY if os.path.isdir(path) else Found(stat.S_IFREG, 0, 0)


def _proc(plan: Builder, host: Host) -> None:
    plan.mount("mount /proc", "proc", ROOT + "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for name in host.proc_read_only:
        path = f"{ROOT}/proc/{name}"
        plan.mount(f"protect /proc/{name}", path, path, "", MS_BIND)
        plan.remount(f"protect /proc/{name}", path, MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for name in host.proc_masked:
        # The source is the null device made above, so nobody can have exchanged it for something readable.
        plan.mount(f"mask /proc/{name}", ROOT + "/dev/null", f"{ROOT}/proc/{name}", "", MS_BIND)


def _devices(plan: Builder) -> None:
    dev = ROOT + "/dev"
    plan.mount("mount /dev", "ggfast", dev, "tmpfs", MS_NOSUID | MS_NOEXEC, DEV_OPTIONS)
    for name, minor in NODES:
        plan.add(f"make /dev/{name}", "node", f"{dev}/{name}", n=(0o666, 1, minor))
    for name, target in LINKS:
        plan.add(f"make /dev/{name}", "symlink", target, f"{dev}/{name}")
    plan.directory("make /dev/shm", dev + "/shm")
    plan.mount("mount /dev/shm", SHM, dev + "/shm", "", MS_BIND)


def _contents(plan: Builder, spec: WorkerSpec, around: Surroundings) -> None:
    read_only = MS_RDONLY | MS_NOSUID | MS_NODEV
    plan.mount("mount /tmp", TMP, ROOT + "/tmp", "", MS_BIND)
    plan.bind("code directory", spec.code_dir, "/lambda", read_only, DIRECTORY)
    if around.runtime_dir:
        plan.bind("runtime directory", around.runtime_dir, "/runtime", read_only, DIRECTORY)
    resolver = resolver_directory()
    if resolver is not None:
        _resolver(plan, resolver)
    for number, (mount, found) in enumerate(zip(spec.mounts, around.mounts, strict=True)):
        flags = MS_NOSUID | MS_NODEV | (0 if mount.writable else MS_RDONLY)
        plan.bind(f"volume {mount.source} at {mount.destination}", mount.source, mount.destination, flags, found)
        if mount.private:
            _private_copy(plan, mount.destination, f"p{number}")


def _private_copy(plan: Builder, destination: str, name: str) -> None:
    """Over a read-only bind: what is written goes to the container's tmpfs, counts as its memory and ends with it."""
    step = f"private copy at {destination}"
    plan.directory(step, name)
    plan.directory(step, f"{name}/u", 0o777)
    plan.directory(step, f"{name}/w")
    options = f"lowerdir={ROOT}{destination},upperdir={name}/u,workdir={name}/w"
    plan.mount(step, "overlay", ROOT + destination, "overlay", MS_NOSUID | MS_NODEV, options)


def _resolver(plan: Builder, directory: str) -> None:
    """/etc/resolv.conf points into a hidden tree. The directory is bound, so that a long-lived function sees
    the file replaced; unless a service keeps a socket there, which a read-only mount does not protect: then only
    the file is."""
    if below_any(directory, ("/run", "/var", "/tmp")) is None:
        return
    if directory.count("/") >= 2 and os.path.isdir(directory) and not has_sockets(directory):
        plan.bind("resolver directory", directory, directory, MS_RDONLY | MS_NOSUID | MS_NODEV, DIRECTORY)
        return
    path = os.path.realpath("/etc/resolv.conf")
    if os.path.isfile(path):
        plan.bind("resolver file", path, path, MS_RDONLY | MS_NOSUID | MS_NODEV, Found(stat.S_IFREG, 0, 0))


def has_sockets(directory: str) -> bool:
    """Whether a socket or FIFO lies anywhere below; also when that cannot be told."""
    failures: list[OSError] = []
    for where, _, names in os.walk(directory, onerror=failures.append):
        for name in names:
            try:
                mode = os.lstat(os.path.join(where, name)).st_mode
            except OSError:
                continue  # gone since
            if stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode):
                return True
    return bool(failures)


def _enclose(plan: Builder) -> None:
    plan.add("enter root", "chdir", ROOT)
    plan.add("pivot root", "pivot")
    plan.add("detach host", "umount", ".", n=(MNT_DETACH,))
    plan.add("enter /", "chdir", "/")


def _disarm(plan: Builder, spec: WorkerSpec, around: Surroundings, host: Host) -> None:
    if spec.hostname:
        plan.add("host name", "hostname", spec.hostname)
    for resource, value in host.rlimits:
        plan.add(f"resource limit {resource}", "rlimit", n=(resource, value, value))
    plan.add("title", "title", around.title)
    _become(plan, spec)
    plan.add("no_new_privs", "no_new_privs")
    if host.landlock_scopes:
        plan.add("landlock scopes", "landlock", n=(LANDLOCK_SCOPES,))
    plan.add("seccomp filter", "seccomp", host.seccomp_filter, n=(host.seccomp_flags,))


def _become(plan: Builder, spec: WorkerSpec) -> None:
    """Nothing open but 0 to 3 and the error pipe, these ids, no capability, and an end with the parent."""
    plan.add("descriptors", "descriptors", n=kernel.WORKER_DESCRIPTORS)
    plan.add("session keyring", "keyring", optional=True)  # ENOSYS without CONFIG_KEYS
    plan.add("bounding set", "bounding", n=(0,))
    plan.add("groups", "groups", struct.pack(f"<{len(spec.groups)}I", *spec.groups))
    plan.add("ids", "ids", n=(spec.uid, spec.gid))
    plan.add("capabilities", "nocaps")
    plan.add("parent death signal", "pdeathsig")  # after the ids: a change of them clears it


def build_uncontained(spec: WorkerSpec, join_first: Sequence[str], title: str, host: Host, *, setns: bool) -> Plan:
    """An ordinary process of the host: its tree, its processes, its devices as far as the ids reach.

    What is left of the rest: groups to join, a session and a key ring of its own, nothing open, no capability, the
    filter of uncontained.py, and a Landlock domain, so that it cannot look into other functions of its uid. `setns`:
    the request brings the host's mount namespace, which the zygote has not.
    """
    plan = Builder()
    plan.extend(beginning(join_first))
    plan.add("new session", "setsid")
    if setns:
        plan.add("mounts of the host", "setns", n=(kernel.NAMESPACE_DESCRIPTOR, CLONE_NEWNS))
    for resource, soft, hard in uncontained.resource_limits():
        plan.add(f"resource limit {resource}", "rlimit", n=(resource, soft, hard))
    plan.add("title", "title", title)
    _become(plan, spec)
    # As the function: what it may not enter is no working directory of it.
    plan.add("working directory", "chdir", spec.code_dir)
    plan.add("no_new_privs", "no_new_privs")
    if host.landlock_domains:
        plan.add("landlock domain", "domain")
    plan.add("seccomp filter", "seccomp", host.seccomp_uncontained, n=(host.seccomp_flags,))
    return plan.finish()
