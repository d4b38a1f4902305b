"""The three ways a service is spoken to over HTTP: rest-json, JSON 1.1, query (form in, XML out); cloud-api 1 and 3.

From a raw request to an operation with its members by name, and from a reply or a fault to status, headers and bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson

from ggfast.cloud.faults import Fault
from ggfast.cloud.forms import read_form, read_members
from ggfast.cloud.limits import JSON_VALUES_MAX, RETRY_AFTER_S
from ggfast.cloud.operations import Operation, Reply, Service
from ggfast.cloud.shapes import Items, Member, Wrong
from ggfast.cloud.xmltext import element

JSON = "application/json"
JSON_11 = "application/x-amz-json-1.1"
FORM = "application/x-www-form-urlencoded"
_NO_BODY = (204, 304)


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came: path and query raw, headers by lower-case name."""

    method: str
    raw_path: str
    raw_query: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def content_type(self) -> str:
        """The media type alone, in lower case."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: `body`, or what is in `file`, which is sent piece by piece and never all in memory."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    file: Path | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """An operation and the members its path carried; for query services the form's fields."""

    operation: Operation
    path_members: Mapping[str, str]
    fields: Mapping[str, str]


def guess_protocol(request: Request) -> str:
    """How to word a refusal when the request names no service of ours."""
    if "x-amz-target" in request.headers:
        return "json"
    return "query" if request.content_type == FORM else "rest-json"


def too_large(service: Service, most: int) -> Fault:
    """The refusal of a body past its bound."""
    code = "RequestTooLargeException" if service.name == "lambda" else "RequestEntityTooLargeException"
    return Fault(code, f"Request must be smaller than {most} bytes for this operation.", status=413)


def find_operation(service: Service, request: Request) -> Asked:
    """The operation a request asks for. A query service's is in the body, which must be read. Raises Fault."""
    if service.protocol == "rest-json":
        operation, members = service.route(request.method, request.raw_path)
        return Asked(operation, members, {})
    if request.method != "POST" or request.raw_path != "/":
        raise Fault(
            _unknown(service), f"{service.name} has no operation {request.method} {request.raw_path[:200]}.", status=404
        )
    if service.protocol == "json":
        target = request.headers.get("x-amz-target", "")
        prefix, _, name = target.rpartition(".")
        if prefix != service.name or name not in service.operations:
            raise Fault(_unknown(service), f"{service.name} has no operation '{target[:200]}'.", status=400)
        return Asked(service.operations[name], {}, {})
    if request.content_type != FORM:
        raise Fault("MissingAction", f"The request is not of type {FORM}, so it names no action.")
    fields = read_form(request.body)
    name = fields.get("Action", "")
    if name not in service.operations:
        code = "InvalidAction" if name else "MissingAction"
        raise Fault(code, f"Could not find operation {name[:200]} for version {fields.get('Version', '')[:40]}")
    if fields.get("Version", service.api_version) != service.api_version:
        raise Fault(
            "InvalidAction",
            f"Could not find operation {name} for version {fields['Version'][:40]}; use {service.api_version}",
        )
    return Asked(service.operations[name], {}, fields)


def read_request(service: Service, asked: Asked, request: Request) -> dict[str, Any]:
    """The members of a request by name. Raises Fault."""
    if len(request.body) > asked.operation.body_bytes_max:
        raise too_large(service, asked.operation.body_bytes_max)
    try:
        if service.protocol == "query":
            return read_members(asked.operation.takes, asked.fields, open_members=service.open_members)
        found = _read_body(service, asked.operation, request)
        if service.protocol == "rest-json":
            found.update(_read_places(service, asked, request))
        return found
    except Wrong as wrong:
        raise service.invalid(wrong) from wrong


def answer(service: Service, operation: Operation, reply: Reply, request_id: str) -> Answer:
    """A reply as bytes."""
    status = reply.status or operation.status
    headers = {"x-amzn-RequestId": request_id, **reply.headers}
    if status in _NO_BODY:
        return Answer(status, headers, b"")
    if reply.raw is not None:
        return Answer(status, {"Content-Type": reply.content_type or JSON, **headers}, reply.raw)
    if service.protocol == "query":
        name = operation.name
        result = element(f"{name}Result", reply.members) if reply.members else ""
        closing = element("ResponseMetadata", {"RequestId": request_id})
        text = f'<{name}Response xmlns="{_namespace(service)}">{result}{closing}</{name}Response>'
        return Answer(status, {"Content-Type": "text/xml", **headers}, text.encode())
    content_type = JSON_11 if service.protocol == "json" else JSON
    return Answer(status, {"Content-Type": content_type, **headers}, orjson.dumps(reply.members))


