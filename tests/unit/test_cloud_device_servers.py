"""The devices' listeners while their certificate is made anew."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_desk import Desk, authority

from ggfast.cloud.certificate import ServerCertificate, server_certificate
from ggfast.cloud.devices import server
from ggfast.cloud.devices.server import DeviceServers
from ggfast.cloud.limits import SERVER_CERTIFICATE_RENEW_S
from ggfast.counters import Counters
from tests.patience import patience

WAIT_S = patience(10.0)
DAY_S = 86_400


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.close()


def test_a_server_certificate_is_kept_until_shortly_before_its_end(tmp_path: Path) -> None:
    now = time.time()

    def found(at: float, *hosts: str) -> tuple[ServerCertificate, bytes]:
        made = server_certificate(tmp_path / "tls", authority(), hosts or ("localhost",), at)
        return made, made.certificate.read_bytes()

    first, pem = found(now)
    assert found(first.end - SERVER_CERTIFICATE_RENEW_S - 1) == (first, pem)
    renewed = found(first.end - SERVER_CERTIFICATE_RENEW_S + 1)[1]
    assert renewed != pem and found(now)[1] == renewed
    assert found(now, "localhost", "gw.example")[1] != renewed


def test_a_renewed_certificate_is_shown_at_once_and_nobody_is_disconnected(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SERVER_CERTIFICATE_LOOK_S", 0.05)
    now = time.time()
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    trust = ssl.create_default_context(cadata=authority().ca_pem)
    request = b"GET /greengrass/discover/thing/t HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def certificate() -> ServerCertificate:
        return server_certificate(tmp_path / "tls", authority(), ("localhost",), now)

    async def connect(sock: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("localhost", sock.getsockname()[1], ssl=trust, family=socket.AF_INET)

    async def shown(sock: socket.socket) -> bytes:
        _, writer = await connect(sock)
        found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        return found

    async def scenario() -> None:
        nonlocal now
        mqtt, https = sockets
        servers = DeviceServers(
            desk.cloud, desk.store, desk.dispatcher,
            mqtt=mqtt, https=https, certificate=certificate, counters=Counters(), folder=tmp_path,
        )  # fmt: skip
        await servers.start()
        try:
            reader, writer = await connect(https)
            before = await shown(https)
            now += 800 * DAY_S
            while await shown(https) == before:
                await asyncio.sleep(0.02)
            now -= 800 * DAY_S  # the new one is good for long again
            await asyncio.sleep(0.2)
            after = await shown(https)
            assert after != before and await shown(mqtt) == after
            writer.write(request)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 401 ")
            writer.transport.abort()
            assert servers.up
        finally:
            await servers.stop()

    try:
        desk.runner.run(asyncio.wait_for(scenario(), WAIT_S))
    finally:
        for sock in sockets:
            sock.close()
