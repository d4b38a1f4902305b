"""P4: functions change over while they run, all of them or none; what waits is done by the old or the new, once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from acted_workers import Theatre, a_theatre
from function_support import arn, run

from ggfast import limits
from ggfast.core.functions.environment import CoreFacts, Identity, WorkerPlan, worker_plan
from ggfast.core.functions.invocations import InvokeResult, InvokeStatus
from ggfast.errors import DeploymentFailed
from ggfast.group.document import Function


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"DEPLOYMENT_WATCH_S": 0.2, "WORKER_FINISH_S": 0.4, "WORKER_STOP_S": 0.05}.items():
        monkeypatch.setattr(limits, name, seconds)


async def deploy(world: Theatre, *plans: WorkerPlan, **more: Any) -> dict[str, str]:
    """As the applier does it; what failed."""
    rollout = world.manager.rollout(plans, **more)
    if problems := await rollout.prepare():
        rollout.abandon()
        await rollout.wait_abandoned()
        return problems
    rollout.switch()
    await rollout.finish()
    return {}


def ask(world: Theatre, target: str, number: int, seconds: float = 0.0) -> asyncio.Future[InvokeResult]:
    event = {"n": number, "s": seconds}
    return asyncio.ensure_future(world.manager.invoke(target, json.dumps(event).encode()))


async def handled(world: Theatre, count: int) -> None:
    await world.until(lambda: len(world.stage.done) >= count, f"{count} messages, {world.stage.done}")


def labels(world: Theatre) -> Sequence[str]:
    return [label for label, _ in world.numbers()]


def test_P4_the_old_worker_serves_until_the_new_one_is_ready() -> None:
    async def body() -> None:
        async with a_theatre() as world:
            same, old, new = world.act("same"), world.act("f", label="old"), world.act("f", "slow", label="new")
            await deploy(world, same, old)
            (kept,) = world.stage.of("same")
            limits.DEPLOYMENT_WATCH_S = 5.0  # type: ignore[misc]  # put back by the fixture
            rollout = world.manager.rollout([same, new])
            preparing = asyncio.ensure_future(rollout.prepare())
            await world.until(lambda: len(world.stage.of("f")) == 2, "two workers beside each other")
            world.send(old.arn, 1, 2)
            await handled(world, 2)
            assert not preparing.done()
            assert await preparing == {}
            world.send(old.arn, 3)
            await handled(world, 3)
            world.send(old.arn, 4, 5, 6, seconds=0.05)
            await asyncio.sleep(0)
            rollout.switch()
            await rollout.finish()
            await handled(world, 6)
            assert world.numbers() == [("old", n) for n in (1, 2, 3, 4)] + [("new", 5), ("new", 6)]
            assert [actor.label for actor in world.stage.of("f")] == ["new"]
            assert world.stage.of("same") == [kept]

    run(body())


def test_P4_the_next_message_waits_for_the_last_handler_of_before() -> None:
    async def body() -> None:
        async with a_theatre() as world:
            await deploy(world, world.act("f", label="old"))
            world.send(arn("f"), 1, seconds=0.2)
            world.send(arn("f"), 2, 3)
            await world.until(lambda: world.stage.running, "a handler at work")
            assert await deploy(world, world.act("f", label="new")) == {}
            await handled(world, 3)
            assert [(h.label, h.number) for h in world.stage.done] == [("old", 1), ("new", 2), ("new", 3)]
            assert world.counters.get("functions.killed.unfinished") == 0

    run(body())


def test_P4_a_handler_that_takes_too_long_is_ended_and_counted() -> None:
    async def body() -> None:
        async with a_theatre() as world:
            await deploy(world, world.act("f", label="old"))
            world.send(arn("f"), 1, seconds=30)
            world.send(arn("f"), 2)
            await world.until(lambda: world.stage.running, "a handler at work")
            assert await deploy(world, world.act("f", label="new")) == {}
            await handled(world, 1)
            assert world.numbers() == [("old", 1), ("new", 2)]
            assert world.counters.get("functions.killed.unfinished") == 1

    run(body())


def test_P4_a_new_version_gets_what_waited_for_the_one_before() -> None:
    async def body() -> None:
        async with a_theatre() as world:
            one, two = (world.act("f", label=version, version=version) for version in "12")
            await deploy(world, one)
            world.send(one.arn, 1, seconds=0.1)
            world.send(one.arn, 2, 3)
            await world.until(lambda: world.stage.running, "a handler at work")
            asked = ask(world, one.arn, 4)  # by somebody who wants this version and no other
            assert await deploy(world, two) == {}
            assert (await asked).payload == b"1"
            await handled(world, 4)
            assert world.numbers() == [("1", 1), ("1", 4), ("2", 2), ("2", 3)]
            assert set(world.router.targets) == {two.arn}
            assert (await ask(world, one.arn, 5)).status is InvokeStatus.REFUSED

    run(body())


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("why", ["lock", "device"])
def test_P4_what_cannot_run_twice_is_stopped_before_the_next_starts(why: str, version: str) -> None:
    async def body() -> None:
        async with a_theatre() as world:
            act, device = ("lock", "") if why == "lock" else ("ok", "/dev/ttyS0")
            old = world.act("f", act, label="old", device=device)
            new = world.act("f", act, label="new", device=device, version=version)
            await deploy(world, old)
            world.send(old.arn, 1, seconds=0.1)
            world.send(old.arn, 2, 3)
            await world.until(lambda: world.stage.running, "a handler at work")
            assert await deploy(world, new) == {}
            await handled(world, 3)
            assert world.numbers() == [("old", 1), ("new", 2), ("new", 3)]
            assert len(world.stage.specs) == (3 if why == "lock" else 2)  # without an attempt beside

    run(body())


@pytest.mark.parametrize("pinned", [True, False])
def test_P4_a_failed_deployment_leaves_what_ran(pinned: bool) -> None:
    async def body() -> None:
        async with a_theatre() as world:
            group = [world.act("f", label="old"), world.act("same"), world.act("goes", pinned=pinned)]
            await deploy(world, *group)
            before = {actor.instance for name in ("f", "same", "goes") for actor in world.stage.of(name)}
            world.send(arn("goes"), 1, 2, 3, seconds=0.05)
            world.send(arn("f"), 4, 5, seconds=0.05)
            problems = await deploy(world, world.act("f", label="new"), group[1], world.act("bad", "fail"))
            assert problems == {arn("bad"): "no module"}
            world.send(arn("f"), 6)
            assert await world.manager.apply(group) == {}
            await handled(world, 6)
            assert sorted(world.stage.begun, key=lambda h: h.number) and labels(world).count("new") == 0
            assert sorted(number for _, number in world.numbers()) == [1, 2, 3, 4, 5, 6]
            assert before <= set(world.stage.actors)
            assert set(world.router.targets) == {plan.arn for plan in group}
            assert world.counters.get("functions.dropped.not_running") == 0

    run(body())


def test_P4_a_function_that_was_stopped_for_a_failed_deployment_comes_back_with_what_waited() -> None:
    async def body() -> None:
        async with a_theatre() as world:
            old, new = world.act("f", label="old", device="/dev/x"), world.act("f", "fail", label="new")
            await deploy(world, old)
            world.send(arn("f"), 1)
            await handled(world, 1)
            assert await deploy(world, new) == {arn("f"): "no module"}
            world.send(arn("f"), 2, 3)
            await asyncio.sleep(0.1)
            assert labels(world) == ["old"]  # its package is not in place yet
            assert (await world.manager.status())[0].state == "waiting to restart"
            assert await world.manager.apply([old]) == {}
            await handled(world, 3)
            assert world.numbers() == [("old", 1), ("old", 2), ("old", 3)]

    run(body())


def test_P4_a_slow_import_takes_over_as_it_is() -> None:
    async def body() -> None:
        async with a_theatre() as world:
            await deploy(world, world.act("f", label="old"))
            limits.DEPLOYMENT_WATCH_S = 0.02  # type: ignore[misc]  # put back by the fixture
            assert await deploy(world, world.act("f", "slow", label="new"), world.act("g", "slow", label="new")) == {}
            world.send(arn("f"), 1)
            world.send(arn("g"), 2)
            assert world.numbers() == []
            await handled(world, 2)
            assert set(labels(world)) == {"new"}
            assert len(world.stage.specs) == 3

    run(body())


def test_P4_removed_functions_do_what_waits_for_them_as_long_as_the_bound_says() -> None:
    async def body() -> None:
        async with a_theatre() as world:
            await deploy(world, world.act("quick"), world.act("sleeps", pinned=False), world.act("endless"))
            world.send(arn("quick"), 1, 2, 3)
            world.send(arn("sleeps"), 4, 5)
            world.send(arn("endless"), 6, seconds=30)
            world.send(arn("endless"), 7, 8)
            asked = ask(world, arn("quick"), 9)
            lost = ask(world, arn("endless"), 10)
            await asyncio.sleep(0)
            assert await deploy(world) == {}
            assert sorted(number for _, number in world.numbers()) == [1, 2, 3, 4, 5, 6, 9]
            assert (await asked).status is InvokeStatus.OK
            assert (await lost).status is InvokeStatus.REFUSED
            assert world.counters.get("functions.dropped.not_running") == 2
            assert world.counters.get("functions.killed.unfinished") == 1
            assert (world.stage.actors, world.router.targets) == ({}, {})

    run(body())


def test_P4_new_functions_may_call_each_other_while_they_start() -> None:
    async def body() -> None:
        async with a_theatre() as world:
            limits.DEPLOYMENT_WATCH_S = 5.0  # type: ignore[misc]  # put back by the fixture
            rollout = world.manager.rollout([world.act("slow", "slow"), world.act("quick"), world.act("asleep")])
            preparing = asyncio.ensure_future(rollout.prepare())
            await asyncio.sleep(0)
            answers = await asyncio.gather(ask(world, arn("quick"), 1), ask(world, arn("asleep"), 2))
            assert [answer.status for answer in answers] == [InvokeStatus.OK] * 2
            assert not preparing.done()
            assert await preparing == {}
            rollout.switch()

    run(body())


def test_P4_busy_on_demand_workers_finish_beside_those_of_the_next_plan() -> None:
    async def body() -> None:
        async with a_theatre() as world:
            await deploy(world, world.act("f", label="old", pinned=False))
            world.send(arn("f"), 1, seconds=0.3)
            await world.until(lambda: world.stage.running, "a handler at work")
            rollout = world.manager.rollout([world.act("f", label="new", pinned=False)])
            assert await rollout.prepare() == {}
            rollout.switch()
            world.send(arn("f"), 2)
            await rollout.finish()
            assert [(h.label, h.number) for h in world.stage.done] == [("new", 2), ("old", 1)]

    run(body())


def test_P4_a_function_starts_from_where_its_package_lies_while_it_is_moved() -> None:
    async def body() -> None:
        async with a_theatre() as world:
            goes, stays = world.act("goes", pinned=False), world.act("stays", label="old")
            await deploy(world, goes, stays)
            moved = {p.arn: replace(p, spec={**p.spec, "code_dir": f"/aside/{p.name}"}) for p in (goes, stays)}
            world.manager.hold([goes.arn, stays.arn])
            world.stage.of("stays")[0].kill()
            world.send(goes.arn, 1)
            await asyncio.sleep(0.05)
            assert world.stage.actors == {}  # the packages are on their way
            rollout = world.manager.rollout([world.act("stays", "slow", label="new")], moved)
            preparing = asyncio.ensure_future(rollout.prepare())
            world.send(stays.arn, 2)
            await handled(world, 2)
            assert labels(world) == ["", "old"]
            found = {str(spec["code_dir"]) for spec in list(world.stage.specs.values())[1:]}
            assert found == {"/aside/goes", "/aside/stays", str(world.directory / "stays-1")}
            await preparing
            rollout.abandon()
            world.stage.of("stays")[0].kill()
            await rollout.wait_abandoned()
            world.send(stays.arn, 3)
            await asyncio.sleep(0.05)
            assert len(world.stage.done) == 2  # on their way back
            await world.manager.apply([goes, stays])
            await handled(world, 3)
            assert world.stage.specs[world.stage.done[-1].instance] == stays.spec

    run(body())


def test_strict_restarts_everything() -> None:
    async def body() -> None:
        async with a_theatre() as world:
            plans = [world.act("one", "lock"), world.act("two", pinned=False)]
            await deploy(world, *plans)
            world.send(arn("two"), 1)
            world.send(arn("one"), 2)
            await handled(world, 2)
            before = set(world.stage.actors)
            assert await deploy(world, *plans, restart_all=True) == {}
            assert len(before) == 2 and not before & set(world.stage.actors)
            world.send(arn("one"), 3)
            await handled(world, 3)

    run(body())


def test_P4_a_cancelled_deployment_leaves_what_ran() -> None:
    async def body() -> None:
        async with a_theatre() as world:
            old = world.act("f", label="old")
            await deploy(world, old)
            rollout = world.manager.rollout([world.act("f", "slow", label="new"), world.act("g", "slow")])
            preparing = asyncio.ensure_future(rollout.prepare())
            await world.until(lambda: len(world.stage.actors) == 3, "the new workers")
            preparing.cancel()
            await asyncio.gather(preparing, return_exceptions=True)
            rollout.abandon()
            await rollout.wait_abandoned()
            assert [actor.label for actor in world.stage.actors.values()] == ["old"]
            world.send(old.arn, 1)
            await handled(world, 1)
            assert set(world.router.targets) == {old.arn}

    run(body())


def test_a_core_that_stops_in_a_deployment_ends_all_of_it() -> None:
    async def body() -> None:
        async with a_theatre() as world:
            await deploy(world, world.act("f", label="old"))
            rollout = world.manager.rollout([world.act("f", "slow", label="new"), world.act("g", "slow")])
            preparing = asyncio.ensure_future(rollout.prepare())
            await world.until(lambda: len(world.stage.actors) == 3, "the new workers")
            await world.manager.stop()
            assert world.stage.actors == {}
            with pytest.raises(DeploymentFailed, match="the core stops"):
                await preparing

    run(body())


def test_P4_a_plan_depends_on_nothing_that_deployments_change_without_the_function() -> None:
    function = Function("f", arn("f"), "main.handler")
    facts = CoreFacts(thing_name="core", group_name="one", group_id="g")
    digests = {
        worker_plan(function, replace(facts, group_name=name), Identity(1, 1), "/code").digest
        for name in ("one", "two")
    }
    assert len(digests) == 1
    assert worker_plan(function, replace(facts, group_id="h"), Identity(1, 1), "/code").digest not in digests
