"""The API's listener: TLS, aiohttp's server without its router, bounds for connections and slow senders."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from ggfast.cloud.api import Api, is_loopback
from ggfast.cloud.certificate import ServerCertificate
from ggfast.cloud.limits import (
    CONNECTIONS_MAX,
    CONNECTIONS_OF_ONE_MAX,
    HEADER_BYTES_MAX,
    IDLE_CONNECTION_S,
    STOP_S,
    TLS_HANDSHAKE_S,
)

logger = logging.getLogger("ggfast.cloud.api")


class _Server(web.Server):
    """aiohttp's low-level server that takes CONNECTIONS_MAX connections, CONNECTIONS_OF_ONE_MAX from one address but
    this machine's own: what comes from there may be a proxy's."""

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], **options: Any) -> None:
        super().__init__(handler, **options)
        self.refused = 0
        self._sources: dict[RequestHandler, str] = {}
        self._of_source: Counter[str] = Counter()

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        source = str((transport.get_extra_info("peername") or ("",))[0])
        self._sources[handler] = source
        self._of_source[source] += 1
        many = self._of_source[source] > CONNECTIONS_OF_ONE_MAX and not is_loopback(source)
        if many or len(self._connections) > CONNECTIONS_MAX:
            self.refused += 1
            transport.abort()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        source = self._sources.pop(handler, None)
        if source is not None:
            self._of_source[source] -= 1
            if not self._of_source[source]:
                del self._of_source[source]


class ApiListener:
    """Serves an `Api` on a bound socket."""

    def __init__(self, api: Api, sock: socket.socket, certificate: ServerCertificate) -> None:
        self._api = api
        self._socket = sock
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self.use(certificate)
        self._server: _Server | None = None
        self._listener: asyncio.Server | None = None

    @property
    def up(self) -> bool:
        """Whether connections are taken."""
        return self._listener is not None and self._listener.is_serving()

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._server.connections) if self._server is not None else 0

    @property
    def refused(self) -> int:
        """How many connections were closed because there were too many."""
        return self._server.refused if self._server is not None else 0

    def use(self, certificate: ServerCertificate) -> None:
        """Show another certificate from the next handshake on. Blocks for two small files."""
        self._tls.load_cert_chain(certificate.certificate, certificate.key)
        self.certificate = certificate

    async def start(self) -> None:
        """Take connections."""
        self._server = _Server(
            self._api.answer,
            access_log=None,
            auto_decompress=False,  # a signature is over the body as it came
            keepalive_timeout=IDLE_CONNECTION_S,
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            lingering_time=STOP_S,
        )
        self._listener = await asyncio.get_running_loop().create_server(
            self._server, sock=self._socket, ssl=self._tls, ssl_handshake_timeout=TLS_HANDSHAKE_S, backlog=256
        )

    async def stop(self) -> None:
        """Take no more connections, finish requests under way (STOP_S at most), close the rest."""
        if self._listener is None or self._server is None:
            return
        self._listener.close()
        self._server.pre_shutdown()  # idle connections
        deadline = asyncio.get_running_loop().time() + STOP_S
        while self._api.under_way and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        if self._api.under_way:
            logger.warning("stopping with requests under way count=%d", self._api.under_way)
        await self._server.shutdown(1.0)
        self._listener = None
