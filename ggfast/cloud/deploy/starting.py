"""How a deployment begins: checks, freezing, the core told. Everything is checked before anything is written, so that
a caller may go on in its transaction after a Fault.

A group that cannot run is a deployment that failed while it was built; only a group version without a core is refused
at once (cloud-api 6). A service role is not asked for: it let the service read its users' S3 and secrets, which are
here in the same place, and common tools never associate one. One deployment at a time per group and per core.
"""

from __future__ import annotations

from uuid import uuid4

import orjson

from ggfast.cloud.deploy import records
from ggfast.cloud.deploy.frozen import Frozen, cores_of, freeze
from ggfast.cloud.deploy.reasons import NotDeployable
from ggfast.cloud.deploy.records import CoreState, Deployment
from ggfast.cloud.events import DeploymentReady
from ggfast.cloud.faults import Fault
from ggfast.cloud.greengrass.authorities import NewCa, ensure_group_ca, give_back
from ggfast.cloud.greengrass.groups import get_group, get_group_version, set_deployed
from ggfast.cloud.iot import relying
from ggfast.cloud.shadows import store as shadows
from ggfast.cloud.store.interface import Body, Transaction
from ggfast.cloud.surroundings import Surroundings
from ggfast.shadows.document import ShadowRefused

AGENT_SUFFIX = "-gda"  # of the thing whose shadow tells a core of its deployments
CONCURRENT = "ConcurrentDeployment"  # code of the only refusal that passes by itself
NO_CORE = {
    "DetailedErrorCode": "GG-303",
    "DetailedErrorMessage": "You need a Greengrass Core in this Group before you can deploy.",
}


def start_deployment(
    tx: Transaction, cloud: Surroundings, home: str, group_id: str, version_id: str, kind: str, prepared: NewCa | None
) -> Deployment:
    """Deploy a group version; `kind` is NewDeployment or Redeployment. Raises Fault, and then nothing has happened.

    `prepared` becomes the group's CA if it has none; None: it has one.

    The answer may have failed already: then the group was not fit to be deployed, and its core is not told.
    """
    try:
        group, references = _checked(tx, home, group_id, version_id)
    except Fault:
        if prepared is not None:
            give_back(prepared)
        raise
    if prepared is not None:
        ensure_group_ca(tx, cloud, home, group_id, prepared)
    now = cloud.clock.wall()
    deployment = Deployment(home, group_id, str(uuid4()), kind, version_id, "")
    deployment.turn(records.BUILDING, now)
    try:
        frozen = freeze(tx, home, group_id, group.get("Name", ""), version_id, references, now)
    except NotDeployable as refusal:
        deployment.turn(records.FAILURE, now, str(refusal), refusal.reasons)
        records.save(tx, deployment)
    else:
        _hand_over(tx, deployment, frozen, now)
    return deployment


def start_reset(tx: Transaction, cloud: Surroundings, home: str, group_id: str, *, force: bool) -> Deployment:
    """Take back what is deployed; with `force` it succeeds at once, whatever the core does. Raises Fault as above."""
    now = cloud.clock.wall()
    state = records.group_state(tx, home, group_id)
    pending = records.pending_of_group(tx, home, group_id)
    if not force:
        if pending is not None:
            raise _concurrent(pending)
        if not state.deployed:
            text = f"Group id: {group_id} has not been deployed or has already been reset."
            raise Fault("ResourceNotFoundException", text, status=404)
    kind = records.FORCE_RESET if force else records.RESET
    deployment = Deployment(home, group_id, str(uuid4()), kind, "", "")
    deployment.turn(records.BUILDING, now)
    if pending is not None:
        text = failure_text(pending, f"the reset {deployment.id} took its place before the core had finished it")
        pending.turn(records.FAILURE, now, text)
        records.save(tx, pending)
    before = records.load(tx, home, group_id, state.deployed) if state.deployed else None
    core = records.core_state(tx, home, before.thing) if before is not None else CoreState()
    # A core that another group has deployed to since then is that group's.
    deployment.thing = before.thing if before is not None and core.group == group_id else ""
    if deployment.thing:
        reset = deployment.id if force else ""
        records.put_core_state(tx, home, deployment.thing, CoreState(group_id, deployment.id, reset))
    deployment.turn(records.IN_PROGRESS, now)
    if force or not deployment.thing:
        deployment.turn(records.SUCCESS, now)
    records.save(tx, deployment)
    records.drop_documents(tx, home, group_id)
    if deployment.is_pending:
        _remember_last(tx, deployment)
    else:
        finish_reset(tx, deployment)
    tell_core(tx, deployment, now)
    return deployment


