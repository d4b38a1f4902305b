"""Every interleaving of a core's deployment agent, its disk, its death and a control plane, up to a stated bound.

The agent's decisions are those of `ggfast/core/deploy/machine.py`, taken from its table; what is written here is all
around them: each write to disk as a step of its own, a crash possible between any two, a process that starts again,
a control plane by the rules of `ggfast/cloud/deploy`, and messages that are lost, late or come twice.

A state is a tuple, so that it can be compared and kept by the hundred thousand:

    record     what the agent has on disk, by number             phase    where its process stands, DEAD if nowhere
    group      which deployment the live group came with         packages the same of the live packages
    journal    what was live before an unconfirmed activation    cloud    deployments, their states, what it offers
    offer      one answer of the long poll on its way            reports, ack   on their way
    lived      deployments that were confirmed as live, as bits  used     things that happen at most once, as bits

Steps are what happens by itself when nothing goes wrong; faults are all the rest: crashes, losses, repeated reports,
and what people do. tests/model/deployment_exploration.py visits everything that both together can reach.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

from ggfast.core.deploy import machine
from ggfast.core.deploy.machine import Deployment, Event, Facts, Record, offer_event
from ggfast.core.deploy.machine import State as Doing

NOTHING: Final = -1  # no deployment, no journal, no message
LOCAL: Final = 9  # the number of the deployment from a folder

# Kinds of deployments. A plain one may fail to be fetched or applied; a poisonous one ends the core whenever it is
# applied.
PLAIN, POISON, RESET, FORCED = "N", "X", "R", "F"
TYPES: Final = {PLAIN: "NewDeployment", POISON: "NewDeployment", RESET: machine.RESETS[0], FORCED: machine.RESETS[1]}

# States of a deployment in the control plane; OVERTAKEN: a forced reset took its place while it was pending.
PENDING, DONE, FAILED, OVERTAKEN = "p", "s", "f", "o"

USED_LOCAL, USED_WIPE, USED_MOVE = 1, 2, 4


class Phase(IntEnum):
    """Where the process stands. Everything named is done in the next step."""

    DEAD = 0
    UNDO_PACKAGES = 1  # at a start: what was not confirmed is undone, in three writes
    UNDO_GROUP = 2
    UNDO_JOURNAL = 3
    LOOK = 4  # which group is it?
    SERVE = 5  # devices and functions are served; fetching and everything that waits happens here
    JOURNAL = 6  # activation, in four writes
    PACKAGES = 7
    GROUP = 8
    TRY = 9
    CONFIRM = 10
    TELL_APPLIED = 11
    ROLL_PACKAGES = 12
    ROLL_GROUP = 13
    ROLL_JOURNAL = 14
    TELL_FAILED = 15


class Cloud(NamedTuple):
    """The control plane: `kinds` and `states` of the deployments in order; `unseen` is the forced reset that the core
    has not reported; `deployed`: there is something to reset; `moved`: the group is another core's now."""

    kinds: str = ""
    states: str = ""
    unseen: int = NOTHING
    deployed: bool = False
    moved: bool = False


class State(NamedTuple):
    """See the module."""

    record: int = 0
    phase: Phase = Phase.SERVE
    group: int = NOTHING
    packages: int = NOTHING
    journal: tuple[int, int] | None = None
    cloud: Cloud = Cloud()
    offer: tuple[int, str, int] | None = None
    reports: tuple[tuple[int, str], ...] = ()
    ack: int = NOTHING
    lived: int = 0
    used: int = 0


Move = tuple[str, State]
Moves = list[Move]
Table = Mapping[tuple[Doing, Event], machine.Transition]
Write = Callable[["Agent", State], Move]


@dataclass(frozen=True)
class Bounds:
    """How much happens at most: deployments made in the control plane, of which kinds; reports on their way; whether a
    folder is deployed, the core's disk replaced, the group given to another core (each once at any time)."""

    deployments: int
    kinds: str = PLAIN + POISON + RESET + FORCED
    reports: int = 2
    once: int = 0


def deployment_of(number: int, cloud: Cloud) -> Deployment:
    """The deployment of this number as the core knows it."""
    if number == LOCAL:
        return Deployment("local", machine.LOCAL)
    return Deployment(str(number), TYPES[cloud.kinds[number]], "g")


def number_of(deployment: Deployment) -> int:
    """The other way round."""
    return LOCAL if deployment.is_local else int(deployment.id)


