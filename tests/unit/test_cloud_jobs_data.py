"""Jobs as devices see them: the state machine, HTTP and MQTT alike, notices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud_desk import ACCOUNT, REGION
from cloud_shapes_check import conforms
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from job_support import DOCUMENT, JobDesk, arn

from ggfast.cloud.jobs import topics
from ggfast.cloud.limits import JOB_NOTIFY_MAX, JOB_REQUEST_BYTES_MAX
from ggfast.cloud.operations import Principal

ENDS = ("SUCCEEDED", "FAILED", "REJECTED")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[JobDesk]:
    found = JobDesk(tmp_path)
    yield found
    found.close()


def refused(desk: JobDesk, operation: str, **members: Any) -> tuple[str, int]:
    fault = desk.refused(operation, service="iot-jobs-data", **members)
    return fault.code, fault.status


def test_work_from_the_list_to_its_end(desk: JobDesk) -> None:
    for job_id in ("j1", "j2"):
        desk.job(job_id)
    listed = desk.device("GetPendingJobExecutions", thingName="t1")
    conforms("iot-jobs-data", "GetPendingJobExecutions", listed)
    assert [entry["jobId"] for entry in listed["queuedJobs"]] == ["j1", "j2"]
    started = desk.device("StartNextPendingJobExecution", thingName="t1", statusDetails={"step": "one"})
    conforms("iot-jobs-data", "StartNextPendingJobExecution", started)
    execution = started["execution"]
    assert (execution["jobId"], execution["status"], execution["versionNumber"]) == ("j1", "IN_PROGRESS", 2)
    assert (execution["statusDetails"], execution["jobDocument"]) == ({"step": "one"}, DOCUMENT)
    again = desk.device("StartNextPendingJobExecution", thingName="t1", statusDetails={"step": "other"})
    assert again == started, "what is in progress stays as it is"
    found = desk.device("DescribeJobExecution", thingName="t1", jobId="$next", includeJobDocument=True)
    conforms("iot-jobs-data", "DescribeJobExecution", found)
    assert found == started
    assert "jobDocument" not in desk.device("DescribeJobExecution", thingName="t1", jobId="j1")["execution"]
    updated = desk.report(
        "t1",
        "SUCCEEDED",
        "j1",
        statusDetails={"a": "b"},
        expectedVersion=2,
        includeJobExecutionState=True,
        includeJobDocument=True,
        executionNumber=1,
    )
    conforms("iot-jobs-data", "UpdateJobExecution", updated)
    assert updated == {
        "executionState": {"status": "SUCCEEDED", "versionNumber": 3, "statusDetails": {"a": "b"}},
        "jobDocument": DOCUMENT,
    }
    assert desk.device("DescribeJobExecution", thingName="t1", jobId="$next")["execution"]["jobId"] == "j2"
    desk.report("t1", "REJECTED", "j2")
    for operation, members in (("StartNextPendingJobExecution", {}), ("DescribeJobExecution", {"jobId": "$next"})):
        assert desk.device(operation, thingName="t1", **members) == {}
    assert desk.device("GetPendingJobExecutions", thingName="t1") == {"inProgressJobs": [], "queuedJobs": []}


@pytest.mark.parametrize("first", ["QUEUED", "IN_PROGRESS", *ENDS, "CANCELED", "TIMED_OUT", "REMOVED"])
@pytest.mark.parametrize("then", ["QUEUED", "IN_PROGRESS", *ENDS, "CANCELED", "TIMED_OUT", "REMOVED"])
def test_every_step_between_two_statuses(desk: JobDesk, first: str, then: str) -> None:
    desk.job("j", targets=[arn("g", "thinggroup")], targetSelection="CONTINUOUS")
    if first in ("IN_PROGRESS", *ENDS):
        desk.report("t1", first)
    elif first == "CANCELED":
        desk.call("CancelJobExecution", thingName="t1", jobId="j")
    elif first == "TIMED_OUT":
        desk.report("t1", "IN_PROGRESS", stepTimeoutInMinutes=1)
        desk.tick(60)
    elif first == "REMOVED":
        desk.call("RemoveThingFromThingGroup", thingGroupName="g", thingName="t1")
        desk.tick(60)
    assert desk.status() == first
    if then not in ("IN_PROGRESS", *ENDS):
        assert refused(desk, "UpdateJobExecution", thingName="t1", jobId="j", status=then) == (
            "InvalidRequestException",
            400,
        )
        assert desk.status() == first
    elif first in ("QUEUED", "IN_PROGRESS"):
        assert desk.report("t1", then) == {}
        assert desk.status() == then
    else:
        fault = desk.refused("UpdateJobExecution", service="iot-jobs-data", thingName="t1", jobId="j", status=then)
        assert (fault.code, fault.status) == ("InvalidStateTransitionException", 409)
        assert fault.members["executionState"]["status"] == first
        assert desk.status() == first


def test_refusals(desk: JobDesk) -> None:
    desk.job()
    known = {"thingName": "t1", "jobId": "j"}
    assert refused(desk, "UpdateJobExecution", **known, status="IN_PROGRESS", expectedVersion=7) == (
        "VersionConflictException",
        409,
    )
    for other in ({"jobId": "x"}, {"thingName": "t9"}, {"executionNumber": 2}):
        assert refused(desk, "UpdateJobExecution", **{**known, **other}, status="FAILED") == (
            "ResourceNotFoundException",
            404,
        )
        assert refused(desk, "DescribeJobExecution", **{**known, **other}) == ("ResourceNotFoundException", 404)
    for odd in (
        {"status": "WHAT"},
        {"status": "FAILED", "statusDetails": {"a b": "c"}},
        {"status": "FAILED", "statusDetails": {"a": ""}},
        {"status": "FAILED", "statusDetails": {f"k{number}": "x" * 1_000 for number in range(40)}},
        {"status": "IN_PROGRESS", "stepTimeoutInMinutes": 0},
        {"status": "IN_PROGRESS", "stepTimeoutInMinutes": 10_081},
        {"status": "IN_PROGRESS", "executionNumber": 0},
        {"status": "IN_PROGRESS", "unknown": 1},
        {},
    ):
        assert refused(desk, "UpdateJobExecution", **known, **odd) == ("InvalidRequestException", 400)
    desk.report("t1", "SUCCEEDED")
    assert refused(desk, "DescribeJobExecution", **known) == ("TerminalStateException", 410)
    assert refused(desk, "GetPendingJobExecutions", thingName="a/b") == ("InvalidRequestException", 400)
    assert desk.device("GetPendingJobExecutions", thingName="nobody")["queuedJobs"] == []


def test_permission_is_asked_for_the_thing(desk: JobDesk) -> None:
    asked = []

    def allows(action: str, resource: str) -> bool:
        asked.append((action, resource))
        return False

    who = Principal("arn:aws:iam::1:user/u", "A", allows)
    for operation, members in (
        ("GetPendingJobExecutions", {}),
        ("StartNextPendingJobExecution", {}),
        ("DescribeJobExecution", {"jobId": "j"}),
        ("UpdateJobExecution", {"jobId": "j", "status": "FAILED"}),
    ):
        fault = desk.refused(operation, service="iot-jobs-data", who=who, thingName="t1", **members)
        assert fault.status == 403
        assert asked[-1] == (f"iotjobsdata:{operation}", f"arn:aws:iot:{REGION}:{ACCOUNT}:thing/t1")


def answers(desk: JobDesk, topic: str, payload: object = None) -> tuple[str, dict[str, Any]]:
    """The one answer to a device's message, without notices."""
    desk.events.clear()
    desk.send(topic, payload)
    found = [told for told in desk.told() if told[0] not in ("notify", "notify-next")]
    assert len(found) == 1, found
    return found[0]


