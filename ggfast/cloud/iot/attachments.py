"""Policies attached to certificates and thing groups, by the present operations and by the old ones that name a
principal in a header (cloud-api 7). Attaching twice and detaching what is not attached are no errors."""

from __future__ import annotations

from ggfast.cloud.events import PermissionsChanged
from ggfast.cloud.iot.attached import policies_of_group
from ggfast.cloud.iot.certificates import required_principal
from ggfast.cloud.iot.lists import portion
from ggfast.cloud.iot.lookups import ATTACHMENTS, required_group
from ggfast.cloud.iot.policies import policy_entry, required_policy
from ggfast.cloud.iot.service import ARN, IOT, POLICY_NAME, name_in_arn, not_found, over_limit
from ggfast.cloud.limits import IOT_POLICIES_OF_TARGET_MAX
from ggfast.cloud.operations import Call, Reply, entries, paged
from ggfast.cloud.shapes import Flag, header, need, query

_PRINCIPAL = header(ARN, "x-amzn-iot-principal", required=True)
_ASCENDING = query(Flag(), "isAscendingOrder")


@IOT.operation(
    "AttachPolicy",
    "PUT /target-policies/{policyName}",
    {"policyName": POLICY_NAME, "target": need(ARN)},
    writes=True,
    asks=False,
)
def attach_policy(call: Call) -> Reply:
    """Let a policy count for a certificate or for the things of a thing group."""
    call.permit("AttachPolicy", call.params["target"])
    _attach(call, _target(call))
    return Reply()


@IOT.operation(
    "DetachPolicy",
    "POST /target-policies/{policyName}",
    {"policyName": POLICY_NAME, "target": need(ARN)},
    writes=True,
    asks=False,
)
def detach_policy(call: Call) -> Reply:
    """Let it no longer count there."""
    call.permit("DetachPolicy", call.params["target"])
    _detach(call, _target(call))
    return Reply()


@IOT.operation(
    "ListAttachedPolicies",
    "POST /attached-policies/{target}",
    {"target": ARN, "recursive": query(Flag()), **paged("marker", "pageSize")},
    asks=False,
)
def list_attached_policies(call: Call) -> Reply:
    """Policies of a target; `recursive`: with those of the thing groups above it."""
    call.permit("ListAttachedPolicies", call.params["target"])
    kind, _, name = (target := _target(call)).partition("/")
    if kind == "thinggroup" and call.params.get("recursive"):
        names = list(dict.fromkeys(policies_of_group(call.tx, call.home, name)))
        found = [policy_entry(call, policy) for policy in names]
        return portion(call, found, "policies", "marker", "nextMarker", "pageSize")
    page = call.list(ATTACHMENTS, f"{call.home}/{target}")
    return entries(page, lambda document: policy_entry(call, document.name), "policies", "nextMarker")


@IOT.operation(
    "ListTargetsForPolicy",
    "POST /policy-targets/{policyName}",
    {"policyName": POLICY_NAME, **paged("marker", "pageSize")},
    resource="policy/{policyName}",
)
def list_targets_for_policy(call: Call) -> Reply:
    """ARNs of what a policy is attached to."""
    name = call.params["policyName"]
    required_policy(call, name)
    page = call.find(ATTACHMENTS, "policy", f"{call.home}/{name}")
    return entries(page, lambda document: call.arn(document.body["target"]), "targets", "nextMarker")


@IOT.operation(
    "AttachPrincipalPolicy",
    "PUT /principal-policies/{policyName}",
    {"policyName": POLICY_NAME, "principal": _PRINCIPAL},
    writes=True,
    asks=False,
)
def attach_principal_policy(call: Call) -> Reply:
    """The old form of AttachPolicy, for certificates."""
    call.permit("AttachPrincipalPolicy", call.params["principal"])
    _attach(call, f"cert/{required_principal(call, call.params['principal'])}")
    return Reply()


@IOT.operation(
    "DetachPrincipalPolicy",
    "DELETE /principal-policies/{policyName}",
    {"policyName": POLICY_NAME, "principal": _PRINCIPAL},
    writes=True,
    asks=False,
)
def detach_principal_policy(call: Call) -> Reply:
    """The old form of DetachPolicy, for certificates."""
    call.permit("DetachPrincipalPolicy", call.params["principal"])
    _detach(call, f"cert/{required_principal(call, call.params['principal'])}")
    return Reply()


@IOT.operation(
    "ListPrincipalPolicies",
    "GET /principal-policies",
    {"principal": _PRINCIPAL, **paged("marker", "pageSize"), "ascendingOrder": _ASCENDING},
    asks=False,
)
def list_principal_policies(call: Call) -> Reply:
    """The old form of ListAttachedPolicies, for certificates."""
    call.permit("ListPrincipalPolicies", call.params["principal"])
    certificate_id = required_principal(call, call.params["principal"])
    newest_first = not call.params.get("ascendingOrder", False)
    page = call.list(ATTACHMENTS, f"{call.home}/cert/{certificate_id}", newest_first=newest_first)
    return entries(page, lambda document: policy_entry(call, document.name), "policies", "nextMarker")


@IOT.operation(
    "ListPolicyPrincipals",
    "GET /policy-principals",
    {
        "policyName": header(POLICY_NAME, "x-amzn-iot-policy", required=True),
        **paged("marker", "pageSize"),
        "ascendingOrder": _ASCENDING,
    },
    resource="policy/{policyName}",
)
def list_policy_principals(call: Call) -> Reply:
    """ARNs of the certificates a policy is attached to."""
    name = call.params["policyName"]
    required_policy(call, name)
    newest_first = not call.params.get("ascendingOrder", False)
    page = call.find(ATTACHMENTS, "principal-policy", f"{call.home}/{name}", newest_first=newest_first)
    return entries(page, lambda document: call.arn(document.body["target"]), "principals", "nextMarker")


def _attach(call: Call, target: str) -> None:
    name = call.params["policyName"]
    required_policy(call, name)
    parent = f"{call.home}/{target}"
    if call.tx.get(ATTACHMENTS, parent, name) is not None:
        return
    if call.tx.count(ATTACHMENTS, parent) >= IOT_POLICIES_OF_TARGET_MAX:
        raise over_limit(
            f"The target {call.arn(target)} already has the maximum number of policies"
            f" ({IOT_POLICIES_OF_TARGET_MAX}). Detach one, or put its statements into another."
        )
    key = f"{call.home}/{name}"
    labels = {"policy": [key], "principal-policy": [key] if target.startswith("cert/") else []}
    call.tx.create(ATTACHMENTS, parent, name, {"target": target}, labels)
    _tell(call, target)


def _detach(call: Call, target: str) -> None:
    name = call.params["policyName"]
    required_policy(call, name)
    if call.tx.delete(ATTACHMENTS, f"{call.home}/{target}", name):
        _tell(call, target)


def _tell(call: Call, target: str) -> None:
    kind, _, name = target.partition("/")
    call.tx.tell(PermissionsChanged(name if kind == "cert" else ""))


def _target(call: Call) -> str:
    """ "cert/<id>" or "thinggroup/<name>" of the ARN the request gives; 400 or 404."""
    arn = call.params["target"]
    if arn.startswith("arn:aws:iot:") and ":thinggroup/" in arn:
        group = name_in_arn(call, arn, "thinggroup")
        if group is None:
            raise not_found("thing group", arn)
        required_group(call, group)
        return f"thinggroup/{group}"
    return f"cert/{required_principal(call, arn)}"
