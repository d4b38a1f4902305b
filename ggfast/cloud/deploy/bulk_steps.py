"""Bulk deployments, step by step: each step deploys a few records in one transaction, so that a kill loses or repeats
nothing (greengrass-core 12.7).

    bulk-deployment   <home>         <bulk>   status, counts, where the input is; label "open" while there is work
    bulk-line         <home>/<bulk>  <line>   a record that has not been tried; gone with its attempt
    bulk-retry        <home>/<bulk>  <line>   a record that has to wait: attempts, and when to try again
    bulk-result       <home>/<bulk>  <line>   what a record came to: its deployment, or why there is none

Initializing (the input is read) -> Running -> Completed, or Stopping -> Stopped, or Failed if there is no input. Only
faults that pass by themselves are tried again: another deployment of the same group or core is still going on.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from ggfast.cloud.deploy import records
from ggfast.cloud.deploy.objects import find_object
from ggfast.cloud.deploy.starting import CONCURRENT, start_deployment
from ggfast.cloud.faults import Fault
from ggfast.cloud.greengrass.authorities import NewCa, give_back, group_cas, prepare_group_ca
from ggfast.cloud.greengrass.service import arn_of
from ggfast.cloud.greengrass.tags import drop_tags
from ggfast.cloud.limits import (
    BULK_ATTEMPTS_MAX,
    BULK_INPUT_BYTES_MAX,
    BULK_KEPT_MAX,
    BULK_LINE_BYTES_MAX,
    BULK_RECORDS_MAX,
    BULK_RECORDS_PER_STEP,
    BULK_RETRY_S,
)
from ggfast.cloud.shapes import Choice, Record, Text, Wrong, need
from ggfast.cloud.store.interface import Body, Document, Store, Transaction
from ggfast.cloud.surroundings import Surroundings, timestamp
from ggfast.errors import StorageFailed

BULKS = "bulk-deployment"
LINES = "bulk-line"
RETRIES = "bulk-retry"
RESULTS = "bulk-result"

INITIALIZING = "Initializing"
RUNNING = "Running"
COMPLETED = "Completed"
STOPPING = "Stopping"
STOPPED = "Stopped"
FAILED = "Failed"
OPEN = (INITIALIZING, RUNNING, STOPPING)

_RECORD = Record(
    {
        "GroupId": need(Text(1, 256)),
        "GroupVersionId": need(Text(1, 256)),
        "DeploymentType": need(Choice(records.NEW)),
    }
)


# --- what operations and the server need ---------------------------------------------------------------


def bulk_arn(home: str, bulk: str) -> str:
    """The ARN of one."""
    return arn_of(home, f"/greengrass/bulk/deployments/{bulk}")


def load_bulk(tx: Transaction, home: str, bulk: str) -> Body | None:
    """`status`, `created`, `input` (address and digest, which may be ""), counts by the API's names, `message`."""
    return tx.get(BULKS, home, bulk)


def save_bulk(tx: Transaction, home: str, bulk: str, body: Body) -> None:
    """Make or replace one. The oldest finished ones go when there are too many."""
    is_open = body["status"] in OPEN
    tx.put(BULKS, home, bulk, body, {"open": [home, "*"] if is_open else []})
    if not is_open:
        spare = tx.count(BULKS, home) - BULK_KEPT_MAX
        for document in tx.list(BULKS, home, limit=spare).documents if spare > 0 else ():
            if document.body["status"] not in OPEN:
                _forget(tx, home, document.name)


def open_bulk(tx: Transaction, home: str) -> Document | None:
    """The one that is not finished: there is never a second in an account and region."""
    found = tx.find(BULKS, "open", home, limit=1).documents
    return found[0] if found else None


def fixed_input(tx: Transaction, home: str, source: dict[str, str]) -> dict[str, str]:
    """The input with the digest of what its address means now: a later registration changes nothing any more."""
    found = find_object(tx, home, source["address"]) if not source["digest"] else None
    return source | ({"digest": found["digest"]} if found else {})


