"""The local shadow service: get, update and delete of things' shadows, without any cloud (greengrass-core 9).

    table ──► offer ──► queue ──► a thread: rules, SQLite, one commit for what waits ──► answers to the table
    functions' SDK ──► ask ──┘                                                       └──► the caller

Devices' requests come through subscriptions to GGShadowService and answers go out only through subscriptions from it;
functions also ask directly and get the accepted document, while everybody else hears of it through the table. Nothing
is answered before it is on disk. Requests are served in the order of their arrival; a burst shares one commit.

A message to the service that is no request is dropped and counted; one that comes while too much waits is answered
with 429. Named shadows, which V1 did not know, work as the classic ones do.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import orjson

from ggfast import limits
from ggfast.arns import SHADOW_SERVICE
from ggfast.clock import Clock
from ggfast.counters import Counters
from ggfast.errors import StorageFailed
from ggfast.log import SystemLog
from ggfast.shadows.document import ShadowRefused
from ggfast.shadows.messages import deleted, got, missing, read_token, rejected, update
from ggfast.shadows.topics import ShadowRequest, parse_request, topic_of
from ggfast.storage.sqlite import remove_database

if TYPE_CHECKING:
    from ggfast.core.shadows.store import ShadowStore


class Table(Protocol):
    """The part of the router that answers go to."""

    def publish(self, source: str, topic: bytes, payload: bytes, qos: int = 0, retain: bool = False) -> int: ...


@dataclass(slots=True, eq=False)
class _Work:
    """One request, and what becomes of it: messages for the table, the answer for a function that waits."""

    request: ShadowRequest
    payload: bytes
    waiter: asyncio.Future[bytes] | None
    messages: list[tuple[str, bytes]] = field(default_factory=list)
    answer: bytes = b""

    def tell(self, answer: str, payload: bytes) -> None:
        request = self.request
        self.messages.append((topic_of(request.thing, request.name, request.operation, answer), payload))

    def accept(self, payload: bytes) -> None:
        self.answer = payload
        self.tell("accepted", payload)

    def refuse(self, refused: ShadowRefused, now: int) -> None:
        self.messages.clear()  # nothing of it has happened
        self.answer = rejected(refused, now)
        self.tell("rejected", self.answer)


class ShadowService:
    """See the module. `path` is the file, made at the first request. Everything runs on the loop; `stop` once."""

    def __init__(
        self, table: Table, path: Path, clock: Clock, counters: Counters, log: SystemLog, *, fsync: bool = True
    ) -> None:
        self._table = table
        self._path = path
        self._clock = clock
        self._counters = counters
        self._log = log
        self._fsync = fsync
        self._waiting: deque[_Work] = deque()
        self._waiting_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._store: ShadowStore | None = None  # of the thread
        self._complained_at = -limits.COMPLAINT_S

    # --- requests ---------------------------------------------------------------------------------------

    def offer(self, source: str, topic: bytes, payload: bytes, qos: int, retain: bool) -> bool:
        """Take a message of the table; False if it is no request. Never blocks: the router's sink."""
        request = parse_request(topic.decode("utf-8", "replace"))
        if request is None:
            self._counters.add("shadow.dropped.no_request")
            return False
        self._add(_Work(request, bytes(payload), None))
        return True

    async def ask(self, function_arn: str, context: bytes, payload: bytes) -> bytes:
        """A function's request, whose client context names the topic: the accepted document, or `code` and `message`
        (sdk-contract 2). Never raises for what the function sent."""
        request = _request_of(context)
        if request is None:
            text = 'Found another client context, expected {"custom": {"subject": "$aws/things/<thing>/shadow/..."}}'
            return rejected(ShadowRefused(400, text), int(self._clock.wall()))
        if request.operation != "update" and payload.strip() == b"{}":  # what Java sends for nothing
            payload = b""
        waiter: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._add(_Work(request, payload, waiter))
        return await waiter

    def _add(self, work: _Work) -> None:
        size = len(work.payload) + limits.SHADOW_WORK_OVERHEAD_BYTES
        if self._waiting_bytes + size > limits.SHADOW_WAITING_BYTES_MAX:
            self._counters.add("shadow.refused.busy")
            work.refuse(ShadowRefused(429, "Too many requests wait for the shadow service"), int(self._clock.wall()))
            asyncio.get_running_loop().call_soon(self._give, work)  # not inside the router's own call
            return
        self._waiting.append(work)
        self._waiting_bytes += size
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._serve())

    # --- life -------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Serve what waits, then close the file."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        await self._close()

    async def forget(self) -> None:
        """Every shadow is gone, as after a reset. Raises StorageFailed."""
        await self.stop()
        try:
            await asyncio.to_thread(remove_database, self._path)
        except OSError as error:
            raise StorageFailed(f"{self._path} cannot be removed: {error}") from error

    async def _close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, self._close_store)
            thread.shutdown(wait=False)

    def _close_store(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    # --- serving ----------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "shadows")
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), limits.SHADOW_BATCH))]
                now = int(self._clock.wall())
                await loop.run_in_executor(self._thread, self._do, batch, now)
                for work in batch:
                    self._waiting_bytes -= len(work.payload) + limits.SHADOW_WORK_OVERHEAD_BYTES
                    self._give(work)
        finally:
            self._task = None

    def _give(self, work: _Work) -> None:
        for topic, payload in work.messages:
            self._table.publish(SHADOW_SERVICE, topic.encode(), payload)
        if work.waiter is not None and not work.waiter.done():
            work.waiter.set_result(work.answer)

    # --- on the thread ----------------------------------------------------------------------------------

    def _do(self, batch: list[_Work], now: int) -> None:
        """Give every work of the batch its answer. Never raises."""
        try:
            store = self._opened()
            with store.transaction():
                for work in batch:
                    try:
                        _do_one(store, work, now)
                    except ShadowRefused as refused:
                        work.refuse(refused, now)
        except Exception as error:  # a full disk, or a defect: nothing of the batch has happened
            self._failed(batch, error, now)

    def _opened(self) -> ShadowStore:
        if self._store is None:
            from ggfast.core.shadows.store import ShadowStore

            self._store = ShadowStore(self._path, fsync=self._fsync)
        return self._store

    def _failed(self, batch: list[_Work], error: Exception, now: int) -> None:
        self._counters.add("shadow.failed", len(batch))
        moment = self._clock.monotonic()
        if moment - self._complained_at >= limits.COMPLAINT_S:
            self._complained_at = moment
            self._log.error("Shadows cannot be kept.", reason=str(error) or repr(error), requests=len(batch))
        for work in batch:
            work.refuse(ShadowRefused(500, "Internal service failure: the shadow could not be kept"), now)


def _do_one(store: ShadowStore, work: _Work, now: int) -> None:
    """One request inside a transaction. Raises ShadowRefused, and then nothing has happened."""
    thing, name = work.request.thing, work.request.name
    if work.request.operation == "update":
        made = update(store.base(thing, name, now), work.payload, now)
        store.put(thing, name, made.shadow)
        if made.delta is not None:
            work.tell("delta", made.delta)
        work.accept(made.accepted)
        work.tell("documents", made.documents)
        return
    token = read_token(work.payload)
    shadow = store.get(thing, name)
    if shadow is None:
        raise missing(thing, name, token)
    if work.request.operation == "get":
        work.accept(got(shadow, now, token))
    else:
        store.delete(thing, name, shadow, now)
        work.accept(deleted(shadow, now, token))


def _request_of(context: bytes) -> ShadowRequest | None:
    try:
        subject = orjson.loads(context)["custom"]["subject"]
        return parse_request(subject)
    except (ValueError, KeyError, TypeError):
        return None
