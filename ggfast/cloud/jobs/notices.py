"""What is told when a thing's list of pending executions changes: `jobs/notify` and `jobs/notify-next`.

Times in messages are whole seconds since 1970 (the service's MQTT interface).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from ggfast.cloud.events import Publish
from ggfast.cloud.jobs import records
from ggfast.cloud.limits import JOB_NOTIFY_MAX
from ggfast.cloud.store.interface import Body, Transaction


@contextmanager
def noticed(tx: Transaction, home: str, thing: str, now: float) -> Iterator[None]:
    """Tell the thing afterwards if the block has changed which executions are pending, or which is next."""
    before = _list(tx, home, thing)
    yield
    after = _list(tx, home, thing)
    if _keys(before) == _keys(after):
        return
    jobs: dict[str, list[dict[str, Any]]] = {}
    for execution in after:
        jobs.setdefault(execution["status"], []).append(summary(execution))
    _tell(tx, home, thing, "notify", {"timestamp": int(now), "jobs": jobs})
    if _keys(before[:1], with_status=False) != _keys(after[:1], with_status=False):
        following: dict[str, Any] = {"timestamp": int(now)}
        if after:
            following["execution"] = described(tx, home, after[0], now, document=True)
        _tell(tx, home, thing, "notify-next", following)


def summary(execution: Body) -> dict[str, Any]:
    """An execution in a list, for devices."""
    return _without_none(
        jobId=execution["jobId"],
        queuedAt=int(execution["queuedAt"]),
        startedAt=_seconds(execution.get("startedAt")),
        lastUpdatedAt=int(execution["lastUpdatedAt"]),
        versionNumber=execution["version"],
        executionNumber=execution["number"],
    )


def described(tx: Transaction, home: str, execution: Body, now: float, *, document: bool) -> dict[str, Any]:
    """A whole execution, for devices by MQTT; with the job's document as JSON if asked."""
    members = summary(execution) | _without_none(
        thingName=execution["thing"],
        status=execution["status"],
        statusDetails=execution["details"] or None,
        approximateSecondsBeforeTimedOut=seconds_left(execution, now),
    )
    if document:
        job = records.get_job(tx, home, execution["jobId"])
        if job is not None:
            members["jobDocument"] = orjson.loads(job["document"])
    return members


def seconds_left(execution: Body, now: float) -> int | None:
    """Until an execution in progress times out; None: it never does."""
    ends = records.deadline(execution)
    return None if ends is None or execution["status"] != records.IN_PROGRESS else max(0, int(ends - now))


def _list(tx: Transaction, home: str, thing: str) -> list[Body]:
    found: list[Body] = []
    for status in records.PENDING:
        if len(found) < JOB_NOTIFY_MAX:
            found += records.pending(tx, home, thing, status, JOB_NOTIFY_MAX - len(found))
    return found


def _keys(executions: list[Body], *, with_status: bool = True) -> list[tuple[str, int, str]]:
    return [
        (execution["jobId"], execution["number"], execution["status"] if with_status else "")
        for execution in executions
    ]


def _tell(tx: Transaction, home: str, thing: str, name: str, message: dict[str, Any]) -> None:
    tx.tell(Publish(f"$aws/things/{thing}/jobs/{name}", orjson.dumps(message), home=home))


def _seconds(value: float | None) -> int | None:
    return None if value is None else int(value)


def _without_none(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
