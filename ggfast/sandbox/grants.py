"""Granted devices as they are on disk: what kind each is, and the rules its group needs for it.

A directory such as /dev/bus/usb is granted as such, because what is plugged in again is another node with another
number: the container shows the directory itself, and what a driver's node in it may do, all of that driver's may. Nodes
are judged when a function starts; one that comes later is opened only if its driver was there then.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from ggfast import limits
from ggfast.sandbox.devices import DeviceRule
from ggfast.sandbox.paths import Found, inspect
from ggfast.sandbox.policy import Device, refuse

NODES: Final = (stat.S_IFCHR, stat.S_IFBLK)
# Majors that unrelated drivers share, and whose minors stay: memory, consoles, miscellaneous.
SHARED_MAJORS: Final = frozenset({1, 5, 10})


def look(devices: Sequence[Device], fault: Callable[[int, int], str | None]) -> tuple[list[Found], list[DeviceRule]]:
    """What the paths of a request are, and the rules for all of them; `fault` says why a node of
    an S_IFMT kind and a number is never granted.

    Raises SandboxFailed for what is no device. Blocking, about 2 us for each node.
    """
    found = [inspect(device.path) for device in devices]
    rules: dict[DeviceRule, None] = {}
    for device, one in zip(devices, found, strict=True):
        is_directory = one.kind == stat.S_IFDIR
        for path, kind, node in _nodes_below(device.path) if is_directory else [(device.path, one.kind, one.node)]:
            if kind not in NODES:
                raise refuse(f"spec.devices: found no device node at {path}")
            if reason := fault(kind, node):
                raise refuse(f"spec.devices: {path} is {reason}, which functions never get")
            rules[_rule(kind, node, device.access, every_minor=is_directory)] = None
    if len(rules) > limits.WORKER_DEVICE_RULES_MAX:
        raise refuse(f"spec.devices: found {len(rules)} drivers, expected at most {limits.WORKER_DEVICE_RULES_MAX}")
    return found, list(rules)


def _rule(kind: int, node: int, access: str, *, every_minor: bool) -> DeviceRule:
    major = os.major(node)
    minor = None if every_minor and not (kind == stat.S_IFCHR and major in SHARED_MAJORS) else os.minor(node)
    return DeviceRule(kind == stat.S_IFBLK, major, minor, access)


def _nodes_below(directory: str) -> Iterator[tuple[str, int, int]]:
    """(path, kind, number) of whatever a directory holds that is neither a directory nor a link."""
    waiting, count = [directory], 0
    while waiting:
        for entry in os.scandir(waiting.pop()):
            count += 1
            if count > limits.DEVICE_DIRECTORY_ENTRIES_MAX:
                text = f"spec.devices: found more than {limits.DEVICE_DIRECTORY_ENTRIES_MAX} entries in {directory}"
                raise refuse(text)
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # unplugged
            kind = stat.S_IFMT(status.st_mode)
            if kind == stat.S_IFDIR:
                waiting.append(entry.path)
            elif kind != stat.S_IFLNK:
                yield entry.path, kind, status.st_rdev
