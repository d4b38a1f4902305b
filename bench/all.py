"""Every benchmark of brokers after each other: broker, counts, hostile."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import broker, counts, hostile, readme
from bench.generator import BenchFailed

EACH = {"broker": broker.main, "counts": counts.main, "hostile": hostile.main}


def main(arguments: Sequence[str]) -> int:
    """Run all with the same brokers; the worst exit status of them."""
    parser = argparse.ArgumentParser(prog="python -m bench all", description=__doc__, allow_abbrev=False,
                                     epilog="Other options go to each: --quick, --only, --peer, ...")  # fmt: skip
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="write broker.json, counts.json, hostile.json")
    parser.add_argument("--readme", action="store_true", help="with --keep: put them into README.md and its figure")
    parser.add_argument("--repeat", metavar="N", help="samples of each broker and case of `broker`")
    args, shared = parser.parse_known_args(arguments)
    if args.readme and not args.keep:
        print("bench: found --readme alone, expected --keep DIRECTORY with it.", file=sys.stderr)
        return 2
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    repeat = ["--repeat", args.repeat] if args.repeat else []
    statuses = []
    for name, run in EACH.items():
        print(f"\n{name}\n", flush=True)
        kept = ["--json", str(args.keep / f"{name}.json")] if args.keep else []
        statuses.append(run([*shared, *kept, *(repeat if name == "broker" else ())]))
    if args.readme:
        try:
            readme.update(args.keep / "broker.json")
        except BenchFailed as error:
            print(f"bench: {error}", file=sys.stderr)
            statuses.append(2)
    return max(statuses)
