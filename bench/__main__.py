"""`python -m bench [broker|functions] …`: runs one benchmark. Without a name the broker's."""

from __future__ import annotations

import importlib
import sys

BENCHMARKS = {
    "broker": "messages per second and CPU per message, beside other brokers",
    "functions": "device to function to device, cold start, memory of an idle worker",
}


def main(arguments: list[str]) -> int:
    """Run the named benchmark with the rest of the arguments; exit status 2 for an unknown name."""
    if arguments and arguments[0] in ("-h", "--help"):
        print("usage: python -m bench [name] [options]\n")
        for name, what in BENCHMARKS.items():
            print(f"  {name:<10} {what}")
        return 0
    name = "broker"
    if arguments and not arguments[0].startswith("-"):
        name, arguments = arguments[0], arguments[1:]
    if name not in BENCHMARKS:
        print(f"bench: found {name!r}, expected one of {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    status: int = importlib.import_module(f"bench.{name}").main(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
