"""Roles, and who the caller is to IAM.

A role's document: {name, id, arn, path, created, trust, description, seconds, boundary, tags}.
"""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import quote

from ggfast.cloud.faults import Fault
from ggfast.cloud.keys import all_keys, user_arn
from ggfast.cloud.operations import Call, Reply
from ggfast.cloud.roles.managed import PREFIX
from ggfast.cloud.roles.roles import ATTACHMENTS, CUSTOMER, INLINE, ROLES, find_role, under
from ggfast.cloud.roles.service import (
    ARN,
    DOCUMENT,
    IAM,
    PAGED,
    PATH,
    PATH_PREFIX,
    ROLE_NAME,
    ROUTE,
    TAGS,
    listed,
    no_such_entity,
    stamp,
    tags_of,
    unique_id,
)
from ggfast.cloud.roles.trust import check_trust
from ggfast.cloud.shapes import Text, Whole, need
from ggfast.cloud.store.interface import Body

_SECONDS = Whole(3_600, 43_200)


@IAM.operation(
    "CreateRole",
    ROUTE,
    {
        "RoleName": need(ROLE_NAME),
        "Path": PATH,
        "AssumeRolePolicyDocument": need(DOCUMENT),
        "Description": Text(0, 1_000),
        "MaxSessionDuration": _SECONDS,
        "PermissionsBoundary": ARN,
        "Tags": TAGS,
    },
    writes=True,
    asks=False,
)
def create_role(call: Call) -> Reply:
    """A role without policies."""
    name, path = call.params["RoleName"], call.params.get("Path", "/")
    arn = f"arn:aws:iam::{call.account}:role{path}{name}"
    call.permit("CreateRole", arn)
    check_trust(call.params["AssumeRolePolicyDocument"])
    boundary = call.params.get("PermissionsBoundary", "")
    if boundary and not boundary.startswith(PREFIX) and call.tx.get(CUSTOMER, call.account, boundary) is None:
        raise no_such_entity(f"Scope ARN: {boundary[:200]}: the policy")
    body: Body = {
        "name": name,
        "id": unique_id("AROA", arn, secrets.token_hex(16)),
        "arn": arn,
        "path": path,
        "created": call.cloud.clock.wall(),
        "trust": call.params["AssumeRolePolicyDocument"],
        "description": call.params.get("Description", ""),
        "seconds": call.params.get("MaxSessionDuration", 3_600),
        "boundary": boundary,
        "tags": tags_of(call),
    }
    if not call.tx.create(ROLES, call.account, name.lower(), body):
        raise Fault("EntityAlreadyExists", f"Role with name {name} already exists.", status=409)
    return Reply({"Role": _form(body)})


@IAM.operation("GetRole", ROUTE, {"RoleName": need(ROLE_NAME)}, asks=False)
def get_role(call: Call) -> Reply:
    """One role."""
    return Reply({"Role": _form(the_role(call, "GetRole"))})


@IAM.operation("ListRoles", ROUTE, {"PathPrefix": PATH_PREFIX, **PAGED})
def list_roles(call: Call) -> Reply:
    """The roles whose path begins with `PathPrefix`; a page may have fewer than asked."""
    prefix = call.params.get("PathPrefix", "/")
    page = call.list(ROLES, call.account)
    return listed(
        page, "Roles", lambda document: _form(document.body) if document.body["path"].startswith(prefix) else None
    )


@IAM.operation("DeleteRole", ROUTE, {"RoleName": need(ROLE_NAME)}, writes=True, asks=False)
def delete_role(call: Call) -> Reply:
    """A role that has no policies. Keys given out for it end with it."""
    role = the_role(call, "DeleteRole")
    parent = under(call.account, role["name"])
    if call.tx.count(INLINE, parent):
        raise _conflict("Cannot delete entity, must delete policies first.")
    if call.tx.count(ATTACHMENTS, parent):
        raise _conflict("Cannot delete entity, must detach all policies first.")
    call.tx.delete(ROLES, call.account, role["name"].lower())
    return Reply()


@IAM.operation(
    "UpdateAssumeRolePolicy",
    ROUTE,
    {"RoleName": need(ROLE_NAME), "PolicyDocument": need(DOCUMENT)},
    writes=True,
    asks=False,
)
def update_assume_role_policy(call: Call) -> Reply:
    """Another trust policy."""
    role = the_role(call, "UpdateAssumeRolePolicy")
    check_trust(call.params["PolicyDocument"])
    call.tx.put(ROLES, call.account, role["name"].lower(), role | {"trust": call.params["PolicyDocument"]})
    return Reply()


@IAM.operation("GetUser", ROUTE, {"UserName": Text(1, 128, r"[A-Za-z0-9_+=,.@-]+")}, asks=False)
def get_user(call: Call) -> Reply:
    """The user whose key signs the request, or the one that was named. Users are the names of access keys."""
    own = user_arn(call.account, "")
    name = call.params.get("UserName", "")
    if not name and not call.principal.arn.startswith(own):
        raise Fault("ValidationError", "Must specify userName when calling with non-User credentials")
    arn = own + name if name else call.principal.arn
    call.permit("GetUser", arn)
    name = name or arn.removeprefix(own)
    key = next((key for key in all_keys(call.tx, call.account) if key.name == name), None)
    if key is None and arn != call.principal.arn:
        raise no_such_entity(f"The user with name {name}")
    created = key.created if key is not None else stamp(0)
    user = {"Path": "/", "UserName": name, "UserId": unique_id("AIDA", arn), "Arn": arn, "CreateDate": created}
    return Reply({"User": user})


def the_role(call: Call, operation: str) -> Body:
    """The role a request names, once its key may do the operation with it. Raises Fault."""
    name = call.params["RoleName"]
    role = find_role(call.tx, call.account, name)
    call.permit(operation, role["arn"] if role is not None else f"arn:aws:iam::{call.account}:role/{name}")
    if role is None:
        raise no_such_entity(f"The role with name {name}")
    return role


def _form(role: Body) -> dict[str, Any]:
    members = {
        "Path": role["path"],
        "RoleName": role["name"],
        "RoleId": role["id"],
        "Arn": role["arn"],
        "CreateDate": stamp(role["created"]),
        "AssumeRolePolicyDocument": quote(role["trust"], safe=""),
        "MaxSessionDuration": role["seconds"],
    }
    if role["description"]:
        members["Description"] = role["description"]
    if role["boundary"]:
        members["PermissionsBoundary"] = {
            "PermissionsBoundaryType": "PermissionsBoundaryPolicy",
            "PermissionsBoundaryArn": role["boundary"],
        }
    if role["tags"]:
        members["Tags"] = role["tags"]
    return members


def _conflict(message: str) -> Fault:
    return Fault("DeleteConflict", message, status=409)
