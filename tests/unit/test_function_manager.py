"""The function manager with real workers: life cycles, queues, deployments, the daemon's own restart."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import time
from functools import partial
from typing import Any

import pytest
from function_support import Lines, World, a_world, arn, new_manager, run

from ggfast import limits
from ggfast.core.functions.function import Backoff
from ggfast.core.functions.invocations import Durations, Invocation, InvocationType, InvokeResult, InvokeStatus
from ggfast.core.functions.manager import ManagerSettings
from ggfast.core.functions.queue import WorkPool, WorkQueue
from ggfast.counters import Counters
from ggfast.errors import LimitReached
from ggfast.log import Level

COUNTER = """
import os, time
count = 0

def handler(event, context):
    global count
    count += 1
    time.sleep(event.get("sleep", 0))
    if event.get("die"):
        os.kill(os.getpid(), event["die"])
    return [count, os.getpid()]
"""


async def ask(world: World, name: str, **event: Any) -> InvokeResult:
    return await world.manager.invoke(arn(name), json.dumps(event).encode())


async def answer(world: World, name: str, **event: Any) -> Any:
    result = await ask(world, name, **event)
    assert result.status is InvokeStatus.OK, result
    return json.loads(result.payload)


def published(world: World, messages: int) -> bool:
    return len(world.router.published) == messages


def message(result: InvokeResult) -> str:
    text: str = json.loads(result.payload)["errorMessage"]
    return text


# --- values ------------------------------------------------------------------------------------------------


def test_the_back_off_is_at_once_then_1_2_4_to_60_and_anew_after_health() -> None:
    backoff = Backoff()
    assert [backoff.after(1.0) for _ in range(9)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff.after(60.0) == 0
    assert [backoff.after(59.9) for _ in range(2)] == [1, 2]


def test_percentiles_of_the_last_durations() -> None:
    durations = Durations()
    assert durations.percentile_ms(50) is None
    for value in range(limits.LATENCY_SAMPLES_MAX + 100):
        durations.add(value / 1000)
    assert durations.percentile_ms(50) == pytest.approx(100 + limits.LATENCY_SAMPLES_MAX / 2, abs=1)
    assert durations.percentile_ms(99) == pytest.approx(99 + limits.LATENCY_SAMPLES_MAX * 0.99, abs=2)


def test_work_is_first_in_first_out_over_both_ways_in() -> None:
    queue = WorkQueue(WorkPool(), Counters())
    queue.ring.offer(b"t/1", b"a", "x")
    queue.offer(Invocation(b"", b"b"))
    queue.ring.offer(b"t/2", b"c", "x")
    assert len(queue) == 3
    taken = [queue.take() for _ in range(4)]
    assert [(i.payload, i.context) for i in taken if i] == [
        (b"a", b'{"custom":{"subject":"t/1"}}'),
        (b"b", b""),
        (b"c", b'{"custom":{"subject":"t/2"}}'),
    ]
    assert taken[3] is None


def test_the_room_for_work_is_shared_and_given_back() -> None:
    pool, counters = WorkPool(items_max=3), Counters()
    first, second = WorkQueue(pool, counters), WorkQueue(pool, counters)
    first.offer(Invocation(b"", b"1"))
    first.offer(Invocation(b"", b"2"))
    second.offer(Invocation(b"", b"3"))
    second.ring.offer(b"t", b"5", "x")
    second.absorb()
    assert len(second.ring) == 1  # no room: it stays where the router sees that the target is full
    with pytest.raises(LimitReached, match="work items is 4, the limit is 3"):
        second.offer(Invocation(b"", b"4"))
    assert counters.get("functions.refused.work_items") == 1
    assert first.take() is not None
    second.absorb()
    assert (len(second.ring), pool.items) == (0, 3)
    second.clear()
    first.clear()
    assert (pool.items, pool.bytes) == (0, 0)


def test_a_function_that_takes_all_room_leaves_the_others_their_share() -> None:
    pool = WorkPool(items_max=128)
    greedy, other = WorkQueue(pool, Counters()), WorkQueue(pool, Counters())
    for _ in range(128):
        greedy.offer(Invocation(b"", b"x"))
    with pytest.raises(LimitReached):
        greedy.offer(Invocation(b"", b"x"))
    for _ in range(limits.WORK_SHARE_ITEMS):
        other.offer(Invocation(b"", b"y"))
    with pytest.raises(LimitReached):
        other.offer(Invocation(b"", b"y"))
    assert pool.items == 128
    assert len(other.clear()) == limits.WORK_SHARE_ITEMS
    assert (pool.items, pool.bytes) == (128, 128)
    other.offer(Invocation(b"", bytes(limits.WORK_SHARE_BYTES)))
    with pytest.raises(LimitReached):
        other.offer(Invocation(b"", b"y"))
    other.clear()
    greedy.clear()
    assert (pool.items, pool.bytes) == (0, 0)


def test_the_room_for_work_is_bounded_in_bytes() -> None:
    queue = WorkQueue(WorkPool(bytes_max=1000), Counters())
    queue.offer(Invocation(b"", bytes(900)))
    with pytest.raises(LimitReached):
        queue.offer(Invocation(b"", bytes(limits.WORK_SHARE_BYTES + 1)))


# --- pinned --------------------------------------------------------------------------------------------------


def test_a_pinned_function_runs_without_a_trigger_one_request_at_a_time_in_order() -> None:
    async def body() -> None:
        async with a_world() as world:
            assert await world.manager.apply([world.plan("f", COUNTER, pinned=True)]) == {}
            (row,) = await world.manager.status()
            assert (row.state, row.instances) in (("starting", 1), ("running", 1))
            started = time.monotonic()
            answers = await asyncio.gather(*(answer(world, "f", sleep=0.1) for _ in range(3)))
            assert [count for count, _ in answers] == [1, 2, 3]
            assert len({pid for _, pid in answers}) == 1
            assert time.monotonic() - started >= 0.3
            assert len(world.channel.spawned) == 1

    run(body())


def test_waiting_requests_survive_the_functions_restart() -> None:
    async def body() -> None:
        async with a_world() as world:
            await world.manager.apply([world.plan("f", COUNTER, pinned=True)])
            dying = asyncio.ensure_future(ask(world, "f", sleep=0.1, die=signal.SIGSEGV))
            waiting = [asyncio.ensure_future(answer(world, "f")) for _ in range(3)]
            result = await dying
            assert result.status is InvokeStatus.UNHANDLED
            assert "signal: segmentation fault" in message(result)
            answers = await asyncio.gather(*waiting)
            assert [count for count, _ in answers] == [1, 2, 3]
            (row,) = await world.manager.status()
            assert (row.restarts, row.errors, row.invocations) == (1, 1, 4)
            assert "segmentation fault" in row.last_error
            assert ("warn", "Worker is ungracefully killed.") in [r[:2] for r in world.log.records]
            states = [r[2]["state"] for r in world.log.records if r[1] == "Worker is ungracefully killed."]
            assert states == ["signal: segmentation fault"]

    run(body())


def test_a_pinned_function_that_can_not_start_is_tried_again_with_growing_pauses() -> None:
    async def body() -> None:
        async with a_world() as world:
            problems = await world.manager.apply([world.plan("f", "import nothing_of_that_name", pinned=True)])
            assert list(problems) in ([], [arn("f")])
            await world.until(lambda: len(world.channel.spawned) == 2, "the immediate second start")
            (row,) = await world.manager.status()
            await world.until(lambda: len(world.channel.spawned) == 3, "the third start after a second")
            (row,) = await world.manager.status()
            assert "No module named 'nothing_of_that_name'" in row.last_error
            fatal = [text for level, text in world.logs[arn("f")].lines if level is Level.FATAL]
            assert fatal[0].startswith("lambda_runtime.py:")
            assert fatal[0].endswith(
                ',Failed to import handler function "main.handler" due to exception: '
                "No module named 'nothing_of_that_name'"
            )

    run(body())


def test_apply_tells_what_could_not_be_started() -> None:
    async def body() -> None:
        async with a_world() as world:
            world.channel.refuse = "mount of /data failed"
            problems = await world.manager.apply([world.plan("f", COUNTER, pinned=True), world.plan("g", COUNTER)])
            assert list(problems) == [arn("f")]
            assert "mount of /data failed" in problems[arn("f")]
            result = await ask(world, "g")
            assert result.status is InvokeStatus.UNHANDLED
            assert "mount of /data failed" in message(result)
            world.channel.refuse = ""
            assert (await answer(world, "f"))[0] == 1  # the back-off's next try

    run(body())


# --- on-demand -----------------------------------------------------------------------------------------------


def test_on_demand_workers_run_beside_each_other_and_are_reused() -> None:
    async def body() -> None:
        async with a_world() as world:
            await world.manager.apply([world.plan("f", COUNTER)])
            assert world.channel.spawned == []
            answers = await asyncio.gather(*(answer(world, "f", sleep=0.5) for _ in range(3)))
            assert [count for count, _ in answers] == [1, 1, 1]
            assert len({pid for _, pid in answers}) == 3
            assert (await answer(world, "f"))[0] == 2
            assert len(world.channel.spawned) == 3

    run(body())


def test_a_message_is_an_event_with_its_topic() -> None:
    async def body() -> None:
        async with a_world() as world:
            source = "def handler(e, c):\n    print(e, c.client_context.custom['subject'])"
            await world.manager.apply([world.plan("f", source, pinned=True)])
            world.router.send(arn("f"), *((b"t/%d" % n, b'{"n": %d}' % n) for n in range(200)))
            lines = world.function_log("f").lines
            await world.until(lambda: len(lines) == 200, "all messages")
            assert lines == [(Level.INFO, f"{{'n': {n}}} t/{n}") for n in range(200)]

    run(body())


def test_the_number_of_on_demand_workers_is_shared_and_the_least_used_makes_room() -> None:
    async def body() -> None:
        async with a_world(ManagerSettings(concurrent_max=2)) as world:
            await world.manager.apply([world.plan(name, COUNTER) for name in ("a", "b", "c")])
            answers = await asyncio.gather(*(answer(world, "a", sleep=0.05) for _ in range(5)))
            assert len({pid for _, pid in answers}) == 2
            assert (await answer(world, "b"))[0] == 1
            assert world.counters.get("functions.evicted") == 1
            rows = {row.name: row for row in await world.manager.status()}
            assert rows["a"].instances + rows["b"].instances == 2

            slow = [asyncio.ensure_future(answer(world, "a", sleep=0.3)) for _ in range(8)]
            await asyncio.sleep(0.1)
            started = time.monotonic()
            assert (await answer(world, "c"))[0] == 1  # does not wait for all of a's backlog
            assert time.monotonic() - started < 1.0
            await asyncio.gather(*slow)

    run(body())


def test_workers_unused_for_long_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with a_world(ManagerSettings(idle_s=0.2)) as world:
            await world.manager.apply([world.plan("f", COUNTER)])
            await answer(world, "f")
            assert (await world.manager.status())[0].instances == 1

            async def instances() -> int:
                return (await world.manager.status())[0].instances

            deadline = time.monotonic() + 10
            while await instances():
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            assert (await answer(world, "f"))[0] == 1

    monkeypatch.setattr(limits, "WORKER_FRAME_SWEEP_S", 0.1)
    run(body())


def test_work_beyond_the_limit_is_refused_and_counted() -> None:
    async def body() -> None:
        async with a_world(ManagerSettings(work_items_max=4)) as world:
            await world.manager.apply([world.plan("f", COUNTER, pinned=True)])
            await answer(world, "f")
            tasks = [asyncio.ensure_future(ask(world, "f", sleep=0.1)) for _ in range(8)]
            results = await asyncio.gather(*tasks)
            assert [r.status for r in results] == [InvokeStatus.OK] * 5 + [InvokeStatus.REFUSED] * 3
            assert b"work items is 5, the limit is 4" in results[-1].payload
            assert world.counters.get("functions.refused.work_items") == 3

    run(body())


# --- how invocations fail ------------------------------------------------------------------------------------


@pytest.mark.parametrize("pinned", [True, False])
def test_a_handler_over_its_timeout_is_killed(pinned: bool) -> None:
    async def body() -> None:
        async with a_world() as world:
            await world.manager.apply([world.plan("f", COUNTER, pinned=pinned, timeout_s=1)])
            _, before = await answer(world, "f")
            started = time.monotonic()
            result = await ask(world, "f", sleep=30)
            assert 0.9 < time.monotonic() - started < 3
            assert result.status is InvokeStatus.UNHANDLED
            assert message(result) == "Task timed out after 1 seconds"
            count, after = await answer(world, "f")
            assert count == 1
            assert after != before
            assert world.counters.get("functions.killed.timeout") == 1

    run(body())


def test_each_invocation_has_its_own_timeout() -> None:
    async def body() -> None:
        async with a_world() as world:
            await world.manager.apply([world.plan("f", COUNTER, pinned=True, timeout_s=1)])
            for expected in (1, 2, 3):
                assert (await answer(world, "f", sleep=0.6))[0] == expected

    run(body())


def test_a_function_over_its_memory_is_reported_with_limit_and_peak() -> None:
    async def body() -> None:
        async with a_world() as world:
            await world.manager.apply([world.plan("f", COUNTER)])
            world.channel.oom = True
            result = await ask(world, "f", die=signal.SIGKILL)
            assert result.status is InvokeStatus.UNHANDLED
            assert "limit 16384 KB, peak 16384 KB" in message(result)
            assert any(m.startswith("Worker consumed all allocated memory!") for m in world.log.messages())
            world.channel.oom = False

    run(body())


def test_an_endless_import_is_killed_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 53."""

    async def body() -> None:
        async with a_world() as world:
            await world.manager.apply([world.plan("f", "while True:\n    pass", timeout_s=1), world.plan("g", COUNTER)])
            results = await asyncio.gather(ask(world, "f"), ask(world, "g"))
            assert "its initialisation took more than 1 seconds" in message(results[0])
            assert results[1].status is InvokeStatus.OK

    monkeypatch.setattr(limits, "WORKER_LOAD_S_MIN", 1.0)
    run(body())


