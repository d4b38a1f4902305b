"""MQTT for devices: the product's broker, with IoT policies as its authoriser and shadows and jobs behind it.

    CONNECT -> certificate's identity -> iot:Connect -> source "<account>/<region>/<client id>"
                                      -> the session that was kept, if it is this certificate's
    PUBLISH -> iot:Publish -> subscribers with iot:Receive
                           -> $aws/things/+/(shadow|jobs)/... -> Requests -> the store -> events.Publish -> subscribers

A source's realm is its home: clients of different regions hear nothing of each other. What the cloud itself says has
the home as its source. Reserved topics that ask for nothing are closed to clients, as in the real service.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from ggfast._ext.framing import NOT_AUTHORIZED
from ggfast._ext.routes import Router
from ggfast.cloud.devices.identity import Identities, Identity, certificate_id_of
from ggfast.cloud.devices.names import client_of, home_of
from ggfast.cloud.devices.requests import Requests
from ggfast.cloud.devices.retained import RetainedStore
from ggfast.cloud.events import Publish
from ggfast.cloud.jobs import topics as job_topics
from ggfast.cloud.limits import (
    DEVICE_CLIENTS_MAX,
    DEVICE_RETAINED_BYTES_MAX,
    DEVICE_SESSIONS_MAX,
    DEVICE_SWEEP_S,
)
from ggfast.cloud.shadows import topics as shadow_topics
from ggfast.cloud.store.interface import Store
from ggfast.cloud.surroundings import Surroundings
from ggfast.counters import Counters
from ggfast.errors import PeerError, StorageFailed
from ggfast.limits import KIB, V1_PAYLOAD_BYTES_MAX, V1_TOPIC_BYTES_MAX, V1_TOPIC_SLASHES_MAX
from ggfast.mqtt import state
from ggfast.mqtt.broker import Broker
from ggfast.mqtt.hooks import Accepted, Client, ConnectInfo, Refused
from ggfast.mqtt.limits import BrokerLimits

logger = logging.getLogger("ggfast.cloud.devices")

REQUESTS = "requests"  # the sink behind the reserved topics
REQUEST_TOPICS = ("$aws/things/+/shadow/#", "$aws/things/+/jobs/#")
LIMITS = BrokerLimits(
    packet_bytes_max=V1_PAYLOAD_BYTES_MAX + 64 * KIB,
    payload_bytes_max=V1_PAYLOAD_BYTES_MAX,
    connections_max=DEVICE_CLIENTS_MAX,
    retained_bytes_max=DEVICE_RETAINED_BYTES_MAX,
    sessions_offline_max=DEVICE_SESSIONS_MAX,
)


class Permissions:
    """The broker's authoriser: IoT policies. Asked on the loop, never waits.

    `certificates` says with which certificate a client is in, or was last: its session and will outlive it.
    """

    def __init__(self) -> None:
        self.identities: Identities
        self.certificates: dict[str, str] = {}  # source -> certificate id

    def identity(self, source: str) -> Identity | None:
        """Whose permissions a client has; None: nobody's."""
        certificate_id = self.certificates.get(source)
        return None if certificate_id is None else self.identities.get(certificate_id)

    def realm(self, source: str) -> str:
        """See `Authoriser`."""
        return home_of(source)

    def may_publish(self, source: str, topic: str) -> bool:
        """By iot:Publish; on reserved topics only what asks a shadow or jobs for something."""
        if not client_of(source):
            return True
        if topic.startswith("$") and not (shadow_topics.is_request(topic) or job_topics.is_request(topic)):
            return False
        return self._allows(source, "iot:Publish", f"topic/{topic}")

    def may_retain(self, source: str, topic: str) -> bool:
        """By iot:RetainPublish; never on reserved topics."""
        if not client_of(source):
            return True
        return not topic.startswith("$") and self._allows(source, "iot:RetainPublish", f"topic/{topic}")

    def may_receive(self, target: str, topic: str, source: str) -> bool:
        """By iot:Receive, from its own region."""
        return home_of(source) == home_of(target) and self._allows(target, "iot:Receive", f"topic/{topic}")

    def may_subscribe(self, source: str, pattern: str) -> bool:
        """By iot:Subscribe."""
        return self._allows(source, "iot:Subscribe", f"topicfilter/{pattern}")

    def _allows(self, source: str, action: str, resource: str) -> bool:
        identity = self.identity(source)
        if identity is None or identity.home != home_of(source):
            return False
        return identity.allows(action, identity.arn_of("iot", resource), client_of(source))


