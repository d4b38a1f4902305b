"""The HTTP interface of functions, version 2016-11-01, for old packages and for programs with their own loop.

    POST /functions/<arn>              invoke, publish, ask a part of the core
    GET  /functions/<arn>              the result, when it is there
    GET  /functions/<own arn>/work     the next work        POST …/work   its result
    PUT  /functions/<own arn>/initialized
    POST /cloudwatch/logs/             lines for the function's log
    GET  /credentialprovider/          AWS credentials

The Authorization header is the worker's token and says who calls; nothing in a request does. Sources: sdk-contract 2
and 9; greengrass-core 6.8.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol
from urllib.parse import unquote_to_bytes

import orjson

from ggfast import limits
from ggfast.core.functions.calls import MessageLimits
from ggfast.core.functions.http_side import HttpSide
from ggfast.core.functions.invocations import InvocationType
from ggfast.core.functions.logs import LineSink
from ggfast.core.functions.surroundings import CallHandler
from ggfast.core.functions.worker import Worker
from ggfast.counters import Counters
from ggfast.errors import GgfastError
from ggfast.log import Level, SystemLog
from ggfast.net.http import Exchange
from ggfast.net.httpserver import HttpServer

VERSION: Final = b"/2016-11-01/"
_TYPES: Final = {
    b"": InvocationType.REQUEST_RESPONSE,
    b"RequestResponse": InvocationType.REQUEST_RESPONSE,
    b"Event": InvocationType.EVENT,
}
_LEVELS: Final = {
    "DEBUG": Level.DEBUG,
    "INFO": Level.INFO,
    "WARN": Level.WARN,
    "WARNING": Level.WARN,
    "ERROR": Level.ERROR,
    "FATAL": Level.FATAL,
    "CRITICAL": Level.FATAL,
}
_PREFIX: Final = re.compile(r"\[([A-Z]{4,8})\]-?")
_SMALL_BODY_BYTES: Final = 65_536  # of `initialized`: a flag and an error text


class Functions(Protocol):
    """The part of the function manager that is asked."""

    @property
    def calls(self) -> CallHandler: ...
    def identify(self, token: bytes) -> Worker | None: ...


class CredentialSource(Protocol):
    """Where credentials come from: AccessKeyId, SecretAccessKey, Token, Expiration; None: there are none."""

    async def credentials(self) -> dict[str, Any] | None: ...


class Kind(Enum):
    """What a path names; the value is the methods it takes."""

    FUNCTION = ("POST", "GET")
    WORK = ("GET", "POST")
    INITIALIZED = ("PUT",)
    LOGS = ("POST",)
    CREDENTIALS = ("GET",)


@dataclass(slots=True)
class _Request:
    kind: Kind
    arn: str
    side: HttpSide


class HttpInterface:
    """Serves functions over TCP. `serve` and `close` return at once; nothing here raises for what a client does."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        functions: Functions,
        function_log: Callable[[str], LineSink],
        message_limits: MessageLimits,
        counters: Counters,
        log: SystemLog,
        credentials: CredentialSource | None = None,
    ) -> None:
        self.credentials = credentials
        self.server = HttpServer(loop, self, counters)
        self._loop = loop
        self._functions = functions
        self._function_log = function_log
        self._counters = counters
        self._log = log
        self._body_max = {
            (Kind.FUNCTION, "POST"): message_limits.payload_bytes,
            (Kind.WORK, "POST"): limits.INVOKE_RESULT_BYTES_MAX,
            (Kind.INITIALIZED, "PUT"): _SMALL_BODY_BYTES,
            (Kind.LOGS, "POST"): limits.HTTP_LOG_BYTES_MAX,
        }
        self._answers: dict[tuple[Kind, str], Callable[[Exchange, _Request], None]] = {
            (Kind.FUNCTION, "POST"): self._post,
            (Kind.FUNCTION, "GET"): self._fetch,
            (Kind.WORK, "GET"): self._ask,
            (Kind.WORK, "POST"): self._finish,
            (Kind.INITIALIZED, "PUT"): self._initialized,
            (Kind.LOGS, "POST"): self._logs,
            (Kind.CREDENTIALS, "GET"): self._credentials,
        }

    def serve(self, sock: socket.socket) -> None:
        """Answer on a socket that listens."""
        self.server.serve(sock)

    def close(self) -> None:
        """Stop answering and end all connections."""
        self.server.close()

    # --- who, what, how much (called by the server with a request's head) -----------------------------------

    def begin(self, exchange: Exchange) -> int:
        """Judge a head; see net.http.Handler."""
        worker = self._functions.identify(exchange.headers.get(b"authorization", b""))
        place = _place(exchange.target)
        if place is None:
            exchange.refuse(404, "This interface has no such path", close=worker is None)
            return 0
        kind, arn = place
        if exchange.method not in kind.value:
            exchange.refuse(
                405,
                f"Found {exchange.method}, expected {' or '.join(kind.value)}",
                (("Allow", ", ".join(kind.value)),),
                close=worker is None,
            )
            return 0
        if worker is None:
            self._counters.add("http.refused.tokens")
            self._loop.call_later(limits.HTTP_REFUSAL_DELAY_S, _refuse_token, exchange)
            return -1
        return self._begin(exchange, kind, arn, worker)

    def _begin(self, exchange: Exchange, kind: Kind, arn: str, worker: Worker) -> int:
        side = self._side(worker)
        if worker.is_cut_off:
            exchange.refuse(503, "The worker is being ended", close=True)
            return 0
        if not exchange.belongs_to(side.owner):
            most = limits.HTTP_WORKER_CONNECTIONS_MAX
            exchange.refuse(503, f"Too many connections; one worker may have {most}", close=True)
            return 0
        if kind in (Kind.WORK, Kind.INITIALIZED) and arn != worker.arn:
            self._counters.add("http.refused.foreign_work")
            exchange.refuse(403, f"Found the work of {arn}, allowed is that of {worker.arn}")
            return 0
        exchange.about = _Request(kind, arn, side)
        limit = self._body_max.get((kind, exchange.method), 0)
        if kind is Kind.LOGS and exchange.length > limit:  # an error here would make a publish of old clients fail
            self._counters.add("functions.log.dropped_requests")
            exchange.answer(200)
        elif exchange.length <= limit and not side.reserve(
            exchange, exchange.head_bytes + (limit if exchange.length < 0 else exchange.length)
        ):
            self._counters.add("http.refused.bodies")
            exchange.refuse(503, "Too many requests of this worker arrive at a time")
        return limit

    def run(self, exchange: Exchange) -> None:
        """Answer a request that is complete."""
        ended, exchange.ended = exchange.ended, None
        if ended is not None:
            ended()
        request: _Request = exchange.about
        self._answers[request.kind, exchange.method](exchange, request)

    def _side(self, worker: Worker) -> HttpSide:
        if not isinstance(worker.side, HttpSide):
            worker.side = HttpSide(worker, self._functions.calls, self._loop, self._counters)
        return worker.side

    # --- answers --------------------------------------------------------------------------------------------

    def _post(self, exchange: Exchange, request: _Request) -> None:
        given = exchange.headers.get(b"x-amz-invocation-type", b"")
        kind = _TYPES.get(given)
        if kind is None:
            exchange.refuse(400, f"Found X-Amz-Invocation-Type {_shown(given)}, expected RequestResponse or Event")
            return
        encoded = exchange.headers.get(b"x-amz-client-context", b"")
        try:
            context = base64.b64decode(encoded, validate=True)
            if context:
                orjson.loads(context)
        except (binascii.Error, orjson.JSONDecodeError):
            exchange.refuse(400, f"Found X-Amz-Client-Context {_shown(encoded)}, expected JSON in base64")
            return
        request.side.post(exchange, request.arn, kind, context)

    def _fetch(self, exchange: Exchange, request: _Request) -> None:
        request.side.fetch(exchange, request.arn, _invocation_id(exchange))

    def _ask(self, exchange: Exchange, request: _Request) -> None:
        request.side.ask(exchange)

    def _finish(self, exchange: Exchange, request: _Request) -> None:
        failed = bool(exchange.headers.get(b"x-amz-function-error"))
        request.side.finish(exchange, _invocation_id(exchange), failed)

    def _initialized(self, exchange: Exchange, request: _Request) -> None:
        try:
            document = orjson.loads(exchange.body)
            success, response = bool(document["Success"]), _text(document.get("Response") or "")
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            exchange.refuse(400, 'Found another document, expected {"Success": true or false, "Response": <text>}')
            return
        exchange.answer(200)
        request.side.worker.initialised_by_request(success, response[: limits.LOG_LINE_BYTES_MAX])

    def _logs(self, exchange: Exchange, request: _Request) -> None:
        """Always 200: an error would come out of the function's own call. What can not be used is counted."""
        lost = 0
        try:
            events = orjson.loads(exchange.body)["logEvents"]
            messages = [_text(event["message"]) for event in events[: limits.HTTP_LOG_EVENTS_MAX]]
            lost = len(events) - len(messages)
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            messages, lost = [], 1
        sink = self._function_log(request.side.arn)
        for message in messages:
            level, text = level_of(message)
            sink.write(level, text)
        if lost:
            self._counters.add("functions.log.dropped_lines", lost)
        exchange.answer(200)

    def _credentials(self, exchange: Exchange, request: _Request) -> None:
        source = self.credentials
        if source is None:
            exchange.refuse(404, "No credentials: this core has no source of them")
        elif request.side.open_calls >= limits.WORKER_CALLS_MAX:
            exchange.refuse(503, f"More than {limits.WORKER_CALLS_MAX} calls wait for an answer")
        else:
            request.side.open_calls += 1
            request.side.run_beside(self._credentials_from(source, exchange, request.side))

    async def _credentials_from(self, source: CredentialSource, exchange: Exchange, side: HttpSide) -> None:
        try:
            found = await asyncio.wait_for(source.credentials(), limits.HTTP_CREDENTIALS_S)
        except TimeoutError:
            exchange.refuse(503, "No credentials: their source does not answer")
        except GgfastError as error:
            exchange.refuse(503, f"No credentials: {error}")
        except Exception as error:
            self._log.error("Credentials could not be got.", functionArn=side.arn, reason=repr(error))
            exchange.refuse(500, "No credentials: the core failed, see its runtime log")
        else:
            if found is None:
                exchange.refuse(404, "No credentials: the group has no role, or it may not be used now")
            else:
                exchange.answer(200, orjson.dumps(found), (("Content-Type", "application/json"),))
        finally:
            side.open_calls -= 1


