"""Requests made at random from the services' own models: right ones, odd ones and wrong ones, all from one seed.

What a request looks like on the wire (paths, queries, headers, forms, JSON) is built here and not by a client library,
which would refuse to send what is wrong. Strings out of earlier answers are used again, so that requests meet things
that exist.
"""

from __future__ import annotations

import base64
import json
import random
import string
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import botocore.session
from botocore.model import OperationModel, Shape

ODD = (
    *(
        "",
        " ",
        "0",
        "-1",
        "null",
        "../../etc/passwd",
        "..%2f..%2fetc",
        "a/b",
        "$reset",
        "$stop",
        "*",
        "%",
        "%zz",
        "%00",
    ),
    *("'; DROP TABLE documents; --", '"', "\\", "<x>&amp;", "\r\nX: y", "ü€𝄞", "\u202e", "\ud7ff", "A" * 5_000),
    *("arn:aws:iot:eu-west-1:123456789012:thing/x", "arn:", "::::::", "00000000-0000-0000-0000-000000000000"),
    *("application/json", "[]", "{}", "9" * 400, "1e999", "NaN", "{{x}}", "${x}", "true", "\t"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**70), 1.5, 1e308, "", "x", [], {}, [[]], [None]),
    *([{}], {"a": None}, {"": ""}, [1, "a"], "\u0001", "x" * 70_000, {"x": {"x": {"x": {"x": {}}}}}),
)
SERVICES = ("greengrass", "iot", "iot-data", "iot-jobs-data", "lambda", "iam", "sts", "secretsmanager")
POOL_MAX = 400


