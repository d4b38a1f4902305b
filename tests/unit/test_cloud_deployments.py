"""Deployments and resets: their states, what a core fetches and reports, every refusal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from cloud_desk import ACCOUNT, REGION
from cloud_fleet import HOME, Fleet, deployed, desk_for, reset

from ggfast.cloud.deploy import records, reports
from ggfast.cloud.events import DeploymentReady
from ggfast.cloud.faults import Fault
from ggfast.cloud.limits import DEPLOYMENT_MESSAGE_MAX
from ggfast.cloud.shadows import store as shadows
from ggfast.cloud.store.interface import Transaction

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
NOBODY = "00000000-0000-4000-8000-000000000000"
TYPES = "{NewDeployment,Redeployment,ResetDeployment,ForceResetDeployment}"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    desk = desk_for(tmp_path)
    yield Fleet(desk)
    desk.close()


def code_of(fleet: Fleet) -> str:
    """The digest of the one function that the core gets."""
    [function] = fleet.fetched()["document"]["GroupDefinitions"]["Lambdas"]["Content"]
    return str(function["DeploymentConfiguration"]["CodeSha256"])


# --- the way of a deployment ---------------------------------------------------------------------------


def test_a_deployment_is_in_progress_until_its_core_reports(fleet: Fleet) -> None:
    group = fleet.group()
    made = fleet.desk.call("CreateDeployment", DeploymentType="NewDeployment", **group)
    assert made["DeploymentArn"] == (
        f"arn:aws:greengrass:{REGION}:{ACCOUNT}:/greengrass/groups/{group['GroupId']}/deployments/{made['DeploymentId']}"
    )
    started = {"GroupId": group["GroupId"], "DeploymentId": made["DeploymentId"]}
    status = fleet.status(started)
    assert TIME.fullmatch(status.pop("UpdatedAt"))
    assert status == {"DeploymentStatus": "InProgress", "DeploymentType": "NewDeployment"}
    fleet.desk.clock.now += 60
    fleet.core_says(started, "InProgress")
    fleet.core_says(started, "Success")
    assert fleet.status(started)["DeploymentStatus"] == "Success"
    found = fleet.desk.look(lambda tx: records.load(tx, HOME, started["GroupId"], started["DeploymentId"]))
    assert found is not None
    assert [entry[0] for entry in found.history] == ["Building", "InProgress", "Success"]
    assert found.history[2][1] > found.history[1][1] == found.history[0][1]


def test_the_core_is_told_by_shadow_and_event(fleet: Fleet) -> None:
    group = fleet.group()
    fleet.desk.events.clear()
    started = fleet.deploy(group)
    assert DeploymentReady(REGION, "core1", started["DeploymentId"]) in fleet.desk.events
    topics = [getattr(event, "topic", "") for event in fleet.desk.events]
    assert "$aws/things/core1-gda/shadow/update/delta" in topics
    shadow = fleet.desk.look(lambda tx: shadows.get(tx, HOME, "core1-gda"))
    assert shadow is not None
    assert shadow.desired == {
        "deploymentId": started["DeploymentId"],
        "deploymentType": "NewDeployment",
        "groupId": group["GroupId"],
        "groupVersionId": group["GroupVersionId"],
    }


def test_a_full_agent_shadow_stops_no_deployment(fleet: Fleet) -> None:
    body = orjson.dumps({"state": {"desired": {"x": "y" * 8_100}}})
    fleet.desk.change(lambda tx: shadows.update(tx, HOME, "core1-gda", "", body, 1.0))
    started = fleet.deploy(fleet.group())
    assert fleet.fetched()["id"] == started["DeploymentId"]


def test_the_core_fetches_its_latest_deployment(fleet: Fleet) -> None:
    assert fleet.desk.look(lambda tx: reports.latest_for_core(tx, HOME, "core1")) is None
    group = fleet.group()
    started = fleet.deploy(group)
    found = fleet.fetched()
    assert TIME.fullmatch(found.pop("createdAt"))
    document = found.pop("document")
    assert document["Arn"].endswith(f"/groups/{group['GroupId']}/versions/{group['GroupVersionId']}")
    assert found == {
        "id": started["DeploymentId"],
        "type": "NewDeployment",
        "status": "InProgress",
        "groupId": group["GroupId"],
        "versionId": group["GroupVersionId"],
        "artifacts": [],
        "resetFirst": "",
    }
    assert fleet.desk.look(lambda tx: reports.latest_for_core(tx, HOME, "core2")) is None
    assert fleet.desk.look(lambda tx: reports.latest_for_core(tx, f"{ACCOUNT}/us-east-1", "core1")) is None
    fleet.core_says(started, "Success")
    assert fleet.fetched()["status"] == "Success"


def test_moving_an_alias_changes_nothing_until_it_is_deployed_again_row_14(fleet: Fleet) -> None:
    group = deployed(fleet, Functions=[fleet.function("hello")])
    old = code_of(fleet)
    assert fleet.new_code("hello", "second") == "2"
    assert code_of(fleet) == old
    again = fleet.deploy(group)
    assert code_of(fleet) != old
    [artifact] = fleet.fetched()["artifacts"]
    assert artifact["name"].endswith(":function:hello:2")
    fleet.core_says(again, "Success")
    fleet.desk.call("UpdateAlias", FunctionName="hello", Name="prod", FunctionVersion="1")
    fleet.deploy(group, "Redeployment", DeploymentId=again["DeploymentId"])
    assert code_of(fleet) == old


def test_a_redeployment_goes_back_to_an_earlier_version(fleet: Fleet) -> None:
    group = fleet.group()
    first = fleet.deploy(group)
    fleet.core_says(first, "Success")
    newer = {"GroupId": group["GroupId"], "GroupVersionId": fleet.version(group["GroupId"])}
    fleet.core_says(fleet.deploy(newer), "Success")
    back = fleet.desk.call("CreateDeployment", DeploymentType="Redeployment", **first)
    found = fleet.fetched()
    assert (found["id"], found["versionId"]) == (back["DeploymentId"], group["GroupVersionId"])
    assert found["type"] == "Redeployment"


def test_a_group_without_a_core_is_refused_row_16(fleet: Fleet) -> None:
    fault = fleet.desk.refused("CreateDeployment", DeploymentType="NewDeployment", **fleet.group(Cores=[]))
    assert (fault.status, fault.code) == (400, "MissingCoreException")
    text = "You need a Greengrass Core in this Group before you can deploy."
    assert (
        fault.message
        == orjson.dumps({"ErrorDetails": [{"DetailedErrorCode": "GG-303", "DetailedErrorMessage": text}]}).decode()
    )


def test_a_core_definition_without_cores_is_no_core_row_16(fleet: Fleet) -> None:
    group_id = fleet.desk.call("CreateGroup", Name="g")["Id"]
    definition = fleet.desk.call("CreateCoreDefinition", InitialVersion={"Cores": []})
    version = fleet.desk.call(
        "CreateGroupVersion", GroupId=group_id, CoreDefinitionVersionArn=definition["LatestVersionArn"]
    )["Version"]
    fault = fleet.desk.refused(
        "CreateDeployment", DeploymentType="NewDeployment", GroupId=group_id, GroupVersionId=version
    )
    assert fault.code == "MissingCoreException"


# --- refusals ------------------------------------------------------------------------------------------


def test_refusals_of_create_deployment_row_17(fleet: Fleet) -> None:
    group, other = fleet.group(), fleet.group()
    elsewhere = fleet.deploy(other)
    group_id, version = group["GroupId"], group["GroupVersionId"]
    missing = "Your request is missing the following required parameter(s): "
    invalid, unknown = (400, "InvalidInputException"), (404, "ResourceNotFoundException")
    cases: list[tuple[dict[str, str], tuple[int, str], str]] = [
        ({**group, "DeploymentType": "Nonsense"}, invalid, ("That deployment type is not valid.  Please specify one of "
         f"the following types: {TYPES}.")),
        ({**group, "DeploymentType": ""}, invalid, ("That deployment type is not valid.  Please specify one of the "
         f"following types: {TYPES}.")),
        (group, invalid, missing + "{DeploymentType}."),
        ({**group, "DeploymentType": "Redeployment"}, invalid, missing + "{DeploymentId}."),
        ({"GroupId": group_id, "DeploymentType": "NewDeployment"}, invalid, missing + "{GroupVersionId}."),
        ({**group, "DeploymentType": "Redeployment", "DeploymentId": NOBODY}, invalid,
         f"Deployment ID '{NOBODY}' is invalid."),
        ({**group, "DeploymentType": "Redeployment", "DeploymentId": elsewhere["DeploymentId"]}, invalid,
         f"Deployment ID '{elsewhere['DeploymentId']}' is invalid."),
        ({"GroupId": NOBODY, "GroupVersionId": version, "DeploymentType": "NewDeployment"}, unknown,
         "That group definition does not exist."),
        ({"GroupId": group_id, "GroupVersionId": NOBODY, "DeploymentType": "NewDeployment"}, unknown,
         f"Version {NOBODY} of Group Definition {group_id} does not exist."),
        ({"GroupId": NOBODY, "DeploymentType": "ForceResetDeployment"}, unknown,
         "That group definition does not exist."),
    ]  # fmt: skip
    for members, (status, code), text in cases:
        fault = fleet.desk.refused("CreateDeployment", **members)
        assert (fault.status, fault.code, fault.message) == (status, code, text)
    assert fleet.desk.call("ListDeployments", GroupId=group_id)["Deployments"] == []


def test_a_reset_cannot_be_redeployed(fleet: Fleet) -> None:
    group = deployed(fleet)
    undone = reset(fleet, group, Force=True)
    fault = fleet.desk.refused("CreateDeployment", DeploymentType="Redeployment", **undone)
    assert fault.message == f"Deployment ID '{undone['DeploymentId']}' is invalid."


@pytest.mark.parametrize("odd", ["", "..", "a/b", "\u202e", "x" * 200, "' OR 1=1 --", "%2F"])
def test_odd_ids_are_unknown_ids(fleet: Fleet, odd: str) -> None:
    group = fleet.group()
    fault = fleet.desk.refused("GetDeploymentStatus", GroupId=group["GroupId"], DeploymentId=odd or "-")
    assert fault.status == 400
    for operation in ("ListDeployments", "ResetDeployments"):
        assert fleet.desk.refused(operation, GroupId=odd or "-").status == 404
    members = {"GroupId": group["GroupId"], "GroupVersionId": odd, "DeploymentType": "NewDeployment"}
    assert fleet.desk.refused("CreateDeployment", **members).status == 404


def test_an_unknown_deployment_has_no_status(fleet: Fleet) -> None:
    group, other = fleet.group(), fleet.group()
    started = fleet.deploy(other)
    for deployment in (NOBODY, started["DeploymentId"]):
        fault = fleet.desk.refused("GetDeploymentStatus", GroupId=group["GroupId"], DeploymentId=deployment)
        assert (fault.status, fault.code) == (400, "InvalidInputException")
        assert fault.message == f"Deployment '{deployment}' does not exist."


def test_one_deployment_at_a_time_in_a_group(fleet: Fleet) -> None:
    group = fleet.group()
    first = fleet.deploy(group)
    fault = fleet.desk.refused("CreateDeployment", DeploymentType="NewDeployment", **group)
    assert (fault.status, fault.code) == (400, "ConcurrentDeployment")
    assert first["DeploymentId"] in fault.message and "InProgress" in fault.message
    fleet.core_says(first, "Failure", "no room")
    fleet.deploy(group)


def test_one_deployment_at_a_time_for_a_core(fleet: Fleet) -> None:
    one, two = fleet.group(), fleet.group()
    first = fleet.deploy(one)
    fault = fleet.desk.refused("CreateDeployment", DeploymentType="NewDeployment", **two)
    assert fault.code == "ConcurrentDeployment" and first["GroupId"] in fault.message
    fleet.core_says(first, "Success")
    fleet.deploy(two)
    assert fleet.fetched()["groupId"] == two["GroupId"]


def test_a_refused_deployment_leaves_nothing_behind(fleet: Fleet) -> None:
    group = fleet.group(Cores=[])
    before = fleet.desk.look(everything)
    fleet.desk.refused("CreateDeployment", DeploymentType="NewDeployment", **group)
    fleet.desk.refused("ResetDeployments", GroupId=group["GroupId"])
    assert fleet.desk.look(everything) == before
    assert not fleet.desk.call("ListGroupCertificateAuthorities", GroupId=group["GroupId"])[
        "GroupCertificateAuthorities"
    ]


def test_a_transaction_that_fails_takes_the_deployment_back_whole(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = fleet.group()
    before = fleet.desk.look(everything)
    fleet.desk.events.clear()

    def broken(*_arguments: object) -> None:
        raise Fault("InternalServerErrorException", "the last step failed", status=500)

    monkeypatch.setattr("ggfast.cloud.deploy.starting.tell_core", broken)
    fleet.desk.refused("CreateDeployment", DeploymentType="NewDeployment", **group)
    assert fleet.desk.look(everything) == before
    assert fleet.desk.events == []
    assert fleet.desk.look(lambda tx: reports.latest_for_core(tx, HOME, "core1")) is None


def everything(tx: Transaction) -> list[int]:
    """How many documents there are of what deployments write."""
    parents = [(name, HOME) for name in (records.GROUPS, records.CORES)]
    groups = tx.list("group", HOME, limit=10).documents
    parents += [
        (name, f"{HOME}/{group.name}")
        for group in groups
        for name in (records.DEPLOYMENTS, records.DOCUMENTS, "group-ca")
    ]
    return [tx.count(*parent) for parent in parents]


def test_a_client_token_makes_one_deployment(fleet: Fleet) -> None:
    group = fleet.group()
    first = fleet.desk.call("CreateDeployment", DeploymentType="NewDeployment", AmznClientToken="k", **group)
    assert first == fleet.desk.call("CreateDeployment", DeploymentType="NewDeployment", AmznClientToken="k", **group)
    assert len(fleet.desk.call("ListDeployments", GroupId=group["GroupId"])["Deployments"]) == 1


def test_no_service_role_is_needed(fleet: Fleet) -> None:
    assert fleet.desk.refused("GetServiceRoleForAccount").status in (404, 500)
    deployed(fleet)


# --- lists ---------------------------------------------------------------------------------------------


def test_deployments_are_listed_in_order_of_creation(fleet: Fleet) -> None:
    group = fleet.group()
    started = []
    for _ in range(5):
        started.append(fleet.deploy(group))
        fleet.core_says(started[-1], "Success")
        fleet.desk.clock.now += 1
    undone = reset(fleet, group, Force=True)
    found = fleet.desk.all("ListDeployments", "Deployments", GroupId=group["GroupId"], MaxResults="2")
    assert [entry["DeploymentId"] for entry in found] == [one["DeploymentId"] for one in (*started, undone)]
    base = f"arn:aws:greengrass:{REGION}:{ACCOUNT}:/greengrass/groups/{group['GroupId']}"
    assert found[0]["GroupArn"] == f"{base}/versions/{group['GroupVersionId']}"
    assert found[0]["DeploymentArn"] == f"{base}/deployments/{found[0]['DeploymentId']}"
    assert (found[0]["DeploymentType"], found[5]["DeploymentType"]) == ("NewDeployment", "ForceResetDeployment")
    assert found[5]["GroupArn"] == base
    assert TIME.fullmatch(found[0]["CreatedAt"]) and found[0]["CreatedAt"] < found[1]["CreatedAt"]


def test_the_oldest_deployments_go_but_not_the_one_that_runs(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "DEPLOYMENTS_PER_GROUP_MAX", 3)
    group = fleet.group()
    running = fleet.deploy(group)
    fleet.core_says(running, "Success")
    broken = {"GroupId": group["GroupId"], "GroupVersionId": fleet.version(group["GroupId"], Devices=[fleet.core])}
    failed = [fleet.deploy(broken)["DeploymentId"] for _ in range(4)]
    kept = [
        entry["DeploymentId"] for entry in fleet.desk.all("ListDeployments", "Deployments", GroupId=group["GroupId"])
    ]
    assert kept == [running["DeploymentId"], *failed[-2:]]
    assert fleet.fetched()["id"] == running["DeploymentId"]


# --- reports -------------------------------------------------------------------------------------------


def test_a_failure_has_the_known_words(fleet: Fleet) -> None:
    started = fleet.deploy(fleet.group())
    detail = "Error while processing. group config is invalid: ggc_user or [ggc_group] don't have ro permission"
    fleet.core_says(started, "Failure", detail)
    status = fleet.status(started)
    text = f"Deployment {started['DeploymentId']} of type NewDeployment for group {started['GroupId']} failed error: "
    assert status["DeploymentStatus"] == "Failure"
    assert status["ErrorMessage"] == text + detail
    assert status["ErrorDetails"] == []


def test_words_that_the_core_has_put_together_stay(fleet: Fleet) -> None:
    started = fleet.deploy(fleet.group())
    text = f"Deployment {started['DeploymentId']} of type NewDeployment for group {started['GroupId']} failed error: x"
    fleet.core_says(started, "Failure", text)
    assert fleet.status(started)["ErrorMessage"] == text


def test_a_failure_always_has_a_message_and_a_bounded_one(fleet: Fleet) -> None:
    group = fleet.group()
    started = fleet.deploy(group)
    fleet.core_says(started, "Failure")
    assert fleet.status(started)["ErrorMessage"].endswith("the core gave no reason")
    started = fleet.deploy(group)
    fleet.core_says(started, "Failure", "x\0" * 100_000)
    assert len(fleet.status(started)["ErrorMessage"]) < DEPLOYMENT_MESSAGE_MAX + 200


@pytest.mark.parametrize("end", ["Success", "Failure"])
@pytest.mark.parametrize("late", ["InProgress", "Success", "Failure"])
def test_late_and_repeated_reports_change_nothing(fleet: Fleet, end: str, late: str) -> None:
    started = fleet.deploy(fleet.group())
    fleet.core_says(started, end, "first")
    before = fleet.status(started)
    fleet.desk.clock.now += 100
    fleet.core_says(started, late, "late")
    assert fleet.status(started) == before


def test_reports_of_others_are_refused(fleet: Fleet) -> None:
    started = fleet.deploy(fleet.group())
    fleet.thing("core2")
    for thing, deployment, status, code in (
        ("core2", started["DeploymentId"], "Success", 403),
        ("core1", NOBODY, "Success", 404),
        ("core1", started["DeploymentId"], "Building", 400),
        ("core1", started["DeploymentId"], "\u00e9", 400),
    ):
        with pytest.raises(Fault) as caught:
            fleet.core_says({"DeploymentId": deployment}, status, thing=thing)
        assert caught.value.status == code
    assert fleet.status(started)["DeploymentStatus"] == "InProgress"


def test_a_report_counts_in_its_own_region(fleet: Fleet) -> None:
    started = fleet.deploy(fleet.group())
    with pytest.raises(Fault) as caught:
        fleet.desk.change(
            lambda tx: reports.report(tx, f"{ACCOUNT}/us-east-1", "core1", started["DeploymentId"], "Success", "", 1.0)
        )
    assert caught.value.status == 404


def test_discovery_goes_by_what_the_core_runs(fleet: Fleet) -> None:
    lamp = fleet.thing("lamp")
    group = fleet.group(Devices=[lamp])
    started = fleet.deploy(group)
    fleet.version(group["GroupId"])
    assert "DeployedVersion" not in fleet.desk.look(lambda tx: tx.get("group", HOME, group["GroupId"])) or {}
    fleet.core_says(started, "Success")
    found = fleet.desk.look(lambda tx: tx.get("group", HOME, group["GroupId"]))
    assert found is not None and found["DeployedVersion"] == group["GroupVersionId"]
