"""The one way to what the cloud keeps. A second backend implements these protocols and nothing else.

A document is a JSON object that lies in a `collection` (its kind) under a `parent` (what it belongs to, often
"<account>/<region>", or an id) and has a `name` unique there. Lists come in order of creation, or newest first, in
pages. `labels` are what else it can be found by within its collection: label -> values.

`Store.write` runs a function in a transaction of its own, one after the other, on another thread: when it returns,
everything is on disk; when it raises, nothing has happened. `Store.read` shows one unchanging state. What a function
`tell`s is given to the store's listeners, on the loop, after its transaction is on disk, in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ggfast.errors import PeerError

T = TypeVar("T")
Body = dict[str, Any]


class BadToken(PeerError):
    """A page's token is not one we gave."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document as it lies there; `body` belongs to the receiver."""

    parent: str
    name: str
    body: Body


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list; `token` leads to the next part, None: this was the last."""

    documents: Sequence[Document]
    token: str | None


class Transaction(Protocol):
    """What may be done to documents. Valid only inside the function it was given to, on its thread."""

    def get(self, collection: str, parent: str, name: str) -> Body | None:
        """The document, or None."""

    def put(
        self, collection: str, parent: str, name: str, body: Body, labels: Mapping[str, Iterable[str]] | None = None
    ) -> None:
        """Make or replace a document, which keeps its place in lists. `labels` None: as they are."""

    def create(
        self, collection: str, parent: str, name: str, body: Body, labels: Mapping[str, Iterable[str]] | None = None
    ) -> bool:
        """Make a document; False, and nothing changed, if the name is taken."""

    def delete(self, collection: str, parent: str, name: str) -> bool:
        """Remove a document and its labels; False if there was none."""

    def delete_all(self, collection: str, parent: str) -> int:
        """Remove every document of a parent; how many."""

    def list(
        self, collection: str, parent: str, *, limit: int, token: str | None = None, newest_first: bool = False
    ) -> Page:
        """A page of a parent's documents. Raises BadToken."""

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
        """A page of the documents with that value of that label, under whatever parent. Raises BadToken."""

    def count(self, collection: str, parent: str) -> int:
        """How many documents a parent has."""

    def count_found(self, collection: str, label: str, value: str) -> int:
        """How many documents `find` would give."""

    def tell(self, event: object) -> None:
        """Give `event` to the listeners once this transaction is on disk."""


class Store(Protocol):
    """Where the cloud's state lies."""

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` on one unchanging state; its writes raise. Raises StorageFailed."""

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in a transaction; on disk when this returns. Raises what `work` raises, or StorageFailed."""

    def listen(self, listener: Callable[[object], None]) -> None:
        """Call `listener` on the loop with every event told by a transaction that is on disk."""

    async def close(self) -> None:
        """Finish what was begun and let go of everything."""
