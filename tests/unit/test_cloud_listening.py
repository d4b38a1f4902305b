"""Connections of the API: how many there may be of one address."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from ggfast.cloud import listening


class Line:
    """A connection from an address."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.aborted = False

    def get_extra_info(self, _name: str) -> Any:
        return (self.source, 1)

    def abort(self) -> None:
        self.aborted = True


class Handler:
    """What serves one connection, with nothing under way."""

    _task_handler = None


async def _never(_request: web.BaseRequest) -> web.StreamResponse:
    raise AssertionError


def test_one_address_leaves_connections_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "CONNECTIONS_OF_ONE_MAX", 2)
    monkeypatch.setattr(listening, "CONNECTIONS_MAX", 6)

    async def run() -> None:
        server = listening._Server(_never)
        handlers = []

        def arrives(source: str) -> bool:
            line, handler = Line(source), cast(RequestHandler, Handler())
            handlers.append(handler)
            server.connection_made(handler, cast(asyncio.Transport, line))
            if line.aborted:
                server.connection_lost(handler)
            return not line.aborted

        assert [arrives("10.0.0.1") for _ in range(4)] == [True, True, False, False]
        assert arrives("10.0.0.2") and [arrives("127.0.0.1") for _ in range(4)] == [True, True, True, False]
        assert server.refused == 3 and len(server.connections) == 6
        server.connection_lost(handlers[0])
        assert arrives("10.0.0.1") and not arrives("10.0.0.1")
        for handler in handlers:
            server.connection_lost(handler)
        assert not server.connections and not server._sources and not server._of_source

    asyncio.run(run())
