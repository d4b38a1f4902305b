"""The running control plane: everything built, started in order, stopped in reverse.

`opened` is the part that needs no network: the command line works on a folder with it, also beside a server.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from ggfast.clock import SystemClock
from ggfast.cloud.access import Access
from ggfast.cloud.accesslog import AccessLog
from ggfast.cloud.api import Api
from ggfast.cloud.artifacts import ArtifactFolder
from ggfast.cloud.authority import CertificateAuthority
from ggfast.cloud.certificate import ServerCertificate, server_certificate
from ggfast.cloud.deploy.bulk_runner import BulkRunner
from ggfast.cloud.deploy.outbox import Outbox
from ggfast.cloud.devices.server import DeviceServers
from ggfast.cloud.dispatch import Dispatcher
from ggfast.cloud.gauges import show_devices, show_front, show_store
from ggfast.cloud.handed_through import HandedThrough
from ggfast.cloud.health import Health
from ggfast.cloud.limits import CLOUD_OPEN_FILES
from ggfast.cloud.listening import ApiListener
from ggfast.cloud.metrics import Metrics
from ggfast.cloud.sealing import KeySealer
from ggfast.cloud.services import all_services
from ggfast.cloud.settings import CloudFolder, CloudSettings
from ggfast.cloud.store.sqlite import SqliteStore
from ggfast.cloud.surroundings import Endpoints, Surroundings
from ggfast.cloud.upkeep import Upkeep
from ggfast.counters import Counters
from ggfast.errors import ConfigError, OperatingError

logger = logging.getLogger("ggfast.cloud")


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a server listens, once it does."""

    api: int
    mqtt: int
    https: int


@dataclass(frozen=True, slots=True)
class Opened:
    """A control plane's folder, ready for operations."""

    surroundings: Surroundings
    store: SqliteStore
    dispatcher: Dispatcher


@asynccontextmanager
async def opened(folder: CloudFolder, settings: CloudSettings, ports: Ports) -> AsyncIterator[Opened]:
    """The store and what surrounds it, without listeners. Raises ConfigError or StorageFailed."""
    clock = SystemClock()
    command = settings.credentials_process
    surroundings = Surroundings(
        account=settings.account,
        clock=clock,
        sealer=KeySealer.from_file(folder.master_key),
        artifacts=ArtifactFolder(folder.artifacts),
        authority=load_authority(folder),
        endpoints=endpoints(settings, ports),
        group_keys=HandedThrough(command, clock) if command else None,
        server_certificate_s=settings.server_certificate_s,
        delegated_authority_s=settings.delegated_authority_days * 86_400,
    )
    store = SqliteStore(folder.store)
    try:
        yield Opened(surroundings, store, Dispatcher(surroundings, store))
    finally:
        await store.close()


def load_authority(folder: CloudFolder) -> CertificateAuthority:
    """The folder's certificate authority. Raises ConfigError."""
    try:
        return CertificateAuthority(folder.ca.read_text(), folder.ca_key.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"the certificate authority {folder.ca}, {folder.ca_key} cannot be used: {error}.") from error


def endpoints(settings: CloudSettings, ports: Ports) -> Endpoints:
    """The names under which clients reach us. An address of IPv6 stands in brackets."""
    host = f"[{settings.hosts[0]}]" if ":" in settings.hosts[0] else settings.hosts[0]
    return Endpoints(f"https://{host}:{ports.api}", f"{host}:{ports.mqtt}", f"{host}:{ports.https}")


