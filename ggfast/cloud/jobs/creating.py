"""Making a job: the one way, for the IoT API and for what the Greengrass API creates jobs with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from ggfast.cloud.faults import Fault
from ggfast.cloud.iot.lookups import GROUPS, get_thing
from ggfast.cloud.iot.service import exists, not_found, unusable
from ggfast.cloud.jobs import records, rollout
from ggfast.cloud.limits import JOB_DOCUMENT_CHARACTERS_MAX, JOB_TARGETS_MAX
from ggfast.cloud.store.interface import Body, Transaction
from ggfast.cloud.surroundings import Surroundings

_TARGET: Final = re.compile(
    r"arn:aws:iot:(?P<home_region>[a-z0-9-]+):(?P<account>[0-9]{12}):(?P<kind>thing|thinggroup)/"
    r"(?P<name>[a-zA-Z0-9:_-]{1,128})"
)


def create_job(
    tx: Transaction,
    cloud: Surroundings,
    home: str,
    job_id: str,
    targets: Sequence[str],
    document: str,
    *,
    description: str = "",
    selection: str = records.SNAPSHOT,
    settings: Mapping[str, Any] | None = None,
) -> Body:
    """Make a job, queue its first executions and tell their things; the job's body (`jobId`, `jobArn`, ...).

    `home` is "<account>/<region>"; `targets` are ARNs of things and thing groups there; `document` is JSON text.
    `settings` may hold presignedUrlConfig, jobExecutionsRolloutConfig, abortConfig, timeoutConfig,
    jobExecutionsRetryConfig and namespaceId in the API's form. Raises Fault: InvalidRequestException 400,
    ResourceNotFoundException 404 for a target, ResourceAlreadyExistsException 409 for the id, LimitExceededException
    410. For use inside a transaction.
    """
    arn = f"arn:aws:iot:{home.partition('/')[2]}:{cloud.account}:job/{job_id}"
    if records.get_job(tx, home, job_id) is not None:
        raise exists(f"Job {job_id} already exists in this account and region.", job_id, arn)
    check_document(document)
    targets = list(dict.fromkeys(targets))
    groups = _check_targets(tx, cloud, home, targets)
    now = cloud.clock.wall()
    job = {
        "jobId": job_id,
        "jobArn": arn,
        "targets": targets,
        "groups": groups,
        "document": document,
        "description": description,
        "targetSelection": selection,
        "settings": dict(settings or {}),
        "status": records.IN_PROGRESS,
        "createdAt": now,
        "lastUpdatedAt": now,
        "minute": int(now // 60),
        "begun": 0,
        "begunInMinute": 0,
        "rolling": True,
    }
    records.put_job(tx, home, job)
    for thing in rollout.members_of(tx, home, job):
        records.add_member(tx, home, job_id, thing)
    rollout.advance(tx, home, job, now)
    return job


def check_document(document: str) -> None:
    """Refuse what is no JSON document of a job."""
    if len(document) > JOB_DOCUMENT_CHARACTERS_MAX:
        raise unusable(f"document: found {len(document)} characters, expected at most {JOB_DOCUMENT_CHARACTERS_MAX}.")
    try:
        orjson.loads(document)
    except orjson.JSONDecodeError as error:
        raise unusable(f"document: found text that is not JSON ({error}), expected a JSON document.") from error


def _check_targets(tx: Transaction, cloud: Surroundings, home: str, targets: Sequence[str]) -> dict[str, str]:
    """Refuse targets that are not there; the ids of the groups among them, by name."""
    if len(targets) > JOB_TARGETS_MAX:
        text = (
            f"targets: found {len(targets)} targets, expected at most {JOB_TARGETS_MAX}; put the things into a group."
        )
        raise Fault("LimitExceededException", text, status=410)
    groups: dict[str, str] = {}
    for target in targets:
        match = _TARGET.fullmatch(target)
        if match is None or f"{match['account']}/{match['home_region']}" != home:
            raise unusable(
                f"targets: found {target[:200]!r}, expected the ARN of a thing or thing group in account"
                f" {cloud.account} and region {home.partition('/')[2]}."
            )
        if match["kind"] == "thing":
            if get_thing(tx, home, match["name"]) is None:
                raise not_found("thing", match["name"])
        else:
            group = tx.get(GROUPS, home, match["name"])
            if group is None:
                raise not_found("thing group", match["name"])
            groups[match["name"]] = group["id"]
    return groups
