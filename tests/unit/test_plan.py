"""The plan builder: form of the bytes, order of the operations, and what must never be missing."""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import replace

import pytest

from ggfast._ext import kernel
from ggfast.sandbox import plan as plans
from ggfast.sandbox.host import Host, find_partitions, forbidden_node
from ggfast.sandbox.paths import Found
from ggfast.sandbox.policy import Device, Mount, Policy, WorkerSpec

NAMES = [name for name, _ in kernel.OPERATIONS]
HOST = Host(
    overlay=True,
    cgroup_namespaces=True,
    partitions=(),
    proc_read_only=("sys", "sysrq-trigger"),
    proc_masked=("kcore",),
    block_majors=frozenset({8, 254}),
    top_level=(("bin", "usr/bin"), ("etc", ""), ("root", ""), ("usr", ""), ("tmp", "")),
    landlock_scopes=True,
    landlock_domains=True,
    seccomp_filter=b"\x06\0\0\0\0\0\xff\x7f",
    seccomp_uncontained=b"\x06\0\0\0\0\0\xff\x7f",
    seccomp_flags=0,
    rlimits=((4, 0),),
)
SPEC = Policy(uids=((999, 999),), gids=((995, 995),), code_prefixes=("/code",)).validate(
    {"code_dir": "/code/a", "uid": 999, "gid": 995, "memory_kb": 16384}
)
AROUND = plans.Surroundings(
    join_first=["/cg/memory/x/cgroup.procs"],
    by_spare=False,
    hidden=["/root"],
    runtime_dir="/usr/share",
    mounts=(),
    devices=(),
    title="worker",
)


def decode(plan: plans.Plan) -> list[tuple[str, tuple[int, ...], tuple[bytes, ...], bool]]:
    """Operations as (name, numbers, strings, optional); the reader the executor has in C."""
    found, at = [], 0
    while at < len(plan.data):
        code, flags, count, _, size, *numbers = struct.unpack_from("<BBBBI4Q", plan.data, at)
        cursor, strings = at + kernel.HEADER_BYTES, []
        for _ in range(count):
            (length,) = struct.unpack_from("<I", plan.data, cursor)
            strings.append(plan.data[cursor + 4 : cursor + 4 + length])
            assert plan.data[cursor + 4 + length] == 0
            cursor += 5 + length
        assert size % 8 == 0
        assert 0 <= at + size - cursor < 8
        found.append((NAMES[code], tuple(numbers), tuple(strings), bool(flags & kernel.OPTIONAL)))
        at += size
    assert len(found) == len(plan.steps)
    return found


def make(host: Host = HOST, around: plans.Surroundings = AROUND, spec: WorkerSpec = SPEC) -> list[tuple]:  # type: ignore[type-arg]
    return decode(plans.build(spec, around, host))


def places(operations: list[tuple], *names: str) -> list[int]:  # type: ignore[type-arg]
    """Where each operation stands (its last place)."""
    order = [operation[0] for operation in operations]
    return [len(order) - 1 - order[::-1].index(name) for name in names]


@pytest.mark.parametrize("overlay", [True, False])
def test_order_of_the_disarming(overlay: bool) -> None:
    """sandbox.md section 3: every row depends on the one before it."""
    found = make(replace(HOST, overlay=overlay))
    rows = ("unshare", "pivot", "umount", "rlimit", "descriptors", "keyring", "bounding", "groups")
    rows += ("ids", "nocaps", "pdeathsig", "no_new_privs", "landlock", "seccomp")
    order = places(found, *rows)
    assert order == sorted(order)
    assert found[-1][0] == "seccomp"
    assert not any(operation[3] for operation in found if operation[0] not in ("write", "keyring"))


def test_memory_is_charged_before_anything_is_made() -> None:
    found = make()
    join = next(i for i, op in enumerate(found) if op[0] == "write" and op[2][0].endswith(b"memory/x/cgroup.procs"))
    assert {op[0] for op in found[:join]} == {"signals", "umask", "write"}


