"""P4: functions under random deployments that fail, hang and crash, while messages arrive, against the slow model."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import patch

from acted_workers import Actor, Theatre, a_theatre
from function_support import arn, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ggfast import limits
from ggfast.core.functions.environment import WorkerPlan
from ggfast.core.functions.worker import WorkerState
from tests.model.rollouts import SlowRollouts, Version
from tests.patience import patience

PINNED, ON_DEMAND = ("a", "b"), ("c",)
NAMES = (*PINNED, *ON_DEMAND)
# Short, for many examples; a handler of 0.3 s is longer than a deployment waits for it, an import of 0.3 s too.
BOUNDS = {"DEPLOYMENT_WATCH_S": 0.15, "WORKER_FINISH_S": 0.15, "WORKER_STOP_S": 0.05, "WORKER_BACKOFF_S_MAX": 0.05}
SETTLE_S = patience(10.0)
versions = st.builds(
    Version,
    version=st.sampled_from(["1", "1", "2"]),
    act=st.sampled_from(["ok", "ok", "ok", "lock", "slow", "fail"]),
    label=st.sampled_from(["x", "y", "z"]),
    device=st.sampled_from([False, False, True]),
)
deployments = st.dictionaries(st.sampled_from(NAMES), versions, min_size=1)
messages = st.tuples(
    st.sampled_from(NAMES), st.integers(1, 5), st.sampled_from([0.0, 0.0, 0.005, 0.03, 0.3]), st.booleans()
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("deploy"), deployments),
        st.tuples(st.just("send"), messages),
        st.tuples(st.just("send"), messages),
        st.tuples(st.just("pause"), st.sampled_from([0.0, 0.001, 0.02, 0.1])),
        st.tuples(st.just("kill"), st.sampled_from(NAMES)),
    ),
    min_size=4,
    max_size=14,
)
DROPS = ("functions.dropped.not_running",)


class Deployments:
    """A core's way of deploying, one after the other, with the model beside it."""

    def __init__(self, world: Theatre) -> None:
        self.world = world
        self.model = SlowRollouts()
        self.plans: list[WorkerPlan] = []
        self.lock = asyncio.Lock()
        self.number = 0

    def plan(self, name: str, version: Version) -> WorkerPlan:
        device = "/dev/ttyS0" if version.device else ""
        label = f"{version.label}-{version.version}-{version.act}-{device}"  # every plan has one of its own
        return self.world.act(
            name, version.act, label=label, version=version.version, pinned=name in PINNED, device=device
        )

    async def deploy(self, wanted: dict[str, Version]) -> None:
        async with self.lock:
            plans = [self.plan(name, version) for name, version in wanted.items()]
            labels = {name: self.labelled(version) for name, version in wanted.items()}
            rollout = self.world.manager.rollout(plans)
            problems = await rollout.prepare()
            assert (problems == {}) == self.model.succeeds(labels, PINNED), problems
            if problems:
                rollout.abandon()
                await rollout.wait_abandoned()
                assert await self.world.manager.apply(self.plans) == {} or self.broken()
                return
            rollout.switch()
            self.plans = plans
            self.model.deployed(labels)
            await rollout.finish()

    @staticmethod
    def labelled(version: Version) -> Version:
        device = "/dev/ttyS0" if version.device else ""
        text = f"{version.label}-{version.version}-{version.act}-{device}"
        return Version(version.version, version.act, text, version.device)

    def broken(self) -> bool:
        """Whether something that is deployed cannot be imported, which only an on-demand function may be."""
        return any(version.act == "fail" for version in self.model.group.values())

    def has_work(self, actor: Actor) -> bool:
        """Whether its death would take a message with it that has not begun."""
        runner = self.world.manager.runners.get(arn(actor.name, actor.version))
        worker = runner.workers.get(actor.instance) if runner is not None else None
        return worker is None or worker.state is not WorkerState.IDLE  # one that loads may be given some on the way

    def send(self, name: str, count: int, seconds: float, dies: bool) -> None:
        version = self.model.group.get(name)
        if version is None:
            return
        numbers = range(self.number + 1, self.number + 1 + count)
        self.number += count
        for number in numbers:
            self.model.send(name, number)
        self.world.send(arn(name, version.version), *numbers[:-1], seconds=seconds)
        self.world.send(arn(name, version.version), numbers[-1], seconds=seconds, die=dies)

    def dropped(self) -> int:
        return sum(self.world.counters.get(name) for name in DROPS)

    async def settle(self) -> None:
        """Everything that was sent has begun or was dropped."""
        await self.world.until(
            lambda: len(self.world.stage.begun) + self.dropped() >= len(self.model.sent),
            "the end of all messages",
            SETTLE_S,
        )


async def play(script: list[tuple[str, Any]]) -> None:
    async with a_theatre() as world:
        deployments, under_way = Deployments(world), list[asyncio.Task[None]]()
        for verb, what in script:
            if verb == "deploy":
                under_way.append(asyncio.ensure_future(deployments.deploy(what)))
                await asyncio.sleep(0)
            elif verb == "send":
                deployments.send(*what)
            elif verb == "kill":
                for actor in world.stage.of(what):
                    if not deployments.has_work(actor):
                        actor.kill()
                await asyncio.sleep(0.001)  # what is given to one that is dead already ends with it, as on any core
            else:
                await asyncio.sleep(what)
            overlapping = [handled.name for handled in world.stage.running if handled.name in PINNED]
            assert len(overlapping) == len(set(overlapping)), "two handlers of a pinned function at once"
        await asyncio.gather(*under_way)
        await deployments.settle()
        begun = [(handled.name, handled.label, handled.number) for handled in world.stage.begun]
        deployments.model.check(begun, PINNED, deployments.dropped())
        assert {plan.arn for plan in deployments.plans} == set(world.router.targets)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps)
def test_P4_every_message_is_handled_once_and_in_order_or_counted(script: list[tuple[str, Any]]) -> None:
    with patch.multiple(limits, **BOUNDS):
        run(play([("deploy", {name: Version("1", "ok", "x") for name in NAMES}), ("pause", 0.02), *script]))
