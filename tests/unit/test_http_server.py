"""The HTTP server: every answer whole and in order, every limit kept, no client in another's way."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggfast import limits
from tests.unit.http_support import BODY_MAX, Client, connected, request, run, served, until


def test_requests_of_one_connection_are_answered_in_order() -> None:
    async def body() -> None:
        async with served() as world, connected(world.port) as client:
            for number in range(3):
                answer = await client.ask(request("POST", f"/a{number}", b"xyz"))
                assert (answer.status, answer.body) == (200, f"POST /a{number} xyz".encode())
                assert answer.headers["connection"] == "keep-alive"
                assert answer.headers["x-empty"] == ""
            client.send(request("GET", "/wait") + request("GET", "/b") + request("POST", "/c", b"1"))
            exchange = (await until(lambda: world.handler.waiting, "the waiting request"))[0]
            assert exchange.answer(204)
            assert not exchange.answer(200), "a second answer"
            assert [(await client.answer()).status for _ in range(3)] == [204, 200, 200]

    run(body())


@pytest.mark.parametrize(
    ("version", "header", "keeps"),
    [
        ("1.1", {}, True),
        ("1.1", {"Connection": "close"}, False),
        ("1.1", {"Connection": "keep-alive"}, True),
        ("1.0", {}, False),
        ("1.0", {"Connection": "keep-alive"}, True),
    ],
)
def test_the_connection_ends_as_the_client_asked(version: str, header: dict[str, str], keeps: bool) -> None:
    async def body() -> None:
        async with served() as world, connected(world.port) as client:
            answer = await client.ask(request("GET", "/a", version=version, **header))
            assert answer.headers["connection"] == ("keep-alive" if keeps else "close")
            if keeps:
                assert (await client.ask(request("GET", "/b"))).status == 200
            else:
                assert await client.ended() == b""

    run(body())


def test_chunks_make_the_same_body() -> None:
    async def body() -> None:
        async with served() as world, connected(world.port) as client:
            head = b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
            answer = await client.ask(head + b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: z\r\n\r\n")
            assert answer.body == b"POST /a abcde"
            assert (await client.ask(request("GET", "/b"))).status == 200
            answer = await client.ask(head + b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n")
            assert (answer.status, answer.headers["connection"]) == (413, "close")

    run(body())


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -3\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 30\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 9223372036854775807\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n", 413),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET /\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"CONNECT a:80 HTTP/1.1\r\n\r\n", 405),
        (b"POST / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 65 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * limits.HTTP_HEAD_BYTES_MAX + b"\r\n\r\n", 431),
        (b"GET /" + b"b" * limits.HTTP_HEAD_BYTES_MAX + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 3 * limits.HTTP_HEAD_BYTES_MAX, 431),
    ],
)
def test_p7_what_is_no_request_gets_an_error_and_an_end(data: bytes, status: int) -> None:
    async def body() -> None:
        async with served() as world, connected(world.port) as client, connected(world.port) as other:
            answer = await client.ask(data)
            assert answer.status == status
            assert answer.headers["connection"] == "close"
            assert json.loads(answer.body)["message"]
            client.send(request("GET", "/smuggled"))
            assert await client.ended() == b""
            assert (await other.ask(request("GET", "/a"))).status == 200

    run(body())


def test_ten_thousand_header_bytes_are_fine() -> None:
    async def body() -> None:
        async with served() as world, connected(world.port) as client:
            assert (await client.ask(request("GET", "/a", X_Long="x" * 10_000))).status == 200

    run(body())


def test_a_body_is_judged_before_it_is_read() -> None:
    async def body() -> None:
        async with served() as world, connected(world.port) as client:
            answer = await client.ask(request("POST", "/a", b"x" * (BODY_MAX + 1)))
            assert (answer.status, answer.headers["connection"]) == (413, "keep-alive")
            assert "1001 bytes, the limit is 1000" in json.loads(answer.body)["message"]
            answer = await client.ask(request("POST", "/no", b"x"))
            assert json.loads(answer.body) == {"message": 'not "here"\r\n'}
            client.send(b"POST /a HTTP/1.1\r\nContent-Length: 1000000000000\r\n\r\n")
            answer = await client.answer()  # with nothing of the body sent
            assert (answer.status, answer.headers["connection"]) == (413, "close")
            await client.send_pieces([bytes(50_000)] * 10)  # still read, so that the answer is not lost to a reset
            assert await client.ended() == b""

    run(body())


def test_expect_is_answered_before_the_body() -> None:
    async def body() -> None:
        async with served() as world, connected(world.port) as client:
            client.send(b"POST /a HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
            assert (await client.answer()).status == 100
            client.send(b"abc")
            assert (await client.answer()).body == b"POST /a abc"

    run(body())


def test_head_has_no_body() -> None:
    async def body() -> None:
        async with served() as world, connected(world.port) as client:
            client.send(request("HEAD", "/a") + request("GET", "/b"))
            assert (await client.answer(head=True)).status == 200
            assert (await client.answer()).body == b"GET /b "

    run(body())


def test_a_defect_is_a_500_and_nobody_elses() -> None:
    async def body() -> None:
        async with served() as world, connected(world.port) as client, connected(world.port) as other:
            assert (await client.ask(request("GET", "/fail"))).status == 500
            assert (await other.ask(request("GET", "/a"))).status == 200

    run(body())


def test_p7_too_many_requests_ahead_end_the_connection_after_their_answers() -> None:
    async def body() -> None:
        async with served() as world, connected(world.port) as client:
            client.send(request("GET", "/wait"))
            await until(lambda: world.handler.waiting, "the waiting request")
            client.send(request("GET", "/a") * 5000)
            await asyncio.sleep(0.05)
            world.handler.waiting[0].answer(200)
            statuses = [(await client.answer()).status for _ in range(limits.HTTP_PIPELINED_MAX + 1)]
            assert statuses == [200] * limits.HTTP_PIPELINED_MAX + [503]
            assert await client.ended() == b""

    run(body())


def test_a_pipelined_flood_is_answered_whole() -> None:
    async def body() -> None:
        async with served() as world, connected(world.port) as client:
            count = 3000
            sender = asyncio.ensure_future(client.send_pieces([request("GET", "/a") * 100] * (count // 100)))
            for _ in range(count):
                assert (await client.answer()).status == 200
            await sender

    run(body())


def test_p7_slow_silent_and_half_open_clients_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_REQUEST_S", 0.3)
    monkeypatch.setattr(limits, "HTTP_IDLE_S", 0.3)
    monkeypatch.setattr(limits, "HTTP_SWEEP_S", 0.05)

    async def body() -> None:
        async with contextlib.AsyncExitStack() as stack:
            world = await stack.enter_async_context(served())
            clients = [await stack.enter_async_context(connected(world.port)) for _ in range(5)]
            silent, slow, half, idle, waits = clients
            assert (await idle.ask(request("GET", "/a"))).status == 200
            waits.send(request("GET", "/wait"))
            half.send(b"POST /a HTTP/1.1\r\nContent-Length: 100\r\n\r\nabc")
            dripping = asyncio.ensure_future(_drip(slow))
            assert await silent.ended() == b""
            assert await idle.ended() == b""
            assert (await half.answer()).status == 408
            assert (await slow.answer()).status == 408
            dripping.cancel()
            assert world.counters.get("http.refused.slow_requests") == 2
            await asyncio.sleep(0.5)
            world.handler.waiting[0].answer(200)  # a request that waits for us is not slow
            assert (await waits.answer()).status == 200

    run(body())


async def _drip(client: Client) -> None:
    for letter in b"GET /a HTTP/1.1\r\nA: " + b"x" * 1000:
        client.send(bytes([letter]))
        await asyncio.sleep(0.02)


def test_p7_a_client_that_never_reads_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_WRITE_S", 0.3)
    monkeypatch.setattr(limits, "HTTP_SWEEP_S", 0.05)

    async def body() -> None:
        async with served() as world, connected(world.port) as client, connected(world.port) as other:
            client.writer.transport.pause_reading()
            client.send(request("GET", "/big16000000") + request("GET", "/a"))
            await until(lambda: world.counters.get("http.dropped.slow_readers"), "the reader is ended")
            assert (await other.ask(request("GET", "/a"))).status == 200

    run(body())


def test_a_client_that_leaves_frees_what_waited() -> None:
    async def body() -> None:
        async with served() as world:
            async with connected(world.port) as client:
                client.send(request("GET", "/wait"))
                await until(lambda: world.handler.waiting, "the waiting request")
            await until(lambda: world.handler.gone == 1, "the request ended")
            assert world.handler.waiting[0].answered
            assert not world.handler.waiting[0].answer(200)
            await until(lambda: not len(world.server), "the connection is gone")

    run(body())


def test_p7_strangers_make_room_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_STRANGERS_MAX", 8)

    async def body() -> None:
        async with served() as world, connected(world.port) as known:
            assert (await known.ask(request("GET", "/a", X_Owner="f"))).status == 200
            silent = [await asyncio.open_connection("127.0.0.1", world.port) for _ in range(50)]
            async with connected(world.port) as client:
                assert (await client.ask(request("GET", "/a"))).status == 200
            assert world.counters.get("http.dropped.strangers") >= 42
            assert len(world.server.strangers) <= 8
            assert (await known.ask(request("GET", "/a", X_Owner="f"))).status == 200
            for _, writer in silent:
                writer.close()

    run(body())


def test_p7_an_owner_has_a_share_of_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_WORKER_CONNECTIONS_MAX", 4)
    monkeypatch.setattr(limits, "HTTP_CONNECTIONS_MAX", 6)

    async def body() -> None:
        async with served() as world:
            greedy = [await asyncio.open_connection("127.0.0.1", world.port, limit=2**20) for _ in range(5)]
            clients = [Client(*pair) for pair in greedy]
            answers = [await client.ask(request("GET", "/a", X_Owner="greedy")) for client in clients]
            assert [answer.status for answer in answers] == [200] * 4 + [503]
            others = [Client(*await asyncio.open_connection("127.0.0.1", world.port)) for _ in range(3)]
            for number, client in enumerate(others):
                assert (await client.ask(request("GET", "/a", X_Owner=f"other{number % 2}"))).status == 200
            assert await clients[0].ended() == b""  # the one with most gives
            assert (await clients[1].ask(request("GET", "/a", X_Owner="greedy"))).status == 200
            for client in (*clients, *others):
                client.close()

    run(body())


def test_p7_a_flood_of_one_owner_leaves_time_for_others() -> None:
    async def body() -> None:
        async with served() as world, connected(world.port) as client:
            stop = False

            async def flood() -> None:
                async with connected(world.port) as attacker:
                    reading = asyncio.ensure_future(attacker.reader.read(-1))
                    while not stop:
                        await attacker.send_pieces([request("GET", "/a", X_Owner="attacker") * 200])
                    reading.cancel()

            floods = [asyncio.ensure_future(flood()) for _ in range(4)]
            await until(lambda: world.counters.get("http.pauses") > 5, "the flood waits")
            began = time.monotonic()
            for _ in range(20):
                assert (await client.ask(request("GET", "/a", X_Owner="other"))).status == 200
            assert time.monotonic() - began < 10
            stop = True
            for task in floods:
                task.cancel()
            await asyncio.gather(*floods, return_exceptions=True)

    run(body())


def test_p8_what_a_flood_sends_ahead_stays_in_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_HELD_BYTES_MAX", 512 * 1024)

    async def body() -> None:
        async with served() as world:
            flood = request("GET", "/a", X_Owner="attacker") * 4000  # some 250 KiB each
            pairs = [await asyncio.open_connection("127.0.0.1", world.port) for _ in range(40)]
            most = 0
            for _, writer in pairs:
                writer.write(flood)
            for _ in range(100):
                await asyncio.sleep(0.01)
                owner = world.handler.owners.get(b"attacker")
                most = max(most, owner.unparsed if owner else 0)
            assert world.counters.get("http.pauses") > 0
            assert 0 < most <= 512 * 1024 + 256 * 1024  # one read more than the limit
            async with connected(world.port) as client:
                assert (await client.ask(request("GET", "/a", X_Owner="other"))).status == 200
            for _, writer in pairs:
                writer.transport.abort()

    run(body())


_REQUESTS = [
    request("POST", "/a", b"x" * 100),
    request("GET", "/b"),
    request("POST", "/c", b"y" * (BODY_MAX + 5)),
    request("GET", "/no", X_Owner="me"),
    request("DELETE", "/d", version="1.0", Connection="keep-alive"),
    b"POST /e HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"\r\n\r\nGET /f HTTP/1.1\r\nA: " + b"z" * 9000 + b"\r\n\r\n",
]
_LAST = [
    request("GET", "/z", Connection="close"),
    b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 65 + b"\r\n",
    b"POST /g HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n" + bytes(3000),
    b"garbage\r\n\r\n",
]


async def _conversation(data: bytes, pieces: list[int], count: int) -> list[tuple[int, bytes, str]]:
    async with served() as world, connected(world.port) as client:
        cuts = [0, *sorted(at % len(data) for at in pieces), len(data)]
        parts = [data[start:end] for start, end in itertools.pairwise(cuts)]
        sending = asyncio.ensure_future(client.send_pieces(parts))
        answers = [await client.answer() for _ in range(count)]
        assert await client.ended() == b""
        await asyncio.gather(sending, return_exceptions=True)
        return [(answer.status, answer.body, answer.headers["connection"]) for answer in answers]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(_REQUESTS), max_size=8),
    st.sampled_from(_LAST),
    st.lists(st.integers(0, 1 << 20), max_size=40),
)
def test_how_bytes_arrive_never_changes_the_answers(requests: list[bytes], last: bytes, pieces: list[int]) -> None:
    data = b"".join(requests) + last

    async def body() -> None:
        whole = await _conversation(data, [], len(requests) + 1)
        assert await _conversation(data, pieces, len(requests) + 1) == whole

    run(body())


def test_byte_by_byte_is_the_same_too() -> None:
    data = b"".join(_REQUESTS[:3]) + _LAST[0]

    async def body() -> None:
        whole = await _conversation(data, [], 4)
        assert await _conversation(data, list(range(len(data))), 4) == whole

    run(body())


def test_random_bytes_cost_nothing() -> None:
    async def body() -> None:
        generator = random.Random(7)
        async with served() as world:
            for _ in range(200):
                async with connected(world.port) as client:
                    client.send(generator.randbytes(generator.randrange(1, 400)) + b"\r\n\r\n")
                    client.writer.write_eof()
                    await client.ended()
            async with connected(world.port) as client:
                assert (await client.ask(request("GET", "/a"))).status == 200

    run(body())
