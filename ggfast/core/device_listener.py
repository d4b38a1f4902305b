"""The TLS listener of devices: its server certificate, who is let into the handshake, and swapping both.

The listening socket belongs to the supervisor and stays open throughout. A renewed certificate or a changed list of
devices makes a new TLS context and a new acceptor on the same socket, then ends the old acceptor; established
connections keep the context they were made with, so nobody is disconnected. In strict mode a new certificate
disconnects everybody, as V1 did.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ggfast import limits
from ggfast.clock import Clock
from ggfast.core.certificate_helper import Helper, run_helper
from ggfast.core.certificate_hosts import local_hosts
from ggfast.core.certificate_keeper import CertificateKeeper, Served
from ggfast.core.certificates import pem_id
from ggfast.core.cloud_certificates import Issuer
from ggfast.core.trust import Trust
from ggfast.errors import GgfastError, StorageFailed
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
        *,
        cloud: Issuer | None = None,
        server_key: Path | None = None,
        hosts: Callable[[], Sequence[str]] = local_hosts,
        strict: bool = False,
        run: Helper = run_helper,
    ) -> None:
        """`server_key`: the owner's key for the server certificate (configuration `crypto`), in PEM form; None: one
        that is made here. `hosts`: this machine's addresses and names, asked again at every look."""
        self._loop = loop
        self._broker = broker
        self._socket = sock
        self._clock = clock
        self._log = log
        self._hosts = hosts
        self._strict = strict
        self._keeper = CertificateKeeper(state, clock, log, cloud=cloud, server_key=server_key, run=run)
        self._trust: Trust | None = None
        self._served: Served | None = None
        self._device_certificates: tuple[Path, ...] = ()
        self._listener: Listener | None = None
        self._watch: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._serving = asyncio.Event()
        self._swap = asyncio.Lock()

    async def start(self, device_certificates: Sequence[Path], trust: Mapping[str, Any] | None = None) -> None:
        """Start accepting with the certificate that is there, and keep it fresh from now on.

        The core's own certificate is made first if need be; the control plane's comes in the background, since it may
        not be reachable. Without a certificate nothing is served; the reason is logged. `trust`: see `set_trust`.
        """
        self._device_certificates = tuple(device_certificates)
        self._trust = None if trust is None else Trust.read(trust)
        if self._trust is None:
            await self._look()
        else:
            await self._use(await self._keeper.on_disk(self._trust))
        self._watch = self._loop.create_task(self._keep_fresh())

    async def set_trust(self, trust: Mapping[str, Any] | None) -> None:
        """What the control plane says now about certificates; None: it has no say (local mode, a group from a folder).

        Certificates of devices that ended are out of the handshake on return; connected ones are the caller's to end.
        A server certificate that this asks for follows in the background."""
        before, self._trust = self._trust, None if trust is None else Trust.read(trust)
        if self._trust == before:
            return
        if _ended(self._trust) != _ended(before):
            await self._serve()
        self._wake.set()

    async def set_devices(self, device_certificates: Sequence[Path]) -> None:
        """Let these devices' certificates into the handshake from now on, and no others."""
        if tuple(device_certificates) != self._device_certificates:
            self._device_certificates = tuple(device_certificates)
            await self._serve()

    def look_again(self) -> None:
        """Addresses have changed, or the control plane can be reached again: look now. Does not block."""
        self._keeper.hurry()
        self._wake.set()

    async def wait_serving(self, timeout_s: float) -> bool:
        """Whether devices can connect, at once or within `timeout_s`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._serving.wait(), timeout_s)
        return self._serving.is_set()

    async def forget(self) -> None:
        """Stop accepting, and delete the server certificate, the delegated CA and their keys: the core has no group any
        more until `set_trust` says otherwise. Raises StorageFailed. Does not block the loop."""
        watched = self._watch is not None
        await self._end_watch()
        if self._trust is not None:
            self._trust = Trust()
        try:
            await self._keeper.forget()
        except OSError as error:
            raise StorageFailed(f"The certificates of the last group cannot be deleted: {error}") from error
        finally:
            await self._use(None)
            if watched:
                self._watch = self._loop.create_task(self._keep_fresh())

    async def stop(self) -> None:
        """Stop accepting; established connections are the broker's to end."""
        await self._end_watch()
        self._close()

    async def _end_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._serving.clear()

    # --- keeping the certificate fresh ------------------------------------------------------------------

    async def _keep_fresh(self) -> None:
        """Look when something is due, and every now and then: addresses change, clocks are set."""
        pause = self._keeper.pause_s(self._trust)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(min(max(pause, 0.0), limits.CERTIFICATE_CHECK_S)):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._look()
                pause = self._keeper.pause_s(self._trust)
            except Exception as error:  # the next look may do better; without looks the certificate runs out
                self._log.error("The server certificate could not be looked after.", reason=repr(error))
                pause = limits.CERTIFICATE_CHECK_S

    async def _look(self) -> None:
        trust = self._trust
        found = await self._keeper.look(trust, self._hosts())
        if found is not None or trust is None or not trust.group_id:
            await self._use(found)

    async def _use(self, found: Served | None) -> None:
        """Serve with this certificate from now on; None: with none."""
        before, self._served = self._served, found
        if found is None:
            async with self._swap:
                self._close()
            return
        if before is not None and found.certificate_id == before.certificate_id:
            return
        if not await self._serve():
            self._served = before  # so that the next look tries again
            return
        self._log.info(
            "Server certificate in use.",
            certificateId=found.certificate_id,
            hosts=list(found.hosts),
            notAfter=found.not_after,
        )
        if before is not None and self._strict:
            for client in self._broker.clients():
                if client.peer:
                    self._broker.disconnect(client.client_id)

    async def _serve(self) -> bool:
        """Accept with the certificate, for the devices and by the trust of this moment; whether that could be done."""
        async with self._swap:  # a renewal and a deployment at once would leave an old acceptor behind
            served = self._served
            if served is None:
                return False
            try:
                context, unusable = await asyncio.to_thread(
                    _context, served, self._device_certificates, _ended(self._trust)
                )
            except (OSError, GgfastError) as error:
                what = "Devices cannot connect" if self._listener is None else "The listener keeps what it has"
                self._log.error(f"No TLS context. {what}.", reason=str(error))
                return False
            for path, reason in unusable:
                self._log.error("A device's certificate cannot be used.", path=str(path), reason=reason)
            previous = self._listener
            self._listener = await self._broker.serve(self._socket, context)
            self._serving.set()
            if previous is not None:
                previous.close()
            return True


def _ended(trust: Trust | None) -> frozenset[str]:
    return frozenset() if trust is None else trust.ended


def _context(
    served: Served, devices: Sequence[Path], ended: frozenset[str]
) -> tuple[ssl.SSLContext, list[tuple[Path, str]]]:
    """The context, and which devices' certificates cannot be used, why. One that is lost or damaged is its device's
    trouble, not the others'. In a thread: reads a file for every device."""
    trial, found, unusable = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), [], []
    for path in devices:
        try:
            pem = path.read_text(encoding="ascii")
            trial.load_verify_locations(cadata=pem)
            if pem_id(pem) not in ended:
                found.append(pem)
        except (OSError, ValueError) as error:
            unusable.append((path, str(error)))
    return server_context(served.certificate, served.key, client_cas_pem=found), unusable
