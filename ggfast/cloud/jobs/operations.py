"""The IoT API's operations on jobs (cloud-api 7)."""

from __future__ import annotations

from typing import Any, Final

from ggfast.cloud.faults import Fault
from ggfast.cloud.iot.service import IOT, TAGS, not_found, unusable
from ggfast.cloud.iot.tags import drop_tags, put_tags, taggable
from ggfast.cloud.jobs import executions, records
from ggfast.cloud.jobs.creating import create_job
from ggfast.cloud.jobs.forms import (
    COMMENT,
    DESCRIPTION,
    JOB_ID,
    NAMESPACE,
    REASON,
    SETTINGS,
    THING,
    job_form,
    job_summary,
)
from ggfast.cloud.jobs.notices import noticed
from ggfast.cloud.operations import Call, Reply, entries, paged
from ggfast.cloud.shapes import Anything, Choice, Flag, Items, Text, need, query
from ggfast.cloud.store.interface import Body

_RESOURCE: Final = "job/{jobId}"
_ELSEWHERE: Final = {
    "documentSource": "the document itself in `document`: this cloud fetches nothing from other places",
    "jobTemplateArn": "the document itself in `document`: this cloud has no job templates",
    "documentParameters": "a document with its values in place: parameters belong to job templates",
    "schedulingConfig": "no schedule: create the job when it shall begin, and cancel it when it shall end",
    "destinationPackageVersions": "no package versions: this cloud has no software package catalog",
}

taggable("job", lambda tx, home, name: records.get_job(tx, home, name) is not None)


@IOT.operation(
    "CreateJob",
    "PUT /jobs/{jobId}",
    {
        "jobId": JOB_ID,
        "targets": need(Items(Text(1, 2_048), least=1)),
        "document": Text(),
        "description": DESCRIPTION,
        "targetSelection": Choice(records.SNAPSHOT, records.CONTINUOUS),
        "tags": TAGS,
        "namespaceId": NAMESPACE,
        **SETTINGS,
        **dict.fromkeys(_ELSEWHERE, Anything()),
    },
    writes=True,
    resource=_RESOURCE,
)
def create(call: Call) -> Reply:
    """A new job; its first executions are queued with it."""
    given = call.params
    for member, expected in _ELSEWHERE.items():
        if given.get(member):
            raise call.invalid(member, given[member], expected)
    if "document" not in given:
        raise call.invalid("document", None, "the job's JSON document")
    job = create_job(
        call.tx,
        call.cloud,
        call.home,
        given["jobId"],
        given["targets"],
        given["document"],
        description=given.get("description", ""),
        selection=given.get("targetSelection", records.SNAPSHOT),
        settings={name: given[name] for name in (*SETTINGS, "namespaceId") if name in given},
    )
    put_tags(call, job["jobArn"], given.get("tags", []))
    return _named(job)


@IOT.operation(
    "DescribeJob",
    "GET /jobs/{jobId}",
    {"jobId": JOB_ID, "beforeSubstitution": query(Flag())},
    resource=_RESOURCE,
)
def describe(call: Call) -> Reply:
    """All about a job but its document."""
    return Reply({"job": job_form(call.tx, call.home, required(call))})


@IOT.operation(
    "GetJobDocument",
    "GET /jobs/{jobId}/job-document",
    {"jobId": JOB_ID, "beforeSubstitution": query(Flag())},
    resource=_RESOURCE,
)
def get_document(call: Call) -> Reply:
    """A job's document, as it was given."""
    return Reply({"document": required(call)["document"]})


@IOT.operation(
    "UpdateJob",
    "PATCH /jobs/{jobId}",
    {"jobId": JOB_ID, "description": DESCRIPTION, "namespaceId": query(NAMESPACE), **SETTINGS},
    writes=True,
    resource=_RESOURCE,
)
def update(call: Call) -> Reply:
    """Other settings for a job that goes on; they count for executions begun from now on."""
    job = required(call)
    if job["status"] != records.IN_PROGRESS:
        raise unusable(
            f"Job {job['jobId']} is {job['status']}, expected IN_PROGRESS. A job that has ended stays as it is."
        )
    job["settings"] |= {name: call.params[name] for name in SETTINGS if name in call.params}
    job["description"] = call.params.get("description", job["description"])
    job["lastUpdatedAt"] = call.cloud.clock.wall()
    records.put_job(call.tx, call.home, job)
    return Reply()


