"""Runs the hostile-function checklist in an emulated machine with Debian's own kernel and cgroup v2 alone.

    python packaging/vm/run.py [--boot NAME] [-- PYTEST ARGUMENTS]        (as `make hostile-v2` does)

It installs a Debian 12 into build/vm (once), copies this checkout and its virtual environment into it, boots it under
qemu without a network, runs tests inside, and takes their results from the machine's second disk. Exit status 0: all
passed. The console goes to standard output and to build/vm/.../BOOT.console.
"""

from __future__ import annotations

import argparse
import os
import selectors
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))  # prepare.py
sys.path.insert(2, str(Path(__file__).resolve().parents[2]))  # the tests

import report
import rootfs
from machine import MACHINES, Machine, command
from prepare import CHECKOUT, Failed, say

GUEST = Path(__file__).resolve().parent / "guest"


@dataclass(frozen=True, slots=True)
class Boot:
    """One way to start the machine: words for its kernel, and the tests that run then."""

    words: tuple[str, ...]
    tests: tuple[str, ...]


NO_CONTAINER = "tests/e2e/test_rows_no_container.py"
RUNTIME = "tests/e2e/test_rows_runtime.py"
UNCONTAINED = "tests/sandbox/test_uncontained.py"
# Of the tests of a whole core those with rows of the checklist, and those where it asks the kernel for something.
BOOTS = {
    "v2": Boot(
        (),
        (
            "tests/e2e/test_rows_start.py::test_row_2_start_stop_restart_version",
            f"{RUNTIME}::test_row_61_a_pinned_function_starts_without_a_trigger",
            f"{RUNTIME}::test_row_65_a_function_over_its_memory_is_killed_and_reported",
            f"{RUNTIME}::test_row_72_isolation",
            NO_CONTAINER,
            "tests/sandbox",
            "tests/e2e/test_hostile_core.py",
            "tests/e2e/test_hostile_packages.py",
        ),
    ),
    "no-memory": Boot(
        ("cgroup_disable=memory",),
        (
            NO_CONTAINER,
            f"{UNCONTAINED}::test_row_76_it_is_a_process_of_the_host",
            f"{UNCONTAINED}::test_what_it_started_ends_with_it",
        ),
    ),
}


def main(arguments: list[str]) -> int:
    """Make the machine, boot it as asked, say and write down what came of it; the exit status."""
    options = parse(arguments)
    os.umask(0o022)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the machine is ended too
    machine = MACHINES[options.arch]
    try:
        rootfs.check_this_host(machine)
        packages = rootfs.guest_packages((CHECKOUT / "packaging" / "debian-packages.txt").read_text(), options.arch)
        sources = rootfs.apt_sources()
        directory = rootfs.cache_directory(machine, CHECKOUT, packages, sources)
        with rootfs.cached(directory):
            root = rootfs.install_system(machine, directory, packages, sources)
            names = list(BOOTS) if options.boot == "all" else [options.boot]
            runs = {name: boot(machine, name, root, directory, options) for name in names}
    except Failed as failure:
        print(f"ggfast: {failure}", file=sys.stderr)
        return 1
    if options.report and not options.tests and len(runs) == len(BOOTS) and all(run.cases for run in runs.values()):
        day = datetime.now(UTC).date().isoformat()
        options.report.write_text(report.document(runs["v2"], runs["no-memory"], hostile_rows(), day))
        say(f"wrote {options.report}")
    return 0 if all(run.passed for run in runs.values()) else 1


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line; exits on a wrong one."""
    parser = argparse.ArgumentParser(prog="make hostile-v2", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arch", choices=list(MACHINES), default="amd64", help="Debian's name of the architecture")
    parser.add_argument("--boot", choices=[*BOOTS, "all"], default="all", help="which way to start the machine")
    parser.add_argument("--memory", type=int, default=1024, metavar="MB", help="memory of the machine")
    parser.add_argument("--minutes", type=float, default=60, help="after this long a machine is ended")
    parser.add_argument("--slowness", type=int, default=10, metavar="N", help="tests wait N times as long")
    parser.add_argument("--kvm", action="store_true", help="use the processor's virtualisation, not emulation")
    parser.add_argument("--report", type=Path, metavar="FILE", help="where the table of a complete run is written")
    parser.add_argument(
        "tests", nargs="*", help="other tests than the boot's own, for pytest; nothing is reported then"
    )
    return parser.parse_args(arguments)


def boot(machine: Machine, name: str, root: Path, directory: Path, options: argparse.Namespace) -> report.Run:
    """What one boot gave, said on standard output too. Raises Failed."""
    settings = {
        "TREE": CHECKOUT,
        "SLOWNESS": options.slowness,
        "TESTS": shlex.join(options.tests or BOOTS[name].tests),
    }
    say(f"making the disk of the machine `{name}`")
    lines = [f"{key}={shlex.quote(str(value))}\n" for key, value in settings.items()]
    rootfs.install_checkout(CHECKOUT, root, GUEST, "".join(lines))
    rootfs.make_disks(root, directory)
    init, words = f"{rootfs.PLACE}/init", BOOTS[name].words
    line = command(machine, directory, init=init, words=words, memory_mb=options.memory, kvm=options.kvm)
    say(f"starting it: {shlex.join(line)}")
    started = time.monotonic()
    if not emulate(line, directory / f"{name}.console", options.minutes * 60):
        say(f"the machine did not end by itself within {options.minutes:g} minutes, or failed")
    files = rootfs.read_result(directory / "result.img")
    for file, text in files.items():
        (directory / f"{name}.{Path(file).name}").write_text(text)
    result = report.read(files, time.monotonic() - started, emulated=not options.kvm)
    say(f"boot `{name}`: {report.summary(result)}")
    return result


def hostile_rows() -> list[tuple[int, str, str, str]]:
    """(number, attempt, file, test) of every test that holds a row of the checklist."""
    from tests.sandbox.hostile_table import rows

    return [(row.number, row.attempt, file, test) for row, file, test in rows()]


def emulate(line: list[str], console: Path, seconds: float) -> bool:
    """Run the emulator with its console copied to the file and to standard output; False when time ran out."""
    until = time.monotonic() + seconds
    with open(console, "wb") as file, selectors.DefaultSelector() as selector:
        process = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
        try:
            assert process.stdout is not None
            selector.register(process.stdout, selectors.EVENT_READ)
            while (left := until - time.monotonic()) > 0:
                if not selector.select(left):
                    continue
                data = process.stdout.read(65536)
                if not data:
                    return process.wait() == 0
                file.write(data)
                file.flush()
                sys.stdout.buffer.write(data)
                sys.stdout.flush()
            return False
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
