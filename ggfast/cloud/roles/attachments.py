"""Policies of their own, attached to roles."""

from __future__ import annotations

from typing import Any

from ggfast.cloud.limits import ATTACHED_POLICIES_MAX
from ggfast.cloud.operations import Call, Reply
from ggfast.cloud.roles.customer import name_and_path, the_policy
from ggfast.cloud.roles.iam import the_role
from ggfast.cloud.roles.roles import ATTACHMENTS, under
from ggfast.cloud.roles.service import ARN, IAM, PAGED, PATH_PREFIX, ROLE_NAME, ROUTE, listed, no_such_entity, too_much
from ggfast.cloud.shapes import need

_NAMED = {"RoleName": need(ROLE_NAME), "PolicyArn": need(ARN)}


@IAM.operation("AttachRolePolicy", ROUTE, _NAMED, writes=True, asks=False)
def attach_role_policy(call: Call) -> Reply:
    """Attach a policy; attaching it again changes nothing."""
    role = the_role(call, "AttachRolePolicy")
    arn = the_policy(call, call.params["PolicyArn"])[0]
    parent = under(call.account, role["name"])
    call.tx.create(ATTACHMENTS, parent, arn, {}, {"policy": [arn]})
    if call.tx.count(ATTACHMENTS, parent) > ATTACHED_POLICIES_MAX:
        raise too_much(f"Cannot exceed quota for PoliciesPerRole: {ATTACHED_POLICIES_MAX}")
    return Reply()


@IAM.operation("DetachRolePolicy", ROUTE, _NAMED, writes=True, asks=False)
def detach_role_policy(call: Call) -> Reply:
    """Take a policy off a role."""
    role = the_role(call, "DetachRolePolicy")
    if not call.tx.delete(ATTACHMENTS, under(call.account, role["name"]), call.params["PolicyArn"]):
        raise no_such_entity(f"Policy {call.params['PolicyArn'][:200]} of role {role['name']}")
    return Reply()


@IAM.operation(
    "ListAttachedRolePolicies",
    ROUTE,
    {"RoleName": need(ROLE_NAME), "PathPrefix": PATH_PREFIX, **PAGED},
    asks=False,
)
def list_attached_role_policies(call: Call) -> Reply:
    """What is attached to a role."""
    role = the_role(call, "ListAttachedRolePolicies")
    prefix = call.params.get("PathPrefix", "/")

    def form(arn: str) -> dict[str, Any] | None:
        name, path = name_and_path(arn)
        return {"PolicyName": name, "PolicyArn": arn} if path.startswith(prefix) else None

    page = call.list(ATTACHMENTS, under(call.account, role["name"]))
    return listed(page, "AttachedPolicies", lambda document: form(document.name))
