"""Texts of policies with wildcards and variables: `*` any characters, `?` one, `${name}` a value of the request.

Values that are put in for variables are literal, whatever they contain. Matching takes time in proportion to text
times pattern divided by a machine word, whatever the pattern: there is nothing to be backtracked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

_ARN_PARTS = 6  # arn:partition:service:region:account:resource


class Wild(Enum):
    """The two wildcards."""

    ANY = "*"
    ONE = "?"


@dataclass(frozen=True, slots=True)
class Variable:
    """`${name}` or `${name, 'default'}`."""

    name: str
    default: str | None


Token = str | Wild | Variable


class Values:
    """What is known about a request, by key. Keys are found whatever their case, but for what is in brackets."""

    __slots__ = ("_exact", "_folded")

    def __init__(self, context: Mapping[str, str]) -> None:
        self._exact = context
        self._folded: dict[str, str] | None = None

    def get(self, key: str) -> str | None:
        """The value, None: not known."""
        found = self._exact.get(key)
        if found is not None or "[" in key:
            return found
        if self._folded is None:
            self._folded = {name.lower(): value for name, value in self._exact.items() if "[" not in name}
        return self._folded.get(key.lower())


class Pattern:
    """One text of a policy, taken apart once and matched often."""

    __slots__ = ("_fold", "_glob", "_tokens")

    def __init__(self, text: str, *, variables: bool, wild: bool = True, fold: bool = False) -> None:
        """Raise ValueError for a variable that has no end or no name. `fold`: case does not matter."""
        tokens = _tokens(text, variables, wild)
        self._fold = fold
        self._tokens = tokens
        self._glob = None if any(isinstance(token, Variable) for token in tokens) else self._compiled(tokens)

    def match(self, text: str, values: Values) -> bool | None:
        """Whether the whole text fits; None: that depends on a variable whose value is not known."""
        if self._fold:
            text = text.lower()
        if self._glob is not None:
            return self._glob.matches(text)
        known: list[str | Wild] = []
        unknown = False
        for token in self._tokens:
            if isinstance(token, Variable):
                value = values.get(token.name)
                value = token.default if value is None else value
                unknown = unknown or value is None
                known.append(Wild.ANY if value is None else value)
            else:
                known.append(token)
        fits = self._compiled(known).matches(text)
        return None if fits and unknown else fits

    def _compiled(self, tokens: Iterable[Token]) -> _Glob:
        return _Glob(
            [
                token.lower() if isinstance(token, str) and self._fold else token
                for token in tokens
                if not isinstance(token, Variable)
            ]
        )


class ArnPattern:
    """A pattern of ARNs: what a wildcard stands for ends at a colon, but in the last part. Names may hold colons, so
    that `arn:aws:iot:*:*:topic/a` must not mean a topic that only ends in `:topic/a`."""

    __slots__ = ("_parts", "_whole")

    def __init__(self, text: str, *, variables: bool) -> None:
        """Raise ValueError as `Pattern` does. A text that begins otherwise than an ARN is an ordinary pattern."""
        self._whole = Pattern(text, variables=variables)
        parts = _parts_of_arn(text, variables) if text.startswith("arn:") else []
        wild = any(character in part for part in parts[:-1] for character in "*?")
        self._parts = [Pattern(part, variables=variables) for part in parts] if wild else []

    def match(self, text: str, values: Values) -> bool | None:
        """Whether the whole text fits; None, which is doubtful: only across colons, or as `Pattern.match` has it."""
        found = self._whole.match(text, values)
        if not self._parts or found is False:
            return found
        given = text.split(":", len(self._parts) - 1)
        fits = len(given) == len(self._parts) and not any(
            pattern.match(part, values) is False for pattern, part in zip(self._parts, given, strict=True)
        )
        return found if fits else None


def _parts_of_arn(text: str, variables: bool) -> list[str]:
    """What lies between the first five colons that are in no variable, and the rest."""
    parts: list[str] = []
    begin = position = 0
    while position < len(text) and len(parts) < _ARN_PARTS - 1:
        if variables and text.startswith("${", position):
            position = text.find("}", position)
        elif text[position] == ":":
            parts.append(text[begin:position])
            begin = position + 1
        position += 1
    return [*parts, text[begin:]]


class _Glob:
    """A pattern without variables: chunks between the `*`s, found one behind the other, the first and last fixed."""

    __slots__ = ("_chunks", "_least")

    def __init__(self, tokens: Iterable[str | Wild]) -> None:
        self._chunks: list[_Chunk] = []
        text: list[str] = []
        holes: list[int] = []
        length = 0
        for token in tokens:
            if token is Wild.ANY:
                self._chunks.append(_Chunk("".join(text), holes))
                text, holes, length = [], [], 0
            elif isinstance(token, str):
                text.append(token)
                length += len(token)
            else:
                holes.append(length)
                text.append("?")
                length += 1
        self._chunks.append(_Chunk("".join(text), holes))
        self._least = sum(len(chunk.text) for chunk in self._chunks)

    def matches(self, text: str) -> bool:
        first, last = self._chunks[0], self._chunks[-1]
        if len(self._chunks) == 1:
            return len(text) == len(first.text) and first.fits(text, 0)
        end = len(text) - len(last.text)
        if len(text) < self._least or not first.fits(text, 0) or not last.fits(text, end):
            return False
        position = len(first.text)
        for chunk in self._chunks[1:-1]:
            position = chunk.find(text, position, end)
            if position < 0:
                return False
            position += len(chunk.text)
        return True


class _Chunk:
    """Characters of which some, the holes, may be any."""

    __slots__ = ("_holes", "_masks", "_open", "text")

    def __init__(self, text: str, holes: list[int]) -> None:
        self.text = text
        self._holes = holes
        self._open = sum(1 << hole for hole in holes)
        self._masks: dict[str, int] | None = None

    def fits(self, text: str, at: int) -> bool:
        """Whether it lies at that place."""
        if not self._holes:
            return text.startswith(self.text, at)
        begin = 0
        for hole in [*self._holes, len(self.text)]:
            if not text.startswith(self.text[begin:hole], at + begin):
                return False
            begin = hole + 1
        return at + len(self.text) <= len(text)

    def find(self, text: str, start: int, end: int) -> int:
        """The first place, -1 if there is none. One bit for each of its characters tells what has fitted so far."""
        if not self._holes:
            return text.find(self.text, start, end)
        if self._masks is None:
            self._masks = {}
            for position, character in enumerate(self.text):
                self._masks[character] = self._masks.get(character, self._open) | 1 << position
        whole = 1 << len(self.text) - 1
        fitted = 0
        for position in range(start, end):
            fitted = (fitted << 1 | 1) & self._masks.get(text[position], self._open)
            if fitted & whole:
                return position + 1 - len(self.text)
        return -1


def _tokens(text: str, variables: bool, wild: bool) -> list[Token]:
    tokens: list[Token] = []
    position = begin = 0
    while position < len(text):
        character = text[position]
        if wild and character in "*?":
            tokens += [text[begin:position], Wild(character)]
            position = begin = position + 1
        elif variables and text.startswith("${", position):
            end = text.find("}", position)
            if end < 0:
                raise ValueError(f"{text[position : position + 80]!r} begins a variable that has no end, expected '}}'")
            tokens += [text[begin:position], _variable(text[position + 2 : end])]
            position = begin = end + 1
        else:
            position += 1
    tokens.append(text[begin:])
    return [token for token in tokens if token != ""]


def _variable(inside: str) -> Token:
    if inside in ("*", "?", "$"):
        return inside
    name, comma, default = inside.partition(",")
    name, default = name.strip(), default.strip()
    if not name or name != "".join(name.split()):
        raise ValueError(f"'${{{inside[:80]}}}' is no variable, expected ${{name}}")
    if not comma:
        return Variable(name, None)
    if len(default) < 2 or default[0] != "'" or default[-1] != "'":
        raise ValueError(f"the default of '${{{inside[:80]}}}' is not in single quotes")
    return Variable(name, default[1:-1])
