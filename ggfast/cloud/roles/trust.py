"""Whether a role's trust policy lets somebody take the role."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from ggfast.cloud.faults import Fault
from ggfast.cloud.limits import TRUST_POLICY_CHARACTERS_MAX
from ggfast.cloud.policy import PolicyDocument, decide
from ggfast.cloud.roles.service import check_document
from ggfast.cloud.store.interface import Body

ASSUME = "sts:AssumeRole"


def check_trust(text: str) -> None:
    """Raise Fault unless a text may be a role's trust policy: every statement says whom it is about."""
    check_document(text, TRUST_POLICY_CHARACTERS_MAX, "trust policy")
    for statement in _statements(text):
        given = [name for name in ("Principal", "NotPrincipal") if name in statement]
        if len(given) != 1 or "Resource" in statement or "NotResource" in statement:
            raise Fault(
                "MalformedPolicyDocument",
                "The trust policy is malformed: each statement has a Principal and no Resource: it is about the role.",
            )
        principals = statement[given[0]]
        if principals != "*" and not (isinstance(principals, dict) and all(map(_is_texts, principals.values()))):
            raise Fault(
                "MalformedPolicyDocument",
                'The trust policy is malformed: Principal is "*" or an object of texts or lists of texts.',
            )


def trusts_service(role: Body, service: str, context: Mapping[str, str]) -> bool:
    """Whether a service ("greengrass.amazonaws.com") may take the role; `context` for the policy's conditions.

    Everybody, "*", is no service where that would allow, and all of them where it denies."""
    return _trusts(role, "Service", {service}, context)


def trusts_principal(role: Body, arn: str, account: str, external_id: str, behind: str = "") -> bool:
    """Whether a principal of the account may take the role. The account itself stands for all of its principals.

    `behind` is the ARN of the role whose session the principal is, "" for others."""
    names = {arn, account, f"arn:aws:iam::{account}:root", "*", behind or arn}
    context = {"aws:PrincipalArn": behind or arn, "aws:PrincipalAccount": account}
    if external_id:
        context["sts:ExternalId"] = external_id
    return _trusts(role, "AWS", names, context)


def _trusts(role: Body, kind: str, names: set[str], context: Mapping[str, str]) -> bool:
    statements = _statements(role["trust"])
    parsed = PolicyDocument.parse(role["trust"]).statements
    about = []
    for raw, statement in zip(statements, parsed, strict=True):
        named: Any = raw.get("Principal", raw.get("NotPrincipal"))
        if named == "*":
            matched = kind == "AWS" or not statement.allows
        else:
            matched = not names.isdisjoint(_texts(named.get(kind, ())))
        if matched != ("NotPrincipal" in raw):
            about.append(statement)
    return decide([PolicyDocument(tuple(about))], ASSUME, role["arn"], context)


def _statements(text: str) -> list[dict[str, Any]]:
    content = orjson.loads(text)["Statement"]
    return content if isinstance(content, list) else [content]


def _texts(value: object) -> list[str]:
    return [value] if isinstance(value, str) else list(value)  # type: ignore[call-overload]


def _is_texts(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(entry, str) for entry in value))
