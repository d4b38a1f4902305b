"""Reads the vectors: their notation, their files, the list of statements and the table made of both.

Nothing here opens a socket; `runner.py` plays what this module has read. README.md beside it describes
the format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

STEP_KINDS: Final = frozenset(
    ["send", "expect", "expect-set", "expect-any", "expect-close", "expect-nothing", "close", "wait-ms", "distinct"]
)
STEP_KINDS_5: Final = frozenset(["expect-connack", "expect-disconnect"])
STEP_OPTIONS: Final = frozenset(["on", "note", "bytewise", "after-ms", "before-ms"])
CASE_KEYS: Final = frozenset(
    ["name", "statements", "why", "steps", "sessions", "retained", "alone", "choice", "peer_deviates"]
)


class VectorError(Exception):
    """A vector file is written wrongly: our mistake, found before anything is played."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the protocol: its folder of vectors, its level in CONNECT, how its cases are named."""

    title: str
    folder: str
    level: int
    choice: str  # first word of the names of cases that pin a choice of ours

    @property
    def path(self) -> Path:
        """Where its files are."""
        return Path(__file__).parent / self.folder

    @property
    def table(self) -> Path:
        """The table of statements made of them."""
        return self.path / "STATEMENTS.md"

    @property
    def step_kinds(self) -> frozenset[str]:
        """What a step of its cases may be."""
        return STEP_KINDS | STEP_KINDS_5 if self.level == 5 else STEP_KINDS


MQTT_3_1_1: Final = Version("MQTT 3.1.1", "mqtt", 4, "choice")
MQTT_5: Final = Version("MQTT 5.0", "mqtt5", 5, "choice5")


# --- notation ------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"\s*(?:(?P<hex>(?:[0-9a-f]{2})+)|'(?P<text>[ -&(-~]+)'|\{(?P<name>[a-z][a-z0-9]*)\})(?:\*(?P<times>\d+))?"
)


@dataclass(frozen=True, slots=True)
class Pattern:
    """Bytes with named two-byte holes for the packet identifiers a broker chooses."""

    parts: tuple[bytes | str, ...]

    @property
    def size(self) -> int:
        """Length in bytes; a hole is always two."""
        return sum(2 if isinstance(part, str) else len(part) for part in self.parts)

    def match(self, data: bytes, names: dict[str, bytes]) -> bool:
        """True if `data` is exactly this; binds holes met for the first time (never to zero)."""
        bound: dict[str, bytes] = {}
        at = 0
        for part in self.parts:
            if isinstance(part, bytes):
                want = part
            else:
                found = data[at : at + 2]
                want = names.get(part) or bound.setdefault(part, found)
                if want == b"\0\0":
                    return False
            if data[at : at + len(want)] != want:
                return False
            at += len(want)
        if at != len(data):
            return False
        names.update(bound)
        return True

    def fill(self, names: Mapping[str, bytes]) -> bytes:
        """The bytes to send; every hole must have been bound by an earlier expect."""
        return b"".join(part if isinstance(part, bytes) else names[part] for part in self.parts)

    def show(self, names: Mapping[str, bytes]) -> str:
        """For messages: hex, with the value of a hole where it is known."""
        return " ".join(
            shown(part) if isinstance(part, bytes) else shown(names[part]) if part in names else f"{{{part}}}"
            for part in self.parts
        )


def parse_pattern(text: str) -> Pattern:
    """Read `10 0e 0004 'MQTT' {p} 61*128`: hex, quoted ASCII, packet-id holes, repetition."""
    parts: list[bytes | str] = []
    at = 0
    text = text.rstrip()
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise VectorError(f"cannot read {text[at : at + 30]!r}; expected hex pairs, 'text' or {{name}}")
        at = token.end()
        if token["name"]:
            parts.append(token["name"])
            continue
        piece = bytes.fromhex(token["hex"]) if token["hex"] else token["text"].encode()
        piece *= int(token["times"] or 1)
        if parts and isinstance(parts[-1], bytes):
            parts[-1] += piece
        else:
            parts.append(piece)
    return Pattern(tuple(parts))


def shown(data: bytes) -> str:
    """Bytes for a message: hex, cut short when there are many."""
    return data.hex(" ") if len(data) <= 48 else f"{data[:40].hex(' ')} … ({len(data)} bytes)"


# --- cases ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a case: what kind, on which connection, with which compiled bytes."""

    kind: str
    on: str
    value: (
        Any  # Pattern, list of Pattern, list of list of Pattern, text, number or what is wanted of an answer, by kind
    )
    note: str
    bytewise: bool = False
    after_ms: int = 0
    before_ms: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """One conversation and the statements it proves."""

    name: str
    file: str
    statements: tuple[str, ...]
    why: str
    steps: tuple[Step, ...]
    level: int = 4
    sessions: tuple[bytes, ...] = ()
    retained: tuple[bytes, ...] = ()
    alone: bool = False
    choice: bool = False
    peer_deviates: str = ""