def level_of(message: str) -> tuple[Level, str]:
    """`[WARN]-main.py:3,text` → its level and the rest; INFO where no level stands."""
    match = _PREFIX.match(message)
    level = _LEVELS.get(match[1]) if match else None
    if match is None or level is None:
        return Level.INFO, message
    return level, message[match.end() :]


def _place(target: bytes) -> tuple[Kind, str] | None:
    """What a request's target names, with the ARN decoded once; None for anything else."""
    if target.lower().startswith(b"http://"):
        target = b"/" + target[7:].partition(b"/")[2]
    path = target.partition(b"?")[0]
    if not path.startswith(VERSION):
        return None
    parts = path[len(VERSION) :].split(b"/")
    if parts in ([b"cloudwatch", b"logs", b""], [b"cloudwatch", b"logs"]):
        return Kind.LOGS, ""
    if parts in ([b"credentialprovider", b""], [b"credentialprovider"]):
        return Kind.CREDENTIALS, ""
    if parts[0] != b"functions" or len(parts) not in (2, 3) or not parts[1]:
        return None
    arn = unquote_to_bytes(parts[1]).decode("utf-8", "replace")
    if len(parts) == 2:
        return Kind.FUNCTION, arn
    kind = {b"work": Kind.WORK, b"initialized": Kind.INITIALIZED}.get(parts[2])
    return None if kind is None else (kind, arn)


def _text(value: Any) -> str:
    """A text as it is, anything else as JSON. Raises TypeError for what is nested too deep."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _refuse_token(exchange: Exchange) -> None:
    text = "Found no valid token in the Authorization header, expected that of AWS_CONTAINER_AUTHORIZATION_TOKEN"
    exchange.refuse(401, text, close=True)


def _invocation_id(exchange: Exchange) -> str:
    return exchange.headers.get(b"x-amz-invocationid", b"").decode("latin-1")


def _shown(value: bytes) -> str:
    return ascii(value[:64].decode("latin-1"))
