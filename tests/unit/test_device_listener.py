"""The devices' listener where a certificate is damaged, a renewal fails, or two changes meet."""

from __future__ import annotations

import asyncio
import datetime
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ggfast import limits
from ggfast.clock import SystemClock
from ggfast.core import certificate_keeper, device_listener
from ggfast.core.device_listener import DeviceListener
from ggfast.core.own_ca import ServerCertificate
from ggfast.errors import StorageFailed


def certificate(path: Path) -> Path:
    """A self-signed certificate with its key behind it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, path.stem)])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + datetime.timedelta(days=1))
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(pem)
    path.with_suffix(".key").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    return path


class Acceptor:
    def __init__(self) -> None:
        self.open = True

    def close(self) -> None:
        self.open = False


class Broker:
    def __init__(self) -> None:
        self.acceptors: list[Acceptor] = []

    async def serve(self, sock: socket.socket, context: object) -> Acceptor:
        await asyncio.sleep(0.01)
        self.acceptors.append(Acceptor())
        return self.acceptors[-1]


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str, **fields: Any) -> None:
        self.lines.append(f"{message} {fields}")

    warn = error = info


class Around:
    """A listener on a machine whose server certificate is what `made` says."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.broker, self.log = Broker(), Log()
        self.trusted: list[int] = []
        self.server = certificate(directory / "server.pem")
        self.failure: Exception | None = None
        self.renewals = 0
        real = device_listener.server_context

        def count(cert: Path, key: Path, *, client_cas_pem: list[str]) -> object:
            self.trusted.append(len(client_cas_pem))
            return real(cert, key, client_cas_pem=client_cas_pem)

        monkeypatch.setattr(device_listener, "server_context", count)
        monkeypatch.setattr(certificate_keeper, "ensure_server_certificate", self.ensure)

    async def ensure(self, *_: object, **__: object) -> ServerCertificate:
        self.renewals += 1
        if self.failure is not None:
            raise self.failure
        found: Any = ServerCertificate.__new__(ServerCertificate)
        values = {"certificate": self.server, "key": self.server.with_suffix(".key"), "warnings": (), "hosts": ()}
        values |= {"certificate_id": str(self.renewals), "not_after": 0.0, "renew_at": 0.0}
        for name, value in values.items():
            object.__setattr__(found, name, value)
        return found  # type: ignore[no-any-return]

    def run(self, test: Callable[[DeviceListener], Awaitable[None]]) -> None:
        async def body() -> None:
            loop, state = asyncio.get_running_loop(), Path("/nowhere")
            with socket.socket() as sock:
                found: Any = (loop, self.broker, sock, state, SystemClock(), self.log)
                listener = DeviceListener(*found)
                await test(listener)
                await listener.stop()

        asyncio.run(asyncio.wait_for(body(), 20))


@pytest.fixture
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Around:
    return Around(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "content", [None, b"", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_P7_a_damaged_certificate_keeps_out_its_device_alone(
    around: Around, tmp_path: Path, content: bytes | None
) -> None:
    good, bad = certificate(tmp_path / "good.pem"), tmp_path / "bad.pem"
    if content is not None:
        bad.write_bytes(content)

    async def body(listener: DeviceListener) -> None:
        await listener.start([bad, good])
        assert [acceptor.open for acceptor in around.broker.acceptors] == [True]

    around.run(body)
    assert around.trusted == [1]
    assert any("bad.pem" in line for line in around.log.lines)


def test_P3_looking_after_the_certificate_goes_on_after_a_surprise(
    around: Around, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CERTIFICATE_CHECK_S", 0.01)

    async def body(listener: DeviceListener) -> None:
        await listener.start([])
        around.failure = RuntimeError("surprise")
        seen = around.renewals
        while around.renewals < seen + 3:
            await asyncio.sleep(0.005)

    around.run(body)
    assert any("surprise" in line for line in around.log.lines)


def test_P3_a_failed_renewal_does_not_say_that_nobody_can_connect(
    around: Around, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CERTIFICATE_CHECK_S", 0.01)

    async def body(listener: DeviceListener) -> None:
        await listener.start([])
        around.failure = StorageFailed("full")
        while not any("full" in line for line in around.log.lines):
            await asyncio.sleep(0.005)
        assert around.broker.acceptors[-1].open

    around.run(body)
    assert not any("cannot connect" in line for line in around.log.lines)


def test_P4_a_renewal_and_a_deployment_at_once_leave_one_acceptor(around: Around, tmp_path: Path) -> None:
    device = certificate(tmp_path / "device.pem")

    async def body(listener: DeviceListener) -> None:
        await listener.start([])
        await asyncio.gather(listener.set_devices([device]), listener._serve(), listener._serve())
        assert [acceptor.open for acceptor in around.broker.acceptors].count(True) == 1
        assert around.broker.acceptors[-1].open

    around.run(body)
