"""What requests about jobs hold, and how jobs and executions look in answers (cloud-api 7)."""

from __future__ import annotations

from typing import Any, Final

from ggfast.cloud.jobs import notices, records
from ggfast.cloud.limits import JOB_DETAILS_MAX, JOB_TIMEOUT_MINUTES_MAX
from ggfast.cloud.shapes import Choice, Items, Member, Number, Record, Shape, Table, Text, Whole, Wrong, need
from ggfast.cloud.store.interface import Body, Transaction
from ggfast.shadows.topics import THING_NAME

JOB_ID: Final = Text(1, 64, r"[a-zA-Z0-9_-]+")
THING: Final = Text(1, 128, THING_NAME)
_PRINTED: Final = r"[^\x00-\x1f\x7f-\x9f]*"  # no control characters
DESCRIPTION: Final = Text(0, 2_028, _PRINTED)
COMMENT: Final = Text(0, 2_028, _PRINTED)
REASON: Final = Text(0, 128, r"[A-Z0-9_]*")
NAMESPACE: Final = Text(1, 128, r"[a-zA-Z0-9_-]+")
EXECUTION_STATUS: Final = Choice(*records.STATUSES)
MINUTES: Final = Whole(1, JOB_TIMEOUT_MINUTES_MAX)


class Between(Number):
    """A number within bounds."""

    def __init__(self, least: float, most: float) -> None:
        self.least, self.most = least, most
        self.expected = f"a number from {least} to {most}"

    def read(self, value: object, path: str) -> float:
        found = super().read(value, path)
        if not self.least <= found <= self.most:
            raise self.wrong(value, path)
        return found


class StepMinutes(Whole):
    """A step's time-out: minutes, or -1 to end the one there is."""

    def __init__(self) -> None:
        super().__init__(-1, JOB_TIMEOUT_MINUTES_MAX)
        self.expected = f"-1 or a whole number from 1 to {JOB_TIMEOUT_MINUTES_MAX}"

    def read(self, value: object, path: str) -> int:
        found = super().read(value, path)
        if found == 0:
            raise self.wrong(value, path)
        return found


class Details(Table):
    """An execution's status details."""

    def __init__(self) -> None:
        super().__init__(Text(1, JOB_DETAILS_MAX, _PRINTED), key=Text(1, 128, r"[a-zA-Z0-9:_-]+"))

    def read(self, value: object, path: str) -> dict[str, Any]:
        found = super().read(value, path)
        size = sum(len(name) + len(text) for name, text in found.items())
        if size > JOB_DETAILS_MAX:
            raise Wrong(path, f"{size} characters", f"at most {JOB_DETAILS_MAX} characters of names and values")
        return found


class OneOf(Record):
    """An object of which exactly one member is given."""

    def read(self, value: object, path: str) -> dict[str, Any]:
        found = super().read(value, path)
        if len(found) != 1:
            raise Wrong(path, f"{len(found)} members", "one of " + ", ".join(sorted(self.members)))
        return found


STEP_MINUTES: Final = StepMinutes()
DETAILS: Final = Details()
_COUNT: Final = Whole(1, 2**31 - 1)
_FAILURE: Final = ("FAILED", "TIMED_OUT", "ALL")
_ABORT: Final = Record(
    {
        "failureType": need(Choice(*_FAILURE, "REJECTED")),
        "action": need(Choice("CANCEL")),
        "thresholdPercentage": need(Between(0, 100)),
        "minNumberOfExecutedThings": need(_COUNT),
    }
)
_RETRY: Final = Record({"failureType": need(Choice(*_FAILURE)), "numberOfRetries": need(Whole(0, 10))})
_GROWTH: Final = Record(
    {
        "baseRatePerMinute": need(Whole(1, 1_000)),
        "incrementFactor": need(Between(1.1, 5)),
        "rateIncreaseCriteria": need(OneOf({"numberOfNotifiedThings": _COUNT, "numberOfSucceededThings": _COUNT})),
    }
)
SETTINGS: Final[dict[str, Shape | Member]] = {
    "presignedUrlConfig": Record({"roleArn": Text(20, 2_048), "expiresInSec": Whole(60, 3_600)}),
    "jobExecutionsRolloutConfig": Record({"maximumPerMinute": _COUNT, "exponentialRate": _GROWTH}),
    "abortConfig": Record({"criteriaList": need(Items(_ABORT, least=1))}),
    "timeoutConfig": Record({"inProgressTimeoutInMinutes": MINUTES}),
    "jobExecutionsRetryConfig": Record({"criteriaList": need(Items(_RETRY, least=1, most=2))}),
}

_COUNTED: Final = {
    "numberOfCanceledThings": "CANCELED",
    "numberOfSucceededThings": "SUCCEEDED",
    "numberOfFailedThings": "FAILED",
    "numberOfRejectedThings": "REJECTED",
    "numberOfQueuedThings": "QUEUED",
    "numberOfInProgressThings": "IN_PROGRESS",
    "numberOfRemovedThings": "REMOVED",
    "numberOfTimedOutThings": "TIMED_OUT",
}


def job_form(tx: Transaction, home: str, job: Body) -> dict[str, Any]:
    """A job as DescribeJob shows it, with how many things have come how far."""
    known = ("targets", "description", "comment", "reasonCode", "forceCanceled")
    progress: dict[str, Any] = {
        name: records.count(tx, home, job["jobId"], status) for name, status in _COUNTED.items()
    }
    if job["status"] == records.IN_PROGRESS and job["rolling"]:
        progress["processingTargets"] = job["targets"]
    members: dict[str, Any] = job_summary(job) | {name: job[name] for name in known if name in job} | job["settings"]
    members.pop("thingGroupId", None)
    return members | {"jobProcessDetails": progress}


def job_summary(job: Body) -> dict[str, Any]:
    """A job in a list."""
    members = {
        "jobArn": job["jobArn"],
        "jobId": job["jobId"],
        "targetSelection": job["targetSelection"],
        "status": job["status"],
        "createdAt": job["createdAt"],
        "lastUpdatedAt": job["lastUpdatedAt"],
        "isConcurrent": False,
    }
    if "completedAt" in job:
        members["completedAt"] = job["completedAt"]
    if len(job["groups"]) == 1:
        members["thingGroupId"] = next(iter(job["groups"].values()))
    return members


def execution_summary(execution: Body) -> dict[str, Any]:
    """An execution in a list of the IoT API."""
    members = {
        "status": execution["status"],
        "queuedAt": execution["queuedAt"],
        "lastUpdatedAt": execution["lastUpdatedAt"],
        "executionNumber": execution["number"],
        "retryAttempt": execution["attempt"],
    }
    return members | ({"startedAt": execution["startedAt"]} if "startedAt" in execution else {})


def execution_form(execution: Body, thing_arn: str, now: float) -> dict[str, Any]:
    """An execution as the IoT API's DescribeJobExecution shows it."""
    members = execution_summary(execution)
    del members["retryAttempt"]
    left = notices.seconds_left(execution, now)
    return members | {
        "jobId": execution["jobId"],
        "forceCanceled": execution.get("forceCanceled", False),
        "statusDetails": {"detailsMap": execution["details"]},
        "thingArn": thing_arn,
        "versionNumber": execution["version"],
        **({} if left is None else {"approximateSecondsBeforeTimedOut": left}),
    }
