"""Values of secrets, and what is known about them."""

from __future__ import annotations

import base64
from typing import Any

from ggfast.cloud.faults import Fault
from ggfast.cloud.operations import Call, Reply, paged
from ggfast.cloud.secrets.service import ROUTE, SECRET_ID, SECRETS, STAGE, VERSION_ID, invalid, the_secret
from ggfast.cloud.secrets.store import CURRENT, VERSIONS, opened, stages_of
from ggfast.cloud.shapes import Flag, need
from ggfast.cloud.store.interface import Body


@SECRETS.operation(
    "GetSecretValue",
    ROUTE,
    {"SecretId": need(SECRET_ID), "VersionId": VERSION_ID, "VersionStage": STAGE},
    asks=False,
)
def get_secret_value(call: Call) -> Reply:
    """One version's value: by id, by staging label, or the current one."""
    secret = the_secret(call, "GetSecretValue")
    stage = call.params.get("VersionStage", "")
    version_id = call.params.get("VersionId") or secret["stages"].get(stage or CURRENT, "")
    body = call.tx.get(VERSIONS, secret["arn"], version_id)
    if body is None:
        wanted = f"VersionId: {version_id}" if "VersionId" in call.params else f"staging label: {stage or CURRENT}"
        message = f"Secrets Manager can't find the specified secret value for {wanted}"
        raise Fault("ResourceNotFoundException", message)
    if stage and secret["stages"].get(stage) != version_id:
        raise invalid(f"The staging label {stage} is not attached to version {version_id}.")
    found = opened(call.cloud, secret, version_id, body)
    members: dict[str, Any] = {
        "ARN": found.arn,
        "Name": found.name,
        "VersionId": version_id,
        "VersionStages": list(found.stages),
        "CreatedDate": found.created,
    }
    if found.binary:
        members["SecretBinary"] = base64.b64encode(found.value).decode()
    else:
        members["SecretString"] = found.value.decode()
    return Reply(members)


@SECRETS.operation("DescribeSecret", ROUTE, {"SecretId": need(SECRET_ID)}, asks=False)
def describe_secret(call: Call) -> Reply:
    """Everything but the value; also of a secret marked for deletion."""
    secret = the_secret(call, "DescribeSecret", deleted=True)
    return Reply(about(secret) | {"VersionIdsToStages": versions_to_stages(secret)})


@SECRETS.operation(
    "ListSecretVersionIds",
    ROUTE,
    {"SecretId": need(SECRET_ID), "IncludeDeprecated": Flag(), **paged(most=100, where="body")},
    asks=False,
)
def list_secret_version_ids(call: Call) -> Reply:
    """A secret's versions; those without staging labels only if asked, and a page may have fewer than asked."""
    secret = the_secret(call, "ListSecretVersionIds", deleted=True)
    page = call.list(VERSIONS, secret["arn"])
    versions = [
        {
            "VersionId": document.name,
            "VersionStages": stages_of(secret, document.name),
            "CreatedDate": document.body["created"],
        }
        for document in page.documents
    ]
    if not call.params.get("IncludeDeprecated"):
        versions = [version for version in versions if version["VersionStages"]]
    members = {"Versions": versions, "ARN": secret["arn"], "Name": secret["name"]}
    if page.token is not None:
        members["NextToken"] = page.token
    return Reply(members)


def about(secret: Body) -> dict[str, Any]:
    """What descriptions and lists have in common."""
    members: dict[str, Any] = {
        "ARN": secret["arn"],
        "Name": secret["name"],
        "CreatedDate": secret["created"],
        "LastChangedDate": secret["changed"],
    }
    optional = {
        "Description": secret["description"],
        "KmsKeyId": secret["kms"],
        "Type": secret["type"],
        "Tags": secret["tags"],
        "DeletedDate": secret["deleted"],
    }
    return members | {name: value for name, value in optional.items() if value}


def versions_to_stages(secret: Body) -> dict[str, list[str]]:
    """Version ids that have staging labels, with them."""
    return {version_id: stages_of(secret, version_id) for version_id in sorted(set(secret["stages"].values()))}
