"""The IoT API's operations on single executions: what whoever owns the jobs may see and do (cloud-api 7)."""

from __future__ import annotations

from typing import Any, Final

from ggfast.cloud.faults import Fault
from ggfast.cloud.iot.service import IOT
from ggfast.cloud.jobs import executions, records
from ggfast.cloud.jobs.forms import (
    DETAILS,
    EXECUTION_STATUS,
    JOB_ID,
    NAMESPACE,
    THING,
    execution_form,
    execution_summary,
)
from ggfast.cloud.jobs.notices import noticed
from ggfast.cloud.jobs.operations import required as required_job
from ggfast.cloud.operations import Call, Reply, entries, paged
from ggfast.cloud.shapes import Flag, Whole, query
from ggfast.cloud.store.interface import Body, Document

_RESOURCE: Final = "thing/{thingName}"
_NUMBER: Final = Whole(1)


@IOT.operation(
    "DescribeJobExecution",
    "GET /things/{thingName}/jobs/{jobId}",
    {"thingName": THING, "jobId": JOB_ID, "executionNumber": query(_NUMBER)},
    resource=_RESOURCE,
)
def describe(call: Call) -> Reply:
    """One execution, the newest if no number is given."""
    execution = _required(call)
    arn = call.arn(f"thing/{execution['thing']}")
    return Reply({"execution": execution_form(execution, arn, call.cloud.clock.wall())})


@IOT.operation(
    "CancelJobExecution",
    "PUT /things/{thingName}/jobs/{jobId}/cancel",
    {
        "thingName": THING,
        "jobId": JOB_ID,
        "force": query(Flag()),
        "expectedVersion": Whole(),
        "statusDetails": DETAILS,
    },
    writes=True,
    resource=_RESOURCE,
)
def cancel(call: Call) -> Reply:
    """Cancel what is queued, or with `force` what is in progress."""
    execution = _required(call)
    force = call.params.get("force", False)
    executions.check_version(execution, call.params.get("expectedVersion"))
    if execution["status"] in records.ENDS:
        raise executions.invalid_transition(execution, records.CANCELED)
    if execution["status"] == records.IN_PROGRESS and not force:
        raise executions.invalid_transition(execution, records.CANCELED, "Use force to cancel what is in progress.")
    executions.change(
        call.tx,
        call.home,
        execution,
        records.CANCELED,
        call.cloud.clock.wall(),
        details=call.params.get("statusDetails"),
        forced=force,
    )
    return Reply()


@IOT.operation(
    "DeleteJobExecution",
    "DELETE /things/{thingName}/jobs/{jobId}/executionNumber/{executionNumber}",
    {
        "thingName": THING,
        "jobId": JOB_ID,
        "executionNumber": _NUMBER,
        "force": query(Flag()),
        "namespaceId": query(NAMESPACE),
    },
    writes=True,
    resource=_RESOURCE,
)
def delete(call: Call) -> Reply:
    """Remove an execution that has ended, or any with `force`."""
    execution = _required(call)
    if execution["status"] not in records.ENDS and not call.params.get("force"):
        raise executions.invalid_transition(execution, "deleted", "Cancel it first, or use force.")
    now = call.cloud.clock.wall()
    with noticed(call.tx, call.home, execution["thing"], now):
        records.delete_execution(call.tx, call.home, execution)
    job = records.get_job(call.tx, call.home, execution["jobId"])
    if job is not None:
        executions.complete_if_done(call.tx, call.home, job, now)
    return Reply()


@IOT.operation(
    "ListJobExecutionsForJob",
    "GET /jobs/{jobId}/things",
    {"jobId": JOB_ID, "status": query(EXECUTION_STATUS), **paged("nextToken", "maxResults")},
    resource="job/{jobId}",
)
def list_for_job(call: Call) -> Reply:
    """A job's executions, in the order in which they were queued."""
    job = required_job(call)
    status = call.params.get("status", records.ANY)
    page = call.find(records.EXECUTIONS, "job", f"{call.home}/{job['jobId']}/{status}")

    def form(found: Document) -> dict[str, Any]:
        arn = call.arn(f"thing/{found.body['thing']}")
        return {"thingArn": arn, "jobExecutionSummary": execution_summary(found.body)}

    return entries(page, form, "executionSummaries", "nextToken")


@IOT.operation(
    "ListJobExecutionsForThing",
    "GET /things/{thingName}/jobs",
    {
        "thingName": THING,
        "status": query(EXECUTION_STATUS),
        "namespaceId": query(NAMESPACE),
        "jobId": query(JOB_ID),
        **paged("nextToken", "maxResults"),
    },
    resource=_RESOURCE,
)
def list_for_thing(call: Call) -> Reply:
    """A thing's executions, the newest first."""
    given = call.params
    value = f"{call.home}/{given['thingName']}/{given.get('jobId', records.ANY)}/{given.get('status', records.ANY)}"
    page = call.find(records.EXECUTIONS, "thing", value, newest_first=True)
    return entries(page, _entry, "executionSummaries", "nextToken")


def _entry(found: Document) -> dict[str, Any]:
    return {"jobId": found.body["jobId"], "jobExecutionSummary": execution_summary(found.body)}


def _required(call: Call) -> Body:
    thing, job_id, number = call.params["thingName"], call.params["jobId"], call.params.get("executionNumber")
    execution = records.get_execution(call.tx, call.home, thing, job_id, number)
    if execution is None:
        which = "" if number is None else f" with number {number}"
        raise Fault("ResourceNotFoundException", f"Job {job_id} has no execution{which} for thing {thing}.", status=404)
    return execution
