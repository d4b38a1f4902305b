"""Role aliases: names by which devices ask for a role's credentials (cloud-api 7)."""

from __future__ import annotations

from ggfast.cloud.iot.service import IOT, TAGS, exists, not_found
from ggfast.cloud.iot.tags import drop_tags, put_tags, taggable
from ggfast.cloud.limits import ROLE_ALIAS_DEFAULT_S, ROLE_ALIAS_MAX_S, ROLE_ALIAS_MIN_S
from ggfast.cloud.operations import Call, Reply, entries, paged
from ggfast.cloud.roles.principals import CREDENTIALS
from ggfast.cloud.shapes import Flag, Text, Whole, need, query
from ggfast.cloud.store.interface import Body, Transaction

_COLLECTION = "iot-role-alias"
_ALIAS = Text(1, 128, r"[a-zA-Z0-9_=,@-]+")
_ROLE_ARN = Text(20, 2_048, r"arn:[a-z-]+:iam::[0-9]{12}:role/.+")
_SECONDS = Whole(ROLE_ALIAS_MIN_S, ROLE_ALIAS_MAX_S)
_RESOURCE = "rolealias/{roleAlias}"

taggable("rolealias", lambda tx, home, name: tx.get(_COLLECTION, home, name) is not None)


def get_role_alias(tx: Transaction, home: str, alias: str) -> Body | None:
    """A role alias: `role` (ARN), `seconds` (how long credentials last); None if there is none."""
    return tx.get(_COLLECTION, home, alias)


@IOT.operation(
    "CreateRoleAlias",
    "POST /role-aliases/{roleAlias}",
    {"roleAlias": _ALIAS, "roleArn": need(_ROLE_ARN), "credentialDurationSeconds": _SECONDS, "tags": TAGS},
    writes=True,
    resource=_RESOURCE,
)
def create_role_alias(call: Call) -> Reply:
    """A new alias; a name that is taken is refused."""
    alias = call.params["roleAlias"]
    call.permit_role(call.params["roleArn"], CREDENTIALS)
    now = call.cloud.clock.wall()
    body = {
        "role": call.params["roleArn"],
        "seconds": call.params.get("credentialDurationSeconds", ROLE_ALIAS_DEFAULT_S),
        "created": now,
        "modified": now,
    }
    arn = call.arn(f"rolealias/{alias}")
    if not call.tx.create(_COLLECTION, call.home, alias, body):
        raise exists(f"The role alias {alias} already exists.", alias, arn)
    put_tags(call, arn, call.params.get("tags", []))
    return Reply({"roleAlias": alias, "roleAliasArn": arn})


@IOT.operation("DescribeRoleAlias", "GET /role-aliases/{roleAlias}", {"roleAlias": _ALIAS}, resource=_RESOURCE)
def describe_role_alias(call: Call) -> Reply:
    """All about an alias."""
    alias = call.params["roleAlias"]
    body = _required(call, alias)
    description = {
        "roleAlias": alias,
        "roleAliasArn": call.arn(f"rolealias/{alias}"),
        "roleArn": body["role"],
        "owner": call.account,
        "credentialDurationSeconds": body["seconds"],
        "creationDate": body["created"],
        "lastModifiedDate": body["modified"],
    }
    return Reply({"roleAliasDescription": description})


@IOT.operation(
    "UpdateRoleAlias",
    "PUT /role-aliases/{roleAlias}",
    {"roleAlias": _ALIAS, "roleArn": _ROLE_ARN, "credentialDurationSeconds": _SECONDS},
    writes=True,
    resource=_RESOURCE,
)
def update_role_alias(call: Call) -> Reply:
    """Another role or duration."""
    alias = call.params["roleAlias"]
    if "roleArn" in call.params:
        call.permit_role(call.params["roleArn"], CREDENTIALS)
    body = _required(call, alias)
    body["role"] = call.params.get("roleArn", body["role"])
    body["seconds"] = call.params.get("credentialDurationSeconds", body["seconds"])
    body["modified"] = call.cloud.clock.wall()
    call.tx.put(_COLLECTION, call.home, alias, body)
    return Reply({"roleAlias": alias, "roleAliasArn": call.arn(f"rolealias/{alias}")})


@IOT.operation(
    "DeleteRoleAlias", "DELETE /role-aliases/{roleAlias}", {"roleAlias": _ALIAS}, writes=True, resource=_RESOURCE
)
def delete_role_alias(call: Call) -> Reply:
    """Remove an alias."""
    alias = call.params["roleAlias"]
    _required(call, alias)
    call.tx.delete(_COLLECTION, call.home, alias)
    drop_tags(call, call.arn(f"rolealias/{alias}"))
    return Reply()


@IOT.operation(
    "ListRoleAliases",
    "GET /role-aliases",
    {**paged("marker", "pageSize"), "ascendingOrder": query(Flag(), "isAscendingOrder")},
)
def list_role_aliases(call: Call) -> Reply:
    """Names of all aliases, the newest first unless the request wants it otherwise."""
    page = call.list(_COLLECTION, call.home, newest_first=not call.params.get("ascendingOrder", False))
    return entries(page, lambda document: document.name, "roleAliases", "nextMarker")


def _required(call: Call, alias: str) -> Body:
    body = get_role_alias(call.tx, call.home, alias)
    if body is None:
        raise not_found("role alias", alias)
    return body
