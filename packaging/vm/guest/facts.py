"""Prints, as JSON, what kind of machine this is: for the head of the report."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

from ggfast.sandbox.cgroups import this_layout

layout = this_layout()
unified = layout.unified
facts = {
    "kernel": platform.release(),
    "kernel version": os.uname().version,
    "command line": Path("/proc/cmdline").read_text().strip(),
    "python": platform.python_version(),
    "cgroups": layout.kind,
    "controllers": sorted(unified.controllers) if unified else [],
    "own group": Path("/proc/self/cgroup").read_text().strip(),
}
print(json.dumps(facts))
