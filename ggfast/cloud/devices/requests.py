"""What clients ask shadows and jobs for by MQTT: in order for each client, bounded, client by client in the store.

A client whose requests wait too many is not read until they are done: it slows down, nobody else does.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from ggfast.cloud.devices.names import home_of
from ggfast.cloud.jobs import topics as job_topics
from ggfast.cloud.limits import DEVICE_REQUESTS_DROPPED_AT, DEVICE_REQUESTS_MAX
from ggfast.cloud.shadows import topics as shadow_topics
from ggfast.cloud.store.interface import Store, Transaction
from ggfast.cloud.surroundings import Surroundings
from ggfast.counters import Counters
from ggfast.errors import StorageFailed
from ggfast.mqtt.broker import Broker

logger = logging.getLogger("ggfast.cloud.devices")


class Requests:
    """See the module. `take` never blocks."""

    def __init__(self, cloud: Surroundings, store: Store, broker: Broker, counters: Counters) -> None:
        self._cloud = cloud
        self._store = store
        self._broker = broker
        self._counters = counters
        self._waiting: dict[str, deque[tuple[str, bytes]]] = {}  # by source; present while a task works on it
        self._stopped: set[str] = set()  # sources that are not read
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, source: str, topic: str, payload: bytes) -> bool:
        """Queue a request; False if the client has too many, which its reading being stopped should have kept it
        from."""
        queue = self._waiting.get(source)
        if queue is None:
            queue = self._waiting[source] = deque()
            task = asyncio.get_running_loop().create_task(self._work(source, queue))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if len(queue) >= DEVICE_REQUESTS_DROPPED_AT:
            return False
        queue.append((topic, payload))
        if len(queue) >= DEVICE_REQUESTS_MAX and source not in self._stopped:
            session = self._broker.session_of(source)
            if session is not None:
                self._stopped.add(source)
                self._counters.add("cloud.devices.slowed")
                session.wait(True)
        return True

    async def close(self) -> None:
        """Do what waits."""
        await asyncio.gather(*self._tasks)

    async def _work(self, source: str, queue: deque[tuple[str, bytes]]) -> None:
        try:
            while queue:
                await self._do(source, *queue.popleft())
                if source in self._stopped and len(queue) < DEVICE_REQUESTS_MAX // 2:
                    self._let_go(source)
        finally:
            del self._waiting[source]
            if source in self._stopped:
                self._let_go(source)

    async def _do(self, source: str, topic: str, payload: bytes) -> None:
        home = home_of(source)

        def work(tx: Transaction) -> None:
            shadow_topics.handle(tx, self._cloud, home, topic, payload)
            job_topics.handle(tx, self._cloud, home, topic, payload)

        try:
            await self._store.write(work)
        except StorageFailed as error:
            self._counters.add("cloud.dropped.requests")
            logger.error("a client's request could not be stored client=%s topic=%s: %s", source, topic, error)
        except Exception:
            self._counters.add("cloud.dropped.requests")
            logger.exception("a client's request could not be handled client=%s topic=%s", source, topic)

    def _let_go(self, source: str) -> None:
        self._stopped.discard(source)
        session = self._broker.session_of(source)
        if session is not None:
            session.wait(False)
