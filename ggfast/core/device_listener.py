"""The TLS listener of devices: its server certificate, who is let into the handshake, and swapping both.

The listening socket belongs to the supervisor and stays open throughout. A renewed certificate or a changed list of
devices makes a new TLS context and a new acceptor on the same socket, then ends the old acceptor; established
connections keep the context they were made with, so nobody is disconnected (V1 disconnected everybody).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path

from ggfast import limits
from ggfast.clock import Clock
from ggfast.core.certificate_hosts import local_hosts
from ggfast.core.own_ca import ServerCertificate, ensure_server_certificate
from ggfast.errors import GgfastError
from ggfast.log import SystemLog
from ggfast.mqtt.broker import Broker, Listener
from ggfast.net.tls import server_context


class DeviceListener:
    """Accepts devices of the deployed group over mutual TLS."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        broker: Broker,
        sock: socket.socket,
        state: Path,
        clock: Clock,
        log: SystemLog,
    ) -> None:
        self._loop = loop
        self._broker = broker
        self._socket = sock
        self._state = state
        self._clock = clock
        self._log = log
        self._certificate: ServerCertificate | None = None
        self._device_certificates: tuple[Path, ...] = ()
        self._listener: Listener | None = None
        self._watch: asyncio.Task[None] | None = None
        self._swap = asyncio.Lock()

    async def start(self, device_certificates: Sequence[Path]) -> None:
        """Make sure of a server certificate, start accepting, and keep the certificate fresh from now on.

        Without a certificate nothing is served; the reason is logged and the next attempt follows by itself.
        """
        self._device_certificates = tuple(device_certificates)
        await self._renew()
        self._watch = self._loop.create_task(self._keep_fresh())

    async def set_devices(self, device_certificates: Sequence[Path]) -> None:
        """Let these devices' certificates into the handshake from now on, and no others."""
        if tuple(device_certificates) != self._device_certificates:
            self._device_certificates = tuple(device_certificates)
            await self._serve()

    async def stop(self) -> None:
        """Stop accepting; established connections are the broker's to end."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _keep_fresh(self) -> None:
        """Look every now and then: addresses change, clocks are set, certificates age."""
        while True:
            await asyncio.sleep(limits.CERTIFICATE_CHECK_S)
            try:
                await self._renew()
            except Exception as error:  # the next look may do better; without looks the certificate runs out
                self._log.error("The server certificate could not be looked after.", reason=repr(error))

    async def _renew(self) -> None:
        before = self._certificate
        if before is not None and self._clock.wall() < before.renew_at and set(local_hosts()) <= set(before.hosts):
            return
        try:
            self._certificate = await ensure_server_certificate(self._state, local_hosts(), clock=self._clock)
        except GgfastError as error:
            what = "Devices cannot connect" if before is None else "The one in use stays"
            self._log.error(f"No new server certificate. {what}.", reason=str(error))
            return
        for warning in self._certificate.warnings:
            self._log.warn("Server certificate.", detail=warning)
        if before is None or self._certificate.certificate_id != before.certificate_id:
            self._log.info(
                "Server certificate in use.",
                certificateId=self._certificate.certificate_id,
                hosts=list(self._certificate.hosts),
                notAfter=self._certificate.not_after,
            )
            await self._serve()

    async def _serve(self) -> None:
        async with self._swap:  # a renewal and a deployment at once would leave an old acceptor behind
            if self._certificate is None:
                return
            try:
                context = self._context(self._certificate)
            except (OSError, GgfastError) as error:
                what = "Devices cannot connect" if self._listener is None else "The listener keeps what it has"
                self._log.error(f"No TLS context. {what}.", reason=str(error))
                return
            previous = self._listener
            self._listener = await self._broker.serve(self._socket, context)
            if previous is not None:
                previous.close()

    def _context(self, certificate: ServerCertificate) -> ssl.SSLContext:
        return server_context(certificate.certificate, certificate.key, client_cas_pem=self._usable())

    def _usable(self) -> list[str]:
        """The devices' certificates. One that is lost or damaged is its device's trouble, not the others'."""
        trial, found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), []
        for path in self._device_certificates:
            try:
                pem = path.read_text(encoding="ascii")
                trial.load_verify_locations(cadata=pem)
            except (OSError, ValueError) as error:
                self._log.error("A device's certificate cannot be used.", path=str(path), reason=str(error))
            else:
                found.append(pem)
        return found
