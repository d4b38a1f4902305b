"""The devices' side of the control plane: MQTT and HTTPS, their certificates, whom they trust.

Trust anchors are our CA and every registered certificate that somebody else signed, each for itself alone; one that is
registered while we run is trusted from the next handshake on. Whether it is active is looked up after the handshake.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from ggfast.cloud.certificate import ServerCertificate
from ggfast.cloud.devices.https import DeviceHttps
from ggfast.cloud.devices.mqtt import DeviceBroker
from ggfast.cloud.dispatch import Dispatcher
from ggfast.cloud.events import CertificateTrusted
from ggfast.cloud.iot.certificates import anchors
from ggfast.cloud.limits import SERVER_CERTIFICATE_LOOK_S
from ggfast.cloud.store.interface import Store
from ggfast.cloud.surroundings import Surroundings
from ggfast.counters import Counters
from ggfast.errors import GgfastError
from ggfast.net.tls import server_context

logger = logging.getLogger("ggfast.cloud.devices")

MQTT_PROTOCOLS = ["x-amzn-mqtt-ca", "mqtt"]  # names clients may offer by ALPN; whoever offers none is let in too
HTTP_PROTOCOLS = ["x-amzn-http-ca", "http/1.1"]


class DeviceServers:
    """`start` once, `stop` once. The sockets are bound, and stay the caller's.

    `folder` is where MQTT sessions are while nobody serves.
    `certificate()` gives the server certificate that is good now, made anew when it is about to end; it blocks.
    """

    def __init__(
        self,
        cloud: Surroundings,
        store: Store,
        dispatcher: Dispatcher,
        *,
        mqtt: socket.socket,
        https: socket.socket,
        certificate: Callable[[], ServerCertificate],
        counters: Counters,
        folder: Path,
    ) -> None:
        self._cloud = cloud
        self._store = store
        self._mqtt_socket, self._https_socket = mqtt, https
        self._certificate = certificate
        self._trusted: list[str] = []
        self._contexts: list[ssl.SSLContext] = []
        self._renewal: asyncio.Task[None] | None = None
        self.counters = counters
        self.mqtt = DeviceBroker(cloud, store, counters, folder)
        self.https = DeviceHttps(cloud, store, dispatcher, self.mqtt.identities, counters)
        self.up = False

    async def start(self) -> None:
        """Both listen when this returns. Raises ConfigError, StorageFailed, OSError."""
        self._store.listen(self._hear)
        self._trusted += [self._cloud.authority.ca_pem, *await self._store.read(anchors)]
        found = await asyncio.to_thread(self._certificate)
        await self._serve(found)
        self._renewal = asyncio.create_task(self._renew(found))
        self.up = True

    async def stop(self) -> None:
        """Take nothing new, answer what is under way, disconnect everybody."""
        self.up = False
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        await self.https.stop()
        await self.mqtt.stop()

    async def _serve(self, found: ServerCertificate) -> None:
        known = len(self._trusted)
        mqtt, https = await asyncio.to_thread(lambda: [self._context(found) for _ in range(2)])
        for context in (mqtt, https):
            for pem in self._trusted[known:]:  # heard of since
                context.load_verify_locations(cadata=pem)
        mqtt.set_alpn_protocols(MQTT_PROTOCOLS)
        https.set_alpn_protocols(HTTP_PROTOCOLS)
        https.verify_mode = ssl.CERT_OPTIONAL  # who has none gets an answer that says so
        self._contexts = [mqtt, https]
        await self.mqtt.start(self._mqtt_socket, mqtt)
        await self.https.start(self._https_socket, https)

    def _context(self, found: ServerCertificate) -> ssl.SSLContext:
        return server_context(found.certificate, found.key, client_cas_pem=list(self._trusted))

    async def _renew(self, used: ServerCertificate) -> None:
        while True:
            await asyncio.sleep(SERVER_CERTIFICATE_LOOK_S)
            try:
                found = await asyncio.to_thread(self._certificate)
                if found != used:
                    await self._serve(found)
                    used = found
            except (GgfastError, OSError) as error:
                logger.error("the servers' certificate could not be renewed; the next look is tomorrow: %s", error)

    def _hear(self, event: object) -> None:
        if isinstance(event, CertificateTrusted) and event.certificate_pem not in self._trusted:
            self._trusted.append(event.certificate_pem)
            for context in self._contexts:
                context.load_verify_locations(cadata=event.certificate_pem)
