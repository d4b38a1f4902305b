"""Making secrets and giving them other values."""

from __future__ import annotations

import uuid
from typing import Any

from ggfast.cloud.faults import Fault
from ggfast.cloud.limits import SECRET_STAGES_MAX
from ggfast.cloud.operations import Call, Reply
from ggfast.cloud.secrets.service import (
    BINARY,
    ROUTE,
    SECRET_ID,
    SECRETS,
    STAGE,
    STRING,
    TAGS,
    TOKEN,
    VERSION_ID,
    bad_request,
    given_value,
    invalid,
    not_found,
    the_secret,
)
from ggfast.cloud.secrets.store import (
    CURRENT,
    VERSIONS,
    add_version,
    find_secret,
    move_stage,
    new_arn,
    opened,
    put_secret,
    remove_ended,
    secret_arn_of,
    stages_of,
)
from ggfast.cloud.shapes import Items, Text, need
from ggfast.cloud.store.interface import Body

_VALUE = {"SecretString": STRING, "SecretBinary": BINARY, "ClientRequestToken": TOKEN}
_ABOUT = {"Description": Text(0, 2_048), "KmsKeyId": Text(0, 2_048), "Type": Text(0, 256)}
_KEPT_AS = {"Description": "description", "KmsKeyId": "kms", "Type": "type"}


@SECRETS.operation(
    "CreateSecret",
    ROUTE,
    {"Name": need(Text(1, 512, r"[A-Za-z0-9/_+=.@-]+")), **_VALUE, **_ABOUT, "Tags": TAGS},
    writes=True,
    asks=False,
)
def create_secret(call: Call) -> Reply:
    """A secret, with its first value if one is given. Asked again with the same token and value: the same answer."""
    name, now = call.params["Name"], call.cloud.clock.wall()
    call.permit("CreateSecret", secret_arn_of(call.home, name))
    value = given_value(call)
    remove_ended(call.tx, call.home, now)
    secret = find_secret(call.tx, call.home, name, now)
    if secret is not None:
        return _again(call, secret, value)
    secret = {
        "name": name,
        "arn": new_arn(call.home, name),
        "created": now,
        "changed": now,
        "tags": call.params.get("Tags", []),
        "stages": {},
        "ends": None,
        "deleted": None,
        **{kept: call.params.get(member, "") for member, kept in _KEPT_AS.items()},
    }
    members = {"ARN": secret["arn"], "Name": name}
    if value is not None:
        members["VersionId"] = _new_version(call, secret, value, [CURRENT])
    put_secret(call.tx, call.home, secret)
    return Reply(members)


@SECRETS.operation(
    "PutSecretValue",
    ROUTE,
    {"SecretId": need(SECRET_ID), **_VALUE, "VersionStages": Items(STAGE, 1, SECRET_STAGES_MAX)},
    writes=True,
    asks=False,
)
def put_secret_value(call: Call) -> Reply:
    """Another version; it becomes AWSCURRENT unless other staging labels are given."""
    secret = the_secret(call, "PutSecretValue")
    value = given_value(call)
    if value is None:
        raise invalid("You must provide either SecretString or SecretBinary.")
    stages = call.params.get("VersionStages", [CURRENT])
    if not secret["stages"] and CURRENT not in stages:
        stages = [*stages, CURRENT]  # a secret's first version is the current one
    version_id = _new_version(call, secret, value, stages)
    put_secret(call.tx, call.home, secret)
    return Reply(_named(secret) | {"VersionId": version_id, "VersionStages": stages_of(secret, version_id)})


@SECRETS.operation("UpdateSecret", ROUTE, {"SecretId": need(SECRET_ID), **_VALUE, **_ABOUT}, writes=True, asks=False)
def update_secret(call: Call) -> Reply:
    """Other words about a secret, and another current value if one is given."""
    secret = the_secret(call, "UpdateSecret")
    value = given_value(call)
    secret |= {kept: call.params[member] for member, kept in _KEPT_AS.items() if member in call.params}
    secret["changed"] = call.cloud.clock.wall()
    members = _named(secret)
    if value is not None:
        members["VersionId"] = _new_version(call, secret, value, [CURRENT])
    put_secret(call.tx, call.home, secret)
    return Reply(members)


