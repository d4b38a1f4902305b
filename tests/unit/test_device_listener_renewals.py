"""The devices' listener with a real broker, real TLS and certificates whose life is seconds."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from issuer_support import InProcess, Lines, SigningCloud, key_pem
from tls_support import Identity

from ggfast._ext.routes import Router
from ggfast.clock import SystemClock
from ggfast.core.device_listener import DeviceListener
from ggfast.core.identity import DeviceIdentity
from ggfast.counters import Counters
from ggfast.errors import LinkDown
from ggfast.group.document import Device
from ggfast.mqtt.broker import Broker
from ggfast.mqtt.limits import BrokerLimits
from tests.patience import patience

DEVICES = 20
REFUSED = (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)
_now = time.time


class RealClock(SystemClock):
    """The machine's clock for helpers in this process."""

    @property
    def now(self) -> float:
        return _now()


class Client:
    """A device: one TLS connection, publishing QoS 1."""

    def __init__(self, identity: Identity) -> None:
        self.identity, self.name = identity, identity.cert.stem
        self.sent = 0

    async def connect(self, port: int, ca_pem: str, *, tls12: bool = False) -> ssl.SSLObject:
        """Connect as SDKs do; the connection's TLS. Raises one of REFUSED."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=ca_pem)
        context.load_cert_chain(self.identity.cert, self.identity.key)
        if tls12:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        name = self.name.encode()
        body = b"\x00\x04MQTT\x04\x02\x00\x00" + len(name).to_bytes(2) + name
        self.writer.write(bytes((0x10, len(body))) + body)
        async with asyncio.timeout(patience(10)):
            assert await self.reader.readexactly(4) == b"\x20\x02\x00\x00"
        found = self.writer.get_extra_info("ssl_object")
        assert isinstance(found, ssl.SSLObject)
        return found

    async def publish(self) -> None:
        """Publish once, acknowledged. Raises one of REFUSED when the connection has ended."""
        topic = b"\x00\x01t\x00\x07"
        self.writer.write(bytes((0x32, len(topic) + 2)) + topic + b"hi")
        async with asyncio.timeout(patience(10)):
            assert await self.reader.readexactly(4) == b"\x40\x02\x00\x07"
        self.sent += 1

    async def ended(self) -> None:
        """Wait for the other side to end the connection."""
        async with asyncio.timeout(patience(10)):
            with suppress(*REFUSED):
                await self.reader.read()

    def close(self) -> None:
        self.writer.transport.abort()


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> list[Identity]:
    """Made once: the devices' own certificates."""
    folder = tmp_path_factory.mktemp("devices")
    return [Identity(folder, f"device-{number}") for number in range(DEVICES)]


class World:
    """A core's listener on a port, and the control plane it belongs to."""

    def __init__(self, folder: Path, identities: list[Identity], monkeypatch: pytest.MonkeyPatch) -> None:
        self.clients = [Client(identity) for identity in identities]
        self.clock = RealClock()
        self.cloud = SigningCloud(self.clock)
        self.state, self.log = folder / "state", Lines()
        self.hosts: list[str] = ["localhost"]
        self.options: dict[str, Any] = {"run": InProcess(monkeypatch, self.clock)}  # type: ignore[arg-type]

    def run(self, test: Callable[[DeviceListener], Awaitable[None]], seconds: float = 30) -> None:
        async def body() -> None:
            loop, counters = asyncio.get_running_loop(), Counters()
            log: Any = self.log
            hooks = DeviceIdentity(log, counters)
            hooks.set_devices([_device(client.identity) for client in self.clients])
            self.broker = Broker(loop, Router(False), hooks, BrokerLimits(), self.clock, counters)
            with socket.create_server(("127.0.0.1", 0)) as sock:
                self.port = sock.getsockname()[1]
                found: Any = (loop, self.broker, sock, self.state, self.clock, log)
                listener = DeviceListener(*found, cloud=self.cloud, hosts=lambda: self.hosts, **self.options)
                await test(listener)
                await listener.stop()
                for client in self.clients:
                    if hasattr(client, "writer"):
                        client.close()
                self.broker.close()

        asyncio.run(asyncio.wait_for(body(), patience(seconds)))

    async def started(self, listener: DeviceListener) -> None:
        await listener.start([client.identity.cert for client in self.clients], self.cloud.trust())
        assert await listener.wait_serving(patience(10))

    async def enter(self, client: Client, **options: bool) -> ssl.SSLObject:
        return await client.connect(self.port, self.cloud.cas[0].pem, **options)

    async def refused(self, client: Client) -> str:
        """Why the client is not let in."""
        try:
            await self.enter(client)
        except REFUSED as error:
            return str(error)
        raise AssertionError("it was let in")

    async def in_use(self, number: int) -> None:
        """Wait until the n-th certificate is in use."""
        async with asyncio.timeout(patience(15)):
            while len(self.log.about("in use")) < number:
                await asyncio.sleep(0.02)


