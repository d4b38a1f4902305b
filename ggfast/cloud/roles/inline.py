"""Policies that are part of one role."""

from __future__ import annotations

from urllib.parse import quote

from ggfast.cloud.limits import INLINE_POLICIES_CHARACTERS_MAX
from ggfast.cloud.operations import Call, Reply
from ggfast.cloud.roles.iam import the_role
from ggfast.cloud.roles.roles import INLINE, everything, under
from ggfast.cloud.roles.service import (
    DOCUMENT,
    IAM,
    PAGED,
    POLICY_NAME,
    ROLE_NAME,
    ROUTE,
    bare_size,
    check_document,
    listed,
    no_such_entity,
    too_much,
)
from ggfast.cloud.shapes import need

_NAMED = {"RoleName": need(ROLE_NAME), "PolicyName": need(POLICY_NAME)}


@IAM.operation("PutRolePolicy", ROUTE, {**_NAMED, "PolicyDocument": need(DOCUMENT)}, writes=True, asks=False)
def put_role_policy(call: Call) -> Reply:
    """Make or replace an inline policy."""
    role = the_role(call, "PutRolePolicy")
    name, text = call.params["PolicyName"], call.params["PolicyDocument"]
    check_document(text, INLINE_POLICIES_CHARACTERS_MAX, "policy document")
    parent = under(call.account, role["name"])
    others = [d.body["document"] for d in everything(call.tx, INLINE, parent) if d.name != name]
    if sum(map(bare_size, [*others, text])) > INLINE_POLICIES_CHARACTERS_MAX:
        raise too_much(
            f"Maximum policy size of {INLINE_POLICIES_CHARACTERS_MAX} bytes exceeded for role {role['name']}"
        )
    call.tx.put(INLINE, parent, name, {"document": text})
    return Reply()


@IAM.operation("GetRolePolicy", ROUTE, _NAMED, asks=False)
def get_role_policy(call: Call) -> Reply:
    """One inline policy, its document URL-encoded."""
    role = the_role(call, "GetRolePolicy")
    name = call.params["PolicyName"]
    body = call.tx.get(INLINE, under(call.account, role["name"]), name)
    if body is None:
        raise no_such_entity(f"The role policy with name {name}")
    return Reply({"RoleName": role["name"], "PolicyName": name, "PolicyDocument": quote(body["document"], safe="")})


@IAM.operation("ListRolePolicies", ROUTE, {"RoleName": need(ROLE_NAME), **PAGED}, asks=False)
def list_role_policies(call: Call) -> Reply:
    """Names of a role's inline policies."""
    role = the_role(call, "ListRolePolicies")
    page = call.list(INLINE, under(call.account, role["name"]))
    return listed(page, "PolicyNames", lambda document: document.name)


@IAM.operation("DeleteRolePolicy", ROUTE, _NAMED, writes=True, asks=False)
def delete_role_policy(call: Call) -> Reply:
    """Remove an inline policy."""
    role = the_role(call, "DeleteRolePolicy")
    if not call.tx.delete(INLINE, under(call.account, role["name"]), call.params["PolicyName"]):
        raise no_such_entity(f"The role policy with name {call.params['PolicyName']}")
    return Reply()
