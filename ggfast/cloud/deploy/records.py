"""What is kept of deployments: their states, where a group and a core stand, the frozen document a core fetches.

    deployment           <home>/<group>   <deployment>   type, status, its history, the core, errors; label "id"
    deployment-document  <home>/<group>   <deployment>   the frozen group and its artifacts: of the last one alone
    group-deployment     <home>           <group>        "last": the newest that was handed over; "deployed": the one
                                                         that a reset has to take back, "" if none
    core-deployment      <home>           <thing>        group and id of what the core has to fetch; "reset": a forced
                                                         reset that it has not seen yet

`<home>` is "<account>/<region>". Sources: greengrass-core 12.1, cloud-api 6.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ggfast.cloud.deploy.outbox import note
from ggfast.cloud.iot import relying
from ggfast.cloud.limits import DEPLOYMENTS_PER_GROUP_MAX
from ggfast.cloud.store.interface import Body, Transaction
from ggfast.cloud.surroundings import timestamp

DEPLOYMENTS = "deployment"
DOCUMENTS = "deployment-document"
GROUPS = "group-deployment"
CORES = "core-deployment"

NEW = "NewDeployment"
AGAIN = "Redeployment"
RESET = "ResetDeployment"
FORCE_RESET = "ForceResetDeployment"
TYPES = (NEW, AGAIN, RESET, FORCE_RESET)
RESETS = (RESET, FORCE_RESET)

BUILDING = "Building"
IN_PROGRESS = "InProgress"
SUCCESS = "Success"
FAILURE = "Failure"
PENDING = (BUILDING, IN_PROGRESS)

Reasons = list[dict[str, str]]  # of DetailedErrorCode, DetailedErrorMessage


@dataclass(slots=True)
class Deployment:
    """One deployment and where it lies. `version` and `thing` are "" where there is none."""

    home: str
    group: str
    id: str
    type: str
    version: str
    thing: str
    status: str = BUILDING
    message: str = ""
    details: Reasons = field(default_factory=list)
    history: list[list[str]] = field(default_factory=list)  # of status and time

    @property
    def path(self) -> str:
        """What its ARN ends in."""
        return f"/greengrass/groups/{self.group}/deployments/{self.id}"

    @property
    def group_path(self) -> str:
        """What the ARN of what was deployed ends in: of the group version, of the group for a reset (cloud-api 6)."""
        return f"/greengrass/groups/{self.group}" + (f"/versions/{self.version}" if self.version else "")

    @property
    def created(self) -> str:
        """When it was created, as Greengrass writes times."""
        return self.history[0][1]

    @property
    def updated(self) -> str:
        """When its status last changed."""
        return self.history[-1][1]

    @property
    def is_pending(self) -> bool:
        """Whether it is neither done nor failed."""
        return self.status in PENDING

    def turn(self, status: str, now: float, message: str = "", details: Reasons | None = None) -> None:
        """Go on to a status; `now` in seconds since 1970."""
        self.status, self.message, self.details = status, message, details or []
        self.history.append([status, timestamp(now)])

    def body(self) -> Body:
        """As it lies in the store."""
        return {
            name: getattr(self, name)
            for name in ("type", "version", "thing", "status", "message", "details", "history")
        }

    @classmethod
    def of(cls, parent: str, name: str, body: Body) -> Deployment:
        """From the store."""
        home, _, group = parent.rpartition("/")
        return cls(home, group, name, **body)


# --- deployments -----------------------------------------------------------------------------------------


def save(tx: Transaction, deployment: Deployment) -> None:
    """Make or replace the record, and have it told to which states it has come since it was saved before. The oldest
    of a group go when there are too many, not those it stands at."""
    parent = f"{deployment.home}/{deployment.group}"
    before = tx.get(DEPLOYMENTS, parent, deployment.id)
    changes = deployment.history[len(before["history"]) if before is not None else 0 :]
    note(tx, deployment.home, deployment.group, deployment.id, deployment.type, changes)
    _put(tx, deployment)
    spare = tx.count(DEPLOYMENTS, parent) - DEPLOYMENTS_PER_GROUP_MAX
    if spare > 0:
        state = group_state(tx, deployment.home, deployment.group)
        needed = {state.last, state.deployed, deployment.id}
        oldest = tx.list(DEPLOYMENTS, parent, limit=spare + len(needed)).documents
        for document in [found for found in oldest if found.name not in needed][:spare]:
            tx.delete(DEPLOYMENTS, parent, document.name)


def _put(tx: Transaction, deployment: Deployment) -> None:
    labels = {"id": [f"{deployment.home}/{deployment.id}"]}
    tx.put(DEPLOYMENTS, f"{deployment.home}/{deployment.group}", deployment.id, deployment.body(), labels)


def load(tx: Transaction, home: str, group: str, deployment: str) -> Deployment | None:
    """One deployment of a group."""
    body = tx.get(DEPLOYMENTS, f"{home}/{group}", deployment)
    return None if body is None else Deployment.of(f"{home}/{group}", deployment, body)


def find(tx: Transaction, home: str, deployment: str) -> Deployment | None:
    """A deployment of whatever group."""
    found = tx.find(DEPLOYMENTS, "id", f"{home}/{deployment}", limit=1).documents
    return Deployment.of(found[0].parent, found[0].name, found[0].body) if found else None


# --- groups ----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class GroupState:
    """Ids of the newest deployment handed over, and of the one that a reset has to take back; "" for none."""

    last: str = ""
    deployed: str = ""


def group_state(tx: Transaction, home: str, group: str) -> GroupState:
    """Where a group stands."""
    body = tx.get(GROUPS, home, group)
    return GroupState() if body is None else GroupState(body["last"], body["deployed"])


def put_group_state(tx: Transaction, home: str, group: str, state: GroupState) -> None:
    """Remember it."""
    tx.put(GROUPS, home, group, {"last": state.last, "deployed": state.deployed})


def pending_of_group(tx: Transaction, home: str, group: str) -> Deployment | None:
    """The deployment that is not finished, if there is one: never two."""
    state = group_state(tx, home, group)
    last = load(tx, home, group, state.last) if state.last else None
    return last if last is not None and last.is_pending else None


# --- cores -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class CoreState:
    """What a core has to fetch: a group and its deployment; `reset` is a forced reset it has not seen yet, or ""."""

    group: str = ""
    deployment: str = ""
    reset: str = ""


def core_state(tx: Transaction, home: str, thing: str) -> CoreState:
    """Where a core stands; empty if nothing was ever deployed to it."""
    body = tx.get(CORES, home, thing)
    return CoreState() if body is None else CoreState(body["group"], body["deployment"], body["reset"])


def put_core_state(tx: Transaction, home: str, thing: str, state: CoreState) -> None:
    """Remember it."""
    tx.put(CORES, home, thing, {"group": state.group, "deployment": state.deployment, "reset": state.reset})


# --- documents -------------------------------------------------------------------------------------------


def keep_document(
    tx: Transaction, deployment: Deployment, document: dict[str, Any], artifacts: list[dict[str, Any]]
) -> None:
    """Keep what the core fetches; it replaces that of the deployment before."""
    parent = f"{deployment.home}/{deployment.group}"
    tx.delete_all(DOCUMENTS, parent)
    tx.put(DOCUMENTS, parent, deployment.id, {"document": document, "artifacts": artifacts})


def document_of(tx: Transaction, deployment: Deployment) -> Body | None:
    """`document` and `artifacts` of a deployment; of a reset the empty group; None once another one took its place."""
    if deployment.type in RESETS:
        return {"document": {}, "artifacts": []}
    return tx.get(DOCUMENTS, f"{deployment.home}/{deployment.group}", deployment.id)


def drop_documents(tx: Transaction, home: str, group: str) -> None:
    """What a group had for its core to fetch is of no use any more."""
    tx.delete_all(DOCUMENTS, f"{home}/{group}")


def is_deployed(tx: Transaction, home: str, group: str) -> bool:
    """Whether a core has, or is about to have, something of this group: it cannot be deleted before a reset.

    Not any more once a reset has been asked for: published tools reset and delete at once, and a reset reaches its core
    without the group (greengrass-core 12.5).
    """
    pending = pending_of_group(tx, home, group)
    if pending is not None:
        return pending.type not in RESETS
    return bool(group_state(tx, home, group).deployed)


def forget_group(tx: Transaction, home: str, group: str) -> None:
    """The group is deleted; what stays is the reset that its core may still have to fetch."""
    last = group_state(tx, home, group).last
    kept = load(tx, home, group, last) if last else None
    tx.delete_all(DEPLOYMENTS, f"{home}/{group}")
    drop_documents(tx, home, group)
    tx.delete(GROUPS, home, group)
    relying.forget_group(tx, home, group)
    if kept is not None and core_state(tx, home, kept.thing).deployment == kept.id:
        _put(tx, kept)