def refusal(protocol: str, fault: Fault, request_id: str) -> Answer:
    """A fault as bytes. Without a code the client reports the status (cloud-api 3)."""
    headers = {"x-amzn-RequestId": request_id}
    if fault.status == 503:
        headers["Retry-After"] = f"{RETRY_AFTER_S}"
    if protocol == "query":
        members = {
            "Type": "Receiver" if fault.status >= 500 else "Sender",
            "Code": fault.code,
            "Message": fault.message,
        }
        text = f"<ErrorResponse>{element('Error', members)}{element('RequestId', request_id)}</ErrorResponse>"
        return Answer(fault.status, {"Content-Type": "text/xml", **headers}, text.encode())
    content_type = JSON_11 if protocol == "json" else JSON
    if fault.code:
        headers["x-amzn-ErrorType"] = fault.code
        body = {"__type": fault.code, "message": fault.message, **fault.members}
    else:
        body = {"Message": fault.message, **fault.members}
    return Answer(fault.status, {"Content-Type": content_type, **headers}, _json(body))


def _json(body: Mapping[str, object]) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # lone surrogates from a raw path
        return orjson.dumps({key: str(value).encode("utf-8", "replace").decode() for key, value in body.items()})


def _unknown(service: Service) -> str:
    return service.unknown_operation


def _namespace(service: Service) -> str:
    return f"https://{service.name}.amazonaws.com/doc/{service.api_version}/"


# --- bodies ------------------------------------------------------------------------------------------------


def _read_body(service: Service, operation: Operation, request: Request) -> dict[str, Any]:
    for name, member in operation.takes.members.items():
        if member.where == "payload":
            return {name: request.body} if request.body else {}
    if not request.body.strip():
        return {}
    kind = request.content_type
    if kind and kind not in (JSON, JSON_11, "application/x-amz-json-1.0"):
        raise Fault(
            "UnsupportedMediaTypeException",
            f"The body's content type is '{kind[:80]}', expected {JSON_11 if service.protocol == 'json' else JSON}.",
            status=415,
        )
    # Parsed, the smallest value takes as much memory as fifty characters of text.
    if sum(request.body.count(sign) for sign in (b",", b"[", b"{")) > JSON_VALUES_MAX:
        text = f"The request body has more than {JSON_VALUES_MAX} values, expected fewer."
        raise Fault("SerializationException", text)
    try:
        document = orjson.loads(request.body)
    except ValueError as error:
        raise Fault("SerializationException", f"Could not parse request body into json: {error}.") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        found = type(document).__name__
        raise Fault("SerializationException", f"The request body is JSON of type {found}, expected an object.")
    elsewhere = {name for name, member in operation.takes.members.items() if member.where != "body"}
    wires = {member.wire or name: name for name, member in operation.takes.members.items() if member.where == "body"}
    members = {}
    for name, value in document.items():
        if name in wires:
            members[wires[name]] = value
        elif name not in elsewhere:  # what path and query said stands; some clients repeat it in the body
            members[name] = value  # unknown: the operation's record says so
    return members


# --- path, query, headers ----------------------------------------------------------------------------------


def _read_places(service: Service, asked: Asked, request: Request) -> dict[str, Any]:
    takes = asked.operation.takes
    found: dict[str, Any] = {}
    for name, text in asked.path_members.items():
        found[name] = takes.members[name].shape.read_text(text, name)
    known = {member.wire or name: (name, member) for name, member in takes.members.items() if member.where == "query"}
    for key, texts in read_query(request.raw_query).items():
        if key in known:
            name, member = known[key]
            found[name] = _read_texts(member, texts, name)
        elif not service.open_members:
            expected = "one of " + ", ".join(sorted(known)) if known else "no query"
            raise Wrong(key[:80], "an unknown query parameter", expected)
    for name, member in takes.members.items():
        given = request.headers.get((member.wire or name).lower()) if member.where == "header" else None
        if given is not None:
            found[name] = member.shape.read_text(given, name)
    return found


def _read_texts(member: Member, texts: list[str], name: str) -> Any:
    if isinstance(member.shape, Items):
        return [member.shape.of.read_text(text, name) for text in texts]
    if len(texts) != 1:
        raise Wrong(name, f"{len(texts)} values", "one value")
    return member.shape.read_text(texts[0], name)


def read_query(raw_query: str) -> dict[str, list[str]]:
    """The values of each parameter of a query, decoded. Raises Wrong."""
    found: dict[str, list[str]] = {}
    for part in raw_query.split("&") if raw_query else ():
        name, _, value = part.partition("=")
        if part:
            found.setdefault(_decoded(name), []).append(_decoded(value))
    return found


def _decoded(text: str) -> str:
    try:
        return unquote_to_bytes(text.encode("utf-8", "surrogateescape")).decode()
    except UnicodeDecodeError as error:
        raise Wrong("the query", "bytes that are not UTF-8", "UTF-8 text, percent-encoded") from error
