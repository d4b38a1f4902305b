"""All that can become of a core and its control plane, and whether it is as it must be.

`explore` visits every state that steps and faults (tests/model/deployment_agent.py) can reach within bounds.
`untrue_in` says what is wrong in one; `Exploration.check` adds that steps alone lead from every state to one where
nothing is left to do: no step leads in a circle, and where no step is left everything has ended truthfully.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from ggfast.core.deploy.machine import Record
from ggfast.core.deploy.machine import State as Doing
from tests.model.deployment_agent import (
    DONE,
    FAILED,
    FORCED,
    LOCAL,
    NOTHING,
    PENDING,
    RESET,
    USED_WIPE,
    Agent,
    Bounds,
    Phase,
    State,
    faults,
    steps,
)


def untrue_in(state: State) -> Iterator[str]:
    """What is untrue or mixed up in a state."""
    if Phase.LOOK <= state.phase <= Phase.JOURNAL and state.group != state.packages:
        yield f"group {state.group} is served with packages of {state.packages}"
    if state.phase is Phase.SERVE and state.group != NOTHING and not state.lived >> state.group & 1:
        yield f"{state.group} is served and was never confirmed"
    for number, (kind, status) in enumerate(zip(state.cloud.kinds, state.cloud.states, strict=True)):
        lived = bool(state.lived >> number & 1)
        if status == DONE and kind != FORCED and not lived and not state.used & USED_WIPE:
            yield f"{number} is a success and was never live"
        if status == FAILED and kind != RESET and lived:  # a reset may fail at what it removes beside the group
            yield f"{number} is a failure and was live"


def is_settled(state: State, record: Record) -> bool:
    """Whether nothing is left to do: served, idle, told, and the newest deployment has ended as the disk says."""
    if state.phase is not Phase.SERVE or record.state is not Doing.IDLE or record.report is not None:
        return False
    if state.cloud.moved or not state.cloud.kinds:
        return True
    newest = len(state.cloud.kinds) - 1
    status = state.cloud.states[newest]
    if status == PENDING or state.cloud.unseen != NOTHING:
        return False
    return status != DONE or state.group in (newest, LOCAL) or record.last == str(newest)


@dataclass
class Exploration:
    """All states that were reached, and how."""

    agent: Agent
    came: dict[State, tuple[State | None, str]]
    onward: dict[State, list[State]]  # by steps alone
    untrue: list[tuple[State, str]]

    def way_to(self, state: State) -> str:
        """How a state was reached, one move a line."""
        words = []
        at: State | None = state
        while at is not None:
            before, word = self.came[at]
            words.append(word)
            at = before
        return "\n".join([*reversed(words), f"{state}", f"{self.agent.record(state)}"])

    def check(self) -> None:
        """Raise AssertionError, with a shortest way there, if anything is untrue, stuck, or goes in circles."""
        if self.untrue:
            state, why = self.untrue[0]
            raise AssertionError(f"{why}:\n{self.way_to(state)}")
        for state, then in self.onward.items():
            if not then and not is_settled(state, self.agent.record(state)):
                raise AssertionError(f"stuck:\n{self.way_to(state)}")
        circle = self._circle()
        if circle:
            words = [next(word for word, then in steps(at, self.agent) if then == circle[0]) for at in circle[-1:]]
            for at, following in pairwise(circle):
                words.insert(-1, next(word for word, then in steps(at, self.agent) if then == following))
            turns = "\n".join(words)
            raise AssertionError(f"goes in circles without end:\n{self.way_to(circle[0])}\nand then again:\n{turns}")

    def _circle(self) -> list[State]:
        """States that lead by steps alone from one to the next, and from the last to the first; empty if there are
        none. They are what is left when ends are taken away again and again."""
        left = {state: len(then) for state, then in self.onward.items()}
        before: dict[State, list[State]] = {}
        for state, then in self.onward.items():
            for other in then:
                before.setdefault(other, []).append(state)
        ends = [state for state, count in left.items() if count == 0]
        while ends:
            end = ends.pop()
            del left[end]
            for state in before.get(end, ()):
                left[state] -= 1
                if left[state] == 0:
                    ends.append(state)
        way: dict[State, None] = {}
        at = next(iter(left), None)
        while at is not None and at not in way:
            way[at] = None
            at = next(then for then in self.onward[at] if then in left)
        visited = list(way)
        return visited[visited.index(at) :] if at is not None else []


def explore(agent: Agent, bounds: Bounds) -> Exploration:
    """Visit everything within the bounds, nearest first; what is untrue ends the search."""
    start = State()
    came: dict[State, tuple[State | None, str]] = {start: (None, "a new core")}
    onward: dict[State, list[State]] = {}
    found = Exploration(agent, came, onward, [])
    level = [start]
    while level and not found.untrue:
        further: list[State] = []
        for state in level:
            found.untrue += [(state, why) for why in untrue_in(state)]
            own = steps(state, agent)
            onward[state] = [then for _, then in own]
            for word, then in own + faults(state, agent, bounds):
                if then not in came:
                    came[then] = (state, word)
                    further.append(then)
        level = further
    return found
