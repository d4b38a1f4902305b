"""Retained messages and persistent sessions as one file: written at an orderly stop, read at the next start.

    8 bytes  b"ggfmqtt1"
    4 bytes  CRC-32C of the rest, little-endian
    rest     JSON; every payload and topic in base64

The file is complete or not there: it is written beside its place, synced and renamed. One that does not check
out is moved aside and reported; the broker then starts empty.
"""

from __future__ import annotations

import base64
import logging
import os
from pathlib import Path
from typing import Any

import orjson

from ggfast._ext.buffers import crc32c
from ggfast._ext.session import Session
from ggfast.errors import CorruptRecord, StorageFailed
from ggfast.mqtt.broker import Broker

logger = logging.getLogger("ggfast.broker")

FILE_NAME = "broker-state"
MAGIC = b"ggfmqtt1"
HEADER_BYTES = len(MAGIC) + 4


def save(broker: Broker, directory: Path) -> None:
    """Write the state of a closed broker. Blocks. Raises StorageFailed."""
    body = orjson.dumps({"retained": _retained(broker), "sessions": _sessions(broker)})
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


def load(broker: Broker, directory: Path) -> bool:
    """Fill a fresh broker from the file, and remove the file: it holds only until the broker changes anything.

    False if there is none, or if it was corrupt (reported, moved aside as `broker-state.corrupt`). Blocks.
    Raises StorageFailed if it cannot be read.
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
        sessions = [_session_of(broker, entry) for entry in document["sessions"]]
        retained = [
            (entry["source"], _bytes(entry["topic"]), _bytes(entry["payload"]), int(entry["qos"]))
            for entry in document["retained"]
        ]
    except (CorruptRecord, KeyError, TypeError, ValueError) as error:
        aside = path.with_suffix(".corrupt")
        path.replace(aside)
        broker.counters.add("broker.corrupt_state")
        logger.error("stored broker state cannot be used and was set aside file=%s: %s", aside, error)
        return False
    for source, topic, payload, qos in retained:
        broker.retained.put(source, topic, payload, qos)
    for client_id, source, session, filters in sessions:
        broker.restore_session(client_id, source, session, filters)
    path.unlink()
    return True


def _checked(data: bytes) -> dict[str, Any]:
    if data[: len(MAGIC)] != MAGIC:
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


def _retained(broker: Broker) -> list[dict[str, Any]]:
    return [
        {"source": message.source, "topic": _text(message.topic), "payload": _text(message.payload), "qos": message.qos}
        for message in broker.retained.all()
    ]


def _sessions(broker: Broker) -> list[dict[str, Any]]:
    stored = []
    for client_id, session in broker.sessions_away().items():
        state = session.export()
        for kind in ("flights", "queued"):
            state[kind] = [
                (number, retain, _text(topic), _text(payload)) for number, retain, topic, payload in state[kind]
            ]
        filters = [(_text(pattern), qos) for pattern, qos in session.subscriptions.items()]
        stored.append({"client_id": client_id, "source": session.source, "filters": filters, "state": state})
    return stored


def _session_of(broker: Broker, entry: dict[str, Any]) -> tuple[str, str, Session, list[tuple[bytes, int]]]:
    state = dict(entry["state"])
    for kind in ("flights", "queued"):
        state[kind] = [
            (number, retain, _bytes(topic), _bytes(payload)) for number, retain, topic, payload in state[kind]
        ]
    session = Session(broker.router, broker.session_limits, None)
    session.restore(state)
    filters = [(_bytes(pattern), int(qos)) for pattern, qos in entry["filters"]]
    return str(entry["client_id"]), str(entry["source"]), session, filters
