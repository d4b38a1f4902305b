"""Jobs, their members and their executions in the store: where they lie and how they are found.

- `jobs`: parent home, name job id. The API's members, and how far the rollout is.
- `job-members`: parent "<home>/<job>", name thing: every thing a job is for, labelled while its turn has not come.
- `job-executions`: parent "<home>/<thing>", name "<job>/<number>". A retry makes a new one with the next number;
  only the newest of a thing counts in the job's numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ggfast.cloud.iot.lookups import everything, everything_found
from ggfast.cloud.store.interface import Body, Document, Transaction

JOBS: Final = "jobs"
MEMBERS: Final = "job-members"
EXECUTIONS: Final = "job-executions"

QUEUED, IN_PROGRESS, CANCELED, COMPLETED = "QUEUED", "IN_PROGRESS", "CANCELED", "COMPLETED"
SNAPSHOT, CONTINUOUS = "SNAPSHOT", "CONTINUOUS"
JOB_STATUSES: Final = (IN_PROGRESS, CANCELED, COMPLETED, "DELETION_IN_PROGRESS", "SCHEDULED")
PENDING: Final = (IN_PROGRESS, QUEUED)  # in the order in which a device works on them
ENDS: Final = ("SUCCEEDED", "FAILED", "TIMED_OUT", "REJECTED", "REMOVED", CANCELED)
STATUSES: Final = (*PENDING, *ENDS)
ANY: Final = "*"


def get_job(tx: Transaction, home: str, job_id: str) -> Body | None:
    """A job's body, None if there is none."""
    return tx.get(JOBS, home, job_id)


def put_job(tx: Transaction, home: str, job: Body) -> None:
    """Keep a job, with what lists and the clock find it by."""
    groups = [ANY, *job["groups"], *(f"id:{group_id}" for group_id in job["groups"].values())]
    labels = {
        "list": [
            list_label(home, status, selection, group)
            for status in (ANY, job["status"])
            for selection in (ANY, job["targetSelection"])
            for group in groups
        ],
        "rolling": ["yes"] if job["status"] == IN_PROGRESS and job["rolling"] else [],
    }
    tx.put(JOBS, home, job["jobId"], job, labels)


def list_label(home: str, status: str, selection: str, group: str) -> str:
    """The value of a job's label `list`; ANY for what is not asked. A group is a name or "id:<id>"."""
    return f"{home}/{status}/{selection}/{group}"


def rolling_jobs(tx: Transaction) -> list[Document]:
    """Jobs of every home that have members to begin, or whose groups may grow."""
    return list(everything_found(tx, JOBS, "rolling", "yes"))


def members(tx: Transaction, home: str, job_id: str) -> set[str]:
    """Every thing a job is for."""
    return {document.name for document in everything(tx, MEMBERS, f"{home}/{job_id}")}


def remove_member(tx: Transaction, home: str, job_id: str, thing: str) -> None:
    """Forget that a job is for a thing."""
    tx.delete(MEMBERS, f"{home}/{job_id}", thing)


def add_member(tx: Transaction, home: str, job_id: str, thing: str) -> bool:
    """Let a thing wait for its turn; False if it is a member already."""
    return tx.create(MEMBERS, f"{home}/{job_id}", thing, {}, {"waiting": [f"{home}/{job_id}"]})


def waiting_members(tx: Transaction, home: str, job_id: str, limit: int) -> list[str]:
    """Things whose turn has not come, in order."""
    return [found.name for found in tx.find(MEMBERS, "waiting", f"{home}/{job_id}", limit=limit).documents]


def end_waiting(tx: Transaction, home: str, job_id: str, thing: str) -> None:
    """A thing's turn has come, or will not come any more."""
    tx.put(MEMBERS, f"{home}/{job_id}", thing, {}, {"waiting": []})


def put_execution(tx: Transaction, home: str, execution: Body) -> None:
    """Keep an execution, with what lists, counts and the clock find it by."""
    job, thing, status = execution["jobId"], execution["thing"], execution["status"]
    timed = status == IN_PROGRESS and deadline(execution) is not None
    labels = {
        "job": [f"{home}/{job}/{ANY}", f"{home}/{job}/{status}"],
        "thing": [f"{home}/{thing}/{one}/{other}" for one in (ANY, job) for other in (ANY, status)],
        "counted": [f"{home}/{job}/{status}"] if execution["newest"] else [],
        "timed": ["yes"] if timed else [],
    }
    tx.put(EXECUTIONS, f"{home}/{thing}", f"{job}/{execution['number']}", execution, labels)


def delete_execution(tx: Transaction, home: str, execution: Body) -> None:
    """Remove an execution."""
    tx.delete(EXECUTIONS, f"{home}/{execution['thing']}", f"{execution['jobId']}/{execution['number']}")


def get_execution(tx: Transaction, home: str, thing: str, job_id: str, number: int | None = None) -> Body | None:
    """An execution, the newest without `number`; None if there is none."""
    if number is not None:
        return tx.get(EXECUTIONS, f"{home}/{thing}", f"{job_id}/{number}")
    found = tx.find(EXECUTIONS, "thing", f"{home}/{thing}/{job_id}/{ANY}", limit=1, newest_first=True).documents
    return found[0].body if found else None


def pending(tx: Transaction, home: str, thing: str, status: str, limit: int) -> list[Body]:
    """A thing's executions in one of the pending statuses, the earliest queued first."""
    page = tx.find(EXECUTIONS, "thing", f"{home}/{thing}/{ANY}/{status}", limit=limit)
    return [found.body for found in page.documents]


def next_pending(tx: Transaction, home: str, thing: str) -> Body | None:
    """What a thing works on next: what it has begun, else what was queued first."""
    for status in PENDING:
        found = pending(tx, home, thing, status, 1)
        if found:
            return found[0]
    return None


def of_job(tx: Transaction, home: str, job_id: str, status: str = ANY) -> list[Body]:
    """Every execution of a job, with one status."""
    return [found.body for found in everything_found(tx, EXECUTIONS, "job", f"{home}/{job_id}/{status}")]


def count(tx: Transaction, home: str, job_id: str, status: str) -> int:
    """How many things of a job have come to a status."""
    return tx.count_found(EXECUTIONS, "counted", f"{home}/{job_id}/{status}")


def any_counted(tx: Transaction, home: str, job_id: str, status: str) -> bool:
    """Whether any thing of a job is at a status."""
    return bool(tx.find(EXECUTIONS, "counted", f"{home}/{job_id}/{status}", limit=1).documents)


def timed(tx: Transaction) -> Iterator[Document]:
    """Every execution that has a time-out, of every home. Read them all before changing one."""
    return everything_found(tx, EXECUTIONS, "timed", "yes")


def deadline(execution: Body) -> float | None:
    """When an execution times out, None: never."""
    ends = [execution[name] for name in ("deadline", "stepDeadline") if execution.get(name) is not None]
    return min(ends, default=None)
