"""Retained messages and persistent sessions as one file: written at an orderly stop, read at the next start.

    8 bytes  b"ggfmqtt2"; b"ggfmqtt1" is read too: no MQTT 5.0 in it, nothing expires
    4 bytes  CRC-32C of the rest, little-endian
    rest     JSON; every payload, topic and block of properties in base64

What expires is stored as the seconds it has left at `saved_at` (wall clock), so that the time the broker does not
run counts. A clock that went back meanwhile counts nothing. The broker's own `$SYS` topics are not stored.

The file is complete or not there: it is written beside its place, synced and renamed. One that does not check
out is moved aside and reported; the broker then starts empty.
"""

from __future__ import annotations

import base64
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from ggfast._ext.buffers import crc32c
from ggfast._ext.session import Session
from ggfast.errors import CorruptRecord, StorageFailed
from ggfast.mqtt.broker import Broker
from ggfast.mqtt.retained import RetainedMessage
from ggfast.mqtt.sessions import NEVER, AbsentSession
from ggfast.mqtt.wills import SYSTEM_PREFIX, StoredWill

logger = logging.getLogger("ggfast.broker")

FILE_NAME = "broker-state"
MAGIC = b"ggfmqtt2"
MAGIC_1 = b"ggfmqtt1"
HEADER_BYTES = len(MAGIC) + 4


def save(broker: Broker, directory: Path, *, retained: bool = True, notes: Mapping[str, str] | None = None) -> None:
    """Write the state of a closed broker. Blocks. Raises StorageFailed.

    `retained=False`: those messages are kept elsewhere. `notes`: what its owner has to know of sessions, by client id.
    """
    body = orjson.dumps(
        {
            "saved_at": broker.clock.wall(),
            "retained": _retained(broker) if retained else [],
            "sessions": _sessions(broker),
            "notes": dict(notes or {}),
        }
    )
    data = MAGIC + crc32c(body).to_bytes(4, "little") + body
    path = directory / FILE_NAME
    new = path.with_suffix(".new")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StorageFailed(f"the broker's state could not be written to {path}: {error}.") from error


def load(broker: Broker, directory: Path, notes: dict[str, str] | None = None) -> bool:
    """Fill a fresh broker from the file, and remove the file: it holds only until the broker changes anything.

    False if there is none, or if it was corrupt (reported, moved aside as `broker-state.corrupt`). Blocks.
    Raises StorageFailed if it cannot be read. `notes` is filled with those of `save`.
    """
    path = directory / FILE_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StorageFailed(f"the broker's state could not be read from {path}: {error}.") from error
    try:
        document = _checked(data)
        passed_s = max(0.0, broker.clock.wall() - float(document.get("saved_at", math.inf)))
        sessions = [_session_of(broker, entry, passed_s) for entry in document["sessions"]]
        retained = [_retained_of(broker, entry, passed_s) for entry in document["retained"]]
        noted = {str(name): str(note) for name, note in document.get("notes", {}).items()}
    except (AttributeError, CorruptRecord, KeyError, TypeError, ValueError) as error:
        aside = path.with_suffix(".corrupt")
        path.replace(aside)
        broker.counters.add("broker.corrupt_state")
        logger.error("stored broker state cannot be used and was set aside file=%s: %s", aside, error)
        return False
    for message in retained:
        broker.retained.put(*message)
    for stored in sessions:
        broker.restore_session(
            stored.client_id,
            stored.source,
            stored.session,
            stored.filters,
            level=stored.level,
            expiry_s=stored.expiry_s,
            will=stored.will,
            will_in_s=stored.will_in_s,
        )
    if notes is not None:
        notes.update(noted)
    path.unlink()
    return True


def _checked(data: bytes) -> dict[str, Any]:
    if data[: len(MAGIC)] not in (MAGIC, MAGIC_1):
        raise CorruptRecord(f"it begins with {data[:8]!r}, expected {MAGIC!r}")
    body = data[HEADER_BYTES:]
    found, expected = crc32c(body), int.from_bytes(data[len(MAGIC) : HEADER_BYTES], "little")
    if len(data) < HEADER_BYTES or found != expected:
        raise CorruptRecord(f"its checksum is {found:08x}, expected {expected:08x}")
    document = orjson.loads(body)
    if not isinstance(document, dict):
        raise CorruptRecord("it does not hold an object")
    return document


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


