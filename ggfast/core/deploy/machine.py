"""The deployment agent's state machine: every state, every event, every transition. Pure.

    IDLE ──OFFERED──► FETCHING ──FETCHED──► APPLYING ──APPLIED──► IDLE, Success to report
      │                  │                     └─APPLY_FAILED──► IDLE, Failure to report
      │                  └──FETCH_FAILED──► IDLE, Failure to report
      └──RESET_OFFERED──► RESETTING ──RESET──► IDLE, Success to report

A transition is on disk before anything is done because of it, so a start after a crash finds what was going on. Whether
an activation that was cut off has happened is not remembered but looked at: the live group says which deployment it
came with (`deployment.json` in its directory, put in place by the same rename). That is FOUND_OLD or FOUND_NEW.

What has been done and not yet told to the control plane is the record's `report`; it stays through the next deployment
until it is acknowledged or another outcome replaces it. A deployment from a folder (`local`) is reported to nobody.

The agent and the model that explores every interleaving (tests/model/deployment_agent.py) share TRANSITIONS.
Sources: greengrass-core 12.1, 12.2, 12.5; design P4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from ggfast import limits

SUCCESS: Final = "Success"
FAILURE: Final = "Failure"
LOCAL: Final = "Local"  # the type of a deployment from a folder; the control plane has none of this name
RESETS: Final = ("ResetDeployment", "ForceResetDeployment")


class State(StrEnum):
    """What the agent is doing."""

    IDLE = "idle"
    FETCHING = "fetching"
    APPLYING = "applying"
    RESETTING = "resetting"


class Event(StrEnum):
    """What happens to it."""

    OFFERED = "offered"  # the control plane has a group for this core that it does not have
    RESET_OFFERED = "reset offered"  # or wants everything removed
    ENDED_OFFERED = "ended offered"  # or names one that has failed: there is nothing to do about it
    WITHDRAWN = "withdrawn"  # the control plane has nothing for this core any more
    STAGED = "staged"  # a folder was deployed here
    FETCHED = "fetched"  # everything is on disk beside the live group
    FETCH_FAILED = "fetch failed"  # and trying again would not help
    APPLIED = "applied"  # the new group is live, confirmed and running
    APPLY_FAILED = "apply failed"  # the group before it is live and running
    RESET = "reset"  # nothing is deployed
    RESET_FAILED = "reset failed"
    FOUND_OLD = "found old"  # after a start: the live group is not that of the deployment under way
    FOUND_NEW = "found new"  # after a start: it is
    ACKNOWLEDGED = "acknowledged"  # the control plane has taken a report, or does not know what it is about


@dataclass(frozen=True, slots=True)
class Deployment:
    """Which deployment; `version_id` is empty for a reset and a local one."""

    id: str
    type: str
    group_id: str = ""
    version_id: str = ""

    @property
    def is_local(self) -> bool:
        """Whether it came from a folder."""
        return self.type == LOCAL

    @property
    def is_reset(self) -> bool:
        """Whether it removes everything."""
        return self.type in RESETS


@dataclass(frozen=True, slots=True)
class Report:
    """An outcome to tell; `message` is empty for a success."""

    deployment: Deployment
    status: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """All that is remembered. `last` is the newest deployment that need not be offered again, `reset` the newest reset
    that was done, `attempts` how often applying `current` has begun."""

    state: State = State.IDLE
    current: Deployment | None = None
    attempts: int = 0
    report: Report | None = None
    last: str = ""
    reset: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What comes with an event: the deployment offered, staged or acknowledged; why something failed."""

    deployment: Deployment | None = None
    message: str = ""


Transition = Callable[[Record, Facts], Record]


def advance(record: Record, event: Event, facts: Facts | None = None) -> Record:
    """The record after an event. An event that cannot happen in a state is an AssertionError."""
    transition = TRANSITIONS.get((record.state, event))
    assert transition is not None, f"{event} cannot happen while {record.state}"
    return transition(record, facts or Facts())


def offer_event(
    record: Record, deployment: Deployment, status: str, reset_first: str
) -> tuple[Event, Deployment] | None:
    """What an offer of the control plane means, and for which deployment; None if it is known already.

    A forced reset that this core has not seen (`reset_first`) is done as a deployment of its own, before the one it was
    offered with: that one is offered again once the reset is reported. One that failed is not tried over and over
    meanwhile: the report of it settles what is offered next.
    """
    if reset_first and reset_first != record.reset:
        if record.report is not None and record.report.deployment.id == reset_first:
            return None
        forced = Deployment(reset_first, RESETS[1], deployment.group_id)
        under_way = record.current is not None and record.current.id == reset_first
        return None if under_way else (Event.RESET_OFFERED, forced)
    if deployment.id == record.last or (record.current is not None and record.current.id == deployment.id):
        return None
    if status == FAILURE:
        return Event.ENDED_OFFERED, deployment
    return (Event.RESET_OFFERED if deployment.is_reset else Event.OFFERED), deployment


