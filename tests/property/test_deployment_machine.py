"""The deployment agent's transition table, explored: every interleaving within the bounds ends truthfully.

What each exploration covers is stated by its bounds (tests/model/deployment_agent.py). Between them they reach every
entry of the table but those in GUARDS.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cloud_fleet import Fleet, desk_for
from hypothesis import given, settings
from hypothesis import strategies as st

from ggfast.cloud.deploy import records
from ggfast.core.deploy.machine import FAILURE, SUCCESS, TRANSITIONS, Event, Facts, Record, State
from tests.model.deployment_agent import (
    DONE,
    FAILED,
    FORCED,
    NOTHING,
    OVERTAKEN,
    PENDING,
    PLAIN,
    RESET,
    USED_LOCAL,
    USED_MOVE,
    USED_WIPE,
    WRITES,
    Agent,
    Bounds,
    Cloud,
    Phase,
    made,
    offered,
    reported,
)
from tests.model.deployment_agent import State as Step
from tests.model.deployment_exploration import explore

BOUNDS = {
    "three deployments of every kind in every order": Bounds(3, reports=1),
    "two, their reports twice and late": Bounds(2, reports=2),
    "two, and a folder at any time": Bounds(2, reports=1, once=USED_LOCAL),
    "two, a new disk, the group given away": Bounds(2, reports=1, once=USED_WIPE | USED_MOVE),
    "one, with all of these": Bounds(1, reports=2, once=USED_LOCAL | USED_WIPE | USED_MOVE),
}
# In the table so that these are no AssertionError on a disk that somebody has changed by hand.
GUARDS = {
    (State.IDLE, Event.FOUND_NEW),
    (State.FETCHING, Event.FOUND_NEW),
    (State.FETCHING, Event.ENDED_OFFERED),
}


@pytest.mark.parametrize("bounds", BOUNDS.values(), ids=BOUNDS)
def test_p4_every_interleaving_ends_truthfully_without_a_hand(bounds: Bounds) -> None:
    explore(Agent(), bounds).check()


def test_together_they_enter_the_whole_table() -> None:
    agent = Agent()
    for bounds in (Bounds(2, reports=1, once=USED_LOCAL), BOUNDS["two, a new disk, the group given away"]):
        explore(agent, bounds)
    assert set(TRANSITIONS) - agent.entered == GUARDS


# --- the exploration finds mistakes ------------------------------------------------------------------------


def _forget(record: Record, _facts: Facts) -> Record:
    return replace(record, state=State.IDLE, current=None, attempts=0)


def _stay(record: Record, _facts: Facts) -> Record:
    return record


def _take_any_answer(record: Record, _facts: Facts) -> Record:
    return replace(record, report=None)


MISTAKES = {
    "an interrupted group is forgotten": ((State.APPLYING, Event.FOUND_OLD), _forget, "goes in circles"),
    "an interrupted group is waited for": ((State.APPLYING, Event.FOUND_OLD), _stay, "stuck"),
    "an interrupted group counts as applied": (
        (State.APPLYING, Event.FOUND_OLD),
        TRANSITIONS[State.APPLYING, Event.FOUND_NEW],
        "is a success and was never live",
    ),
    "a group found live counts as failed": (
        (State.APPLYING, Event.FOUND_NEW),
        TRANSITIONS[State.APPLYING, Event.APPLY_FAILED],
        "is a failure and was live",
    ),
    "a newer deployment is not taken": ((State.FETCHING, Event.RESET_OFFERED), _stay, "goes in circles"),
    "a reset that was cut off counts as done": (
        (State.RESETTING, Event.FOUND_OLD),
        TRANSITIONS[State.RESETTING, Event.RESET],
        "is a success and was never live",
    ),
    "any acknowledgement ends the report": ((State.IDLE, Event.ACKNOWLEDGED), _take_any_answer, "stuck"),
    "what a core has failed at is tried again": ((State.IDLE, Event.ENDED_OFFERED), _stay, "goes in circles"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_table_is_found(mistake: str) -> None:
    key, wrong, found = MISTAKES[mistake]
    once = USED_WIPE if key[1] is Event.ENDED_OFFERED else 0
    with pytest.raises(AssertionError, match=found):
        explore(Agent(table={**TRANSITIONS, key: wrong}), Bounds(2, reports=1, once=once)).check()


def test_a_record_written_after_what_it_announces_is_found() -> None:
    with pytest.raises(AssertionError, match="goes in circles"):
        explore(Agent(record_first=False), Bounds(1)).check()


@pytest.mark.parametrize(
    ("phase", "then", "found"),
    [
        (Phase.UNDO_PACKAGES, Phase.UNDO_GROUP, "is served with packages of"),
        (Phase.UNDO_GROUP, Phase.UNDO_JOURNAL, "is served with packages of"),
        (Phase.TRY, Phase.TELL_APPLIED, "is served and was never confirmed"),
    ],
)
def test_a_step_on_disk_left_out_is_found(phase: Phase, then: Phase, found: str) -> None:
    def skip(_agent: Agent, state: Step) -> tuple[str, Step]:
        return "left out", state._replace(phase=then)

    with pytest.raises(AssertionError, match=found):
        explore(Agent(writes={**WRITES, phase: skip}), Bounds(1)).check()


# --- the model's control plane is the real one ---------------------------------------------------------------

STATUS = {
    records.IN_PROGRESS: PENDING,
    records.SUCCESS: DONE,
    records.FAILURE: FAILED,
}
steps = st.lists(
    st.one_of(
        st.sampled_from([PLAIN, RESET, FORCED]),
        st.tuples(st.integers(0, 3), st.sampled_from([DONE, FAILED])),
    ),
    min_size=3,
    max_size=10,
)


class Twin:
    """The model's control plane and the real one, side by side."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.group = fleet.group()
        self.made: list[dict[str, str]] = []
        self.cloud = Cloud()

    def make(self, kind: str) -> None:
        """Both make a deployment, or neither does."""
        then = made(self.cloud, kind)
        call = self.fleet.desk.call if then is not None else self.fleet.desk.refused
        if kind == PLAIN:
            answer = call("CreateDeployment", DeploymentType=records.NEW, **self.group)
        elif kind == FORCED and then is None:
            return  # allowed there: it reaches no core
        else:
            answer = call("ResetDeployments", GroupId=self.group["GroupId"], Force=kind == FORCED)
        if then is not None:
            self.made.append({"GroupId": self.group["GroupId"], "DeploymentId": answer["DeploymentId"]})
            self.cloud = then

    def report(self, number: int, status: str) -> None:
        """The core says how a deployment went."""
        if number < len(self.made):
            self.fleet.core_says(self.made[number], SUCCESS if status == DONE else FAILURE, "why")
            self.cloud = reported(self.cloud, number, status)

    def agree(self) -> None:
        """States, and what the core is offered, are the same."""
        found = "".join(STATUS[self.fleet.status(started)["DeploymentStatus"]] for started in self.made)
        assert found == self.cloud.states.replace(OVERTAKEN, FAILED)
        answer = offered(self.cloud)
        if answer is not None:
            number, state, unseen = answer
            real = self.fleet.fetched()
            assert (real["id"], STATUS[real["status"]]) == (self.made[number]["DeploymentId"], state)
            first = unseen if unseen != number else NOTHING
            assert real["resetFirst"] == ("" if first == NOTHING else self.made[first]["DeploymentId"])


@settings(max_examples=20, deadline=None)
@given(steps)
def test_the_models_control_plane_is_the_real_one(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str | tuple[int, str]]
) -> None:
    desk = desk_for(Path(tmp_path_factory.mktemp("desk")))
    try:
        twin = Twin(Fleet(desk))
        for step in [PLAIN, *steps]:
            twin.make(step) if isinstance(step, str) else twin.report(*step)
            twin.agree()
    finally:
        desk.close()
