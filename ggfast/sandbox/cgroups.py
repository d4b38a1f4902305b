"""Control groups of workers, v1, v2 and both at once, by direct file writes (sandbox.md section 6).

One named subtree `ggfast-<name>` lies below the core's own group in every hierarchy that is used, with one
directory per instance:

    <hierarchy>/<own group>/ggfast-<name>/<instance>

On v2 a group whose processes are not all ours (a login session's, say) cannot have children with controllers: there
the subtree lies below the nearest group above that can.

Nothing here assumes where a hierarchy is mounted or which group is ours: both are read from /proc.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ggfast.errors import SandboxFailed
from ggfast.sandbox.devices import DeviceRule, attach_devices

PREFIX: Final = "ggfast-"
CONTROLLERS: Final = ("memory", "pids", "cpu", "cpuacct", "devices")
LEAF: Final = "supervisor"  # v2: where the core's own processes go, so that its group can have children


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted cgroup tree: its controllers and the directory of our own group in it."""

    version: int
    mount: str
    controllers: frozenset[str]
    own: str


@dataclass(frozen=True, slots=True)
class Layout:
    """What this machine offers."""

    hierarchies: tuple[Hierarchy, ...]

    def find(self, controller: str) -> Hierarchy | None:
        """The hierarchy a controller is bound to."""
        return next((h for h in self.hierarchies if controller in h.controllers), None)

    @property
    def unified(self) -> Hierarchy | None:
        """The v2 tree, with or without controllers."""
        return next((h for h in self.hierarchies if h.version == 2), None)

    @property
    def kind(self) -> str:
        """`v1`, `v2`, `hybrid` or `none`."""
        versions = {h.version for h in self.hierarchies if h.controllers & set(CONTROLLERS)}
        if versions == {1}:
            return "hybrid" if self.unified else "v1"
        return "v2" if versions == {2} else "hybrid" if versions else "none"


def read_text(path: str, maximum: int = 1 << 20) -> str:
    """A small file of /proc or a cgroup; raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while maximum > 0 and (part := os.read(fd, min(maximum, 65536))):
            parts.append(part)
            maximum -= len(part)
        return b"".join(parts).decode("utf-8", "surrogateescape")
    finally:
        os.close(fd)


def write_text(path: str, text: str) -> None:
    """One write(2) to a control file; raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def unescape(path: str) -> str:
    """Undo the octal escapes of mountinfo."""
    for code, character in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        path = path.replace(code, character)
    return path


def detect(mountinfo: str, own_groups: str, base: str = "") -> Layout:
    """The layout from the texts of /proc/self/mountinfo and /proc/self/cgroup; `base` prefixes all paths (tests)."""
    groups: dict[str, str] = {}
    for line in own_groups.splitlines():
        _, names, path = line.split(":", 2)
        groups.update(dict.fromkeys(names.split(","), path))  # "" is the v2 entry
    found: dict[tuple[int, frozenset[str]], Hierarchy] = {}
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        kind = fields[fields.index("-") + 1]
        if kind not in ("cgroup", "cgroup2"):
            continue
        root, mount = unescape(fields[3]), base + unescape(fields[4])
        version = 2 if kind == "cgroup2" else 1
        if version == 2:
            controllers = frozenset(_controllers_of(mount))
            group = groups.get("", "/")
        else:
            controllers = frozenset(fields[-1].split(",")) & set(groups)
            if not controllers:
                continue  # a controller this kernel does not bind
            group = groups[min(controllers)]
        inside = group[len(root) :] if root != "/" and (group + "/").startswith(root + "/") else group
        own = (mount + "/" + inside.strip("/")).rstrip("/")
        found.setdefault((version, controllers), Hierarchy(version, mount, controllers, own))
    return Layout(tuple(found.values()))


def _controllers_of(mount: str) -> list[str]:
    try:
        return read_text(mount + "/cgroup.controllers").split()
    except OSError:
        return []


