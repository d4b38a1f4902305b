"""What members of requests may be: small types that read a JSON value or a text, or say what is wrong with it.

`read` takes a decoded JSON value, `read_text` what came in a path, query or header (or in a form, for the query
protocols). Both raise `Wrong`, which names the member, what was found and what was expected.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ggfast.errors import Problem

TEXT_MAX = 131_072  # characters of a text without a bound of its own: past every documented one
DEPTH_MAX = 32  # levels of an open JSON document
_SHOWN = 80  # characters of a found value in a message
_SHOWN_LEVELS = 3  # of lists and objects in it


class Wrong(Exception):
    """A member is not what its shape wants."""

    def __init__(self, path: str, found: str, expected: str) -> None:
        super().__init__(f"{path}: found {found}, expected {expected}")
        self.problem = Problem(path, found, expected)


def shown(value: object) -> str:
    """A found value for a message: its beginning, on one line. Costs the same for values of any size and depth."""
    text = _beginning(value, _SHOWN_LEVELS)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _beginning(value: object, levels: int) -> str:
    """At least the first `_SHOWN` characters of the value's text form; below `levels` only that there is more."""
    if isinstance(value, str | bytes):
        return repr(value[: _SHOWN + 1])
    if not isinstance(value, list | dict):
        return repr(value)
    if not levels:
        return "…"
    if isinstance(value, list):
        return f"[{', '.join(_beginning(entry, levels - 1) for entry in value[:_SHOWN])}]"
    pairs = islice(value.items(), _SHOWN)
    inner = (f"{_beginning(name, 1)}: {_beginning(entry, levels - 1)}" for name, entry in pairs)
    return f"{{{', '.join(inner)}}}"


class Shape:
    """One type of member."""

    expected = "a value"

    def read(self, value: object, path: str) -> Any:
        """The value a handler gets, from decoded JSON."""
        raise NotImplementedError

    def read_text(self, text: str, path: str) -> Any:
        """The same from a path, query, header or form."""
        return self.read(text, path)

    def wrong(self, value: object, path: str) -> Wrong:
        """That `value` is not of this shape."""
        return Wrong(path, shown(value), self.expected)


class Text(Shape):
    """A string of `least` to `most` characters that matches `pattern` whole. U+0000 and halves of surrogate pairs
    (what a header's wrong bytes become) are nowhere allowed."""

    def __init__(self, least: int = 0, most: int = TEXT_MAX, pattern: str = "") -> None:
        self.least, self.most = least, most
        self.pattern = re.compile(pattern) if pattern else None
        size = f"{least} to {most} characters" if least else f"at most {most} characters"
        self.expected = f"a string of {size}" + (f" that matches {pattern}" if pattern else "")

    def read(self, value: object, path: str) -> str:
        if not isinstance(value, str) or not self.least <= len(value) <= self.most or "\0" in value:
            raise self.wrong(value, path)
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise self.wrong(value, path)
        if self.pattern is not None and self.pattern.fullmatch(value) is None:
            raise self.wrong(value, path)
        return value


class Choice(Shape):
    """One of some words."""

    def __init__(self, *words: str) -> None:
        self.words = frozenset(words)
        self.expected = "one of " + ", ".join(words)

    def read(self, value: object, path: str) -> str:
        if not isinstance(value, str) or value not in self.words:
            raise self.wrong(value, path)
        return value


