"""Ending what a supervisor that was killed left behind in control groups."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Iterator

from ggfast import limits
from ggfast.sandbox.cgroups import kill_members


def sweep(mounts: Iterable[str], name: str) -> int:
    """Kill and remove what an earlier supervisor left in directories called `name`, wherever they are below `mounts`.

    The number of directories that could not be removed. Blocks up to about a second for each found.
    """
    return sum(clear(top) for mount in mounts for top in _find_named(mount, name))


def _find_named(mount: str, name: str) -> Iterator[str]:
    """Directories called `name` anywhere in a hierarchy; the upper ones first, because somebody to whom a group further
    down is delegated could make more groups than are looked at."""
    waiting, seen = deque([mount]), 0
    while waiting and seen < limits.SANDBOX_CGROUPS_SCANNED_MAX:
        try:
            entries = [e.path for e in os.scandir(waiting.popleft()) if e.is_dir(follow_symlinks=False)]
        except OSError:
            continue
        seen += 1
        for path in entries:
            if path.rsplit("/", 1)[1] == name:
                yield path
            else:
                waiting.append(path)


def clear(top: str) -> int:
    """Kill every process below `top` and remove it; the number of directories left. Blocks up to about a second."""
    for attempt in range(100):
        directories = [path for path, _, _ in os.walk(top, topdown=False)]
        left = 0
        for directory in directories:
            kill_members(directory)
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                pass
            except OSError:
                left += 1
        if not left:
            return 0
        time.sleep(0.001 if attempt < 50 else 0.02)
    return left