def this_layout() -> Layout:
    """The layout of this process."""
    return detect(read_text("/proc/self/mountinfo"), read_text("/proc/self/cgroup"))


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a group used; kilobytes and milliseconds, -1 where the kernel does not say."""

    memory_kb: int
    memory_peak_kb: int
    memory_limit_kb: int
    oom_kills: int
    cpu_ms: int
    pids: int


class Group:
    """The directories of one instance, one per hierarchy. Without a container some or all controllers may be missing,
    and what the instance started may still be in it when it has ended."""

    __slots__ = ("_directories", "_others", "_sweeps", "instance", "memory_limit_kb")

    def __init__(
        self,
        instance: str,
        directories: dict[str, tuple[int, str]],
        others: Sequence[str] = (),
        *,
        sweeps: bool = False,
    ) -> None:
        self.instance = instance
        self.memory_limit_kb = 0
        self._directories = directories  # controller -> (version, directory)
        self._others = others  # joined for their members' sake, or for a device program
        self._sweeps = sweeps

    @property
    def directories(self) -> list[str]:
        """Every directory once."""
        return list(dict.fromkeys([*(path for _, path in self._directories.values()), *self._others]))

    @property
    def join_first(self) -> list[str]:
        """cgroup.procs files to enter before anything else, so that every page is charged."""
        return [path + "/cgroup.procs" for path in self.directories]

    def limit(self, memory_kb: int, pids_max: int, rules: Sequence[DeviceRule] | None) -> None:
        """Write all limits; raises SandboxFailed naming the file. memory_kb 0: none; `rules` None: no device rules."""
        self.memory_limit_kb = memory_kb
        if memory_kb:
            self._limit_memory(str(memory_kb * 1024))
        if "pids" in self._directories:
            _set(self._directories["pids"][1], "pids.max", str(pids_max))
        if rules is None:
            return
        version, devices = self._directories.get("devices", (2, self._others[0] if self._others else ""))
        if version == 1:
            _set(devices, "devices.deny", "a")
            for rule in rules:
                _set(devices, "devices.allow", rule.v1_line)
        elif devices:
            attach_devices(devices, rules)

    def _limit_memory(self, size: str) -> None:
        if "memory" not in self._directories:
            text = "found no memory controller to limit it with, expected a function without MemorySize"
            raise SandboxFailed("cgroups", errno.ENOSYS, text)
        version, memory = self._directories["memory"]
        if version == 2:
            _set(memory, "memory.max", size)
            _set(memory, "memory.swap.max", "0", optional=True)  # absent without swap accounting
            _set(memory, "memory.oom.group", "1", optional=True)  # Linux 4.19
        else:
            _set(memory, "memory.limit_in_bytes", size)
            _set(memory, "memory.memsw.limit_in_bytes", size, optional=True)

    def oom_kills(self) -> int:
        """How many tasks of this group the kernel killed for its memory limit."""
        if "memory" not in self._directories:
            return 0
        version, memory = self._directories["memory"]
        name = "memory.events" if version == 2 else "memory.oom_control"
        return _field(memory + "/" + name, "oom_kill")

    def oom_event(self) -> int | None:
        """v1: an eventfd that fires when the group runs out of memory (and when it is removed). None on v2,
        where the kernel kills the whole group by itself, and without a limit."""
        if not self.memory_limit_kb:
            return None
        version, memory = self._directories["memory"]
        if version == 2:
            return None
        event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            control = os.open(memory + "/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                write_text(memory + "/cgroup.event_control", f"{event} {control}")
            finally:
                os.close(control)
        except OSError:
            os.close(event)
            return None
        return event

    def statistics(self) -> Statistics:
        """Current use; never raises."""
        version, memory = self._directories.get("memory", (0, ""))
        now, peak = (
            ("memory.current", "memory.peak")
            if version == 2
            else ("memory.usage_in_bytes", "memory.max_usage_in_bytes")
        )
        pids = self._directories.get("pids")
        return Statistics(
            _number(memory + "/" + now, 1024) if memory else -1,
            _number(memory + "/" + peak, 1024) if memory else -1,
            self.memory_limit_kb,
            self.oom_kills(),
            self._cpu_ms(),
            _number(pids[1] + "/pids.current", 1) if pids else -1,
        )

    def _cpu_ms(self) -> int:
        if "cpuacct" in self._directories:
            return _number(self._directories["cpuacct"][1] + "/cpuacct.usage", 1_000_000)
        unified = next((path for version, path in self._directories.values() if version == 2), None)
        return _field(unified + "/cpu.stat", "usage_usec") // 1000 if unified else -1  # needs no controller

    def remove(self) -> bool:
        """rmdir everything that is empty now; False while something is still busy. Without a container what is left in
        it is killed first."""
        done = True
        for path in self.directories:
            if self._sweeps:
                kill_members(path)
            done &= _remove(path)
        return done


class Tree:
    """The named subtree of one core. `refusal` says why containers are not possible, once prepared."""

    def __init__(self, layout: Layout, name: str) -> None:
        self.layout = layout
        self.name = PREFIX + name
        self.refusal: SandboxFailed | None = None
        self._tops: dict[str, tuple[int, str]] = {}
        self._unified_devices: str | None = None
        self._members: str | None = None

    @property
    def tops(self) -> list[str]:
        """Our directories, one per hierarchy in use."""
        more = [path for path in (self._unified_devices, self._members) if path]
        return list(dict.fromkeys([*(path for _, path in self._tops.values()), *more]))

    def prepare(self) -> None:
        """Make the subtree. Never raises: what is missing, or not ours to use, is a reason to refuse containers."""
        try:
            self._prepare()
        except (SandboxFailed, OSError) as error:
            self.refusal = error if isinstance(error, SandboxFailed) else _refused(str(error))
        if self.refusal is None and self.layout.find("memory") is None:
            self.refusal = _refused(
                "no memory controller: found none in /proc/self/mountinfo, expected one on cgroup v1 or v2",
                hint="Boot with `cgroup_enable=memory cgroup_memory=1`, or run functions with NoContainer.",
            )
        elif self.refusal is None and "devices" not in self._tops and self._unified_devices is None:
            self.refusal = _refused(
                "no device control: found neither the v1 devices controller nor a v2 tree",
                hint="Mount cgroup2 on /sys/fs/cgroup (Linux 4.15 or newer), or run functions with NoContainer.",
            )
        self._members = self._membership()

    def _prepare(self) -> None:
        unified = self.layout.unified
        devices = f"{unified.own}/{self.name}" if unified else ""
        if unified and unified.controllers & set(CONTROLLERS):
            devices, enabled = self._open_unified(unified)
            self._tops.update((name, (2, devices)) for name in enabled)
        for controller in CONTROLLERS:
            hierarchy = self.layout.find(controller)
            if hierarchy and hierarchy.version == 1:
                top = f"{hierarchy.own}/{self.name}"
                _make(top)
                self._tops[controller] = (1, top)
        if "devices" not in self._tops and unified is not None:
            _make(devices)
            self._unified_devices = devices

    def _membership(self) -> str | None:
        """A directory whose children hold whatever a function without a container has started; in the v2 tree where
        there is one, because it can be killed as one there."""
        if self._unified_devices:
            return self._unified_devices
        unified = [self.layout.unified] if self.layout.unified else []
        for hierarchy in (*unified, *self.layout.hierarchies):
            try:
                _make(f"{hierarchy.own}/{self.name}")
            except SandboxFailed:
                continue
            return f"{hierarchy.own}/{self.name}"
        return None

    def _open_unified(self, unified: Hierarchy) -> tuple[str, list[str]]:
        """v2: make the subtree in the own group or the nearest above that takes it; what works there. May refuse."""
        refusals = []
        directory = unified.own
        while True:
            try:
                enabled = self._open(directory, unified, leave=directory == unified.own)
                break
            except SandboxFailed as refusal:
                refusals.append(refusal)
            if directory == unified.mount:
                raise refusals[0]
            directory = directory.rpartition("/")[0]
        top = f"{directory}/{self.name}"
        _make(top)
        _enable(top, enabled)
        return top, enabled

    def _open(self, directory: str, unified: Hierarchy, *, leave: bool) -> list[str]:
        """Enable what there is of our controllers for the children of a group; raises SandboxFailed.

        A group with processes cannot have such children, the root excepted: `leave` moves us into a leaf first, and
        back when others stay behind.
        """
        wanted: list[str] = [name for name in ("memory", "pids", "cpu") if name in _controllers_of(directory)]
        if "memory" in unified.controllers and "memory" not in wanted:
            raise _refused(
                f"{directory}: no memory in cgroup.controllers", "Start the core as a service (Delegate=yes)."
            )
        leaf = f"{directory}/{LEAF}"
        leave = leave and (directory != unified.mount or os.path.exists(f"{directory}/cgroup.type"))
        if leave:
            _make(leaf)
            _set(leaf, "cgroup.procs", "0")
        try:
            _enable(directory, wanted)
        except SandboxFailed:
            if leave:
                _set(directory, "cgroup.procs", "0")
                _remove(leaf)
            raise
        return wanted

    def create(self, instance: str) -> Group:
        """The directories of one instance in a container; raises SandboxFailed."""
        if self.refusal is not None:
            raise self.refusal
        others = [f"{self._unified_devices}/{instance}"] if self._unified_devices else []
        return self._made(Group(instance, self._below(CONTROLLERS, instance), others))

    def create_uncontained(self, instance: str) -> Group:
        """Those of one without a container: what there is, possibly nothing. Raises SandboxFailed."""
        others = [f"{self._members}/{instance}"] if self._members else []
        controllers = [name for name in CONTROLLERS if name != "devices"]
        return self._made(Group(instance, self._below(controllers, instance), others, sweeps=True))

    def create_members(self, name: str) -> Group:
        """A group that limits nothing and whose members end when it is removed. Raises SandboxFailed."""
        return self._made(Group(name, {}, [f"{self._members}/{name}"] if self._members else [], sweeps=True))

    def _below(self, controllers: Sequence[str], instance: str) -> dict[str, tuple[int, str]]:
        found = {name: self._tops[name] for name in controllers if name in self._tops}
        return {name: (version, f"{top}/{instance}") for name, (version, top) in found.items()}

    @staticmethod
    def _made(group: Group) -> Group:
        for path in group.directories:
            try:
                _make(path)
            except SandboxFailed:
                group.remove()
                raise
        return group

    def close(self) -> None:
        """Remove the empty subtree at an orderly end."""
        for path in self.tops:
            _remove(path)


def _refused(text: str, hint: str = "") -> SandboxFailed:
    return SandboxFailed("cgroups", errno.ENOENT, text, hint=hint)


def drain_event(event: int) -> None:
    """Take what an `oom_event` has counted; one that has not fired is no error."""
    try:
        os.read(event, 8)
    except BlockingIOError:
        pass


def kill_members(directory: str) -> None:
    """SIGKILL to every process of a group; at once on v2 from Linux 5.14 on, one by one otherwise. Never raises."""
    try:
        write_text(directory + "/cgroup.kill", "1")
        return
    except OSError:
        pass
    try:
        for pid in read_text(directory + "/cgroup.procs").split():
            if int(pid) not in (0, os.getpid()):  # 0: a process outside this PID namespace
                os.kill(int(pid), signal.SIGKILL)
    except OSError:
        pass  # gone between reading and killing: the next round sees what is left


def _make(path: str) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        pass
    except OSError as error:
        raise SandboxFailed(
            "cgroups",
            error.errno or 0,
            f"mkdir {path}: {error.strerror}",
            hint="Is the tree delegated to this service?",
        ) from None


def _remove(path: str) -> bool:
    """rmdir; whether it is gone."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True


def _enable(directory: str, controllers: Sequence[str]) -> None:
    _set(directory, "cgroup.subtree_control", " ".join(f"+{name}" for name in controllers))


def _set(directory: str, name: str, value: str, *, optional: bool = False) -> None:
    try:
        write_text(f"{directory}/{name}", value)
    except OSError as error:
        if optional:
            return
        hint = ""
        if name == "cgroup.subtree_control" and error.errno == 16:
            hint = "Other processes share our group: start the core as a service of its own (Delegate=yes)."
        raise SandboxFailed(
            "cgroups", error.errno or 0, f"write {value!r} to {directory}/{name}: {error.strerror}", hint=hint
        ) from None


def _number(path: str, unit: int) -> int:
    try:
        return int(read_text(path)) // unit
    except (OSError, ValueError):
        return -1


def _field(path: str, name: str) -> int:
    """The number after `name` in a flat keyed file, 0 when absent."""
    try:
        for line in read_text(path).splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    except (OSError, ValueError):
        pass
    return 0
