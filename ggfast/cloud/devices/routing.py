"""Paths of the devices' HTTPS server, and a request as their handlers see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson

from ggfast.cloud.devices.identity import Identity
from ggfast.cloud.faults import Fault
from ggfast.cloud.operations import Reply
from ggfast.cloud.protocols import Request, read_query
from ggfast.cloud.shapes import Wrong


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of a device whose certificate is good. `params` are the path's members, decoded."""

    identity: Identity
    request: Request
    params: Mapping[str, str]
    identify: Callable[[str], Awaitable[Identity]]

    async def again(self) -> Asked:
        """The same request, with what the certificate may do now. Raises Fault if it is not good any more, or is now
        that of another region."""
        identity = await self.identify(self.identity.certificate_id)
        if identity.home != self.identity.home:
            raise Fault("UnauthorizedException", "The client certificate is now another region's.", status=401)
        return Asked(identity, self.request, self.params, self.identify)

    def query(self, name: str, default: str = "") -> str:
        """One parameter of the query. Raises Fault for a query that cannot be read."""
        try:
            return read_query(self.request.raw_query).get(name, [default])[0]
        except Wrong as wrong:
            raise bad(f"{wrong}.") from wrong

    def body(self) -> dict[str, Any]:
        """The body, a JSON object. Raises Fault."""
        try:
            found = orjson.loads(self.request.body or b"{}")
        except ValueError as error:
            raise bad(f"The body is not JSON: {error}.") from error
        if not isinstance(found, dict):
            raise bad(f"The body is JSON of type {type(found).__name__}, expected an object.")
        return found

    def require(self, action: str, resource: str) -> None:
        """Raise Fault unless the certificate's policies allow it on an ARN."""
        if not self.identity.allows(action, resource):
            raise denied(f"{self.identity.arn} is not authorized to perform: {action} on resource: {resource}")

    def require_thing(self, thing: str) -> None:
        """Raise Fault unless the certificate is attached to the thing."""
        if thing not in self.identity.things:
            raise denied(f"The certificate is not attached to the thing {thing[:128]}.")


@dataclass(frozen=True, slots=True)
class FileReply:
    """A file, or the range of it that was asked for."""

    path: Path
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Asked], Awaitable[Reply | FileReply]]


def bad(text: str) -> Fault:
    """400."""
    return Fault("BadRequestException", text)


def denied(text: str) -> Fault:
    """403."""
    return Fault("AccessDeniedException", text, status=403)


class Routes:
    """Handlers by method and path. A pattern's `{Name}` takes one segment, `{Name...}` last all that follow."""

    def __init__(self) -> None:
        self._routes: list[tuple[str, list[str], Handler]] = []

    def add(self, route: str, handler: Handler) -> None:
        """`GET /greengrass/discover/thing/{ThingName}`."""
        method, _, path = route.partition(" ")
        self._routes.append((method, path.strip("/").split("/"), handler))

    def find(self, method: str, raw_path: str) -> tuple[Handler, dict[str, str]]:
        """The handler and the path's members. Raises Fault: 404, or 405 for another method. The path is taken apart
        before it is decoded."""
        segments = raw_path.lstrip("/").split("/")
        methods = set()
        for known, pattern, handler in self._routes:
            params = _match(pattern, segments)
            if params is not None:
                if known == method:
                    return handler, params
                methods.add(known)
        if methods:
            text = f"The path takes {', '.join(sorted(methods))}, not {method[:20]}."
            raise Fault("MethodNotAllowedException", text, status=405)
        raise Fault("ResourceNotFoundException", f"There is nothing at {raw_path[:200]}.", status=404)


def _match(pattern: list[str], segments: list[str]) -> dict[str, str] | None:
    params: dict[str, str] = {}
    for position, part in enumerate(pattern):
        if part.endswith("...}"):
            rest = segments[position:]
            if not rest or not rest[0]:
                return None
            params[part[1:-4]] = "/".join(_decoded(segment) for segment in rest)
            return params
        if position >= len(segments):
            return None
        if part.startswith("{"):
            if not segments[position]:
                return None
            params[part[1:-1]] = _decoded(segments[position])
        elif part != segments[position]:
            return None
    return params if len(pattern) == len(segments) else None


def _decoded(segment: str) -> str:
    try:
        text = unquote_to_bytes(segment.encode("utf-8", "surrogateescape")).decode()
    except UnicodeDecodeError as error:
        raise bad("The path has bytes that are not UTF-8.") from error
    if "\0" in text:
        raise bad("The path has a U+0000.")
    return text