def load_cases(*versions: Version) -> list[Case]:
    """All cases of all files, in order. VectorError names the file and case of the first mistake."""
    cases: list[Case] = []
    for version in versions:
        for path in sorted(version.path.glob("*.json")):
            if not path.name.startswith("statements"):
                document = json.loads(path.read_text())
                cases.extend(_read_case(version, path.name, entry) for entry in document["cases"])
    names = [case.name for case in cases]
    if len(names) != len(set(names)):
        raise VectorError(f"case names used twice: {sorted({name for name in names if names.count(name) > 1})}")
    return cases


def _read_case(version: Version, file: str, entry: dict[str, Any]) -> Case:
    name = entry.get("name", "?")
    try:
        if unknown := entry.keys() - CASE_KEYS:
            raise VectorError(f"unknown keys {sorted(unknown)}, expected some of {sorted(CASE_KEYS)}")
        return Case(
            name=name,
            file=f"{version.folder}/{file}",
            statements=tuple(entry["statements"]),
            why=entry["why"],
            steps=tuple(_read_step(step, version.step_kinds) for step in entry["steps"]),
            level=version.level,
            sessions=tuple(parse_pattern(text).fill({}) for text in entry.get("sessions", ())),
            retained=tuple(parse_pattern(text).fill({}) for text in entry.get("retained", ())),
            alone=entry.get("alone", False),
            choice=entry.get("choice", False),
            peer_deviates=entry.get("peer_deviates", ""),
        )
    except (VectorError, KeyError) as error:
        raise VectorError(f"{version.folder}/{file}: {name}: {error}") from error


def _read_step(step: dict[str, Any], allowed: frozenset[str]) -> Step:
    kinds = step.keys() & allowed
    if len(kinds) != 1 or step.keys() - allowed - STEP_OPTIONS:
        raise VectorError(f"step {step} needs exactly one of {sorted(allowed)} and known options")
    kind = kinds.pop()
    value: Any = step[kind]
    if kind in ("send", "expect"):
        value = parse_pattern(value)
    elif kind == "expect-set":
        value = [parse_pattern(text) for text in value]
    elif kind == "expect-any":
        value = [[parse_pattern(text) for text in alternative] for alternative in value]
    elif kind in STEP_KINDS_5:
        value = parse_wanted(value)
    if kind not in ("wait-ms", "distinct") and "on" not in step:
        raise VectorError(f"step {step} does not say on which connection")
    return Step(
        kind=kind,
        on=step.get("on", ""),
        value=value,
        note=step.get("note", ""),
        bytewise=step.get("bytewise", False),
        after_ms=step.get("after-ms", 0),
        before_ms=step.get("before-ms", 0),
    )


def parse_wanted(value: Any) -> dict[str, Any]:
    """What an `expect-connack` or `expect-disconnect` names, complete: codes, session-present, properties, bytes-max.

    A text is short for its code; `code` may list several where the specification leaves it open.
    """
    wanted = dict(value) if isinstance(value, dict) else {"code": value}
    if unknown := wanted.keys() - {"code", "session-present", "properties", "bytes-max"}:
        raise VectorError(f"unknown keys {sorted(unknown)} in {value}")
    return {
        "codes": bytes.fromhex(wanted.get("code", "00")),
        "session-present": bool(wanted.get("session-present", 0)),
        "properties": wanted.get("properties", {}),
        "bytes-max": wanted.get("bytes-max", 268_435_460),
    }


# --- the table of statements ---------------------------------------------------------------------------


def load_statements(version: Version) -> dict[str, dict[str, str]]:
    """Statement id → `says` (our words) and, if no vector can show it, `not_here` (why, or where it is held)."""
    statements: dict[str, dict[str, str]] = {}
    for path in sorted(version.path.glob("statements*.json")):
        found: dict[str, dict[str, str]] = json.loads(path.read_text())["statements"]
        if twice := found.keys() & statements.keys():
            raise VectorError(f"{path.name}: statements listed twice: {sorted(twice)}")
        statements |= found
    return dict(sorted(statements.items(), key=lambda item: [int(number) for number in re.findall(r"\d+", item[0])]))


def statement_table(version: Version, cases: Sequence[Case]) -> str:
    """The text of the version's STATEMENTS.md."""
    lines = [
        f"# {version.title}: statements and the vectors that prove them",
        "",
        "Written by `python tests/vectors/runner.py table` from the statement files and the vectors; do not edit.",
        "",
        "| statement | in short | cases |",
        "|---|---|---|",
    ]
    for statement, entry in load_statements(version).items():
        names = [f"`{case.name}`" for case in cases if statement in case.statements]
        lines.append(
            f"| {statement} | {entry['says']} | {'<br>'.join(names) or '— ' + entry.get('not_here', 'no case')} |"
        )
    return "\n".join(lines) + "\n"
