"""Reading JSON documents written by others: every finding is collected with its path, none is raised.

`parse_json` turns bytes into values, `Fields` hands out the members of one object with the type asked for.
A member of the wrong kind gives a Problem and a harmless value of the right kind, so that one pass reports
everything that is wrong. Never raises on any input, never echoes a secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

import orjson

from ggfast import limits
from ggfast.errors import ConfigError, Problem

_CHARACTERS_SHOWN: Final = 80


@dataclass(frozen=True, slots=True)
class Refusal(Problem):
    """A finding that Greengrass V1 words in its own way; scripts look for `text` (greengrass-core B)."""

    text: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


class Problems:
    """The findings of one document, in the order found; bounded, the rest is counted."""

    def __init__(self) -> None:
        self._found: list[Problem] = []
        self.left_out = 0

    def add(self, path: str, found: str, expected: str) -> None:
        """Note that `path` holds `found` where `expected` belongs."""
        self._keep(Problem(path, found, expected))

    def refuse(self, path: str, text: str, *, found: str, expected: str) -> None:
        """Note a finding in the words of V1."""
        self._keep(Refusal(path, found, expected, text))

    def extend(self, problems: Collection[Problem]) -> None:
        """Take over findings made elsewhere."""
        for problem in problems:
            self._keep(problem)

    def __bool__(self) -> bool:
        return bool(self._found)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self._found)

    def raise_if_any(self, subject: str) -> None:
        """Raise ConfigError with everything found; nothing found, nothing happens."""
        if self._found:
            more = f"({self.left_out} more problems not shown)" if self.left_out else ""
            raise ConfigError(subject, self._found, hint=more)

    def _keep(self, problem: Problem) -> None:
        if len(self._found) < limits.PROBLEMS_MAX:
            self._found.append(problem)
        else:
            self.left_out += 1


def parse_json(data: bytes, problems: Problems, path: str) -> object:
    """The value in `data`, or None with a problem at `path` if it is not JSON (UTF-8, no NaN, bounded depth)."""
    try:
        return orjson.loads(data)
    except ValueError as error:
        problems.add(path, f"text that is not JSON ({error})", "a JSON document in UTF-8")
        return None


def shown(value: object) -> str:
    """`value` as a short piece of text for people; never raises, never longer than a line."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return f"an object with {len(value)} members"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        text = json.dumps(value[:_CHARACTERS_SHOWN])
        return text if len(value) <= _CHARACTERS_SHOWN else f"{text}… ({len(value)} characters)"
    return json.dumps(value)


