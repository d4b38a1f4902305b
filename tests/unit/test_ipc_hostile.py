"""The functions' HTTP interface against strangers, callers and programs that would disturb others through it."""

from __future__ import annotations

import asyncio

from ggfast.core.functions.invocations import Invocation
from tests.unit.function_support import arn, run
from tests.unit.ipc_support import a_world

GATED = """
import os
def handler(event, context):
    while event and not os.path.exists(event):
        pass
    return event
"""


def test_p7_a_defect_where_a_result_goes_to_is_not_the_workers_end() -> None:
    def fail(result: object) -> None:
        raise RuntimeError("a defect")

    async def body() -> None:
        async with a_world() as http:
            assert await http.world.manager.apply([http.world.plan("gated", GATED, pinned=True)]) == {}
            http.world.manager.submit(arn("gated"), Invocation(b"", b"0", fail))
            result = await asyncio.wait_for(http.world.manager.invoke(arn("gated"), b"0"), 20)
            assert result.payload == b"0"

    run(body())


def test_p7_a_topic_that_no_worker_can_be_told_is_dropped_and_counted() -> None:
    async def body() -> None:
        async with a_world() as http:
            plan = http.world.plan("gated", GATED, pinned=True)
            assert await http.world.manager.apply([plan]) == {}
            http.world.router.send(arn("gated"), (b"a" * 65_535, b"0"))
            result = await asyncio.wait_for(http.world.manager.invoke(arn("gated"), b"0"), 20)
            assert result.payload == b"0"
            assert http.world.counters.get("functions.dropped.long_topic") == 1

    run(body())