@dataclass
class Agent:
    """The core. `table` is the machine's and `writes` the store's, or copies with a mistake; `record_first` False is a
    mistake of another kind: FETCHED is written only after the group has been applied."""

    table: Table = field(default_factory=lambda: machine.TRANSITIONS)
    writes: Mapping[Phase, Write] = field(default_factory=lambda: WRITES)
    record_first: bool = True
    entered: set[tuple[Doing, Event]] = field(default_factory=set)
    records: list[Record] = field(default_factory=lambda: [Record()])
    _numbers: dict[Record, int] = field(default_factory=lambda: {Record(): 0})
    _known: dict[tuple[int, Event, Deployment | None], int] = field(default_factory=dict)

    def record(self, state: State) -> Record:
        """What is on disk."""
        return self.records[state.record]

    def after(self, state: State, event: Event, number: int = NOTHING) -> State:
        """One event, written to disk at once."""
        deployment = deployment_of(number, state.cloud) if number != NOTHING else None
        key = (state.record, event, deployment)
        if key not in self._known:
            record = self.record(state)
            self.entered.add((record.state, event))
            then = self.table[record.state, event](record, Facts(deployment, "why"))
            if then not in self._numbers:
                self._numbers[then] = len(self.records)
                self.records.append(then)
            self._known[key] = self._numbers[then]
        return state._replace(record=self._known[key])

    def steps(self, state: State) -> Moves:
        """What its process does next; it does one thing at a time but for reports and their acknowledgements."""
        moves = [self.writes[state.phase](self, state)] if state.phase in self.writes else []
        if state.phase is Phase.TRY:
            moves += self._try(state)
        elif state.phase is Phase.TELL_APPLIED and self.record(state).state is Doing.RESETTING:
            moves.append(
                ("what else to remove stays", self.after(state, Event.RESET_FAILED)._replace(phase=Phase.SERVE))
            )
        elif state.phase is Phase.SERVE:
            moves += self._serve(state)
        if state.phase >= Phase.SERVE:
            moves += self._talk(state)
        return moves

    def _serve(self, state: State) -> Moves:
        moves: Moves = []
        doing, current = self.record(state).state, self.record(state).current
        if doing is Doing.FETCHING:
            assert current is not None
            number = number_of(current)
            fetched = self.after(state, Event.FETCHED) if self.record_first else state
            moves.append((f"{number} is fetched", fetched._replace(phase=Phase.JOURNAL)))
            if state.cloud.kinds[number] == PLAIN:
                moves.append((f"{number} cannot be fetched", self.after(state, Event.FETCH_FAILED)))
        elif doing is Doing.RESETTING:
            moves.append(("removing begins", state._replace(phase=Phase.JOURNAL)))
        if doing in (Doing.FETCHING, Doing.IDLE) and state.offer is not None:
            number, status, reset_first = state.offer
            heard = state._replace(offer=None)
            if number == NOTHING:
                moves.append(("it hears that there is nothing", self.after(heard, Event.WITHDRAWN)))
            else:
                moves.append((f"it hears of {number}", self.hear(heard, number, status, reset_first)))
        return moves

    def hear(self, state: State, number: int, status: str, reset_first: int) -> State:
        """An offer; heard twice it must mean nothing the second time."""
        meant = self.meaning(state, number, status, reset_first)
        if meant is None:
            return state
        return self.after(state, meant[0], int(meant[1].id))

    def meaning(self, state: State, number: int, status: str, reset_first: int) -> tuple[Event, Deployment] | None:
        """What an offer means to the core as it is."""
        first = str(reset_first) if reset_first != NOTHING and reset_first != number else ""
        said = machine.FAILURE if status in (FAILED, OVERTAKEN) else ""
        return offer_event(self.record(state), deployment_of(number, state.cloud), said, first)

    def _talk(self, state: State) -> Moves:
        report = self.record(state).report
        moves: Moves = []
        if report is not None:
            said = (number_of(report.deployment), DONE if report.status == machine.SUCCESS else FAILED)
            if said not in state.reports and state.ack != said[0]:
                moves.append((f"it reports {said}", state._replace(reports=_sorted(*state.reports, said))))
        if state.ack != NOTHING:
            moves.append((f"it hears that {state.ack} is known", self.acknowledged(state)))
        return moves

    def acknowledged(self, state: State) -> State:
        """The acknowledgement arrives."""
        return self.after(state, Event.ACKNOWLEDGED, state.ack)._replace(ack=NOTHING)

    def target(self, state: State) -> int:
        """The number of what is being put in place."""
        current = self.record(state).current
        assert current is not None
        return number_of(current)

    def _try(self, state: State) -> Moves:
        """The new group is on disk and goes to the running parts."""
        number = self.target(state)
        if number != LOCAL and state.cloud.kinds[number] == POISON:
            return [(f"{number} ends the core", crashed(state))]
        return [
            (f"{number} works", state._replace(phase=Phase.CONFIRM)),
            (f"{number} does not work", state._replace(phase=Phase.ROLL_PACKAGES)),
        ]

    def _confirm(self, state: State) -> Move:
        number = self.target(state)
        return (
            f"{number} is confirmed",
            state._replace(phase=Phase.TELL_APPLIED, journal=None, lived=state.lived | 1 << number),
        )

    def _tell(self, state: State, happened: tuple[Event, Event]) -> Move:
        if not self.record_first and self.record(state).state is Doing.FETCHING:
            state = self.after(state, Event.FETCHED)
        event = happened[1] if self.record(state).state is Doing.RESETTING else happened[0]
        return str(event), self.after(state, event)._replace(phase=Phase.SERVE)

    def _look(self, state: State) -> Move:
        current = self.record(state).current
        new = current is not None and number_of(current) == state.group
        event = Event.FOUND_NEW if new else Event.FOUND_OLD
        return str(event), self.after(state, event)._replace(phase=Phase.SERVE)