def test_a_failing_import_fails_everything_that_waits_and_what_comes_next() -> None:
    async def body() -> None:
        async with a_world() as world:
            await world.manager.apply([world.plan("f", "raise OSError('no sensor')")])
            for result in await asyncio.gather(*(ask(world, "f") for _ in range(3))):
                assert result.status is InvokeStatus.UNHANDLED
                assert message(result).endswith("due to exception: no sensor")
            for _ in range(3):
                assert "no sensor" in message(await ask(world, "f"))
            assert len(world.channel.spawned) <= 4  # not one start for each request

    run(body())


def test_unknown_functions_are_refused_with_what_is_deployed() -> None:
    async def body() -> None:
        async with a_world() as world:
            await world.manager.apply([world.plan("f", COUNTER)])
            for wanted, text in (
                (arn("f", "2"), f"Deployed: {arn('f')}"),
                (arn("g"), "No version of it"),
                ("nonsense", "It is not the ARN"),
            ):
                result = await world.manager.invoke(wanted, b"{}")
                assert result.status is InvokeStatus.REFUSED
                assert text in result.payload.decode()

    run(body())


def test_an_event_returns_at_once() -> None:
    async def body() -> None:
        async with a_world() as world:
            await world.manager.apply([world.plan("f", COUNTER)])
            started = time.monotonic()
            result = await world.manager.invoke(arn("f"), b'{"sleep": 0.3}', b"", InvocationType.EVENT)
            assert result == (InvokeStatus.OK, b"")
            assert time.monotonic() - started < 0.2

    run(body())


