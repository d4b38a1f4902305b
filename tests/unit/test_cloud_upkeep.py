"""What a running control plane does from time to time, and how long client tokens are remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_desk import Desk

from ggfast.cloud.dispatch import TOKENS, forget_tokens
from ggfast.cloud.greengrass import GREENGRASS
from ggfast.cloud.limits import CLIENT_TOKEN_S
from ggfast.cloud.store.interface import Transaction
from ggfast.cloud.surroundings import Surroundings
from ggfast.cloud.upkeep import CHORES, Chore, Upkeep
from ggfast.errors import StorageFailed


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path, GREENGRASS)
    yield made
    made.close()


def tokens(desk: Desk) -> int:
    return desk.look(lambda tx: tx.count_found(TOKENS, "age", ""))


def test_row_18_a_token_brings_the_same_answer_for_a_day(desk: Desk) -> None:
    first = desk.call("CreateGroup", Name="a", AmznClientToken="t")
    desk.clock.now += CLIENT_TOKEN_S - 1
    assert desk.call("CreateGroup", Name="a", AmznClientToken="t")["Id"] == first["Id"]
    assert "another request" in desk.refused("CreateGroup", Name="b", AmznClientToken="t").message
    desk.clock.now += 1
    assert desk.call("CreateGroup", Name="a", AmznClientToken="t")["Id"] != first["Id"]
    assert len(desk.call("ListGroups")["Groups"]) == 2


def test_old_tokens_are_forgotten_and_young_ones_kept(desk: Desk) -> None:
    for name in ("first", "second", "again"):
        desk.call("CreateGroup", Name=name, AmznClientToken=name)
    desk.clock.now += CLIENT_TOKEN_S
    desk.call("CreateGroup", Name="again", AmznClientToken="again")  # young once more, though it was there before
    desk.call("CreateGroup", Name="young", AmznClientToken="young")
    assert desk.change(lambda tx: forget_tokens(tx, desk.clock.now)) == 2
    assert tokens(desk) == 2
    assert desk.change(lambda tx: forget_tokens(tx, desk.clock.now)) == 0
    desk.clock.now += CLIENT_TOKEN_S
    assert desk.change(lambda tx: forget_tokens(tx, desk.clock.now)) == 2


def test_p7_a_failing_chore_keeps_no_other_from_its_turn(desk: Desk) -> None:
    done: list[str] = []

    def works(_tx: Transaction, _cloud: Surroundings, now: float) -> int:
        assert now == desk.clock.now
        done.append("works")
        return int(len(done) < 3)  # a full piece: called again at once

    def fails(_tx: Transaction, _cloud: Surroundings, _now: float) -> int:
        done.append("fails")
        raise StorageFailed("no space") if done.count("fails") == 1 else KeyError("a mistake")

    async def run() -> None:
        upkeep = Upkeep(desk.store, desk.cloud, (Chore("fails", 0.001, fails), Chore("works", 60.0, works)))
        await upkeep.start()
        async with asyncio.timeout(10):
            while done.count("fails") < 3 or done.count("works") < 2:
                await asyncio.sleep(0.001)
        await upkeep.stop()
        await upkeep.stop()
        count = len(done)
        await asyncio.sleep(0.02)
        assert len(done) == count

    desk.runner.run(run())


def test_every_chore_runs_on_an_empty_store(desk: Desk) -> None:
    for chore in CHORES:
        assert desk.change(lambda tx, work=chore.work: work(tx, desk.cloud, desk.clock.now)) == 0  # type: ignore[misc]
