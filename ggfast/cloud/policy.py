"""Policy documents of IAM and of IoT: what they say, and what they decide together.

Sources: cloud-api 7, 10; greengrass-core 10.4. MQTT's `+` and `#` are ordinary characters. Where a decision depends on
what is not known (a variable or key the request has no value for, an operator that is none of ours), an Allow does not
count and a Deny does: the doubtful case is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from ggfast.cloud.limits import POLICY_CHARACTERS_MAX, POLICY_STATEMENTS_MAX, POLICY_TEXT_MAX, POLICY_TEXTS_MAX
from ggfast.cloud.policy_conditions import Condition, Truth, all_of, any_of, opposite
from ggfast.cloud.policy_patterns import ArnPattern, Pattern, Values

_CURRENT = "2012-10-17"
_VERSIONS = (_CURRENT, "2008-10-17")
_TOP = frozenset({"Version", "Id", "Statement"})
_ELEMENTS = frozenset(
    {
        "Sid",
        "Effect",
        "Principal",
        "NotPrincipal",
        "Action",
        "NotAction",
        "Resource",
        "NotResource",
        "Condition",
    }
)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. `not_...`: it speaks of everything but what is listed."""

    allows: bool
    actions: tuple[Pattern, ...]
    not_actions: bool
    resources: tuple[ArnPattern, ...]
    not_resources: bool
    conditions: tuple[Condition, ...]

    def applies(self, action: str, resource: str, values: Values) -> bool:
        """Whether it decides about a request; what is not known counts against the request."""
        truth = self._truth(action, resource, values)
        return not self.allows if truth is None else truth

    def _truth(self, action: str, resource: str, values: Values) -> Truth:
        found = any_of([pattern.match(action, values) for pattern in self.actions])
        if (opposite(found) if self.not_actions else found) is False:
            return False
        found = any_of([pattern.match(resource, values) for pattern in self.resources])
        if (found := opposite(found) if self.not_resources else found) is False:
            return False
        return all_of([found, *[condition.truth(values) for condition in self.conditions]])


@dataclass(frozen=True, slots=True)
class PolicyDocument:
    """A policy that has been understood."""

    statements: tuple[Statement, ...]

    @classmethod
    def parse(cls, text: str) -> PolicyDocument:
        """Raise ValueError with the reason, for the message of the service that was given the policy."""
        if len(text) > POLICY_CHARACTERS_MAX:
            raise ValueError(f"the document has {len(text)} characters, expected at most {POLICY_CHARACTERS_MAX}")
        try:
            content = orjson.loads(text)
        except ValueError as error:
            raise ValueError(f"the document is not JSON: {error}") from error
        if not isinstance(content, dict):
            raise ValueError(f"the document is {_kind(content)}, expected an object")
        _only(content, _TOP, "the document")
        version = content.get("Version", _VERSIONS[1])
        if version not in _VERSIONS:
            raise ValueError(f"Version is {_shown(version)}, expected {_CURRENT!r}")
        if not isinstance(content.get("Id", ""), str):
            raise ValueError("Id is not a string")
        return cls(tuple(_statements(content.get("Statement"), version == _CURRENT)))


def decide(
    documents: Iterable[PolicyDocument], action: str, resource: str, context: Mapping[str, str] | None = None
) -> bool:
    """Whether policies together allow `action` ("iot:Publish") on `resource` (an ARN): a Deny that applies wins,
    else one Allow that applies is needed. `context`: values of variables and condition keys ("iot:ClientId",
    "iot:Connection.Thing.Attributes[site]", "aws:SourceIp"); leave out what has no value. Never raises."""
    values = Values(context or {})
    allowed = False
    for document in documents:
        for statement in document.statements:
            if (statement.allows and allowed) or not statement.applies(action, resource, values):
                continue
            if not statement.allows:
                return False
            allowed = True
    return allowed


