"""Resets of deployments: with and without force, what the core still gets, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_desk import REGION
from cloud_fleet import HOME, Fleet, deployed, desk_for, reset

from ggfast.cloud.deploy import reports
from ggfast.cloud.deploy.records import GROUPS
from ggfast.cloud.events import DeploymentReady

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    desk = desk_for(tmp_path)
    yield Fleet(desk)
    desk.close()


def test_a_reset_waits_for_the_core(fleet: Fleet) -> None:
    group = deployed(fleet)
    undone = reset(fleet, group)
    assert fleet.status(undone)["DeploymentStatus"] == "InProgress"
    found = fleet.fetched()
    assert (found["id"], found["type"], found["document"]) == (undone["DeploymentId"], "ResetDeployment", {})
    fleet.core_says(undone, "Success")
    assert fleet.status(undone)["DeploymentStatus"] == "Success"
    fleet.desk.call("DeleteGroup", GroupId=group["GroupId"])


def test_a_group_is_deleted_after_a_reset_was_asked_for_and_its_core_still_resets(fleet: Fleet) -> None:
    group = deployed(fleet)
    assert "is deployed" in fleet.desk.refused("DeleteGroup", GroupId=group["GroupId"]).message
    undone = reset(fleet, group)
    fleet.desk.call("DeleteGroup", GroupId=group["GroupId"])
    assert fleet.fetched()["id"] == undone["DeploymentId"]
    fleet.core_says(undone, "Success")
    assert fleet.desk.refused("GetGroup", GroupId=group["GroupId"]).status == 404
    assert fleet.desk.look(lambda tx: tx.list(GROUPS, HOME, limit=9).documents) == []


def test_a_reset_that_fails_leaves_the_group_deployed(fleet: Fleet) -> None:
    group = deployed(fleet)
    fleet.core_says(reset(fleet, group), "Failure", "disk")
    assert fleet.desk.refused("DeleteGroup", GroupId=group["GroupId"]).status == 400
    fleet.core_says(reset(fleet, group), "Success")


def test_a_forced_reset_succeeds_at_once_and_still_reaches_the_core(fleet: Fleet) -> None:
    group = deployed(fleet)
    fleet.desk.events.clear()
    undone = reset(fleet, group, Force=True)
    assert fleet.status(undone)["DeploymentStatus"] == "Success"
    assert DeploymentReady(REGION, "core1", undone["DeploymentId"]) in fleet.desk.events
    fleet.desk.call("DeleteGroup", GroupId=group["GroupId"])
    found = fleet.fetched()
    assert (found["id"], found["type"], found["document"]) == (undone["DeploymentId"], "ForceResetDeployment", {})
    fleet.core_says(undone, "Success")


def test_a_new_deployment_before_the_core_saw_a_forced_reset_says_so(fleet: Fleet) -> None:
    group = deployed(fleet)
    undone = reset(fleet, group, Force=True)
    again = fleet.deploy(group)
    assert fleet.fetched()["resetFirst"] == undone["DeploymentId"]
    fleet.core_says(again, "InProgress")
    assert fleet.fetched()["resetFirst"] == undone["DeploymentId"]
    fleet.core_says(again, "Success")
    assert fleet.fetched()["resetFirst"] == ""


def test_a_forced_reset_needs_nothing_deployed(fleet: Fleet) -> None:
    group = fleet.group()
    fleet.desk.events.clear()
    undone = reset(fleet, group, Force=True)
    assert fleet.status(undone)["DeploymentStatus"] == "Success"
    assert not [event for event in fleet.desk.events if isinstance(event, DeploymentReady)]
    empty = fleet.desk.call("CreateGroup", Name="empty")["Id"]
    fleet.desk.call("ResetDeployments", GroupId=empty, Force=True)
    fleet.desk.call("DeleteGroup", GroupId=empty)


def test_a_reset_is_refused_while_a_deployment_goes_on_row_26(fleet: Fleet) -> None:
    group = fleet.group()
    started = fleet.deploy(group)
    fault = fleet.desk.refused("ResetDeployments", GroupId=group["GroupId"])
    assert (fault.status, fault.code) == (400, "ConcurrentDeployment")
    fault = fleet.desk.refused("CreateDeployment", DeploymentType="ResetDeployment", GroupId=group["GroupId"])
    assert fault.code == "ConcurrentDeployment"
    assert fleet.status(started)["DeploymentStatus"] == "InProgress"
    undone = reset(fleet, group, Force=True)
    status = fleet.status(started)
    assert status["DeploymentStatus"] == "Failure" and undone["DeploymentId"] in status["ErrorMessage"]
    fleet.core_says(started, "Success")
    assert fleet.status(started) == status


def test_nothing_to_reset_is_refused_row_17(fleet: Fleet) -> None:
    group = fleet.group()
    text = f"Group id: {group['GroupId']} has not been deployed or has already been reset."
    for _ in range(2):
        fault = fleet.desk.refused("ResetDeployments", GroupId=group["GroupId"])
        assert (fault.status, fault.code, fault.message) == (404, "ResourceNotFoundException", text)
        fleet.core_says(fleet.deploy(group), "Success")
        reset(fleet, group, Force=True)
    fault = fleet.desk.refused("ResetDeployments", GroupId=NOBODY)
    assert (fault.status, fault.code) == (404, "ResourceNotFoundException")
    assert fault.message == "That Group Definition does not exist."


def test_create_deployment_takes_the_reset_types(fleet: Fleet) -> None:
    group = deployed(fleet)
    members = {"GroupId": group["GroupId"], "DeploymentType": "ResetDeployment"}
    made = fleet.desk.call("CreateDeployment", **members)
    fleet.core_says(made, "Success")
    fleet.core_says(fleet.deploy(group), "Success")
    made = fleet.desk.call("CreateDeployment", GroupId=group["GroupId"], DeploymentType="ForceResetDeployment")
    status = fleet.status({"GroupId": group["GroupId"], "DeploymentId": made["DeploymentId"]})
    assert status["DeploymentType"] == "ForceResetDeployment" and status["DeploymentStatus"] == "Success"


def test_resetting_a_group_leaves_a_core_that_another_has_taken(fleet: Fleet) -> None:
    one = deployed(fleet)
    two = fleet.group()
    running = fleet.deploy(two)
    fleet.core_says(running, "Success")
    undone = reset(fleet, one)
    assert fleet.status(undone)["DeploymentStatus"] == "Success"
    assert fleet.fetched()["id"] == running["DeploymentId"]


def test_a_group_that_moved_to_another_core_serves_that_one(fleet: Fleet) -> None:
    group = deployed(fleet)
    other = {
        "GroupId": group["GroupId"],
        "GroupVersionId": fleet.version(group["GroupId"], Cores=[fleet.thing("core2")]),
    }
    started = fleet.deploy(other)
    assert fleet.fetched("core2")["id"] == started["DeploymentId"]
    assert fleet.desk.look(lambda tx: reports.latest_for_core(tx, HOME, "core1")) is None