# --- deployments ---------------------------------------------------------------------------------------------


def test_p4_a_deployment_touches_only_what_differs() -> None:
    async def body() -> None:
        async with a_world() as world:
            same, changed, removed = (world.plan(n, COUNTER, pinned=True) for n in ("same", "changed", "removed"))
            await world.manager.apply([same, changed, removed])
            pids = {name: (await answer(world, name))[1] for name in ("same", "changed", "removed")}
            running = asyncio.ensure_future(ask(world, "changed", sleep=0.5))
            waiting = asyncio.ensure_future(answer(world, "changed"))
            gone = asyncio.ensure_future(ask(world, "removed", sleep=0.3))
            lost = asyncio.ensure_future(ask(world, "removed"))
            await asyncio.sleep(0.1)
            other = world.plan("changed", COUNTER, pinned=True, variables={"COLOUR": "green"})
            assert await world.manager.apply([same, other, world.plan("new", COUNTER, pinned=True)]) == {}
            assert (await running).status is InvokeStatus.OK  # it may finish
            count, pid = await waiting  # it waited for the changed function
            assert (count, pid != pids["changed"]) == (1, True)
            assert (await gone).status is InvokeStatus.OK
            assert (await lost).status is InvokeStatus.REFUSED
            assert await answer(world, "same") == [2, pids["same"]]
            assert (await answer(world, "new"))[0] == 1
            assert (await ask(world, "removed")).status is InvokeStatus.REFUSED
            assert set(world.router.targets) == {arn("same"), arn("changed"), arn("new")}
            with pytest.raises(ProcessLookupError):
                os.kill(pids["removed"], 0)

    run(body())