@IOT.operation(
    "CancelJob",
    "PUT /jobs/{jobId}/cancel",
    {"jobId": JOB_ID, "reasonCode": REASON, "comment": COMMENT, "force": query(Flag())},
    writes=True,
    resource=_RESOURCE,
)
def cancel(call: Call) -> Reply:
    """End a job: what is queued is canceled, with `force` also what is in progress."""
    job = required(call)
    force = call.params.get("force", False)
    again = job["status"] == records.CANCELED and force and not job["forceCanceled"]
    if job["status"] != records.IN_PROGRESS and not again:
        raise unusable(f"Job {job['jobId']} is {job['status']} and cannot be canceled, expected IN_PROGRESS.")
    job = executions.cancel_job(
        call.tx,
        call.home,
        job,
        call.cloud.clock.wall(),
        force=force,
        reason=call.params.get("reasonCode", ""),
        comment=call.params.get("comment", ""),
    )
    return _named(job)


@IOT.operation(
    "DeleteJob",
    "DELETE /jobs/{jobId}",
    {"jobId": JOB_ID, "force": query(Flag()), "namespaceId": query(NAMESPACE)},
    writes=True,
    resource=_RESOURCE,
)
def delete(call: Call) -> Reply:
    """Remove a job with its executions; one that goes on only with `force`."""
    job = required(call)
    job_id = job["jobId"]
    if job["status"] == records.IN_PROGRESS and not call.params.get("force"):
        raise Fault(
            "InvalidStateTransitionException",
            f"Job {job_id} is IN_PROGRESS and cannot be deleted. Cancel it first, or use force.",
            status=409,
        )
    now = call.cloud.clock.wall()
    for execution in records.of_job(call.tx, call.home, job_id):
        with noticed(call.tx, call.home, execution["thing"], now):
            records.delete_execution(call.tx, call.home, execution)
    call.tx.delete_all(records.MEMBERS, f"{call.home}/{job_id}")
    call.tx.delete(records.JOBS, call.home, job_id)
    drop_tags(call, job["jobArn"])
    return Reply()


@IOT.operation(
    "ListJobs",
    "GET /jobs",
    {
        "status": query(Choice(*records.JOB_STATUSES)),
        "targetSelection": query(Choice(records.SNAPSHOT, records.CONTINUOUS)),
        "thingGroupName": query(THING),
        "thingGroupId": query(Text(1, 128, r"[a-zA-Z0-9-]+")),
        "namespaceId": query(NAMESPACE),
        **paged("nextToken", "maxResults"),
    },
)
def list_jobs(call: Call) -> Reply:
    """Jobs, newest first."""
    given = call.params
    if "thingGroupName" in given and "thingGroupId" in given:
        raise unusable("The request has both thingGroupName and thingGroupId, expected one of them.")
    group = given.get("thingGroupName") or (f"id:{given['thingGroupId']}" if "thingGroupId" in given else records.ANY)
    value = records.list_label(
        call.home, given.get("status", records.ANY), given.get("targetSelection", records.ANY), group
    )
    page = call.find(records.JOBS, "list", value, newest_first=True)
    return entries(page, lambda found: job_summary(found.body), "jobs", "nextToken")


def required(call: Call) -> Body:
    """The job a request names. Raises Fault."""
    job_id = call.params["jobId"]
    job = records.get_job(call.tx, call.home, job_id)
    if job is None:
        raise not_found("job", job_id)
    return job


def _named(job: Body) -> Reply:
    members: dict[str, Any] = {"jobArn": job["jobArn"], "jobId": job["jobId"]}
    return Reply(members | ({"description": job["description"]} if job["description"] else {}))