def test_a_spare_has_done_the_first_part_and_the_request_does_the_rest() -> None:
    """Whoever does it, the same operations run in the same order, but for the spare's own title."""
    spec, hidden = SPEC, AROUND.hidden
    first = plans.ahead(AROUND.join_first, plans.house_of(spec, hidden, HOST))
    rest = plans.build(spec, replace(AROUND, by_spare=True), HOST)
    whole = plans.build(spec, AROUND, HOST)
    assert first.steps[-1] == "title"
    assert first.steps[:-1] + rest.steps == whole.steps
    assert first.data[: len(whole.data) - len(rest.data)] + rest.data == whole.data


def test_one_tmpfs_bounds_all_writing() -> None:
    sized = [op for op in make() if op[0] == "mount" and op[2][2] == b"tmpfs"]
    assert sized[0][2][3].startswith(b"size=8192k,")
    assert [op[2][1] for op in sized] == [b"s", b"m/dev"]


def test_hidden_trees_become_whiteouts_with_their_parents_owner(tmp_path: os.PathLike[str]) -> None:
    secret = os.path.join("/opt", f"ggfast-test-{os.getpid()}", "inner")
    os.makedirs(secret)
    os.chmod(os.path.dirname(secret), 0o750)
    os.chown(os.path.dirname(secret), 12, 34)
    try:
        found = make(
            around=replace(AROUND, hidden=["/root", secret, secret + "/deeper", "/opt/not-yet", "/opt/no/place"])
        )
    finally:
        os.removedirs(secret)
    whiteouts = [op[2][0].decode() for op in found if op[0] == "whiteout"]
    assert whiteouts == ["u" + secret, "u/opt/not-yet", "u/root"]  # what may still be made, but not without its place
    made = {op[2][0].decode(): op[1][:3] for op in found if op[0] == "mkdir"}
    assert made["u" + os.path.dirname(secret)] == (0o750, 12, 34)


def test_hidden_below_a_partition_is_covered_instead() -> None:
    found = make(replace(HOST, partitions=("/usr",)), replace(AROUND, hidden=["/usr/lib"]))
    assert not [op for op in found if op[0] == "whiteout"]
    show = next(i for i, op in enumerate(found) if op[0] == "bind" and op[2] == (b"/usr", b"/usr"))
    cover = next(i for i, op in enumerate(found) if op[0] == "mount" and op[2][1] == b"m/usr/lib")
    assert found[show][1][0] & plans.MS_RDONLY
    assert show < cover
    assert found[cover][1][0] & plans.MS_RDONLY


def test_bind_root_shows_the_host_read_only_and_hides_what_is_hidden() -> None:
    found = make(replace(HOST, overlay=False))
    binds = {op[2][0]: op[1][0] for op in found if op[0] == "bind"}
    assert {b"/etc", b"/usr"} <= set(binds)
    assert b"/root" not in binds
    assert b"/tmp" not in binds
    assert all(flags & plans.MS_RDONLY for flags in binds.values())
    seal = [i for i, op in enumerate(found) if op[0] == "mount" and op[2][1] == b"m" and op[1][0] & plans.MS_REMOUNT]
    assert len(seal) == 1
    assert seal[0] < places(found, "pivot")[0]


def test_volumes_and_devices_carry_what_was_found() -> None:
    spec = replace(
        SPEC,
        mounts=(Mount("/srv/a", "/data", True), Mount("/srv/b", "/b", False)),
        devices=(Device("/dev/ttyS0", "rw"),),
    )
    node = Found(stat.S_IFCHR, 5, os.makedev(4, 64))
    around = replace(AROUND, mounts=(Found(stat.S_IFDIR, 1, 0), Found(stat.S_IFREG, 1, 0)), devices=(node,))
    binds = {op[2]: op[1] for op in make(around=around, spec=spec) if op[0] == "bind"}
    assert binds[b"/srv/a", b"/data"] == (plans.MS_NOSUID | plans.MS_NODEV, stat.S_IFDIR, 0, stat.S_IFDIR)
    assert binds[b"/srv/b", b"/b"][0] & plans.MS_RDONLY
    assert binds[b"/srv/b", b"/b"][3] == stat.S_IFREG
    assert binds[b"/dev/ttyS0", b"/dev/ttyS0"] == (
        plans.MS_NOSUID | plans.MS_NOEXEC,
        stat.S_IFCHR,
        os.makedev(4, 64),
        stat.S_IFREG,
    )