def test_p4_a_function_that_failed_before_is_not_the_next_deployments_problem() -> None:
    async def body() -> None:
        async with a_world() as world:
            broken = world.plan("broken", "import no_such_module\n")
            assert await world.manager.apply([broken]) == {}  # on-demand: nobody has asked for it yet
            assert (await ask(world, "broken")).status is InvokeStatus.UNHANDLED
            assert await world.manager.apply([broken, world.plan("new", COUNTER, pinned=True)]) == {}
            assert (await answer(world, "new"))[0] == 1

    run(body())


def test_p4_a_handler_of_the_plan_before_ends_before_its_package_goes() -> None:
    async def body() -> None:
        async with a_world() as world:
            await world.manager.apply([world.plan("f", COUNTER)])
            running = asyncio.ensure_future(ask(world, "f", sleep=0.5))
            await world.until(lambda: world.manager._functions[arn("f")].state == "running", "a worker")
            await asyncio.sleep(0.1)
            assert await world.manager.apply([world.plan("f", COUNTER, variables={"COLOUR": "green"})]) == {}
            assert running.done()
            assert running.result().status is InvokeStatus.OK

    run(body())


def test_p4_messages_that_wait_go_to_the_functions_next_version() -> None:
    source = """
import time
import greengrasssdk
iot = greengrasssdk.client("iot-data")

def handler(event, context):
    time.sleep(event.get("sleep", 0))
    iot.publish(topic="done", payload="%s %s" % (context.function_version, event["n"]))
"""

    async def body() -> None:
        async with a_world(sdk_version="1.6.1") as world:
            for pinned in (True, False):
                world.router.published.clear()
                one, two = (world.plan("f", source, version=v, pinned=pinned) for v in "12")
                await world.manager.apply([one])
                if not pinned:
                    await world.manager.invoke(one.arn, b'{"n": 0}')
                world.router.send(one.arn, (b"t", b'{"n": 1, "sleep": 0.5}'))
                await asyncio.sleep(0.2)
                if pinned:
                    world.router.send(one.arn, (b"t", b'{"n": 2}'), (b"t", b'{"n": 3}'))
                assert await world.manager.apply([two]) == {}
                expected = [b"1 1", b"2 2", b"2 3"] if pinned else [b"1 0", b"1 1"]
                await world.until(partial(published, world, len(expected)), "all messages")
                assert world.router.payloads(b"done") == expected
                assert set(world.router.targets) == {two.arn}
                await world.manager.apply([])

    run(body())


