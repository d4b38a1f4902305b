"""The kept inputs: one file for each target, an input a line in hex, shortest first; and where they come from.

Seeds are what the protocol vectors send and expect. `python -m tests.fuzz --keep` adds what a run has found and
reduces all to a smallest set that covers the same.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.fuzz import packets

HERE = Path(__file__).resolve().parent
VECTORS = HERE.parent / "vectors"
KEPT = HERE / "corpus"
TARGETS = ("framing", "session")
TOKEN = re.compile(r"(?:(?P<hex>(?:[0-9a-f]{2})+)|'(?P<text>[^']+)'|\{\w+\})(?:\*(?P<times>\d+))?")
INPUT_BYTES_MAX = {"framing": 512, "session": 192}  # longer ones find nothing more and cost time


def kept(target: str) -> list[bytes]:
    """The inputs in the repository."""
    path = KEPT / f"{target}.txt"
    return [bytes.fromhex(line) for line in path.read_text().splitlines()] if path.exists() else []


def keep(target: str, inputs: Iterable[bytes]) -> int:
    """Replace them; how many there are then."""
    lines = [data.hex() for data in sorted(set(inputs), key=lambda data: (len(data), data)) if data]
    KEPT.mkdir(exist_ok=True)
    (KEPT / f"{target}.txt").write_text("".join(f"{line}\n" for line in lines))
    return len(lines)


def name_of(data: bytes) -> str:
    """A file name for an input."""
    return hashlib.sha256(data).hexdigest()[:24]


def seeds(target: str) -> set[bytes]:
    """What the vectors give for a target."""
    made = framing_seeds() if target == "framing" else session_seeds()
    return {data for data in made if len(data) <= INPUT_BYTES_MAX[target]}


def framing_seeds() -> Iterator[bytes]:
    """Each packet a vector sends or expects: byte for byte, and with its length left to be worked out."""
    for level, steps in cases():
        mode = 2 if level == 5 else 0
        for step in steps:
            for text in (step.get("send"), step.get("expect")):
                data = pattern_bytes(text) if isinstance(text, str) else b""
                if data:
                    yield bytes([mode | 1]) + data
                try:
                    whole = list(packets.frames(data))
                except (AssertionError, IndexError):
                    continue
                for frame, body in whole:
                    yield bytes([mode, frame[0]]) + frame[body:]


def session_seeds() -> Iterator[bytes]:
    """Each case as a script: what every connection sends, the ends of connections, the waiting."""
    for _, steps in cases():
        numbers: dict[str, int] = {}
        script = bytearray(b"\x00")
        for step in steps:
            who = numbers.setdefault(str(step.get("on", "")), len(numbers) % 4)
            data = pattern_bytes(step["send"]) if "send" in step else b""
            for begin in range(0, len(data), 255):
                piece = data[begin : begin + 255]
                script += bytes([0x00 | who, len(piece)]) + piece
            if "close" in step:
                script += bytes([0xC4 | who])
            if "wait-ms" in step:
                script += bytes([0xA4])
            if any(name.startswith("expect") for name in step):
                script += bytes([0x70 | who])
        yield bytes(script)
        yield b"\x02" + bytes(script[1:])


def cases() -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """(level, steps) of every vector."""
    for path in sorted(VECTORS.glob("mqtt*/*.json")):
        for case in json.loads(path.read_text()).get("cases", ()):
            yield (5 if path.parent.name == "mqtt5" else 4), case["steps"]


def pattern_bytes(text: str) -> bytes:
    """The bytes of a vector's notation (tests/vectors/README.md); a packet identifier we would choose is 1."""
    found = bytearray()
    for token in TOKEN.finditer(text):
        piece = bytes.fromhex(token["hex"]) if token["hex"] else (token["text"] or "\0\1").encode()
        found += piece * int(token["times"] or 1)
    return bytes(found)