@pytest.fixture
def world(tmp_path: Path, identities: list[Identity], monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, identities, monkeypatch)


def test_P3_P4_renewals_disconnect_none_of_20_publishing_devices(world: World) -> None:
    """One renewal by the control plane, two by the delegated CA while that is away; by the real helper process."""
    world.cloud.seconds, world.cloud.delegation_s = 4.0, 600.0
    world.options = {}

    async def publishing(client: Client, until: asyncio.Event) -> None:
        while not until.is_set():
            await client.publish()
            await asyncio.sleep(0.05)

    async def body(listener: DeviceListener) -> None:
        await world.started(listener)
        serials = set()
        for client in world.clients:
            serials.add((await world.enter(client)).getpeercert()["serialNumber"])  # type: ignore[index]
        until = asyncio.Event()
        crowd = [asyncio.ensure_future(publishing(client, until)) for client in world.clients]
        await world.in_use(2)
        world.cloud.failure = LinkDown("the control plane is away")
        await world.in_use(4)
        newcomer = Client(world.clients[0].identity)
        world.broker.disconnect("device-0")  # the one that comes back gets the newest certificate
        await world.clients[0].ended()
        crowd[0].cancel()
        serials.add((await world.enter(newcomer)).getpeercert()["serialNumber"])  # type: ignore[index]
        assert len(serials) >= 2
        before = [client.sent for client in world.clients]
        await asyncio.sleep(0.3)
        until.set()
        for outcome in (await asyncio.gather(*crowd, return_exceptions=True))[1:]:
            assert outcome is None, "a device was disconnected"
        assert all(client.sent > sent for client, sent in list(zip(world.clients, before, strict=True))[1:])
        newcomer.close()

    world.run(body, 60)
    assert len(world.log.about("Device disconnected")) >= 1
    assert not world.log.about("expired")


def test_row_48_strict_mode_disconnects_everybody_who_can_come_back(world: World) -> None:
    world.options["strict"] = True

    async def body(listener: DeviceListener) -> None:
        await world.started(listener)
        for client in world.clients[:3]:
            await world.enter(client)
        world.cloud.rotate()
        await listener.set_trust(world.cloud.trust())
        for client in world.clients[:3]:
            await client.ended()
            await world.enter(client)  # and the chain ends at the new CA
            await client.publish()

    world.run(body)


def test_row_50_a_rotated_ca_disconnects_nobody(world: World) -> None:
    async def body(listener: DeviceListener) -> None:
        await world.started(listener)
        first, second = world.clients[:2]
        await world.enter(first)
        world.cloud.rotate()
        await listener.set_trust(world.cloud.trust())
        await world.in_use(2)
        await world.enter(second)
        await first.publish()

    world.run(body)


def test_row_49_expired_and_offline_new_ones_fail_and_old_ones_go_on(world: World) -> None:
    world.cloud.seconds = 2.0

    async def body(listener: DeviceListener) -> None:
        await world.started(listener)
        first, second = world.clients[:2]
        await world.enter(first)
        world.cloud.failure = LinkDown("the control plane is away")
        async with asyncio.timeout(patience(15)):
            while not world.log.about("has expired"):
                await first.publish()
                await asyncio.sleep(0.05)
        assert "certificate has expired" in await world.refused(second)
        await first.publish()
        world.cloud.failure, world.cloud.seconds = None, 600.0
        listener.look_again()
        await world.in_use(2)
        await world.enter(second)

    world.run(body)
    assert len(world.log.about("has expired")) == 1


def test_row_52_an_owners_p256_key_means_an_ecdsa_suite(world: World, tmp_path: Path) -> None:
    key = tmp_path / "own.pem"
    key.write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1())))
    world.options["server_key"] = key

    async def body(listener: DeviceListener) -> None:
        await world.started(listener)
        cipher = (await world.enter(world.clients[0], tls12=True)).cipher()
        assert cipher is not None and cipher[0].startswith("ECDHE-ECDSA-")

    world.run(body)