def test_two_versions_of_a_pinned_function_never_run_at_once() -> None:
    source = """
import atexit, os, sys, time
path = os.environ["LOCK"]
os.mkdir(path)  # fails while another version holds it
atexit.register(os.rmdir, path)
atexit.register(time.sleep, 0.3)

def handler(event, context):
    return context.function_version
"""

    async def body() -> None:
        async with a_world() as world:
            variables = {"LOCK": str(world.directory / "lock")}
            plans = [world.plan("f", source, version=v, pinned=True, variables=variables) for v in "123"]
            for plan in plans:
                assert await world.manager.apply([plan]) == {}
                assert await world.manager.watch_start([plan.arn], 10) == {}
                assert json.loads((await world.manager.invoke(plan.arn, b"{}")).payload) == plan.arn[-1]

    run(body())


def test_new_code_under_the_same_arn_is_a_change() -> None:
    async def body() -> None:
        async with a_world() as world:
            plan = world.plan("f", COUNTER, pinned=True)
            await world.manager.apply([dataclasses.replace(plan, code_digest="a")])
            first = await answer(world, "f")
            await world.manager.apply([dataclasses.replace(plan, code_digest="a")])
            assert await answer(world, "f") == [2, first[1]]
            await world.manager.apply([dataclasses.replace(plan, code_digest="b")])
            assert (await answer(world, "f"))[0] == 1

    run(body())


