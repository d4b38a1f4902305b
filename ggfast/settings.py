"""The kinds of configuration settings: how each is declared, read and explained.

A configuration dataclass declares its fields with `number(...)`, `switch(...)` and so on. `read_section` builds the
dataclass from JSON, `describe` lists the same declarations for the documentation, so the two cannot differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Final, TypeVar

from ggfast.fields import Fields, shown

_SETTING: Final = "setting"
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9a-fA-F:]{2,39}")
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_ABSOLUTE = re.compile(r"/[^\0]*")
_NAME_PATTERN = re.compile(r"[^\s/]{1,128}")

Section = TypeVar("Section")


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of config.json: how to read it, what it may be, since which V1 version, what it is for.

    A dotted key (`cgroup.useSystemd`) stands in a nested object; `read` gets that object and the last part.
    """

    key: str
    read: Callable[[Fields, str], object]
    rule: str
    since: str
    meaning: str


def _declare(key: str, default: Any, read: Callable[[Fields, str], object], rule: str, since: str, meaning: str) -> Any:
    return field(default=default, metadata={_SETTING: Setting(key, read, rule, since, meaning)})


def number(key: str, default: int, minimum: int, maximum: int, unit: str, since: str, meaning: str) -> Any:
    """A whole number in `unit` within [minimum, maximum]."""
    rule = f"{minimum} to {maximum}" + (f" {unit}" if unit else "")

    def read(f: Fields, name: str) -> int:
        return f.integer(name, minimum, maximum, default=default, unit=unit)

    return _declare(key, default, read, rule, since, meaning)


def text(key: str, default: str, since: str, meaning: str, *, pattern: re.Pattern[str], rule: str) -> Any:
    """A string of a certain form."""

    def read(f: Fields, name: str) -> str:
        return f.text(name, default=default, pattern=pattern, expected=rule)

    return _declare(key, default, read, rule, since, meaning)


def host(key: str, default: str, since: str, meaning: str) -> Any:
    """A host name or address."""
    return text(key, default, since, meaning, pattern=_HOST, rule="a host name or address")


def account(key: str, default: str, since: str, meaning: str) -> Any:
    """The name of a Linux user or group."""
    return text(key, default, since, meaning, pattern=_ACCOUNT, rule="a Linux account name")


def absolute_path(key: str, default: str, since: str, meaning: str) -> Any:
    """An absolute path."""
    return text(key, default, since, meaning, pattern=_ABSOLUTE, rule="an absolute path")


def one_of(key: str, default: str, choices: tuple[str, ...], since: str, meaning: str) -> Any:
    """One word out of a list."""

    def read(f: Fields, name: str) -> str:
        return f.choice(name, choices, default=default)

    return _declare(key, default, read, " or ".join(choices), since, meaning)


def yes_no(key: str, default: bool | None, since: str, meaning: str) -> Any:
    """V1's way of writing a switch: the strings `yes` and `no`."""

    def read(f: Fields, name: str) -> bool | None:
        return f.choice(name, ("yes", "no")) == "yes" if f.has(name) else default

    return _declare(key, default, read, '"yes" or "no"', since, meaning)


def switch(key: str, default: bool, since: str, meaning: str) -> Any:
    """true or false."""

    def read(f: Fields, name: str) -> bool:
        return f.boolean(name, default=default)

    return _declare(key, default, read, "true or false", since, meaning)


def modules(key: str, maximum: int, since: str, meaning: str) -> Any:
    """A list of Python module names."""
    return _names(key, maximum, _MODULE, "a dotted module name", since, meaning)


def absolute_paths(key: str, maximum: int, since: str, meaning: str) -> Any:
    """A list of absolute paths."""
    return _names(key, maximum, _ABSOLUTE, "an absolute path", since, meaning)


def name_patterns(key: str, default: tuple[str, ...], maximum: int, since: str, meaning: str) -> Any:
    """A list of shell patterns for names; one that is given replaces the default, an empty one too."""
    rule = "a list; each a name, with `*`, `?` and `[...]` as in a shell"

    def read(f: Fields, name: str) -> tuple[str, ...]:
        if not f.has(name):
            return default
        return f.texts(name, maximum, pattern=_NAME_PATTERN, expected="a name or a shell pattern of names")

    return _declare(key, default, read, rule, since, meaning)


def programs(key: str, names: re.Pattern[str], since: str, meaning: str) -> Any:
    """An object of names, each with the absolute path of a program; read as sorted pairs."""
    rule = "an object; each value an absolute path"

    def read(f: Fields, name: str) -> tuple[tuple[str, str], ...]:
        source = f.child(name)
        for entry in source.names():
            if not names.fullmatch(entry):
                source.problems.add(source.at(entry), shown(entry), f"a name like {names.pattern}")
        pairs = [(e, source.text(e, pattern=_ABSOLUTE, expected="an absolute path")) for e in source.names()]
        return tuple(sorted(pairs))

    return _declare(key, (), read, rule, since, meaning)


def user_ids(key: str, maximum: int, since: str, meaning: str) -> Any:
    """A list of numeric user ids other than root's; None without one, which is not the same as an empty list."""

    def read(f: Fields, name: str) -> tuple[int, ...] | None:
        return f.integers(name, 1, 0xFFFF_FFFE, maximum) if f.has(name) else None

    return _declare(key, None, read, "a list; each a uid from 1", since, meaning)


def _names(key: str, maximum: int, pattern: re.Pattern[str], rule: str, since: str, meaning: str) -> Any:
    def read(f: Fields, name: str) -> tuple[str, ...]:
        return f.texts(name, maximum, pattern=pattern, expected=rule)

    return _declare(key, (), read, f"a list; each {rule}", since, meaning)


def declared(section: type[object]) -> Iterator[tuple[str, Setting, object]]:
    """(attribute, setting, default) of every declared setting of a section, in order."""
    for item in fields(section):  # type: ignore[arg-type]  # every section is a dataclass
        setting = item.metadata.get(_SETTING)
        if setting is not None:
            yield item.name, setting, None if item.default is MISSING else item.default


def read_section(section: type[Section], source: Fields, **more: object) -> Section:
    """Build `section` from one JSON object; `more` are the members that have no declared setting."""
    values: dict[str, object] = {}
    for attribute, setting, _ in declared(section):
        *parents, name = setting.key.split(".")
        holder = source
        for parent in parents:
            holder = holder.child(parent)
        values[attribute] = setting.read(holder, name)
    return section(**values, **more)
