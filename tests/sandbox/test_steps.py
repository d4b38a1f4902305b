"""Each operation of the executor: its failure is told by name, and the ones no other test sees do their work."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ggfast._ext import kernel
from ggfast.errors import SandboxFailed
from ggfast.sandbox import host, plan, trial
from ggfast.sandbox.cgroups import this_layout
from ggfast.sandbox.devices import ALWAYS, DeviceRule, attach_devices

pytestmark = pytest.mark.root

FAILING: list[tuple[str, tuple[str | bytes, ...], tuple[int, ...], str]] = [
    ("write", ("/nonexistent/x", "0"), (), "No such file or directory"),
    ("write", ("/dev/full", "0"), (), "No space left on device"),
    ("unshare", (), (0x1000,), "Invalid argument"),
    ("setns", (), (999_999, plan.CLONE_NEWNS), "Bad file descriptor"),
    ("mount", ("none", "/nonexistent", "tmpfs", ""), (0,), "No such file or directory"),
    ("mount", ("none", "/", "nosuchfs", ""), (0,), "No such device"),
    ("mkdir", ("/proc/x",), (0o755,), "No such file or directory"),
    ("whiteout", ("/",), (), "File exists"),
    ("opaque", ("/proc",), (), "Operation not supported"),
    ("symlink", ("a", "/"), (), "File exists"),
    ("node", ("/",), (0o666, 1, 3), "File exists"),
    ("bind", ("/nonexistent", "/x"), (), "No such file or directory"),
    ("bind", ("/proc/self/exe", "/x"), (), "Too many levels of symbolic links"),
    ("bind", ("/usr/../etc", "/x"), (), "Too many levels of symbolic links"),
    ("bind", ("/etc", "/x"), (0, stat.S_IFREG), "No such device"),
    ("bind", ("/dev/null", "/x"), (0, stat.S_IFCHR, os.makedev(1, 5)), "No such device"),
    ("bind", ("/" + "x" * 300, "/x"), (), "File name too long"),
    ("chdir", ("/nonexistent",), (), "No such file or directory"),
    ("umount", ("/nonexistent",), (0,), "No such file or directory"),
    ("hostname", ("x" * 100,), (), "Invalid argument"),
    ("rlimit", (), (999, 0, 0), "Invalid argument"),
    ("descriptors", (), (999_999, 999_999, 999_999), "Bad file descriptor"),
    ("groups", (struct.pack("<70000I", *range(70_000)),), (), "Invalid argument"),
    # A kernel that knows less of Landlock than we do takes the whole request for too long (Linux before 6.12).
    ("landlock", (), (1 << 40,), "Invalid argument" if kernel.landlock_abi() >= 6 else "Argument list too long"),
    ("seccomp", (b"\xff" * 8,), (0,), "Invalid argument"),
    ("seccomp", (b"",), (0,), "Invalid argument"),
]


@pytest.mark.parametrize(("operation", "strings", "numbers", "reason"), FAILING)
def test_a_failing_operation_is_told_by_name(
    operation: str, strings: tuple[str | bytes, ...], numbers: tuple[int, ...], reason: str
) -> None:
    builder = plan.Builder()
    builder.add("private", "unshare", n=(plan.CLONE_NEWNS | plan.CLONE_NEWUTS,))
    builder.mount("private mounts", "", "/", "", plan.MS_REC | plan.MS_PRIVATE)
    builder.add("the step", operation, *strings, n=numbers)
    assert trial.attempt(builder) == f"the step: {reason}"


def test_operations_that_may_fail_do_not_end_the_plan() -> None:
    builder = plan.Builder()
    builder.add("tried", "write", "/nonexistent", "x", optional=True)
    builder.add("fails", "chdir", "/nonexistent")
    assert trial.attempt(builder) == "fails: No such file or directory"


def test_every_operation_is_exercised() -> None:
    """By the list above, or by every container: an operation nobody runs would be one nobody checked."""
    builder = {"setsid", "pivot", "keyring", "bounding", "ids", "nocaps", "pdeathsig", "no_new_privs"}
    builder |= {"signals", "title", "umask", "exit", "domain"}
    assert {name for name, _ in kernel.OPERATIONS} == builder | {row[0] for row in FAILING}


@pytest.fixture
def staging() -> Iterator[Path]:
    """A directory with the staging place, entered; other users can reach it."""
    before, path = Path.cwd(), Path(tempfile.mkdtemp(prefix="ggfast-test-"))
    path.chmod(0o755)
    for name in ("s", "code", "hidden", "volume"):
        (path / name).mkdir()
    (path / "hidden" / "key").write_text("secret")
    os.chdir(path)
    try:
        yield path
    finally:
        os.chdir(before)
        shutil.rmtree(path)


def test_device_programs_on_a_v2_tree() -> None:
    """The rules as v2 enforces them, also where v1 has the controllers: both must allow."""
    unified = this_layout().unified
    assert unified is not None, "no cgroup2 tree mounted: found none in /proc/self/mountinfo"
    directory = Path(unified.mount, f"ggfast-test-{os.getpid()}")
    directory.mkdir()
    script = (
        "import os,sys\n"
        f"open({str(directory / 'cgroup.procs')!r}, 'w').write('0')\n"
        "for path, flags in (('/dev/null', os.O_RDWR), ('/dev/zero', os.O_RDONLY), ('/dev/zero', os.O_RDWR),\n"
        "                    ('/dev/full', os.O_RDONLY), ('/dev/kmsg', os.O_RDONLY)):\n"
        "    try:\n        os.open(path, flags)\n        print('ok')\n"
        "    except OSError as error:\n        print(error.errno)\n"
    )
    try:
        attach_devices(str(directory), [DeviceRule(False, 1, 3, "rw"), DeviceRule(False, 1, 5, "r")])
        done = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, timeout=30)
        assert done.stdout.split() == ["ok", "ok", "1", "1", "1"], done.stderr
    finally:
        directory.rmdir()
    with pytest.raises(SandboxFailed):
        attach_devices(str(directory), ALWAYS)


def test_the_host_is_looked_at_again_when_mounts_change(staging: Path) -> None:
    """A partition that went away must not be a step that fails."""
    facts = replace(host.examine(overlay=True), partitions=())
    watch = host.MountWatch()
    current = watch.refreshed(facts)
    assert watch.refreshed(current) is current
    place = Path("/srv", f"ggfast-test-{os.getpid()}")
    place.mkdir()
    try:
        kernel.mount(str(staging / "volume").encode(), str(place).encode(), b"", plan.MS_BIND, b"")
        try:
            with_it = watch.refreshed(current)
            assert str(place) in with_it.partitions
        finally:
            kernel.umount2(str(place).encode(), 0)
        assert str(place) not in watch.refreshed(with_it).partitions
    finally:
        place.rmdir()
