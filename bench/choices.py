"""The part of the command line that the broker's benchmarks share."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench.generator import BenchFailed
from bench.peers import OWN, Peer, given, installed, mosquitto, own_broker


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which brokers, where, and what becomes of the result."""
    parser.add_argument("--quick", action="store_true", help="very short and small: does it run? no figures")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="only this broker, may be repeated")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND",
                        help="one more broker; {port} and {directory} in the command are filled in; "
                        "{directory}/mosquitto.conf and {directory}/flashmq.conf are there")  # fmt: skip
    parser.add_argument("--tls-peer", action="append", default=[], metavar="NAME=COMMAND",
                        help="the same broker with mutual TLS; {cert}, {key}, {ca} are filled in too")  # fmt: skip
    parser.add_argument("--port", type=int, default=0, help="port of the brokers (default: a free one)")
    parser.add_argument("--cores", metavar="A,B", help="core of the broker and of the load (default: the first two)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep all samples")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the table of a kept result, measure nothing")


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


def choose_peers(only: Sequence[str], others: Sequence[str], with_tls: Sequence[str] = ()) -> tuple[Peer, ...]:
    """ggfast, mosquitto, what `peers install` fetched, and the peers given by command; with `only`, those of these
    names. Raises BenchFailed.
    """
    makers: dict[str, Callable[[], Peer]] = {OWN: own_broker, "mosquitto": mosquitto}
    makers |= {name: partial(_same, peer) for name, peer in installed().items()}
    tls = {text.partition("=")[0]: text for text in with_tls}
    names = [text.partition("=")[0] for text in others]
    for name in tls:
        if name not in names:
            raise BenchFailed(f"found --tls-peer {name}, expected the name of a --peer.")
    makers |= {name: partial(given, text, tls.get(name, "")) for name, text in zip(names, others, strict=True)}
    unknown = [name for name in only if name not in makers]
    if unknown:
        raise BenchFailed(f"found --only {unknown[0]}, expected one of {', '.join(makers)}.")
    return tuple(make() for name, make in makers.items() if not only or name in only)


def _same(peer: Peer) -> Peer:
    return peer
