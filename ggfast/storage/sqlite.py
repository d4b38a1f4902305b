"""An SQLite file of a resident process: one connection on one thread, write-ahead log, damage put aside.

Only the standard library's sqlite3, and that only when a file is opened: a core without shadows does not load it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ggfast.errors import StorageFailed

if TYPE_CHECKING:
    import sqlite3

SUFFIXES: Final = ("", "-wal", "-shm")  # the files of one database
_CACHE_KIB: Final = 512  # of pages in memory; SQLite's default is 2,000
_BUSY_MS: Final = 2_000  # for an operator's sqlite3 shell that holds the file


def open_database(path: Path, schema: str, *, fsync: bool = True) -> sqlite3.Connection:
    """The database in `path`, made by `schema` (statements that may be repeated) if need be. To be used on this thread.

    A file that is damaged is renamed to `<name>.damaged` (one before it is replaced) and a new one made. Transactions
    are the caller's to begin. `fsync` False gives up safety against power loss. Raises StorageFailed. Blocks.
    """
    import sqlite3

    for attempt in range(2):
        connection = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # The daemon's own; whoever may read the group's messages is root.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_MS / 1_000)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {'FULL' if fsync else 'NORMAL'}")
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            connection.execute("PRAGMA journal_size_limit = 1048576")  # the log shrinks again after a burst
            damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if damage == "ok":
                connection.executescript(schema)
                return connection
        except (sqlite3.DatabaseError, OSError) as error:
            damage = str(error)
            if isinstance(error, OSError | sqlite3.OperationalError) or attempt:
                if connection is not None:
                    connection.close()
                raise StorageFailed(f"{path} cannot be opened: {error}") from error
        if connection is not None:
            connection.close()
        _put_aside(path, damage)
    raise StorageFailed(f"{path} is damaged, and so is a new one in its place: {damage}")


def remove_database(path: Path) -> None:
    """Delete a database that nobody has open. Nothing there is no error. Raises OSError."""
    for suffix in SUFFIXES:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}{suffix}")


def _put_aside(path: Path, damage: str) -> None:
    """Keep what may still be read out of a damaged file; its log belongs to it."""
    try:
        for suffix in SUFFIXES:
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{path}{suffix}", f"{path}.damaged{suffix}")
    except OSError as error:
        raise StorageFailed(f"{path} is damaged ({damage}) and cannot be put aside: {error}") from error
