"""Messages per broker CPU-second, latency and memory, of ggfast's broker beside named peers in the same run.

Broker and load have a core each. The brokers take turns at each case (A B A B …), every time freshly started, so that
whatever else the machine does meets all of them. A loss, a repeated or an overtaken message fails the case.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import report
from bench.generator import BenchFailed, build, idle_connections, run_load
from bench.peers import OWN, Peer, RunningBroker, given, mosquitto, own_broker, running

SECONDS, WARM_UP_S, REPEAT = 3.0, 0.5, 5
QUICK_SECONDS, QUICK_WARM_UP_S = 0.1, 0.05
IDLE_WARM_UP = 16  # connections before the first weighing: what the first clients cost is not a cost of each
IDLE_SETTLE_S = 0.3


@dataclass(frozen=True)
class Case:
    """One load. `window` messages of each publisher are under way, or `rate` messages a second are sent in all."""

    name: str
    text: str
    publishers: int = 1
    subscribers: int = 1
    qos: int = 0
    size: int = 64
    window: int = 1_000
    rate: int = 0
    idle: int = 0  # instead of a load: so many connections that do nothing

    def load_options(self) -> list[str]:
        """The load generator's options for this case."""
        how = ("--rate", str(self.rate)) if self.rate else ("--window", str(self.window))
        whom = ("--publishers", str(self.publishers), "--subscribers", str(self.subscribers))
        return [*whom, "--qos", str(self.qos), "--size", str(self.size), *how]


CASES = (
    Case("1:1", "1:1, QoS 0, 64 B, window 1000"),
    Case("1:1-1k", "1:1, QoS 0, 1 KiB, window 1000", size=1_024),
    Case("1:1-w20", "1:1, QoS 0, 64 B, window 20", window=20),
    Case("pairs", "100 pairs, QoS 0, 64 B, window 10 each", publishers=100, subscribers=100, window=10),
    Case("1:1-qos1", "1:1, QoS 1, 64 B, window 1000", qos=1),
    Case("1:1-qos2", "1:1, QoS 2, 64 B, window 1000", qos=2),
    Case("fan-in", "50 -> 1, QoS 0, 64 B, window 20 each", publishers=50, window=20),
    Case("fan-out", "1 -> 50, QoS 0, 64 B, window 20", subscribers=50, window=20),
    Case("fan-out-500", "1 -> 500, QoS 0, 64 B, window 20", subscribers=500, window=20),
    Case("latency", "1:1, QoS 0, 64 B, 1000 messages/s", rate=1_000),
    Case("idle", "1000 idle connections", idle=1_000),
)


@dataclass(frozen=True)
class Plan:
    """What one call of the benchmark does."""

    cases: tuple[Case, ...]
    peers: tuple[Peer, ...]
    seconds: float
    warm_up_s: float
    repeat: int
    port: int
    cores: tuple[int, int] | None  # of broker and load; None: the machine has only one for us


def measure_load(case: Case, broker: RunningBroker, plan: Plan) -> dict[str, Any]:
    """One sample of a load. Raises BenchFailed for a loss and for a broker that ends."""
    options = ["--port", str(broker.port), *case.load_options()]
    options += ["--seconds", str(plan.seconds), "--warm-up", str(plan.warm_up_s)]
    for pid in broker.pids():
        options += ["--cpu-of", str(pid)]
    figures = run_load(options, plan.seconds + plan.warm_up_s, plan.cores[1] if plan.cores else None)
    if not figures["messages"] or not figures["broker_cpu_seconds"]:
        raise BenchFailed("the run was too short: no messages, or no CPU time of the broker; give it more --seconds.")
    figures["messages_per_cpu_second"] = figures["messages"] / figures["broker_cpu_seconds"]
    figures["messages_per_second"] = figures["messages"] / figures["seconds"]
    return figures


def measure_idle(case: Case, broker: RunningBroker, plan: Plan) -> dict[str, Any]:
    """One sample of memory: proportional set size without connections and with them."""
    core = plan.cores[1] if plan.cores else None
    with idle_connections(broker.port, IDLE_WARM_UP, core):
        pass
    time.sleep(IDLE_SETTLE_S)
    before = broker.pss_kb()
    with idle_connections(broker.port, case.idle, core):
        time.sleep(IDLE_SETTLE_S)
        after = broker.pss_kb()
    return {"connections": case.idle, "pss_kb_before": before, "pss_kb_with": after,
            "kb_per_connection": (after - before) / case.idle}  # fmt: skip


def measure(case: Case, peer: Peer, plan: Plan) -> dict[str, Any]:
    """One sample with a broker of its own; `{"error": sentence}` if there is no figure."""
    try:
        with running(peer, plan.port, plan.cores[0] if plan.cores else None) as broker:
            try:
                return (measure_idle if case.idle else measure_load)(case, broker, plan)
            except (BenchFailed, OSError) as error:
                return {"error": f"{error}{broker.last_words()}"}
    except BenchFailed as error:
        return {"error": str(error)}