def test_by_mqtt_as_by_http(desk: JobDesk) -> None:
    now = int(desk.clock.now)
    extra = {"timestamp": now, "clientToken": "t"}
    desk.job("j")
    pending = desk.device("GetPendingJobExecutions", thingName="t1")
    assert answers(desk, "get", {"clientToken": "t"}) == ("get/accepted", pending | extra)
    described = desk.device("DescribeJobExecution", thingName="t1", jobId="j")["execution"]
    shown = described | {"jobDocument": json.loads(DOCUMENT)}  # by MQTT the document comes unless it is declined
    assert answers(desk, "j/get", {"clientToken": "t"}) == ("j/get/accepted", {"execution": shown} | extra)
    assert answers(desk, "$next/get", {"clientToken": "t"})[1] == {"execution": shown} | extra
    plain = answers(desk, "j/get", {"clientToken": "t", "includeJobDocument": False})
    assert plain[1] == {"execution": described} | extra
    topic, started = answers(desk, "start-next", {"clientToken": "t", "statusDetails": {"a": "b"}})
    assert (topic, started["execution"]["status"]) == ("start-next/accepted", "IN_PROGRESS")
    assert started["execution"]["jobDocument"] == json.loads(DOCUMENT)
    again = desk.device("StartNextPendingJobExecution", thingName="t1")["execution"]
    assert started["execution"] == again | {"jobDocument": json.loads(DOCUMENT)}
    asked = {
        "status": "SUCCEEDED",
        "expectedVersion": "2",  # as text, the way AWSIoTPythonSDK sends numbers
        "executionNumber": "1",
        "includeJobExecutionState": True,
        "includeJobDocument": True,
        "clientToken": "t",
        "somethingNew": 1,
    }
    state = {"status": "SUCCEEDED", "versionNumber": 3, "statusDetails": {"a": "b"}}
    assert answers(desk, "j/update", asked) == (
        "j/update/accepted",
        {"executionState": state, "jobDocument": json.loads(DOCUMENT)} | extra,
    )
    assert answers(desk, "start-next") == ("start-next/accepted", {"timestamp": now})
    assert answers(desk, "$next/get") == ("$next/get/accepted", {"timestamp": now})


