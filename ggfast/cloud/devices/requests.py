"""What clients ask shadows and jobs for by MQTT: in order for each client, bounded, client by client in the store.

A client whose requests wait too many is not read until they are done: it slows down, nobody else does. A request is
acknowledged when what it did is on disk; one that could not be stored is not, and its client sends it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from ggfast._ext.pledges import Pledge
from ggfast._ext.session import Session
from ggfast.cloud.devices.names import home_of
from ggfast.cloud.jobs import topics as job_topics
from ggfast.cloud.limits import (
    DEVICE_REQUESTS_ALL_BYTES_MAX,
    DEVICE_REQUESTS_AT_ONCE,
    DEVICE_REQUESTS_BYTES_MAX,
    DEVICE_REQUESTS_DROPPED_AT,
    DEVICE_REQUESTS_MAX,
)
from ggfast.cloud.shadows import topics as shadow_topics
from ggfast.cloud.store.interface import Store, Transaction
from ggfast.cloud.surroundings import Surroundings
from ggfast.counters import Counters
from ggfast.errors import StorageFailed
from ggfast.mqtt.broker import Broker
from ggfast.mqtt.reasons import Reason

logger = logging.getLogger("ggfast.cloud.devices")


class _Queue:
    """The requests of one client that wait."""

    __slots__ = ("bytes", "entries")

    def __init__(self) -> None:
        self.entries: deque[tuple[str, bytes, Pledge]] = deque()
        self.bytes = 0


class Requests:
    """See the module. `take` never blocks."""

    def __init__(self, cloud: Surroundings, store: Store, broker: Broker, counters: Counters) -> None:
        self._cloud = cloud
        self._store = store
        self._broker = broker
        self._counters = counters
        self._waiting: dict[str, _Queue] = {}  # by source; present while a task works on it
        self._stopped: dict[str, Session] = {}  # clients that are not read, by source
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(DEVICE_REQUESTS_AT_ONCE)
        self.bytes = 0  # of all that wait

    def take(self, source: str, topic: str, payload: bytes) -> bool:
        """Queue a request; False if the client has too many, which its reading being stopped should have kept it
        from."""
        pledge = self._broker.router.pledge()
        queue = self._waiting.get(source)
        if queue is None:
            queue = self._waiting[source] = _Queue()
            task = asyncio.get_running_loop().create_task(self._work(source, queue))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if len(queue.entries) >= DEVICE_REQUESTS_DROPPED_AT:
            asyncio.get_running_loop().call_soon(pledge.settle, Reason.QUOTA_EXCEEDED)
            return False
        queue.entries.append((topic, payload, pledge))
        queue.bytes += len(payload)
        self.bytes += len(payload)
        if self._is_much(queue):
            session = self._broker.session_of(source)
            if session is not None and self._stopped.get(source) is not session:  # it may have come back meanwhile
                self._stopped[source] = session
                self._counters.add("cloud.devices.slowed")
                session.wait(True)
        return True

    async def close(self) -> None:
        """Do what waits."""
        await asyncio.gather(*self._tasks)

    def _is_much(self, queue: _Queue) -> bool:
        return (
            len(queue.entries) >= DEVICE_REQUESTS_MAX
            or queue.bytes >= DEVICE_REQUESTS_BYTES_MAX
            or self.bytes >= DEVICE_REQUESTS_ALL_BYTES_MAX
        )

    async def _work(self, source: str, queue: _Queue) -> None:
        try:
            while queue.entries:
                topic, payload, pledge = queue.entries.popleft()
                try:
                    async with self._turns:
                        code = await self._do(source, topic, payload)
                finally:
                    queue.bytes -= len(payload)
                    self.bytes -= len(payload)
                pledge.settle(code)
                few = len(queue.entries) < DEVICE_REQUESTS_MAX // 2 and queue.bytes < DEVICE_REQUESTS_BYTES_MAX // 2
                if source in self._stopped and few:
                    self._let_go(source)
        finally:
            del self._waiting[source]
            if source in self._stopped:
                self._let_go(source)

    async def _do(self, source: str, topic: str, payload: bytes) -> int:
        """The reason code of its acknowledgement."""
        home = home_of(source)

        def work(tx: Transaction) -> None:
            shadow_topics.handle(tx, self._cloud, home, topic, payload)
            job_topics.handle(tx, self._cloud, home, topic, payload)

        try:
            await self._store.write(work)
        except StorageFailed as error:
            self._counters.add("cloud.dropped.requests")
            logger.error("a client's request could not be stored client=%s topic=%s: %s", source, topic, error)
            return Reason.UNSPECIFIED_ERROR
        except Exception:  # it would fail again
            self._counters.add("cloud.dropped.requests")
            logger.exception("a client's request could not be handled client=%s topic=%s", source, topic)
        return Reason.SUCCESS

    def _let_go(self, source: str) -> None:
        session = self._stopped.pop(source)
        if self._broker.session_of(source) is session:
            session.wait(False)
