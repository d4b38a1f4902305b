"""The cases of the broker benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.generator import BenchFailed


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
    tls: bool = False  # mutual TLS 1.3
    filters: int = 0  # distinct subscriptions in all; each message has one of them
    topics: int = 0  # so many of them get messages
    idle: int = 0  # instead of a load: so many connections that do nothing
    burst: int = 0  # after a message of so many bytes through each of them
    connects: int = 0  # instead of a load: so many connections one after the other

    @property
    def kind(self) -> str:
        """Which figures it gives: a key of report.FIGURES."""
        return "idle" if self.idle else "connect" if self.connects else "latency" if self.rate else "load"

    def load_options(self) -> list[str]:
        """The load generator's options for this case."""
        how = ("--rate", str(self.rate)) if self.rate else ("--window", str(self.window))
        whom = ["--publishers", str(self.publishers), "--subscribers", str(self.subscribers)]
        if self.filters:
            whom += ["--filters", str(self.filters), "--topics", str(self.topics)]
        return [*whom, "--qos", str(self.qos), "--size", str(self.size), *how]


BURST = 200 * 1024
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
    Case("tls", "TLS 1:1, QoS 0, 64 B, window 1000", tls=True),
    Case("tls-1k", "TLS 1:1, QoS 0, 1 KiB, window 1000", size=1_024, tls=True),
    Case("tls-qos1", "TLS 1:1, QoS 1, 64 B, window 1000", qos=1, tls=True),
    Case("tls-pairs", "TLS 100 pairs, QoS 0, 64 B, window 10 each", 100, 100, window=10, tls=True),
    Case("filters-100", "100 subscriptions of 100 clients", subscribers=100, filters=100, topics=100),
    Case("filters-1k", "1,000 subscriptions of 100 clients", subscribers=100, filters=1_000, topics=1_000),
    Case("filters-100k", "100,000 subscriptions of 100 clients", subscribers=100, filters=100_000, topics=10_000),
    Case("latency", "1:1, QoS 0, 64 B, 1000 messages/s", rate=1_000),
    Case("latency-10k", "1:1, QoS 0, 64 B, 10,000 messages/s", rate=10_000),
    Case("connect", "plain connection, CONNECT, DISCONNECT", connects=500),
    Case("tls-connect", "the same with a mutual TLS handshake", connects=500, tls=True),
    Case("idle", "1000 idle connections", idle=1_000),
    Case("idle-burst", "1000 idle connections after 200 KB each way", idle=1_000, burst=BURST),
    Case("tls-idle", "1000 idle TLS connections", idle=1_000, tls=True),
    Case("tls-idle-burst", "1000 idle TLS connections after 200 KB each way", idle=1_000, burst=BURST, tls=True),
)


def choose_cases(names: Sequence[str]) -> tuple[Case, ...]:
    """All cases, or those named. Raises BenchFailed."""
    known = {case.name: case for case in CASES}
    for name in names:
        if name not in known:
            raise BenchFailed(f"found --case {name}, expected one of {', '.join(known)}.")
    return tuple(case for case in CASES if not names or case.name in names)
