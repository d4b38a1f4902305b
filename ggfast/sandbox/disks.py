"""Which devices lead to the disks that the host lives on: those are never handed to a function.

A file system does not always name its disk. btrfs shows an anonymous number and its device as the source; a mapper
(LVM, dm-crypt, md) is a device of its own above others; a partition lies in a disk. And beside block devices there are
character devices through which the same disk is read and written raw.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from ggfast.sandbox.cgroups import read_text, unescape

Number = tuple[int, int]

# Their mounts name no device at all: every disk may be one of theirs.
POOLED_FILESYSTEMS: Final = frozenset({"zfs"})
# Drivers of character devices, as /proc/devices calls them, that reach disks, flash or the processor's registers.
RAW_DRIVERS: Final = frozenset(
    {"sg", "bsg", "raw", "mtd", "nvme", "nvme-generic", "ndctl", "dimmctl", "cpu/msr", "aoechr", "megaraid_sas_ioctl"}
)
RAW_PREFIXES: Final = ("ubi", "megadev", "aac")


def disk_majors(mountinfo: str, swaps: str = "", sysfs: str = "/sys") -> frozenset[int]:
    """Major numbers of the block devices below the host's file systems and swap. `mountinfo` and `swaps` are the texts
    of /proc; blocking, some hundred microseconds."""
    numbers: set[Number] = set()
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        major, minor = (int(part) for part in fields[2].split(":"))
        kind, source = fields[fields.index("-") + 1 : fields.index("-") + 3]
        if major:
            numbers.add((major, minor))
        elif kind in POOLED_FILESYSTEMS:
            numbers |= _every_disk(sysfs)
        elif source.startswith("/dev/"):  # several, joined by colons, where a file system has several
            numbers.update(filter(None, map(_block_number, unescape(source).split(":"))))
        if kind == "btrfs":  # names one of its devices only
            for pool in _names(sysfs + "/fs/btrfs"):
                devices = f"{sysfs}/fs/btrfs/{pool}/devices"
                numbers.update(filter(None, (_number_in(f"{devices}/{name}/dev") for name in _names(devices))))
    for line in swaps.splitlines()[1:]:
        numbers.update(filter(None, [_block_number(unescape(line.split()[0]))]))
    return frozenset(major for major, _ in _with_what_lies_under(numbers, sysfs))


def raw_driver(major: int, devices: str) -> str | None:
    """The driver of a character device that is a raw door; `devices` is the text of /proc/devices."""
    for line in devices.partition("Block devices:")[0].splitlines():
        number, _, name = line.strip().partition(" ")
        if number == str(major) and (name in RAW_DRIVERS or name.startswith(RAW_PREFIXES)):
            return name
    return None


def node_fault(kind: int, node: int, block_majors: frozenset[int]) -> str | None:
    """Why a node of the S_IFMT `kind` is never handed out, None if it may be; `block_majors` are the host's disks'."""
    major, minor = os.major(node), os.minor(node)
    if kind == stat.S_IFCHR and major == 1 and minor not in (3, 5, 7, 8, 9):
        return "a node of the kernel's memory and log"
    if kind == stat.S_IFBLK and major in block_majors:
        return "a disk of the kind that carries the host's file systems"
    if kind == stat.S_IFCHR and (driver := raw_driver(major, read_text("/proc/devices"))):
        return f"a raw door to disks, flash or processors (driver {driver})"
    return None


def _block_number(path: str) -> Number | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (os.major(status.st_rdev), os.minor(status.st_rdev)) if stat.S_ISBLK(status.st_mode) else None


def _with_what_lies_under(numbers: set[Number], sysfs: str) -> set[Number]:
    waiting, found = list(numbers), set(numbers)
    while waiting:
        major, minor = waiting.pop()
        directory = f"{sysfs}/dev/block/{major}:{minor}"
        below = [f"{directory}/slaves/{name}/dev" for name in _names(directory + "/slaves")]
        if os.path.exists(directory + "/partition"):
            below.append(os.path.dirname(os.path.realpath(directory)) + "/dev")
        for number in filter(None, map(_number_in, below)):
            if number not in found:
                found.add(number)
                waiting.append(number)
    return found


def _every_disk(sysfs: str) -> set[Number]:
    paths = [f"{sysfs}/class/block/{name}/dev" for name in _names(sysfs + "/class/block")]
    return set(filter(None, map(_number_in, paths)))


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _number_in(path: str) -> Number | None:
    try:
        major, minor = read_text(path).strip().split(":")
        return int(major), int(minor)
    except (OSError, ValueError):
        return None
