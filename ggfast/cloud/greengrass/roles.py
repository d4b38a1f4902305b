"""The role of a group, which what runs on its core gets keys of, and the service role of account and region.

Neither the group nor the role need exist, as in the real service (cloud-api 6).
"""

from __future__ import annotations

from datetime import UTC, datetime

from ggfast.cloud.faults import Fault
from ggfast.cloud.greengrass.service import GREENGRASS
from ggfast.cloud.operations import Call, Reply
from ggfast.cloud.roles.principals import GREENGRASS as GREENGRASS_PRINCIPAL
from ggfast.cloud.shapes import Text, need
from ggfast.cloud.store.interface import Body, Transaction

_GROUP = "group-role"
_SERVICE = "service-role"
_SERVICE_NAME = "role"

_ROLE = Text(1, 2_048, r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[!-~]{1,576}")
_PATH = "/greengrass/groups/{GroupId}/role"
_SERVICE_PATH = "/greengrass/servicerole"


def role_of_group(tx: Transaction, home: str, group_id: str) -> str | None:
    """The ARN of the group's role, None without one."""
    found = tx.get(_GROUP, home, group_id)
    return None if found is None else str(found["RoleArn"])


def service_role(tx: Transaction, home: str) -> str | None:
    """The ARN of the service role of account and region, None without one."""
    found = tx.get(_SERVICE, home, _SERVICE_NAME)
    return None if found is None else str(found["RoleArn"])


@GREENGRASS.operation(
    "AssociateRoleToGroup", f"PUT {_PATH}", {"RoleArn": need(_ROLE)}, writes=True, resource=_PATH.removesuffix("/role")
)
def associate_role(call: Call) -> Reply:
    """Set the group's role."""
    return _associate(call, _GROUP, call.params["GroupId"])


@GREENGRASS.operation("GetAssociatedRole", f"GET {_PATH}", resource=_PATH.removesuffix("/role"))
def get_role(call: Call) -> Reply:
    """The group's role."""
    return _role(
        call.tx.get(_GROUP, call.home, call.params["GroupId"]),
        "You need to attach an IAM role to this deployment group.",
    )


@GREENGRASS.operation("DisassociateRoleFromGroup", f"DELETE {_PATH}", writes=True, resource=_PATH.removesuffix("/role"))
def disassociate_role(call: Call) -> Reply:
    """The group has no role any more; it is no error if it had none."""
    return _disassociate(call, _GROUP, call.params["GroupId"])


@GREENGRASS.operation("AssociateServiceRoleToAccount", f"PUT {_SERVICE_PATH}", {"RoleArn": need(_ROLE)}, writes=True)
def associate_service_role(call: Call) -> Reply:
    """Set the service role."""
    return _associate(call, _SERVICE, _SERVICE_NAME)


@GREENGRASS.operation("GetServiceRoleForAccount", f"GET {_SERVICE_PATH}")
def get_service_role(call: Call) -> Reply:
    """The service role."""
    return _role(
        call.tx.get(_SERVICE, call.home, _SERVICE_NAME),
        "You need to attach a service role to this account. Use AssociateServiceRoleToAccount.",
    )


@GREENGRASS.operation("DisassociateServiceRoleFromAccount", f"DELETE {_SERVICE_PATH}", writes=True)
def disassociate_service_role(call: Call) -> Reply:
    """Account and region have no service role any more; it is no error if they had none."""
    return _disassociate(call, _SERVICE, _SERVICE_NAME)


def _associate(call: Call, collection: str, name: str) -> Reply:
    call.permit_role(call.params["RoleArn"], GREENGRASS_PRINCIPAL)
    now = _second(call)
    call.tx.put(collection, call.home, name, {"RoleArn": call.params["RoleArn"], "AssociatedAt": now})
    return Reply({"AssociatedAt": now})


def _disassociate(call: Call, collection: str, name: str) -> Reply:
    call.tx.delete(collection, call.home, name)
    return Reply({"DisassociatedAt": _second(call)})


def _role(found: Body | None, missing: str) -> Reply:
    if found is None:
        raise Fault("", missing, status=404)
    return Reply({"AssociatedAt": found["AssociatedAt"], "RoleArn": found["RoleArn"]})


def _second(call: Call) -> str:
    """Now, without the fraction: published answers show these times so (cloud-api 3)."""
    return datetime.fromtimestamp(call.cloud.clock.wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
