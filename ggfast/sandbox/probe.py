"""Tries each kernel feature that containers use, for `ggfast-core doctor`.

Every answer comes from an attempt in a throw-away child with namespaces of its own, never from a version
number; nothing of the host is changed. What is not `required` has a fall-back, named in `advice`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ggfast._ext import kernel
from ggfast.errors import SandboxFailed
from ggfast.sandbox import ladder, privileges, seccomp, uncontained
from ggfast.sandbox import plan as plans
from ggfast.sandbox.cgroups import PREFIX, Layout, read_text, this_layout
from ggfast.sandbox.machine import attempt


@dataclass(frozen=True, slots=True)
class Probe:
    """One feature: whether it is there, whether the core needs it, and what to do when it is missing. `containers`:
    what is lost without it is containers, and functions with NoContainer run."""

    name: str
    ok: bool
    required: bool
    found: str
    expected: str
    advice: str
    containers: bool = False


def probe_all() -> list[Probe]:
    """Every feature of the ladder, in its order. Needs root; blocks for some tens of milliseconds; never raises for a
    missing feature."""
    layout = this_layout()
    with _groups(layout) as groups:
        problems = ladder.group_problems(layout, groups)
    problems |= ladder.other_problems() | _attempts()
    found = [_capabilities(), *(_of(feature, problems, layout) for feature in ladder.LADDER.values())]
    prctl = privileges.python_prctl()
    advice = "Our own calls are used instead; nothing to do."
    return [
        *found,
        Probe("python-prctl", prctl is not None, False, "installed" if prctl else "absent", "optional", advice),
    ]


@contextmanager
def _groups(layout: Layout) -> Iterator[list[str]]:
    """A group in each hierarchy for a moment: the root of one lacks most of a group's files."""
    made = []
    for hierarchy in layout.hierarchies:
        path = f"{hierarchy.own}/{PREFIX}doctor-{os.getpid()}"
        try:
            os.mkdir(path)
        except OSError:
            continue
        made.append(path)
    try:
        yield made
    finally:
        for path in made:
            os.rmdir(path)


def _of(feature: ladder.Feature, problems: Mapping[str, str], layout: Layout) -> Probe:
    problem = problems.get(feature.name)
    found = problem or _seen(feature.name, layout)
    advice = f"Without it: {feature.without}. {feature.advice}"
    containers = feature.required and feature.name not in ladder.FOR_ALL
    required = feature.required and not containers
    return Probe(feature.name, problem is None, required, found, feature.since, advice, containers)


def _seen(name: str, layout: Layout) -> str:
    """What there is, where more can be said than that it works."""
    controller = "devices" if name == "device rules" else name.removesuffix(" controller")
    hierarchy = layout.find(controller)
    if hierarchy is not None and (name.endswith(" controller") or name == "device rules"):
        return f"cgroup v{hierarchy.version} at {hierarchy.mount}"
    if name == "device rules":
        return "device programs on cgroup v2"
    return f"Landlock ABI {kernel.landlock_abi()}" if name.startswith("landlock") else "works"


def _capabilities() -> Probe:
    effective = int(read_text("/proc/self/status").split("CapEff:")[1].split()[0], 16)
    missing = [number for number in privileges.SPAWNER if not effective >> number & 1]
    found = f"capabilities {', '.join(map(str, missing))} missing" if missing else "works"
    advice = "Run as root; in an outer container, run that one privileged."
    needed = bool({*missing} & {*privileges.UNCONTAINED})
    return Probe("capabilities", not missing, needed, found, "those of root", advice, not needed)


def _attempts() -> dict[str, str]:
    """What can only be told by trying it in a child."""
    separate, proc = plans.Builder(), plans.container_trial()
    plans.separate(separate, cgroup_namespace=False)
    tried = {"namespaces": attempt(separate), "own /proc": attempt(proc), "system call filter": _filter()}
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, plans.STAGING).mkdir()
        tried["overlay root"] = attempt(plans.overlay_trial(directory))
    score, keyring = plans.Builder(), plans.Builder()
    score.add("oom score", "write", "/proc/self/oom_score_adj", "-500")
    keyring.add("session keyring", "keyring")
    tried |= {"oom score": attempt(score), "session keyring": attempt(keyring)}
    return {name: problem for name, problem in tried.items() if problem is not None}


def _filter() -> str | None:
    try:
        programs = (seccomp.filter_bytes(), uncontained.filter_bytes())
    except SandboxFailed as error:
        return str(error)
    plan = plans.Builder()
    plan.add("no_new_privs", "no_new_privs")
    for program in programs:
        plan.add("seccomp filter", "seccomp", program, n=(seccomp.install_flags(os.uname().release),))
    return attempt(plan)