# --- time ----------------------------------------------------------------------------------------------


def _left(broker: Broker, expires: int) -> int | None:
    """Seconds until a lane second; None for what never expires."""
    return expires - broker.router.now if expires else None


def _expires(broker: Broker, left_s: float | None, passed_s: float) -> int:
    """The lane second at which something is gone; it may be in the past, and is 0 for never."""
    return 0 if left_s is None else max(1, broker.router.now + math.ceil(left_s - passed_s))


# --- retained messages ---------------------------------------------------------------------------------


def _retained(broker: Broker) -> list[dict[str, Any]]:
    return [
        {
            "source": message.source,
            "topic": _text(message.topic),
            "payload": _text(message.payload),
            "qos": message.qos,
            "properties": _text(message.properties),
            "left_s": _left(broker, message.expires),
        }
        for message in broker.retained.all()
        if not (broker.router.open and message.topic.startswith(SYSTEM_PREFIX))
    ]


def _retained_of(broker: Broker, entry: dict[str, Any], passed_s: float) -> RetainedMessage:
    return RetainedMessage(
        str(entry["source"]),
        _bytes(entry["topic"]),
        _bytes(entry["payload"]),
        int(entry["qos"]),
        _bytes(entry.get("properties", "")),
        _expires(broker, entry.get("left_s"), passed_s),
    )


# --- sessions ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Stored:
    """One session as it was stored, with the seconds it and its will have left now."""

    client_id: str
    source: str
    level: int
    session: Session
    filters: list[tuple[bytes, int]]
    expiry_s: float
    will: StoredWill | None
    will_in_s: float


def _sessions(broker: Broker) -> list[dict[str, Any]]:
    return [_session(broker, client_id, entry) for client_id, entry in broker.absent.items()]


def _session(broker: Broker, client_id: str, entry: AbsentSession) -> dict[str, Any]:
    session, now = entry.session, broker.clock.monotonic()
    state = session.export()
    for kind in ("flights", "queued"):
        state[kind] = [
            (number, retain, _text(topic), _text(payload), _text(properties), _left(broker, expires))
            for number, retain, topic, payload, properties, expires in state[kind]
        ]
    return {
        "client_id": client_id,
        "source": session.source,
        "level": session.level,
        "filters": [(_text(pattern), options) for pattern, options in session.subscriptions.items()],
        "expiry_s": None if entry.ends_at == math.inf else entry.ends_at - now,
        "will": None if entry.will is None else _will(entry.will),
        "will_in_s": 0.0 if entry.will is None else entry.will_at - now,
        "state": state,
    }


def _session_of(broker: Broker, entry: dict[str, Any], passed_s: float) -> _Stored:
    state = dict(entry["state"])
    for kind in ("flights", "queued"):
        state[kind] = [_message_of(broker, stored, passed_s) for stored in state[kind]]
    session = Session(broker.router, broker.session_limits, None)
    session.restore(state)
    expiry_s, will = entry.get("expiry_s"), entry.get("will")
    return _Stored(
        str(entry["client_id"]),
        str(entry["source"]),
        int(entry.get("level", 4)),
        session,
        [(_bytes(pattern), int(options)) for pattern, options in entry["filters"]],
        NEVER if expiry_s is None else max(0.0, expiry_s - passed_s),
        None if will is None else _will_of(will),
        max(0.0, entry.get("will_in_s", 0.0) - passed_s),
    )


def _message_of(broker: Broker, stored: list[Any], passed_s: float) -> tuple[Any, ...]:
    number, retain, topic, payload = stored[:4]
    properties, left_s = stored[4:] or ("", None)
    return (
        number,
        retain,
        _bytes(topic),
        _bytes(payload),
        _bytes(properties),
        _expires(broker, left_s, passed_s),
    )


def _will(will: StoredWill) -> dict[str, Any]:
    return {
        "source": will.source,
        "topic": _text(will.topic),
        "payload": _text(will.payload),
        "qos": will.qos,
        "retain": will.retain,
        "properties": _text(will.properties),
        "expiry_s": will.expiry_s,
    }


def _will_of(entry: dict[str, Any]) -> StoredWill:
    return StoredWill(
        str(entry["source"]),
        _bytes(entry["topic"]),
        _bytes(entry["payload"]),
        int(entry["qos"]),
        bool(entry["retain"]),
        _bytes(entry["properties"]),
        int(entry["expiry_s"]),
    )