def finish_reset(tx: Transaction, deployment: Deployment) -> None:
    """Nothing of the group is deployed any more; it may have been deleted while its core was resetting."""
    if deployment.thing:
        relying.succeeded(tx, deployment.home, deployment.thing, deployment.id)
    if get_group(tx, deployment.home, deployment.group) is None:
        return
    records.put_group_state(tx, deployment.home, deployment.group, records.GroupState(deployment.id, ""))
    set_deployed(tx, deployment.home, deployment.group, None)


def tell_core(tx: Transaction, deployment: Deployment, now: float) -> None:
    """Wake the core: its long poll, and the shadow that it watches (greengrass-core 12.2). Nobody for no core."""
    if not deployment.thing:
        return
    desired = {
        "deploymentId": deployment.id,
        "deploymentType": deployment.type,
        "groupId": deployment.group,
        "groupVersionId": deployment.version,
    }
    body = orjson.dumps({"state": {"desired": desired}})
    try:
        shadows.update(tx, deployment.home, deployment.thing + AGENT_SUFFIX, "", body, now)
    except ShadowRefused:
        pass  # somebody has filled it up; the core also asks by itself
    region = deployment.home.partition("/")[2]
    tx.tell(DeploymentReady(region, deployment.thing, deployment.id))


def failure_text(deployment: Deployment, detail: str) -> str:
    """A failed deployment's message, in the words tools look for (greengrass-core 12.3)."""
    return f"Deployment {deployment.id} of type {deployment.type} for group {deployment.group} failed error: {detail}"


# --- inside --------------------------------------------------------------------------------------------


def _hand_over(tx: Transaction, deployment: Deployment, frozen: Frozen, now: float) -> None:
    home = deployment.home
    deployment.thing = frozen.thing
    deployment.turn(records.IN_PROGRESS, now)
    records.save(tx, deployment)
    records.keep_document(tx, deployment, frozen.document, frozen.artifacts)
    reset = records.core_state(tx, home, frozen.thing).reset
    records.put_core_state(tx, home, frozen.thing, CoreState(deployment.group, deployment.id, reset))
    records.put_group_state(tx, home, deployment.group, records.GroupState(deployment.id, deployment.id))
    relying.handed_over(tx, home, frozen.thing, deployment.group, deployment.id, frozen.devices)
    tell_core(tx, deployment, now)


def _remember_last(tx: Transaction, deployment: Deployment) -> None:
    state = records.group_state(tx, deployment.home, deployment.group)
    state.last = deployment.id
    records.put_group_state(tx, deployment.home, deployment.group, state)


def _checked(tx: Transaction, home: str, group_id: str, version_id: str) -> tuple[Body, Body]:
    """The group and what its version refers to: they exist, there is a core, and nothing is going on. Raises Fault."""
    group = get_group(tx, home, group_id)
    if group is None:
        raise Fault("ResourceNotFoundException", "That group definition does not exist.", status=404)
    references = get_group_version(tx, home, group_id, version_id)
    if references is None:
        text = f"Version {version_id} of Group Definition {group_id} does not exist."
        raise Fault("ResourceNotFoundException", text, status=404)
    cores = cores_of(tx, home, references)
    if not cores:
        raise Fault("MissingCoreException", orjson.dumps({"ErrorDetails": [NO_CORE]}).decode())
    pending = records.pending_of_group(tx, home, group_id)
    if pending is None:
        state = records.core_state(tx, home, cores[0]["ThingArn"].partition(":thing/")[2])
        pending = records.load(tx, home, state.group, state.deployment) if state.group else None
    if pending is not None and pending.is_pending:
        raise _concurrent(pending)
    return group, references


def _concurrent(pending: Deployment) -> Fault:
    return Fault(
        CONCURRENT,
        f"Deployment {pending.id} of type {pending.type} for group {pending.group} is {pending.status}. Wait until it "
        "has finished, or reset the group's deployments with Force.",
    )
