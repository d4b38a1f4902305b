"""Retained messages of devices in the store: written as they are published, read when a region's first client comes.

Writes wait in order of arrival, the last of each topic alone, so their number is bounded by what the broker keeps.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ggfast.cloud.devices.identity import Identities, certificate_id_of
from ggfast.cloud.limits import PAGE_MAX
from ggfast.cloud.shadows import retained
from ggfast.cloud.store.interface import Store, Transaction
from ggfast.cloud.surroundings import Surroundings
from ggfast.counters import Counters
from ggfast.errors import OperatingError, StorageFailed
from ggfast.mqtt.broker import Broker

logger = logging.getLogger("ggfast.cloud.devices")


class RetainedStore:
    """See the module. Takes the place of the broker's own handling of retained messages."""

    def __init__(self, cloud: Surroundings, store: Store, broker: Broker, counters: Counters) -> None:
        self._cloud = cloud
        self._store = store
        self._broker = broker
        self._counters = counters
        self._loaded: dict[str, asyncio.Task[None]] = {}  # by home
        self._waiting: dict[tuple[str, str], tuple[bytes, int, float]] = {}
        self._writer: asyncio.Task[None] | None = None
        self._is_written = True
        self._tasks: set[asyncio.Task[None]] = set()
        broker.router.retain = self._retain

    @contextmanager
    def not_written(self) -> Iterator[None]:
        """For messages that are in the store already."""
        self._is_written = False
        try:
            yield
        finally:
            self._is_written = True

    def prepare(self, identities: Identities, der: bytes | None, ready: Callable[[], None]) -> bool:
        """As `Broker.prepare`: who the client is, and what its region has retained."""
        identity = None if der is None else identities.get(certificate_id_of(der))
        if der is None or (identity is not None and self._is_loaded(identity.home)):
            return True
        task = asyncio.get_running_loop().create_task(self._prepare(identities, certificate_id_of(der), ready))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return False

    async def close(self) -> None:
        """Write what waits."""
        for task in [*self._tasks, *self._loaded.values()]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._loaded.values(), return_exceptions=True)
        while self._writer is not None:
            await asyncio.gather(self._writer, return_exceptions=True)

    def _is_loaded(self, home: str) -> bool:
        return home in self._loaded and self._loaded[home].done()

    async def _prepare(self, identities: Identities, certificate_id: str, ready: Callable[[], None]) -> None:
        try:
            identity = await identities.find(certificate_id)
            if identity is not None:
                if identity.home not in self._loaded:
                    load = self._load(identity.home)
                    self._loaded[identity.home] = asyncio.get_running_loop().create_task(load)
                await asyncio.shield(self._loaded[identity.home])
        except OperatingError as error:
            logger.error("a client's certificate could not be looked up certificate=%s: %s", certificate_id, error)
        finally:
            ready()

    async def _load(self, home: str) -> None:
        token: str | None = None
        try:
            while True:
                page = await self._store.read(
                    lambda tx, token=token: retained.list_page(tx, home, limit=PAGE_MAX, token=token)  # type: ignore[misc]
                )
                for document in page.documents:
                    message = retained.from_body(document.name, document.body)
                    topic = message.topic.encode()
                    if self._broker.retained.get(home, topic) is None and (home, message.topic) not in self._waiting:
                        self._broker.retained.put(home, topic, message.payload, message.qos)
                token = page.token
                if token is None:
                    return
        except StorageFailed as error:
            del self._loaded[home]  # the next client tries again
            logger.error("retained messages could not be read home=%s: %s", home, error)

    def _retain(self, home: str, topic: bytes, payload: bytes, qos: int, properties: bytes, expires: int) -> None:
        if not self._broker.retained.put(home, topic, payload, qos, properties, expires) or not self._is_written:
            return
        self._waiting[home, topic.decode()] = (payload, qos, self._cloud.clock.wall())
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch = list(self._waiting.items())[:PAGE_MAX]

                def work(
                    tx: Transaction, batch: list[tuple[tuple[str, str], tuple[bytes, int, float]]] = batch
                ) -> None:
                    for (home, topic), (payload, qos, at) in batch:
                        retained.put(tx, home, topic, payload, qos, at)

                await self._store.write(work)
                for key, value in batch:
                    if self._waiting.get(key) is value:
                        del self._waiting[key]
        except StorageFailed as error:
            self._counters.add("cloud.dropped.retained", len(self._waiting))
            self._waiting.clear()
            logger.error("retained messages could not be stored: %s", error)
        finally:
            self._writer = None
