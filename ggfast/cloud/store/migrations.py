"""The tables of the embedded store, step by step. A step that has been released never changes; new ones follow it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlite_utils.migrations import Migrations

if TYPE_CHECKING:
    from sqlite_utils import Database

steps = Migrations("ggfast-cloud")


@steps()
def documents(db: Database) -> None:
    """Documents in order of creation, and what they can be found by."""
    db.conn.execute(
        "CREATE TABLE documents (id INTEGER PRIMARY KEY AUTOINCREMENT, collection TEXT NOT NULL, parent TEXT NOT NULL,"
        " name TEXT NOT NULL, body BLOB NOT NULL)"
    )
    db.conn.execute("CREATE UNIQUE INDEX documents_names ON documents (collection, parent, name)")
    db.conn.execute("CREATE INDEX documents_order ON documents (collection, parent, id)")
    db.conn.execute(
        "CREATE TABLE labels (collection TEXT NOT NULL, label TEXT NOT NULL, value TEXT NOT NULL,"
        " document INTEGER NOT NULL REFERENCES documents (id) ON DELETE CASCADE,"
        " PRIMARY KEY (collection, label, value, document)) WITHOUT ROWID"
    )
    db.conn.execute("CREATE INDEX labels_of ON labels (document)")