@SECRETS.operation(
    "UpdateSecretVersionStage",
    ROUTE,
    {
        "SecretId": need(SECRET_ID),
        "VersionStage": need(STAGE),
        "RemoveFromVersionId": VERSION_ID,
        "MoveToVersionId": VERSION_ID,
    },
    writes=True,
    asks=False,
)
def update_secret_version_stage(call: Call) -> Reply:
    """Move a staging label from version to version, attach it, or remove it."""
    secret = the_secret(call, "UpdateSecretVersionStage")
    stage = call.params["VersionStage"]
    source, target = call.params.get("RemoveFromVersionId"), call.params.get("MoveToVersionId")
    owner = secret["stages"].get(stage)
    if source is None and target is None:
        raise invalid("You must provide RemoveFromVersionId, MoveToVersionId or both.")
    if source is not None and source != owner:
        raise invalid(f"The staging label {stage} is not attached to version {source}.")
    if source is None and owner not in (None, target):
        raise invalid(
            f"The parameter RemoveFromVersionId can't be empty. Staging label {stage} is currently attached to version "
            f"{owner}, so you must explicitly reference that version in RemoveFromVersionId."
        )
    if target is None:
        if stage == CURRENT:
            raise invalid(f"You can only move staging label {CURRENT} to a different secret version.")
        del secret["stages"][stage]
    elif call.tx.get(VERSIONS, secret["arn"], target) is None:
        raise not_found()
    else:
        move_stage(secret, stage, target)
        _check_stages(secret)
    secret["changed"] = call.cloud.clock.wall()
    put_secret(call.tx, call.home, secret)
    return Reply(_named(secret))


def _new_version(call: Call, secret: Body, value: tuple[bytes, bool], stages: list[str]) -> str:
    """Id of the version made for a request: its token. A token that made the same value before makes nothing."""
    version_id = call.params.get("ClientRequestToken") or str(uuid.uuid4())
    known = call.tx.get(VERSIONS, secret["arn"], version_id)
    if known is not None:
        if not _same(call, secret, version_id, known, value):
            raise Fault(
                "ResourceExistsException",
                f"You can't use ClientRequestToken {version_id} because that value is already in use for a version of "
                f"secret {secret['arn']}.",
            )
        return version_id
    for stage in stages:
        move_stage(secret, stage, version_id)
    _check_stages(secret)
    secret["changed"] = call.cloud.clock.wall()
    add_version(call.tx, call.cloud, secret, version_id, *value)
    return version_id


def _again(call: Call, secret: Body, value: tuple[bytes, bool] | None) -> Reply:
    if secret["ends"] is not None:
        raise bad_request(
            "You can't create this secret because a secret with this name is already scheduled for deletion."
        )
    version_id = call.params.get("ClientRequestToken", "")
    known = call.tx.get(VERSIONS, secret["arn"], version_id)
    if known is None or value is None or not _same(call, secret, version_id, known, value):
        message = f"The operation failed because the secret {secret['name']} already exists."
        raise Fault("ResourceExistsException", message)
    return Reply(_named(secret) | {"VersionId": version_id})


def _same(call: Call, secret: Body, version_id: str, known: Body, value: tuple[bytes, bool]) -> bool:
    there = opened(call.cloud, secret, version_id, known)
    return (there.value, there.binary) == value


def _check_stages(secret: Body) -> None:
    if len(secret["stages"]) > SECRET_STAGES_MAX:
        raise Fault("LimitExceededException", f"A secret can have at most {SECRET_STAGES_MAX} staging labels.")


def _named(secret: Body) -> dict[str, Any]:
    return {"ARN": secret["arn"], "Name": secret["name"]}
