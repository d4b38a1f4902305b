"""The embedded store: SQLite, one writer thread, a few readers.

Works that wait for the writer are run one after the other, each in a savepoint of its own, and committed together: one
wait for the disk serves them all, and none is answered before it. A work that raises is taken back alone.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlite_utils import Database

from ggfast.cloud.limits import STORE_BATCH_MAX, STORE_BUSY_S, STORE_CACHE_KIB, STORE_READERS
from ggfast.cloud.store.documents import Documents
from ggfast.cloud.store.interface import Transaction
from ggfast.cloud.store.migrations import steps
from ggfast.errors import StorageFailed

logger = logging.getLogger("ggfast.cloud.store")

T = TypeVar("T")


@dataclass(slots=True)
class _Work:
    run: Callable[[Transaction], Any]
    answer: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None
    events: list[object] = field(default_factory=list)


class SqliteStore:
    """See the module and `interface.Store`. `durable=False` does not wait for the disk: for tests alone."""

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self._path = path
        self._durable = durable
        self._loop = asyncio.get_running_loop()
        self._listeners: list[Callable[[object], None]] = []
        self._works: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._closed = False
        connection = self._open()
        try:
            steps.apply(Database(connection))
            connection.commit()
        except sqlite3.Error as error:
            raise _failed(path, error) from error
        finally:
            connection.close()
        self._local = threading.local()
        self._reader_connections: list[sqlite3.Connection] = []
        self._readers = ThreadPoolExecutor(STORE_READERS, "store-reader")
        self._writer = threading.Thread(target=self._write_all, name="store-writer", daemon=True)
        self._writer.start()

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """See `interface.Store`."""
        if self._closed:
            raise StorageFailed("the store is closed")
        return await self._loop.run_in_executor(self._readers, self._read, work)

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """See `interface.Store`."""
        if self._closed:
            raise StorageFailed("the store is closed")
        answer: asyncio.Future[T] = self._loop.create_future()
        self._works.put(_Work(work, answer))
        # A caller that goes away does not take back what has been handed in.
        return await asyncio.shield(answer)

    @property
    def waiting(self) -> int:
        """How many works wait for the writer, about."""
        return self._works.qsize()

    def listen(self, listener: Callable[[object], None]) -> None:
        """See `interface.Store`."""
        self._listeners.append(listener)

    async def close(self) -> None:
        """See `interface.Store`. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._works.put(None)
        await self._loop.run_in_executor(None, self._writer.join)
        await self._loop.run_in_executor(None, self._readers.shutdown)
        for connection in self._reader_connections:
            connection.close()

    # --- connections -----------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                self._path, timeout=STORE_BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=256
            )
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'OFF'}")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(f"PRAGMA cache_size = -{STORE_CACHE_KIB}")
        except sqlite3.Error as error:
            raise _failed(self._path, error) from error
        return connection

    # --- reading ---------------------------------------------------------------------------------------

    def _read(self, work: Callable[[Transaction], T]) -> T:
        connection = cast("sqlite3.Connection | None", getattr(self._local, "connection", None))
        try:
            if connection is None:
                connection = self._local.connection = self._open()
                self._reader_connections.append(connection)
                connection.execute("PRAGMA query_only = ON")
            connection.execute("BEGIN")
            try:
                return work(Documents(connection, []))
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise _failed(self._path, error) from error

    # --- writing ---------------------------------------------------------------------------------------

    def _write_all(self) -> None:
        """The writer's thread."""
        connection: sqlite3.Connection | None = None
        more = True
        while more:
            batch, more = self._next_batch()
            if not batch:
                continue
            try:
                connection = connection or self._open()
                self._run_batch(connection, batch)
            except Exception as error:  # nothing of this batch is on disk
                logger.error("the store could not write: %s", error)
                for work in batch:
                    work.error = error if isinstance(error, StorageFailed) else _failed(self._path, error)
                if connection is not None:
                    connection.close()
                connection = None
            try:
                self._loop.call_soon_threadsafe(self._answer, batch)
            except RuntimeError:  # the loop has ended: nobody waits any more
                break
        if connection is not None:
            connection.close()

    def _next_batch(self) -> tuple[list[_Work], bool]:
        """What waits, at least one work; False: the store is being closed."""
        batch: list[_Work] = []
        work = self._works.get()
        while work is not None:
            batch.append(work)
            if len(batch) >= STORE_BATCH_MAX:
                return batch, True
            try:
                work = self._works.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _run_batch(self, connection: sqlite3.Connection, batch: list[_Work]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        for work in batch:
            work.events = []
            connection.execute("SAVEPOINT work")
            try:
                work.result = work.run(Documents(connection, work.events))
                connection.execute("RELEASE work")
            except sqlite3.Error:
                raise  # the disk or the file: SQLite may have taken back more than this work
            except BaseException as error:
                connection.execute("ROLLBACK TO work")
                connection.execute("RELEASE work")
                work.error = error
                work.events = []
        connection.execute("COMMIT")

    def _answer(self, batch: list[_Work]) -> None:
        """Back on the loop: events first, so that whoever was answered finds them delivered."""
        for work in batch:
            for event in work.events if work.error is None else ():
                for listener in self._listeners:
                    try:
                        listener(event)
                    except Exception:
                        logger.exception("a listener failed event=%s", type(event).__name__)
            if work.answer.cancelled():
                continue
            if work.error is not None:
                work.answer.set_exception(work.error)
            else:
                work.answer.set_result(work.result)


def _failed(path: Path, error: Exception) -> StorageFailed:
    return StorageFailed(
        f"the store {path} cannot be used: {error}.",
        hint="Check free space and permissions of its directory; nothing of this request was kept.",
    )
