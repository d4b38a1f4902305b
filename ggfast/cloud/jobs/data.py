"""What devices do with their executions, by HTTP or MQTT alike (cloud-api 8).

The functions answer in the form of MQTT messages: times in whole seconds, job documents as JSON. Each raises Fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from ggfast.cloud.faults import Fault
from ggfast.cloud.jobs import executions, notices, records
from ggfast.cloud.jobs.forms import DETAILS, EXECUTION_STATUS, JOB_ID, STEP_MINUTES, THING
from ggfast.cloud.jobs.service import IOT_JOBS_DATA
from ggfast.cloud.operations import Call, Reply
from ggfast.cloud.shapes import Flag, Text, Whole, need, query
from ggfast.cloud.store.interface import Body, Transaction

NEXT: Final = "$next"
_OWN: Final = (records.IN_PROGRESS, "SUCCEEDED", "FAILED", "REJECTED")  # what a device may make of its execution
_RESOURCE: Final = "thing/{thingName}"
_PENDING_MAX: Final = 250  # executions of each status in one answer; more are shown once these have ended

Answer = dict[str, Any]


def get_pending(tx: Transaction, home: str, thing: str) -> Answer:
    """What a thing has to do: what it has begun, and what is queued."""
    return {
        member: [notices.summary(execution) for execution in records.pending(tx, home, thing, status, _PENDING_MAX)]
        for member, status in (("inProgressJobs", records.IN_PROGRESS), ("queuedJobs", records.QUEUED))
    }


def start_next(tx: Transaction, home: str, thing: str, asked: Mapping[str, Any], now: float) -> Answer:
    """Begin what a thing does next; what it has begun already stays as it is but for the step's time-out."""
    execution = records.next_pending(tx, home, thing)
    if execution is None:
        return {}
    step, details = asked.get("stepTimeoutInMinutes"), asked.get("statusDetails")
    if execution["status"] == records.QUEUED:
        execution = executions.change(tx, home, execution, records.IN_PROGRESS, now, details=details, step_minutes=step)
    elif step is not None:
        execution = executions.change(tx, home, execution, records.IN_PROGRESS, now, step_minutes=step)
    return {"execution": notices.described(tx, home, execution, now, document=True)}


def describe(tx: Transaction, home: str, thing: str, job_id: str, asked: Mapping[str, Any], now: float) -> Answer:
    """One pending execution, or with `$next` the next one if there is any."""
    if job_id == NEXT:
        execution = records.next_pending(tx, home, thing)
        if execution is None:
            return {}
    else:
        execution = _required(tx, home, thing, job_id, asked.get("executionNumber"))
        if execution["status"] in records.ENDS:
            raise Fault(
                "TerminalStateException",
                f"The execution of job {job_id} for thing {thing} has ended: {execution['status']}.",
                status=410,
            )
    document = asked.get("includeJobDocument", False)
    return {"execution": notices.described(tx, home, execution, now, document=document)}


def update(tx: Transaction, home: str, thing: str, job_id: str, asked: Mapping[str, Any], now: float) -> Answer:
    """Report how an execution goes. A refusal because of its state carries that state."""
    execution = _required(tx, home, thing, job_id, asked.get("executionNumber"))
    status = asked["status"]
    if status not in _OWN:
        raise Fault(
            "InvalidRequestException", f"status: found {status}, expected one of {', '.join(_OWN)} from a device."
        )
    try:
        executions.check_version(execution, asked.get("expectedVersion"))
        if execution["status"] in records.ENDS:
            raise executions.invalid_transition(execution, status)
    except Fault as fault:
        state = {"executionState": _state(execution)}
        raise Fault(fault.code, fault.message, status=fault.status, members=state) from fault
    execution = executions.change(
        tx,
        home,
        execution,
        status,
        now,
        details=asked.get("statusDetails"),
        step_minutes=asked.get("stepTimeoutInMinutes"),
    )
    answer: Answer = {}
    if asked.get("includeJobExecutionState"):
        answer["executionState"] = _state(execution)
    if asked.get("includeJobDocument"):
        job = records.get_job(tx, home, job_id)
        if job is not None:
            answer["jobDocument"] = orjson.loads(job["document"])
    return answer


