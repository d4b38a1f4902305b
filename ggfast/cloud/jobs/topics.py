"""What a device's message to a jobs topic does: the same as the operation, answered on the topic's own answers.

`$aws/things/<thing>/jobs/` + `get`, `start-next`, `<job>/get`, `<job>/update` (sdk-contract 10). Numbers may come as
text, which is how the first Python SDK sends them; unknown members are ignored.
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from ggfast.cloud.events import Publish
from ggfast.cloud.faults import Fault
from ggfast.cloud.jobs import data
from ggfast.cloud.jobs.forms import DETAILS, EXECUTION_STATUS, STEP_MINUTES
from ggfast.cloud.limits import JOB_REQUEST_BYTES_MAX
from ggfast.cloud.shapes import Flag, Record, Text, Whole, Wrong, need
from ggfast.cloud.store.interface import Transaction
from ggfast.cloud.surroundings import Surroundings
from ggfast.shadows.topics import THING_NAME

_REQUEST: Final = re.compile(
    rf"\$aws/things/(?P<thing>{THING_NAME})/jobs/"
    r"(?P<operation>get|start-next|(?P<job>[a-zA-Z0-9_-]{1,64}|\$next)/(?P<verb>get|update))"
)
_CODES: Final = {
    "InvalidRequestException": "InvalidRequest",
    "ResourceNotFoundException": "ResourceNotFound",
    "InvalidStateTransitionException": "InvalidStateTransition",
    "VersionConflictException": "VersionMismatch",
    "TerminalStateException": "TerminalStateReached",
}


class _Number(Whole):
    """A whole number, or a text that holds one."""

    def read(self, value: object, path: str) -> int:
        return self.read_text(value, path) if isinstance(value, str) else super().read(value, path)

    def read_text(self, text: str, path: str) -> int:
        if re.fullmatch(r"[0-9]{1,18}", text) is None:
            raise self.wrong(text, path)
        return super().read(int(text), path)


_TOKEN: Final = Text(0, 1_024)
_TAKES: Final = {
    "get": Record({"clientToken": _TOKEN}, open=True),
    "start-next": Record(
        {"clientToken": _TOKEN, "statusDetails": DETAILS, "stepTimeoutInMinutes": STEP_MINUTES}, open=True
    ),
    "describe": Record({"clientToken": _TOKEN, "executionNumber": _Number(1), "includeJobDocument": Flag()}, open=True),
    "update": Record(
        {
            "clientToken": _TOKEN,
            "status": need(EXECUTION_STATUS),
            "statusDetails": DETAILS,
            "expectedVersion": _Number(0),
            "executionNumber": _Number(1),
            "includeJobExecutionState": Flag(),
            "includeJobDocument": Flag(),
            "stepTimeoutInMinutes": STEP_MINUTES,
        },
        open=True,
    ),
}


def is_request(topic: str) -> bool:
    """Whether a message with this topic asks the jobs service for something."""
    match = _REQUEST.fullmatch(topic)
    return match is not None and not (match["job"] == data.NEXT and match["verb"] == "update")


def handle(tx: Transaction, cloud: Surroundings, home: str, topic: str, payload: bytes) -> None:
    """Do what a message published to `$aws/things/<thing>/jobs/...` asks for and tell the answer.

    A topic that asks for nothing does nothing. Raises nothing but what the store raises.
    """
    match = _REQUEST.fullmatch(topic)
    if match is None or not is_request(topic):
        return
    kind = {"get": "describe"}.get(match["verb"], match["verb"]) if match["verb"] else match["operation"]
    now = cloud.clock.wall()
    token: dict[str, Any] = {}
    try:
        request = _object(payload)
        if isinstance(request.get("clientToken"), str):
            token = {"clientToken": request["clientToken"][:1_024]}
        asked = _read(kind, request)
        answer = _answer(tx, home, kind, match["thing"], match["job"] or "", asked, now)
        result = "accepted"
    except Fault as fault:
        answer = {"code": _CODES.get(fault.code, fault.code), "message": fault.message, **fault.members}
        result = "rejected"
    answer |= {"timestamp": int(now), **token}
    tx.tell(Publish(f"{topic}/{result}", orjson.dumps(answer), home=home))


def _answer(
    tx: Transaction, home: str, kind: str, thing: str, job_id: str, asked: dict[str, Any], now: float
) -> dict[str, Any]:
    if kind == "get":
        return data.get_pending(tx, home, thing)
    if kind == "start-next":
        return data.start_next(tx, home, thing, asked, now)
    if kind == "describe":
        return data.describe(tx, home, thing, job_id, {"includeJobDocument": True, **asked}, now)
    return data.update(tx, home, thing, job_id, asked, now)


def _read(kind: str, request: dict[str, Any]) -> dict[str, Any]:
    try:
        return _TAKES[kind].read(request, "")
    except Wrong as wrong:
        raise Fault("InvalidRequest", f"{wrong}.") from wrong


def _object(payload: bytes) -> dict[str, Any]:
    """The request's JSON object; nothing at all counts as an empty one."""
    if len(payload) > JOB_REQUEST_BYTES_MAX:
        raise Fault(
            "InvalidRequest", f"The request has {len(payload)} bytes, expected at most {JOB_REQUEST_BYTES_MAX}."
        )
    try:
        request = orjson.loads(payload or b"{}")
    except orjson.JSONDecodeError as error:
        raise Fault("InvalidJson", f"The request is not JSON in UTF-8: {error}.") from error
    if not isinstance(request, dict):
        raise Fault("InvalidRequest", "The request is not a JSON object.")
    return request