@dataclass
class Request:
    """One request before it is signed."""

    service: str
    scope: str
    operation: str
    method: str
    path: str  # raw, with the query
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Generator:
    """Makes requests; `seen` feeds it what answers said."""

    def __init__(self, seed: int, known: dict[str, set[str]]) -> None:
        self.random = random.Random(seed)
        session = botocore.session.Session()
        self.models = {name: session.get_service_model(name) for name in SERVICES}
        self.operations = [
            (name, model.operation_model(operation))
            for name, model in self.models.items()
            for operation in model.operation_names
            if operation in known[name]
        ]
        self.pool: list[str] = []

    def next(self) -> Request:
        """One request."""
        name, operation = self.random.choice(self.operations)
        wild = self.random.random() < 0.6
        members = self.members(operation.input_shape, wild, 0) if operation.input_shape is not None else {}
        return self.on_the_wire(name, operation, members, wild)

    def seen(self, answer: object) -> None:
        """Remember the strings of an answer."""
        if isinstance(answer, str) and 0 < len(answer) < 300:
            if len(self.pool) < POOL_MAX:
                self.pool.append(answer)
            else:
                self.pool[self.random.randrange(POOL_MAX)] = answer
        elif isinstance(answer, dict):
            for value in answer.values():
                self.seen(value)
        elif isinstance(answer, list):
            for value in answer[:20]:
                self.seen(value)

    # --- values ----------------------------------------------------------------------------------------

    def members(self, shape: Shape, wild: bool, depth: int) -> dict[str, Any]:
        """Values for a structure: what it requires nearly always, the rest sometimes."""
        found = {}
        for name, member in shape.members.items():
            needed = name in shape.required_members or member.serialization.get("location") == "uri"
            if self.random.random() < (0.97 if needed else 0.3) and depth < 6:
                found[name] = self.value(member, wild, depth + 1)
        if wild and self.random.random() < 0.05:
            found["Unknown" + self.random.choice(string.ascii_letters)] = self.random.choice(VALUES)
        return found

    def value(self, shape: Shape, wild: bool, depth: int) -> Any:
        """One value of a shape, or something else."""
        if wild and self.random.random() < 0.12:
            return self.random.choice(VALUES)
        match shape.type_name:
            case "structure":
                return self.members(shape, wild, depth)
            case "list":
                return [self.value(shape.member, wild, depth + 1) for _ in range(self.random.choice((0, 1, 1, 2, 3)))]
            case "map":
                return {
                    str(self.value(shape.key, wild, depth + 1)): self.value(shape.value, wild, depth + 1)
                    for _ in range(self.random.choice((0, 1, 2)))
                }
            case "boolean":
                return self.random.random() < 0.5
            case "integer" | "long" | "double" | "float" | "timestamp":
                return self.random.choice((0, 1, 2, 10, 100, 3600, -1, 10**12))
            case "blob":
                return base64.b64encode(self.random.randbytes(self.random.choice((0, 1, 100, 2_000)))).decode()
        return self.text(shape, wild)

    def text(self, shape: Shape, wild: bool) -> str:
        """A string: one of the enumeration, one seen before, a fresh name, or an odd one."""
        if getattr(shape, "enum", None) and self.random.random() < 0.8:
            return str(self.random.choice(shape.enum))
        if wild and self.random.random() < 0.3:
            return self.random.choice(ODD)
        if self.pool and self.random.random() < 0.6:
            return self.random.choice(self.pool)
        return self.random.choice(("a", "b", "thing-", "1", "name")) + str(self.random.randrange(30))

    # --- the wire --------------------------------------------------------------------------------------

    def on_the_wire(self, service: str, operation: OperationModel, members: dict[str, Any], wild: bool) -> Request:
        """The request as bytes and texts."""
        model = self.models[service]
        scope = model.signing_name
        made = Request(service, scope, operation.name, operation.http.get("method", "POST"), "/")
        protocol = model.metadata["protocol"]
        if protocol == "query":
            form = {"Action": operation.name, "Version": model.api_version, **flat(members)}
            made.body = urlencode(form, errors="surrogatepass").encode()
            made.headers["Content-Type"] = "application/x-www-form-urlencoded; charset=utf-8"
        elif protocol == "json":
            made.body = encoded(members)
            made.headers["Content-Type"] = "application/x-amz-json-1.1"
            made.headers["X-Amz-Target"] = f"{model.metadata['targetPrefix']}.{operation.name}"
        else:
            self.rest(made, operation, members)
        if wild and made.body and self.random.random() < 0.05:
            made.body = made.body[: self.random.randrange(len(made.body))]
        if wild and self.random.random() < 0.02:
            made.headers["Content-Type"] = self.random.choice(("text/plain", "", "application/xml", "x"))
        return made

    def rest(self, made: Request, operation: OperationModel, members: dict[str, Any]) -> None:
        """Path, query, headers and body of the REST protocols."""
        path: str = operation.http["requestUri"]
        query: list[tuple[str, str]] = []
        body: dict[str, Any] = {}
        shape = operation.input_shape
        payload = shape.serialization.get("payload") if shape is not None else None
        for name, value in members.items():
            member = shape.members.get(name)
            place = member.serialization.get("location") if member is not None else None
            wire = member.serialization.get("name", name) if member is not None else name
            if place == "uri":
                path = path.replace("{" + wire + "}", quote(as_text(value), safe="-_.~$"))
            elif place == "querystring":
                query += [(wire, as_text(entry)) for entry in (value if isinstance(value, list) else [value])]
            elif place in ("header", "headers"):
                text = as_text(value).encode("ascii", "ignore").decode()
                made.headers[wire] = "".join(letter for letter in text if letter.isprintable())[:300].strip()
            elif name == payload:
                made.body = as_text(value).encode()
            else:
                body[wire] = value
        if body and not made.body:
            made.body = encoded(body)
            made.headers["Content-Type"] = "application/json"
        for name in ("{", "}"):
            path = path.replace(name, "x")
        made.path = path + (("&" if "?" in path else "?") + urlencode(query) if query else "")


def as_text(value: Any) -> str:
    """A value where only text can stand."""
    if isinstance(value, bool) or not isinstance(value, str):
        return json.dumps(value)[:3_000]
    return value


def encoded(value: Any) -> bytes:
    """JSON as a careless client writes it."""
    return json.dumps(value).encode()


def flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Members as a form has them."""
    if isinstance(value, dict):
        return {
            name: text
            for key, entry in value.items()
            for name, text in flat(entry, f"{prefix}.{key}" if prefix else str(key)).items()
        }
    if isinstance(value, list):
        return {
            name: text
            for number, entry in enumerate(value, 1)
            for name, text in flat(entry, f"{prefix}.member.{number}").items()
        }
    return {prefix: as_text(value)}
