"""Hostile functions against the kernel: mounts, control groups, devices, its logs, keys and machinery."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.sandbox.hostile import WHO, Cage, cage, row

__all__ = ["cage"]
pytestmark = pytest.mark.root
FUSE = os.makedev(10, 229)
ABSENT = ("kmsg", "mem", "port", "console", "tty", "tty0", "ptmx", "fuse", "kvm", "net/tun", "loop0", "loop-control")
OWN_NODES = ["fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"]


def _root_disk() -> tuple[int, int]:
    device = os.stat("/").st_dev
    return os.major(device), os.minor(device)


@row(5, "mount, umount, pivot_root, chroot and the new mount calls", by="seccomp, capabilities", result="EPERM")
@WHO
def test_row_05_mounts(cage: Cage, who: str) -> None:
    """Outside, in a mount namespace of its own, root may do what does not lack a descriptor."""
    control = cage.outside("kernel.mounts", "root")
    assert {control[name] for name in ("tmpfs", "umount", "bind", "chroot", "fsopen", "open_tree")} == {"OK"}, control
    assert "EPERM" not in control.values()
    found = cage.run("kernel.mounts", who)
    assert set(found.values()) == {"EPERM"}, found


@row(6, "umount or remount what covers /proc, /dev, /lambda", by="seccomp, capabilities", result="EPERM; still covered")
@WHO
def test_row_06_unmask(cage: Cage, who: str) -> None:
    """Every cover by name. core_pattern stays closed afterwards: by its owner for a user, by the mount for uid 0."""
    covered = ["/proc/sys", "/proc/sysrq-trigger", "/proc/kcore", "/proc/keys", "/proc", "/dev", "/lambda", "/tmp", "/"]
    control = cage.outside("kernel.unmask", "root", covered=["/proc"])
    assert control["umount /proc"] == "OK"
    found = cage.run("kernel.unmask", who, covered=covered)
    assert found.pop("still") == ("EACCES" if who == "user" else "EROFS")
    assert set(found.values()) == {"EPERM"}, found


@row(9, "mount a cgroup hierarchy for its release_agent", by="seccomp, capabilities", result="EPERM; none visible")
@WHO
def test_row_09_release_agent(cage: Cage, who: str) -> None:
    """v1 and v2. Outside a hierarchy of v1 or v2 that this kernel has can be mounted."""
    control = cage.outside("kernel.control_groups", "root")
    assert "OK" in {control["cgroup memory"], control["cgroup2"]} and control["visible"]
    found = cage.run("kernel.control_groups", who)
    assert {found[name] for name in ("cgroup memory", "cgroup devices", "cgroup rdma", "cgroup2")} == {"EPERM"}
    assert found["visible"] == []


@row(10, "move to another cgroup, raise its own limit", by="mount view, cgroup namespace", result="no cgroup file")
@WHO
def test_row_10_own_limit(cage: Cage, who: str) -> None:
    """Neither a control file nor the way to one; with /sys as well. Its own path is all it is told."""
    assert cage.outside("kernel.control_groups", "root")["files"]
    for spec in ({}, {"sysfs": True}):
        found = cage.run("kernel.control_groups", who, spec)
        assert found["files"] == []
        # The devices group is joined after the cgroup namespace is made, so its path below ours shows; no more.
        groups = [path for path in found["own groups"] if path != "/"]
        assert all(path.startswith(f"/ggfast-{cage.box.name}/") for path in groups) and len(groups) <= 1, groups


@row(11, "make a disk, a null device, an overlay whiteout", by="capabilities, seccomp, device rules", result="EPERM")
@WHO
def test_row_11_make_nodes(cage: Cage, who: str) -> None:
    """In every place it can write to. A FIFO can be made: the call is allowed, the kind is not. /dev is sealed:
    there the same FIFO is refused by the mount."""
    _, spec = cage.volume()
    found = cage.run("kernel.nodes", who, spec, disk=_root_disk(), places=["/mnt/volume"])
    fifos = {name: answer for name, answer in found.items() if name.startswith("fifo")}
    assert fifos.pop("fifo in /dev") in ("EROFS", "EACCES")
    assert set(fifos.values()) == {"OK"}
    assert {answer for name, answer in found.items() if not name.startswith("fifo")} == {"EPERM"}, found


@contextmanager
def _node(device: int, path: Path) -> Iterator[str]:
    """A character device that everybody may use, as far as its mode goes."""
    os.mknod(path, stat.S_IFCHR | 0o666, device)
    try:
        path.chmod(0o666)
        yield str(path)
    finally:
        path.unlink()


@row(12, "open disks, memory, logs, terminals, devices not granted", by="/dev view, nodev", result="ENOENT; EACCES")
@WHO
def test_row_12_devices_not_granted(cage: Cage, who: str) -> None:
    """/dev has nothing but its own. A node that lies in a volume is no device there (nodev says EACCES before the
    device rules could say EPERM); that those hold by themselves is row 13."""
    volume, spec = cage.volume()
    disk = os.path.basename(os.path.realpath(f"/sys/dev/block/{_root_disk()[0]}:{_root_disk()[1]}"))
    with _node(FUSE, volume / "node"):
        options = {"absent": [*ABSENT, disk], "nodes": [str(volume / "node")]}
        assert cage.outside("kernel.devices", who, **options)[f"{volume}/node r"] == "OK"
        found = cage.run("kernel.devices", who, spec, absent=[*ABSENT, disk], nodes=["/mnt/volume/node"])
    assert found.pop("listed") == OWN_NODES
    assert {found.pop(f"/mnt/volume/node {mode}") for mode in ("r", "w", "rw")} == {"EACCES"}
    assert set(found.values()) == {"ENOENT"}, found


@row(13, "open a device for writing that was granted for reading", by="device rules", result="EPERM")
@WHO
def test_row_13_device_read_only(cage: Cage, who: str) -> None:
    """The node's mode allows everybody everything. Granted rw, the same calls succeed."""
    with _node(FUSE, Path(f"/dev/ggfast-hostile-{os.getpid()}")) as path:
        answers = {}
        for access in ("r", "rw"):
            spec = {"devices": [{"path": path, "access": access}]}
            found = cage.run("kernel.devices", who, spec, absent=[], nodes=[path])
            answers[access] = tuple(found[f"{path} {mode}"] for mode in ("r", "w", "rw"))
    assert answers == {"r": ("OK", "EPERM", "EPERM"), "rw": ("OK", "OK", "OK")}


