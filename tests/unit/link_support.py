"""Servers that answer as a test says, with real certificates, for the client side of HTTPS."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.patience import patience

DAY = datetime.timedelta(days=1)
Key = ec.EllipticCurvePrivateKey
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


class Authority:
    """A CA, with the certificates it issues as files."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.cert = folder / f"{name}.pem"
        certificate = self._build(self._name, self._key, -DAY, DAY).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.cert.write_bytes(certificate.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(
        self, name: str, begins: datetime.timedelta = -DAY, ends: datetime.timedelta = DAY, host: str = "127.0.0.1"
    ) -> Path:
        """A PEM file with a certificate and its key; times are relative to the present."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host)), x509.DNSName("localhost")])
        certificate = self._build(subject, key, begins, ends).add_extension(names, critical=False)
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        path = self._folder / f"{name}.pem"
        path.write_bytes(
            certificate.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(serialization.Encoding.PEM, form, plain)
        )
        return path

    def _build(
        self, subject: x509.Name, key: Key, begins: datetime.timedelta, ends: datetime.timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
        return builder.not_valid_before(now + begins).not_valid_after(now + ends)


def server_side(identity: Path, clients: Path | None = None) -> ssl.SSLContext:
    """A server's context; with `clients` it wants a certificate of that CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity, identity)
    if clients is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients)
    return context


@asynccontextmanager
async def serving(talk: Talk, context: ssl.SSLContext | None) -> AsyncIterator[int]:
    """A server on the loopback address, its port; every connection is `talk`'s and ended with it."""
    busy: set[asyncio.Task[Any]] = set()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        busy.add(task)
        try:
            await talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has had enough
        except asyncio.CancelledError:
            pass
        finally:
            busy.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(take, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(busy):
            task.cancel()
        while busy:
            await asyncio.sleep(0)
        for _ in range(5):  # what was aborted is closed in the turns that follow
            await asyncio.sleep(0)


async def read_request(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    """Request line, headers by lower-case name, body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    line, *fields = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    return line, headers, await reader.readexactly(int(headers.get("content-length", 0)))


def run_on(loop_name: str, work: Coroutine[Any, Any, Any]) -> None:
    """Run to the end on a loop of this kind."""
    with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
        runner.run(asyncio.wait_for(work, patience(20)))
