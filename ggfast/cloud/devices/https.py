"""HTTPS for devices: the client certificate says who asks, paths are those of AWS IoT and of Greengrass V1.

Every answer keeps the byte rules of sdk-contract 10: `content-length: <n>` in lower case with one space, never chunked,
errors too, because published clients look for exactly that. Statuses: 401 without a good certificate, 403 by policy.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from ggfast.cloud.bodies import Bodies
from ggfast.cloud.devices.cores import Cores
from ggfast.cloud.devices.data import Data
from ggfast.cloud.devices.identity import Identities, Identity, certificate_id_of
from ggfast.cloud.devices.issuing import Issuing
from ggfast.cloud.devices.news import News
from ggfast.cloud.devices.routing import Asked, FileReply, Routes
from ggfast.cloud.devices.waiting import Polls
from ggfast.cloud.dispatch import Dispatcher
from ggfast.cloud.faults import Fault
from ggfast.cloud.limits import (
    DEVICE_BODY_BYTES_MAX,
    DEVICE_CONNECTIONS_MAX,
    DEVICE_RATE_BURST,
    DEVICE_RATE_PER_S,
    DEVICE_RATES_MAX,
    HEADER_BYTES_MAX,
    IDLE_CONNECTION_S,
    STOP_S,
    TLS_HANDSHAKE_S,
)
from ggfast.cloud.operations import Reply
from ggfast.cloud.protocols import Request, refusal
from ggfast.cloud.rates import Rates
from ggfast.cloud.store.interface import Store
from ggfast.cloud.surroundings import Surroundings
from ggfast.counters import Counters
from ggfast.errors import OperatingError

logger = logging.getLogger("ggfast.cloud.devices")


class _Handler(RequestHandler):
    """aiohttp's connection, whose own refusals (of what is no HTTP) keep the byte rules too."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:
            logger.error("a device's request failed", exc_info=exc)
        fault = Fault("BadRequestException", "The request is not HTTP/1.1 as it should be.", status=status)
        response = _response(fault.status, {}, orjson.dumps({"message": fault.message}))
        response.force_close()
        return response


class _Server(web.Server):
    """aiohttp's low-level server that takes DEVICE_CONNECTIONS_MAX connections. Past it the one that has gone longest
    without a request by a good certificate gives way: who only occupies places must not keep devices out."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], **options: Any) -> None:
        super().__init__(handler, **options)
        self._strangers: dict[RequestHandler, asyncio.Transport] = {}  # oldest first

    def __call__(self) -> RequestHandler:
        return _Handler(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._strangers[handler] = transport
        if len(self._connections) > DEVICE_CONNECTIONS_MAX:
            oldest = next(iter(self._strangers))
            self._strangers.pop(oldest).abort()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        self._strangers.pop(handler, None)
        super().connection_lost(handler, exc)

    def known(self, handler: RequestHandler) -> None:
        """A good certificate has asked for something on this connection."""
        self._strangers.pop(handler, None)


class _File(web.FileResponse):
    """aiohttp's answer with a file or a range of it, its length written as the byte rules want it, 0 for a refusal."""

    @property
    def content_length(self) -> int | None:
        return super().content_length

    @content_length.setter
    def content_length(self, value: int | None) -> None:
        self.headers.popall("content-length", None)
        if value is not None:
            self.headers["content-length"] = str(value)

    def set_status(self, status: int, reason: str | None = None) -> None:
        super().set_status(status, reason)
        if status >= 400:
            self.content_length = 0  # without a length it would be chunked