def uncontained(host: Host = HOST, *, setns: bool = True) -> list[tuple]:  # type: ignore[type-arg]
    policy = Policy(uids=((999, 999),), gids=((995, 995),), code_prefixes=("/code",))
    spec = policy.validate({"contained": False, "code_dir": "/code/a", "uid": 999, "gid": 995})
    return decode(plans.build_uncontained(spec, AROUND.join_first, "worker", host, setns=setns))


def test_a_function_without_a_container_keeps_what_holds_a_process() -> None:
    """Everything of the disarming, in its order; nothing that makes another view of the host."""
    found = uncontained()
    names = [operation[0] for operation in found]
    rows = ("write", "setsid", "setns", "descriptors", "keyring", "bounding", "groups", "ids", "nocaps", "pdeathsig")
    rows += ("chdir", "no_new_privs", "domain", "seccomp")
    order = places(found, *rows)
    assert order == sorted(order)
    assert names[-1] == "seccomp"
    assert not {"unshare", "mount", "bind", "pivot", "umount", "mkdir", "node", "hostname"} & set(names)
    assert not any(operation[3] for operation in found if operation[0] not in ("write", "keyring"))
    assert next(operation[2] for operation in found if operation[0] == "chdir") == (b"/code/a",)


def test_without_a_container_the_ladder_changes_two_steps() -> None:
    assert "domain" not in [operation[0] for operation in uncontained(replace(HOST, landlock_domains=False))]
    assert "setns" not in [operation[0] for operation in uncontained(setns=False)]


def test_sysfs_only_when_asked() -> None:
    def mounts(found: list[tuple]) -> list[tuple]:  # type: ignore[type-arg]
        return [op for op in found if op[0] == "mount" and op[2][2] == b"sysfs"]

    assert not mounts(make())
    granted = mounts(make(spec=replace(SPEC, sysfs=True)))
    assert granted[0][1][0] & plans.MS_RDONLY


@pytest.mark.parametrize("change", ["size", "code", "strings", "length", "cut"])
def test_executor_refuses_a_malformed_plan(change: str) -> None:
    """The check happens before the fork: a refused plan costs no child."""
    builder = plans.Builder()
    builder.add("x", "chdir", "/")
    data = bytearray(builder.finish().data)
    if change == "size":
        data[4:8] = struct.pack("<I", 4096)
    elif change == "code":
        data[0] = len(NAMES)
    elif change == "strings":
        data[2] = 2
    elif change == "length":
        data[kernel.HEADER_BYTES : kernel.HEADER_BYTES + 4] = struct.pack("<I", 0xFFFFFFFF)
    else:
        del data[-1]
    with pytest.raises(ValueError, match="malformed plan"):
        kernel.spawn(bytes(data), -1, -1)
    with pytest.raises(ValueError, match="malformed plan"):
        kernel.spawn(b"", -1, -1)


MOUNTINFO = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
40 27 8:1 / /usr ro,relatime - ext4 /dev/sda1 rw
41 40 8:2 / /usr/local\\040x rw - xfs /dev/sda2 rw
42 27 0:50 / /opt/run rw - tmpfs tmpfs rw
43 27 8:3 / /secret rw - ext4 /dev/sda3 rw
"""


def test_partitions_on_the_list_are_shown_and_no_others() -> None:
    assert find_partitions(MOUNTINFO) == ("/usr", "/usr/local x")


def test_devices_that_are_never_handed_out() -> None:
    assert forbidden_node(stat.S_IFBLK, os.makedev(8, 17), HOST)
    assert not forbidden_node(stat.S_IFBLK, os.makedev(179, 1), HOST)
    assert forbidden_node(stat.S_IFCHR, os.makedev(1, 1), HOST)
    assert not forbidden_node(stat.S_IFCHR, os.makedev(1, 3), HOST)
