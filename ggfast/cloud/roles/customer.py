"""Policies of their own: those made here, and those that come with the service."""

from __future__ import annotations

import re
from typing import Any

from ggfast.cloud.faults import Fault
from ggfast.cloud.limits import MANAGED_POLICY_CHARACTERS_MAX
from ggfast.cloud.operations import Call, Reply
from ggfast.cloud.roles.managed import PREFIX, managed_document
from ggfast.cloud.roles.roles import ATTACHMENTS, CUSTOMER, ROLES, everything
from ggfast.cloud.roles.service import (
    ARN,
    DOCUMENT,
    IAM,
    POLICY_NAME,
    ROUTE,
    TAGS,
    check_document,
    no_such_entity,
    stamp,
    tags_of,
    unique_id,
)
from ggfast.cloud.shapes import Text, need
from ggfast.cloud.store.interface import Body

_PATH = Text(1, 512, r"((/[A-Za-z0-9.,+@=_-]+)*)/")
_MANAGED = re.compile(re.escape(PREFIX) + r"([A-Za-z0-9.,+@=_-]+/)*[A-Za-z0-9_+=,.@-]{1,128}")
_MANAGED_SINCE = 1_420_070_400.0  # 2015: those policies are older than any control plane of ours


@IAM.operation(
    "CreatePolicy",
    ROUTE,
    {
        "PolicyName": need(POLICY_NAME),
        "Path": _PATH,
        "PolicyDocument": need(DOCUMENT),
        "Description": Text(0, 1_000),
        "Tags": TAGS,
    },
    writes=True,
    asks=False,
)
def create_policy(call: Call) -> Reply:
    """A policy that can be attached to roles."""
    name, path, text = call.params["PolicyName"], call.params.get("Path", "/"), call.params["PolicyDocument"]
    arn = f"arn:aws:iam::{call.account}:policy{path}{name}"
    call.permit("CreatePolicy", arn)
    check_document(text, MANAGED_POLICY_CHARACTERS_MAX, "policy document")
    label = f"{call.account}/{name.lower()}"  # unique whatever its path
    body: Body = {
        "document": text,
        "created": call.cloud.clock.wall(),
        "description": call.params.get("Description", ""),
        "tags": tags_of(call),
    }
    if call.tx.count_found(CUSTOMER, "name", label):
        raise Fault(
            "EntityAlreadyExists",
            f"A policy called {name} already exists. Duplicate names are not allowed.",
            status=409,
        )
    call.tx.create(CUSTOMER, call.account, arn, body, {"name": [label]})
    return Reply({"Policy": _form(call, arn, body)})


@IAM.operation("GetPolicy", ROUTE, {"PolicyArn": need(ARN)}, resource="{PolicyArn}")
def get_policy(call: Call) -> Reply:
    """One policy; its description says when it grants nothing here."""
    return Reply({"Policy": _form(call, *the_policy(call, call.params["PolicyArn"]))})


@IAM.operation("DeletePolicy", ROUTE, {"PolicyArn": need(ARN)}, writes=True, resource="{PolicyArn}")
def delete_policy(call: Call) -> Reply:
    """A policy that no role has."""
    arn, _ = the_policy(call, call.params["PolicyArn"])
    if arn.startswith(PREFIX):
        raise Fault("AccessDenied", f"The policy {arn} is no policy of this account.", status=403)
    if call.tx.count_found(ATTACHMENTS, "policy", arn) or _boundaries(call, arn):
        raise Fault("DeleteConflict", "Cannot delete a policy attached to entities.", status=409)
    call.tx.delete(CUSTOMER, call.account, arn)
    return Reply()


def the_policy(call: Call, arn: str) -> tuple[str, Body]:
    """ARN and document of a policy made here or managed. Raises Fault."""
    body = call.tx.get(CUSTOMER, call.account, arn)
    if body is not None:
        return arn, body
    if _MANAGED.fullmatch(arn) is None:
        raise no_such_entity(f"Policy {arn[:200]} does not exist or is not attachable. It")
    known = "" if managed_document(arn) else "Not known here: it may be attached and grants nothing."
    return arn, {"created": _MANAGED_SINCE, "description": known, "tags": []}


def name_and_path(arn: str) -> tuple[str, str]:
    """What a policy's ARN ends in."""
    path, _, name = arn.partition(":policy")[2].rpartition("/")
    return name, path + "/"


def _form(call: Call, arn: str, body: Body) -> dict[str, Any]:
    name, path = name_and_path(arn)
    members = {
        "PolicyName": name,
        "PolicyId": unique_id("ANPA", arn, str(body["created"])),
        "Arn": arn,
        "Path": path,
        "DefaultVersionId": "v1",
        "AttachmentCount": call.tx.count_found(ATTACHMENTS, "policy", arn),
        "PermissionsBoundaryUsageCount": _boundaries(call, arn),
        "IsAttachable": True,
        "CreateDate": stamp(body["created"]),
        "UpdateDate": stamp(body["created"]),
    }
    if body["description"]:
        members["Description"] = body["description"]
    if body["tags"]:
        members["Tags"] = body["tags"]
    return members


def _boundaries(call: Call, arn: str) -> int:
    return sum(role.body["boundary"] == arn for role in everything(call.tx, ROLES, call.account))