def test_watching_the_start_tells_failures_and_passes_slow_imports() -> None:
    async def body() -> None:
        async with a_world() as world:
            sources = {"good": COUNTER, "bad": "import nothing_here", "slow": "import time\ntime.sleep(20)"}
            plans = [world.plan(name, source, pinned=True) for name, source in sources.items()]
            await world.manager.apply(plans)
            problems = await world.manager.watch_start([plan.arn for plan in plans], 1.0)
            assert list(problems) == [arn("bad")]
            assert "No module named 'nothing_here'" in problems[arn("bad")]
            started = time.monotonic()
            assert await world.manager.watch_start([arn("good")], 10.0) == {}
            assert time.monotonic() - started < 1
            repaired = world.plan("bad", COUNTER, pinned=True, variables={"CHANGED": "yes"})
            await world.manager.apply([plans[0], repaired])
            assert await world.manager.watch_start([arn("bad")], 10.0) == {}

    run(body())


def test_a_function_may_change_between_pinned_and_on_demand() -> None:
    async def body() -> None:
        async with a_world(ManagerSettings(concurrent_max=1)) as world:
            for pinned in (False, True, False, True, False, False):
                await world.manager.apply([world.plan("f", COUNTER, pinned=pinned)])
                assert (await answer(world, "f"))[0] >= 1
            await world.manager.apply([world.plan("g", COUNTER)])
            assert (await answer(world, "g"))[0] == 1  # the one place was given back each time

    run(body())


def test_stopping_lets_functions_clean_up_and_kills_those_that_do_not_end() -> None:
    async def body() -> None:
        source = "import atexit\natexit.register(print, 'cleaned up')\ndef handler(e, c): pass"
        stubborn = "import atexit, time\natexit.register(time.sleep, 60)\ndef handler(e, c): pass"
        async with a_world() as world:
            await world.manager.apply([world.plan("a", source, pinned=True), world.plan("b", stubborn, pinned=True)])
            await asyncio.gather(ask(world, "a"), ask(world, "b"))
            started = time.monotonic()
            await world.manager.stop()
            assert time.monotonic() - started < 5
            assert await world.channel.list() == []
            assert (Level.INFO, "cleaned up") in world.logs[arn("a")].lines

    run(body())


# --- the daemon's own restart ----------------------------------------------------------------------------------

ADOPTED = """
import time
import greengrasssdk
iot, lam = greengrasssdk.client("iot-data"), greengrasssdk.client("lambda")
count = 0

def handler(event, context):
    global count
    count += 1
    if event.get("sleep"):
        time.sleep(event["sleep"])
        iot.publish(topic="after", payload=str(count))
    if event.get("callee"):
        try:
            lam.invoke(FunctionName=event["callee"], Payload='{"sleep": 60}')
        except Exception as error:
            print(type(error).__name__, error)
    return count
"""


async def restart_daemon(world: World, plans: list[Any]) -> None:
    """What a crash of the daemon leaves: nothing but the spawner's dups. Then a new daemon comes up."""
    abandoned = world.manager
    for runner in abandoned._functions.values():
        runner.closed = True
        runner._cancel_retry()
        for worker in list(runner.workers.values()):
            assert worker._link is not None
            worker._link.close()
            for pipe in worker._pipes:
                pipe.close()
            worker._forget("crashed")
    if abandoned._sweep_timer is not None:
        abandoned._sweep_timer.cancel()
    world.router.targets.clear()
    world.manager, world.log, world.counters, logs = new_manager(world.channel, world.router)
    world.logs.update({key: world.logs.get(key, Lines()) for key in logs})
    world.manager._around.function_log = lambda name: world.logs.setdefault(name, Lines())
    assert await world.manager.adopt_all(plans) == {}


