"""Policy decisions, slow and obvious: the twin that `ggfast.cloud.policy` is compared with.

A variable without a value is tried as every text of a small set; "whatever it may be" is what an Allow has to hold for,
"whatever it might be" what is enough for a Deny.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_VARIABLE = re.compile(r"\$\{([^},]+)\}")


def decide(
    documents: Iterable[str], action: str, resource: str, context: Mapping[str, str], tried: Iterable[str]
) -> bool:
    """As `ggfast.cloud.policy.decide`; `tried`: texts a variable without a value might stand for."""
    allowed = False
    for document in documents:
        content = json.loads(document)
        statements = content["Statement"]
        for statement in statements if isinstance(statements, list) else [statements]:
            outcomes = {
                _applies(statement, action, resource, guess) for guess in _guesses(statement, context, list(tried))
            }
            if statement["Effect"] == "Deny" and True in outcomes:
                return False
            if statement["Effect"] == "Allow" and outcomes == {True}:
                allowed = True
    return allowed


def _guesses(statement: Any, context: Mapping[str, str], tried: list[str]) -> Iterator[dict[str, str]]:
    names = set(_VARIABLE.findall(json.dumps(statement)))
    for keys in statement.get("Condition", {}).values():
        names |= set(keys)
    missing = sorted(name for name in names if name not in context)
    for values in itertools.product(tried, repeat=len(missing)):
        yield dict(context) | dict(zip(missing, values, strict=True))


def _applies(statement: Any, action: str, resource: str, values: Mapping[str, str]) -> bool:
    if not _one(statement, "Action", action.lower(), {}, fold=True):
        return False
    if not _one(statement, "Resource", resource, values):
        return False
    for operator, keys in statement.get("Condition", {}).items():
        for key, expected in keys.items():
            listed = expected if isinstance(expected, list) else [expected]
            found = any(_fits(operator, text, values[key], values) for text in listed)
            if found == ("Not" in operator):
                return False
    return True


def _one(statement: Any, name: str, text: str, values: Mapping[str, str], *, fold: bool = False) -> bool:
    key = name if name in statement else "Not" + name
    listed = statement[key] if isinstance(statement[key], list) else [statement[key]]
    found = any(glob(entry.lower() if fold else entry, text, values) for entry in listed)
    return found if key == name else not found


def _fits(operator: str, pattern: str, text: str, values: Mapping[str, str]) -> bool:
    if operator.endswith("Like"):
        return glob(pattern, text, values)
    return _VARIABLE.sub(lambda match: values[match[1]], pattern) == text


def glob(pattern: str, text: str, values: Mapping[str, str]) -> bool:
    """Whether a pattern fits, by trying every way: exponential, for short patterns only."""
    if not pattern:
        return not text
    variable = _VARIABLE.match(pattern)
    if variable is not None:
        value = values[variable[1]]
        return text.startswith(value) and glob(pattern[variable.end() :], text[len(value) :], values)
    if pattern[0] == "*":
        return any(glob(pattern[1:], text[begin:], values) for begin in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and glob(pattern[1:], text[1:], values)
