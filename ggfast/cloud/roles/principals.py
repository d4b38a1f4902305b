"""From short-lived keys to who may do what: the role's policies, narrowed by the session's and by the boundary."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ggfast.cloud.credentials import Session, TokenInvalid, issue
from ggfast.cloud.keys import find_key, user_arn
from ggfast.cloud.limits import CORE_CREDENTIALS_S
from ggfast.cloud.operations import Principal
from ggfast.cloud.policy import PolicyDocument, decide
from ggfast.cloud.roles.roles import get_role, policy_document, role_policies
from ggfast.cloud.roles.trust import trusts_service
from ggfast.cloud.store.interface import Body, Transaction
from ggfast.cloud.surroundings import Surroundings, timestamp
from ggfast.errors import PeerError

GREENGRASS = "greengrass.amazonaws.com"
CREDENTIALS = "credentials.iot.amazonaws.com"  # of role aliases
_NOT_IN_SESSION_NAMES = re.compile(r"[^A-Za-z0-9_+=,.@-]")


class RoleRefused(PeerError):
    """A role gives no keys to a device; the text says why."""


def principal_of(tx: Transaction, cloud: Surroundings, session: Session) -> Principal:
    """Who holds a session's keys, with what the policies say now.

    Raises TokenInvalid when the role is gone (a role made again under its name is another one) or the lasting key
    behind the session is gone or switched off.
    """
    if session.parent_key_id:
        return _user(tx, cloud, session)
    role = get_role(tx, cloud.account, session.role_arn)
    if role is None or session.issued < role["created"]:
        raise TokenInvalid(f"the role {session.role_arn} of the session token is no longer there")
    arn = session_arn(cloud.account, role["name"], session.session_name)
    layers = [[PolicyDocument.parse(text) for text in role_policies(tx, cloud.account, session.role_arn)]]
    narrowing = [policy_document(tx, cloud.account, policy_arn) for policy_arn in session.policy_arns]
    if session.policy or narrowing:
        layers.append([PolicyDocument.parse(text) for text in [session.policy, *narrowing] if text])
    if role["boundary"]:
        text = policy_document(tx, cloud.account, role["boundary"])
        layers.append([PolicyDocument.parse(text)] if text else [])
    context = {"aws:PrincipalArn": role["arn"], "aws:TokenIssueTime": timestamp(session.issued)}
    return _principal(arn, session.key_id, layers, context)


def session_arn(account: str, role_name: str, session_name: str) -> str:
    """The ARN under which the keys of a session act."""
    return f"arn:aws:sts::{account}:assumed-role/{role_name}/{session_name}"


def role_credentials_for_core(
    tx: Transaction,
    cloud: Surroundings,
    role_arn: str,
    thing_name: str,
    *,
    group_arn: str = "",
    seconds: float = CORE_CREDENTIALS_S,
) -> dict[str, str]:
    """Keys of a group role for a core (greengrass-core 15), in the form of `credentials.issue`.

    `group_arn` is what conditions on `aws:SourceArn` in the role's trust policy are asked about. Reads only.
    Raises RoleRefused when the role is not there or does not trust Greengrass.
    """
    role = _trusting_role(tx, cloud, role_arn, GREENGRASS, "The group's role", group_arn)
    name = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "_-") else "-" for letter in thing_name
    )
    return issue(cloud, role_arn, name[:64], min(seconds, role["seconds"]))


def role_credentials_for_alias(
    tx: Transaction, cloud: Surroundings, role_arn: str, session_name: str, *, alias_arn: str, seconds: float
) -> dict[str, str]:
    """Keys of a role alias's role for a device (cloud-api 7), in the form of `credentials.issue`. Reads only.

    Raises RoleRefused when the role is not there or does not trust the service that gives keys to devices.
    """
    role = _trusting_role(tx, cloud, role_arn, CREDENTIALS, "The role alias's role", alias_arn)
    return issue(cloud, role_arn, session_name, min(seconds, role["seconds"]))


def _trusting_role(
    tx: Transaction, cloud: Surroundings, role_arn: str, service: str, what: str, source_arn: str
) -> Body:
    role = get_role(tx, cloud.account, role_arn)
    if role is None:
        raise RoleRefused(f"{what} {role_arn} is not there; make it, or name another role.")
    context = {"aws:SourceAccount": cloud.account} | ({"aws:SourceArn": source_arn} if source_arn else {})
    if not trusts_service(role, service, context):
        raise RoleRefused(f"{what} {role_arn} does not trust {service}; change its trust policy.")
    return role


def _user(tx: Transaction, cloud: Surroundings, session: Session) -> Principal:
    key = find_key(tx, cloud.account, session.parent_key_id)
    if key is None or not key.active:
        raise TokenInvalid("the access key behind the session token is no longer valid")
    arn = user_arn(cloud.account, key.name)
    return _principal(arn, session.key_id, [[PolicyDocument.parse(key.policy)]], {"aws:PrincipalArn": arn})


def _principal(arn: str, key_id: str, layers: list[list[PolicyDocument]], context: dict[str, str]) -> Principal:
    """Every layer must allow."""

    def allows(action: str, resource: str, more: Mapping[str, str]) -> bool:
        return all(decide(documents, action, resource, {**context, **more}) for documents in layers)

    return Principal(arn, key_id, lambda action, resource: allows(action, resource, {}), allows)