# --- transitions -----------------------------------------------------------------------------------------


def _same(record: Record, _facts: Facts) -> Record:
    return record


def _fetch(record: Record, facts: Facts) -> Record:
    return replace(record, state=State.FETCHING, current=facts.deployment, attempts=0)


def _reset(record: Record, facts: Facts) -> Record:
    return replace(record, state=State.RESETTING, current=facts.deployment, attempts=0)


def _note(record: Record, facts: Facts) -> Record:
    assert facts.deployment is not None
    return replace(record, state=State.IDLE, current=None, attempts=0, last=facts.deployment.id)


def _drop(record: Record, _facts: Facts) -> Record:
    return replace(record, state=State.IDLE, current=None, attempts=0)


def _apply(record: Record, _facts: Facts) -> Record:
    return replace(record, state=State.APPLYING, attempts=record.attempts + 1)


def _apply_staged(record: Record, facts: Facts) -> Record:
    return replace(record, state=State.APPLYING, current=facts.deployment, attempts=1)


def _ended(record: Record, status: str, message: str) -> Record:
    current = record.current
    assert current is not None
    idle = _drop(record, Facts())
    if current.is_local:
        return idle
    reset = current.id if current.is_reset and status == SUCCESS else record.reset
    return replace(idle, last=current.id, reset=reset, report=Report(current, status, message))


def _succeed(record: Record, _facts: Facts) -> Record:
    return _ended(record, SUCCESS, "")


def _fail(record: Record, facts: Facts) -> Record:
    return _ended(record, FAILURE, facts.message)


def _interrupted(record: Record, facts: Facts) -> Record:
    """Applying was cut off and undone: once more from the start, but not for ever: it may be what ends the core."""
    assert record.current is not None
    if record.current.is_local:
        return _drop(record, facts)
    if record.attempts < limits.DEPLOYMENT_ATTEMPTS:
        return replace(record, state=State.FETCHING)
    times = f"the core was interrupted {record.attempts} times while it applied the group; the previous one is live"
    return _ended(record, FAILURE, times)


def _acknowledge(record: Record, facts: Facts) -> Record:
    told = record.report is not None and record.report.deployment == facts.deployment
    return replace(record, report=None) if told else record


TRANSITIONS: Final[Mapping[tuple[State, Event], Transition]] = MappingProxyType(
    {
        (State.IDLE, Event.OFFERED): _fetch,
        (State.IDLE, Event.RESET_OFFERED): _reset,
        (State.IDLE, Event.ENDED_OFFERED): _note,
        (State.IDLE, Event.WITHDRAWN): _same,
        (State.IDLE, Event.STAGED): _apply_staged,
        (State.IDLE, Event.FOUND_OLD): _same,
        (State.IDLE, Event.FOUND_NEW): _same,
        (State.IDLE, Event.ACKNOWLEDGED): _acknowledge,
        # Nothing is touched while fetching, so anything newer takes its place at once.
        (State.FETCHING, Event.OFFERED): _fetch,
        (State.FETCHING, Event.RESET_OFFERED): _reset,
        (State.FETCHING, Event.ENDED_OFFERED): _note,
        (State.FETCHING, Event.WITHDRAWN): _drop,
        (State.FETCHING, Event.STAGED): _apply_staged,  # the one under way is offered again afterwards
        (State.FETCHING, Event.FETCHED): _apply,
        (State.FETCHING, Event.FETCH_FAILED): _fail,
        (State.FETCHING, Event.FOUND_OLD): _same,
        (State.FETCHING, Event.FOUND_NEW): _succeed,  # it was applied, and the record of that was lost
        (State.FETCHING, Event.ACKNOWLEDGED): _acknowledge,
        # What is being applied is brought to its end first; what was offered meanwhile is looked at then.
        (State.APPLYING, Event.APPLIED): _succeed,
        (State.APPLYING, Event.APPLY_FAILED): _fail,
        (State.APPLYING, Event.FOUND_OLD): _interrupted,
        (State.APPLYING, Event.FOUND_NEW): _succeed,
        (State.APPLYING, Event.ACKNOWLEDGED): _acknowledge,
        (State.RESETTING, Event.RESET): _succeed,
        (State.RESETTING, Event.RESET_FAILED): _fail,
        (State.RESETTING, Event.FOUND_OLD): _same,  # removing goes on where it was cut off
        (State.RESETTING, Event.FOUND_NEW): _same,
        (State.RESETTING, Event.ACKNOWLEDGED): _acknowledge,
    }
)
