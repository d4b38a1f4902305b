"""The deployment agent with parts that fail on request: it ends in the new group or the previous one, and says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ggfast.core.deploy.agent import DeploymentAgent
from ggfast.core.deploy.machine import Deployment, Record, Report, State
from ggfast.core.deploy.store import Recovery
from ggfast.errors import CorruptRecord, DeploymentFailed, LinkDown, Malformed, StorageFailed
from ggfast.group.document import Group

OLD, NEW, EMPTY = replace(Group(), name="old"), replace(Group(), name="new"), Group()
STAGED = Path("/staging/staged")


class Store:
    """What is on disk, by name; a verb in `failing` raises."""

    def __init__(self) -> None:
        self.live, self.kept, self.failing = OLD, OLD, dict[str, Exception]()
        self.came_by, self.came_by_before = "", ""
        self.coming = ""
        self.unconfirmed = False
        self.recovered = Recovery.CLEAN
        self.discarded: list[str] = []

    def _do(self, verb: str) -> None:
        if verb in self.failing:
            raise self.failing[verb]

    def recover(self) -> Recovery:
        self._do("recover")
        return self.recovered

    def load_active(self) -> Group:
        return self.live

    def live_deployment(self) -> dict[str, str] | None:
        return {"id": self.came_by} if self.came_by else None

    def staged(self, staging: Path) -> Group:
        self._do("staged")
        return EMPTY if staging.name == "nothing" else NEW

    def activate(self, staging: Path) -> Group:
        self._do("activate")
        assert not self.unconfirmed
        self.kept, self.came_by_before = self.live, self.came_by
        self.live = EMPTY if staging.name == "nothing" else NEW
        self.came_by, self.unconfirmed = self.coming, True
        return self.live

    def confirm(self) -> None:
        self._do("confirm")
        self.unconfirmed = False
        self._do("settle")

    def discard(self, staging: Path) -> None:
        self.discarded.append(staging.name)

    def rollback(self) -> bool:
        if not self.unconfirmed:
            return False
        self._do("rollback")
        self.live, self.came_by, self.unconfirmed = self.kept, self.came_by_before, False
        return True


class Applier:
    def __init__(self) -> None:
        self.current = OLD
        self.failing: dict[str, Exception] = {}
        self.problems: dict[str, str] = {}
        self.strict: list[bool] = []
        self.gate: asyncio.Event | None = None
        self.held: Group | None = None

    def hold(self, group: Group) -> None:
        self.held = group

    async def apply(self, group: Group, *, strict: bool = False) -> dict[str, str]:
        if self.gate is not None:
            await self.gate.wait()
        self.strict.append(strict)
        if group.name in self.failing:
            raise self.failing[group.name]
        self.current, self.held = group, None
        return {}

    async def start(self, group: Group) -> dict[str, str]:
        self.current, self.held = group, None
        return self.problems

    restore = start


class Records:
    """The record, with a copy of everything that was ever kept."""

    def __init__(self) -> None:
        self.kept: list[Record] = []
        self.failing: Exception | None = None

    def load(self) -> Record:
        if self.failing is not None:
            raise self.failing
        return self.kept[-1] if self.kept else Record()

    def keep(self, record: Record) -> None:
        if self.failing is not None:
            raise self.failing
        self.kept.append(record)


class Cleaner:
    def __init__(self) -> None:
        self.forgot = 0
        self.failing: Exception | None = None

    async def stage_nothing(self, deployment: Deployment) -> Path:
        return Path("/staging/nothing")

    async def forget(self) -> None:
        if self.failing is not None:
            raise self.failing
        self.forgot += 1


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str, **fields: Any) -> None:
        self.lines.append(f"{message} {fields}")

    warn = error = info

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


class Core:
    """An agent among parts; `fetches` are offers whose fetching ends as the next of `fetched` says."""

    def __init__(self, *, strict: bool = False) -> None:
        self.store, self.applier, self.log = Store(), Applier(), Log()
        self.records, self.cleaner = Records(), Cleaner()
        self.fetched: list[Exception | asyncio.Event | None] = []
        self.fetches: list[str] = []
        self.strict = strict
        self.agent = self.again()

    def again(self) -> DeploymentAgent:
        """The agent of the next process."""
        parts: Any = (self.store, self.records, self.applier, self.log, self._fetch, self.cleaner)
        self.agent = DeploymentAgent(*parts, staging=Path("/staging"), strict=self.strict)
        return self.agent

    async def _fetch(self, offer: Any, name: str) -> None:
        self.fetches.append(offer["id"])
        self.store.coming = offer["id"]
        found = self.fetched.pop(0) if self.fetched else None
        if isinstance(found, asyncio.Event):
            await found.wait()
        elif found is not None:
            raise found

    async def outcome(self) -> Report:
        return await asyncio.wait_for(self.agent.next_report(), 5)


def offer(name: str, kind: str = "NewDeployment", status: str = "InProgress", reset_first: str = "") -> dict[str, str]:
    return {"id": name, "type": kind, "groupId": "g", "versionId": "v", "status": status, "resetFirst": reset_first}


def run(work: Callable[[Core], Coroutine[Any, Any, None]], core: Core | None = None) -> Core:
    found = core or Core()

    async def whole() -> None:
        await asyncio.wait_for(work(found), 20)
        await found.agent.stop()

    asyncio.run(whole())
    return found


def local(core: Core) -> DeploymentFailed | None:
    try:
        asyncio.run(core.agent.activate(STAGED))
    except DeploymentFailed as error:
        return error
    return None


# --- from a folder ---------------------------------------------------------------------------------------


def test_P4_success() -> None:
    core = Core()
    assert local(core) is None
    assert (core.store.live, core.applier.current, core.store.unconfirmed) == (NEW, NEW, False)
    assert core.agent.record == Record()  # told to nobody
    assert [record.state for record in core.records.kept] == [State.APPLYING, State.IDLE]


@pytest.mark.parametrize("verb", ["", "rollback"])
def test_P4_a_function_that_fails_brings_the_previous_group_back(verb: str) -> None:
    core = Core()
    core.applier.failing["new"] = DeploymentFailed("functions", "no module", rolled_back=True)
    core.store.failing = {verb: StorageFailed("full")}
    failed = local(core)
    assert failed is not None
    assert "no module" in str(failed)
    assert core.applier.current is OLD  # also where the disk refuses: the next start puts it back there
    assert ("could not be put back" in core.log.text) is bool(verb)
    core.store.failing.clear()
    core.applier.failing.clear()
    assert local(core) is None  # what the disk refused is made up for
    assert core.store.live is NEW


def test_P4_a_deployment_that_cannot_be_confirmed_is_undone() -> None:
    core = Core()
    core.store.failing = {"confirm": StorageFailed("read-only file system")}
    failed = local(core)
    assert failed is not None
    assert "read-only" in str(failed)
    assert (core.store.live, core.applier.current, failed.rolled_back) == (OLD, OLD, True)


def test_P4_a_confirmed_deployment_is_a_success_though_the_disk_complains() -> None:
    core = Core()
    core.store.failing = {"settle": StorageFailed("input/output error")}
    assert local(core) is None
    assert (core.store.live, core.applier.current) == (NEW, NEW)
    assert "input/output error" in core.log.text


def test_a_staged_group_that_cannot_be_activated_does_not_stay() -> None:
    core = Core()
    core.store.failing = {"activate": DeploymentFailed("activate", "not a group", rolled_back=True)}
    assert local(core) is not None
    assert (core.store.discarded, core.applier.current, core.applier.held) == (["staged"], OLD, None)


def test_functions_are_held_while_their_packages_are_moved() -> None:
    core = Core()
    moved: list[Group | None] = []
    activate = core.store.activate

    def watched(staging: Path) -> Group:
        moved.append(core.applier.held)
        return activate(staging)

    core.store.activate = watched  # type: ignore[method-assign]
    assert local(core) is None
    assert (moved, core.applier.held) == ([NEW], None)


def test_a_staged_group_that_cannot_be_read_holds_nothing() -> None:
    core = Core()
    core.store.failing = {"staged": DeploymentFailed("activate", "damaged", rolled_back=True)}
    assert local(core) is not None
    assert (core.applier.held, core.applier.current) == (None, OLD)


def test_what_the_previous_group_cannot_start_again_is_told() -> None:
    core = Core()
    core.applier.failing["new"] = DeploymentFailed("functions", "bad", rolled_back=True)
    core.applier.problems = {"its": "device is gone"}
    assert local(core) is not None
    assert "device is gone" in core.log.text


def test_a_disk_that_cannot_be_recovered_does_not_stop_the_core() -> None:
    core = Core()
    core.store.failing = {"recover": PermissionError("staging")}
    asyncio.run(core.agent.start())
    assert core.applier.current == Group()
    assert "failed to load group" in core.log.text


def test_a_defect_in_a_part_is_a_failed_deployment() -> None:
    core = Core()
    core.applier.failing["new"] = RuntimeError("defect")
    failed = local(core)
    assert failed is not None
    assert "defect" in str(failed)
    assert (core.store.live, core.applier.current) == (OLD, OLD)


def test_strict_reaches_the_parts() -> None:
    core = Core(strict=True)
    assert local(core) is None
    assert core.applier.strict == [True]


# --- from the control plane ------------------------------------------------------------------------------


def test_an_offer_becomes_the_group_and_a_report() -> None:
    async def work(core: Core) -> None:
        await core.agent.start()
        assert core.agent.known == ""
        assert await core.agent.offer(offer("d1"))
        assert not await core.agent.offer(offer("d1"))
        report = await core.outcome()
        assert (report.status, report.deployment.id, report.message) == ("Success", "d1", "")
        assert core.store.live is NEW
        assert core.agent.known == "d1"
        await core.agent.acknowledged(report)
        assert core.agent.record == Record(last="d1")
        assert not await core.agent.offer(offer("d1", status="Success"))

    core = run(work)
    assert [record.state for record in core.records.kept] == ["fetching", "applying", "idle", "idle"]


def test_a_failure_is_reported_with_its_words_and_the_previous_group_serves() -> None:
    async def work(core: Core) -> None:
        core.applier.failing["new"] = DeploymentFailed(
            "functions", "worker with x failed to initialize", rolled_back=True
        )
        await core.agent.offer(offer("d1"))
        report = await core.outcome()
        assert (report.status, report.message) == ("Failure", "worker with x failed to initialize")
        assert (core.store.live, core.applier.current) == (OLD, OLD)
        text = "Deployment d1 of type NewDeployment for group g failed error: worker with x failed to initialize"
        assert text in core.log.text

    run(work)


def test_what_cannot_be_fetched_touches_nothing() -> None:
    async def work(core: Core) -> None:
        core.fetched = [DeploymentFailed("download", "wrong digest", rolled_back=True)]
        await core.agent.offer(offer("d1"))
        assert (await core.outcome()).message == "wrong digest"
        assert core.applier.strict == []

    run(work)


def test_the_network_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ggfast.limits.DEPLOYMENT_RETRY_FIRST_S", 0.001)

    async def work(core: Core) -> None:
        core.fetched = [LinkDown("no route"), LinkDown("no route")]
        await core.agent.offer(offer("d1"))
        assert (await core.outcome()).status == "Success"
        assert core.fetches == ["d1"] * 3

    run(work)


def test_a_newer_offer_ends_the_fetching_of_the_older() -> None:
    async def work(core: Core) -> None:
        core.fetched = [asyncio.Event()]
        await core.agent.offer(offer("d1"))
        await asyncio.sleep(0)
        await core.agent.offer(offer("d2"))
        assert (await core.outcome()).deployment.id == "d2"
        assert core.fetches == ["d1", "d2"]
        assert core.store.discarded

    run(work)


def test_an_offer_waits_for_the_one_that_is_applied() -> None:
    async def work(core: Core) -> None:
        core.applier.gate = asyncio.Event()
        await core.agent.offer(offer("d1"))
        while core.agent.record.state is not State.APPLYING:
            await asyncio.sleep(0.001)
        second = asyncio.create_task(core.agent.offer(offer("d2")))
        await asyncio.sleep(0.01)
        assert not second.done()
        core.applier.gate.set()
        await second
        while (await core.outcome()).deployment.id != "d2":
            await asyncio.sleep(0.001)

    run(work)


def test_a_failed_deployment_that_is_offered_is_only_noted() -> None:
    async def work(core: Core) -> None:
        assert await core.agent.offer(offer("d1", status="Failure"))
        assert core.agent.record == Record(last="d1")
        assert core.fetches == []

    run(work)


@pytest.mark.parametrize("change", [{"id": 7}, {"groupId": "g" * 200}, {"type": "a\nb"}, {"status": None}])
def test_an_offer_of_another_form_is_refused_and_changes_nothing(change: dict[str, Any]) -> None:
    async def work(core: Core) -> None:
        with pytest.raises(Malformed, match=next(iter(change))):
            await core.agent.offer(offer("d1") | change)
        assert core.agent.record == Record()

    run(work)


def test_a_reset_removes_everything_and_is_reported() -> None:
    async def work(core: Core) -> None:
        await core.agent.offer(offer("r1", "ResetDeployment"))
        report = await core.outcome()
        assert (report.deployment.id, report.status) == ("r1", "Success")
        assert (core.store.live, core.applier.current, core.cleaner.forgot) == (EMPTY, EMPTY, 1)
        assert core.agent.record.reset == "r1"

    run(work)


def test_a_forced_reset_comes_before_the_deployment_it_is_offered_with() -> None:
    async def work(core: Core) -> None:
        both = offer("d1", reset_first="r1")
        await core.agent.offer(both)
        assert (await core.outcome()).deployment.id == "r1"
        assert core.store.live is EMPTY
        assert core.agent.known == "r1"
        await core.agent.offer(both)  # the report is still on its way
        while (await core.outcome()).deployment.id != "d1":
            await asyncio.sleep(0.001)
        assert core.store.live is NEW
        assert core.cleaner.forgot == 1

    run(work)


def test_a_reset_that_the_disk_refuses_is_a_failure() -> None:
    async def work(core: Core) -> None:
        core.cleaner.failing = StorageFailed("logs cannot be emptied")
        await core.agent.offer(offer("r1", "ResetDeployment"))
        report = await core.outcome()
        assert (report.status, report.message) == ("Failure", "logs cannot be emptied")

    run(work)


def test_a_folder_is_deployed_while_another_deployment_waits_for_the_network() -> None:
    async def work(core: Core) -> None:
        core.fetched = [asyncio.Event()]
        await core.agent.offer(offer("d1"))
        await asyncio.sleep(0)
        await core.agent.activate(STAGED)
        assert core.store.live is NEW
        assert core.agent.known == ""  # so it is offered again
        await core.agent.offer(offer("d1"))
        assert (await core.outcome()).deployment.id == "d1"

    run(work)


# --- after a crash ---------------------------------------------------------------------------------------

D1 = Deployment("d1", "NewDeployment", "g", "v")


def test_what_was_being_fetched_is_asked_for_again() -> None:
    async def work(core: Core) -> None:
        core.records.kept = [Record(State.FETCHING, D1)]
        await core.agent.start()
        assert core.agent.misses_offer
        assert core.agent.known == ""
        assert await core.agent.offer(offer("d1"))
        assert (await core.outcome()).status == "Success"

    run(work)


def test_what_the_control_plane_has_no_more_is_forgotten() -> None:
    async def work(core: Core) -> None:
        core.records.kept = [Record(State.FETCHING, D1)]
        await core.agent.start()
        await core.agent.withdrawn()
        assert core.agent.record == Record()

    run(work)


@pytest.mark.parametrize("state", [State.APPLYING, State.FETCHING])
def test_what_was_confirmed_before_the_crash_is_a_success(state: State) -> None:
    async def work(core: Core) -> None:
        core.records.kept = [Record(state, D1, attempts=1)]
        core.store.live, core.store.came_by = NEW, "d1"
        await core.agent.start()
        assert (await core.outcome()).status == "Success"

    run(work)


def test_what_was_undone_is_tried_again_but_not_for_ever() -> None:
    async def work(core: Core) -> None:
        core.records.kept = [Record(State.IDLE, last="d0")]
        core.store.came_by = "d0"
        for attempt in range(3):
            await core.agent.start()
            core.fetched = []
            core.applier.gate = asyncio.Event()  # the crash comes while it is applied
            assert await core.agent.offer(offer("d1")), attempt
            while core.agent.record.state is not State.APPLYING:
                await asyncio.sleep(0.001)
            await core.agent.stop()
            core.store.rollback()  # what recovery does
            core.applier.gate = None
            core.again()
        await core.agent.start()
        report = await core.outcome()
        assert report.status == "Failure"
        assert "interrupted 3 times" in report.message
        assert core.agent.record.last == "d1"

    run(work)


def test_a_reset_that_was_cut_off_goes_on() -> None:
    async def work(core: Core) -> None:
        core.records.kept = [Record(State.RESETTING, Deployment("r1", "ResetDeployment", "g"))]
        await core.agent.start()
        assert (await core.outcome()).deployment.id == "r1"
        assert core.store.live is EMPTY

    run(work)


def test_a_report_outlives_a_crash() -> None:
    async def work(core: Core) -> None:
        core.records.kept = [Record(report=Report(D1, "Failure", "why"), last="d1")]
        await core.agent.start()
        assert await core.outcome() == Report(D1, "Failure", "why")

    run(work)


def test_a_record_that_cannot_be_read_or_written_is_said_and_does_not_stop_anything() -> None:
    async def work(core: Core) -> None:
        core.records.failing = CorruptRecord("damaged")
        await core.agent.start()
        await core.agent.offer(offer("d1"))
        assert (await core.outcome()).status == "Success"
        assert "could not be kept" in core.log.text

    run(work)
