"""IoT policies and their versions: up to five, one of them the default, which counts (cloud-api 7)."""

from __future__ import annotations

import uuid

from ggfast.cloud.events import PermissionsChanged
from ggfast.cloud.faults import Fault
from ggfast.cloud.iot.attached import policies_of_certificate
from ggfast.cloud.iot.lookups import ATTACHMENTS, POLICIES, POLICY_VERSIONS, everything
from ggfast.cloud.iot.service import IOT, POLICY_NAME, TAGS, VERSION_ID, exists, in_use, not_found
from ggfast.cloud.iot.tags import drop_tags, put_tags, taggable
from ggfast.cloud.limits import IOT_POLICY_CHARACTERS_MAX, IOT_POLICY_VERSIONS_MAX
from ggfast.cloud.operations import Call, Reply, entries, paged
from ggfast.cloud.policy import PolicyDocument
from ggfast.cloud.shapes import Flag, Text, need, query
from ggfast.cloud.store.interface import Body

__all__ = ["policies_of_certificate"]

_DOCUMENT = need(Text(0, 404_600))
_RESOURCE = "policy/{policyName}"

taggable("policy", lambda tx, home, name: tx.get(POLICIES, home, name) is not None)


@IOT.operation(
    "CreatePolicy",
    "POST /policies/{policyName}",
    {"policyName": POLICY_NAME, "policyDocument": _DOCUMENT, "tags": TAGS},
    writes=True,
    resource=_RESOURCE,
)
def create_policy(call: Call) -> Reply:
    """A new policy with version 1. A name that is taken is refused, whatever the document."""
    name, text = call.params["policyName"], call.params["policyDocument"]
    _check(text)
    now = call.cloud.clock.wall()
    body = {"default": "1", "latest": 1, "created": now, "modified": now, "generation": str(uuid.uuid4())}
    arn = call.arn(f"policy/{name}")
    if not call.tx.create(POLICIES, call.home, name, body):
        raise exists(f"Policy cannot be created - name already exists (name={name})", name, arn)
    call.tx.create(POLICY_VERSIONS, f"{call.home}/{name}", "1", {"document": text, "at": now})
    put_tags(call, arn, call.params.get("tags", []))
    return Reply({"policyName": name, "policyArn": arn, "policyDocument": text, "policyVersionId": "1"})


@IOT.operation("GetPolicy", "GET /policies/{policyName}", {"policyName": POLICY_NAME}, resource=_RESOURCE)
def get_policy(call: Call) -> Reply:
    """The policy with its default version's document."""
    name = call.params["policyName"]
    body = required_policy(call, name)
    return Reply(
        {
            "policyName": name,
            "policyArn": call.arn(f"policy/{name}"),
            "policyDocument": _version(call, name, body["default"])["document"],
            "defaultVersionId": body["default"],
            "creationDate": body["created"],
            "lastModifiedDate": body["modified"],
            "generationId": body["generation"],
        }
    )


@IOT.operation(
    "DeletePolicy", "DELETE /policies/{policyName}", {"policyName": POLICY_NAME}, writes=True, resource=_RESOURCE
)
def delete_policy(call: Call) -> Reply:
    """Remove a policy that is attached to nothing and has no version but the default one."""
    name = call.params["policyName"]
    required_policy(call, name)
    if call.tx.count_found(ATTACHMENTS, "policy", f"{call.home}/{name}"):
        raise in_use(f"The policy cannot be deleted as the policy is attached to one or more principals (name={name})")
    if call.tx.count(POLICY_VERSIONS, f"{call.home}/{name}") > 1:
        raise in_use(
            f"Cannot delete the policy because it has one or more policy versions attached to it (name={name})"
        )
    call.tx.delete_all(POLICY_VERSIONS, f"{call.home}/{name}")
    call.tx.delete(POLICIES, call.home, name)
    drop_tags(call, call.arn(f"policy/{name}"))
    return Reply()


@IOT.operation(
    "ListPolicies",
    "GET /policies",
    {**paged("marker", "pageSize"), "ascendingOrder": query(Flag(), "isAscendingOrder")},
)
def list_policies(call: Call) -> Reply:
    """All policies, the newest first unless the request wants it otherwise."""
    page = call.list(POLICIES, call.home, newest_first=not call.params.get("ascendingOrder", False))
    return entries(page, lambda document: policy_entry(call, document.name), "policies", "nextMarker")


