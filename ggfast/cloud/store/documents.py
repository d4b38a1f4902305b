"""Documents and labels as SQL statements: `interface.Transaction` on a SQLite connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping

import orjson

from ggfast.cloud.store.interface import BadToken, Body, Document, Page


class Documents:
    """The inside of one transaction; `events` takes what it tells."""

    __slots__ = ("_connection", "_events")

    def __init__(self, connection: sqlite3.Connection, events: list[object]) -> None:
        self._connection = connection
        self._events = events

    def get(self, collection: str, parent: str, name: str) -> Body | None:
        """See `interface.Transaction`."""
        row = self._connection.execute(
            "SELECT body FROM documents WHERE collection = ? AND parent = ? AND name = ?", (collection, parent, name)
        ).fetchone()
        return None if row is None else orjson.loads(row[0])

    def put(
        self, collection: str, parent: str, name: str, body: Body, labels: Mapping[str, Iterable[str]] | None = None
    ) -> None:
        """See `interface.Transaction`."""
        row = self._connection.execute(
            "INSERT INTO documents (collection, parent, name, body) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (collection, parent, name) DO UPDATE SET body = excluded.body RETURNING id",
            (collection, parent, name, orjson.dumps(body)),
        ).fetchone()
        self._label(collection, row[0], labels)

    def create(
        self, collection: str, parent: str, name: str, body: Body, labels: Mapping[str, Iterable[str]] | None = None
    ) -> bool:
        """See `interface.Transaction`."""
        row = self._connection.execute(
            "INSERT INTO documents (collection, parent, name, body) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (collection, parent, name) DO NOTHING RETURNING id",
            (collection, parent, name, orjson.dumps(body)),
        ).fetchone()
        if row is None:
            return False
        self._label(collection, row[0], labels)
        return True

    def delete(self, collection: str, parent: str, name: str) -> bool:
        """See `interface.Transaction`."""
        return (
            self._connection.execute(
                "DELETE FROM documents WHERE collection = ? AND parent = ? AND name = ?", (collection, parent, name)
            ).rowcount
            > 0
        )

    def delete_all(self, collection: str, parent: str) -> int:
        """See `interface.Transaction`."""
        return self._connection.execute(
            "DELETE FROM documents WHERE collection = ? AND parent = ?", (collection, parent)
        ).rowcount

    def list(
        self, collection: str, parent: str, *, limit: int, token: str | None = None, newest_first: bool = False
    ) -> Page:
        """See `interface.Transaction`."""
        past, order = _past(newest_first)
        rows = self._connection.execute(
            f"SELECT id, parent, name, body FROM documents WHERE collection = ? AND parent = ? AND id {past}"
            f" ORDER BY id {order} LIMIT ?",
            (collection, parent, _position(token, newest_first), limit + 1),
        ).fetchall()
        return _page(rows, limit)

    def find(
        self,
        collection: str,
        label: str,
        value: str,
        *,
        limit: int,
        token: str | None = None,
        newest_first: bool = False,
    ) -> Page:
        """See `interface.Transaction`."""
        past, order = _past(newest_first)
        rows = self._connection.execute(
            "SELECT documents.id, parent, name, body FROM labels JOIN documents ON documents.id = document"
            f" WHERE labels.collection = ? AND label = ? AND value = ? AND document {past}"
            f" ORDER BY document {order} LIMIT ?",
            (collection, label, value, _position(token, newest_first), limit + 1),
        ).fetchall()
        return _page(rows, limit)

    def count(self, collection: str, parent: str) -> int:
        """See `interface.Transaction`."""
        return int(
            self._connection.execute(
                "SELECT count(*) FROM documents WHERE collection = ? AND parent = ?", (collection, parent)
            ).fetchone()[0]
        )

    def count_found(self, collection: str, label: str, value: str) -> int:
        """See `interface.Transaction`."""
        return int(
            self._connection.execute(
                "SELECT count(*) FROM labels WHERE collection = ? AND label = ? AND value = ?",
                (collection, label, value),
            ).fetchone()[0]
        )

    def tell(self, event: object) -> None:
        """See `interface.Transaction`."""
        self._events.append(event)

    def _label(self, collection: str, document: int, labels: Mapping[str, Iterable[str]] | None) -> None:
        if labels is None:
            return
        self._connection.execute("DELETE FROM labels WHERE document = ?", (document,))
        self._connection.executemany(
            "INSERT OR IGNORE INTO labels (collection, label, value, document) VALUES (?, ?, ?, ?)",
            [(collection, label, value, document) for label, values in labels.items() for value in values],
        )


def _past(newest_first: bool) -> tuple[str, str]:
    return ("< ?", "DESC") if newest_first else ("> ?", "ASC")


def _position(token: str | None, newest_first: bool) -> int:
    if token is None:
        return 2**63 - 1 if newest_first else 0
    if not token.isascii() or not token.isdigit() or len(token) > 18:
        raise BadToken(f"{token[:80]!r} is no token that a list has given")
    return int(token)


def _page(rows: list[tuple[int, str, str, bytes]], limit: int) -> Page:
    """`limit` documents and, if there was one more, the token that goes on behind them."""
    documents = [Document(parent, name, orjson.loads(body)) for _, parent, name, body in rows[:limit]]
    return Page(documents, str(rows[limit - 1][0]) if len(rows) > limit else None)
