"""Conditions of policies: operators, their negations, `...IfExists`, and what is not known.

A condition is true, false, or unknown (None): its key is not in the request's context, its operator is none of ours, a
variable has no value. An Allow takes unknown as false, a Deny as true (policy.py).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ggfast.cloud.policy_patterns import ArnPattern, Pattern, Values

Truth = bool | None


def all_of(truths: Sequence[Truth]) -> Truth:
    """True if all are, false if one is false, else unknown."""
    if False in truths:
        return False
    return None if None in truths else True


def any_of(truths: Sequence[Truth]) -> Truth:
    """True if one is, false if all are false, else unknown."""
    if True in truths:
        return True
    return None if None in truths else False


def opposite(truth: Truth) -> Truth:
    """Unknown stays unknown."""
    return None if truth is None else not truth


@dataclass(frozen=True, slots=True)
class Condition:
    """One key under one operator with its values, of which one must fit (of a negated operator: none may)."""

    test: Callable[[str, Values], Truth] | None  # None: an operator we do not know
    negated: bool
    if_exists: bool
    null: bool  # asks whether the key is missing
    key: str

    @classmethod
    def parse(cls, operator: str, key: str, found: Sequence[str], *, variables: bool) -> Condition:
        """Raise ValueError for a malformed variable. Requests have one value of each key, so `ForAnyValue:` and
        `ForAllValues:` change nothing but that, here too, a missing key is unknown."""
        name = operator.removeprefix("ForAnyValue:").removeprefix("ForAllValues:")
        if_exists = name.endswith("IfExists")
        name = name.removesuffix("IfExists")
        positive = name.replace("Not", "", 1)
        negated = positive != name
        test: Callable[[str, Values], Truth] | None = None
        if positive in ("ArnEquals", "ArnLike"):
            test = _of_patterns([ArnPattern(value, variables=variables) for value in found])
        elif positive in _TEXTS and not (negated and name not in _NEGATED):
            wild, fold = _TEXTS[positive]
            patterns = [Pattern(value, variables=variables, wild=wild, fold=fold) for value in found]
            test = _of_patterns(patterns)
        elif name in _ORDERS or name in _NEGATED:
            test = _of_orders(_ORDERS[positive], found)
        elif name == "Null":
            test = _of_patterns([Pattern(value, variables=False, wild=False, fold=True) for value in found])
        return cls(test, negated, if_exists, name == "Null", key)

    def truth(self, values: Values) -> Truth:
        """What it is of a request."""
        value = values.get(self.key)
        if self.test is None:
            return None
        if self.null:
            return self.test("true" if value is None else "false", values)
        if value is None:
            return True if self.if_exists else None
        truth = self.test(value, values)
        return opposite(truth) if self.negated else truth


def _of_patterns(patterns: Sequence[Pattern | ArnPattern]) -> Callable[[str, Values], Truth]:
    return lambda value, values: any_of([pattern.match(value, values) for pattern in patterns])


def _of_orders(compare: Callable[[str, str], bool], found: Sequence[str]) -> Callable[[str, Values], Truth]:
    def one(value: str, expected: str) -> Truth:
        try:
            return compare(value, expected)
        except (ValueError, OverflowError):
            return None

    return lambda value, _values: any_of([one(value, expected) for expected in found])


def _number(text: str) -> float:
    number = float(text)
    if number != number:
        raise ValueError("not a number")
    return number


def _instant(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _ordered(read: Callable[[str], float], compare: Callable[[float, float], bool]) -> Callable[[str, str], bool]:
    return lambda value, expected: compare(read(value), read(expected))


def _same_flag(value: str, expected: str) -> bool:
    if not {value.lower(), expected.lower()} <= {"true", "false"}:
        raise ValueError("not true or false")
    return value.lower() == expected.lower()


def _in_network(value: str, expected: str) -> bool:
    return ipaddress.ip_address(value) in ipaddress.ip_network(expected, strict=False)


# operator -> (wildcards count, case does not matter)
_TEXTS = {
    "StringEquals": (False, False),
    "StringEqualsIgnoreCase": (False, True),
    "StringLike": (True, False),
    "BinaryEquals": (False, False),
}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "Equals": lambda value, expected: value == expected,
    "LessThan": lambda value, expected: value < expected,
    "LessThanEquals": lambda value, expected: value <= expected,
    "GreaterThan": lambda value, expected: value > expected,
    "GreaterThanEquals": lambda value, expected: value >= expected,
}
_ORDERS = (
    {"Numeric" + name: _ordered(_number, compare) for name, compare in _COMPARISONS.items()}
    | {"Date" + name: _ordered(_instant, compare) for name, compare in _COMPARISONS.items()}
    | {"Bool": _same_flag, "IpAddress": _in_network}
)
_NEGATED = frozenset(
    {
        "StringNotEquals",
        "StringNotEqualsIgnoreCase",
        "StringNotLike",
        "ArnNotEquals",
        "ArnNotLike",
        "NumericNotEquals",
        "DateNotEquals",
        "NotIpAddress",
    }
)
