"""Retained messages of devices in the store: written as they are published, read when a region's first client comes.

Writes wait in order of arrival, the last of each topic alone, so their number is bounded by what the broker keeps. A
message is acknowledged when it, or the one that took its place, is on disk. What expires leaves the store too.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ggfast._ext.pledges import Pledge
from ggfast.cloud.devices.identity import Identities, certificate_id_of
from ggfast.cloud.limits import PAGE_MAX
from ggfast.cloud.shadows import retained
from ggfast.cloud.store.interface import Store, Transaction
from ggfast.cloud.surroundings import Surroundings
from ggfast.counters import Counters
from ggfast.errors import OperatingError, StorageFailed
from ggfast.mqtt.broker import Broker
from ggfast.mqtt.reasons import Reason

logger = logging.getLogger("ggfast.cloud.devices")


@dataclass(slots=True)
class _Write:
    """One message on its way to the store; `pledges` of all that it has taken the place of, too."""

    payload: bytes
    qos: int
    at: float
    properties: bytes = b""
    until: float = 0.0
    pledges: list[Pledge] = field(default_factory=list)


class RetainedStore:
    """See the module. Takes the place of the broker's own handling of retained messages."""

    def __init__(self, cloud: Surroundings, store: Store, broker: Broker, counters: Counters) -> None:
        self._cloud = cloud
        self._store = store
        self._broker = broker
        self._counters = counters
        self._loaded: dict[str, asyncio.Task[None]] = {}  # by home
        self._waiting: dict[tuple[str, str], _Write] = {}  # by home and topic
        self._writer: asyncio.Task[None] | None = None
        self._is_written = True
        self._closed = False
        self._tasks: set[asyncio.Task[None]] = set()
        broker.router.retain = self._retain
        broker.retained.expired = self._expired

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
        self._closed = True

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
                        self._put(home, topic, message)
                token = page.token
                if token is None:
                    return
        except StorageFailed as error:
            del self._loaded[home]  # the next client tries again
            logger.error("retained messages could not be read home=%s: %s", home, error)

    def _put(self, home: str, topic: bytes, message: retained.RetainedMessage) -> None:
        """Give the broker one from the store; or take it out of the store if it has expired meanwhile."""
        router, left_s = self._broker.router, message.until - self._cloud.clock.wall()
        if message.until and left_s <= 0:
            self._expired(home, topic)
            return
        expires = router.now + math.ceil(left_s) if message.until else 0
        self._broker.retained.put(home, topic, message.payload, message.qos, message.properties, expires)

    def _retain(self, home: str, topic: bytes, payload: bytes, qos: int, properties: bytes, expires: int) -> None:
        router, now, key = self._broker.router, self._cloud.clock.wall(), (home, topic.decode())
        if not self._broker.retained.put(home, topic, payload, qos, properties, expires):
            return
        if not self._is_written and key not in self._waiting:  # else an older one would follow it into the store
            return
        if 0 < expires <= router.now:
            payload = b""
        write = _Write(payload, qos, now, properties, now + expires - router.now if expires else 0.0)
        if self._is_written:
            write.pledges.append(router.pledge())
        self._keep(key, write)

    def _expired(self, home: str, topic: bytes) -> None:
        self._keep((home, topic.decode()), _Write(b"", 0, 0.0))

    def _keep(self, key: tuple[str, str], write: _Write) -> None:
        before = self._waiting.pop(key, None)
        if before is not None:
            write.pledges += before.pledges
            before.pledges = []
        self._waiting[key] = write
        if self._writer is None and not self._closed:
            self._writer = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._waiting:
                await self._write_some(list(self._waiting.items())[:PAGE_MAX])
        except StorageFailed as error:
            failed, self._waiting = self._waiting, {}
            self._counters.add("cloud.dropped.retained", len(failed))
            logger.error("retained messages could not be stored: %s", error)
            for write in failed.values():
                _settle(write, Reason.UNSPECIFIED_ERROR)
        finally:
            self._writer = None
            if self._waiting:  # come while the others were told
                self._writer = asyncio.get_running_loop().create_task(self._write())

    async def _write_some(self, batch: list[tuple[tuple[str, str], _Write]]) -> None:
        def work(tx: Transaction) -> None:
            for (home, topic), write in batch:
                retained.put(
                    tx,
                    home,
                    topic,
                    write.payload,
                    write.qos,
                    write.at,
                    properties=write.properties,
                    until=write.until,
                )

        await self._store.write(work)
        for key, write in batch:
            if self._waiting.get(key) is write:
                del self._waiting[key]
            _settle(write)


def _settle(write: _Write, code: int = Reason.SUCCESS) -> None:
    pledges, write.pledges = write.pledges, []
    for pledge in pledges:
        pledge.settle(code)
