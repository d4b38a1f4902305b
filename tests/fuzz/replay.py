"""Plays inputs on the ordinary build: the kept ones, changed ones, each often enough to show a leak.

    python tests/fuzz/replay.py TARGET [--changed COUNT] [--leaks] [--inputs DIRECTORY]

Without coverage feedback and without a second compiler: the part of fuzzing that runs with every test run. Ends
with status 1 at the first input that fails, and prints it. Needs tests/fuzz/build.py before it.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BUILT = REPOSITORY / "build" / "fuzz-targets"
sys.path[:0] = [str(REPOSITORY), str(BUILT)]

from tests.fuzz import build, corpus  # noqa: E402

SEED = 20_141_029  # the day MQTT 3.1.1 became a standard: any number, but always the same
HANG_S = 5.0  # far beyond the millisecond an input takes, on a busy machine too
ROUNDS = 4


def main() -> int:
    """Play what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=corpus.TARGETS)
    parser.add_argument("--changed", type=int, default=0, help="so many changed inputs after the kept ones")
    parser.add_argument("--leaks", action="store_true", help="play each input several times and count the memory")
    parser.add_argument("--inputs", type=Path, help="a directory of inputs to play instead of the kept ones")
    options = parser.parse_args()
    build.build(BUILT, program=False)
    importlib.invalidate_caches()
    import ggfast_fuzz_targets as targets

    targets.entry(options.target)  # gets the target ready

    def play(data: bytes) -> None:
        targets.run(options.target, data)

    kept = corpus.kept(options.target)
    if options.inputs is not None:
        kept = [path.read_bytes() for path in sorted(options.inputs.iterdir())]
    inputs = kept + changed(kept, options.changed, corpus.INPUT_BYTES_MAX[options.target])
    begin = time.perf_counter()
    for data in inputs:
        started = time.perf_counter()
        try:
            play(data)
        except BaseException:
            print(f"target {options.target}: this input fails: {data.hex()}", flush=True)
            raise
        if time.perf_counter() - started > HANG_S:
            print(f"target {options.target}: this input takes over {HANG_S} s: {data.hex()}")
            return 1
    spent = time.perf_counter() - begin
    print(f"{options.target}: {len(inputs)} inputs played, {len(inputs) / spent:,.0f}/s", flush=True)
    leaks = [data for data in kept if leaks_memory(play, data)] if options.leaks else []
    for data in leaks:
        print(f"target {options.target}: this input leaves memory behind each time: {data.hex()}")
    return 1 if leaks else 0


def leaks_memory(play: Callable[[bytes], None], data: bytes) -> bool:
    """Whether each further round leaves more of the interpreter's blocks allocated than the one before."""
    play(data)
    before = blocks()
    for _ in range(ROUNDS):
        play(data)
        after = blocks()
        if after <= before:
            return False
        before = after
    return True


def blocks() -> int:
    """Blocks allocated now, garbage left out."""
    gc.collect()
    return sys.getallocatedblocks()


def changed(kept: list[bytes], count: int, longest: int) -> list[bytes]:
    """`count` inputs made from the kept ones by small changes, always the same ones."""
    chance = random.Random(SEED)
    made = []
    for _ in range(count):
        data = bytearray(chance.choice(kept))
        for _ in range(chance.randrange(1, 5)):
            change(chance, data, kept)
        made.append(bytes(data[:longest]))
    return made


def change(chance: random.Random, data: bytearray, kept: list[bytes]) -> None:
    """One small change in place."""
    at = chance.randrange(len(data) + 1)
    kind = chance.randrange(5)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << chance.randrange(8)
    elif kind == 1 and at < len(data):
        data[at] = chance.choice((0, 1, 2, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    elif kind == 2:
        del data[at : at + chance.randrange(1, 9)]
    elif kind == 3:
        data[at:at] = chance.randbytes(chance.randrange(1, 5))
    else:
        other = chance.choice(kept)
        data[at:at] = other[chance.randrange(len(other) + 1) :]


if __name__ == "__main__":
    sys.exit(main())
