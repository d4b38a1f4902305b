"""The devices' broker of a desk, and its clients without sockets: each is a connection that shows a certificate.

world = Clients(desk)
lamp = world.run(world.connect(certificate_der, "lamp"))
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar, cast

from cloud_desk import Desk

from ggfast._ext.framing import Ack, Connack, Connect, Packet, Publish, Suback, Subscribe, encode
from ggfast.cloud.devices.mqtt import DeviceBroker
from ggfast.counters import Counters
from ggfast.mqtt.connection import Connection
from tests.model.broker import split
from tests.patience import patience

T = TypeVar("T")
PATIENCE_S = patience(10.0)


def der_of(pem: str) -> bytes:
    """What a handshake proves."""
    return ssl.PEM_cert_to_DER_cert(pem)


class _Transport:
    """Takes what is written; shows the peer's certificate."""

    def __init__(self, protocol: Connection, certificate: bytes) -> None:
        self._protocol = protocol
        self._certificate = certificate
        self.written = bytearray()
        self.closed = False
        self.reading = True

    def write(self, data: bytes) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int) -> None:
        assert high

    def get_extra_info(self, name: str) -> Any:
        return self if name == "ssl_object" else ("192.0.2.1", 4_000)

    def getpeercert(self, binary_form: bool) -> bytes:
        assert binary_form
        return self._certificate

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    abort = close


class Client:
    """One connection; `packets` is everything it was sent, decoded."""

    def __init__(self, world: Clients, certificate: bytes) -> None:
        self.level = 4
        self.protocol = Connection(world.devices.broker)
        self.transport = _Transport(self.protocol, certificate)
        self.protocol.connection_made(cast(asyncio.Transport, self.transport))

    @property
    def closed(self) -> bool:
        return self.transport.closed

    @property
    def packets(self) -> list[Packet]:
        return split(bytes(self.transport.written), self.level)

    @property
    def messages(self) -> list[tuple[bytes, bytes]]:
        """Topic and payload of every message."""
        return [(packet.topic, packet.payload) for packet in self.packets if isinstance(packet, Publish)]

    @property
    def acknowledged(self) -> list[int]:
        """Packet ids of PUBACKs, in their order."""
        return [packet.packet_id for packet in self.packets if isinstance(packet, Ack) and packet.kind == "PUBACK"]

    def send(self, *packets: Packet) -> None:
        """In one read of the broker."""
        self.protocol.data_received(b"".join(encode(packet, self.level) for packet in packets))

    async def until(self, fits: Callable[[], Any]) -> None:
        """Wait for something."""
        async with asyncio.timeout(PATIENCE_S):
            while not fits():
                await asyncio.sleep(0.002)

    async def subscribe(self, *filters: bytes) -> tuple[int, ...]:
        """The codes granted."""
        self.send(Subscribe(1, tuple((pattern, 1) for pattern in filters)))
        await self.until(lambda: any(isinstance(packet, Suback) for packet in self.packets))
        return next(packet.codes for packet in self.packets if isinstance(packet, Suback))

    async def leave(self) -> None:
        """The network is gone."""
        self.transport.close()
        await asyncio.sleep(0)


class Clients:
    """See the module. `folder`: where sessions are between two of these."""

    def __init__(self, desk: Desk, folder: Path | None = None) -> None:
        self.desk = desk
        self.counters = Counters()
        self.devices: DeviceBroker = self.run(self._made(folder))

    async def _made(self, folder: Path | None) -> DeviceBroker:
        made = DeviceBroker(self.desk.cloud, self.desk.store, self.counters, folder)
        await made.take_up()
        return made

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """On the desk's loop."""
        return self.desk.runner.run(work)

    async def connect(
        self,
        certificate: bytes,
        client_id: str,
        *,
        clean: bool = True,
        level: int = 4,
        refused: bool = False,
        **more: Any,
    ) -> Client:
        """A client that is in, or was refused as expected."""
        client = Client(self, certificate)
        client.level = level
        client.send(Connect(level, clean, 0, client_id, **more))
        await client.until(lambda: client.packets)
        answer = client.packets[0]
        assert isinstance(answer, Connack) and (answer.code != 0) is refused, answer
        return client

    def close(self) -> None:
        """Stop in order."""
        self.run(self.devices.stop())