def groups_in(cloud: Surroundings, source: dict[str, str]) -> set[str]:
    """Ids of the groups that an input names; none for one that will fail. Blocks for a file."""
    digest = source["digest"]
    if not digest or cloud.artifacts.size(digest) > BULK_INPUT_BYTES_MAX:
        return set()
    try:
        lines = _lines(cloud.artifacts.read(digest))
    except StorageFailed:
        return set()
    groups = set()
    for line in lines if len(lines) <= BULK_RECORDS_MAX else ():
        with suppress(ValueError):
            groups.add(_parsed(line)["GroupId"])
    return groups


async def run_bulk_deployments(store: Store, cloud: Surroundings) -> bool:
    """One step of every open bulk deployment; whether there is more to do at once. Call it again at once then, else
    every BULK_LOOK_S. Raises StorageFailed."""
    if not await store.read(lambda tx: bool(tx.find(BULKS, "open", "*", limit=1).documents)):
        return False
    wanted = await store.read(lambda tx: _groups_without_ca(tx, cloud.clock.wall()))
    prepared = [await asyncio.to_thread(prepare_group_ca, cloud, {}) for _ in range(wanted)]

    def work(tx: Transaction) -> bool:
        return advance(tx, cloud, cloud.clock.wall(), prepared)

    try:
        return await store.write(work)
    finally:
        for spare in prepared:
            give_back(spare)


def advance(tx: Transaction, cloud: Surroundings, now: float, prepared: list[NewCa]) -> bool:
    """One step of every open bulk deployment, in the caller's transaction; whether there is more to do at once.

    `prepared` are CAs for groups that have none; a step ends early when they do not suffice. `now` is in seconds.
    """
    more = False
    for document in tx.find(BULKS, "open", "*", limit=BULK_RECORDS_PER_STEP).documents:
        more |= _Step(tx, cloud, now, document, prepared).take()
    return more


# --- one step ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Step:
    tx: Transaction
    cloud: Surroundings
    now: float
    document: Document
    prepared: list[NewCa]

    def take(self) -> bool:
        """Go on; whether there is more to do at once."""
        status = self.document.body["status"]
        if status == INITIALIZING:
            more = self._read_input()
        elif status == STOPPING:
            more = self._end(STOPPED)
        else:
            more = self._deploy()
        save_bulk(self.tx, self.document.parent, self.document.name, self.document.body)
        return more

    @property
    def _parent(self) -> str:
        return f"{self.document.parent}/{self.document.name}"

    def _read_input(self) -> bool:
        """Put the records of the input into the store."""
        source = self.document.body["input"]
        digest = source["digest"]
        if not digest:
            return self._fail(
                f"There is no object {source['address']}. Register the input file under this address, or give its "
                "lines in a data: URL, or name an uploaded artifact with artifact:<sha256>."
            )
        if self.cloud.artifacts.size(digest) > BULK_INPUT_BYTES_MAX:
            return self._fail(f"The input has more than {BULK_INPUT_BYTES_MAX} bytes. Divide it.")
        try:
            content = self.cloud.artifacts.read(digest)
        except StorageFailed as error:
            return self._fail(str(error))
        lines = _lines(content)
        if len(lines) > BULK_RECORDS_MAX:
            return self._fail(f"The input has {len(lines)} records, expected at most {BULK_RECORDS_MAX}. Divide it.")
        for position, text in enumerate(lines):
            self.tx.put(LINES, self._parent, f"{position:08d}", {"line": text})
        self.document.body["status"] = RUNNING
        return True

    def _deploy(self) -> bool:
        """Try some records: those whose time has come again, then new ones."""
        retries = self.tx.list(RETRIES, self._parent, limit=BULK_RECORDS_PER_STEP + 1).documents
        due = [found for found in retries if found.body["at"] <= self.now][:BULK_RECORDS_PER_STEP]
        lines = self.tx.list(LINES, self._parent, limit=BULK_RECORDS_PER_STEP + 1)
        for tried, found in enumerate((*due, *lines.documents)):
            if tried == BULK_RECORDS_PER_STEP or not self._try(found):
                return True
        return False if self.tx.count(RETRIES, self._parent) else self._end(COMPLETED)

    def _try(self, found: Document) -> bool:
        """One attempt at a record. False, and nothing done: its group needs a CA and none is left."""
        body = self.document.body
        try:
            record = _parsed(found.body["line"])
        except ValueError as error:
            self._invalid(found, "", str(error))
            return True
        group = record["GroupId"]
        has_ca = bool(group_cas(self.tx, self.document.parent, group))
        if not has_ca and not self.prepared:
            return False
        ca = None if has_ca else self.prepared.pop()
        if found.body.get("attempts"):
            body["RetryAttempts"] += 1
        try:
            deployment = start_deployment(
                self.tx, self.cloud, self.document.parent, group, record["GroupVersionId"], records.NEW, ca
            )
        except Fault as fault:
            if fault.code == CONCURRENT and found.body.get("attempts", 0) + 1 < BULK_ATTEMPTS_MAX:
                self._later(found)
            else:
                self._invalid(found, group, fault.message)
            return True
        self._done(found, {"group": group, "deployment": deployment.id})
        return True

    # --- what a record came to -------------------------------------------------------------------------

    def _later(self, found: Document) -> None:
        if not found.body.get("attempts"):
            self.document.body["RecordsProcessed"] += 1
        attempts = found.body.get("attempts", 0) + 1
        again = {"line": found.body["line"], "attempts": attempts, "at": self.now + BULK_RETRY_S}
        self.tx.delete(LINES, self._parent, found.name)
        self.tx.put(RETRIES, self._parent, found.name, again)

    def _invalid(self, found: Document, group: str, message: str) -> None:
        self.document.body["InvalidInputRecords"] += 1
        self._done(found, {"group": group, "deployment": "", "message": message, "created": timestamp(self.now)})

    def _done(self, found: Document, result: dict[str, Any]) -> None:
        if not found.body.get("attempts"):
            self.document.body["RecordsProcessed"] += 1
        self.tx.delete(LINES, self._parent, found.name)
        self.tx.delete(RETRIES, self._parent, found.name)
        self.tx.put(RESULTS, self._parent, found.name, result)

    # --- the end ---------------------------------------------------------------------------------------

    def _end(self, status: str) -> bool:
        self.document.body["status"] = status
        for collection in (LINES, RETRIES):
            self.tx.delete_all(collection, self._parent)
        return False

    def _fail(self, message: str) -> bool:
        self.document.body["message"] = message
        return self._end(FAILED)