@row(20, "kcore, kallsyms, keys, kmsg, timer_list, page tables, syslog(2)", by="masks, seccomp", result="empty; EPERM")
@WHO
def test_row_20_kernel_logs(cage: Cage, who: str) -> None:
    """Masked files are the null device: they open and are empty. A file that this kernel lacks is ENOENT, and for
    a user some are closed by their mode (EACCES, EPERM)."""
    control = cage.outside("kernel.kernel_logs", "root")
    assert control["kallsyms"][1] > 0 and control["syslog size"] == "OK"
    found = cage.run("kernel.kernel_logs", who)
    assert {found.pop(name) for name in ("syslog read all", "syslog size", "syslog unread")} == {"EPERM"}
    assert {answer[1] for answer in found.values()} == {0}, found
    assert {answer[0] for answer in found.values()} <= {"OK", "ENOENT", "EACCES", "EPERM"}, found


@row(34, "keyctl, add_key, request_key, /proc/keys", by="seccomp, mask", result="EPERM; empty")
@WHO
def test_row_34_keys(cage: Cage, who: str) -> None:
    """Outside anybody has keyrings."""
    control = cage.outside("kernel.keys", "root")
    assert control["get keyring"] == control["add_key"] == "OK"
    found = cage.run("kernel.keys", who)
    assert (found.pop("/proc/keys"), found.pop("/proc/key-users")) == (0, 0)
    assert set(found.values()) == {"EPERM"}, found


@row(35, "bpf, perf, userfaultfd, io_uring, fanotify", by="seccomp", result="EPERM")
@WHO
def test_row_35_machinery(cage: Cage, who: str) -> None:
    """A map, an event, a ring: outside root gets them."""
    control = cage.outside("kernel.machinery", "root")
    assert {control[name] for name in ("bpf", "userfaultfd", "io_uring_setup", "fanotify_init")} == {"OK"}, control
    assert "EPERM" not in control.values()
    assert set(cage.run("kernel.machinery", who).values()) - {"none"} == {"EPERM"}


@row(36, "modules, kexec, reboot, swap, quota, acct, clocks, ports", by="capabilities, seccomp", result="EPERM")
@WHO
def test_row_36_machine(cage: Cage, who: str) -> None:
    """Arguments are such that outside root is refused for them (or changes nothing), never with EPERM."""
    control = cage.outside("kernel.machine", "root")
    assert "EPERM" not in control.values() and set(control.values()) - {"OK", "ENOSYS", "none"}, control
    found = cage.run("kernel.machine", who)
    assert set(found.values()) - {"none"} == {"EPERM"}, found


@row(37, "name_to_handle_at, open_by_handle_at", by="seccomp", result="EPERM")
@WHO
def test_row_37_handles(cage: Cage, who: str) -> None:
    """Outside a handle can be had by anybody and opened by root."""
    assert set(cage.outside("kernel.handles", "root").values()) == {"OK"}
    assert set(cage.run("kernel.handles", who).values()) == {"EPERM"}


def test_numbers_come_from_the_machine() -> None:
    """The attempts use the C library's numbers: where our own table has another one, rows would be wrong."""
    from ggfast.sandbox.seccomp import ABSENT as absent
    from ggfast.sandbox.seccomp import ARCHITECTURES, EXAMINED, REFUSED, this_architecture
    from tests.sandbox.hostile import call_numbers

    column, known = ARCHITECTURES.index(this_architecture()), call_numbers()
    ours = {name: numbers[column] for name, numbers in {**REFUSED, **absent}.items()}
    ours |= {name: numbers[column] for name, (numbers, _) in EXAMINED.items()}
    wrong = {name: (number, known[name]) for name, number in ours.items() if name in known and number != known[name]}
    missing = [name for name, number in ours.items() if number is None and name in known]
    assert not wrong and not missing
    assert re.fullmatch(r"\w+", this_architecture())
