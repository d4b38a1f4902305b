"""Jobs by the IoT API: making, changing, ending and listing them; rollout, aborts, retries, time-outs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud_shapes_check import conforms
from job_support import DOCUMENT, HOME, JobDesk, arn

from ggfast.cloud.jobs import records
from ggfast.cloud.jobs.creating import create_job


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[JobDesk]:
    found = JobDesk(tmp_path)
    yield found
    found.close()


def counts(desk: JobDesk, job_id: str = "j") -> dict[str, int]:
    """How many things are where, without the zeros."""
    details = desk.call("DescribeJob", jobId=job_id)["job"]["jobProcessDetails"]
    return {name[8:-6]: number for name, number in details.items() if name.startswith("number") and number}


def test_a_job_from_its_making_to_its_end(desk: JobDesk) -> None:
    made = desk.job("j", "t1", "t2", description="all of them", tags=[{"Key": "a", "Value": "b"}])
    conforms("iot", "CreateJob", made)
    assert made == {"jobArn": arn("j", "job"), "jobId": "j", "description": "all of them"}
    found = desk.call("DescribeJob", jobId="j")
    conforms("iot", "DescribeJob", found)
    assert found["job"]["targets"] == [arn("t1"), arn("t2")]
    assert (found["job"]["status"], found["job"]["targetSelection"]) == ("IN_PROGRESS", "SNAPSHOT")
    assert counts(desk) == {"Queued": 2}
    document = desk.call("GetJobDocument", jobId="j")
    conforms("iot", "GetJobDocument", document)
    assert document == {"document": DOCUMENT}
    assert desk.call("ListTagsForResource", resourceArn=made["jobArn"])["tags"] == [{"Key": "a", "Value": "b"}]
    desk.report("t1", "IN_PROGRESS")
    desk.report("t1", "SUCCEEDED")
    assert (desk.job_status(), counts(desk)) == ("IN_PROGRESS", {"Succeeded": 1, "Queued": 1})
    desk.clock.now += 5
    desk.report("t2", "FAILED")
    job = desk.call("DescribeJob", jobId="j")["job"]
    assert (job["status"], job["completedAt"]) == ("COMPLETED", desk.clock.now)
    assert counts(desk) == {"Succeeded": 1, "Failed": 1}


def test_settings_are_kept_and_changed(desk: JobDesk) -> None:
    settings: dict[str, Any] = {
        "presignedUrlConfig": {"roleArn": "arn:aws:iam::123456789012:role/r", "expiresInSec": 3600},
        "jobExecutionsRolloutConfig": {"maximumPerMinute": 5},
        "abortConfig": {
            "criteriaList": [
                {
                    "failureType": "ALL",
                    "action": "CANCEL",
                    "thresholdPercentage": 12.5,
                    "minNumberOfExecutedThings": 2,
                }
            ]
        },
        "timeoutConfig": {"inProgressTimeoutInMinutes": 3},
        "jobExecutionsRetryConfig": {"criteriaList": [{"failureType": "FAILED", "numberOfRetries": 2}]},
    }
    desk.job("j", "t1", namespaceId="n", **settings)
    job = desk.call("DescribeJob", jobId="j")["job"]
    conforms("iot", "DescribeJob", {"job": job})
    assert {name: job[name] for name in settings} == settings
    assert job["namespaceId"] == "n"
    changed = desk.call("UpdateJob", jobId="j", description="new", timeoutConfig={"inProgressTimeoutInMinutes": 9})
    conforms("iot", "UpdateJob", changed)
    job = desk.call("DescribeJob", jobId="j")["job"]
    assert (job["description"], job["timeoutConfig"]) == ("new", {"inProgressTimeoutInMinutes": 9})
    assert job["abortConfig"] == settings["abortConfig"]
    desk.call("CancelJob", jobId="j", force=True)
    assert desk.refused("UpdateJob", jobId="j", description="x").code == "InvalidRequestException"


@pytest.mark.parametrize(
    ("members", "code", "status"),
    [
        ({"targets": []}, "InvalidRequestException", 400),
        ({"targets": ["t1"]}, "InvalidRequestException", 400),
        ({"targets": [arn("t1").replace("eu-west-1", "us-east-1")]}, "InvalidRequestException", 400),
        ({"targets": [arn("t1").replace("123456789012", "000000000000")]}, "InvalidRequestException", 400),
        ({"targets": [arn("nobody")]}, "ResourceNotFoundException", 404),
        ({"targets": [arn("nobody", "thinggroup")]}, "ResourceNotFoundException", 404),
        ({"targets": [arn(f"x{number}") for number in range(101)]}, "LimitExceededException", 410),
        ({"document": "{"}, "InvalidRequestException", 400),
        ({"document": '"' + "x" * 32_768 + '"'}, "InvalidRequestException", 400),
        ({"document": None}, "InvalidRequestException", 400),
        ({"documentSource": "https://s3.amazonaws.com/b/k"}, "InvalidRequestException", 400),
        ({"jobTemplateArn": "arn:aws:iot:eu-west-1:123456789012:jobtemplate/x"}, "InvalidRequestException", 400),
        ({"schedulingConfig": {"startTime": "2030-01-01T00:00"}}, "InvalidRequestException", 400),
        ({"documentParameters": {"a": "b"}}, "InvalidRequestException", 400),
        ({"jobId": "a/b"}, "InvalidRequestException", 400),
        ({"jobId": "$next"}, "InvalidRequestException", 400),
        ({"jobId": ""}, "InvalidRequestException", 400),
        ({"timeoutConfig": {"inProgressTimeoutInMinutes": 0}}, "InvalidRequestException", 400),
        ({"timeoutConfig": {"inProgressTimeoutInMinutes": 10_081}}, "InvalidRequestException", 400),
        ({"abortConfig": {"criteriaList": []}}, "InvalidRequestException", 400),
        ({"jobExecutionsRetryConfig": {"criteriaList": [{"failureType": "ALL"}]}}, "InvalidRequestException", 400),
        ({"jobExecutionsRolloutConfig": {"maximumPerMinute": 0}}, "InvalidRequestException", 400),
        ({"unknown": 1}, "InvalidRequestException", 400),
    ],
)
def test_what_makes_no_job(desk: JobDesk, members: dict[str, Any], code: str, status: int) -> None:
    given = {"jobId": "j", "targets": [arn("t1")], "document": DOCUMENT} | members
    fault = desk.refused("CreateJob", **given)
    assert (fault.code, fault.status) == (code, status)
    assert desk.call("ListJobs")["jobs"] == []


def test_an_id_is_taken_once(desk: JobDesk) -> None:
    desk.job()
    fault = desk.refused("CreateJob", jobId="j", targets=[arn("t2")], document=DOCUMENT)
    assert (fault.code, fault.status) == ("ResourceAlreadyExistsException", 409)
    assert fault.members == {"resourceId": "j", "resourceArn": arn("j", "job")}


@pytest.mark.parametrize("operation", ["DescribeJob", "GetJobDocument", "UpdateJob", "CancelJob", "DeleteJob"])
def test_a_job_that_does_not_exist(desk: JobDesk, operation: str) -> None:
    fault = desk.refused(operation, jobId="nothing")
    assert (fault.code, fault.status) == ("ResourceNotFoundException", 404)
    assert desk.refused("ListJobExecutionsForJob", jobId="nothing").status == 404


def test_canceling_spares_what_is_in_progress_unless_forced(desk: JobDesk) -> None:
    desk.job("j", "t1", "t2")
    desk.report("t1", "IN_PROGRESS")
    canceled = desk.call("CancelJob", jobId="j", reasonCode="WRONG", comment="not now")
    conforms("iot", "CancelJob", canceled)
    job = desk.call("DescribeJob", jobId="j")["job"]
    conforms("iot", "DescribeJob", {"job": job})
    assert (job["status"], job["reasonCode"], job["comment"]) == ("CANCELED", "WRONG", "not now")
    assert (desk.status("t1"), desk.status("t2")) == ("IN_PROGRESS", "CANCELED")
    assert desk.refused("CancelJob", jobId="j").code == "InvalidRequestException"
    desk.call("CancelJob", jobId="j", force=True)
    execution = desk.call("DescribeJobExecution", service="iot", thingName="t1", jobId="j")["execution"]
    assert (execution["status"], execution["forceCanceled"]) == ("CANCELED", True)
    assert desk.refused("CancelJob", jobId="j", force=True).status == 400


def test_deleting(desk: JobDesk) -> None:
    desk.job("j", "t1", "t2", tags=[{"Key": "a"}])
    fault = desk.refused("DeleteJob", jobId="j")
    assert (fault.code, fault.status) == ("InvalidStateTransitionException", 409)
    desk.report("t1", "SUCCEEDED")
    desk.told()
    conforms("iot", "DeleteJob", desk.call("DeleteJob", jobId="j", force=True))
    assert desk.told("t2")[-1][0] == "notify-next"
    assert desk.refused("DescribeJob", jobId="j").status == 404
    assert desk.call("ListJobExecutionsForThing", thingName="t1")["executionSummaries"] == []
    assert desk.device("GetPendingJobExecutions", thingName="t2")["queuedJobs"] == []
    assert desk.look(lambda tx: tx.count(records.MEMBERS, f"{HOME}/j")) == 0
    desk.job("j", "t1")  # the name is free again, and nothing of the old one is left
    assert counts(desk) == {"Queued": 1}


def test_lists_of_jobs(desk: JobDesk) -> None:
    for number in range(5):
        desk.job(f"j{number}", "t1")
        desk.clock.now += 1
    desk.job("grouped", targets=[arn("g", "thinggroup")], targetSelection="CONTINUOUS")
    desk.call("CancelJob", jobId="j3")
    page = desk.call("ListJobs", maxResults=4)
    conforms("iot", "ListJobs", page)
    assert [job["jobId"] for job in page["jobs"]] == ["grouped", "j4", "j3", "j2"]
    everything = desk.all("ListJobs", "jobs", "nextToken", maxResults=2)
    assert [job["jobId"] for job in everything] == ["grouped", "j4", "j3", "j2", "j1", "j0"]

    def ids(**members: Any) -> list[str]:
        return [job["jobId"] for job in desk.call("ListJobs", **members)["jobs"]]

    group_id = desk.call("DescribeThingGroup", thingGroupName="g")["thingGroupId"]
    assert ids(status="CANCELED") == ["j3"]
    assert ids(status="COMPLETED") == []
    assert ids(targetSelection="CONTINUOUS") == ids(thingGroupName="g") == ids(thingGroupId=group_id) == ["grouped"]
    assert ids(targetSelection="CONTINUOUS", status="CANCELED") == []
    assert ids(region="us-east-1") == []
    assert desk.refused("ListJobs", thingGroupName="g", thingGroupId=group_id).status == 400
    assert desk.refused("ListJobs", nextToken="x").status == 400
    assert desk.refused("ListJobs", status="ODD").status == 400


def test_rollout_keeps_to_its_rate(desk: JobDesk) -> None:
    desk.clock.now = 1_790_000_040.0  # the beginning of a minute
    desk.job("j", "t1", "t2", "t3", jobExecutionsRolloutConfig={"maximumPerMinute": 1})
    assert counts(desk) == {"Queued": 1}
    desk.report("t1", "SUCCEEDED")
    assert desk.job_status() == "IN_PROGRESS", "two things have not had their turn"
    assert (desk.tick(), desk.tick(30)) == (0, 0)
    assert (desk.tick(30), desk.tick()) == (1, 0)
    assert counts(desk) == {"Succeeded": 1, "Queued": 1}
    assert desk.tick(60) == 1
    assert desk.tick(60) == 0
    for thing in ("t2", "t3"):
        desk.report(thing, "SUCCEEDED")
    assert desk.job_status() == "COMPLETED"


def test_exponential_rollout(desk: JobDesk) -> None:
    growth = {"baseRatePerMinute": 1, "incrementFactor": 2, "rateIncreaseCriteria": {"numberOfNotifiedThings": 1}}
    things = ("t1", "t2", "t3", "t4")
    desk.job("j", *things, jobExecutionsRolloutConfig={"exponentialRate": growth, "maximumPerMinute": 100})
    assert counts(desk) == {"Queued": 1}
    assert desk.tick(60) == 2
    assert desk.tick(60) == 1
    one = {**growth, "rateIncreaseCriteria": {"numberOfSucceededThings": 1}}
    desk.job("k", *things, jobExecutionsRolloutConfig={"exponentialRate": one})
    assert desk.tick(60) == 1
    desk.report("t1", "SUCCEEDED", "k")
    assert desk.tick(60) == 2
    both = {**growth, "rateIncreaseCriteria": {"numberOfSucceededThings": 1, "numberOfNotifiedThings": 1}}
    given = {"jobId": "l", "targets": [arn("t1")], "document": DOCUMENT}
    assert desk.refused("CreateJob", **given, jobExecutionsRolloutConfig={"exponentialRate": both}).status == 400


def test_a_group_at_one_moment_or_continuously(desk: JobDesk) -> None:
    desk.job("once", targets=[arn("g", "thinggroup"), arn("t1")])
    desk.job("always", targets=[arn("g", "thinggroup")], targetSelection="CONTINUOUS")
    assert counts(desk, "once") == counts(desk, "always") == {"Queued": 2}
    for thing in ("t1", "t2"):
        desk.report(thing, "SUCCEEDED", "once")
        desk.report(thing, "IN_PROGRESS", "always")
    assert (desk.job_status("once"), desk.job_status("always")) == ("COMPLETED", "IN_PROGRESS")
    desk.call("AddThingToThingGroup", thingGroupName="g", thingName="t3")
    desk.call("RemoveThingFromThingGroup", thingGroupName="g", thingName="t1")
    desk.tick(60)
    assert counts(desk, "always") == {"Queued": 1, "InProgress": 1, "Removed": 1}
    assert (desk.status("t3", "always"), desk.status("t1", "always")) == ("QUEUED", "REMOVED")
    desk.call("AddThingToThingGroup", thingGroupName="g", thingName="t1")
    desk.tick(60)
    execution = desk.call("DescribeJobExecution", service="iot", thingName="t1", jobId="always")["execution"]
    assert (execution["status"], execution["executionNumber"]) == ("QUEUED", 2)
    assert counts(desk, "once") == {"Succeeded": 2}


def test_things_that_leave_may_abort_a_continuous_job(desk: JobDesk) -> None:
    criteria = {"failureType": "ALL", "action": "CANCEL", "thresholdPercentage": 50, "minNumberOfExecutedThings": 2}
    group = [arn("g", "thinggroup")]
    desk.job("j", targets=group, targetSelection="CONTINUOUS", abortConfig={"criteriaList": [criteria]})
    desk.report("t1", "FAILED")
    desk.call("RemoveThingFromThingGroup", thingGroupName="g", thingName="t2")
    desk.tick(60)
    assert (desk.job_status(), desk.tick(60)) == ("CANCELED", 0)


def test_a_snapshot_of_an_empty_group_is_complete(desk: JobDesk) -> None:
    desk.call("CreateThingGroup", thingGroupName="empty")
    desk.job("j", targets=[arn("empty", "thinggroup")])
    assert desk.job_status() == "COMPLETED"


def test_too_many_failures_abort(desk: JobDesk) -> None:
    criteria = {
        "failureType": "FAILED",
        "action": "CANCEL",
        "thresholdPercentage": 50,
        "minNumberOfExecutedThings": 2,
    }
    desk.job("j", "t1", "t2", "t3", "t4", abortConfig={"criteriaList": [criteria]})
    desk.report("t4", "IN_PROGRESS")
    desk.report("t1", "FAILED")
    assert desk.job_status() == "IN_PROGRESS", "one thing is less than the least number"
    desk.report("t2", "REJECTED")
    job = desk.call("DescribeJob", jobId="j")["job"]
    assert (job["status"], job["reasonCode"]) == ("CANCELED", "ABORT_CRITERIA_MET")
    assert (desk.status("t3"), desk.status("t4")) == ("CANCELED", "IN_PROGRESS")


def test_rejections_do_not_count_as_failures(desk: JobDesk) -> None:
    criteria = {"failureType": "FAILED", "action": "CANCEL", "thresholdPercentage": 1, "minNumberOfExecutedThings": 1}
    desk.job("j", "t1", "t2", abortConfig={"criteriaList": [criteria]})
    desk.report("t1", "REJECTED")
    assert desk.job_status() == "IN_PROGRESS"


def test_failures_are_tried_again_as_often_as_said(desk: JobDesk) -> None:
    desk.job("j", "t1", jobExecutionsRetryConfig={"criteriaList": [{"failureType": "FAILED", "numberOfRetries": 2}]})
    for attempt in range(3):
        summaries = desk.call("ListJobExecutionsForThing", thingName="t1")["executionSummaries"]
        newest = summaries[0]["jobExecutionSummary"]
        assert (newest["retryAttempt"], newest["executionNumber"]) == (attempt, attempt + 1)
        assert (len(summaries), counts(desk), desk.job_status()) == (attempt + 1, {"Queued": 1}, "IN_PROGRESS")
        desk.report("t1", "FAILED")
    assert (counts(desk), desk.job_status()) == ({"Failed": 1}, "COMPLETED")
    desk.job("k", "t1", jobExecutionsRetryConfig={"criteriaList": [{"failureType": "ALL", "numberOfRetries": 1}]})
    desk.report("t1", "REJECTED", "k")
    assert desk.job_status("k") == "COMPLETED", "a device that refuses is not asked again"


def test_time_outs(desk: JobDesk) -> None:
    desk.job("j", "t1", "t2", timeoutConfig={"inProgressTimeoutInMinutes": 10})
    desk.report("t1", "IN_PROGRESS")
    desk.report("t2", "IN_PROGRESS", stepTimeoutInMinutes=1)
    execution = desk.call("DescribeJobExecution", service="iot", thingName="t2", jobId="j")["execution"]
    assert execution["approximateSecondsBeforeTimedOut"] == 60
    assert desk.tick(59) == 0
    desk.report("t2", "IN_PROGRESS", stepTimeoutInMinutes=2)  # a step's time begins anew
    assert desk.tick(119) == 0
    assert desk.tick(1) == 1
    assert (desk.status("t1"), desk.status("t2")) == ("IN_PROGRESS", "TIMED_OUT")
    assert desk.tick(600) == 1
    assert (counts(desk), desk.job_status(), desk.tick(60)) == ({"TimedOut": 2}, "COMPLETED", 0)


def test_a_step_time_out_can_be_ended(desk: JobDesk) -> None:
    desk.job("j", "t1")
    desk.report("t1", "IN_PROGRESS", stepTimeoutInMinutes=1)
    desk.report("t1", "IN_PROGRESS", stepTimeoutInMinutes=-1)
    assert (desk.tick(10_000), desk.status()) == (0, "IN_PROGRESS")


def test_a_time_out_may_be_tried_again(desk: JobDesk) -> None:
    retry = {"criteriaList": [{"failureType": "TIMED_OUT", "numberOfRetries": 1}]}
    desk.job("j", "t1", timeoutConfig={"inProgressTimeoutInMinutes": 1}, jobExecutionsRetryConfig=retry)
    desk.report("t1", "IN_PROGRESS")
    desk.tick(60)
    assert (desk.status(), counts(desk)) == ("QUEUED", {"Queued": 1})


def test_executions_of_the_owner(desk: JobDesk) -> None:
    desk.job("j", "t1", "t2", "t3")
    found = desk.call("DescribeJobExecution", service="iot", thingName="t1", jobId="j", executionNumber=1)
    conforms("iot", "DescribeJobExecution", found)
    assert found["execution"]["thingArn"] == arn("t1")
    page = desk.call("ListJobExecutionsForJob", jobId="j", maxResults=2)
    conforms("iot", "ListJobExecutionsForJob", page)
    assert len(desk.all("ListJobExecutionsForJob", "executionSummaries", "nextToken", jobId="j", maxResults=1)) == 3
    desk.report("t1", "IN_PROGRESS")
    running = desk.call("ListJobExecutionsForJob", jobId="j", status="IN_PROGRESS")["executionSummaries"]
    assert [entry["thingArn"] for entry in running] == [arn("t1")]
    conforms("iot", "ListJobExecutionsForJob", {"executionSummaries": running})
    of_thing = desk.call("ListJobExecutionsForThing", thingName="t1", status="IN_PROGRESS", jobId="j")
    conforms("iot", "ListJobExecutionsForThing", of_thing)
    assert len(of_thing["executionSummaries"]) == 1
    assert desk.call("ListJobExecutionsForThing", thingName="t1", status="QUEUED")["executionSummaries"] == []
    assert desk.refused("ListJobExecutionsForThing", thingName="t1", nextToken="x").status == 400

    fault = desk.refused("CancelJobExecution", thingName="t1", jobId="j")
    assert (fault.code, fault.status) == ("InvalidStateTransitionException", 409)
    fault = desk.refused("CancelJobExecution", thingName="t1", jobId="j", force=True, expectedVersion=1)
    assert (fault.code, fault.status) == ("VersionConflictException", 409)
    given = {"thingName": "t1", "jobId": "j", "force": True, "expectedVersion": 2, "statusDetails": {"why": "so"}}
    conforms("iot", "CancelJobExecution", desk.call("CancelJobExecution", **given))
    execution = desk.call("DescribeJobExecution", service="iot", thingName="t1", jobId="j")["execution"]
    assert (execution["status"], execution["statusDetails"]) == ("CANCELED", {"detailsMap": {"why": "so"}})
    assert desk.refused("CancelJobExecution", thingName="t1", jobId="j").code == "InvalidStateTransitionException"

    fault = desk.refused("DeleteJobExecution", thingName="t2", jobId="j", executionNumber=1)
    assert (fault.code, fault.status) == ("InvalidStateTransitionException", 409)
    conforms("iot", "DeleteJobExecution", desk.call("DeleteJobExecution", thingName="t1", jobId="j", executionNumber=1))
    for thing in ("t2", "t3"):
        desk.call("DeleteJobExecution", thingName=thing, jobId="j", executionNumber=1, force=True)
    assert desk.job_status() == "COMPLETED"
    for operation in ("CancelJobExecution", "DeleteJobExecution"):
        members = {"executionNumber": 1} if operation == "DeleteJobExecution" else {}
        fault = desk.refused(operation, thingName="t1", jobId="j", **members)
        assert (fault.code, fault.status) == ("ResourceNotFoundException", 404)
    assert desk.refused("DescribeJobExecution", service="iot", thingName="t1", jobId="j").status == 404


def test_other_parts_of_the_cloud_make_jobs_too(desk: JobDesk) -> None:
    job = desk.change(lambda tx: create_job(tx, desk.cloud, HOME, "own", [arn("t1")], "{}", description="d"))
    assert (job["jobId"], job["jobArn"]) == ("own", arn("own", "job"))
    assert desk.status("t1", "own") == "QUEUED"