class Fields:
    """One JSON object and where it stands; remembers which members were asked for."""

    __slots__ = ("_asked", "_children", "_values", "path", "problems")

    def __init__(self, value: object, path: str, problems: Problems) -> None:
        """A `value` that is no object is a problem and reads like an empty one."""
        self.path = path
        self.problems = problems
        self._asked: set[str] = set()
        self._children: dict[str, Fields] = {}
        self._values: dict[str, object] = {}
        if isinstance(value, dict):
            self._values = value
        else:
            problems.add(path or "document", shown(value), "an object")

    def at(self, key: str) -> str:
        """The path of member `key`."""
        return f"{self.path}.{key}" if self.path else key

    def has(self, key: str) -> bool:
        """Whether `key` is there and not null."""
        self._asked.add(key)
        return self._values.get(key) is not None

    def raw(self, key: str) -> object:
        """The member as it is, None if absent."""
        self._asked.add(key)
        return self._values.get(key)

    def names(self) -> list[str]:
        """The names of all members, for objects that are maps."""
        return list(self._values)

    def unknown(self) -> list[str]:
        """Paths of the members nobody asked for, here and in the objects handed out by `child`."""
        mine = sorted(self.at(key) for key in self._values if key not in self._asked)
        return mine + [path for child in self._children.values() for path in child.unknown()]

    def text(
        self,
        key: str,
        *,
        default: str | None = None,
        pattern: re.Pattern[str] | None = None,
        expected: str = "a string",
        characters_max: int = limits.TEXT_CHARACTERS_MAX,
        secret: bool = False,
    ) -> str:
        """A string; `default` None means required. A string that breaks the pattern is handed out all the same."""
        value = self.raw(key)
        if value is None:
            if default is not None:
                return default
            self.problems.add(self.at(key), "nothing", expected)
            return ""
        if not isinstance(value, str):
            self.problems.add(self.at(key), f"a {type(value).__name__}" if secret else shown(value), expected)
            return ""
        found = f"a string of {len(value)} characters" if secret else shown(value)
        if len(value) > characters_max:
            self.problems.add(self.at(key), found, f"at most {characters_max} characters")
        elif "\0" in value or (pattern is not None and pattern.fullmatch(value) is None):
            self.problems.add(self.at(key), found, expected)
        elif default is None and not value:
            self.problems.add(self.at(key), "an empty string", expected)
        return value

    def choice(self, key: str, choices: Collection[str], *, default: str | None = None) -> str:
        """One of `choices`, exactly written."""
        expected = " or ".join(f'"{choice}"' for choice in choices)
        value = self.raw(key)
        if value is None and default is not None:
            return default
        if isinstance(value, str) and value in choices:
            return value
        self.problems.add(self.at(key), "nothing" if value is None else shown(value), expected)
        return next(iter(choices))

    def integer(self, key: str, minimum: int, maximum: int, *, default: int | None = None, unit: str = "") -> int:
        """A whole number within [minimum, maximum]; `default` None means required."""
        value = self.raw(key)
        if value is None and default is not None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum:
            return value
        expected = f"a whole number from {minimum} to {maximum}" + (f" {unit}" if unit else "")
        self.problems.add(self.at(key), "nothing" if value is None else shown(value), expected)
        return minimum if default is None else default

    def optional_integer(self, key: str, minimum: int, maximum: int, *, unit: str = "") -> int | None:
        """Like `integer`, None if absent."""
        return self.integer(key, minimum, maximum, unit=unit) if self.has(key) else None

    def boolean(self, key: str, *, default: bool = False) -> bool:
        """true or false."""
        value = self.raw(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.problems.add(self.at(key), shown(value), "true or false")
            return default
        return value

    def child(self, key: str) -> Fields:
        """The object at `key`, the same one each time; absent reads like an empty one."""
        if key not in self._children:
            value = self.raw(key)
            self._children[key] = Fields({} if value is None else value, self.at(key), self.problems)
        return self._children[key]

    def values(self, key: str, maximum: int) -> list[object]:
        """The list at `key`, at most `maximum` long; absent reads like an empty one."""
        value = self.raw(key)
        if value is None:
            return []
        if not isinstance(value, list):
            self.problems.add(self.at(key), shown(value), "a list")
            return []
        if len(value) > maximum:
            self.problems.add(self.at(key), shown(value), f"at most {maximum}")
            return value[:maximum]
        return value

    def children(self, key: str, maximum: int) -> list[Fields]:
        """The objects in the list at `key`."""
        found = self.values(key, maximum)
        return [Fields(item, f"{self.at(key)}[{index}]", self.problems) for index, item in enumerate(found)]

    def texts(
        self, key: str, maximum: int, *, pattern: re.Pattern[str] | None = None, expected: str = "a string"
    ) -> tuple[str, ...]:
        """The strings in the list at `key`; those that break the rules are left out."""
        found = []
        for index, item in enumerate(self.values(key, maximum)):
            fits = isinstance(item, str) and 0 < len(item) <= limits.TEXT_CHARACTERS_MAX and "\0" not in item
            if fits and isinstance(item, str) and (pattern is None or pattern.fullmatch(item)):
                found.append(item)
            else:
                self.problems.add(f"{self.at(key)}[{index}]", shown(item), expected)
        return tuple(found)

    def integers(self, key: str, minimum: int, maximum: int, count: int) -> tuple[int, ...]:
        """The whole numbers within [minimum, maximum] in the list of at most `count` at `key`."""
        found = []
        for index, item in enumerate(self.values(key, count)):
            if isinstance(item, int) and not isinstance(item, bool) and minimum <= item <= maximum:
                found.append(item)
            else:
                self.problems.add(f"{self.at(key)}[{index}]", shown(item), f"a whole number, {minimum} to {maximum}")
        return tuple(found)
