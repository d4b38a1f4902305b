"""What the cloud offers a core, over HTTPS with the core's certificate: news, artifacts, reports, keys, certificates.

    GET  /greengrass/things/<thing>/news?deployment=<id>&trust=<version>&wait=<seconds>
    GET  /greengrass/artifacts/<digest>
    PUT  /greengrass/groups/<group>/deployments/<id>/cores/<thing ARN>/status
    GET  /greengrass/groups/<group>/credentials?thing=<thing>
    PUT  /greengrass/things/<thing>/connectivityInfo
    POST /greengrass/things/<thing>/serverCertificate

Two connections: the poll has one for itself, because it holds it as long as it waits. Every answer is checked for its
form. Errors: LinkDown for what passes (no connection, a server that is busy or broken: 408, 425, 429, 5xx), Rejected
with the HTTP status and the server's words for what does not, Malformed and LimitReached for answers of another form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import orjson

from ggfast import limits
from ggfast.arns import ThingArn
from ggfast.config import Config
from ggfast.core.handed import Handed
from ggfast.errors import ConfigError, LinkDown, Malformed, Problem, Rejected
from ggfast.fields import shown
from ggfast.net.httpanswer import Answer
from ggfast.net.httpclient import HttpClient, Sink, client_context
from ggfast.net.outbound import Proxy

_PASSES: Final = frozenset({408, 425, 429})
_NOT_FOUND: Final = 404
_NO_SUCH_RANGE: Final = 416
_PARTIAL: Final = 206
_CONTENT_RANGE: Final = re.compile(r"bytes (?:(\d{1,18})-\d{1,18}|\*)/(\d{1,18}|\*)")
_MESSAGE_CHARACTERS: Final = 1_000
_KEYS: Final = ("accessKeyId", "secretAccessKey", "sessionToken", "expiration")

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class News:
    """What a core did not know; None for what has not changed. `denied`: what its policies keep from it, and why."""

    deployment: Json | None = None
    trust: Json | None = None
    denied: str = ""


class ControlPlane:
    """See the module. Requests other than `news` are done one after the other."""

    def __init__(self, thing: ThingArn, poll: HttpClient, calls: HttpClient) -> None:
        self._thing = thing
        self._poll = poll
        self._calls = calls
        self._things = f"/greengrass/things/{_quoted(thing.name)}"

    @classmethod
    def of(cls, config: Config, handed: Handed) -> ControlPlane | None:
        """The control plane of a configuration, None in local mode. Connects to nobody yet; reads the handed files.
        Raises ConfigError for files that are missing or cannot be used."""
        if config.ggfast.local:
            return None
        if handed.identity is None or handed.authorities is None:
            problem = Problem("--file", "nothing", "identity and authorities, as `ggfast-core start` hands them over")
            raise ConfigError("A core that belongs to a cloud needs its certificate.", [problem])
        about = config.core_thing
        context = client_context(handed.authorities, handed.identity)
        proxy = None
        if about.network_proxy is not None:  # the proxy's CA is in the same file (greengrass-core 17.6)
            proxy = Proxy.of(about.network_proxy, client_context(handed.authorities))
        clients = [HttpClient(about.gg_host, about.gg_http_port, context, proxy=proxy) for _ in range(2)]
        return cls(about.thing_arn, *clients)

    def close(self) -> None:
        """End both connections at once."""
        self._poll.close()
        self._calls.close()

    # --- what it offers -----------------------------------------------------------------------------------

    async def news(self, deployment: str, trust: str, wait_s: int) -> News:
        """What is new for a core that knows this deployment's id and this version of the trust, "" for none; waits up
        to `wait_s` whole seconds for it, on the server's side bounded to a minute."""
        target = f"{self._things}/news?deployment={_quoted(deployment)}&trust={_quoted(trust)}&wait={wait_s:d}"
        answer = await self._poll.request(
            "GET",
            target,
            timeout_s=wait_s + limits.CONTROLPLANE_NEWS_S,
            body_max=limits.CONTROLPLANE_NEWS_BYTES_MAX,
            first_byte_s=wait_s + limits.LINK_FIRST_BYTE_S,
        )
        found = _read(answer, "news")
        offer = _member(found, "deployment", "news")
        for name in ("id", "type", "groupId") if offer is not None else ():
            _text(offer, name, "news.deployment")
        changed = _member(found, "trust", "news")
        if changed is not None:
            _text(changed, "version", "news.trust")
        denied = found.get("denied", "")
        if not isinstance(denied, str):
            raise _malformed("news.denied", denied, "a string")
        return News(offer, changed, denied)

    async def report(self, group_id: str, deployment_id: str, status: str, message: str = "") -> None:
        """Say how far a deployment is: InProgress, Success, or Failure with the reason (greengrass-core 12.2)."""
        path = f"/greengrass/groups/{_quoted(group_id)}/deployments/{_quoted(deployment_id)}"
        body = {"DeploymentStatus": status} | ({"ErrorMessage": message} if message else {})
        await self._call("PUT", f"{path}/cores/{_quoted(str(self._thing))}/status", body)

    async def credentials(self, group_id: str) -> dict[str, str] | None:
        """Temporary keys of the group's role: accessKeyId, secretAccessKey, sessionToken, expiration (ISO 8601). None
        if the group has no role."""
        target = f"/greengrass/groups/{_quoted(group_id)}/credentials?thing={_quoted(self._thing.name)}"
        try:
            found = _member(await self._call("GET", target), "credentials", "answer")
        except Rejected as error:
            if error.reason_code == _NOT_FOUND:
                return None
            raise
        if found is None:
            raise _malformed("answer.credentials", None, "an object")
        return {name: _text(found, name, "credentials", secret=True) for name in _KEYS}

    async def put_connectivity(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Replace the addresses at which devices reach this core: Id, HostAddress, PortNumber, Metadata each."""
        await self._call(
            "PUT", f"{self._things}/connectivityInfo", {"ConnectivityInfo": [dict(row) for row in entries]}
        )

    async def server_certificate(self, csr: str, hosts: Sequence[str], delegation_csr: str | None = None) -> Json:
        """A certificate for the local server, signed by the group's CA: `certificate`, `authority` (both PEM),
        `seconds` of life, and `delegation` (certificate, authority) if one was asked for and is allowed."""
        body: Json = {"csr": csr, "hosts": list(hosts)}
        if delegation_csr is not None:
            body["delegationCsr"] = delegation_csr
        found = await self._call("POST", f"{self._things}/serverCertificate", body)
        seconds = found.get("seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0:
            raise _malformed("answer.seconds", seconds, "a number above 0")
        delegation = _member(found, "delegation", "answer")
        for name in ("certificate", "authority"):
            _text(found, name, "answer")
            if delegation is not None:
                _text(delegation, name, "answer.delegation")
        return found

    async def artifact(self, digest: str, offset: int, sink: Sink) -> None:
        """Hand an artifact's content from `offset` on to `sink`, piece by piece; nothing if that is its end. A server
        without ranges is read from the beginning, and only what is asked for handed on."""
        skip = 0

        def begin(status: int, headers: Mapping[str, str]) -> None:
            nonlocal skip
            if status != _PARTIAL:
                skip = offset
            elif _range(headers)[0] != offset:
                raise _malformed("Content-Range", headers.get("content-range"), f"bytes from {offset} on")

        def hand_on(data: bytes) -> None:
            nonlocal skip
            left, skip = data[skip:], max(skip - len(data), 0)
            if left:
                sink(left)

        answer = await self._calls.request(
            "GET",
            f"/greengrass/artifacts/{_quoted(digest)}",
            headers=(("Range", f"bytes={offset}-"),) if offset else (),
            timeout_s=limits.CONTROLPLANE_ARTIFACT_S,
            body_max=limits.MODEL_ARCHIVE_BYTES_MAX,
            sink=hand_on,
            begin=begin,
        )
        if answer.status == _NO_SUCH_RANGE and offset and _range(answer.headers)[1] == offset:
            return
        _accept(answer)

    async def _call(self, method: str, target: str, body: Json | None = None) -> Json:
        answer = await self._calls.request(
            method,
            target,
            body=b"" if body is None else orjson.dumps(body),
            headers=() if body is None else (("Content-Type", "application/json"),),
            timeout_s=limits.CONTROLPLANE_CALL_S,
            body_max=limits.CONTROLPLANE_ANSWER_BYTES_MAX,
        )
        return _read(answer, "answer")


# --- answers ------------------------------------------------------------------------------------------------


def _accept(answer: Answer) -> None:
    """Raise what the status means, unless it is a success."""
    if 200 <= answer.status < 300:
        return
    words = _message(answer)
    if answer.status in _PASSES or answer.status >= 500:
        raise LinkDown(f"the control plane cannot answer at the moment (status {answer.status}): {words}")
    raise Rejected(words, reason_code=answer.status)


def _message(answer: Answer) -> str:
    """The server's own words, without what could disturb a log."""
    try:
        found = orjson.loads(answer.body)
        text = found["message"] if "message" in found else found["Message"]
    except (ValueError, KeyError, TypeError):
        text = None
    if not isinstance(text, str) or not text:
        return f"found status {answer.status} with {len(answer.body)} bytes that give no reason, expected a success"
    return "".join(character if character.isprintable() else " " for character in text[:_MESSAGE_CHARACTERS])


def _read(answer: Answer, what: str) -> Json:
    """The JSON object of a success, an empty one if there is no body."""
    _accept(answer)
    if not answer.body:
        return {}
    try:
        found = orjson.loads(answer.body)
    except ValueError as error:
        raise Malformed(f"{what} of the control plane: found text that is not JSON ({error}).") from error
    if not isinstance(found, dict):
        raise _malformed(what, found, "an object")
    return found


def _member(found: Json, name: str, what: str) -> Json | None:
    value = found.get(name)
    if value is not None and not isinstance(value, dict):
        raise _malformed(f"{what}.{name}", value, "an object")
    return value


def _text(found: Json | None, name: str, what: str, *, secret: bool = False) -> str:
    value = None if found is None else found.get(name)
    if not isinstance(value, str) or not value:
        raise _malformed(f"{what}.{name}", type(value).__name__ if secret else value, "a text")
    return value


def _malformed(where: str, found: object, expected: str) -> Malformed:
    return Malformed(f"{where} of the control plane: found {shown(found)}, expected {expected}.")


def _range(headers: Mapping[str, str]) -> tuple[int, int]:
    """First byte and whole length that Content-Range says, -1 for what it does not."""
    match = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
    if match is None:
        return -1, -1
    return int(match[1] or -1), int(match[2]) if match[2] != "*" else -1


def _quoted(text: str) -> str:
    return quote(text, safe="")
