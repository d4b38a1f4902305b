"""One sample of one case: a broker freshly started, a load, figures."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from bench.cases import Case
from bench.generator import BenchFailed, idle_connections, run_load, tls_missing, tls_options
from bench.peers import Peer
from bench.running import RunningBroker, running

IDLE_WARM_UP = 16  # connections before the first weighing: what the first clients cost is not a cost of each
IDLE_SETTLE_S, QUICK_SETTLE_S = 0.3, 0.02
BURST_SETTLE_S = 2.0  # a broker may give memory back a moment later
QUICK_CONNECTIONS, QUICK_FILTERS, QUICK_CONNECTS = 100, 1_000, 20  # enough to see that a case runs
NOT_MEASURED = "not measured"


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
    quick: bool = False

    @property
    def broker_core(self) -> int | None:
        """Where the broker runs."""
        return self.cores[0] if self.cores else None

    @property
    def load_core(self) -> int | None:
        """Where the load runs."""
        return self.cores[1] if self.cores else None


def smaller(case: Case) -> Case:
    """The case as a smoke test: fewer connections and subscriptions."""
    return replace(
        case,
        idle=min(case.idle, QUICK_CONNECTIONS),
        connects=min(case.connects, QUICK_CONNECTS),
        filters=min(case.filters, QUICK_FILTERS),
        topics=min(case.topics, QUICK_FILTERS),
    )


def broker_options(broker: RunningBroker) -> list[str]:
    """The load generator's options that say which broker."""
    options = ["--port", str(broker.port)]
    for pid in broker.pids():
        options += ["--cpu-of", str(pid)]
    return options


def measure_load(case: Case, broker: RunningBroker, plan: Plan) -> dict[str, Any]:
    """One sample of a load. Raises BenchFailed for a loss and for a broker that ends."""
    options = [*broker_options(broker), *case.load_options(), *(tls_options() if case.tls else ())]
    options += ["--seconds", str(plan.seconds), "--warm-up", str(plan.warm_up_s)]
    figures = run_load(options, plan.seconds + plan.warm_up_s, plan.load_core)
    if not figures["messages"] or not figures["broker_cpu_seconds"]:
        raise BenchFailed("the run was too short: no messages, or no CPU time of the broker; give it more --seconds.")
    figures["messages_per_cpu_second"] = figures["messages"] / figures["broker_cpu_seconds"]
    figures["messages_per_second"] = figures["messages"] / figures["seconds"]
    return figures


def measure_idle(case: Case, broker: RunningBroker, plan: Plan) -> dict[str, Any]:
    """One sample of memory: proportional set size without connections and with them."""
    options = tls_options() if case.tls else []
    settle_s = QUICK_SETTLE_S if plan.quick else BURST_SETTLE_S if case.burst else IDLE_SETTLE_S
    with idle_connections(broker.port, IDLE_WARM_UP, plan.load_core, options):
        pass
    time.sleep(min(settle_s, IDLE_SETTLE_S))
    before = broker.pss_kb()
    options += ["--burst", str(case.burst)] if case.burst else []
    with idle_connections(broker.port, case.idle, plan.load_core, options):
        time.sleep(settle_s)
        after = broker.pss_kb()
    return {"connections": case.idle, "pss_kb_before": before, "pss_kb_with": after,
            "kb_per_connection": (after - before) / case.idle}  # fmt: skip


def measure_connects(case: Case, broker: RunningBroker, plan: Plan) -> dict[str, Any]:
    """One sample of what it costs a broker that a client comes and goes."""
    options = [*broker_options(broker), "--connects", str(case.connects), *(tls_options() if case.tls else ())]
    figures = run_load(options, 0.0, plan.load_core)
    figures["cpu_us_per_connection"] = 1e6 * figures["broker_cpu_seconds"] / figures["connects"]
    return figures


def measure(case: Case, peer: Peer, plan: Plan) -> dict[str, Any]:
    """One sample with a broker of its own; `{"error": sentence}` if there is no figure.

    `{"not measured": sentence}` if this machine or what is known of the broker does not allow the case.
    """
    if case.tls and tls_missing():
        return {NOT_MEASURED: f"{tls_missing()}."}
    if case.tls and not peer.tls_command:
        return {NOT_MEASURED: f"how {peer.name} is started with TLS is unknown; say it with --tls-peer."}
    how = measure_idle if case.idle else measure_connects if case.connects else measure_load
    try:
        with running(peer, plan.port, plan.broker_core, tls=case.tls) as broker:
            try:
                return how(smaller(case) if plan.quick else case, broker, plan)
            except (BenchFailed, OSError) as error:
                return {"error": f"{error}{broker.last_words()}"}
    except BenchFailed as error:
        return {"error": str(error)}