def test_a_certificate_made_here_means_an_rsa_suite(world: World) -> None:
    async def body(listener: DeviceListener) -> None:
        await world.started(listener)
        cipher = (await world.enter(world.clients[0], tls12=True)).cipher()
        assert cipher is not None and cipher[0].startswith("ECDHE-RSA-")

    world.run(body)


def test_row_60_a_new_address_is_named_without_a_disconnect(world: World) -> None:
    async def body(listener: DeviceListener) -> None:
        await world.started(listener)
        first, second = world.clients[:2]
        await world.enter(first)
        world.hosts = ["localhost", "10.7.7.7"]
        listener.look_again()
        await world.in_use(2)
        names = (await world.enter(second)).getpeercert()["subjectAltName"]  # type: ignore[index]
        assert ("IP Address", "10.7.7.7") in names and ("IP Address", "127.0.0.1") in names
        await first.publish()

    world.run(body)


def test_an_ended_certificate_is_not_let_into_the_handshake(world: World) -> None:
    async def body(listener: DeviceListener) -> None:
        await world.started(listener)
        gone, other = world.clients[:2]
        await world.enter(other)
        world.cloud.ended = [hashlib.sha256(gone.identity.der).hexdigest()]
        await listener.set_trust(world.cloud.trust())
        await world.refused(gone)
        world.cloud.ended = []
        await listener.set_trust(world.cloud.trust())
        await world.enter(gone)
        await other.publish()
        assert len(world.cloud.asked) == 1, "no reason for a new certificate"

    world.run(body)


def test_row_8_without_a_group_nobody_is_let_in_which_is_no_error(world: World) -> None:
    async def body(listener: DeviceListener) -> None:
        await listener.start([], {"groupId": ""})
        await asyncio.sleep(0.1)
        assert world.cloud.asked == [] and world.log.lines == []
        assert not await listener.wait_serving(0.01) and not world.broker.listeners
        await listener.set_trust(world.cloud.trust())
        await listener.set_devices([world.clients[0].identity.cert])
        assert await listener.wait_serving(patience(10))
        await world.enter(world.clients[0])

    world.run(body)


def test_a_start_waits_for_nobody_and_serves_what_is_there(world: World) -> None:
    async def first(listener: DeviceListener) -> None:
        await world.started(listener)

    world.run(first)
    never = asyncio.Event()

    async def silent(csr: str, hosts: Sequence[str], delegation_csr: str | None) -> Mapping[str, Any]:
        await never.wait()
        return {}

    world.cloud.server_certificate = silent  # type: ignore[method-assign]
    world.hosts = ["localhost", "10.7.7.8"]  # so that the control plane is asked

    async def second(listener: DeviceListener) -> None:
        await listener.start([client.identity.cert for client in world.clients], world.cloud.trust())
        assert await listener.wait_serving(0.0)
        await world.enter(world.clients[0])
        await listener.set_devices([])  # works while the control plane is being asked
        await world.refused(world.clients[1])

    world.run(second)


def test_forgetting_deletes_the_server_certificate_and_closes_the_door(world: World) -> None:
    world.cloud.delegation_s = 600.0
    folder = world.state / "server"

    async def body(listener: DeviceListener) -> None:
        await world.started(listener)
        assert {path.name for path in folder.iterdir()} >= {"server.crt", "delegated.key"}
        await world.enter(world.clients[0])
        await listener.forget()
        assert list(folder.iterdir()) == [] and not world.broker.listeners
        await world.clients[0].publish()
        await listener.set_trust(world.cloud.trust())
        assert await listener.wait_serving(patience(10))
        await world.enter(world.clients[1])

    world.run(body)


def test_from_a_folder_to_the_control_plane_and_back(world: World) -> None:
    """The core's own CA signs for a group from a folder; each source's certificate replaces the other's."""
    world.hosts = ["127.0.0.1"]

    async def body(listener: DeviceListener) -> None:
        await listener.start([client.identity.cert for client in world.clients], None)
        own = (world.state / "server" / "ca.crt").read_text()
        first, second, third = world.clients[:3]
        await first.connect(world.port, own)
        await listener.set_trust(world.cloud.trust())
        await world.in_use(2)
        await world.enter(second)
        await listener.set_trust(None)
        await world.in_use(3)
        await third.connect(world.port, own)
        for client in (first, second, third):
            await client.publish()

    world.run(body)


def _device(identity: Identity) -> Device:
    name, digest = identity.cert.stem, hashlib.sha256(identity.der).hexdigest()
    arn = "arn:aws:iot:eu-west-1:123456789012"
    return Device(name, f"{arn}:thing/{name}", f"{arn}:cert/{digest}")
