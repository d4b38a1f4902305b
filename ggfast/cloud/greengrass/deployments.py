"""Deployments of groups: four operations (cloud-api 4, 6). What they come to is in `cloud/deploy`.

A group is frozen within the request's transaction, so `Building` is over when it is answered: what is seen is
`InProgress`, or `Failure` for a group that cannot run. The history of a deployment has both.
"""

from __future__ import annotations

from typing import Any

from ggfast.cloud.deploy import records
from ggfast.cloud.deploy.records import Deployment
from ggfast.cloud.deploy.starting import start_deployment, start_reset
from ggfast.cloud.faults import Fault
from ggfast.cloud.greengrass.authorities import give_back, prepare_group_ca
from ggfast.cloud.greengrass.groups import get_group
from ggfast.cloud.greengrass.service import GREENGRASS, arn_of, client_token
from ggfast.cloud.operations import Call, Reply, entries, paged
from ggfast.cloud.shapes import Flag, Text
from ggfast.cloud.store.interface import Document
from ggfast.cloud.surroundings import Surroundings

_GROUP = "/greengrass/groups/{GroupId}"
_PATH = f"{_GROUP}/deployments"
_ID = Text(0, 256)


def _prepare(cloud: Surroundings, params: dict[str, Any]) -> Any:
    """A CA for a group that is deployed for the first time; resets need none."""
    kind = params.get("DeploymentType")
    return prepare_group_ca(cloud, params) if kind in (records.NEW, records.AGAIN) else None


@GREENGRASS.operation(
    "CreateDeployment",
    f"POST {_PATH}",
    {**client_token(), "DeploymentId": _ID, "DeploymentType": _ID, "GroupVersionId": _ID},
    writes=True,
    resource=_GROUP,
    before=_prepare,
)
def create_deployment(call: Call) -> Reply:
    """Begin a deployment or a reset."""
    kind = call.params.get("DeploymentType")
    group_id = call.params["GroupId"]
    if kind in records.RESETS:
        if get_group(call.tx, call.home, group_id) is None:
            raise Fault("ResourceNotFoundException", "That group definition does not exist.", status=404)
        deployment = start_reset(call.tx, call.cloud, call.home, group_id, force=kind == records.FORCE_RESET)
        return Reply(_started(call, deployment))
    version_id = _version(call, kind)
    return Reply(
        _started(
            call,
            start_deployment(call.tx, call.cloud, call.home, group_id, version_id, str(kind), call.prepared),
        )
    )


def _version(call: Call, kind: str | None) -> str:
    """The group version that is meant. Raises Fault."""
    try:
        if kind is None:
            raise _missing("DeploymentType")
        if kind not in records.TYPES:
            types = ",".join(records.TYPES)
            raise Fault(
                "InvalidInputException",
                f"That deployment type is not valid.  Please specify one of the following types: {{{types}}}.",
            )
        if kind == records.NEW:
            if "GroupVersionId" not in call.params:
                raise _missing("GroupVersionId")
            return str(call.params["GroupVersionId"])
        if not call.params.get("DeploymentId"):
            raise _missing("DeploymentId")
        earlier = records.load(call.tx, call.home, call.params["GroupId"], call.params["DeploymentId"])
        if earlier is None or not earlier.version:
            raise Fault("InvalidInputException", f"Deployment ID '{call.params['DeploymentId']}' is invalid.")
        return earlier.version
    except Fault:
        if call.prepared is not None:
            give_back(call.prepared)
        raise


def _missing(member: str) -> Fault:
    return Fault("InvalidInputException", f"Your request is missing the following required parameter(s): {{{member}}}.")


@GREENGRASS.operation("ListDeployments", f"GET {_PATH}", paged(), resource=_GROUP)
def list_deployments(call: Call) -> Reply:
    """The deployments of a group, in the order they were created."""
    if get_group(call.tx, call.home, call.params["GroupId"]) is None:
        raise Fault("ResourceNotFoundException", "That group definition does not exist.", status=404)

    def form(document: Document) -> dict[str, Any]:
        return deployment_form(Deployment.of(document.parent, document.name, document.body))

    return entries(call.list(records.DEPLOYMENTS, f"{call.home}/{call.params['GroupId']}"), form, "Deployments")


@GREENGRASS.operation(
    "GetDeploymentStatus",
    f"GET {_PATH}/{{DeploymentId}}/status",
    resource=f"{_PATH}/{{DeploymentId}}",
)
def get_deployment_status(call: Call) -> Reply:
    """How far a deployment is."""
    deployment = records.load(call.tx, call.home, call.params["GroupId"], call.params["DeploymentId"])
    if deployment is None:
        raise Fault("InvalidInputException", f"Deployment '{call.params['DeploymentId']}' does not exist.")
    return Reply(status_form(deployment) | {"UpdatedAt": deployment.updated})


@GREENGRASS.operation(
    "ResetDeployments",
    f"POST {_PATH}/$reset",
    {**client_token(), "Force": Flag()},
    writes=True,
    resource=_GROUP,
)
def reset_deployments(call: Call) -> Reply:
    """Take back what is deployed."""
    group_id = call.params["GroupId"]
    if get_group(call.tx, call.home, group_id) is None:
        raise Fault("ResourceNotFoundException", "That Group Definition does not exist.", status=404)
    force = bool(call.params.get("Force"))
    return Reply(_started(call, start_reset(call.tx, call.cloud, call.home, group_id, force=force)))


# --- forms ---------------------------------------------------------------------------------------------


def _started(call: Call, deployment: Deployment) -> dict[str, Any]:
    return {"DeploymentArn": arn_of(call.home, deployment.path), "DeploymentId": deployment.id}


def deployment_form(deployment: Deployment) -> dict[str, Any]:
    """One deployment in a list."""
    return {
        "CreatedAt": deployment.created,
        "DeploymentArn": arn_of(deployment.home, deployment.path),
        "DeploymentId": deployment.id,
        "DeploymentType": deployment.type,
        "GroupArn": arn_of(deployment.home, deployment.group_path),
    }


def status_form(deployment: Deployment) -> dict[str, Any]:
    """Status and type, and why it failed."""
    form: dict[str, Any] = {"DeploymentStatus": deployment.status, "DeploymentType": deployment.type}
    if deployment.status == records.FAILURE:
        form |= {"ErrorMessage": deployment.message, "ErrorDetails": deployment.details}
    return form
