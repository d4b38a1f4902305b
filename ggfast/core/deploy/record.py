"""What the deployment agent remembers over crashes: the machine's Record as bytes in two slots. Blocking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from ggfast import limits
from ggfast.core.deploy.machine import Deployment, Record, Report, State
from ggfast.errors import CorruptRecord
from ggfast.storage.slots import Slots


class Records:
    """The record in `path`. `fsync` False gives up safety against power loss, not against crashes."""

    def __init__(self, path: Path, *, fsync: bool = True) -> None:
        self._slots = Slots(path, limits.DEPLOYMENT_RECORD_BYTES, fsync=fsync)

    def load(self) -> Record:
        """What was kept last; an empty record if there is none. Raises StorageFailed, CorruptRecord."""
        data = self._slots.read()
        return Record() if data is None else decode(data)

    def keep(self, record: Record) -> None:
        """On disk when this returns. Raises StorageFailed."""
        self._slots.write(encode(record))


def encode(record: Record) -> bytes:
    """As JSON. A message that is too long for the record is cut."""
    report = record.report
    if report is not None and len(report.message.encode()) > limits.DEPLOYMENT_MESSAGE_BYTES_MAX:
        cut = report.message.encode()[: limits.DEPLOYMENT_MESSAGE_BYTES_MAX].decode(errors="ignore")
        record = replace(record, report=replace(report, message=cut))
    return orjson.dumps(record)


def decode(data: bytes) -> Record:
    """From JSON. Raises CorruptRecord."""
    try:
        found = orjson.loads(data)
        report = found["report"]
        return Record(
            state=State(found["state"]),
            current=_deployment(found["current"]),
            attempts=int(found["attempts"]),
            report=None
            if report is None
            else Report(_needed(report["deployment"]), str(report["status"]), str(report["message"])),
            last=str(found["last"]),
            reset=str(found["reset"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptRecord(f"the record of deployments cannot be understood: {error!r}") from error


def _deployment(found: Mapping[str, Any] | None) -> Deployment | None:
    return None if found is None else _needed(found)


def _needed(found: Mapping[str, Any]) -> Deployment:
    return Deployment(*(str(found[name]) for name in ("id", "type", "group_id", "version_id")))