def _undo_group(_agent: Agent, state: State) -> State:
    assert state.journal is not None
    return state._replace(group=state.journal[0])


def _undo_packages(_agent: Agent, state: State) -> State:
    assert state.journal is not None
    return state._replace(packages=state.journal[1])


def _write(what: str, change: Callable[[Agent, State], State], then: Phase) -> Write:
    return lambda agent, state: (what, change(agent, state)._replace(phase=then))


WRITES: Final[Mapping[Phase, Write]] = {
    Phase.UNDO_PACKAGES: _write("packages moved back", _undo_packages, Phase.UNDO_GROUP),
    Phase.UNDO_GROUP: _write("group moved back", _undo_group, Phase.UNDO_JOURNAL),
    Phase.UNDO_JOURNAL: _write("journal removed", lambda _a, state: state._replace(journal=None), Phase.LOOK),
    Phase.LOOK: Agent._look,
    Phase.JOURNAL: _write(
        "journal written", lambda _a, state: state._replace(journal=(state.group, state.packages)), Phase.PACKAGES
    ),
    Phase.PACKAGES: _write(
        "packages moved in", lambda agent, state: state._replace(packages=agent.target(state)), Phase.GROUP
    ),
    Phase.GROUP: _write("group moved in", lambda agent, state: state._replace(group=agent.target(state)), Phase.TRY),
    Phase.CONFIRM: Agent._confirm,
    Phase.TELL_APPLIED: lambda agent, state: agent._tell(state, (Event.APPLIED, Event.RESET)),
    Phase.ROLL_PACKAGES: _write("packages moved back", _undo_packages, Phase.ROLL_GROUP),
    Phase.ROLL_GROUP: _write("group moved back", _undo_group, Phase.ROLL_JOURNAL),
    Phase.ROLL_JOURNAL: _write("journal removed", lambda _a, state: state._replace(journal=None), Phase.TELL_FAILED),
    Phase.TELL_FAILED: lambda agent, state: agent._tell(state, (Event.APPLY_FAILED, Event.RESET_FAILED)),
}


# --- the control plane -----------------------------------------------------------------------------------


def _with(text: str, number: int, letter: str) -> str:
    return text[:number] + letter + text[number + 1 :]


def made(cloud: Cloud, kind: str) -> Cloud | None:
    """A deployment is made; None where the control plane refuses it."""
    number, pending = len(cloud.kinds), PENDING in cloud.states
    if cloud.moved or (pending and kind != FORCED) or (kind in (RESET, FORCED) and not cloud.deployed):
        return None
    kinds = cloud.kinds + kind
    if kind == FORCED:
        overtaken = cloud.states.replace(PENDING, OVERTAKEN)
        return Cloud(kinds, overtaken + DONE, unseen=number)
    return Cloud(kinds, cloud.states + PENDING, cloud.unseen, deployed=True)


