"""Shadows on the core's disk (greengrass-core 9.5): what is accepted is committed, and power loss takes nothing back.

    shadow(thing, name, body, version, deleted)     body: JSON of shadows.messages.to_body, NULL once deleted

A deleted shadow leaves its version behind for SHADOW_TOMBSTONE_S: one that is made again goes on from it, and clients
that remember versions keep working. Everything blocks and belongs to one thread.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import orjson

from ggfast import limits
from ggfast.errors import StorageFailed
from ggfast.shadows.document import Shadow, ShadowRefused
from ggfast.shadows.messages import emptied, from_body, to_body
from ggfast.storage.sqlite import open_database

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS shadow (
    thing TEXT NOT NULL, name TEXT NOT NULL, body BLOB, version INTEGER NOT NULL, deleted INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (thing, name)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS shadow_deleted ON shadow (deleted) WHERE deleted > 0;
"""


class ShadowStore:
    """The file in `path`, opened at once. Raises StorageFailed."""

    def __init__(self, path: Path, *, fsync: bool = True) -> None:
        self._path = path
        self._connection = open_database(path, _SCHEMA, fsync=fsync)
        self._count = int(self._connection.execute("SELECT count(*) FROM shadow").fetchone()[0])

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """What is done inside is on disk together afterwards, or nothing of it. Raises StorageFailed."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            count = self._count
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                self._count = count
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise StorageFailed(f"{self._path} cannot be written: {error}") from error

    def get(self, thing: str, name: str) -> Shadow | None:
        """The shadow, None if there is none; `name` "" is the classic one. Raises StorageFailed."""
        row = self._row(thing, name)
        return None if row is None or row[0] is None else from_body(orjson.loads(row[0]))

    def base(self, thing: str, name: str, now: int) -> Shadow:
        """What an update starts from: the shadow, or an empty one at the version that a deleted one had. Raises
        ShadowRefused when there are too many shadows for one more."""
        row = self._row(thing, name)
        if row is not None and row[0] is not None:
            return from_body(orjson.loads(row[0]))
        if row is None and self._count >= limits.SHADOWS_MAX:
            self.forget(now)
            if self._count >= limits.SHADOWS_MAX:
                raise ShadowRefused(429, f"This core keeps {limits.SHADOWS_MAX} shadows at most: delete one first")
        if row is None or now - row[2] >= limits.SHADOW_TOMBSTONE_S:
            return Shadow()
        return emptied(Shadow(version=row[1]))

    def put(self, thing: str, name: str, shadow: Shadow) -> None:
        """Keep a shadow; inside `transaction`."""
        self._write(thing, name, orjson.dumps(to_body(shadow)), shadow.version, 0)

    def delete(self, thing: str, name: str, shadow: Shadow, now: int) -> None:
        """Remove it but for its version; inside `transaction`."""
        self._write(thing, name, None, shadow.version, now)

    def forget(self, now: int) -> None:
        """Remove versions of shadows deleted so long ago that nobody relies on them."""
        done = self._connection.execute(
            "DELETE FROM shadow WHERE deleted > 0 AND deleted <= ?", (now - limits.SHADOW_TOMBSTONE_S,)
        )
        self._count -= done.rowcount

    def _row(self, thing: str, name: str) -> tuple[bytes | None, int, int] | None:
        try:
            found = self._connection.execute(
                "SELECT body, version, deleted FROM shadow WHERE thing = ? AND name = ?", (thing, name)
            ).fetchone()
        except sqlite3.Error as error:
            raise StorageFailed(f"{self._path} cannot be read: {error}") from error
        return None if found is None else (found[0], int(found[1]), int(found[2]))

    def _write(self, thing: str, name: str, body: bytes | None, version: int, deleted: int) -> None:
        known = self._row(thing, name) is not None
        self._connection.execute(
            "INSERT INTO shadow VALUES (?, ?, ?, ?, ?) ON CONFLICT (thing, name) DO UPDATE SET "
            "body = excluded.body, version = excluded.version, deleted = excluded.deleted",
            (thing, name, body, version, deleted),
        )
        self._count += not known
