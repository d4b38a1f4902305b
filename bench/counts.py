"""Instructions and system calls of the broker a message: figures that do not move with what else the machine does.

Instructions are those of user space, counted by the processor where the kernel lets us (perf_event), else by
valgrind's callgrind; system calls by the kernel's tracepoint, else by strace. The tools count a whole run, so there
are two runs of different length and the difference is divided by the difference of the messages.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import report
from bench.choices import add_options, choose_cores, choose_peers
from bench.generator import BenchFailed, build, run_load
from bench.measure import NOT_MEASURED, Plan, broker_options
from bench.peers import OWN, Peer
from bench.running import running

CALLGRIND, STRACE = "callgrind", "strace"
SHORT, LONG = 20_000, 120_000  # messages received in the two runs below a counting tool
QUICK_SHORT, QUICK_LONG = 2_000, 4_000
SECONDS, QUICK_SECONDS = 3.0, 0.3
WRITTEN_S = 10.0  # until a tool has written its sum after the broker's end
COUNTED_S = 300.0  # the longest such run


@dataclass(frozen=True)
class Count:
    """One figure; `limit` is what ggfast promises not to exceed."""

    name: str
    text: str
    kind: str  # "instructions" or "system calls"
    limit: float | None = None
    subscribers: int = 1
    qos: int = 0
    window: int = 0
    rate: int = 0

    def load_options(self) -> list[str]:
        """The load generator's options, without a length."""
        how = ("--rate", str(self.rate)) if self.rate else ("--window", str(self.window))
        return ["--subscribers", str(self.subscribers), "--qos", str(self.qos), *how]


COUNTS = (
    Count("instructions", "1:1, QoS 0, 64 B, window 1000", "instructions", 1_500, window=1_000),
    Count("instructions-qos1", "1:1, QoS 1, 64 B, window 1000", "instructions", qos=1, window=1_000),
    Count("instructions-fan-out", "1 -> 50, QoS 0, 64 B, window 20", "instructions", 500, subscribers=50, window=20),
    Count("calls", "1:1, QoS 0, 64 B, 1000 messages/s", "system calls", 3.1, rate=1_000),
    Count("calls-w20", "1:1, QoS 0, 64 B, window 20", "system calls", 0.16, window=20),
    Count("calls-w1000", "1:1, QoS 0, 64 B, window 1000", "system calls", window=1_000),
)


class NotMeasured(Exception):
    """This machine cannot count that; the text says why."""


def syscalls_event() -> int:
    """The number of the tracepoint of system calls; 0 if the kernel does not tell it."""
    path = "/sys/kernel/tracing/events/raw_syscalls/sys_enter/id"
    command = f"test -e {path} || mount -t tracefs none /sys/kernel/tracing; cat {path}"
    try:  # in a mount namespace of its own: nothing stays mounted
        shown = subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, text=True)
    except OSError:
        return 0
    return int(shown.stdout) if shown.returncode == 0 and shown.stdout.strip().isdigit() else 0


def by_kernel(count: Count, peer: Peer, plan: Plan) -> dict[str, Any]:
    """A figure from the kernel's counters. Raises BenchFailed if they cannot be used."""
    if count.kind == "instructions":
        counter, name, method = ["--instructions"], "instructions", "perf_event: instructions in user space"
    else:
        counter = ["--syscalls-event", str(syscalls_event())]
        name, method = "system_calls", "perf_event: tracepoint raw_syscalls:sys_enter"
        if counter[1] == "0":
            raise BenchFailed("the kernel has no tracepoint of system calls.")
    length = ["--seconds", str(plan.seconds), "--warm-up", str(plan.warm_up_s)]
    with running(peer, plan.port, plan.broker_core) as broker:
        options = [*broker_options(broker), *count.load_options(), *counter, *length]
        figures = run_load(options, plan.seconds + plan.warm_up_s, plan.load_core)
    return {"per_message": figures[name] / figures["messages"], "method": method}


def by_tool(count: Count, peer: Peer, plan: Plan) -> dict[str, Any]:
    """A figure from callgrind or strace: two runs, difference. Raises NotMeasured, BenchFailed."""
    tool = CALLGRIND if count.kind == "instructions" else STRACE
    if shutil.which("valgrind" if tool == CALLGRIND else STRACE) is None:
        raise NotMeasured(f"{count.kind}: neither this kernel's counters nor {tool} are there.")
    if tool == CALLGRIND and peer.command[0] == "node":
        raise NotMeasured(f"{count.kind}: {peer.name} makes machine code as it runs, and callgrind is not for that.")
    short, long = (_one_run(count, peer, plan, tool, long=part) for part in (False, True))
    return {
        "per_message": (long[0] - short[0]) / (long[1] - short[1]),
        "method": f"{tool}: runs of {short[1]} and {long[1]} messages, difference",
    }


