"""The embedded store: transactions, order, pages, labels, events, what a failure leaves."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ggfast.cloud.store.interface import BadToken, Transaction
from ggfast.cloud.store.sqlite import SqliteStore
from ggfast.errors import StorageFailed


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteStore]:
    """A store on `path`, closed at the end."""
    store = SqliteStore(path / "store.db", durable=False)
    try:
        yield store
    finally:
        await store.close()


def on_store(path: Path, work: Callable[[SqliteStore], Awaitable[None]]) -> None:
    """Run `work` with a store."""

    async def run() -> None:
        async with opened(path) as store:
            await work(store)

    asyncio.run(run())


def put(name: str, **labels: list[str]) -> Callable[[Transaction], None]:
    """A work that makes one document."""
    return lambda tx: tx.put("c", "p", name, {"name": name}, labels)


def names(tx: Transaction, **how: object) -> list[str]:
    """All names of the parent, page after page of two."""
    found: list[str] = []
    token = None
    for _ in range(100):
        page = tx.list("c", "p", limit=2, token=token, **how)  # type: ignore[arg-type]
        found += [document.name for document in page.documents]
        if page.token is None:
            return found
        token = page.token
    raise AssertionError("no end")


def test_lists_are_in_order_of_creation_whatever_is_replaced(tmp_path: Path) -> None:
    async def work(store: SqliteStore) -> None:
        for name in "caebd":
            await store.write(put(name))
        await store.write(put("a"))
        assert await store.read(names) == list("caebd")
        assert await store.read(lambda tx: names(tx, newest_first=True)) == list("dbeac")

    on_store(tmp_path, work)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_a_full_last_page_has_no_token(tmp_path: Path, count: int) -> None:
    async def work(store: SqliteStore) -> None:
        for number in range(count):
            await store.write(put(str(number)))
        page = await store.read(lambda tx: tx.list("c", "p", limit=2))
        assert (len(page.documents), page.token is not None) == (min(count, 2), count > 2)

    on_store(tmp_path, work)


def test_pages_go_on_while_documents_come_and_go(tmp_path: Path) -> None:
    async def work(store: SqliteStore) -> None:
        for name in "abcd":
            await store.write(put(name))
        first = await store.read(lambda tx: tx.list("c", "p", limit=2))
        await store.write(lambda tx: tx.delete("c", "p", "b"))  # the one the token stands at
        await store.write(put("e"))
        rest = await store.read(lambda tx: tx.list("c", "p", limit=9, token=first.token))
        assert [document.name for document in rest.documents] == list("cde")

    on_store(tmp_path, work)


@pytest.mark.parametrize("token", ["", "x", "-1", "1.0", "1" * 30, "٣", "1; DROP TABLE documents"])
def test_a_token_we_did_not_give_is_refused(tmp_path: Path, token: str) -> None:
    async def work(store: SqliteStore) -> None:
        with pytest.raises(BadToken):
            await store.read(lambda tx: tx.list("c", "p", limit=2, token=token))

    on_store(tmp_path, work)


def test_labels_follow_their_document(tmp_path: Path) -> None:
    def by(tx: Transaction, value: str) -> list[str]:
        return [document.name for document in tx.find("c", "colour", value, limit=9).documents]

    async def work(store: SqliteStore) -> None:
        await store.write(put("a", colour=["red", "green", "red"]))
        await store.write(put("b", colour=["red"]))
        assert await store.read(lambda tx: by(tx, "red")) == ["a", "b"]
        await store.write(lambda tx: tx.put("c", "p", "a", {"new": True}))  # labels stay
        assert await store.read(lambda tx: by(tx, "green")) == ["a"]
        await store.write(put("a", colour=["blue"]))
        assert await store.read(lambda tx: (by(tx, "green"), by(tx, "red"), by(tx, "blue"))) == ([], ["b"], ["a"])
        assert await store.read(lambda tx: tx.count_found("c", "colour", "red")) == 1
        await store.write(lambda tx: tx.delete_all("c", "p"))
        assert await store.read(lambda tx: (by(tx, "red"), tx.count("c", "p"))) == ([], 0)
        assert await store.read(lambda tx: tx.find("other", "colour", "blue", limit=9).documents) == []

    on_store(tmp_path, work)


def test_names_may_be_anything(tmp_path: Path) -> None:
    odd = ["'; DROP TABLE documents; --", "../../etc", "a\nb", "ü€𝄞", "%", "_", "", "\x1f"]

    async def work(store: SqliteStore) -> None:
        for name in odd:
            await store.write(put(name))
        for name in odd:
            assert await store.read(lambda tx, name=name: tx.get("c", "p", name)) == {"name": name}  # type: ignore[misc]
        assert await store.read(names) == odd

    on_store(tmp_path, work)


def test_create_never_replaces(tmp_path: Path) -> None:
    async def work(store: SqliteStore) -> None:
        assert await store.write(lambda tx: tx.create("c", "p", "a", {"first": 1}, {"x": ["1"]}))
        assert not await store.write(lambda tx: tx.create("c", "p", "a", {"second": 2}, {"x": ["2"]}))
        assert await store.read(lambda tx: (tx.get("c", "p", "a"), tx.count_found("c", "x", "2"))) == ({"first": 1}, 0)

    on_store(tmp_path, work)


def test_p7_a_work_that_raises_is_taken_back_alone(tmp_path: Path) -> None:
    def half(tx: Transaction) -> None:
        put("half", x=["1"])(tx)
        tx.tell("half")
        raise KeyError("here")

    async def work(store: SqliteStore) -> None:
        told: list[object] = []
        store.listen(told.append)
        results = await asyncio.gather(
            *(store.write(put(str(number))) for number in range(9)),
            store.write(half),
            store.write(lambda tx: tx.tell("whole")),
            return_exceptions=True,
        )
        assert [type(result) for result in results if result is not None] == [KeyError]
        assert await store.read(names) == [str(number) for number in range(9)]
        assert told == ["whole"]

    on_store(tmp_path, work)


def test_events_come_before_the_answer_and_in_order(tmp_path: Path) -> None:
    async def work(store: SqliteStore) -> None:
        told: list[object] = []
        store.listen(told.append)
        store.listen(lambda _event: 1 / 0)  # a broken listener is its own problem
        for number in range(20):
            await store.write(lambda tx, number=number: tx.tell(number))  # type: ignore[misc]
            assert told == list(range(number + 1))

    on_store(tmp_path, work)


def test_reading_cannot_write(tmp_path: Path) -> None:
    async def work(store: SqliteStore) -> None:
        with pytest.raises(StorageFailed, match="readonly"):
            await store.read(put("a"))
        await store.write(put("b"))
        assert await store.read(names) == ["b"]

    on_store(tmp_path, work)


def test_a_reader_sees_one_state(tmp_path: Path) -> None:
    """A transaction that is committed meanwhile does not show in the middle of a read."""
    import threading

    go, seen = threading.Event(), threading.Event()

    def twice(tx: Transaction) -> tuple[int, int]:
        before = tx.count("c", "p")
        seen.set()
        assert go.wait(10)
        return before, tx.count("c", "p")

    async def work(store: SqliteStore) -> None:
        reading = asyncio.ensure_future(store.read(twice))
        await asyncio.to_thread(seen.wait, 10)
        await store.write(put("a"))
        go.set()
        assert await reading == (0, 0)
        assert await store.read(lambda tx: tx.count("c", "p")) == 1

    on_store(tmp_path, work)


def test_a_caller_that_leaves_does_not_take_back_what_was_handed_in(tmp_path: Path) -> None:
    async def work(store: SqliteStore) -> None:
        leaving = asyncio.ensure_future(store.write(put("a")))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await store.write(put("b"))
        assert await store.read(names) == ["a", "b"]

    on_store(tmp_path, work)


def test_p2_a_full_disk_refuses_what_it_has_not_and_the_store_goes_on(tmp_path: Path) -> None:
    """SQLite's own page limit stands for the disk: the same error by the same way."""

    async def work(store: SqliteStore) -> None:
        await store.write(put("before"))
        await store.write(lambda tx: _connection(tx).execute("PRAGMA max_page_count = 1") and None)
        results = await asyncio.gather(
            *(store.write(lambda tx, n=n: tx.put("c", "p", f"big{n}", {"x": "x" * 100_000})) for n in range(3)),  # type: ignore[misc]
            return_exceptions=True,
        )
        assert all(isinstance(result, StorageFailed) for result in results), results
        await store.write(put("after"))  # on a new connection, which knows no limit
        assert await store.read(names) == ["before", "after"]

    on_store(tmp_path, work)


def test_a_file_that_is_no_store_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"something else entirely, and long enough" * 100)

    async def work() -> None:
        with pytest.raises(StorageFailed, match=r"store\.db"):
            SqliteStore(tmp_path / "store.db")

    asyncio.run(work())


def test_what_was_written_is_there_for_the_next(tmp_path: Path) -> None:
    on_store(tmp_path, lambda store: store.write(put("a", x=["1"])))

    async def look(store: SqliteStore) -> None:
        assert await store.read(names) == ["a"]
        assert await store.read(lambda tx: tx.count_found("c", "x", "1")) == 1

    on_store(tmp_path, look)
    with sqlite3.connect(tmp_path / "store.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_after_closing_nothing_is_taken(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(tmp_path) as store:
            writing = asyncio.ensure_future(store.write(put("last")))
            await asyncio.sleep(0)
            await store.close()
            await writing  # handed in before
            with pytest.raises(StorageFailed):
                await store.write(put("a"))
            with pytest.raises(StorageFailed):
                await store.read(names)
        async with opened(tmp_path) as store:
            assert await store.read(names) == ["last"]

    asyncio.run(run())


def _connection(tx: Transaction) -> sqlite3.Connection:
    return tx._connection  # type: ignore[attr-defined,no-any-return]