def test_refusals_by_mqtt(desk: JobDesk) -> None:
    desk.job()

    def code(topic: str, payload: object = None) -> str:
        told, message = answers(desk, topic, payload)
        assert told == f"{topic}/rejected"
        assert message["timestamp"] == int(desk.clock.now)
        assert message["message"]
        return str(message["code"])

    assert code("j/get", b"{") == "InvalidJson"
    assert code("j/get", b"\xff") == "InvalidJson"
    assert code("j/get", []) == "InvalidRequest"
    assert code("j/get", b" " * (JOB_REQUEST_BYTES_MAX + 1)) == "InvalidRequest"
    assert code("get", {"clientToken": 5}) == "InvalidRequest"
    assert code("x/get") == "ResourceNotFound"
    assert code("j/update", {}) == "InvalidRequest"
    assert code("j/update", {"status": "QUEUED"}) == "InvalidRequest"
    assert code("j/update", {"status": "FAILED", "expectedVersion": "a"}) == "InvalidRequest"
    topic, message = answers(desk, "j/update", {"status": "FAILED", "expectedVersion": 7, "clientToken": "t"})
    assert (topic, message["code"], message["clientToken"]) == ("j/update/rejected", "VersionMismatch", "t")
    assert message["executionState"] == {"status": "QUEUED", "versionNumber": 1}
    desk.report("t1", "FAILED")
    assert code("j/update", {"status": "IN_PROGRESS"}) == "InvalidStateTransition"
    assert code("j/get") == "TerminalStateReached"


@pytest.mark.parametrize(
    "topic", ["get/accepted", "notify", "$next/update", "a/b/get", "j/other", "", "j/update/rejected"]
)
def test_other_topics_ask_for_nothing(desk: JobDesk, topic: str) -> None:
    assert not topics.is_request(f"$aws/things/t1/jobs/{topic}")
    desk.send(topic, {"status": "FAILED"})
    assert desk.events == []


def test_notices(desk: JobDesk) -> None:
    now = int(desk.clock.now)
    desk.job("j1")
    summary = {"jobId": "j1", "queuedAt": now, "lastUpdatedAt": now, "versionNumber": 1, "executionNumber": 1}
    execution = summary | {"thingName": "t1", "status": "QUEUED", "jobDocument": json.loads(DOCUMENT)}
    assert desk.told() == [
        ("notify", {"timestamp": now, "jobs": {"QUEUED": [summary]}}),
        ("notify-next", {"timestamp": now, "execution": execution}),
    ]
    desk.job("j2")
    assert [topic for topic, _ in desk.told()] == ["notify"], "the next one is still the first"
    desk.report("t1", "IN_PROGRESS", "j2")
    (_, listed), (topic, following) = desk.told()
    assert list(listed["jobs"]) == ["IN_PROGRESS", "QUEUED"]
    assert (topic, following["execution"]["jobId"]) == ("notify-next", "j2")
    desk.report("t1", "IN_PROGRESS", "j2", statusDetails={"a": "b"})
    assert desk.told() == [], "details change no list"
    desk.report("t1", "SUCCEEDED", "j2")
    assert [topic for topic, _ in desk.told()] == ["notify", "notify-next"]
    desk.call("CancelJob", jobId="j1")
    assert desk.told() == [("notify", {"timestamp": now, "jobs": {}}), ("notify-next", {"timestamp": now})]
    for number in range(JOB_NOTIFY_MAX + 2):
        desk.events.clear()
        desk.job(f"many{number}")
    assert desk.told() == [], "what lies behind the end of the list is not told"
    assert len(desk.device("GetPendingJobExecutions", thingName="t1")["queuedJobs"]) == JOB_NOTIFY_MAX + 2


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda below: st.lists(below, max_size=2) | st.dictionaries(st.text(max_size=3), below, max_size=2),
    max_leaves=6,
)
requests = st.binary(max_size=40) | st.dictionaries(
    st.sampled_from(["status", "statusDetails", "expectedVersion", "executionNumber", "clientToken", "x"]),
    values | st.sampled_from(["IN_PROGRESS", "FAILED"]),
).map(lambda value: json.dumps(value).encode())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["get", "start-next", "j/get", "j/update", "$next/get"]), requests)
def test_p7_every_message_is_answered_once(desk: JobDesk, topic: str, payload: bytes) -> None:
    if not desk.call("ListJobs")["jobs"]:
        desk.job()
    told, _ = answers(desk, topic, payload)
    assert told in (f"{topic}/accepted", f"{topic}/rejected")