class DeviceHttps:
    """See the module. `start` begins to listen on a bound socket, `stop` ends what is under way."""

    def __init__(
        self, cloud: Surroundings, store: Store, dispatcher: Dispatcher, identities: Identities, counters: Counters
    ) -> None:
        self._identities = identities
        self._counters = counters
        self._polls = Polls()
        store.listen(self._polls.hear)
        self._routes = Routes()
        Cores(cloud, store).add_to(self._routes)
        News(cloud, store, self._polls).add_to(self._routes)
        Issuing(cloud, store).add_to(self._routes)
        Data(dispatcher).add_to(self._routes)
        self._rates = Rates(cloud.clock, DEVICE_RATE_PER_S, DEVICE_RATE_BURST, DEVICE_RATES_MAX)
        self._bodies = Bodies()
        self._under_way = 0
        self._server: _Server | None = None
        self._listener: asyncio.Server | None = None

    @property
    def waiting(self) -> int:
        """Cores that wait for news."""
        return self._polls.count

    async def start(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        """Take connections; called again, with another certificate from now on."""
        if self._server is None:
            self._server = _Server(
                self._answer,
                access_log=None,
                auto_decompress=False,
                keepalive_timeout=IDLE_CONNECTION_S,
                max_line_size=HEADER_BYTES_MAX,
                max_field_size=HEADER_BYTES_MAX,
                lingering_time=STOP_S,
            )
        before = self._listener
        self._listener = await asyncio.get_running_loop().create_server(
            self._server, sock=sock.dup(), ssl=context, ssl_handshake_timeout=TLS_HANDSHAKE_S, backlog=256
        )
        if before is not None:
            before.close()

    async def stop(self) -> None:
        """Answer those who wait, finish what is under way (STOP_S at most), close the rest."""
        if self._listener is None or self._server is None:
            return
        self._listener.close()
        self._polls.close()
        self._server.pre_shutdown()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + STOP_S
        while self._under_way and loop.time() < deadline:
            await asyncio.sleep(0.02)
        await self._server.shutdown(1.0)
        self._listener = None

    # --- one request -----------------------------------------------------------------------------------

    async def _answer(self, http: web.BaseRequest) -> web.StreamResponse:
        request_id = str(uuid.uuid4())
        self._under_way += 1
        self._counters.add("cloud.devices.requests")
        try:
            return _of_reply(await self._handle(http), request_id)
        except Fault as refused:
            fault = refused
        except OperatingError as error:
            logger.error("a device's request failed id=%s: %s", request_id, error)
            fault = Fault("ServiceUnavailableException", "The store cannot be used now.", status=503)
        except (ConnectionError, web.RequestPayloadError) as error:
            fault = Fault("BadRequestException", f"The request ended before its body did ({type(error).__name__}).")
        except Exception:
            logger.exception("a device's request failed id=%s", request_id)
            fault = Fault("InternalFailureException", f"An internal error has occurred ({request_id}).", status=500)
        finally:
            self._under_way -= 1
        self._counters.add("cloud.devices.refused")
        found = refusal("rest-json", fault, request_id)
        response = _response(found.status, found.headers, found.body)
        if found.status in (408, 413):
            response.force_close()
        return response

    async def _handle(self, http: web.BaseRequest) -> Reply | FileReply:
        tls = http.transport.get_extra_info("ssl_object") if http.transport is not None else None
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        if der is None:
            raise Fault("UnauthorizedException", "A client certificate is needed.", status=401)
        identity = await self._identity(certificate_id_of(der))
        if self._server is not None:
            self._server.known(http.protocol)
        if not self._rates.take(identity.certificate_id):
            raise Fault("TooManyRequestsException", "Rate exceeded", status=429)
        request = _request(http)
        handler, params = self._routes.find(request.method, request.raw_path)
        async with self._bodies.read(http, identity.certificate_id, DEVICE_BODY_BYTES_MAX, _too_large) as body:
            request = Request(request.method, request.raw_path, request.raw_query, request.headers, body)
            return await handler(Asked(identity, request, params, self._identity))

    async def _identity(self, certificate_id: str) -> Identity:
        identity = await self._identities.find(certificate_id)
        if identity is None:
            text = "The client certificate is not registered here or not active."
            raise Fault("UnauthorizedException", text, status=401)
        return identity


def _request(http: web.BaseRequest) -> Request:
    path, _, query = http.raw_path.partition("?")
    return Request(http.method, path, query, {name.lower(): value for name, value in http.headers.items()})


def _too_large(most: int) -> Fault:
    return Fault("RequestEntityTooLargeException", f"Request must be smaller than {most} bytes.", status=413)


def _of_reply(reply: Reply | FileReply, request_id: str) -> web.StreamResponse:
    if isinstance(reply, FileReply):
        fixed = {"Content-Type": "application/octet-stream", "x-amzn-RequestId": request_id}
        return _File(reply.path, headers={**fixed, **reply.headers})
    body = reply.raw if reply.raw is not None else orjson.dumps(reply.members)
    return _response(reply.status or 200, {"x-amzn-RequestId": request_id, **reply.headers}, body)


def _response(status: int, headers: Mapping[str, str], body: bytes) -> web.Response:
    """aiohttp leaves the spelling of a length that is there already."""
    found = {"Content-Type": "application/json", **headers}
    if status == 204:
        body = b""
    else:
        found["content-length"] = str(len(body))
    return web.Response(status=status, headers=found, body=body)
