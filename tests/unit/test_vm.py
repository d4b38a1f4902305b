"""packaging/vm: the parts of the emulated machine that can be looked at without booting it; `make hostile-v2` boots."""

from __future__ import annotations

import importlib
import io
import itertools
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
VM = REPOSITORY / "packaging" / "vm"
NAMES = ("prepare", "machine", "rootfs", "report", "run")
DEBIAN = {"ID": "debian", "VERSION_ID": "12"}
JUNIT = """<testsuites><testsuite>
<testcase classname="tests.sandbox.test_hostile_a" name="test_row_01_x[user]"/>
<testcase classname="tests.sandbox.test_hostile_a" name="test_row_01_x[root]"><failure message="a&#10;b"/></testcase>
<testcase classname="tests.sandbox.test_hostile_a" name="test_row_02_y[root-1]"/>
<testcase classname="tests.sandbox.test_hostile_a" name="test_row_03_z"><skipped message="needs Linux 9"/></testcase>
</testsuite></testsuites>"""
ROWS = [
    (number, f"attempt {number}", "sandbox/test_hostile_a.py", f"test_row_0{number}_{x}")
    for number, x in enumerate("xyzw", 1)
]


@pytest.fixture(scope="module")
def vm() -> Iterator[SimpleNamespace]:
    """The modules of packaging/vm, which find each other as those of a program do."""
    before, known = list(sys.path), {name: sys.modules.pop(name) for name in NAMES if name in sys.modules}
    sys.path[:0] = [str(VM), str(VM.parent)]
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
    finally:
        sys.path[:] = before
        for name in NAMES:
            del sys.modules[name]
        sys.modules.update(known)


# --- the machine ----------------------------------------------------------------------------------------


def test_the_machine_has_no_network_and_keeps_its_disk(vm: SimpleNamespace) -> None:
    line = vm.machine.command(
        vm.machine.MACHINES["amd64"], Path("/a,b"), init="/x", words=("cgroup_disable=memory",), memory_mb=512
    )
    options = dict(itertools.pairwise(line))
    assert (options["-nic"], options["-accel"], options["-m"]) == ("none", "tcg", "512")
    assert options["-append"].split()[-2:] == ["init=/x", "cgroup_disable=memory"]
    root, result = (word for word in line if word.startswith("file="))
    assert root.startswith("file=/a,,b/root.img,") and root.endswith("snapshot=on")
    assert result.endswith("snapshot=off")
    assert "-no-reboot" in line and "panic=-1" in options["-append"].split()  # or a crash would start it again


@pytest.mark.parametrize(
    ("python", "release", "processor", "word"),
    [
        ("/usr/bin/python3.11", {"ID": "debian", "VERSION_ID": "13"}, "x86_64", "this is debian 13 on x86_64"),
        ("/usr/bin/python3.11", DEBIAN, "aarch64", "Use a Debian 12 on x86_64"),
        ("/opt/python3.12", DEBIAN, "x86_64", "make clean"),
    ],
)
def test_another_host_is_refused(
    vm: SimpleNamespace, python: str, release: dict[str, str], processor: str, word: str
) -> None:
    machine = vm.machine.MACHINES["amd64"]
    with pytest.raises(vm.prepare.Failed, match=word):
        vm.rootfs.check_host(machine, Path(python), release, processor)
    vm.rootfs.check_host(machine, Path("/usr/bin/python3.11"), DEBIAN, "x86_64")


def test_the_guest_gets_what_running_needs_and_its_kernel(vm: SimpleNamespace) -> None:
    listing = "a run # x\nb test # x\n# c run\nd guest # x\ne guest-amd64 # x\nf guest-armhf # x\nh run:x # x\n"
    assert vm.rootfs.guest_packages(listing, "amd64") == ["a", "d", "e", "h"]
    ours = vm.rootfs.guest_packages((REPOSITORY / "packaging" / "debian-packages.txt").read_text(), "amd64")
    assert {"gcc", "linux-image-amd64", "iproute2"} <= set(ours)


