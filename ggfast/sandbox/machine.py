"""What this machine can do for functions, found out once when the supervisor starts, and what is said about it."""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Final

from ggfast.errors import SandboxFailed
from ggfast.sandbox import ladder, plan, trial
from ggfast.sandbox.cgroups import Layout, Tree, this_layout
from ggfast.sandbox.host import Host, examine
from ggfast.sandbox.sweeping import sweep

CONTROL_GROUPS: Final = "control groups"


class Machine:
    """Control groups, swept and made; the host; the reason why there are no containers, if there is one; and the lines
    that tell what is missing. Blocking, some tens of milliseconds. Raises SandboxFailed."""

    tree: Tree
    host: Host
    refusal: SandboxFailed | None
    lines: list[str]

    def __init__(self, spec: Mapping[str, Any]) -> None:
        without = frozenset(map(str, spec.get("without", ())))
        if unknown := sorted(without - {*ladder.LADDER, CONTROL_GROUPS}):
            raise SandboxFailed("launch", errno.EINVAL, f"without: found {unknown}, expected names of ladder.LADDER")
        self.tree = Tree(_layout(without), str(spec["name"]))
        self.lines = []
        if left := sweep((hierarchy.mount for hierarchy in this_layout().hierarchies), self.tree.name):
            self.lines.append(f"cgroups: {left} directories of an earlier run cannot be removed")
        self.tree.prepare()
        problems = ladder.other_problems() | ladder.group_problems(self.tree.layout, self.tree.tops)
        self.refusal, overlay = self._containers(spec.get("no_namespaces"), problems)
        if overlay is None and "overlay root" in without:
            overlay = "left out"
        if overlay is not None:
            problems["overlay root"] = overlay
        problems |= {name: "left out" for name in without if name in ladder.LADDER and name not in problems}
        self.host = _host(problems)
        self.lines += ladder.told(problems)
        if self.refusal is not None:
            self.lines.append(f"containers are refused, functions with NoContainer run: {self.refusal}")

    def _containers(
        self, no_namespaces: str | None, problems: dict[str, str]
    ) -> tuple[SandboxFailed | None, str | None]:
        """Why there can be none, and why their roots are not overlays."""
        if no_namespaces is None:
            no_namespaces = attempt(plan.container_trial())
        if no_namespaces is not None:
            problems["namespaces"] = no_namespaces
            refusal = SandboxFailed(
                "containers",
                errno.EPERM,
                f"this machine cannot have containers: {no_namespaces}",
                hint="Run the core with all capabilities of root, or the function with NoContainer.",
            )
            return refusal, None
        return self.tree.refusal, attempt(plan.overlay_trial())


def attempt(builder: plan.Builder) -> str | None:
    """What fails of a plan when it is tried, or None."""
    try:
        return trial.attempt(builder)
    except OSError as error:
        return f"fork into a PID namespace: {error.strerror}"


def _layout(without: Collection[str]) -> Layout:
    if CONTROL_GROUPS in without:
        return Layout(())
    left_out = {name.removesuffix(" controller") for name in without if name.endswith(" controller")}
    found = this_layout().hierarchies
    return Layout(tuple(replace(one, controllers=one.controllers - left_out) for one in found))


def _host(problems: Collection[str]) -> Host:
    found = examine(overlay="overlay root" not in problems)
    return replace(
        found,
        cgroup_namespaces=found.cgroup_namespaces and "cgroup namespaces" not in problems,
        landlock_scopes=found.landlock_scopes and "landlock scopes" not in problems,
        landlock_domains=found.landlock_domains and "landlock domains" not in problems,
    )