def run(plan: Plan) -> dict[str, Any]:
    """Run the plan, saying on standard error what is being measured; returns the result document."""
    build()
    result = report.new_result(
        {peer.name: {"version": peer.version, "command": list(peer.command)} for peer in plan.peers},
        {
            "seconds": plan.seconds,
            "warm_up_s": plan.warm_up_s,
            "repeat": plan.repeat,
            "cores": list(plan.cores) if plan.cores else None,
        },
    )
    for case in plan.cases:
        samples: dict[str, list[dict[str, Any]]] = {peer.name: [] for peer in plan.peers}
        for number in range(plan.repeat):
            for peer in plan.peers:
                report.progress(f"{case.text}: {peer.name}, {number + 1} of {plan.repeat}")
                sample = measure(case, peer, plan)
                samples[peer.name].append(sample)
                if "error" in sample:
                    report.progress("")
                    print(f"bench: {case.text}: {peer.name}: {sample['error']}", file=sys.stderr)
        result["cases"].append({"name": case.name, "text": case.text, "load": asdict(case), "samples": samples})
    report.progress("")
    return result


def choose_cores(text: str | None) -> tuple[int, int] | None:
    """Broker's and load's core from `A,B`, else the first two this process may use. Raises BenchFailed."""
    allowed = sorted(os.sched_getaffinity(0))
    if text is None:
        return (allowed[0], allowed[1]) if len(allowed) > 1 else None
    try:
        first, second = (int(word) for word in text.split(","))
    except ValueError:
        raise BenchFailed(f"found --cores {text}, expected two numbers like 0,1.") from None
    if first == second or not {first, second} <= set(allowed):
        raise BenchFailed(f"found --cores {text}, expected two different ones of {', '.join(map(str, allowed))}.")
    return first, second


def choose_peers(only: Sequence[str], others: Sequence[str]) -> tuple[Peer, ...]:
    """ggfast, mosquitto and the peers given by command; with `only`, those of these names. Raises BenchFailed."""
    makers: dict[str, Callable[[], Peer]] = {OWN: own_broker, "mosquitto": mosquitto}
    makers |= {text.partition("=")[0]: partial(given, text) for text in others}
    unknown = [name for name in only if name not in makers]
    if unknown:
        raise BenchFailed(f"found --only {unknown[0]}, expected one of {', '.join(makers)}.")
    return tuple(make() for name, make in makers.items() if not only or name in only)


def choose_cases(names: Sequence[str]) -> tuple[Case, ...]:
    """All cases, or those named. Raises BenchFailed."""
    known = {case.name: case for case in CASES}
    for name in names:
        if name not in known:
            raise BenchFailed(f"found --case {name}, expected one of {', '.join(known)}.")
    return tuple(case for case in CASES if not names or case.name in names)


def make_plan(args: argparse.Namespace) -> Plan:
    """The plan of the command line. Raises BenchFailed."""
    seconds = args.seconds if args.seconds is not None else QUICK_SECONDS if args.quick else SECONDS
    repeat = args.repeat if args.repeat is not None else 1 if args.quick else REPEAT
    if seconds <= 0 or repeat < 1:
        raise BenchFailed(f"found --seconds {seconds:g} --repeat {repeat}, expected more than nothing of both.")
    peers = choose_peers(args.only, args.peer)
    warm_up = QUICK_WARM_UP_S if args.quick else WARM_UP_S
    return Plan(choose_cases(args.case), peers, seconds, warm_up, repeat, args.port, choose_cores(args.cores))


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(prog="python -m bench broker", description=__doc__)
    made.add_argument("--seconds", type=float, metavar="N", help=f"length of a sample (default: {SECONDS:g})")
    made.add_argument("--repeat", type=int, metavar="N", help=f"samples of each broker and case (default: {REPEAT})")
    made.add_argument("--quick", action="store_true", help="one very short sample each: does it run? no figures")
    made.add_argument("--case", action="append", default=[], metavar="NAME",
                      help=f"only this one, may be repeated: {', '.join(case.name for case in CASES)}")  # fmt: skip
    made.add_argument("--only", action="append", default=[], metavar="NAME", help="only this broker, may be repeated")
    made.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND",
                      help="one more broker; {port} and {directory} in the command are filled in")  # fmt: skip
    made.add_argument("--port", type=int, default=0, help="port of the brokers (default: a free one)")
    made.add_argument("--cores", metavar="A,B", help="core of the broker and of the load (default: the first two)")
    made.add_argument("--json", type=Path, metavar="FILE", help="keep all samples")
    made.add_argument("--show", type=Path, metavar="FILE", help="print the table of a kept result, measure nothing")
    return made


def main(arguments: Sequence[str]) -> int:
    """Measure and print; 1 if a case of any broker failed, 2 if nothing could be measured."""
    args = parser().parse_args(arguments)
    try:
        result = report.load(args.show) if args.show else run(make_plan(args))
        print(report.table(result))
        if args.json:
            report.save(result, args.json)
    except BenchFailed as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    return 1 if report.failures(result) else 0
