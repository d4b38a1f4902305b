"""Short-lived keys for whoever may have them, and who the caller is."""

from __future__ import annotations

from typing import Any

from ggfast.cloud.credentials import TokenTooLarge, issue
from ggfast.cloud.faults import Fault
from ggfast.cloud.limits import (
    CHAINED_SESSION_S_MAX,
    SESSION_POLICIES_MAX,
    SESSION_POLICY_CHARACTERS_MAX,
    SESSION_S_DEFAULT,
    SESSION_TOKEN_CHARACTERS_MAX,
)
from ggfast.cloud.operations import Call, Reply
from ggfast.cloud.roles.customer import the_policy
from ggfast.cloud.roles.principals import session_arn
from ggfast.cloud.roles.roles import find_role, get_role
from ggfast.cloud.roles.service import ARN, DOCUMENT, ROUTE, STS, check_document, unique_id
from ggfast.cloud.roles.trust import ASSUME, trusts_principal
from ggfast.cloud.shapes import Items, Record, Text, Whole, need

_DAY_AND_HALF = 129_600
_HALF_DAY = 43_200
_ASSUMED = ":assumed-role/"


@STS.operation(
    "AssumeRole",
    ROUTE,
    {
        "RoleArn": need(ARN),
        "RoleSessionName": need(Text(2, 64, r"[A-Za-z0-9_+=,.@-]+")),
        "PolicyArns": Items(Record({"arn": need(ARN)}, open=True), 0, SESSION_POLICIES_MAX),
        "Policy": DOCUMENT,
        "DurationSeconds": Whole(900, _HALF_DAY),
        "ExternalId": Text(2, 1_224, r"[A-Za-z0-9_+=,.@:/-]+"),
        "SourceIdentity": Text(2, 64, r"[A-Za-z0-9_+=,.@-]+"),
    },
    resource="{RoleArn}",
)
def assume_role(call: Call) -> Reply:
    """Keys of a role: the caller's policies must allow it and the role must trust the caller."""
    arn, name = call.params["RoleArn"], call.params["RoleSessionName"]
    role = get_role(call.tx, call.account, arn)
    external_id = call.params.get("ExternalId", "")
    if role is None or not trusts_principal(role, call.principal.arn, call.account, external_id, _role_of(call)):
        message = f"User: {call.principal.arn} is not authorized to perform: {ASSUME} on resource: {arn[:2_048]}"
        raise Fault("AccessDenied", message, status=403)
    seconds = call.params.get("DurationSeconds", SESSION_S_DEFAULT)
    if seconds > role["seconds"]:
        raise _invalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
    if _ASSUMED in call.principal.arn and seconds > CHAINED_SESSION_S_MAX:
        raise _invalid(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining."
        )
    policy = call.params.get("Policy", "")
    if policy:
        check_document(policy, SESSION_POLICY_CHARACTERS_MAX, "session policy")
    policy_arns = [the_policy(call, entry["arn"])[0] for entry in call.params.get("PolicyArns", [])]
    try:
        keys = issue(call.cloud, arn, name, seconds, policy=policy, policy_arns=policy_arns)
    except TokenTooLarge as error:
        raise Fault("PackedPolicyTooLarge", f"The session policies are too large: {error}.") from error
    members: dict[str, Any] = {
        "Credentials": keys,
        "AssumedRoleUser": {
            "AssumedRoleId": f"{role['id']}:{name}",
            "Arn": session_arn(call.account, role["name"], name),
        },
    }
    if policy or policy_arns:
        members["PackedPolicySize"] = len(keys["SessionToken"]) * 100 // SESSION_TOKEN_CHARACTERS_MAX
    if "SourceIdentity" in call.params:
        members["SourceIdentity"] = call.params["SourceIdentity"]
    return Reply(members)


@STS.operation("GetSessionToken", ROUTE, {"DurationSeconds": Whole(900, _DAY_AND_HALF)}, asks=False)
def get_session_token(call: Call) -> Reply:
    """Short-lived keys for the holder of a lasting key, who needs no permission for it."""
    if not call.principal.key_id.startswith("AKIA"):
        raise Fault("AccessDenied", "Cannot call GetSessionToken with session credentials", status=403)
    seconds = call.params.get("DurationSeconds", _HALF_DAY)
    return Reply({"Credentials": issue(call.cloud, "", "", seconds, parent_key_id=call.principal.key_id)})


@STS.operation("GetCallerIdentity", ROUTE, {}, asks=False)
def get_caller_identity(call: Call) -> Reply:
    """Who signs the request. Everybody may know that of himself."""
    arn = call.principal.arn
    user_id = unique_id("AIDA", arn)
    if _ASSUMED in arn:
        role_name, _, session_name = arn.partition(_ASSUMED)[2].partition("/")
        role = find_role(call.tx, call.account, role_name)
        user_id = f"{role['id'] if role is not None else unique_id('AROA', arn)}:{session_name}"
    return Reply({"UserId": user_id, "Account": call.account, "Arn": arn})


def _role_of(call: Call) -> str:
    """The ARN of the role that a session's caller has; "" for the holder of a lasting key. Names come once, whatever
    their path, so that a session's ARN, which has none, tells the role."""
    name = call.principal.arn.partition(_ASSUMED)[2].partition("/")[0]
    role = find_role(call.tx, call.account, name) if name else None
    return "" if role is None else str(role["arn"])


def _invalid(message: str) -> Fault:
    return Fault("ValidationError", message)