def test_the_hosts_own_package_sources_are_used(vm: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    with pytest.raises(vm.prepare.Failed, match="no package sources for bookworm"):
        vm.rootfs.apt_sources(tmp_path)
    (tmp_path / "sources.list").write_text("deb http://example.org/debian trixie main\n")
    wanted = tmp_path / "sources.list.d" / "debian.sources"
    wanted.write_text("Types: deb\nURIs: http://example.org/debian\nSuites: bookworm\nComponents: main\n")
    assert vm.rootfs.apt_sources(tmp_path) == [wanted]


def test_other_inputs_are_another_system(vm: SimpleNamespace, tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    sources.write_text("one")
    machine = vm.machine.MACHINES["amd64"]

    def place(packages: list[str]) -> Path:
        found: Path = vm.rootfs.cache_directory(machine, tmp_path, packages, [sources])
        return found

    first = place(["a", "b"])
    assert first.parent == tmp_path / "build" / "vm"
    assert place(["a", "b"]) == first != place(["a"])
    sources.write_text("two")
    assert place(["a", "b"]) != first


def test_a_directory_in_use_is_refused(vm: SimpleNamespace, tmp_path: Path) -> None:
    with (
        vm.rootfs.cached(tmp_path / "x"),
        pytest.raises(vm.prepare.Failed, match="in use"),
        vm.rootfs.cached(tmp_path / "x"),
    ):
        raise AssertionError("both")
    with vm.rootfs.cached(tmp_path / "x"):
        pass


def test_the_checkout_stands_in_the_guest_where_it_stands_here(vm: SimpleNamespace, tmp_path: Path) -> None:
    tree, root = tmp_path / "a checkout", tmp_path / "root"
    for name in (".git/x", "build/lib/x", "build/sdk/1/m.py", ".venv/lib/m.py", "ggfast/_ext/a.so", ".mypy_cache/x"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    (tree / ".venv" / "python").symlink_to("/usr/bin/python3")
    stale = root / str(tree)[1:] / "stale"
    stale.parent.mkdir(parents=True)
    stale.touch()
    vm.rootfs.install_checkout(tree, root, VM / "guest", "TREE=x\n")
    copy = root / str(tree)[1:]
    found = {str(path.relative_to(copy)) for path in copy.rglob("*") if not path.is_dir() or path.is_symlink()}
    assert found == {"build/sdk/1/m.py", ".venv/lib/m.py", ".venv/python", "ggfast/_ext/a.so"}
    assert (copy / ".venv" / "python").readlink() == Path("/usr/bin/python3")
    place = root / vm.rootfs.PLACE[1:]
    assert (place / "settings").read_text() == "TREE=x\n"
    assert os.access(place / "init", os.X_OK)


@pytest.mark.parametrize("name", ["init", "run"])
def test_the_guests_scripts_can_be_parsed(name: str) -> None:
    subprocess.run(["sh", "-n", VM / "guest" / name], check=True)


def test_the_guests_facts_are_what_the_report_names(vm: SimpleNamespace) -> None:
    done = subprocess.run([sys.executable, VM / "guest" / "facts.py"], capture_output=True, text=True, check=True)
    run = vm.report.read({"facts.json": done.stdout}, 1.0, emulated=True)
    assert {"kernel", "kernel version", "command line", "python", "cgroups", "controllers", "own group"} == set(
        run.facts
    )


def test_every_boot_runs_tests_that_exist(vm: SimpleNamespace) -> None:
    for boot in vm.run.BOOTS.values():
        for test in boot.tests:
            file, _, name = test.partition("::")
            assert (REPOSITORY / file).exists(), test
            assert not name or f"def {name}(" in (REPOSITORY / file).read_text(), test


# --- a run and its result -------------------------------------------------------------------------------


@pytest.mark.parametrize(("script", "ended"), [("echo said", True), ("echo said; exit 3", False)])
def test_the_console_is_kept(vm: SimpleNamespace, tmp_path: Path, script: str, ended: bool) -> None:
    assert vm.run.emulate(["sh", "-c", script], tmp_path / "console", 60) is ended
    assert (tmp_path / "console").read_text() == "said\n"


def test_a_machine_that_does_not_end_is_ended(vm: SimpleNamespace, tmp_path: Path) -> None:
    started = time.monotonic()
    assert vm.run.emulate(["sh", "-c", "echo $$; exec sleep 600"], tmp_path / "console", 1.0) is False
    assert time.monotonic() - started < 60
    pid = int((tmp_path / "console").read_text())
    assert not Path(f"/proc/{pid}").exists()


def test_a_run_that_is_ended_takes_the_machine_with_it(tmp_path: Path) -> None:
    """As a service manager, a shell or CI ends it; the machine is a stand-in that says its number."""
    console = tmp_path / "console"
    program = (
        f"import sys; sys.path[:0] = [{str(VM)!r}, {str(VM.parent)!r}]; import run, rootfs; from pathlib import Path\n"
        "rootfs.check_this_host = lambda machine: run.emulate("
        f"['sh', '-c', 'echo $$; exec sleep 600'], Path({str(console)!r}), 600)\n"
        "run.main([])\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert not Path(f"/proc/{pid}").exists()


def test_results_come_from_the_second_disk(vm: SimpleNamespace, tmp_path: Path) -> None:
    image = tmp_path / "result.img"
    image.write_bytes(bytes(1 << 20))
    assert vm.rootfs.read_result(image) == {}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("./status")
        member.size = 2
        archive.addfile(tarfile.TarInfo("."))
        archive.addfile(member, io.BytesIO(b"0\n"))
    with open(image, "r+b") as disk:
        disk.write(packed.getvalue())
    assert vm.rootfs.read_result(image)["status"] == "0\n"


def result(report: ModuleType, status: str, junit: str) -> object:
    facts = '{"kernel": "6.1", "command line": "quiet cgroup_disable=memory"}'
    files = {
        "status": status,
        "junit.xml": junit,
        "facts.json": facts,
        "doctor.txt": "a\nFunctions get: full containers\n",
    }
    return report.read(files, 90.0, emulated=True)


def test_a_run_passes_when_pytest_says_so_and_there_were_tests(vm: SimpleNamespace) -> None:
    good = JUNIT.replace('<failure message="a&#10;b"/>', "")
    assert result(vm.report, "0\n", good).passed  # type: ignore[attr-defined]
    for status, junit in (("0", JUNIT), ("1", good), ("0", "<testsuites/>"), ("", good)):
        assert not result(vm.report, status, junit).passed, (status, junit)  # type: ignore[attr-defined]
    assert "ended before its tests did" in vm.report.summary(result(vm.report, "", good))
    assert "2 passed, 1 failed, 1 skipped" in vm.report.summary(result(vm.report, "1", JUNIT))


def test_the_report_says_each_rows_result(vm: SimpleNamespace) -> None:
    run = result(vm.report, "1", JUNIT)
    lines = vm.report.document(run, run, ROWS, "2030-01-02").splitlines()
    assert "- Last run: 2030-01-02, software emulation, two processors, 3 minutes" in lines
    assert "- `ggfast-core doctor`: full containers" in lines
    assert [line for line in lines if line.startswith("| ") and " attempt " in line][1:] == [
        "| 1 | attempt 1 | as expected | **failure** | `test_row_01_x` |",
        "| 2 | attempt 2 | not run | as expected | `test_row_02_y` |",
        "| 3 | attempt 3 | needs Linux 9 | same test | `test_row_03_z` |",
        "| 4 | attempt 4 | not run | not run | `test_row_04_w` |",
    ]
    assert "| all | 2 | 1 | 1 |" in lines
    assert "- `sandbox/test_hostile_a.py` `test_row_01_x[root]`: failure: a" in lines
    assert any("booted with `cgroup_disable=memory`" in line for line in lines)
