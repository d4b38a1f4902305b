"""`python -m bench [name] …`: runs one benchmark. Without a name all of those with brokers."""

from __future__ import annotations

import importlib
import sys

BENCHMARKS = {
    "all": "broker, counts and hostile after each other",
    "broker": "messages per second and CPU per message, latency, memory, beside other brokers",
    "cloud": "the control plane with 10,000 cores: requests, memory",
    "counts": "instructions and system calls of the broker a message",
    "hostile": "good clients beside 1000 that send garbage, and beside a flood",
    "peers": "the other brokers: which there are; install aedes and amqtt",
    "functions": "device to function to device, cold start, memory of an idle worker",
}


def main(arguments: list[str]) -> int:
    """Run the named benchmark with the rest of the arguments; exit status 2 for an unknown name."""
    if arguments and arguments[0] in ("-h", "--help"):
        print("usage: python -m bench [name] [options]\n")
        for name, what in BENCHMARKS.items():
            print(f"  {name:<10} {what}")
        return 0
    name = "all"
    if arguments and not arguments[0].startswith("-"):
        name, arguments = arguments[0], arguments[1:]
    if name not in BENCHMARKS:
        print(f"bench: found {name!r}, expected one of {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    status: int = importlib.import_module(f"bench.{name}").main(arguments)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
