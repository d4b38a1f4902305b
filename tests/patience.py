"""How long tests wait: longer where GGFAST_TEST_SLOWNESS says how many times slower than usual the machine is.

It stretches how long a test waits for something to happen, never what it measures or expects.
"""

from __future__ import annotations

import os

SLOWNESS = float(os.environ.get("GGFAST_TEST_SLOWNESS", "1"))


def patience(seconds: float) -> float:
    """How long to wait on this machine for what takes at most `seconds` on an ordinary one."""
    return seconds * SLOWNESS
