"""Deleting secrets, and taking that back while their recovery window lasts."""

from __future__ import annotations

from ggfast.cloud.limits import SECRET_RECOVERY_DAYS
from ggfast.cloud.operations import Call, Reply
from ggfast.cloud.secrets.service import ROUTE, SECRET_ID, SECRETS, bad_request, invalid, the_secret
from ggfast.cloud.secrets.store import put_secret, remove_ended, remove_secret
from ggfast.cloud.shapes import Flag, Whole, need

_DAY_S = 86_400


@SECRETS.operation(
    "DeleteSecret",
    ROUTE,
    {"SecretId": need(SECRET_ID), "RecoveryWindowInDays": Whole(), "ForceDeleteWithoutRecovery": Flag()},
    writes=True,
    asks=False,
)
def delete_secret(call: Call) -> Reply:
    """Mark a secret for deletion, or remove it at once."""
    now = call.cloud.clock.wall()
    force, days = call.params.get("ForceDeleteWithoutRecovery", False), call.params.get("RecoveryWindowInDays")
    secret = the_secret(call, "DeleteSecret", deleted=force)
    if force and days is not None:
        raise invalid("You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.")
    if days is not None and not 7 <= days <= 30:
        raise invalid("The RecoveryWindowInDays value must be between 7 and 30 days (inclusive).")
    ends = now if force else now + (days or SECRET_RECOVERY_DAYS) * _DAY_S
    if force:
        remove_secret(call.tx, call.home, secret)
    else:
        put_secret(call.tx, call.home, secret | {"ends": ends, "deleted": now})
    remove_ended(call.tx, call.home, now)
    return Reply({"ARN": secret["arn"], "Name": secret["name"], "DeletionDate": ends})


@SECRETS.operation("RestoreSecret", ROUTE, {"SecretId": need(SECRET_ID)}, writes=True, asks=False)
def restore_secret(call: Call) -> Reply:
    """Take a deletion back."""
    secret = the_secret(call, "RestoreSecret", deleted=True)
    if secret["ends"] is None:
        raise bad_request("You can't restore this secret: it is not marked for deletion.")
    put_secret(call.tx, call.home, secret | {"ends": None, "deleted": None})
    return Reply({"ARN": secret["arn"], "Name": secret["name"]})
