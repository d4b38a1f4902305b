"""The agent's contact with a control plane that answers in every way it can."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from ggfast.core.deploy.machine import Deployment, Report
from ggfast.core.deploy.report import Contact
from ggfast.errors import LinkDown, Rejected

D1 = Report(Deployment("d1", "NewDeployment", "g", "v"), "Failure", "why")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ggfast.limits.DEPLOYMENT_RETRY_FIRST_S", 0.001)


class Agent:
    def __init__(self) -> None:
        self.known, self.misses_offer = "d0", False
        self.offers: list[Any] = []
        self.takes = True
        self.told: list[Report] = []
        self.gone = 0
        self.reports: asyncio.Queue[Report] = asyncio.Queue()

    async def offer(self, offer: Any) -> bool:
        self.offers.append(offer)
        return self.takes

    async def withdrawn(self) -> None:
        self.gone, self.misses_offer = self.gone + 1, False

    async def next_report(self) -> Report:
        report = await self.reports.get()
        self.reports.put_nowait(report)
        return report

    async def acknowledged(self, report: Report) -> None:
        self.told.append(await self.reports.get())


class Cloud:
    """`news` and `answers` are given out one after the other; then nothing comes any more."""

    def __init__(self) -> None:
        self.found: list[Any] = []
        self.answers: list[Exception | None] = []
        self.asked: list[tuple[str, str, float]] = []
        self.heard: list[tuple[str, str, str, str]] = []
        self.done = asyncio.Event()

    async def news(self, deployment: str, trust: str, wait_s: float) -> Any:
        self.asked.append((deployment, trust, wait_s))
        if not self.found:
            self.done.set()
            await asyncio.Event().wait()
        found = self.found.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def report(self, group_id: str, deployment_id: str, status: str, message: str) -> None:
        self.heard.append((group_id, deployment_id, status, message))
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer


class Trust:
    version = "7"

    def __init__(self) -> None:
        self.taken: list[Any] = []

    async def take(self, found: Any) -> None:
        self.taken.append(found)


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str, **fields: Any) -> None:
        self.lines.append(f"{message} {fields}")

    warn = error = info


def news(deployment: Any = None, trust: Any = None, denied: str = "") -> Any:
    return SimpleNamespace(deployment=deployment, trust=trust, denied=denied)


class Scene:
    def __init__(self) -> None:
        self.agent, self.cloud, self.trust, self.log = Agent(), Cloud(), Trust(), Log()
        parts: Any = (self.cloud, self.agent, self.trust, self.log)
        self.contact = Contact(*parts, pause_max_s=0.01)


def run(prepare: Callable[[Scene], None], until: Callable[[Scene], bool]) -> Scene:
    async def whole() -> Scene:
        scene = Scene()
        prepare(scene)
        scene.contact.start()
        async with asyncio.timeout(10):
            while not until(scene):
                await asyncio.sleep(0.001)
        await scene.contact.stop()
        return scene

    return asyncio.run(whole())


def test_news_reach_agent_and_trust_and_the_next_question_names_what_is_known() -> None:
    def prepare(scene: Scene) -> None:
        scene.cloud.found = [news({"id": "d1"}, {"version": "8"}), news()]

    scene = run(prepare, lambda scene: scene.cloud.done.is_set())
    assert scene.agent.offers == [{"id": "d1"}]
    assert scene.trust.taken == [{"version": "8"}]
    assert scene.cloud.asked[0][:2] == ("d0", "7")
    assert [wait_s > 0 for _, _, wait_s in scene.cloud.asked] == [False, True, True]  # the first is to find out
    assert any("Deployment agent connected to cloud" in line for line in scene.log.lines)


def test_the_network_may_be_gone_for_long_and_is_complained_about_once() -> None:
    def prepare(scene: Scene) -> None:
        scene.cloud.found = [LinkDown("no route")] * 5 + [news({"id": "d1"})]

    scene = run(prepare, lambda scene: scene.cloud.done.is_set())
    assert scene.agent.offers == [{"id": "d1"}]
    assert sum("no route" in line for line in scene.log.lines) == 1


def test_a_missed_offer_is_asked_for_at_once_and_given_up_when_there_is_none() -> None:
    def prepare(scene: Scene) -> None:
        scene.agent.misses_offer = True
        scene.cloud.found = [news(denied="GetDeployment"), news()]

    scene = run(prepare, lambda scene: scene.cloud.done.is_set())
    assert scene.cloud.asked[0][2] == 0
    assert scene.agent.gone == 1
    assert any("GetDeployment" in line for line in scene.log.lines)


def test_an_offer_of_what_is_known_does_not_make_a_storm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ggfast.limits.DEPLOYMENT_RETRY_FIRST_S", 0.05)

    def prepare(scene: Scene) -> None:
        scene.agent.takes = False
        scene.cloud.found = [news({"id": "d0"})] * 3

    scene = run(prepare, lambda scene: len(scene.cloud.asked) >= 2)
    assert len(scene.cloud.asked) == 2


def test_a_defect_does_not_cut_the_core_off() -> None:
    def prepare(scene: Scene) -> None:
        scene.cloud.found = [RuntimeError("defect"), news({"id": "d1"})]

    scene = run(prepare, lambda scene: scene.cloud.done.is_set())
    assert scene.agent.offers == [{"id": "d1"}]


@pytest.mark.parametrize(
    "answer", [LinkDown("gone"), Rejected("busy", reason_code=503), Rejected("no", reason_code=403)]
)
def test_a_report_is_repeated_until_it_is_taken(answer: Exception) -> None:
    def prepare(scene: Scene) -> None:
        scene.cloud.answers = [answer, answer, None]
        scene.agent.reports.put_nowait(D1)

    scene = run(prepare, lambda scene: bool(scene.agent.told))
    assert scene.cloud.heard == [("g", "d1", "Failure", "why")] * 3


@pytest.mark.parametrize("status", [400, 404])
def test_a_report_that_will_never_be_taken_is_said_once(status: int) -> None:
    def prepare(scene: Scene) -> None:
        scene.cloud.answers = [Rejected("unknown", reason_code=status)]
        scene.agent.reports.put_nowait(D1)

    scene = run(prepare, lambda scene: bool(scene.agent.told))
    assert len(scene.cloud.heard) == 1
    assert any("failed to report deployment status back to cloud" in line for line in scene.log.lines)
