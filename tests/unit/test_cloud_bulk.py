"""Bulk deployments: the input, their states and numbers, what each record came to, kills between steps."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from cloud_desk import ACCOUNT, ADMINISTRATOR, REGION
from cloud_fleet import HOME, Fleet, desk_for

from ggfast.cloud.deploy import bulk_steps
from ggfast.cloud.deploy.bulk_runner import BulkRunner
from ggfast.cloud.deploy.bulk_steps import run_bulk_deployments
from ggfast.cloud.deploy.objects import register_object
from ggfast.cloud.events import BulkDeploymentWaiting
from ggfast.cloud.greengrass import GREENGRASS
from ggfast.cloud.limits import BULK_ATTEMPTS_MAX, BULK_RECORDS_PER_STEP, BULK_RETRY_S
from ggfast.cloud.operations import Principal

ROLE = f"arn:aws:iam::{ACCOUNT}:role/bulk"
NOBODY = "00000000-0000-4000-8000-000000000000"
NEW = "NewDeployment"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    desk = desk_for(tmp_path)
    yield Fleet(desk)
    desk.close()


def groups(fleet: Fleet, count: int) -> list[dict[str, str]]:
    """Groups with a core each."""
    return [fleet.group(Cores=[fleet.core if at == 0 else fleet.thing(f"core{at + 1}")]) for at in range(count)]


def lines(*records: object) -> str:
    """A data: URL."""
    text = b"\n".join(one if isinstance(one, bytes) else orjson.dumps(one) for one in records)
    return "data:application/json;base64," + base64.b64encode(text).decode()


def record(group: dict[str, str], **more: Any) -> dict[str, Any]:
    return {**group, "DeploymentType": NEW, **more}


def start(fleet: Fleet, uri: str, **more: Any) -> str:
    made = fleet.desk.call("StartBulkDeployment", ExecutionRoleArn=ROLE, InputFileUri=uri, **more)
    return str(made["BulkDeploymentId"])


def turn(fleet: Fleet) -> bool:
    """One step, as the server takes it."""
    return fleet.desk.runner.run(run_bulk_deployments(fleet.desk.store, fleet.desk.cloud))


def run(fleet: Fleet) -> None:
    """Every step that is due now."""
    for _ in range(1_000):
        if not turn(fleet):
            return
    raise AssertionError("there is always more")


def status(fleet: Fleet, bulk: str) -> dict[str, Any]:
    return fleet.desk.call("GetBulkDeploymentStatus", BulkDeploymentId=bulk)


def numbers(fleet: Fleet, bulk: str) -> tuple[str, int, int, int]:
    found = status(fleet, bulk)
    metrics = found["BulkDeploymentMetrics"]
    counted = (metrics[name] for name in ("RecordsProcessed", "InvalidInputRecords", "RetryAttempts"))
    return (found["BulkDeploymentStatus"], *counted)  # type: ignore[return-value]


def reports(fleet: Fleet, bulk: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = fleet.desk.all(
        "ListBulkDeploymentDetailedReports", "Deployments", BulkDeploymentId=bulk, MaxResults="2"
    )
    return found


def test_three_lines_are_three_deployments_row_19(fleet: Fleet) -> None:
    wanted = groups(fleet, 3)
    fleet.desk.events.clear()
    bulk = start(fleet, lines(*map(record, wanted)), tags={"a": "b"})
    assert BulkDeploymentWaiting() in fleet.desk.events
    assert numbers(fleet, bulk) == ("Initializing", 0, 0, 0)
    assert turn(fleet)
    assert numbers(fleet, bulk) == ("Running", 0, 0, 0)
    run(fleet)
    assert numbers(fleet, bulk) == ("Completed", 3, 0, 0)
    assert status(fleet, bulk)["tags"] == {"a": "b"} and "ErrorMessage" not in status(fleet, bulk)
    found = reports(fleet, bulk)
    assert [entry["DeploymentStatus"] for entry in found] == ["InProgress"] * 3
    for entry, group in zip(found, wanted, strict=True):
        [deployment] = fleet.desk.call("ListDeployments", GroupId=group["GroupId"])["Deployments"]
        assert deployment.items() <= entry.items()
    fleet.core_says(found[0], "Failure", "no room")
    again = reports(fleet, bulk)[0]
    assert again["DeploymentStatus"] == "Failure" and again["ErrorMessage"].endswith("error: no room")


def test_what_is_answered_and_listed(fleet: Fleet) -> None:
    made = fleet.desk.call("StartBulkDeployment", ExecutionRoleArn=ROLE, InputFileUri="data:,")
    arn = f"arn:aws:greengrass:{REGION}:{ACCOUNT}:/greengrass/bulk/deployments/{made['BulkDeploymentId']}"
    assert made["BulkDeploymentArn"] == arn
    run(fleet)
    assert numbers(fleet, made["BulkDeploymentId"]) == ("Completed", 0, 0, 0)
    second = start(fleet, "data:,%20%0A%0A")
    run(fleet)
    listed = fleet.desk.all("ListBulkDeployments", "BulkDeployments", MaxResults="1")
    assert [entry["BulkDeploymentId"] for entry in listed] == [made["BulkDeploymentId"], second]
    assert set(listed[0]) == {"BulkDeploymentArn", "BulkDeploymentId", "CreatedAt"}
    fleet.desk.call("TagResource", service="greengrass", ResourceArn=arn, tags={"k": "v"})
    assert fleet.desk.call("ListTagsForResource", service="greengrass", ResourceArn=arn)["tags"] == {"k": "v"}


def test_bad_records_are_counted_and_explained(fleet: Fleet) -> None:
    [group] = groups(fleet, 1)
    coreless = fleet.group(Cores=[])
    bulk = start(
        fleet,
        lines(
            b"not json",
            b'{"GroupId": "\xff"}',
            record(group, DeploymentType="Redeployment"),
            record(group, More=1),
            {"GroupId": NOBODY, "GroupVersionId": NOBODY, "DeploymentType": NEW},
            record({**group, "GroupVersionId": NOBODY}),
            record(coreless),
            record(group, GroupVersionId="x" * 10_000),
            [1],
            record(group),
        ),
    )
    run(fleet)
    assert numbers(fleet, bulk) == ("Completed", 10, 9, 0)
    found = reports(fleet, bulk)
    assert [entry["DeploymentStatus"] for entry in found] == ["Failure"] * 9 + ["InProgress"]
    texts = [entry["ErrorMessage"] for entry in found[:9]]
    assert texts[0].startswith("The record is not JSON")
    assert texts[4:6] == [
        "That group definition does not exist.",
        f"Version {NOBODY} of Group Definition {group['GroupId']} does not exist.",
    ]
    assert "GG-303" in texts[6] and "more than" in texts[7]
    assert all(entry["ErrorDetails"][0]["DetailedErrorMessage"] == entry["ErrorMessage"] for entry in found[:9])


def test_a_group_that_cannot_run_is_a_failed_deployment(fleet: Fleet) -> None:
    group = fleet.group(Devices=[fleet.core])
    bulk = start(fleet, lines(record(group)))
    run(fleet)
    assert numbers(fleet, bulk) == ("Completed", 1, 0, 0)
    [found] = reports(fleet, bulk)
    assert found["DeploymentStatus"] == "Failure" and "invalid or corrupted" in found["ErrorMessage"]


def test_a_busy_group_is_tried_again_later(fleet: Fleet) -> None:
    [group] = groups(fleet, 1)
    first = fleet.deploy(group)
    bulk = start(fleet, lines(record(group)))
    run(fleet)
    assert numbers(fleet, bulk) == ("Running", 1, 0, 0)
    assert not turn(fleet)
    fleet.desk.clock.now += BULK_RETRY_S
    run(fleet)
    assert numbers(fleet, bulk) == ("Running", 1, 0, 1)
    fleet.core_says(first, "Success")
    fleet.desk.clock.now += BULK_RETRY_S
    run(fleet)
    assert numbers(fleet, bulk) == ("Completed", 1, 0, 2)
    assert reports(fleet, bulk)[0]["DeploymentStatus"] == "InProgress"


def test_a_group_that_stays_busy_is_given_up(fleet: Fleet) -> None:
    [group] = groups(fleet, 1)
    fleet.deploy(group)
    bulk = start(fleet, lines(record(group)))
    for _ in range(BULK_ATTEMPTS_MAX):
        assert numbers(fleet, bulk)[0] in ("Initializing", "Running")
        run(fleet)
        fleet.desk.clock.now += BULK_RETRY_S
    assert numbers(fleet, bulk) == ("Completed", 1, 1, 5)
    assert "is InProgress" in reports(fleet, bulk)[0]["ErrorMessage"]


def test_a_step_is_short_and_a_kill_between_steps_loses_and_repeats_nothing(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_steps, "BULK_RECORDS_PER_STEP", 2)
    wanted = groups(fleet, 5)
    bulk = start(fleet, lines(*map(record, wanted)))
    turn(fleet)
    steps = []
    for _ in range(10):
        with pytest.raises(RuntimeError):  # killed before its commit: as if it had not been
            fleet.desk.change(lambda tx: killed(fleet, tx))
        more = turn(fleet)
        steps.append(numbers(fleet, bulk)[1])
        if not more:
            break
    assert steps == [2, 4, 5]
    assert numbers(fleet, bulk) == ("Completed", 5, 0, 0)
    for group in wanted:
        assert len(fleet.desk.call("ListDeployments", GroupId=group["GroupId"])["Deployments"]) == 1


def killed(fleet: Fleet, tx: Any) -> None:
    bulk_steps.advance(tx, fleet.desk.cloud, fleet.desk.clock.wall(), [])
    raise RuntimeError


def test_one_runs_at_a_time_in_a_region(fleet: Fleet) -> None:
    bulk = start(fleet, "data:,")
    fault = fleet.desk.refused("StartBulkDeployment", ExecutionRoleArn=ROLE, InputFileUri="data:,")
    assert (fault.status, fault.code) == (400, "BadRequestException") and bulk in fault.message
    elsewhere = fleet.desk.call("StartBulkDeployment", ExecutionRoleArn=ROLE, InputFileUri="data:,", region="us-east-1")
    run(fleet)
    fleet.desk.call("GetBulkDeploymentStatus", BulkDeploymentId=elsewhere["BulkDeploymentId"], region="us-east-1")
    assert fleet.desk.refused("GetBulkDeploymentStatus", BulkDeploymentId=elsewhere["BulkDeploymentId"]).status == 404
    start(fleet, "data:,")


def test_a_stopped_one_deploys_no_more(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_steps, "BULK_RECORDS_PER_STEP", 1)
    wanted = groups(fleet, 3)
    bulk = start(fleet, lines(*map(record, wanted)))
    turn(fleet)
    turn(fleet)
    assert fleet.desk.call("StopBulkDeployment", BulkDeploymentId=bulk) == {}
    assert numbers(fleet, bulk) == ("Stopping", 1, 0, 0)
    run(fleet)
    assert numbers(fleet, bulk) == ("Stopped", 1, 0, 0)
    assert len(reports(fleet, bulk)) == 1
    fleet.desk.call("StopBulkDeployment", BulkDeploymentId=bulk)
    assert numbers(fleet, bulk)[0] == "Stopped"
    start(fleet, "data:,")


def test_a_client_token_starts_one(fleet: Fleet) -> None:
    first = start(fleet, "data:,", AmznClientToken="t")
    run(fleet)
    assert start(fleet, "data:,", AmznClientToken="t") == first
    assert len(fleet.desk.call("ListBulkDeployments")["BulkDeployments"]) == 1


def test_the_input_may_be_an_artifact_or_a_registered_object(fleet: Fleet) -> None:
    [group] = groups(fleet, 1)
    content = orjson.dumps(record(group)) + b"\n"
    digest = fleet.desk.cloud.artifacts.keep(content)
    bulk = start(fleet, f"artifact:{digest}")
    run(fleet)
    assert numbers(fleet, bulk) == ("Completed", 1, 0, 0)
    fleet.core_says(reports(fleet, bulk)[0], "Success")
    fleet.desk.change(lambda tx: register_object(tx, HOME, "s3://fleet/input.txt", digest, len(content)))
    bulk = start(fleet, "https://fleet.s3-eu-west-1.amazonaws.com/input.txt")
    run(fleet)
    assert numbers(fleet, bulk) == ("Completed", 1, 0, 0)


def test_who_may_not_deploy_a_group_may_not_do_it_in_bulk_either(fleet: Fleet) -> None:
    mine, other = groups(fleet, 2)
    forbidden = f"arn:aws:greengrass:{REGION}:{ACCOUNT}:/greengrass/groups/{other['GroupId']}"
    narrow = Principal("arn:n", "n", lambda action, arn: (action, arn) != ("greengrass:CreateDeployment", forbidden))
    content = orjson.dumps(record(mine)) + b"\n{\n" + orjson.dumps(record(other))
    digest = fleet.desk.cloud.artifacts.keep(content)
    fleet.desk.change(lambda tx: register_object(tx, HOME, "s3://fleet/both", digest, len(content)))
    for uri in (lines(content), f"artifact:{digest}", "s3://fleet/both"):
        asked = {"ExecutionRoleArn": ROLE, "InputFileUri": uri}
        fault = fleet.desk.refused("StartBulkDeployment", who=narrow, **asked)
        assert (fault.status, forbidden in fault.message) == (403, True)
    assert fleet.desk.call("ListBulkDeployments")["BulkDeployments"] == []
    bulk = start(fleet, "s3://fleet/later", who=narrow)
    fleet.desk.change(lambda tx: register_object(tx, HOME, "s3://fleet/later", digest, len(content)))
    run(fleet)
    assert numbers(fleet, bulk)[0] == "Failed", "what it leads to afterwards was never looked at"
    bulk = start(fleet, lines(record(mine)), who=narrow)
    run(fleet)
    assert numbers(fleet, bulk) == ("Completed", 1, 0, 0)


def test_an_address_that_leads_nowhere_fails_the_bulk_deployment(fleet: Fleet) -> None:
    bulk = start(fleet, "https://gg-group-deployment1.s3-us-west-2.amazonaws.com/Input.txt")
    run(fleet)
    found = status(fleet, bulk)
    assert found["BulkDeploymentStatus"] == "Failed"
    assert found["ErrorMessage"].startswith("There is no object https://gg-group-deployment1.s3")
    assert found["ErrorDetails"][0]["DetailedErrorMessage"] == found["ErrorMessage"]


def test_a_damaged_or_long_input_fails_the_bulk_deployment(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = fleet.desk.cloud.artifacts.keep(b"{}\n" * 10)
    for bound, text in (
        ("BULK_RECORDS_MAX", "10 records, expected at most 3"),
        ("BULK_INPUT_BYTES_MAX", "more than 3"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(bulk_steps, bound, 3)
            bulk = start(fleet, f"artifact:{digest}")
            run(fleet)
            assert text in status(fleet, bulk)["ErrorMessage"]
    path = fleet.desk.cloud.artifacts.path(digest)  # type: ignore[attr-defined]
    path.write_bytes(b"other")
    bulk = start(fleet, f"artifact:{digest}")
    run(fleet)
    assert "damaged" in status(fleet, bulk)["ErrorMessage"]


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("file:///etc/passwd", "Files of the server cannot be named."),
        ("file:input.txt", "Files of the server cannot be named."),
        ("/etc/passwd", "expected data:["),
        ("ftp://host/x", "expected data:["),
        ("http://host/x", "expected data:["),
        ("s3://", "expected data:["),
        ("artifact:../../etc/passwd", "expected data:["),
        (f"artifact:{'A' * 64}", "expected data:["),
        (f"artifact:{'0' * 64}", "expected the digest of an artifact that is kept here"),
        ("data:text/plain", "expected data:[<type>][;base64],<lines>"),
        ("data:;base64,!!!", "expected base64 behind the comma"),
        ("", "InputFileUri: found ''"),
    ],
)
def test_other_inputs_are_refused(fleet: Fleet, uri: str, text: str) -> None:
    fault = fleet.desk.refused("StartBulkDeployment", ExecutionRoleArn=ROLE, InputFileUri=uri)
    assert (fault.status, fault.code) == (400, "InvalidInputException")
    assert text in fault.message
    assert fleet.desk.call("ListBulkDeployments")["BulkDeployments"] == []


@pytest.mark.parametrize(
    "operation", ["GetBulkDeploymentStatus", "ListBulkDeploymentDetailedReports", "StopBulkDeployment"]
)
@pytest.mark.parametrize("bulk", [NOBODY, "..", "a/b", "\u202e"])
def test_unknown_ones_are_not_there(fleet: Fleet, operation: str, bulk: str) -> None:
    fault = fleet.desk.refused(operation, BulkDeploymentId=bulk)
    assert (fault.status, fault.message) == (404, f"Bulk deployment '{bulk}' does not exist.")


def test_a_role_is_a_role(fleet: Fleet) -> None:
    fault = fleet.desk.refused("StartBulkDeployment", ExecutionRoleArn="root", InputFileUri="data:,")
    assert fault.code == "InvalidInputException"


def test_reports_outlive_their_groups(fleet: Fleet) -> None:
    [group] = groups(fleet, 1)
    bulk = start(fleet, lines(record(group)))
    run(fleet)
    started = reports(fleet, bulk)[0]["DeploymentId"]
    fleet.desk.call("ResetDeployments", GroupId=group["GroupId"], Force=True)
    fleet.desk.call("DeleteGroup", GroupId=group["GroupId"])
    [found] = reports(fleet, bulk)
    assert found["DeploymentId"] == started and found["GroupArn"].endswith(group["GroupId"])


def test_the_oldest_go(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_steps, "BULK_KEPT_MAX", 2)
    started = []
    for at in range(4):
        started.append(start(fleet, lines(b"bad"), tags={"n": str(at)}))
        run(fleet)
    listed = fleet.desk.call("ListBulkDeployments")["BulkDeployments"]
    assert [entry["BulkDeploymentId"] for entry in listed] == started[2:]
    assert not fleet.desk.look(lambda tx: tx.count(bulk_steps.RESULTS, f"{HOME}/{started[0]}"))


def test_more_records_than_one_step_takes(fleet: Fleet) -> None:
    count = 2 * BULK_RECORDS_PER_STEP + 1
    bulk = start(
        fleet, lines(*[{"GroupId": f"g{at}", "GroupVersionId": "v", "DeploymentType": NEW} for at in range(count)])
    )
    run(fleet)
    assert numbers(fleet, bulk) == ("Completed", count, count, 0)


def test_a_running_control_plane_takes_the_steps_and_goes_on_after_a_restart(fleet: Fleet) -> None:
    wanted = groups(fleet, 3)
    left_over = start(fleet, lines(record(wanted[0])))

    async def finished(bulk: str) -> None:
        async with asyncio.timeout(30):
            while True:
                found = await fleet.desk.store.read(lambda tx: bulk_steps.load_bulk(tx, HOME, bulk))
                if found is not None and found["status"] == "Completed":
                    return
                await asyncio.sleep(0.01)

    async def serve() -> str:
        runner = BulkRunner(fleet.desk.store, fleet.desk.cloud)
        await runner.start()
        try:
            await finished(left_over)
            members = {"ExecutionRoleArn": ROLE, "InputFileUri": lines(*map(record, wanted[1:]))}
            operation = GREENGRASS.operations["StartBulkDeployment"]
            made = await fleet.desk.dispatcher.run(GREENGRASS, operation, members, ADMINISTRATOR, REGION)
            await finished(made.members["BulkDeploymentId"])
            return str(made.members["BulkDeploymentId"])
        finally:
            await runner.stop()
            await runner.stop()

    bulk = fleet.desk.runner.run(serve())
    assert numbers(fleet, left_over) == ("Completed", 1, 0, 0)
    assert numbers(fleet, bulk) == ("Completed", 2, 0, 0)
