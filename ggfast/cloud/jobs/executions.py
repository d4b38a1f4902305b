"""The life of an execution: queued, in progress, one of the ends; and what its end means for its job.

    QUEUED ──► IN_PROGRESS ──► SUCCEEDED FAILED REJECTED          by the device
       │            └────────► TIMED_OUT                          by the clock
       └────────────┴────────► CANCELED REMOVED                   by whoever owns the job

A device may also go from QUEUED to one of its own ends. Every change raises the version by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggfast.cloud.faults import Fault
from ggfast.cloud.jobs import records
from ggfast.cloud.jobs.notices import noticed
from ggfast.cloud.store.interface import Body, Transaction

_FAILURES = {"FAILED": ("FAILED", "ALL"), "TIMED_OUT": ("TIMED_OUT", "ALL"), "REJECTED": ("REJECTED", "ALL")}
_NO_STEP_TIMEOUT = -1  # what a device sends to end its step's time-out


def begin(tx: Transaction, home: str, job: Body, thing: str, now: float, *, number: int = 1, attempt: int = 0) -> None:
    """Queue a job's execution for a thing and tell it."""
    execution = {
        "jobId": job["jobId"],
        "thing": thing,
        "number": number,
        "attempt": attempt,
        "status": records.QUEUED,
        "queuedAt": now,
        "lastUpdatedAt": now,
        "version": 1,
        "details": {},
        "newest": True,
    }
    with noticed(tx, home, thing, now):
        records.put_execution(tx, home, execution)


def change(
    tx: Transaction,
    home: str,
    execution: Body,
    status: str,
    now: float,
    *,
    details: Mapping[str, str] | None = None,
    step_minutes: int | None = None,
    forced: bool = False,
) -> Body:
    """Bring a pending execution to a status, and its job to what follows; the execution as it is now.

    `details` and `step_minutes` None: as they are. The caller has checked that the step is allowed.
    """
    thing, job_id = execution["thing"], execution["jobId"]
    changed = {**execution, "status": status, "version": execution["version"] + 1, "lastUpdatedAt": now}
    if details is not None:
        changed["details"] = dict(details)
    if forced:
        changed["forceCanceled"] = True
    if status == records.IN_PROGRESS and "startedAt" not in changed:
        changed["startedAt"] = now
        job = records.get_job(tx, home, job_id)
        minutes = job["settings"].get("timeoutConfig", {}).get("inProgressTimeoutInMinutes") if job else None
        changed["deadline"] = None if minutes is None else now + 60 * minutes
    if step_minutes is not None:
        changed["stepDeadline"] = None if step_minutes == _NO_STEP_TIMEOUT else now + 60 * step_minutes
    with noticed(tx, home, thing, now):
        records.put_execution(tx, home, changed)
        if status in records.ENDS:
            changed = _ended(tx, home, changed, now)
    return changed


def check_version(execution: Body, expected: int | None) -> None:
    """Refuse with 409 if another version was expected."""
    if expected is not None and expected != execution["version"]:
        raise Fault(
            "VersionConflictException",
            f"The version of the execution is {execution['version']}, expected {expected}."
            " Read it again and repeat the change.",
            status=409,
            members={},
        )


def invalid_transition(execution: Body, wanted: str, hint: str = "") -> Fault:
    """409: an execution cannot come from its status to the wanted one."""
    text = (
        f"The execution of job {execution['jobId']} for thing {execution['thing']} is {execution['status']}"
        f" and cannot become {wanted}."
    )
    return Fault("InvalidStateTransitionException", f"{text} {hint}".rstrip(), status=409)


def cancel_job(
    tx: Transaction, home: str, job: Body, now: float, *, force: bool, reason: str = "", comment: str = ""
) -> Body:
    """Cancel a job, what is waiting and queued, and with `force` what is in progress; the job as it is now."""
    job = {**job, "status": records.CANCELED, "lastUpdatedAt": now, "completedAt": now, "rolling": False}
    job |= (
        {"forceCanceled": force}
        | ({"reasonCode": reason} if reason else {})
        | ({"comment": comment} if comment else {})
    )
    records.put_job(tx, home, job)
    while waiting := records.waiting_members(tx, home, job["jobId"], 1_000):
        for thing in waiting:
            records.end_waiting(tx, home, job["jobId"], thing)
    for status in records.PENDING if force else (records.QUEUED,):
        for execution in records.of_job(tx, home, job["jobId"], status):
            change(tx, home, execution, records.CANCELED, now, forced=force)
    return job


def complete_if_done(tx: Transaction, home: str, job: Body, now: float) -> None:
    """A snapshot job is complete when every thing has come to an end and none waits."""
    if job["status"] != records.IN_PROGRESS or job["targetSelection"] != records.SNAPSHOT:
        return
    if records.waiting_members(tx, home, job["jobId"], 1):
        return
    if not any(records.any_counted(tx, home, job["jobId"], status) for status in records.PENDING):
        done = {"status": records.COMPLETED, "lastUpdatedAt": now, "completedAt": now, "rolling": False}
        records.put_job(tx, home, {**job, **done})


def _ended(tx: Transaction, home: str, execution: Body, now: float) -> Body:
    """What follows for the job: another attempt, an abort, its completion."""
    job = records.get_job(tx, home, execution["jobId"])
    if job is None or job["status"] != records.IN_PROGRESS:
        return execution
    if _may_retry(job, execution):
        execution = {**execution, "newest": False}
        records.put_execution(tx, home, execution)
        number, attempt = execution["number"] + 1, execution["attempt"] + 1
        begin(tx, home, job, execution["thing"], now, number=number, attempt=attempt)
        return execution
    if _must_abort(tx, home, job):
        cancel_job(tx, home, job, now, force=False, reason="ABORT_CRITERIA_MET")
    else:
        complete_if_done(tx, home, job, now)
    return execution


def _may_retry(job: Body, execution: Body) -> bool:
    kinds = _FAILURES.get(execution["status"], ())
    if execution["status"] == "REJECTED":  # the device has said that it will not
        return False
    criteria = job["settings"].get("jobExecutionsRetryConfig", {}).get("criteriaList", [])
    allowed = [entry["numberOfRetries"] for entry in criteria if entry["failureType"] in kinds]
    return bool(execution["attempt"] < max(allowed, default=0))


def _must_abort(tx: Transaction, home: str, job: Body) -> bool:
    criteria: list[dict[str, Any]] = job["settings"].get("abortConfig", {}).get("criteriaList", [])
    if not criteria:
        return False
    counts = {status: records.count(tx, home, job["jobId"], status) for status in records.ENDS}
    executed = sum(counts.values())
    for entry in criteria:
        failed = sum(counts[status] for status, kinds in _FAILURES.items() if entry["failureType"] in kinds)
        enough = executed >= entry["minNumberOfExecutedThings"]
        if enough and failed and 100 * failed >= entry["thresholdPercentage"] * executed:
            return True
    return False
