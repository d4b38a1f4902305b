"""Events about deployments: one for each state, in EventBridge's form, at least once whoever dies when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud_desk import ACCOUNT, REGION
from cloud_fleet import HOME, Fleet, deployed, desk_for, reset

from ggfast.cloud.deploy import outbox
from ggfast.cloud.deploy.outbox import EVENTS, TOPIC, Outbox
from ggfast.cloud.events import Publish
from ggfast.errors import StorageFailed
from tests.patience import patience


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(desk_for(tmp_path))
    yield made
    made.desk.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "events.log"


def deliver(fleet: Fleet, log: Path) -> int:
    """Deliver what waits, as another process after the one before ended; how many batches."""

    async def work() -> int:
        sender, batches = Outbox(fleet.desk.store, log), 0
        try:
            while await sender.deliver():
                batches += 1
        finally:
            await sender.stop()
        return batches

    return fleet.desk.runner.run(work())


def written(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def published(fleet: Fleet) -> list[Publish]:
    return [event for event in fleet.desk.events if isinstance(event, Publish) and event.topic.startswith(TOPIC)]


def waiting(fleet: Fleet) -> int:
    return fleet.desk.look(lambda tx: tx.count(EVENTS, ""))


def states(log: Path) -> list[tuple[str, str]]:
    return [(event["detail"]["deployment-type"], event["detail"]["status"]) for event in written(log)]


def test_row_27_every_state_of_a_deployment_is_told_in_the_form_of_eventbridge(fleet: Fleet, log: Path) -> None:
    group = fleet.group()
    started = fleet.deploy(group)
    fleet.core_says(started, "InProgress")  # it is that already
    fleet.core_says(started, "Success")
    fleet.core_says(started, "Success")
    deliver(fleet, log)
    found = written(log)
    assert len({event.pop("id") for event in found}) == 3
    assert found == [
        {
            "version": "0",
            "detail-type": "Greengrass Deployment Status Change",
            "source": "aws.greengrass",
            "account": ACCOUNT,
            "time": "2026-09-21T14:13:20Z",
            "region": REGION,
            "resources": [],
            "detail": {
                "group-id": group["GroupId"],
                "deployment-id": started["DeploymentId"],
                "deployment-type": "NewDeployment",
                "status": status,
            },
        }
        for status in ("Building", "InProgress", "Success")
    ]
    messages = published(fleet)
    assert [json.loads(message.payload) for message in messages] == written(log)
    assert {(each.topic, each.home, each.qos, each.retain) for each in messages} == {
        (f"$aws/events/greengrass/deployments/{group['GroupId']}", HOME, 1, False)
    }
    assert waiting(fleet) == 0 and deliver(fleet, log) == 0


def test_failures_redeployments_and_resets_are_told_too(fleet: Fleet, log: Path) -> None:
    group = fleet.group()
    failed = fleet.deploy(group)
    fleet.core_says(failed, "Failure", "for a test")
    again = {"GroupId": group["GroupId"]}
    fleet.deploy(again, "Redeployment", DeploymentId=failed["DeploymentId"])
    reset(fleet, group, Force=True)
    fleet.desk.call("DeleteGroup", GroupId=group["GroupId"])
    deliver(fleet, log)
    assert states(log) == [
        *[("NewDeployment", status) for status in ("Building", "InProgress", "Failure")],
        *[("Redeployment", status) for status in ("Building", "InProgress", "Failure")],
        *[("ForceResetDeployment", status) for status in ("Building", "InProgress", "Success")],
    ]


def test_a_group_that_cannot_be_deployed_has_a_failure(fleet: Fleet, log: Path) -> None:
    gone = fleet.function("gone")
    group = fleet.group(Functions=[gone])
    fleet.desk.call("DeleteFunction", FunctionName="gone")
    fleet.deploy(group)
    deliver(fleet, log)
    assert states(log) == [("NewDeployment", "Building"), ("NewDeployment", "Failure")]


def test_what_was_committed_before_a_crash_is_delivered_after_it(tmp_path: Path, log: Path) -> None:
    first = Fleet(desk_for(tmp_path))
    deployed(first)
    first.desk.close()  # nothing was delivered
    desk = desk_for(tmp_path)
    try:
        again = Fleet.__new__(Fleet)
        again.desk = desk
        assert waiting(again) == 3
        deliver(again, log)
        assert states(log) == [("NewDeployment", status) for status in ("Building", "InProgress", "Success")]
        assert len(published(again)) == 3 and waiting(again) == 0
    finally:
        desk.close()


def test_a_crash_between_delivery_and_removal_repeats_the_event_with_its_id(
    fleet: Fleet, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed(fleet)

    def die(*_: object) -> None:
        raise RuntimeError("the end")

    with monkeypatch.context() as patched:
        patched.setattr(outbox, "_remove", die)
        with pytest.raises(RuntimeError, match="the end"):
            deliver(fleet, log)
    assert waiting(fleet) == 3
    deliver(fleet, log)
    found = written(log)
    assert len(found) == 6 and found[:3] == found[3:]
    assert len(published(fleet)) == 6 and waiting(fleet) == 0


def test_what_the_log_does_not_take_waits(fleet: Fleet, log: Path) -> None:
    deployed(fleet)
    log.mkdir(parents=True)
    with pytest.raises(StorageFailed, match=r"events\.log cannot be written"):
        deliver(fleet, log)
    assert waiting(fleet) == 3
    log.rmdir()
    deliver(fleet, log)
    assert len(written(log)) == 3 and waiting(fleet) == 0


def test_the_running_outbox_hears_of_events_and_goes_on_after_a_full_disk(
    fleet: Fleet, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "DEPLOYMENT_EVENTS_RETRY_S", 0.01)
    group, desk = fleet.group(), fleet.desk
    sender = desk.runner.run(_started(fleet, log))
    try:
        started = fleet.deploy(group)
        desk.runner.run(_empty(fleet))
        assert len(written(log)) == 2
        log.unlink()
        log.mkdir()
        fleet.core_says(started, "Success")
        desk.runner.run(asyncio.sleep(0.05))
        assert waiting(fleet) == 1
        log.rmdir()
        desk.runner.run(_empty(fleet))
        assert states(log) == [("NewDeployment", "Success")]
    finally:
        desk.runner.run(sender.stop())
        desk.runner.run(sender.stop())


async def _started(fleet: Fleet, log: Path) -> Outbox:
    sender = Outbox(fleet.desk.store, log)
    await sender.start()
    return sender


async def _empty(fleet: Fleet) -> None:
    async with asyncio.timeout(patience(5)):
        while await fleet.desk.store.read(lambda tx: tx.count(EVENTS, "")):
            await asyncio.sleep(0.005)


def test_when_nothing_is_delivered_the_oldest_go(
    fleet: Fleet, log: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox, "DEPLOYMENT_EVENTS_MAX", 4)
    monkeypatch.setattr(outbox, "DEPLOYMENT_EVENTS_BATCH", 3)
    group = fleet.group()
    for _ in range(2):
        fleet.core_says(fleet.deploy(group), "Success")
    assert waiting(fleet) == 4 and "are lost" in caplog.text
    assert deliver(fleet, log) == 2
    assert [status for _, status in states(log)] == ["Success", "Building", "InProgress", "Success"]