class CloudServer:
    """One control plane that serves. `start` once, `stop` once."""

    def __init__(self, folder: CloudFolder, settings: CloudSettings) -> None:
        self._folder = folder
        self._settings = settings
        self._stack = AsyncExitStack()
        self._metrics = Metrics()
        self._api: ApiListener | None = None
        self._devices: DeviceServers | None = None
        self.surroundings: Surroundings
        self.ports: Ports
        self.devices: DeviceServers

    async def start(self) -> None:
        """Serve when this returns. Raises ConfigError, OperatingError, StorageFailed; nothing is left open then."""
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def stop(self) -> None:
        """Take nothing new, finish what is under way, close the store."""
        await self._stack.aclose()

    async def _start(self) -> None:
        folder, settings = self._folder, self._settings
        self._stack.callback(os.close, _lock(folder))
        _open_many()
        sockets = [self._bind(port) for port in (settings.api_port, settings.mqtt_port, settings.https_port)]
        self.ports = Ports(*(sock.getsockname()[1] for sock in sockets))
        cloud = await self._stack.enter_async_context(opened(folder, settings, self.ports))
        self.surroundings = cloud.surroundings
        certificate = await asyncio.to_thread(self._certificate)
        await self._start_api(cloud, sockets[0], certificate)
        await self._start_devices(cloud, sockets[1], sockets[2])
        bulk = BulkRunner(cloud.store, cloud.surroundings)
        self._stack.push_async_callback(bulk.stop)
        await bulk.start()
        outbox = Outbox(cloud.store, folder.events_log)
        self._stack.push_async_callback(outbox.stop)
        await outbox.start()
        upkeep = Upkeep(cloud.store, cloud.surroundings)
        self._stack.push_async_callback(upkeep.stop)
        await upkeep.start()

    async def _start_api(self, cloud: Opened, sock: socket.socket, certificate: ServerCertificate) -> None:
        around = cloud.surroundings
        access = Access(around, cloud.store)
        log = AccessLog(self._folder.access_log)
        self._stack.callback(log.close)
        api = Api(
            cloud.dispatcher,
            all_services(),
            access,
            self._metrics,
            Health(cloud.store, around.clock, lambda: listener.certificate.end, self._up),
            log,
            requests_per_s=self._settings.requests_per_s,
            requests_burst=self._settings.requests_burst,
        )
        self._api = listener = ApiListener(api, sock, certificate)
        show_store(self._metrics, cloud.store)
        show_front(self._metrics, api, listener, access, log)
        await listener.start()
        self._stack.push_async_callback(listener.stop)

    async def _start_devices(self, cloud: Opened, mqtt: socket.socket, https: socket.socket) -> None:
        counters = Counters()
        servers = DeviceServers(
            cloud.surroundings,
            cloud.store,
            cloud.dispatcher,
            mqtt=mqtt,
            https=https,
            certificate=self._certificate,
            counters=counters,
            folder=self._folder.root,
        )
        self._devices = servers
        show_devices(self._metrics, servers.mqtt.broker, counters)
        self._stack.push_async_callback(servers.stop)
        await servers.start()

    def _certificate(self) -> ServerCertificate:
        """The servers' certificate that is good now. Blocks; on any thread."""
        authority = load_authority(self._folder)
        found = server_certificate(self._folder.tls, authority, self._settings.hosts, SystemClock.wall())
        if self._api is not None and found != self._api.certificate:
            self._api.use(found)
        return found

    def _up(self) -> dict[str, bool]:
        devices = self._devices is not None and self._devices.up
        return {"api": self._api is not None and self._api.up, "devices": devices}

    def _bind(self, port: int) -> socket.socket:
        address = self._settings.listen
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        self._stack.callback(sock.close)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
        except OSError as error:
            raise OperatingError(f"{address} port {port} cannot be listened on: {error.strerror or error}.") from error
        return sock


def _lock(folder: CloudFolder) -> int:
    """Hold the folder for this process; the descriptor. Raises OperatingError if another serves it."""
    descriptor = os.open(folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise OperatingError(
            f"{folder.root} is being served by another process.", hint="Stop that one first, or serve another folder."
        ) from error
    return descriptor


def _open_many() -> None:
    """Take as many descriptors as this process may have: connections take one each, and so does the store's every file.
    Shells and units commonly begin with 1,024, which strangers' connections alone would use up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= CLOUD_OPEN_FILES:
        return
    wanted = CLOUD_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, CLOUD_OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < CLOUD_OPEN_FILES:
        logger.warning("few open files are allowed: %d, up to %d are useful (ulimit -n)", wanted, CLOUD_OPEN_FILES)


def with_options(
    settings: CloudSettings, listen: str | None, api_port: int | None, mqtt_port: int | None, https_port: int | None
) -> CloudSettings:
    """Settings with what the command line says instead."""
    return replace(
        settings,
        listen=settings.listen if listen is None else listen,
        api_port=settings.api_port if api_port is None else api_port,
        mqtt_port=settings.mqtt_port if mqtt_port is None else mqtt_port,
        https_port=settings.https_port if https_port is None else https_port,
    )
