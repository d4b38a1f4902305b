"""Control groups on a fake tree, and the device program in a small eBPF interpreter; no root needed."""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from ggfast import limits
from ggfast.errors import SandboxFailed
from ggfast.sandbox import cgroups
from ggfast.sandbox.cgroups import Group, Layout, Tree, detect
from ggfast.sandbox.devices import ALWAYS, DeviceRule, device_program
from ggfast.sandbox.sweeping import sweep

V1 = """\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
"""
V1_OWN = "9:name=systemd:/\n8:pids:/user\n5:devices:/\n4:memory:/a/b\n2:cpu,cpuacct:/\n"
V2 = "30 23 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def v2_tree(base: Path, mount: str = "/sys/fs/cgroup", controllers: str = "cpu memory pids") -> None:
    top = base / mount[1:]
    top.mkdir(parents=True, exist_ok=True)
    (top / "cgroup.controllers").write_text(controllers + "\n")


def test_v1_each_controller_where_it_is_bound() -> None:
    layout = detect(V1, V1_OWN)
    assert layout.kind == "v1"
    memory, cpu = layout.find("memory"), layout.find("cpuacct")
    assert memory is not None
    assert (memory.version, memory.own) == (1, "/sys/fs/cgroup/memory/a/b")
    assert cpu is not None
    assert cpu.mount == "/sys/fs/cgroup/cpu,cpuacct"
    assert layout.find("freezer") is None


def test_hybrid_is_v1_with_an_empty_v2_tree(tmp_path: Path) -> None:
    v2_tree(tmp_path, "/sys/fs/cgroup/unified", "hugetlb")
    unified = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    layout = detect(V1 + unified, V1_OWN + "0::/x\n", str(tmp_path))
    assert layout.kind == "hybrid"
    assert layout.unified is not None
    assert layout.unified.own == f"{tmp_path}/sys/fs/cgroup/unified/x"


def test_v2_alone(tmp_path: Path) -> None:
    v2_tree(tmp_path)
    layout = detect(V2, "0::/system.slice/core.service\n", str(tmp_path))
    memory = layout.find("memory")
    assert layout.kind == "v2"
    assert memory is not None
    assert memory.own.endswith("/sys/fs/cgroup/system.slice/core.service")
    assert layout.find("devices") is None


def test_a_bind_mounted_subtree_is_seen_from_inside() -> None:
    line = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    layout = detect(line, "4:memory:/docker/abc/inner\n")
    assert layout.hierarchies[0].own == "/sys/fs/cgroup/memory/inner"


def test_mount_points_with_blanks() -> None:
    line = "35 31 0:32 / /my\\040groups rw - cgroup cgroup rw,memory\n"
    assert detect(line, "4:memory:/\n").hierarchies[0].mount == "/my groups"


def test_without_controllers_only_containers_are_refused() -> None:
    """greengrass-core 17.1: a group whose functions all have NoContainer needs no control groups at all."""
    tree = Tree(Layout(()), "x")
    tree.prepare()
    with pytest.raises(SandboxFailed, match=r"no memory controller.*cgroup_enable=memory.*NoContainer"):
        tree.create("contained")
    group = tree.create_uncontained("free")
    group.limit(0, 64, None)
    assert (group.directories, group.oom_event(), group.oom_kills(), group.remove()) == ([], None, 0, True)
    assert group.statistics().memory_peak_kb == -1
    with pytest.raises(SandboxFailed, match="no memory controller to limit it with"):
        group.limit(16_384, 64, None)


def test_a_hierarchy_that_is_not_ours_is_a_reason_and_no_end(tmp_path: Path) -> None:
    tree = Tree(detect(V1, V1_OWN, str(tmp_path / "nowhere")), "core")
    tree.prepare()
    assert tree.refusal is not None
    assert "mkdir" in str(tree.refusal)
    assert tree.create_uncontained("free").directories == []