def _lines(content: bytes) -> list[str]:
    """The records of an input, each cut where it is too long."""
    lines = [stripped for line in content.split(b"\n") if (stripped := line.strip())]
    return [line[: BULK_LINE_BYTES_MAX + 1].decode("utf-8", "replace") for line in lines]


def _parsed(line: str) -> dict[str, str]:
    """A record. Raises ValueError with what is wrong."""
    if len(line.encode()) > BULK_LINE_BYTES_MAX:
        raise ValueError(f"The record has more than {BULK_LINE_BYTES_MAX} bytes.")
    try:
        return dict(_RECORD.read(orjson.loads(line), "record"))
    except orjson.JSONDecodeError as error:
        raise ValueError(f"The record is not JSON: {error}.") from error
    except Wrong as wrong:
        raise ValueError(f"{wrong}.") from wrong


def _groups_without_ca(tx: Transaction, now: float) -> int:
    """How many CAs the next step can use, at most."""
    wanted: set[str] = set()
    for document in tx.find(BULKS, "open", "*", limit=BULK_RECORDS_PER_STEP).documents:
        if document.body["status"] != RUNNING:
            continue
        parent = f"{document.parent}/{document.name}"
        for collection in (LINES, RETRIES):
            for found in tx.list(collection, parent, limit=BULK_RECORDS_PER_STEP).documents:
                if found.body.get("at", now) > now:
                    continue
                try:
                    group = _parsed(found.body["line"])["GroupId"]
                except ValueError:
                    continue
                if not group_cas(tx, document.parent, group):
                    wanted.add(f"{document.parent}/{group}")
    return min(len(wanted), BULK_RECORDS_PER_STEP)


def _forget(tx: Transaction, home: str, bulk: str) -> None:
    tx.delete(BULKS, home, bulk)
    drop_tags(tx, home, bulk_arn(home, bulk))
    for collection in (LINES, RETRIES, RESULTS):
        tx.delete_all(collection, f"{home}/{bulk}")