class Whole(Shape):
    """A whole number."""

    def __init__(self, least: int = -(2**63), most: int = 2**63 - 1) -> None:
        self.least, self.most = least, most
        self.expected = f"a whole number from {least} to {most}"

    def read(self, value: object, path: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not self.least <= value <= self.most:
            raise self.wrong(value, path)
        return value

    def read_text(self, text: str, path: str) -> int:
        if re.fullmatch(r"-?[0-9]{1,19}", text) is None:
            raise self.wrong(text, path)
        return self.read(int(text), path)


class Number(Shape):
    """A number, whole or not; also a timestamp as seconds since 1970."""

    expected = "a number"

    def read(self, value: object, path: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(value, path)
        return float(value)

    def read_text(self, text: str, path: str) -> float:
        if re.fullmatch(r"-?[0-9]{1,19}(\.[0-9]{1,19})?", text) is None:
            raise self.wrong(text, path)
        return float(text)


class Flag(Shape):
    """true or false."""

    expected = "true or false"

    def read(self, value: object, path: str) -> bool:
        if not isinstance(value, bool):
            raise self.wrong(value, path)
        return value

    def read_text(self, text: str, path: str) -> bool:
        if text.lower() not in ("true", "false"):
            raise self.wrong(text, path)
        return text.lower() == "true"


class Blob(Shape):
    """Bytes, as base64 in JSON and forms; as themselves where the body is nothing else."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.expected = f"base64 of at most {most} bytes"

    def read(self, value: object, path: str) -> bytes:
        if isinstance(value, bytes) and len(value) <= self.most:
            return value
        if isinstance(value, bytes):
            raise Wrong(path, f"{len(value)} bytes", f"at most {self.most} bytes")
        if not isinstance(value, str) or len(value) > (self.most + 2) // 3 * 4 + 4:
            raise Wrong(
                path,
                f"{type(value).__name__} of {len(value) if isinstance(value, str) else 0} characters",
                self.expected,
            )
        try:
            found = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise Wrong(path, f"text that is not base64 ({error})", self.expected) from error
        if len(found) > self.most:
            raise Wrong(path, f"{len(found)} bytes", self.expected)
        return found


class Items(Shape):
    """A list of one shape."""

    def __init__(self, of: Shape, least: int = 0, most: int = 10_000) -> None:
        self.of, self.least, self.most = of, least, most
        self.expected = f"a list of {least} to {most} entries"

    def read(self, value: object, path: str) -> list[Any]:
        if not isinstance(value, list):
            raise self.wrong(value, path)
        if not self.least <= len(value) <= self.most:
            raise Wrong(path, f"{len(value)} entries", self.expected)
        return [self.of.read(entry, f"{path}[{position}]") for position, entry in enumerate(value)]

    def read_text(self, text: str, path: str) -> list[Any]:
        return [self.of.read_text(text, path)]


class Table(Shape):
    """A map from strings to one shape."""

    def __init__(self, of: Shape, most: int = 1_000, key: Text | None = None) -> None:
        self.of, self.most = of, most
        self.key = key or Text(0, 2_048)
        self.expected = f"an object of at most {most} members"

    def read(self, value: object, path: str) -> dict[str, Any]:
        if not isinstance(value, dict) or len(value) > self.most:
            raise self.wrong(value, path)
        return {
            self.key.read(name, f"a key of {path}"): self.of.read(entry, f"{path}.{name}")
            for name, entry in value.items()
        }


class Anything(Shape):
    """Any JSON value of bounded depth."""

    expected = f"JSON nested at most {DEPTH_MAX} deep"

    def read(self, value: object, path: str) -> Any:
        if _depth(value) > DEPTH_MAX:
            raise self.wrong("a deeper value", path)
        return value


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a request or record: its shape, where it travels and under which name."""

    shape: Shape
    required: bool = False
    where: str = "body"  # body, path, query, header, payload (the whole body, as bytes)
    wire: str = ""  # the name there, if it is not the member's own


class Record(Shape):
    """An object with known members. Unknown ones are refused; null counts as absent."""

    expected = "an object"

    def __init__(self, members: Mapping[str, Shape | Member], *, open: bool = False) -> None:
        self.members = {name: shape if isinstance(shape, Member) else Member(shape) for name, shape in members.items()}
        self.open = open

    def read(self, value: object, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.wrong(value, path)
        found = {}
        for name, entry in value.items():
            member = self.members.get(name)
            if member is None:
                if self.open:
                    continue
                raise Wrong(
                    f"{path}.{name}" if path else name, "an unknown member", "one of " + ", ".join(sorted(self.members))
                )
            if entry is not None:
                found[name] = member.shape.read(entry, f"{path}.{name}" if path else name)
        for name, member in self.members.items():
            if member.required and name not in found:
                raise Wrong(f"{path}.{name}" if path else name, "nothing", member.shape.expected)
        return found


def need(shape: Shape) -> Member:
    """A member that must be there."""
    return Member(shape, required=True)


def query(shape: Shape, wire: str = "", *, required: bool = False) -> Member:
    """A member in the query string."""
    return Member(shape, required, "query", wire)


def header(shape: Shape, wire: str, *, required: bool = False) -> Member:
    """A member in a header."""
    return Member(shape, required, "header", wire)


def payload(most: int, *, required: bool = False) -> Member:
    """The whole body as bytes."""
    return Member(Blob(most), required, "payload")


def _depth(value: object, level: int = 1) -> int:
    if level > DEPTH_MAX or not isinstance(value, dict | list):
        return level
    entries = value.values() if isinstance(value, dict) else value
    return max((_depth(entry, level + 1) for entry in entries), default=level)