def _statements(content: object, variables: bool) -> list[Statement]:
    statements = content if isinstance(content, list) else [content]
    if not 1 <= len(statements) <= POLICY_STATEMENTS_MAX:
        raise ValueError(f"Statement has {len(statements)} entries, expected 1 to {POLICY_STATEMENTS_MAX}")
    return [_statement(entry, f"statement {number}", variables) for number, entry in enumerate(statements, 1)]


def _statement(content: object, where: str, variables: bool) -> Statement:
    if not isinstance(content, dict):
        raise ValueError(f"{where} is {_kind(content)}, expected an object")
    _only(content, _ELEMENTS, where)
    if not isinstance(content.get("Sid", ""), str):
        raise ValueError(f"Sid of {where} is {_kind(content['Sid'])}, expected a string")
    effect = content.get("Effect")
    if effect not in ("Allow", "Deny"):
        raise ValueError(f"Effect of {where} is {_shown(effect)}, expected 'Allow' or 'Deny'")
    not_actions, actions = _one_of(content, "Action", where)
    for action in actions:
        if action != "*" and (":" not in action or "$" in action):
            raise ValueError(f"Action of {where} is {_shown(action)}, expected '*' or <service>:<action>")
    if "Principal" in content or "NotPrincipal" in content:  # a role's trust policy: the role is the resource
        content = {"Resource": "*"} | content if "NotResource" not in content else content
    not_resources, resources = _one_of(content, "Resource", where)
    try:
        return Statement(
            allows=effect == "Allow",
            actions=tuple(Pattern(action, variables=False, fold=True) for action in actions),
            not_actions=not_actions,
            resources=tuple(ArnPattern(resource, variables=variables) for resource in resources),
            not_resources=not_resources,
            conditions=tuple(_conditions(content.get("Condition", {}), where, variables)),
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _one_of(content: Mapping[str, Any], name: str, where: str) -> tuple[bool, list[str]]:
    """Whether it is the `Not...` form, and the texts."""
    given = [key for key in (name, "Not" + name) if key in content]
    if len(given) != 1:
        raise ValueError(f"{where} has {' and '.join(given) or f'no {name}'}, expected one of {name} and Not{name}")
    return given[0] != name, _texts(content[given[0]], f"{given[0]} of {where}")


def _conditions(content: object, where: str, variables: bool) -> list[Condition]:
    if not isinstance(content, dict):
        raise ValueError(f"Condition is {_kind(content)}, expected an object")
    found = []
    for operator, keys in content.items():
        if not isinstance(keys, dict) or not keys:
            raise ValueError(f"Condition {_shown(operator)} is {_kind(keys)}, expected an object with keys")
        for key, values in keys.items():
            listed = values if isinstance(values, list) else [values]
            texts = [_plain(value) for value in listed]
            found.append(
                Condition.parse(
                    operator, key, _texts(texts, f"condition {_shown(key)} of {where}"), variables=variables
                )
            )
    return found


def _plain(value: object) -> object:
    """Numbers and flags of conditions may be written without quotes."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _texts(value: object, what: str) -> list[str]:
    entries = value if isinstance(value, list) else [value]
    if not 1 <= len(entries) <= POLICY_TEXTS_MAX:
        raise ValueError(f"{what} has {len(entries)} entries, expected 1 to {POLICY_TEXTS_MAX}")
    texts: list[str] = []
    for text in entries:
        if not isinstance(text, str):
            raise ValueError(f"{what} has {_kind(text)}, expected a string")
        if len(text) > POLICY_TEXT_MAX or (not text and not what.startswith("condition")):
            raise ValueError(f"{what} has a text of {len(text)} characters, expected 1 to {POLICY_TEXT_MAX}")
        texts.append(text)
    return texts


def _only(content: Mapping[str, object], known: frozenset[str], where: str) -> None:
    for name in content:
        if name not in known:
            raise ValueError(f"{where} has the element {_shown(name)}, expected one of {', '.join(sorted(known))}")


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a flag", type(None): "nothing"}
    return names.get(type(value), "a number")


def _shown(value: object) -> str:
    return repr(value)[:80]
