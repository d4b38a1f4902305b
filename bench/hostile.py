"""Good clients while others attack: 1000 connections that send garbage, and one client that floods.

The good ones are measured alone first, on the same broker. Their load has the load's core before the attackers', which
run only when it sleeps; so a longer latency is the broker's.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench import report
from bench.choices import add_options, choose_cores, choose_peers
from bench.generator import BenchFailed, build, load_beside, run_load
from bench.measure import Plan, broker_options
from bench.peers import Peer
from bench.running import RunningBroker, running

SECONDS, QUICK_SECONDS = 10.0, 0.5
BEFORE_S, QUICK_BEFORE_S = 1.0, 0.2  # the attack has begun when the measuring does
SETTLE_S, QUICK_SETTLE_S = 5.0, 0.5  # from the attack's end to the weighing
QUICK_ATTACKERS = 100
SEED = 1


@dataclass(frozen=True)
class Attack:
    """Good clients and bad ones."""

    name: str
    text: str
    pairs: int
    rate: int  # messages a second of all good pairs
    qos: int
    attackers: int = 0  # so many send garbage; 0: one client floods

    def good(self) -> list[str]:
        """The load generator's options of the good clients."""
        pairs = ["--publishers", str(self.pairs), "--subscribers", str(self.pairs)]
        return [*pairs, "--qos", str(self.qos), "--rate", str(self.rate)]


ATTACKS = (
    Attack("garbage", "100 pairs, QoS 1, 2000 messages/s; 1000 attackers", 100, 2_000, 1, attackers=1_000),
    Attack("flood", "1 pair, QoS 0, 100 messages/s; a flood to another topic", 1, 100, 0),
)


def attack_options(attack: Attack, plan: Plan, seed: int) -> list[str]:
    """The load generator's options of the bad clients."""
    if not attack.attackers:
        return ["--flood", "--name", "flood", "--warm-up", "0"]
    count = min(attack.attackers, QUICK_ATTACKERS) if plan.quick else attack.attackers
    return ["--garbage", str(count), "--seed", str(seed)]


def measure(attack: Attack, peer: Peer, plan: Plan, seed: int) -> dict[str, Any]:
    """One sample, or `{"error": sentence}`; a message of the good clients that is lost is one."""
    try:
        with running(peer, plan.port, plan.broker_core) as broker:
            try:
                return _attacked(attack, broker, plan, seed)
            except (BenchFailed, OSError) as error:
                return {"error": f"{error}{broker.last_words()}"}
    except BenchFailed as error:
        return {"error": str(error)}


def _attacked(attack: Attack, broker: RunningBroker, plan: Plan, seed: int) -> dict[str, Any]:
    before_s, settle_s = (QUICK_BEFORE_S, QUICK_SETTLE_S) if plan.quick else (BEFORE_S, SETTLE_S)
    which = broker_options(broker)
    good = [*which, *attack.good(), "--seconds", str(plan.seconds), "--warm-up", str(plan.warm_up_s)]
    length = plan.seconds + plan.warm_up_s
    alone = run_load(good, length, plan.load_core)
    time.sleep(settle_s)
    before = broker.pss_kb()
    attack_s = length + 2 * before_s
    bad = [*which, *attack_options(attack, plan, seed), "--seconds", str(attack_s)]
    with load_beside(bad, attack_s, plan.load_core) as attackers:
        time.sleep(before_s)
        beside = run_load(good, length, plan.load_core)
    time.sleep(settle_s)
    return {
        "p99_alone_us": alone["latency_us"]["p99"],
        "p99_us": beside["latency_us"]["p99"],
        "latency_alone_us": alone["latency_us"],
        "latency_us": beside["latency_us"],
        "messages": beside["messages"],
        "seconds": beside["seconds"],
        "load_cpu_seconds": beside["load_cpu_seconds"],
        "pss_kb_before": before,
        "pss_kb_after": broker.pss_kb(),
        "cpu_share": attackers["broker_cpu_seconds"] / attackers["seconds"],
        "attackers": attackers,
        "seed": seed,
    }


def run(plan: Plan, names: Sequence[str], seed: int) -> dict[str, Any]:
    """Attack every broker; returns the result document."""
    build()
    result = report.new_result("hostile", plan)
    for attack in ATTACKS:
        if names and attack.name not in names:
            continue
        samples: dict[str, list[dict[str, Any]]] = {peer.name: [] for peer in plan.peers}
        for number in range(plan.repeat):
            for peer in plan.peers:
                report.progress(f"{attack.text}: {peer.name}, {number + 1} of {plan.repeat}")
                samples[peer.name].append(measure(attack, peer, plan, seed + number))
                report.complain(attack.text, peer.name, samples[peer.name][-1])
        result["cases"].append(
            {"name": attack.name, "text": attack.text, "kind": "hostile", "load": asdict(attack), "samples": samples}
        )
    report.progress("")
    return result


def attempts(result: dict[str, Any]) -> list[str]:
    """What the garbage senders did to each broker, a line for each."""
    lines = []
    for case in result["cases"]:
        for name, samples in case["samples"].items():
            for sample in samples:
                if "attempts" in (did := sample.get("attackers", {})):
                    lines.append(
                        f"{name}, seed {sample['seed']}: {did['attempts']} connections in {did['seconds']:.0f} s, "
                        f"{did['closed_by_broker']} closed by the broker, {did['refused']} refused, {did['left']} left "
                        f"by the attacker; {did['bytes_sent'] / 1e6:.1f} MB sent."
                    )
    return lines


def main(arguments: Sequence[str]) -> int:
    """Attack and print; 1 if the good clients lost something, 2 if nothing could be measured."""
    made = argparse.ArgumentParser(prog="python -m bench hostile", description=__doc__)
    made.add_argument("--seconds", type=float, metavar="N", help=f"length of an attack (default: {SECONDS:g})")
    made.add_argument("--repeat", type=int, default=1, metavar="N", help="samples of each (default: 1)")
    made.add_argument("--case", action="append", default=[], choices=[attack.name for attack in ATTACKS])
    made.add_argument("--seed", type=int, default=SEED, metavar="N", help=f"of the garbage (default: {SEED})")
    add_options(made)
    args = made.parse_args(arguments)
    try:
        if args.show:
            result = report.load(args.show, "hostile")
        else:
            seconds = args.seconds or (QUICK_SECONDS if args.quick else SECONDS)
            peers = choose_peers(args.only, args.peer, args.tls_peer)
            plan = Plan((), peers, seconds, 0.2, args.repeat, args.port, choose_cores(args.cores), args.quick)
            result = run(plan, args.case, args.seed)
        print(report.table(result), *attempts(result), sep="\n")
        if args.json:
            report.save(result, args.json)
    except BenchFailed as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    return 1 if report.failures(result) else 0