def fake(tmp_path: Path, kind: str) -> Tree:
    """A prepared tree on plain directories; v2 files that must exist are made."""
    if kind == "v1":
        for line in V1.splitlines()[1:]:
            (tmp_path / line.split()[4][1:]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys/fs/cgroup/memory/a/b").mkdir(parents=True)
        (tmp_path / "sys/fs/cgroup/pids/user").mkdir()
        return Tree(detect(V1, V1_OWN, str(tmp_path)), "core")
    v2_tree(tmp_path)
    top = tmp_path / "sys/fs/cgroup"
    own = top / "unit"
    for directory in (own / cgroups.LEAF, own / "ggfast-core", own, top / "ggfast-core", top):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cgroup.procs").touch()
        (directory / "cgroup.subtree_control").touch()
    (own / "cgroup.controllers").write_text("cpu memory pids\n")
    return Tree(detect(V2, "0::/unit\n", str(tmp_path)), "core")


def touch_all(directory: str, names: str) -> None:
    for name in names.split():
        (Path(directory) / name).touch()


V1_FILES = "memory.limit_in_bytes memory.memsw.limit_in_bytes memory.oom_control pids.max devices.deny devices.allow"
V2_FILES = "memory.max memory.swap.max memory.oom.group memory.events pids.max"


def group_of(tree: Tree, files: str) -> Group:
    group = tree.create("i1")
    for directory in group.directories:
        touch_all(directory, files)
    return group


def content(group: Group, name: str) -> list[str]:
    return [text for d in group.directories if (text := (Path(d) / name).read_text())]


def test_v1_limits_and_joins(tmp_path: Path) -> None:
    tree = fake(tmp_path, "v1")
    tree.prepare()
    group = group_of(tree, V1_FILES)
    group.limit(16_384, 64, ALWAYS)
    assert content(group, "memory.limit_in_bytes") == ["16777216"]
    assert content(group, "memory.memsw.limit_in_bytes") == ["16777216"]
    assert content(group, "pids.max") == ["64"]
    assert content(group, "devices.deny") == ["a"]
    assert "c 1:9 rwm" in content(group, "devices.allow")[0]  # plain files keep the last line or all of them
    assert len(group.directories) == 4  # cpu and cpuacct share one
    assert [path.removesuffix("/cgroup.procs") for path in group.join_first] == group.directories


def test_v2_limits_and_leaf(tmp_path: Path) -> None:
    tree = fake(tmp_path, "v2")
    tree.prepare()
    own = tmp_path / "sys/fs/cgroup/unit"
    assert (own / cgroups.LEAF / "cgroup.procs").read_text() == "0"
    assert (own / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    group = group_of(tree, V2_FILES)
    assert len(group.join_first) == 1
    with pytest.raises(SandboxFailed) as caught:  # attaching to a plain directory
        group.limit(8192, 10, ALWAYS)
    assert caught.value.step == "device program"
    assert content(group, "memory.max") == ["8388608"]
    assert content(group, "memory.swap.max") == ["0"]
    assert content(group, "memory.oom.group") == ["1"]


def refuse(monkeypatch: pytest.MonkeyPatch, *directories: Path) -> None:
    """These groups have processes of others: the kernel enables no controllers for their children."""
    write, rmdir = cgroups.write_text, os.rmdir
    refused = [f"{directory}/cgroup.subtree_control" for directory in directories]

    def busy(path: str, text: str) -> None:
        if path in refused:
            raise OSError(16, "Device or resource busy")
        write(path, text)

    def leave(path: str) -> None:
        for file in Path(path).iterdir():  # a kernel's own files go with their directory
            file.unlink()
        rmdir(path)

    monkeypatch.setattr(cgroups, "write_text", busy)
    monkeypatch.setattr(cgroups.os, "rmdir", leave)


def test_v2_a_group_shared_with_others_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a login session: the subtree goes to the nearest group that can have children, and we stay."""
    tree = fake(tmp_path, "v2")
    top = tmp_path / "sys/fs/cgroup"
    refuse(monkeypatch, top / "unit")
    tree.prepare()
    assert (top / "unit" / "cgroup.procs").read_text() == "0"
    assert not (top / "unit" / cgroups.LEAF).exists()
    assert (top / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    assert tree.create("i1").directories == [f"{top}/ggfast-core/i1"]


def test_v2_the_first_refusal_is_told_when_nobody_takes_the_subtree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = fake(tmp_path, "v2")
    top = tmp_path / "sys/fs/cgroup"
    refuse(monkeypatch, top / "unit", top)
    tree.prepare()
    with pytest.raises(SandboxFailed, match=r"unit/cgroup\.subtree_control.*Delegate=yes"):
        tree.create("i1")


def test_v2_without_the_cpu_controller_in_its_group(tmp_path: Path) -> None:
    """systemd enables it for nobody who has not asked; time is counted all the same."""
    tree = fake(tmp_path, "v2")
    own = tmp_path / "sys/fs/cgroup/unit"
    (own / "cgroup.controllers").write_text("memory pids\n")
    tree.prepare()
    assert (own / "cgroup.subtree_control").read_text() == "+memory +pids"
    group = group_of(tree, V2_FILES + " cpu.stat")
    (Path(group.directories[0]) / "cpu.stat").write_text("usage_usec 7000\n")
    assert group.statistics().cpu_ms == 7


def test_v2_without_the_memory_controller_in_its_group(tmp_path: Path) -> None:
    tree = fake(tmp_path, "v2")
    top = tmp_path / "sys/fs/cgroup"
    (top / "unit" / "cgroup.controllers").write_text("pids\n")
    tree.prepare()
    assert tree.create("i1").directories == [f"{top}/ggfast-core/i1"]


def test_statistics_read_what_is_there(tmp_path: Path) -> None:
    tree = fake(tmp_path, "v2")
    tree.prepare()
    group = group_of(tree, V2_FILES + " memory.current memory.peak pids.current cpu.stat")
    directory = Path(group.directories[0])
    (directory / "memory.current").write_text("2048000\n")
    (directory / "memory.peak").write_text("nonsense\n")
    (directory / "pids.current").write_text("3\n")
    (directory / "cpu.stat").write_text("usage_usec 12999\nuser_usec 1\n")
    (directory / "memory.events").write_text("low 0\noom 1\noom_kill 2\noom_group_kill 1\n")
    now = group.statistics()
    assert (now.memory_kb, now.memory_peak_kb, now.pids, now.cpu_ms, now.oom_kills) == (2000, -1, 3, 12, 2)


def test_a_missing_limit_file_is_named(tmp_path: Path) -> None:
    tree = fake(tmp_path, "v1")
    tree.prepare()
    group = tree.create("i1")
    (tmp_path / "sys/fs/cgroup/memory/a/b/ggfast-core/i1").rmdir()
    with pytest.raises(SandboxFailed, match=r"memory\.limit_in_bytes"):
        group.limit(1024, 1, ALWAYS)


def test_the_sweep_is_not_kept_busy_by_groups_further_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those a session owns are its user's to make."""
    ours = tmp_path / "z.slice" / "core.service" / "ggfast-x"
    ours.mkdir(parents=True)
    for top in ("a.slice", "zz.slice"):
        for number in range(30):
            (tmp_path / top / "user" / "session" / str(number)).mkdir(parents=True)
    monkeypatch.setattr(limits, "SANDBOX_CGROUPS_SCANNED_MAX", 12)
    assert sweep([str(tmp_path)], "ggfast-x") == 0
    assert not ours.exists()


def test_remove_and_sweep(tmp_path: Path) -> None:
    tree = fake(tmp_path, "v1")
    tree.prepare()
    group = tree.create("i1")
    busy = Path(group.directories[0]) / "child"
    busy.mkdir()
    assert not group.remove()
    busy.rmdir()
    assert group.remove()
    assert group.remove()  # twice is no harm
    elsewhere = tmp_path / "sys/fs/cgroup/memory/other/session/ggfast-core/old"
    elsewhere.mkdir(parents=True)
    unrelated = tmp_path / "sys/fs/cgroup/memory/other/ggfast-corex"
    unrelated.mkdir()
    assert sweep([hierarchy.mount for hierarchy in tree.layout.hierarchies], tree.name) == 0
    assert not elsewhere.parent.exists()
    assert unrelated.exists()


# --- the device program ---------------------------------------------------------------------------------


def run(program: bytes, access: int, kind: int, major: int, minor: int) -> int:
    """The eBPF subset that the generator uses; 32-bit context words, 64-bit registers."""
    context = {0: access << 16 | kind, 4: major, 8: minor}
    registers = [0] * 11
    code = [struct.unpack_from("<BBhi", program, at) for at in range(0, len(program), 8)]
    at = 0
    for _ in range(10_000):
        operation, pair, offset, constant = code[at]
        target, source = pair & 15, pair >> 4
        at += 1
        if operation == 0x95:
            return registers[0]
        if operation == 0x61:
            registers[target] = context[offset]
        elif operation == 0xB7:
            registers[target] = constant
        elif operation == 0xBF:
            registers[target] = registers[source]
        elif operation == 0x57:
            registers[target] &= constant & (1 << 64) - 1
        elif operation == 0x77:
            registers[target] >>= constant
        elif operation == 0x55:
            at += offset if registers[target] != constant else 0
        else:
            raise AssertionError(operation)
    raise AssertionError("no end")


def allowed(rules: Sequence[DeviceRule], access: int, kind: int, major: int, minor: int) -> bool:
    """The same, said slowly."""
    if access & 1:  # mknod
        return False
    wanted = {2: "r", 4: "w", 6: "rw", 0: ""}[access]
    return any(
        rule.block == (kind == 1)
        and rule.major == major
        and rule.minor in (None, minor)
        and set(wanted) <= set(rule.access)
        for rule in rules
    )


def test_device_program_agrees_with_its_rules() -> None:
    rules: tuple[DeviceRule, ...] = (DeviceRule(False, 4, 64, "r"), DeviceRule(True, 8, 1, "rw"))
    rules += (DeviceRule(False, 8, None, "r"), DeviceRule(False, 1, 3, "rw"))
    assert [rule.v1_line for rule in rules] == ["c 4:64 r", "b 8:1 rw", "c 8:* r", "c 1:3 rw"]
    program = device_program(rules)
    for case in itertools.product(range(8), (1, 2), (1, 4, 8), (0, 1, 3, 64)):
        assert run(program, *case) == int(allowed(rules, *case)), case


def test_no_rules_allow_nothing() -> None:
    assert run(device_program(()), 2, 2, 1, 3) == 0
    assert len(device_program(ALWAYS)) // 8 < 64
