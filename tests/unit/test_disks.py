"""The devices that lead to the host's disks, found from texts and a made-up /sys."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ggfast.sandbox import disks

ROOT = "27 1 {number} / / rw,relatime - {kind} {source} rw\n"


def sysfs(top: Path, parts: dict[str, list[str]], partitions: dict[str, str] | None = None) -> str:
    """A /sys with these block devices (by number), the devices that each is made of, and partitions of a disk."""
    (top / "class" / "block").mkdir(parents=True)
    (top / "dev" / "block").mkdir(parents=True)
    for number in parts:
        inside = (partitions or {}).get(number)
        device = top / "devices" / (inside or number).replace(":", "-")
        if inside:
            device /= number.replace(":", "-")
        device.mkdir(parents=True, exist_ok=True)
        (device / "dev").write_text(number + "\n")
        if inside:
            (device / "partition").write_text("1\n")
        (top / "dev" / "block" / number).symlink_to(device)
        (top / "class" / "block" / number.replace(":", "-")).symlink_to(device)
    for number, below in parts.items():
        (top / "dev" / "block" / number).resolve().joinpath("slaves").mkdir()
        for other in below:
            link = (top / "dev" / "block" / number).resolve() / "slaves" / other.replace(":", "-")
            link.symlink_to((top / "dev" / "block" / other).resolve())
    return str(top)


def test_a_plain_disk(tmp_path: Path) -> None:
    text = ROOT.format(number="179:2", kind="ext4", source="/dev/mmcblk0p2")
    assert disks.disk_majors(text, "", str(tmp_path)) == {179}


def test_what_lies_under_a_mapper(tmp_path: Path) -> None:
    """Encrypted volume on a logical one on a partition with a number of its own in a disk."""
    text = ROOT.format(number="253:1", kind="ext4", source="/dev/mapper/root")
    parts = {"253:1": ["253:0"], "253:0": ["259:3"], "259:3": [], "8:0": [], "65:0": []}
    top = sysfs(tmp_path, parts, {"259:3": "8:0"})
    assert disks.disk_majors(text, "", top) == {253, 259, 8}


def test_a_file_system_without_a_number_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """btrfs: the source says where it is; one with several devices names them all."""
    known = {"/dev/sda1": (8, 1), "/dev/nvme0n1p1": (259, 1)}
    monkeypatch.setattr(disks, "_block_number", known.get)
    text = ROOT.format(number="0:25", kind="bcachefs", source="/dev/sda1:/dev/nvme0n1p1")
    assert disks.disk_majors(text, "", str(tmp_path)) == {8, 259}
    assert (
        disks.disk_majors(ROOT.format(number="0:25", kind="nfs", source="host:/dev/sda1"), "", str(tmp_path)) == set()
    )


def test_btrfs_on_several_disks(tmp_path: Path) -> None:
    top = sysfs(tmp_path, {"8:1": [], "179:2": []})
    devices = tmp_path / "fs" / "btrfs" / "0c39" / "devices"
    devices.mkdir(parents=True)
    for number in ("8:1", "179:2"):
        (devices / number.replace(":", "-")).symlink_to((tmp_path / "dev" / "block" / number).resolve())
    text = ROOT.format(number="0:25", kind="btrfs", source="/dev/not-here")
    assert disks.disk_majors(text, "", top) == {8, 179}


def test_pools_may_be_on_any_disk(tmp_path: Path) -> None:
    top = sysfs(tmp_path, {"8:0": [], "65:16": []})
    text = ROOT.format(number="0:25", kind="zfs", source="rpool/ROOT")
    assert disks.disk_majors(text, "", top) == {8, 65}


def test_swap_holds_everybodys_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "_block_number", {"/dev/sdb2": (8, 18)}.get)
    swaps = "Filename\tType\tSize\tUsed\tPriority\n/dev/sdb2 partition 1 0 -2\n/swapfile file 1 0 -3\n"
    assert disks.disk_majors("", swaps, str(tmp_path)) == {8}


def test_this_machines_root_is_among_them() -> None:
    mountinfo = Path("/proc/self/mountinfo").read_text()
    found = disks.disk_majors(mountinfo)
    device = os.stat("/").st_dev
    assert os.major(device) in found or os.major(device) == 0


@pytest.mark.parametrize(
    ("major", "driver"), [(21, "sg"), (90, "mtd"), (247, "ubi0"), (4, None), (8, None), (13, None)]
)
def test_raw_doors(major: int, driver: str | None) -> None:
    """8 is a disk among block devices and nobody's character device here."""
    text = "Character devices:\n  4 tty\n 13 input\n 21 sg\n 90 mtd\n247 ubi0\n\nBlock devices:\n  8 sg\n259 blkext\n"
    assert disks.raw_driver(major, text) == driver
