"""Messages per broker CPU-second, latency and memory, of ggfast's broker beside named peers in the same run.

Broker and load have a core each. The brokers take turns at each case (A B A B …), every time freshly started, so that
whatever else the machine does meets all of them. A loss, a repeated or an overtaken message fails the case.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench import readme, report
from bench.cases import CASES, choose_cases
from bench.choices import add_options, choose_cores, choose_peers
from bench.generator import BenchFailed, build
from bench.measure import Plan, measure

SECONDS, WARM_UP_S, REPEAT = 3.0, 0.5, 5
QUICK_SECONDS, QUICK_WARM_UP_S = 0.1, 0.05


def run(plan: Plan) -> dict[str, Any]:
    """Run the plan, saying on standard error what is being measured; returns the result document."""
    build()
    result = report.new_result("broker", plan)
    for case in plan.cases:
        samples: dict[str, list[dict[str, Any]]] = {peer.name: [] for peer in plan.peers}
        for number in range(plan.repeat):
            for peer in plan.peers:
                report.progress(f"{case.text}: {peer.name}, {number + 1} of {plan.repeat}")
                sample = measure(case, peer, plan)
                samples[peer.name].append(sample)
                report.complain(case.text, peer.name, sample)
        result["cases"].append(
            {"name": case.name, "text": case.text, "kind": case.kind, "load": asdict(case), "samples": samples}
        )
    report.progress("")
    return result


def make_plan(args: argparse.Namespace) -> Plan:
    """The plan of the command line. Raises BenchFailed."""
    seconds = args.seconds if args.seconds is not None else QUICK_SECONDS if args.quick else SECONDS
    repeat = args.repeat if args.repeat is not None else 1 if args.quick else REPEAT
    if seconds <= 0 or repeat < 1:
        raise BenchFailed(f"found --seconds {seconds:g} --repeat {repeat}, expected more than nothing of both.")
    return Plan(
        cases=choose_cases(args.case),
        peers=choose_peers(args.only, args.peer, args.tls_peer),
        seconds=seconds,
        warm_up_s=QUICK_WARM_UP_S if args.quick else WARM_UP_S,
        repeat=repeat,
        port=args.port,
        cores=choose_cores(args.cores),
        quick=args.quick,
    )


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    made = argparse.ArgumentParser(prog="python -m bench broker", description=__doc__)
    made.add_argument("--seconds", type=float, metavar="N", help=f"length of a sample (default: {SECONDS:g})")
    made.add_argument("--repeat", type=int, metavar="N", help=f"samples of each broker and case (default: {REPEAT})")
    made.add_argument("--case", action="append", default=[], metavar="NAME",
                      help=f"only this one, may be repeated: {', '.join(case.name for case in CASES)}")  # fmt: skip
    add_options(made)
    made.add_argument("--readme", action="store_true",
                      help="with --show: put the result, and counts.json and hostile.json beside it, into README.md "
                      "and its figure")  # fmt: skip
    return made


def main(arguments: Sequence[str]) -> int:
    """Measure and print; 1 if a case of any broker failed, 2 if nothing could be measured."""
    args = parser().parse_args(arguments)
    try:
        if args.readme:
            if args.show is None:
                raise BenchFailed("found --readme alone, expected --show FILE with it.")
            readme.update(args.show)
            return 0
        result = report.load(args.show, "broker") if args.show else run(make_plan(args))
        print(report.table(result))
        if args.json:
            report.save(result, args.json)
    except BenchFailed as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    return 1 if report.failures(result) else 0