def reported(cloud: Cloud, number: int, status: str) -> Cloud:
    """What a report changes: states never go back."""
    newest = len(cloud.kinds) - 1
    if cloud.unseen != NOTHING and number in (cloud.unseen, newest):
        cloud = cloud._replace(unseen=NOTHING)
    if cloud.states[number] != PENDING:
        return cloud
    done = cloud._replace(states=_with(cloud.states, number, status))
    return done._replace(deployed=False) if cloud.kinds[number] == RESET and status == DONE else done


def offered(cloud: Cloud) -> tuple[int, str, int] | None:
    """What the long poll answers with: number, state, forced reset to be done before; None if nothing was ever made."""
    if cloud.moved:
        return NOTHING, "", NOTHING
    newest = len(cloud.kinds) - 1
    return (newest, cloud.states[newest], cloud.unseen) if cloud.kinds else None


# --- everything that can happen --------------------------------------------------------------------------


def crashed(state: State) -> State:
    """The process is gone, and with it the answers on their way to it; its reports may still arrive."""
    return state._replace(phase=Phase.DEAD, offer=None, ack=NOTHING)


def steps(state: State, agent: Agent) -> Moves:
    """What happens by itself."""
    if state.phase is Phase.DEAD:
        begins = Phase.LOOK if state.journal is None else Phase.UNDO_PACKAGES
        return [("the core starts", state._replace(phase=begins))]
    moves = agent.steps(state)
    if state.phase >= Phase.SERVE and state.offer is None and (answer := offered(state.cloud)) is not None:
        number = answer[0]
        fetching = agent.record(state).state is Doing.FETCHING
        if fetching if number == NOTHING else agent.meaning(state, *answer) is not None:
            moves.append((f"it is offered {answer}", state._replace(offer=answer)))
    for report in state.reports:
        told = _delivered(state, report)
        moves.append((f"{report} arrives", told._replace(ack=report[0]) if told.phase >= Phase.SERVE else told))
    return moves


def _delivered(state: State, report: tuple[int, str]) -> State:
    cloud = reported(state.cloud, *report)
    assert reported(cloud, *report) == cloud, f"the report {report} changes something when it comes twice"
    rest = list(state.reports)
    rest.remove(report)
    return state._replace(cloud=cloud, reports=tuple(rest))


def faults(state: State, agent: Agent, bounds: Bounds) -> Moves:
    """What people do, and what goes wrong."""
    moves: Moves = []
    if len(state.cloud.kinds) < bounds.deployments:
        for kind in bounds.kinds:
            cloud = made(state.cloud, kind)
            if cloud is not None:
                moves.append((f"{kind} is made", state._replace(cloud=cloud)))
    if state.phase is not Phase.DEAD:
        moves.append(("crash", crashed(state)))
    if state.offer is not None:
        moves.append(("the offer is lost", state._replace(offer=None)))
    if state.ack != NOTHING:
        moves.append(("the acknowledgement is lost", state._replace(ack=NOTHING)))
    for report in state.reports:
        rest = list(state.reports)
        rest.remove(report)
        moves.append((f"{report} is lost", state._replace(reports=tuple(rest))))
        if len(state.reports) < bounds.reports:
            moves.append((f"{report} goes out again", state._replace(reports=_sorted(*state.reports, report))))
    return moves + _once(state, agent, bounds.once & ~state.used)


def _once(state: State, agent: Agent, allowed: int) -> Moves:
    """What the bounds let happen one time."""
    moves: Moves = []
    ready = state.phase is Phase.SERVE and agent.record(state).state in (Doing.IDLE, Doing.FETCHING)
    if allowed & USED_LOCAL and ready:
        local = agent.after(state, Event.STAGED, LOCAL)
        moves.append(("a folder is deployed", local._replace(phase=Phase.JOURNAL, used=state.used | USED_LOCAL)))
    if allowed & USED_WIPE and state.phase is Phase.DEAD:
        fresh = State(0, Phase.DEAD, cloud=state.cloud, used=state.used | USED_WIPE)
        moves.append(("its disk is replaced", fresh))
    if allowed & USED_MOVE and state.cloud.kinds and PENDING not in state.cloud.states:
        moved = state.cloud._replace(moved=True)
        moves.append(("its group goes to another core", state._replace(cloud=moved, used=state.used | USED_MOVE)))
    return moves


def _sorted(*reports: tuple[int, str]) -> tuple[tuple[int, str], ...]:
    return tuple(sorted(reports))
