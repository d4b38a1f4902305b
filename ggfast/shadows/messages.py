"""Requests to a shadow as they are read, answers and notices as they are written (greengrass-core 9.3, 9.4).

Every function works on bytes and values alone; the callers keep the shadow and send what comes back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import orjson

from ggfast.limits import SHADOW_REQUEST_BYTES_MAX, SHADOW_TOKEN_BYTES_MAX
from ggfast.shadows.document import SECTIONS, Shadow, ShadowRefused, Tree, check_section, stamped


@dataclass(frozen=True, slots=True)
class Update:
    """What an accepted update makes: the new shadow and its messages; `delta` is None if nothing differs.

    Send `delta` first, then `accepted`: a client that has seen the version in `accepted` drops the delta
    (sdk-contract 10). `documents` may follow at any time.
    """

    shadow: Shadow
    delta: bytes | None
    accepted: bytes
    documents: bytes


def update(shadow: Shadow, payload: bytes, now: int) -> Update:
    """Apply an update request to the current shadow (version 0: none). Raises ShadowRefused.

    `now` is in whole seconds since 1970. A request's `version` must be the shadow's current one.
    """
    request = read_object(payload)
    token = token_of(request)
    try:
        sections = _sections(request)
        _check_version(request, shadow)
        changed = shadow.updated(sections, now)
    except ShadowRefused as refused:
        raise ShadowRefused(refused.code, refused.text, token) from refused
    sent_metadata = {name: stamped(section, now) for name, section in sections.items() if section is not None}
    state, metadata = changed.delta()
    delta = {"version": changed.version, "timestamp": now, "state": state, "metadata": metadata}
    accepted = {"state": sections, "metadata": sent_metadata, "version": changed.version, "timestamp": now}
    documents = {"previous": _whole(shadow), "current": _whole(changed), "timestamp": now}
    return Update(
        shadow=changed,
        delta=_written(delta, token) if state else None,
        accepted=_written(accepted, token),
        documents=_written(documents, token),
    )


def got(shadow: Shadow, now: int, token: str = "") -> bytes:
    """The answer to a get request."""
    state = shadow.state()
    delta, _ = shadow.delta()
    if delta:
        state["delta"] = delta
    answer = {"state": state, "metadata": shadow.metadata(), "version": shadow.version, "timestamp": now}
    return _written(answer, token)


def deleted(shadow: Shadow, now: int, token: str = "") -> bytes:
    """The answer to a delete request."""
    return _written({"version": shadow.version, "timestamp": now}, token)


def rejected(refused: ShadowRefused, now: int) -> bytes:
    """The answer to a request that was refused."""
    return _written({"code": refused.code, "message": refused.text, "timestamp": now}, refused.token)


def missing(thing: str, name: str = "", token: str = "") -> ShadowRefused:
    """That a thing has no such shadow; `name` "" is the classic one."""
    return ShadowRefused(404, f"No shadow exists with name: '{f'{thing}~{name}' if name else thing}'", token)


def read_token(payload: bytes) -> str:
    """The clientToken of a get or delete request, whose payload may be empty. Raises ShadowRefused."""
    return token_of(read_object(payload)) if payload else ""


def read_object(payload: bytes) -> Tree:
    """The JSON object of a request. Raises ShadowRefused."""
    if len(payload) > SHADOW_REQUEST_BYTES_MAX:
        raise ShadowRefused(413, "The payload exceeds the maximum size allowed")
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        raise ShadowRefused(415, "Unsupported documented encoding; supported encoding is UTF-8") from error
    try:
        request = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise ShadowRefused(400, "Payload contains invalid json") from error
    if not isinstance(request, dict):
        raise ShadowRefused(400, "Payload contains invalid json")
    return request


def token_of(request: Tree) -> str:
    """A request's clientToken, "" if it has none. Raises ShadowRefused."""
    token = request.get("clientToken")
    if token is None:
        return ""
    if not isinstance(token, str) or not 0 < len(token.encode()) <= SHADOW_TOKEN_BYTES_MAX:
        raise ShadowRefused(400, "Invalid clientToken")
    return token


def to_body(shadow: Shadow) -> dict[str, Any]:
    """A shadow as the JSON object that a store keeps."""
    return {
        "state": shadow.state(),
        "metadata": shadow.metadata(),
        "version": shadow.version,
        "timestamp": shadow.timestamp,
    }


def from_body(body: dict[str, Any]) -> Shadow:
    """The shadow of `to_body`."""
    state, metadata = body["state"], body["metadata"]
    sections = {name: state.get(name, {}) for name in SECTIONS}
    stamps = {f"{name}_metadata": metadata.get(name, {}) for name in SECTIONS}
    return Shadow(**sections, **stamps, version=body["version"], timestamp=body["timestamp"])


def emptied(shadow: Shadow) -> Shadow:
    """What remains after a deletion: the version, so that a shadow made soon after goes on from it."""
    return replace(Shadow(), version=shadow.version)


def _sections(request: Tree) -> Tree:
    state = request.get("state")
    if state is None:
        raise ShadowRefused(400, "Missing required node: state")
    if not isinstance(state, dict):
        raise ShadowRefused(400, "State contains invalid type; expected object")
    for name in state:
        if name not in SECTIONS:
            raise ShadowRefused(400, f"State contains an invalid node: '{name[:64]}'")
    for name, section in state.items():
        check_section(name, section)
    return state


def _check_version(request: Tree, shadow: Shadow) -> None:
    version = request.get("version")
    if version is None:
        return
    if isinstance(version, bool) or not isinstance(version, int) or version < 0:
        raise ShadowRefused(400, "Invalid version")
    if version != shadow.version:
        raise ShadowRefused(409, "Version conflict")


def _whole(shadow: Shadow) -> Tree:
    return {"state": shadow.state(), "metadata": shadow.metadata(), "version": shadow.version}


def _written(message: Tree, token: str) -> bytes:
    return orjson.dumps(message | {"clientToken": token} if token else message)