@IOT_JOBS_DATA.operation("GetPendingJobExecutions", "GET /things/{thingName}/jobs", {"thingName": THING}, asks=False)
def get_pending_job_executions(call: Call) -> Reply:
    """See `get_pending`."""
    _permit(call, "GetPendingJobExecutions")
    return Reply(get_pending(call.tx, call.home, call.params["thingName"]))


@IOT_JOBS_DATA.operation(
    "StartNextPendingJobExecution",
    "PUT /things/{thingName}/jobs/$next",
    {"thingName": THING, "statusDetails": DETAILS, "stepTimeoutInMinutes": STEP_MINUTES},
    writes=True,
    asks=False,
)
def start_next_pending_job_execution(call: Call) -> Reply:
    """See `start_next`."""
    _permit(call, "StartNextPendingJobExecution")
    now = call.cloud.clock.wall()
    return Reply(_texts(call, start_next(call.tx, call.home, call.params["thingName"], call.params, now)))


@IOT_JOBS_DATA.operation(
    "DescribeJobExecution",
    "GET /things/{thingName}/jobs/{jobId}",
    {
        "thingName": THING,
        "jobId": Text(1, 64, r"[a-zA-Z0-9_-]+|\$next"),
        "includeJobDocument": query(Flag()),
        "executionNumber": query(Whole(1)),
    },
    asks=False,
)
def describe_job_execution(call: Call) -> Reply:
    """See `describe`."""
    return _for_job(call, "DescribeJobExecution", describe)


@IOT_JOBS_DATA.operation(
    "UpdateJobExecution",
    "POST /things/{thingName}/jobs/{jobId}",
    {
        "thingName": THING,
        "jobId": JOB_ID,
        "status": need(EXECUTION_STATUS),
        "statusDetails": DETAILS,
        "stepTimeoutInMinutes": STEP_MINUTES,
        "expectedVersion": Whole(),
        "includeJobExecutionState": Flag(),
        "includeJobDocument": Flag(),
        "executionNumber": Whole(1),
    },
    writes=True,
    asks=False,
)
def update_job_execution(call: Call) -> Reply:
    """See `update`."""
    return _for_job(call, "UpdateJobExecution", update)


_ForJob = Callable[[Transaction, str, str, str, Mapping[str, Any], float], Answer]


def _for_job(call: Call, operation: str, function: _ForJob) -> Reply:
    _permit(call, operation)
    thing, job_id, now = call.params["thingName"], call.params["jobId"], call.cloud.clock.wall()
    return Reply(_texts(call, function(call.tx, call.home, thing, job_id, call.params, now)))


def _permit(call: Call, operation: str) -> None:
    call.permit(operation, call.arn(f"thing/{call.params['thingName']}", "iot"))


def _texts(call: Call, answer: Answer) -> Answer:
    """An answer with its job document as the text it was given as: HTTP has strings where MQTT has JSON."""
    if "jobDocument" in answer:
        answer["jobDocument"] = _document(call, call.params["jobId"])
    execution = answer.get("execution")
    if execution is not None and "jobDocument" in execution:
        execution["jobDocument"] = _document(call, execution["jobId"])
    return answer


def _document(call: Call, job_id: str) -> str:
    job = records.get_job(call.tx, call.home, job_id)
    assert job is not None  # it was read in this transaction
    return str(job["document"])


def _required(tx: Transaction, home: str, thing: str, job_id: str, number: int | None) -> Body:
    execution = records.get_execution(tx, home, thing, job_id, number)
    if execution is None:
        which = "" if number is None else f" with number {number}"
        raise Fault("ResourceNotFoundException", f"Thing {thing} has no execution{which} of job {job_id}.", status=404)
    return execution


def _state(execution: Body) -> Answer:
    state = {"status": execution["status"], "versionNumber": execution["version"]}
    return state | ({"statusDetails": execution["details"]} if execution["details"] else {})
