"""Keys, certificates and clients for the tests of TLS."""

from __future__ import annotations

import _ssl
import asyncio
import ctypes
import datetime
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from transport_support import PATIENCE_S

from ggfast.net.tls import server_context


class Identity:
    """A self-signed certificate with its key, as files."""

    def __init__(self, folder: Path, name: str) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .sign(key, hashes.SHA256())
        )
        self.der = certificate.public_bytes(serialization.Encoding.DER)
        self.pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.cert, self.key = folder / f"{name}.crt", folder / f"{name}.key"
        self.cert.write_text(self.pem)
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        self.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))


class People:
    """A server, a device it knows and one it does not."""

    def __init__(self, folder: Path) -> None:
        self.server, self.device = Identity(folder, "localhost"), Identity(folder, "device")
        self.stranger = Identity(folder, "stranger")

    def serving(self, *, mutual: bool = True) -> ssl.SSLContext:
        """The server's context."""
        trusted = [self.device.pem] if mutual else None
        return server_context(self.server.cert, self.server.key, client_cas_pem=trusted)

    def visiting(self, who: Identity | None = None, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """A client's context; `who` shows its certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.server.pem)
        if who is not None:
            context.load_cert_chain(who.cert, who.key)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    """Made once for a module: keys take a while."""
    return People(tmp_path_factory.mktemp("tls"))


class ByHand:
    """A client whose records pass through our hands: they can be cut, held back and joined."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        self.arrived, self.leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.arrived, self.leaving, server_hostname="localhost")

    def step(self) -> bool:
        """One step of the handshake; whether it is done. What is to be sent lies in `leaving`."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    async def hear(self) -> None:
        """Take what the server sent."""
        self.arrived.write(await asyncio.to_thread(self.sock.recv, 65536))

    async def shake(self) -> None:
        """The whole handshake; the last flight still lies in `leaving`."""
        while not self.step():
            if sent := self.leaving.read():
                self.sock.sendall(sent)
            await self.hear()

    async def say(self, data: bytes, piece: int = 65536) -> None:
        """Send `data` and what lies in `leaving`, in pieces."""
        self.tls.write(data)
        sent = self.leaving.read()
        for at in range(0, len(sent), piece):
            self.sock.sendall(sent[at : at + piece])
            await asyncio.sleep(0)


async def enter(address: Any, context: ssl.SSLContext) -> ssl.SSLSocket:
    """A connected blocking client."""

    def connect() -> ssl.SSLSocket:
        sock = socket.create_connection(address, PATIENCE_S)
        try:
            return context.wrap_socket(sock, server_hostname="localhost")
        except BaseException:
            sock.close()
            raise

    return await asyncio.to_thread(connect)


def openssl(client: ssl.SSLSocket, name: str, *arguments: int) -> int:
    """Call a function of OpenSSL on a client's connection: for what Python's ssl has no call."""
    function = getattr(ctypes.CDLL(_ssl.__file__), name)
    function.argtypes = [ctypes.c_void_p, *[ctypes.c_int for _ in arguments]]
    second_field = id(client._sslobj) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p)  # type: ignore[attr-defined]
    return int(function(ctypes.c_void_p.from_address(second_field), *arguments))
