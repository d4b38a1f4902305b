"""What a core asks and says about deployments, through the devices' HTTPS server (greengrass-core 12.2, 12.3).

A core fetches whatever is the latest for it and tells from the id whether it has done that already. A state never goes
back: reports that are late, repeated or of a deployment that something else has ended change nothing.
"""

from __future__ import annotations

from typing import Any

from ggfast.cloud.deploy import records
from ggfast.cloud.deploy.records import CoreState, Deployment, is_deployed
from ggfast.cloud.deploy.starting import failure_text, finish_reset
from ggfast.cloud.faults import Fault
from ggfast.cloud.greengrass.groups import set_deployed
from ggfast.cloud.iot import relying
from ggfast.cloud.limits import DEPLOYMENT_MESSAGE_MAX
from ggfast.cloud.store.interface import Transaction

__all__ = ["is_deployed", "latest_for_core", "name_of_latest", "report"]

REPORTED = (records.IN_PROGRESS, records.SUCCESS, records.FAILURE)


def name_of_latest(tx: Transaction, home: str, thing_name: str) -> tuple[str, str]:
    """The group and id of what `latest_for_core` gives, if it gives something; "" for nothing. Cheap."""
    state = records.core_state(tx, home, thing_name)
    return state.group, state.deployment


def latest_for_core(tx: Transaction, home: str, thing_name: str) -> dict[str, Any] | None:
    """The newest deployment for this core, done or not; None if there is nothing for it.

    `id`, `type`, `status`, `groupId`, `versionId` ("" for a reset), `createdAt`; `document` (the frozen group, {} for a
    reset), `artifacts` (of kind, name, digest, size); `resetFirst`: the id of a forced reset that the core has not seen
    and has to do before, "" if there is none.
    """
    state = records.core_state(tx, home, thing_name)
    deployment = records.load(tx, home, state.group, state.deployment) if state.deployment else None
    if deployment is None:
        return None
    found = records.document_of(tx, deployment)
    if found is None:  # its group has been deployed to another core
        return None
    return {
        "id": deployment.id,
        "type": deployment.type,
        "status": deployment.status,
        "groupId": deployment.group,
        "versionId": deployment.version,
        "createdAt": deployment.created,
        "resetFirst": state.reset if state.reset != deployment.id else "",
        **found,
    }


def report(
    tx: Transaction, home: str, thing: str, deployment_id: str, status: str, message: str | None, now: float
) -> None:
    """A core says how far it is: InProgress, Success or Failure with the reason. `now` in seconds since 1970.

    Raises Fault: 400 for another status, 404 for an unknown deployment, 403 for one of another core.
    """
    if status not in REPORTED:
        text = f"DeploymentStatus: found {status[:80]!r}, expected one of {', '.join(REPORTED)}."
        raise Fault("InvalidInputException", text)
    deployment = records.find(tx, home, deployment_id)
    if deployment is None:
        raise Fault("ResourceNotFoundException", f"Deployment '{deployment_id[:80]}' does not exist.", status=404)
    if deployment.thing != thing:
        text = f"Deployment '{deployment_id}' is not for the core '{thing}'; a core reports its own deployments only."
        raise Fault("AccessDeniedException", text, status=403)
    if status != records.IN_PROGRESS:
        _seen(tx, deployment)
    if not deployment.is_pending or status == deployment.status:
        return
    if status == records.FAILURE:
        deployment.turn(status, now, _message(deployment, message or "the core gave no reason"))
        relying.failed(tx, deployment.home, deployment.thing, deployment.id)
    else:
        deployment.turn(status, now)
    records.save(tx, deployment)
    if status == records.SUCCESS:
        _succeeded(tx, deployment)


def _succeeded(tx: Transaction, deployment: Deployment) -> None:
    if deployment.type in records.RESETS:
        finish_reset(tx, deployment)
    else:
        set_deployed(tx, deployment.home, deployment.group, deployment.version)
        relying.succeeded(tx, deployment.home, deployment.thing, deployment.id)


def _seen(tx: Transaction, deployment: Deployment) -> None:
    """A core that has done its latest deployment has also done the reset before it."""
    state = records.core_state(tx, deployment.home, deployment.thing)
    if state.reset and deployment.id in (state.reset, state.deployment):
        records.put_core_state(tx, deployment.home, deployment.thing, CoreState(state.group, state.deployment, ""))


def _message(deployment: Deployment, detail: str) -> str:
    """The core's words, inside those tools look for unless they are those already."""
    detail = detail.replace("\0", "")[:DEPLOYMENT_MESSAGE_MAX]
    return detail if detail.startswith(f"Deployment {deployment.id} of type ") else failure_text(deployment, detail)
