"""A set-up that fails at any of its steps leaves nothing: no process, no mount, no control group, no file."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ggfast._ext import kernel
from ggfast.sandbox import host, plan
from ggfast.sandbox.cgroups import Group, Tree, this_layout
from ggfast.sandbox.paths import Found
from ggfast.sandbox.policy import Policy
from ggfast.sandbox.users import ensure_users

pytestmark = pytest.mark.root

HEAD = struct.Struct("=II")


@pytest.fixture
def place() -> Iterator[Path]:
    """The supervisor's working directory and a host around it, entered."""
    before, path = Path.cwd(), Path(tempfile.mkdtemp(prefix="ggfast-test-"))
    path.chmod(0o755)
    for name in ("s", "code", "hidden", "volume"):
        (path / name).mkdir()
    os.chdir(path)
    descriptors = [os.open("/dev/null", os.O_RDWR), os.open("/proc/self/ns/mnt", os.O_RDONLY)]
    wanted = (*kernel.WORKER_DESCRIPTORS, kernel.NAMESPACE_DESCRIPTOR)
    for number in wanted:
        os.dup2(descriptors[int(number == kernel.NAMESPACE_DESCRIPTOR)], number, inheritable=False)
    try:
        yield path
    finally:
        for number in (*descriptors, *wanted):
            os.close(number)
        os.chdir(before)
        shutil.rmtree(path)


@pytest.fixture
def group() -> Iterator[Group]:
    """A real group to join."""
    tree = Tree(this_layout(), f"test-faults-{os.getpid()}")
    tree.prepare()
    made = tree.create("one")
    try:
        yield made
    finally:
        made.remove()
        tree.close()


def whole_plan(place: Path, group: Group, kind: str) -> plan.Plan:
    users = ensure_users()
    policy = Policy(
        uids=((1, 99_999),), gids=((1, 99_999),), code_prefixes=(str(place),), hidden=(str(place / "hidden"),)
    )
    identity = {"code_dir": str(place / "code"), "uid": users.function_uid, "gid": users.function_gid}
    facts = host.examine(overlay=kind == "overlay")
    if kind == "uncontained":
        spec = policy.validate({**identity, "contained": False})
        return plan.build_uncontained(spec, group.join_first, "worker", facts, setns=True)
    mount = {"source": str(place / "volume"), "destination": "/mnt/volume", "writable": True}
    spec = policy.validate({**identity, "memory_kb": 16_384, "sysfs": True, "hostname": "h", "mounts": [mount]})
    found, hidden = [Found(stat.S_IFDIR, 0, 0)], policy.hidden_for(spec.uid)
    around = plan.Surroundings(group.join_first, False, hidden, str(place / "code"), found, [], "worker")
    return plan.build(spec, around, facts)


def cut(made: plan.Plan) -> Iterator[bytes]:
    """The plan up to each of its operations, which is replaced by one that fails; at last the whole one, ended."""
    fails, ends = plan.Builder(), plan.Builder()
    fails.add("fails", "chdir", "/nonexistent")
    ends.add("ends", "exit")
    at = 0
    while at < len(made.data):
        yield made.data[:at] + fails.finish().data
        at += struct.unpack_from("=I", made.data, at + 4)[0]
    yield made.data + ends.finish().data


def outcome(data: bytes) -> tuple[int, int]:
    """Run a plan to its end; its last record."""
    namespace = os.open("/proc/self/ns/pid", os.O_RDONLY)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    high = os.dup2(writer, 40, inheritable=False)
    os.close(writer)
    try:
        pid = kernel.spawn(data, high, namespace)
        os.close(high)
        os.waitpid(pid, 0)
        index, number = HEAD.unpack(os.read(reader, 64)[-HEAD.size :])
        return index, number
    finally:
        os.close(reader)
        os.close(namespace)


def traces(place: Path, group: Group) -> tuple[object, ...]:
    """Everything a set-up could leave."""
    files = sorted(str(path) for path in place.rglob("*"))
    members = [Path(path, "cgroup.procs").read_text() for path in group.directories]
    names = sorted(os.listdir("/") + os.listdir("/mnt"))
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    ours = [line for line in mounts if str(place) in line or line.split(" - ")[1].split()[1] == "ggfast"]
    return ours, files, members, names, children, len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("kind", ["overlay", "binds", "uncontained"])
def test_a_failure_at_any_step_leaves_nothing(place: Path, group: Group, kind: str) -> None:
    made = whole_plan(place, group, kind)
    before = traces(place, group)
    done = 0
    for index, data in enumerate(cut(made)):
        expected = (index, errno.ENOENT) if index < len(made.steps) else (kernel.DONE, 0)
        assert outcome(data) == expected, made.steps[min(index, len(made.steps) - 1)]
        assert traces(place, group) == before, made.steps[min(index, len(made.steps) - 1)]
        done += 1
    assert done == len(made.steps) + 1 > 15
    assert group.remove()
