"""What granted devices are and which rules they need; no root but for making nodes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from ggfast import limits
from ggfast.errors import SandboxFailed
from ggfast.sandbox.devices import DeviceRule
from ggfast.sandbox.grants import look
from ggfast.sandbox.policy import Device

pytestmark = pytest.mark.root


def make(path: Path, major: int, minor: int, kind: int = stat.S_IFCHR) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mknod(path, kind | 0o600, os.makedev(major, minor))
    return str(path)


def nothing(kind: int, node: int) -> None:
    """No fault."""


def test_a_node_is_itself_and_a_directory_each_driver_once(tmp_path: Path) -> None:
    single = make(tmp_path / "tty", 4, 64)
    for minor in range(5):
        make(tmp_path / "bus" / "usb" / f"00{minor}" / "001", 189, minor * 128)
    make(tmp_path / "bus" / "null", 1, 3)
    make(tmp_path / "bus" / "disk", 179, 1, stat.S_IFBLK)
    (tmp_path / "bus" / "link").symlink_to("/dev/mem")
    found, rules = look([Device(single, "rw"), Device(str(tmp_path / "bus"), "r")], nothing)
    assert [one.kind for one in found] == [stat.S_IFCHR, stat.S_IFDIR]
    assert rules[0] == DeviceRule(False, 4, 64, "rw")
    wanted = {DeviceRule(False, 189, None, "r"), DeviceRule(False, 1, 3, "r"), DeviceRule(True, 179, None, "r")}
    assert set(rules[1:]) == wanted
    assert len(rules) == 4


def test_every_node_of_a_directory_is_judged(tmp_path: Path) -> None:
    make(tmp_path / "a", 189, 1)
    bad = make(tmp_path / "b" / "c" / "d", 189, 7)
    seen = []

    def fault(kind: int, node: int) -> str | None:
        seen.append((kind, os.major(node)))
        return "a door" if os.minor(node) == 7 else None

    with pytest.raises(SandboxFailed, match=f"{bad} is a door, which functions never get"):
        look([Device(str(tmp_path), "r")], fault)
    assert set(seen) == {(stat.S_IFCHR, 189)}


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFREG, stat.S_IFSOCK])
def test_a_directory_holds_nothing_but_nodes(tmp_path: Path, kind: int) -> None:
    os.mknod(tmp_path / "x", kind | 0o666)
    with pytest.raises(SandboxFailed, match=f"no device node at {tmp_path}/x"):
        look([Device(str(tmp_path), "r")], nothing)


def test_bounds(tmp_path: Path) -> None:
    for major in range(200, 201 + limits.WORKER_DEVICE_RULES_MAX):
        make(tmp_path / "drivers" / str(major), major, 0)
    with pytest.raises(SandboxFailed, match="drivers, expected at most"):
        look([Device(str(tmp_path / "drivers"), "r")], nothing)
    for number in range(limits.DEVICE_DIRECTORY_ENTRIES_MAX + 1):
        (tmp_path / "many" / str(number)).mkdir(parents=True)
    with pytest.raises(SandboxFailed, match="more than"):
        look([Device(str(tmp_path / "many"), "r")], nothing)