class DeviceBroker:
    """The broker with everything around it. `start` begins to listen on a bound socket, `stop` ends it."""

    def __init__(self, cloud: Surroundings, store: Store, counters: Counters, folder: Path | None = None) -> None:
        """`folder`: where persistent sessions are from an orderly stop to the next start; None: nowhere."""
        self._store = store
        self._folder = folder
        self._counters = counters
        self._permissions = Permissions()
        self.identities = Identities(store, self._permissions_changed, self._certificate_ended)
        self._permissions.identities = self.identities
        self._entering = ("", "")  # source and certificate of the CONNECT that is being handled
        self.router = Router(
            True,
            topic_bytes_max=V1_TOPIC_BYTES_MAX,
            topic_slashes_max=V1_TOPIC_SLASHES_MAX,
            authoriser=self._permissions,
        )
        self._loop = asyncio.get_running_loop()
        self.broker = Broker(self._loop, self.router, self, LIMITS, cloud.clock, counters)
        self.broker.prepare = self._prepare
        self._requests = Requests(cloud, store, self.broker, counters)
        self._retained = RetainedStore(cloud, store, self.broker, counters)
        self.router.add_sink(REQUESTS, self._take)
        self.router.set_table([("", subject, REQUESTS) for subject in REQUEST_TOPICS])
        store.listen(self._hear)
        self._sweep = self._loop.call_later(DEVICE_SWEEP_S, self._forget_gone)

    async def start(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        """Let clients in; called again, by another context from now on, and nobody is disconnected."""
        before = list(self.broker.listeners)
        if not before:
            await self.take_up()
        await self.broker.serve(sock, context)
        for listener in before:
            listener.close()

    async def stop(self) -> None:
        """Disconnect everybody, do what they asked for, keep what they retained, and their sessions."""
        self._sweep.cancel()
        self.broker.close()
        await self._requests.close()
        await self._retained.close()
        await self.identities.close()
        if self._folder is not None:
            certificates = self._permissions.certificates
            notes = {name: certificates[name] for name in self.broker.sessions_away() if name in certificates}
            try:
                state.save(self.broker, self._folder, retained=False, notes=notes)
            except StorageFailed as error:
                logger.error("persistent sessions end with this process: %s", error)

    async def take_up(self) -> None:
        """Go on with the sessions of the last orderly stop, each with the certificate its client came with."""
        notes: dict[str, str] = {}
        try:
            if self._folder is None or not state.load(self.broker, self._folder, notes):
                return
        except StorageFailed as error:
            logger.error("persistent sessions of the last run are not taken up: %s", error)
            return
        for source in self.broker.sessions_away():
            if source in notes:
                self._permissions.certificates[source] = notes[source]
                self.identities.keep(notes[source])
            else:
                self.broker.absent.end(source)
        await self.identities.reload(set(notes.values()))
        for source, certificate_id in notes.items():
            if self.identities.get(certificate_id) is None:
                self.broker.absent.end(source)

    # --- hooks -----------------------------------------------------------------------------------------

    def authenticate(self, info: ConnectInfo) -> Accepted | Refused:
        """By certificate and iot:Connect; user names mean nothing."""
        if info.certificate is None:
            return Refused(NOT_AUTHORIZED, "A client certificate is needed.")
        certificate_id = certificate_id_of(info.certificate)
        identity = self.identities.get(certificate_id)
        if identity is None:
            return Refused(NOT_AUTHORIZED, "The certificate is not registered here or not active.")
        if not identity.allows("iot:Connect", identity.arn_of("iot", f"client/{info.client_id}"), info.client_id):
            return Refused(NOT_AUTHORIZED, f"The certificate's policies do not allow iot:Connect as {info.client_id}.")
        source = f"{identity.home}/{info.client_id}"
        if self._permissions.certificates.get(source, certificate_id) != certificate_id:
            # Filters and messages of what was let in by another certificate: this one's policies never allowed them.
            self.broker.disconnect(source)
            self.broker.forget(source)
        self._entering = (source, certificate_id)
        return Accepted(source, source)

    def connected(self, client: Client) -> None:
        """From now on the client's permissions are those of the certificate it came with."""
        source, certificate_id = self._entering
        assert source == client.source
        before = self._permissions.certificates.get(source)
        if before == certificate_id:
            return
        self._permissions.certificates[source] = certificate_id
        self.identities.keep(certificate_id)
        if before is not None:
            self.identities.let_go(before)
        self.router.permissions_changed()

    def disconnected(self, client: Client, reason: str) -> None:
        """What is kept of it goes with the next sweep: its will may still go out."""

    # --- from the registry and the handlers -----------------------------------------------------------

    def _permissions_changed(self) -> None:
        self.router.permissions_changed()

    def _certificate_ended(self, certificate_id: str) -> None:
        for source, known in self._permissions.certificates.items():
            if known == certificate_id and self.broker.disconnect(source):
                logger.info("client disconnected: its certificate is no longer active client=%s", source)

    def _hear(self, event: object) -> None:
        if isinstance(event, Publish):
            homes = [event.home] if event.home else sorted({home_of(name) for name in self._permissions.certificates})
            for home in homes:
                self._publish(home, event)

    def _publish(self, home: str, event: Publish) -> None:
        try:
            with self._retained.not_written():
                self.router.publish(home, event.topic.encode(), event.payload, event.qos, event.retain)
        except PeerError as error:  # a topic past the bounds of this broker
            self._counters.add("cloud.dropped.publish")
            logger.warning("a message of the cloud could not be published topic=%r: %s", event.topic[:256], error)

    # --- from clients ----------------------------------------------------------------------------------

    def _prepare(self, certificate: bytes | None, ready: Callable[[], None]) -> bool:
        """The certificate's identity, and what its region has retained."""
        return self._retained.prepare(self.identities, certificate, ready)

    def _take(self, source: str, topic: bytes, payload: bytes, _qos: int, _retain: bool) -> bool:
        if not client_of(source):
            return True  # the cloud's own answers
        text = topic.decode()
        if not (shadow_topics.is_request(text) or job_topics.is_request(text)):
            return True
        return self._requests.take(source, text, payload)

    def _forget_gone(self) -> None:
        """Certificates of clients that have no session any more."""
        self._sweep = self._loop.call_later(DEVICE_SWEEP_S, self._forget_gone)
        for source in [name for name in self._permissions.certificates if self.broker.session_of(name) is None]:
            self.identities.let_go(self._permissions.certificates.pop(source))
