"""Tries each kernel feature that containers use, for `ggfast-core doctor`.

Every answer comes from an attempt in a throw-away child with namespaces of its own, never from a version
number; nothing of the host is changed. What is not `required` has a fall-back, named in `advice`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ggfast._ext import kernel
from ggfast.errors import SandboxFailed
from ggfast.sandbox import plan as plans
from ggfast.sandbox import privileges, seccomp, trial
from ggfast.sandbox.cgroups import Layout, read_text, this_layout
from ggfast.sandbox.devices import ALWAYS, device_program

KERNEL_ADVICE = "Use a kernel with this feature; without it functions can only run with NoContainer."


@dataclass(frozen=True, slots=True)
class Probe:
    """One feature: whether it is there, whether functions need it, and what to do when it is missing."""

    name: str
    ok: bool
    required: bool
    found: str
    expected: str
    advice: str


def probe_all() -> list[Probe]:
    """Every feature, in the order in which a container uses them. Needs root; blocks for some tens of
    milliseconds; never raises for a missing feature."""
    return [*_identity(), *_control_groups(this_layout()), *_container(), *_comfort()]


def isolation_level(probes: list[Probe]) -> str:
    """What functions get on this machine, in one sentence."""
    missing = [probe.name for probe in probes if probe.required and not probe.ok]
    if missing:
        return f"none: containers are not possible (missing: {', '.join(missing)}); only NoContainer functions run"
    lesser = [probe.name for probe in probes if not probe.ok]
    if lesser:
        return f"full containers with fall-backs (missing: {', '.join(lesser)})"
    return "full containers"


def _attempt(plan: plans.Builder) -> str | None:
    try:
        return trial.attempt(plan)
    except OSError as error:
        return f"fork into a PID namespace: {error.strerror}"


def _probe(name: str, problem: str | None, expected: str, advice: str, *, required: bool) -> Probe:
    return Probe(name, problem is None, required, problem or "works", expected, advice)


def _identity() -> Iterator[Probe]:
    effective = int(read_text("/proc/self/status").split("CapEff:")[1].split()[0], 16)
    missing = [str(number) for number in privileges.SPAWNER if not effective >> number & 1]
    problem = f"capabilities {', '.join(missing)} missing" if missing else None
    advice = "Run as root; in an outer container, run that one privileged."
    yield _probe("capabilities", problem, "those of root", advice, required=True)


def _control_groups(layout: Layout) -> Iterator[Probe]:
    for name, required, advice in (
        ("memory", True, "Boot with `cgroup_enable=memory cgroup_memory=1` and mount the cgroup file systems."),
        ("pids", False, "Functions' processes are bounded by memory alone. Enable CONFIG_CGROUP_PIDS."),
        ("cpu", False, "Functions share the processor without weights. Enable CONFIG_CGROUP_SCHED."),
    ):
        hierarchy = layout.find(name)
        found = f"cgroup v{hierarchy.version} at {hierarchy.mount}" if hierarchy else "not bound to any hierarchy"
        yield Probe(f"{name} controller", hierarchy is not None, required, found, "cgroup v1 or v2", advice)
    devices = layout.find("devices")
    problem = None if devices else _device_programs(layout)
    found = f"cgroup v1 at {devices.mount}" if devices else problem or "device programs on cgroup v2"
    advice = "Mount cgroup2 (Linux 4.15 or newer) or the v1 devices controller."
    yield Probe("device rules", problem is None, True, found, "v1 devices or v2 device programs", advice)


def _device_programs(layout: Layout) -> str | None:
    if layout.unified is None:
        return "neither a v1 devices controller nor a v2 tree"
    try:
        os.close(kernel.load_device_program(device_program(ALWAYS)))
    except OSError as error:
        return f"device program refused: {error.strerror}"
    return None


def _container() -> Iterator[Probe]:
    separate = plans.Builder()
    plans.separate(separate, cgroup_namespace=False)
    yield _probe("namespaces", _attempt(separate), "PID, mount, IPC, UTS", KERNEL_ADVICE, required=True)

    proc = plans.Builder()
    plans.separate(proc, cgroup_namespace=False)
    proc.mount("mount /proc", "proc", "/proc", "proc", plans.MS_NOSUID | plans.MS_NODEV | plans.MS_NOEXEC)
    yield _probe("own /proc", _attempt(proc), "a fresh procfs", KERNEL_ADVICE, required=True)

    with tempfile.TemporaryDirectory() as directory:
        Path(directory, plans.STAGING).mkdir()
        problem = _attempt(plans.overlay_trial(directory))
    advice = "Roots are made of read-only binds instead: volumes need existing mount points below host directories."
    yield _probe("overlay root", problem, "overlay of / with a tmpfs on top", advice, required=False)

    yield _probe("system call filter", _filter(), "seccomp with classic BPF", KERNEL_ADVICE, required=True)


def _filter() -> str | None:
    try:
        program = seccomp.filter_bytes()
    except SandboxFailed as error:
        return str(error)
    plan = plans.Builder()
    plan.add("no_new_privs", "no_new_privs")
    plan.add("seccomp filter", "seccomp", program, n=(seccomp.install_flags(os.uname().release),))
    return _attempt(plan)


def _single(step: str, operation: str, *strings: str, n: tuple[int, ...] = ()) -> str | None:
    plan = plans.Builder()
    plan.add(step, operation, *strings, n=n)
    return _attempt(plan)


def _comfort() -> Iterator[Probe]:
    version = kernel.landlock_abi()
    found = f"Landlock ABI {version}" if version else "no Landlock"
    advice = "Functions can connect to abstract sockets of the host: do not run services that listen on them."
    yield Probe("landlock scopes", version >= 6, False, found, "Landlock ABI 6 (Linux 6.12)", advice)

    problem = _single("oom score", "write", "/proc/self/oom_score_adj", "-500")
    advice = "The core is not preferred over functions when memory runs out. Run it with CAP_SYS_RESOURCE."
    yield _probe("oom score", problem, "may be lowered", advice, required=False)

    problem = _single("session keyring", "keyring")
    yield _probe("session keyring", problem, "a fresh one", "None: functions are refused key calls.", required=False)

    for name, call, advice in (
        ("mount_setattr", _mount_setattr, "Mounts are made read-only one by one; nothing to do."),
        ("close_range", _close_range, "Descriptors are closed one by one; nothing to do."),
    ):
        yield _probe(name, _system_call(call), "Linux 5.12 and 5.9", advice, required=False)

    prctl = privileges.python_prctl()
    advice = "Our own calls are used instead; nothing to do."
    yield Probe("python-prctl", prctl is not None, False, "installed" if prctl else "absent", "optional", advice)


def _mount_setattr() -> None:
    kernel.mount_setattr(b"/", 0, 0, 0)  # changes nothing


def _close_range() -> None:
    kernel.close_range(0x7FFF_FFF0, 0x7FFF_FFFF)  # no descriptor has such a number


def _system_call(call: object) -> str | None:
    assert callable(call)
    try:
        call()
    except OSError as error:
        return os.strerror(error.errno or 0)
    return None