def test_a_new_daemon_goes_on_with_the_workers_it_finds() -> None:
    async def body() -> None:
        async with a_world(sdk_version="1.6.1") as world:
            kept = [world.plan("pinned", ADOPTED, pinned=True), world.plan("demand", ADOPTED)]
            await world.manager.apply([*kept, world.plan("stranger", ADOPTED, pinned=True)])
            for name in ("pinned", "demand", "stranger"):
                assert await answer(world, name) == 1
            pids = {row["pid"] for row in await world.channel.list()}
            await restart_daemon(world, kept)
            assert await answer(world, "pinned") == 2
            assert await answer(world, "demand") == 2
            await world.until(lambda: len(world.channel._kept) == 2, "the end of the third worker")
            assert {row["pid"] for row in await world.channel.list()} < pids
            await restart_daemon(world, kept)
            assert await answer(world, "pinned") == 3

    run(body())


def test_what_a_worker_publishes_while_it_is_taken_over_finds_every_function() -> None:
    async def body() -> None:
        async with a_world(sdk_version="1.6.1") as world:
            plans = [world.plan("pinned", ADOPTED, pinned=True), world.plan("asleep", COUNTER)]
            await world.manager.apply(plans[:1])
            await answer(world, "pinned")
            seen: list[set[str]] = []
            adopt = world.channel.adopt

            async def look(instance: str) -> Any:
                seen.append(set(world.router.targets))
                return await adopt(instance)

            world.channel.adopt = look  # type: ignore[method-assign]
            await restart_daemon(world, plans)
            assert seen == [{arn("pinned"), arn("asleep")}]

    run(body())


def test_a_handler_that_runs_through_the_daemons_restart_goes_on() -> None:
    async def body() -> None:
        async with a_world(sdk_version="1.6.1") as world:
            plans = [
                world.plan("pinned", ADOPTED, pinned=True, timeout_s=20),
                world.plan("callee", COUNTER, timeout_s=60),
            ]
            await world.manager.apply(plans)
            await answer(world, "pinned")
            lost = asyncio.ensure_future(ask(world, "pinned", sleep=0.5))
            await asyncio.sleep(0.1)
            await restart_daemon(world, plans)
            assert await answer(world, "pinned") == 3  # waits until the handler is free again
            assert world.router.payloads(b"after") == [b"2"]  # its publish went to the new daemon
            lost.cancel()

    run(body())


def test_a_call_that_waits_through_the_daemons_restart_fails_with_a_reason() -> None:
    async def body() -> None:
        async with a_world(sdk_version="1.6.1") as world:
            plans = [world.plan("pinned", ADOPTED, pinned=True), world.plan("callee", COUNTER, timeout_s=60)]
            await world.manager.apply(plans)
            lost = asyncio.ensure_future(ask(world, "pinned", callee=arn("callee")))
            await world.until(lambda: len(world.channel.spawned) == 2, "the callee")
            await asyncio.sleep(0.2)
            await restart_daemon(world, plans)
            assert await answer(world, "pinned") == 2
            text = world.logs[arn("pinned")].text()
            assert "InvocationException" in text
            assert "the core's daemon was restarted" in text
            lost.cancel()

    run(body())


def test_a_handler_that_hangs_through_the_daemons_restart_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        async with a_world(sdk_version="1.6.1") as world:
            plans = [world.plan("pinned", ADOPTED, pinned=True, timeout_s=1)]
            await world.manager.apply(plans)
            lost = asyncio.ensure_future(ask(world, "pinned", sleep=60))
            await asyncio.sleep(0.3)
            await restart_daemon(world, plans)
            assert await answer(world, "pinned") == 1  # a new process
            reasons = [record[2].get("reason") for record in world.log.records]
            assert "its handler, running since before the daemon's restart, took more than 1.5 seconds" in reasons
            lost.cancel()

    monkeypatch.setattr(limits, "WORKER_RESTART_GRACE_S", 0.5)
    run(body())
