"""`ggfast-core doctor`: can this machine run the core, what is missing, and how well will functions be held.

One line for each requirement: `ok`, `warn` (runs, but...), `FAIL` (cannot run) or `?` (could not be checked, mostly
because the caller is not root), with what was found, what was expected and what to do. Kernel features are found by
trying them, never by version numbers. Nothing is changed. Exit status 0 only if the core can run.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

from ggfast.cli import doctor_core, doctor_machine
from ggfast.cli.findings import Area, Finding, Status, as_json, can_run, verdict
from ggfast.config import GgfastSettings
from ggfast.layout import DEFAULT_ROOT
from ggfast.sandbox.ladder import LADDER
from ggfast.sandbox.probe import Probe, probe_all

NOTHING_INSTALLED = "nothing installed there yet; looked at the machine alone"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of doctor."""
    parser.add_argument("--root", type=Path, help=f"Greengrass root (default {DEFAULT_ROOT})")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print the report; exit status 0 if the core can run, 1 if not or not certain."""
    findings = examine(arguments.root, insecure=arguments.insecure)
    isolation = isolation_level(findings)
    if arguments.json:
        print(json.dumps(as_json(findings, isolation), indent=2))
    else:
        print("\n".join([*map(str, findings), "", f"Functions get: {isolation}", verdict(findings)]))
    return 0 if can_run(findings) else 1


def examine(root: Path | None, *, insecure: bool = False) -> list[Finding]:
    """All findings about the machine and about the installation at `root` (None: the default, if there is one).

    `insecure` is `-i`: unprotected links are then a warning. Blocking, a few seconds: it starts processes and
    mounts in namespaces of its own.
    """
    settings = GgfastSettings()
    about_root: list[Finding] = []
    if root is None and not DEFAULT_ROOT.exists():
        about_root = [Area("root").ok("directory", f"{DEFAULT_ROOT}: {NOTHING_INSTALLED}")]
    else:
        place = Path(os.path.abspath(root or DEFAULT_ROOT))
        about_root = list(doctor_core.root_directory(place))
        if place.is_dir():
            config, told = doctor_core.configuration(place)
            about_root += told
            if config is not None:
                settings = config.ggfast
                about_root += doctor_core.written_directories(config.layout)
                about_root += doctor_core.certificates(config)
                about_root += doctor_core.ports(config)
    return [
        *kernel(),
        *doctor_machine.left_over(),
        doctor_machine.link_protection(required=not insecure),
        *doctor_machine.accounts(settings.daemon_user, settings.function_user, settings.function_group),
        doctor_machine.interpreter(settings.function_user),
        *doctor_machine.session(),
        doctor_machine.memory(),
        doctor_machine.clock(),
        *doctor_machine.runtimes(),
        *about_root,
    ]


def kernel() -> list[Finding]:
    """The kernel's features, each tried out; needs root."""
    area = Area("kernel")
    if os.geteuid() != 0:
        return [area.unknown("features", "namespaces, mounts and filters can only be tried as root")]
    return [_from_probe(area, probe) for probe in probe_all()]


def _from_probe(area: Area, probe: Probe) -> Finding:
    if probe.ok:
        return area.ok(probe.name, probe.found)
    return area.bad(probe.name, probe.found, probe.expected, probe.advice, required=probe.required)


def isolation_level(findings: Sequence[Finding]) -> str:
    """How functions will be held on this machine, in one phrase."""
    about = [finding for finding in findings if finding.area == "kernel"]
    for_containers = {"capabilities", *(feature.name for feature in LADDER.values() if feature.required)}
    bad = [finding for finding in about if finding.status in (Status.FAIL, Status.WARN)]
    missing = [one.name for one in bad if one.status is Status.FAIL or one.name in for_containers]
    if missing:
        return f"no container (missing: {', '.join(missing)}); only functions with isolation mode NoContainer can run"
    if any(finding.status is Status.UNKNOWN for finding in about):
        return "unknown; run as root to find out"
    lesser = [finding.name for finding in about if finding.status is Status.WARN]
    without = f", without: {', '.join(lesser)}" if lesser else ""
    return f"a container each (own namespaces, root, memory limit, device list and system call filter){without}"
