"""Coverage-guided fuzzing: `make fuzz`, or `python -m tests.fuzz` in a prepared checkout.

    make fuzz                                                   both targets, a few minutes
    make fuzz ARGS='--target session --runs 1000000'            bounded by executions
    make fuzz ARGS='--seconds 600'                              or by time, for each target
    make fuzz ARGS='--target framing --reproduce FILE'          play one input again, with its traceback
    make fuzz ARGS='--keep'                                     also add what was found to tests/fuzz/corpus

Ends with 0 if nothing was found, 1 for a crash, a failed check, a hang or a leak; the input is then in
build/fuzz-findings with the command that plays it again.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz import corpus

REPOSITORY = Path(__file__).resolve().parents[2]
TREE = REPOSITORY / "build" / "fuzz"
FINDINGS = REPOSITORY / "build" / "fuzz-findings"
RUNS = {"framing": 5_000_000, "session": 200_000}  # about two minutes each
HANG_S = 1
MEMORY_MB_MAX = 300  # four times what the interpreter and a grown corpus take: more is a leak
PROGRESS_S = 10.0
PULSE = re.compile(r"^#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)/\S+ .*exec/s: (\d+) rss: (\d+)Mb")


@dataclass(slots=True)
class Progress:
    """What the engine says of itself: executions, covered edges, features (edges by how often), inputs, memory."""

    runs: int = 0
    edges: int = 0
    features: int = 0
    inputs: int = 0
    memory_mb: int = 0


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=[*corpus.TARGETS, "all"], default="all")
    parser.add_argument("--runs", type=int, default=0, help="executions of each target")
    parser.add_argument("--seconds", type=int, default=0, help="time for each target; with --runs whatever ends first")
    parser.add_argument("--seed", type=int, default=0, help="for the engine's chance; 0 takes the time")
    parser.add_argument("--reproduce", type=Path, help="play this input and nothing else")
    parser.add_argument("--keep", action="store_true", help="add what was found to the corpus in the repository")
    options = parser.parse_args()
    targets = corpus.TARGETS if options.target == "all" else (options.target,)
    in_variant("python", "tests/fuzz/build.py", "build/targets", "program")
    if options.reproduce is not None:
        if len(targets) > 1:
            parser.error("--reproduce needs --target")
        return engine(targets[0], str(options.reproduce.resolve())).wait()
    found = [target for target in targets if not fuzz(target, options)]
    if options.keep and not found:
        for target in targets:
            minimise(target)
    return 1 if found else 0


def in_variant(*command: str) -> None:
    """Run a command in the tree of the fuzz variant, which is made first; SystemExit if it fails."""
    variant = [sys.executable, str(REPOSITORY / "packaging" / "variant.py"), "fuzz", "--", *command]
    if subprocess.run(variant, check=False).returncode:
        sys.exit(1)


def engine(target: str, *arguments: str) -> subprocess.Popen[str]:
    """Start the fuzzing program; what it says comes through a pipe when it fuzzes."""
    places = [str(TREE), str(TREE / "build" / "targets"), sysconfig.get_paths()["purelib"]]
    environment = {"GGFAST_FUZZ_TARGET": target, "PYTHONPATH": ":".join(places), "PATH": "/usr/bin:/bin"}
    program = [str(TREE / "build" / "targets" / "fuzz"), f"-timeout={HANG_S}", *arguments]
    stream = None if len(arguments) == 1 else subprocess.PIPE
    return subprocess.Popen(program, cwd=TREE, env=environment, stdout=stream, stderr=stream and subprocess.STDOUT,
                            text=True, errors="replace")  # fmt: skip


def fuzz(target: str, options: argparse.Namespace) -> bool:
    """Fuzz one target within its bounds; False if something was found."""
    grown = growing_corpus(target)
    FINDINGS.mkdir(parents=True, exist_ok=True)
    left = options.runs or (0 if options.seconds else RUNS[target])
    until = time.monotonic() + options.seconds if options.seconds else None
    total, begin = 0, time.monotonic()
    while True:
        arguments = [
            f"-max_len={corpus.INPUT_BYTES_MAX[target]}",
            f"-rss_limit_mb={MEMORY_MB_MAX}",
            f"-artifact_prefix={FINDINGS}/{target}-",
            f"-seed={options.seed}",
            "-print_pcs=0",
            "-entropic=0",
        ]
        if left:
            arguments.append(f"-runs={left - total}")
        if until is not None:
            arguments.append(f"-max_total_time={max(1, round(until - time.monotonic()))}")
        progress, tail, status = watch(target, engine(target, *arguments, str(grown)), total)
        total += progress.runs
        if status == 0:
            break
        saved = re.search(r"Test unit written to (\S+)", "\n".join(tail))
        if saved and "timeout-" in saved[1] and engine(target, saved[1]).wait() == 0:
            print(f"{target}: one input was slow once, not when played again: {saved[1]}", flush=True)
            if (not left or total < left) and (until is None or time.monotonic() < until):
                continue
            break
        report(target, tail, saved[1] if saved else "")
        return False
    spent = time.monotonic() - begin
    print(
        f"{target}: {total:,} executions in {spent:.0f} s, {total / spent:,.0f}/s, {progress.edges} edges, "
        f"{progress.features} features, {progress.inputs} inputs, {progress.memory_mb} MB: nothing found",
        flush=True,
    )
    return leaves_nothing(target, grown)


def watch(target: str, process: subprocess.Popen[str], before: int) -> tuple[Progress, list[str], int]:
    """Follow a run to its end: its progress, the last lines it printed, its status."""
    assert process.stdout is not None
    progress, tail, shown = Progress(), [], time.monotonic()
    for line in process.stdout:
        pulse = PULSE.match(line)
        if pulse is None:
            tail = [*tail[-79:], line.rstrip()]
            continue
        runs, edges, features, inputs, rate, memory = map(int, pulse.groups())
        progress = Progress(runs, edges, features, inputs, memory)
        if time.monotonic() - shown > PROGRESS_S:
            shown = time.monotonic()
            print(f"{target}: {before + runs:,} executions, {rate:,}/s, {edges} edges, {inputs} inputs", flush=True)
    return progress, tail, process.wait()


def report(target: str, tail: list[str], saved: str) -> None:
    """Say what was found and how to see it again."""
    print(f"\n{target}: FOUND SOMETHING\n", *(f"    {line}" for line in tail), sep="\n")
    if saved:
        print(f"\nThe input is {saved}; play it again with\n")
        print(f"    make fuzz ARGS='--target {target} --reproduce {saved}'\n", flush=True)


def growing_corpus(target: str) -> Path:
    """The directory a target's inputs grow in, from run to run: the kept ones, and the seeds at first."""
    grown = REPOSITORY / "build" / "fuzz-corpus" / target
    known = corpus.kept(target)
    if not grown.exists():
        known = [*known, *corpus.seeds(target)]
    grown.mkdir(parents=True, exist_ok=True)
    for data in (data for data in known if len(data) <= corpus.INPUT_BYTES_MAX[target]):
        (grown / corpus.name_of(data)).write_bytes(data)
    return grown


def leaves_nothing(target: str, grown: Path) -> bool:
    """Play the smallest covering set several times on the ordinary build and count the interpreter's blocks."""
    inputs = str(cover(target, grown))
    command = [sys.executable, str(REPOSITORY / "tests" / "fuzz" / "replay.py"), target, "--leaks", "--inputs", inputs]
    return subprocess.run(command, check=False, cwd=REPOSITORY).returncode == 0


def cover(target: str, grown: Path) -> Path:
    """A directory with the smallest inputs of a corpus that cover what all of it covers."""
    smallest = REPOSITORY / "build" / "fuzz-cover" / target
    shutil.rmtree(smallest, ignore_errors=True)
    smallest.mkdir(parents=True)
    _, tail, status = watch(target, engine(target, "-set_cover_merge=1", str(smallest), str(grown)), 0)
    if status:
        print(*tail, sep="\n")
        sys.exit(1)
    return smallest


def minimise(target: str) -> None:
    """Write the smallest covering set into the repository."""
    smallest = cover(target, growing_corpus(target))
    count = corpus.keep(target, [path.read_bytes() for path in smallest.iterdir()])
    print(f"{target}: {count} inputs kept", flush=True)


if __name__ == "__main__":
    sys.exit(main())