def _one_run(count: Count, peer: Peer, plan: Plan, tool: str, *, long: bool) -> tuple[int, int]:
    """What the tool counted in a whole run, and how many messages were received in it."""
    with tempfile.TemporaryDirectory(prefix="ggfast-bench-") as kept:
        below = {
            CALLGRIND: ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", f"--log-file={kept}/%p"],
            STRACE: ["strace", "-D", "-f", "-c", "-o", f"{kept}/calls"],
        }[tool]
        with running(peer, plan.port, plan.broker_core, below=below) as broker:
            options = ["--port", str(broker.port), *count.load_options(), "--warm-up", "0"]
            if count.rate:
                options += ["--seconds", str(plan.seconds * (3 if long else 1))]
            else:
                wanted = (QUICK_LONG if plan.quick else LONG) if long else (QUICK_SHORT if plan.quick else SHORT)
                options += ["--messages", str(wanted // count.subscribers)]
            messages: int = run_load(options, COUNTED_S, plan.load_core)["checked"]
        return (_collected if tool == CALLGRIND else _calls)(Path(kept)), messages


def _collected(kept: Path) -> int:
    return _sum(kept, lambda text: [int(found) for found in re.findall(r"Collected : (\d+)", text)])


def _calls(kept: Path) -> int:
    return _sum(kept, lambda text: [int(found) for found in re.findall(r"^100\.00\s+\S+\s+\S*\s+(\d+)", text, re.M)])


def _sum(kept: Path, read: Callable[[str], list[int]]) -> int:
    until = time.monotonic() + WRITTEN_S
    while True:
        found = [read(file.read_text()) for file in kept.iterdir()]
        if found and all(found):
            return sum(map(sum, found))
        if time.monotonic() > until:
            raise BenchFailed("the counting tool has written no sum: the broker did not end in order.")
        time.sleep(0.05)


def measure(count: Count, peer: Peer, plan: Plan) -> dict[str, Any]:
    """One sample, by the kernel if it can; see bench.measure.measure()."""
    try:
        try:
            return by_kernel(count, peer, plan)
        except BenchFailed as kernel:
            report.progress(f"{count.text}: {peer.name}: {kernel} Another way.")
            return by_tool(count, peer, plan)
    except NotMeasured as reason:
        return {NOT_MEASURED: str(reason)}
    except (BenchFailed, OSError) as error:
        return {"error": str(error)}


def run(plan: Plan, names: Sequence[str]) -> dict[str, Any]:
    """Count everything (or what `names` says); returns the result document."""
    build()
    result = report.new_result("counts", plan)
    for count in COUNTS:
        if names and count.name not in names:
            continue
        samples: dict[str, list[dict[str, Any]]] = {peer.name: [] for peer in plan.peers}
        for number in range(plan.repeat):
            for peer in plan.peers:
                report.progress(f"{count.text}: {peer.name}, {number + 1} of {plan.repeat}")
                samples[peer.name].append(measure(count, peer, plan))
                report.complain(count.text, peer.name, samples[peer.name][-1])
        result["cases"].append(
            {"name": count.name, "text": count.text, "kind": count.kind, "load": asdict(count), "samples": samples}
        )
    report.progress("")
    return result


def verdicts(result: dict[str, Any]) -> list[tuple[bool, str]]:
    """For each promise of ours that was measured: whether it is kept, and a sentence."""
    found = []
    for case in result["cases"]:
        limit = case["load"]["limit"]
        values = report.values_of(report.FIGURES[case["kind"]][0], case["samples"].get(OWN, [{"error": ""}]))
        if limit is not None and values:
            kept = sorted(values)[len(values) // 2] <= limit
            found.append((kept, f"{case['kind']}, {case['text']}: at most {limit:g} {'kept' if kept else 'EXCEEDED'}"))
    return found


def methods(result: dict[str, Any]) -> list[str]:
    """How the figures were counted, each way once."""
    every = (sample for case in result["cases"] for samples in case["samples"].values() for sample in samples)
    return sorted({sample["method"] for sample in every if "method" in sample})


def main(arguments: Sequence[str]) -> int:
    """Count and print; 1 if something failed or, with --check, exceeds our limit; 2 if nothing could be counted."""
    made = argparse.ArgumentParser(prog="python -m bench counts", description=__doc__)
    made.add_argument("--seconds", type=float, metavar="N", help=f"length of a sample (default: {SECONDS:g})")
    made.add_argument("--repeat", type=int, default=1, metavar="N", help="samples of each (default: 1)")
    made.add_argument("--case", action="append", default=[], choices=[count.name for count in COUNTS])
    made.add_argument("--check", action="store_true", help="exit status 1 if ggfast exceeds a limit")
    add_options(made)
    args = made.parse_args(arguments)
    try:
        if args.show:
            result = report.load(args.show, "counts")
        else:
            seconds = args.seconds or (QUICK_SECONDS if args.quick else SECONDS)
            peers = choose_peers(args.only, args.peer, args.tls_peer)
            plan = Plan((), peers, seconds, 0.2, args.repeat, args.port, choose_cores(args.cores), args.quick)
            result = run(plan, args.case)
        print(report.table(result), *methods(result), *(text for _, text in verdicts(result)), sep="\n")
        if args.json:
            report.save(result, args.json)
    except BenchFailed as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    exceeded = args.check and not all(kept for kept, _ in verdicts(result))
    return 1 if exceeded or report.failures(result) else 0
