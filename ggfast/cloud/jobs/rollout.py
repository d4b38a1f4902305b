"""Which things a job is for, when their turn comes, and what the clock does to jobs.

`expire` is called by the server every few seconds; it continues rollouts, looks whether the groups of continuous jobs
have grown or shrunk, and ends executions whose time is over.
"""

from __future__ import annotations

from ggfast.cloud.iot.lookups import get_thing, things_of_group
from ggfast.cloud.jobs import executions, records
from ggfast.cloud.limits import JOB_EXPIRE_BATCH, JOB_ROLLOUT_MAX_PER_MINUTE
from ggfast.cloud.store.interface import Body, Transaction
from ggfast.cloud.surroundings import Surroundings


def expire(tx: Transaction, _cloud: Surroundings, now: float) -> int:
    """Do what is due at `now` (seconds since 1970) in every region; how many executions or jobs have changed.

    At most JOB_EXPIRE_BATCH executions time out in one call; the next call goes on.
    """
    late = [found for found in records.timed(tx) if (records.deadline(found.body) or now) <= now]
    for found in late[:JOB_EXPIRE_BATCH]:
        home = found.parent.rpartition("/")[0]
        current = tx.get(records.EXECUTIONS, found.parent, found.name)
        if current is not None and current["status"] == records.IN_PROGRESS:  # an abort may have ended it meanwhile
            executions.change(tx, home, current, "TIMED_OUT", now)
    changed = min(len(late), JOB_EXPIRE_BATCH)
    for rolling in records.rolling_jobs(tx):
        job = records.get_job(tx, rolling.parent, rolling.name)
        if job is not None and job["rolling"]:
            changed += advance(tx, rolling.parent, job, now)
    return changed


def advance(tx: Transaction, home: str, job: Body, now: float) -> int:
    """Begin as many executions as the job's rate allows in this minute; how many."""
    minute = int(now // 60)
    if job["minute"] != minute:
        job = {**job, "minute": minute, "begunInMinute": 0}
        if job["targetSelection"] == records.CONTINUOUS:
            records.put_job(tx, home, job)
            _follow_groups(tx, home, job, now)
            job = records.get_job(tx, home, job["jobId"]) or job
            if job["status"] != records.IN_PROGRESS:  # those who left were enough to abort it
                return 0
    begun = 0
    allowed = _rate(tx, home, job) - job["begunInMinute"]
    for thing in records.waiting_members(tx, home, job["jobId"], allowed) if allowed > 0 else ():
        records.end_waiting(tx, home, job["jobId"], thing)
        earlier = records.get_execution(tx, home, thing, job["jobId"])
        executions.begin(tx, home, job, thing, now, number=earlier["number"] + 1 if earlier else 1)
        begun += 1
    waits = bool(records.waiting_members(tx, home, job["jobId"], 1))
    rolling = waits or job["targetSelection"] == records.CONTINUOUS
    job = {**job, "begun": job["begun"] + begun, "begunInMinute": job["begunInMinute"] + begun, "rolling": rolling}
    records.put_job(tx, home, job)
    executions.complete_if_done(tx, home, job, now)
    return begun


def members_of(tx: Transaction, home: str, job: Body) -> list[str]:
    """The things that a job's targets name today, each once; things and groups that are gone name none."""
    found: dict[str, None] = {}
    for target in job["targets"]:
        kind, _, name = target.rpartition(":")[2].partition("/")
        if kind == "thing" and get_thing(tx, home, name) is not None:
            found[name] = None
        elif kind == "thinggroup":
            found.update(dict.fromkeys(things_of_group(tx, home, name)))
    return list(found)


def _follow_groups(tx: Transaction, home: str, job: Body, now: float) -> None:
    """Let things that joined wait for their turn; what pends for things that left is removed."""
    today = members_of(tx, home, job)
    for thing in today:
        records.add_member(tx, home, job["jobId"], thing)
    for thing in records.members(tx, home, job["jobId"]) - set(today):
        records.remove_member(tx, home, job["jobId"], thing)
        execution = records.get_execution(tx, home, thing, job["jobId"])
        if execution is not None and execution["status"] in records.PENDING:
            executions.change(tx, home, execution, "REMOVED", now)


def _rate(tx: Transaction, home: str, job: Body) -> int:
    """How many executions of a job may begin in a minute."""
    config = job["settings"].get("jobExecutionsRolloutConfig", {})
    rate = float(JOB_ROLLOUT_MAX_PER_MINUTE)
    growth = config.get("exponentialRate")
    if growth is not None:
        criteria = growth["rateIncreaseCriteria"]
        if "numberOfNotifiedThings" in criteria:
            steps = job["begun"] // criteria["numberOfNotifiedThings"]
        else:
            steps = records.count(tx, home, job["jobId"], "SUCCEEDED") // criteria["numberOfSucceededThings"]
        rate = growth["baseRatePerMinute"] * growth["incrementFactor"] ** min(steps, 100)
    return int(min(rate, config.get("maximumPerMinute", JOB_ROLLOUT_MAX_PER_MINUTE), JOB_ROLLOUT_MAX_PER_MINUTE))