@IOT.operation(
    "CreatePolicyVersion",
    "POST /policies/{policyName}/version",
    {"policyName": POLICY_NAME, "policyDocument": _DOCUMENT, "setAsDefault": query(Flag())},
    writes=True,
    resource=_RESOURCE,
)
def create_policy_version(call: Call) -> Reply:
    """Another version; numbers are never used again."""
    name, text = call.params["policyName"], call.params["policyDocument"]
    body = required_policy(call, name)
    _check(text)
    parent = f"{call.home}/{name}"
    if call.tx.count(POLICY_VERSIONS, parent) >= IOT_POLICY_VERSIONS_MAX:
        raise Fault(
            "VersionsLimitExceededException",
            f"The policy {name} already has the maximum number of versions ({IOT_POLICY_VERSIONS_MAX})."
            " Delete one by DeletePolicyVersion.",
            status=409,
        )
    body["latest"] += 1
    version = str(body["latest"])
    call.tx.create(POLICY_VERSIONS, parent, version, {"document": text, "at": call.cloud.clock.wall()})
    default = bool(call.params.get("setAsDefault"))
    _put(call, name, body, version if default else body["default"])
    return Reply(
        {
            "policyArn": call.arn(f"policy/{name}"),
            "policyDocument": text,
            "policyVersionId": version,
            "isDefaultVersion": default,
        }
    )


@IOT.operation(
    "GetPolicyVersion",
    "GET /policies/{policyName}/version/{policyVersionId}",
    {"policyName": POLICY_NAME, "policyVersionId": VERSION_ID},
    resource=_RESOURCE,
)
def get_policy_version(call: Call) -> Reply:
    """One version."""
    name, version = call.params["policyName"], call.params["policyVersionId"]
    body = required_policy(call, name)
    found = _version(call, name, version)
    return Reply(
        {
            "policyArn": call.arn(f"policy/{name}"),
            "policyName": name,
            "policyDocument": found["document"],
            "policyVersionId": version,
            "isDefaultVersion": version == body["default"],
            "creationDate": found["at"],
            "lastModifiedDate": found["at"],
            "generationId": body["generation"],
        }
    )


@IOT.operation(
    "ListPolicyVersions", "GET /policies/{policyName}/version", {"policyName": POLICY_NAME}, resource=_RESOURCE
)
def list_policy_versions(call: Call) -> Reply:
    """All versions, the newest first; there are five at most, so that there are no pages."""
    name = call.params["policyName"]
    body = required_policy(call, name)
    versions = [
        {
            "versionId": document.name,
            "isDefaultVersion": document.name == body["default"],
            "createDate": document.body["at"],
        }
        for document in everything(call.tx, POLICY_VERSIONS, f"{call.home}/{name}")
    ]
    return Reply({"policyVersions": versions[::-1]})


@IOT.operation(
    "SetDefaultPolicyVersion",
    "PATCH /policies/{policyName}/version/{policyVersionId}",
    {"policyName": POLICY_NAME, "policyVersionId": VERSION_ID},
    writes=True,
    resource=_RESOURCE,
)
def set_default_policy_version(call: Call) -> Reply:
    """Let another version count."""
    name, version = call.params["policyName"], call.params["policyVersionId"]
    body = required_policy(call, name)
    _version(call, name, version)
    _put(call, name, body, version)
    return Reply()


@IOT.operation(
    "DeletePolicyVersion",
    "DELETE /policies/{policyName}/version/{policyVersionId}",
    {"policyName": POLICY_NAME, "policyVersionId": VERSION_ID},
    writes=True,
    resource=_RESOURCE,
)
def delete_policy_version(call: Call) -> Reply:
    """Remove a version that is not the default one."""
    name, version = call.params["policyName"], call.params["policyVersionId"]
    body = required_policy(call, name)
    _version(call, name, version)
    if version == body["default"]:
        raise in_use(f"Cannot delete the default version of a policy (name={name}, version={version})")
    call.tx.delete(POLICY_VERSIONS, f"{call.home}/{name}", version)
    return Reply()


def required_policy(call: Call, name: str) -> Body:
    """The policy's document in the store, or 404."""
    body = call.tx.get(POLICIES, call.home, name)
    if body is None:
        raise not_found("policy", name)
    return body


def policy_entry(call: Call, name: str) -> dict[str, str]:
    """A policy as lists show it."""
    return {"policyName": name, "policyArn": call.arn(f"policy/{name}")}


def _version(call: Call, name: str, version: str) -> Body:
    found = call.tx.get(POLICY_VERSIONS, f"{call.home}/{name}", version)
    if found is None:
        raise not_found(f"version {version} of policy", name)
    return found


def _put(call: Call, name: str, body: Body, default: str) -> None:
    if default != body["default"]:
        call.tx.tell(PermissionsChanged())
    body |= {"default": default, "modified": call.cloud.clock.wall()}
    call.tx.put(POLICIES, call.home, name, body)


def _check(text: str) -> None:
    """Refuse what is no policy, or is longer than the service we replace takes."""
    size = len("".join(text.split()))
    try:
        if size > IOT_POLICY_CHARACTERS_MAX:
            raise ValueError(
                f"it has {size} characters without white space, expected at most {IOT_POLICY_CHARACTERS_MAX}"
            )
        PolicyDocument.parse(text)
    except ValueError as error:
        raise Fault("MalformedPolicyException", f"Policy document is malformed: {error}.") from error
