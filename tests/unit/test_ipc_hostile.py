"""The functions' HTTP interface against strangers, callers and programs that would disturb others through it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket

import pytest

from ggfast import limits
from ggfast.core.functions.invocations import Invocation, InvokeStatus
from ggfast.core.functions.worker import WorkerState
from tests.unit.function_support import arn, run
from tests.unit.http_support import Client, connected, request
from tests.unit.ipc_support import BASE, Http, a_world

GATED = """
import os
def handler(event, context):
    while event and not os.path.exists(event):
        pass
    return event
"""


def own_result(target: str, token: str, invocation: str) -> bytes:
    return request("GET", f"{BASE}/functions/{target}", Authorization=token, X_Amz_InvocationId=invocation)


async def posted_to(http: Http, token: str, target: str, payload: bytes) -> str:
    posted = await http.ask("POST", f"/functions/{target}", token, payload)
    return posted.headers["x-amz-invocationid"]


def test_p7_one_result_asked_for_twice_on_one_connection_stops_nobody() -> None:
    async def body() -> None:
        async with a_world() as http:
            plans = [http.world.plan("loop", "", pinned=True), http.world.plan("gated", GATED, pinned=True)]
            assert await http.world.manager.apply(plans) == {}
            token, gate = http.worker(arn("loop")).token, http.world.directory / "gate"
            invocation = await posted_to(http, token, arn("gated"), json.dumps(str(gate)).encode())
            async with connected(http.port) as client:
                client.send(own_result(arn("gated"), token, invocation) * 2)
                side = await http.world.until(lambda: http.worker(arn("loop")).side, "the caller's side")
                await http.world.until(lambda: side._known[invocation].waiter, "the first request waits")
                gate.touch()
                assert json.loads((await client.answer()).body) == str(gate)
                assert (await client.answer()).status == 404
            assert (await http.world.manager.invoke(arn("gated"), b"0")).payload == b"0"
            assert http.worker(arn("loop")).open_calls == 0

    run(body())


def test_p7_a_defect_where_a_result_goes_to_is_not_the_workers_end() -> None:
    def fail(result: object) -> None:
        raise RuntimeError("a defect")

    async def body() -> None:
        async with a_world() as http:
            assert await http.world.manager.apply([http.world.plan("gated", GATED, pinned=True)]) == {}
            http.world.manager.submit(arn("gated"), Invocation(b"", b"0", fail))
            result = await asyncio.wait_for(http.world.manager.invoke(arn("gated"), b"0"), 20)
            assert result.payload == b"0"

    run(body())


def test_a_program_that_calls_itself_is_free_once() -> None:
    """Its own result comes while it is told free: a request for work that is next on that connection waits its turn."""

    async def body() -> None:
        async with a_world() as http:
            worker = await http.loop_worker()
            work = f"/functions/{worker.arn}/work"
            invocation = await posted_to(http, worker.token, worker.arn, b"1")
            async with connected(http.port) as client:
                client.send(own_result(worker.arn, worker.token, invocation))
                client.send(request("GET", BASE + work, Authorization=worker.token))
                given = await http.ask("GET", work, worker.token)
                side = await http.world.until(lambda: worker.side, "the worker's side")
                await http.world.until(lambda: side._known[invocation].waiter, "the request for the result waits")
                number = given.headers["x-amz-invocationid"]
                assert (await http.ask("POST", work, worker.token, b"r", X_Amz_InvocationId=number)).status == 200
                assert (await client.answer()).body == b"r"
                await http.world.until(lambda: worker.state is WorkerState.IDLE, "it asks for work")
                tasks = [asyncio.ensure_future(http.world.manager.invoke(worker.arn, b"%d" % n)) for n in range(2)]
                for n in range(2):
                    given = await (client.answer() if n == 0 else http.ask("GET", work, worker.token))
                    assert given.body == b"%d" % n
                    number = given.headers["x-amz-invocationid"]
                    await http.ask("POST", work, worker.token, b"r%d" % n, X_Amz_InvocationId=number)
                assert [result.payload for result in await asyncio.gather(*tasks)] == [b"r0", b"r1"]

    run(body())


@pytest.mark.parametrize("head", [b"Transfer-Encoding: chunked", b"Content-Length: 100000000"])
def test_p7_what_a_stranger_sends_after_its_head_is_not_read(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing a body of tiny chunks takes a hundred times as long as sending it."""
    monkeypatch.setattr(limits, "HTTP_REFUSAL_DELAY_S", 2.0)

    async def body() -> None:
        async with a_world() as http:
            with socket.create_connection(("127.0.0.1", http.port)) as sock:
                sock.sendall(b"POST /2016-11-01/cloudwatch/logs/ HTTP/1.1\r\n" + head + b"\r\n\r\n")
                sock.setblocking(False)
                loop, sent = asyncio.get_running_loop(), 0
                with contextlib.suppress(asyncio.TimeoutError):
                    while sent < 16 * 1024 * 1024:
                        await asyncio.wait_for(loop.sock_sendall(sock, b"1\r\na\r\n" * 10_000), 0.5)
                        sent += 60_000
                assert sent < 16 * 1024 * 1024
                reply = await asyncio.wait_for(loop.sock_recv(sock, 65_536), 20)
                assert reply.startswith(b"HTTP/1.1 401 ")
                assert b"Connection: close\r\n" in reply

    run(body())


def test_p7_a_stranger_who_never_begins_a_request_is_ended() -> None:
    async def body() -> None:
        async with a_world() as http, connected(http.port) as client:
            client.send(b"\r\n" * 2 * limits.HTTP_HEAD_BYTES_MAX)
            assert (await client.answer()).status == 431
            assert await client.ended() == b""

    run(body())


def test_p8_heads_that_wait_are_bounded_with_the_bodies() -> None:
    async def body() -> None:
        async with a_world() as http:
            worker = await http.loop_worker()
            filler = {f"X_{number}": "y" * 240 for number in range(50)}
            clients = []
            for _ in range(20):
                invocation = await posted_to(http, worker.token, worker.arn, b"1")
                client = Client(*await asyncio.open_connection("127.0.0.1", http.port))
                client.send(own_result(worker.arn, worker.token, invocation))
                asked = request("GET", f"{BASE}/functions/{worker.arn}", Authorization=worker.token, **filler)
                client.send(asked * 10)
                clients.append(client)
            await http.world.until(lambda: http.world.counters.get("http.refused.bodies") > 50, "heads are refused")
            assert worker.side._arriving <= limits.HTTP_WORKER_BODIES_BYTES_MAX
            held = [exchange for client in worker.side.owner.connections for exchange in client._queue]
            assert sum(len(exchange.headers) for exchange in held if exchange.answered or exchange.started) == 0
            for client in clients:
                client.close()
            await http.world.until(lambda: worker.side._arriving == 0, "the room is given back")

    run(body())


def test_p7_documents_nested_too_deep_are_refused_like_others() -> None:
    async def body() -> None:
        async with a_world() as http:
            worker = await http.loop_worker()
            deep = b"[" * 1000 + b"]" * 1000
            logs = b'{"logEvents": [{"message": ' + deep + b'}, {"message": "x"}]}'
            assert (await http.ask("POST", "/cloudwatch/logs/", worker.token, logs)).status == 200
            assert http.world.counters.get("functions.log.dropped_lines") == 1
            said = b'{"Success": false, "Response": ' + deep + b"}"
            assert (await http.ask("PUT", f"/functions/{worker.arn}/initialized", worker.token, said)).status == 400
            assert worker.state is WorkerState.LOADING

    run(body())


def test_p7_a_topic_that_no_worker_can_be_told_is_dropped_and_counted() -> None:
    async def body() -> None:
        async with a_world() as http:
            plan = http.world.plan("gated", GATED, pinned=True)
            assert await http.world.manager.apply([plan]) == {}
            http.world.router.send(arn("gated"), (b"a" * 65_535, b"0"))
            result = await asyncio.wait_for(http.world.manager.invoke(arn("gated"), b"0"), 20)
            assert result.payload == b"0"
            assert http.world.counters.get("functions.dropped.long_topic") == 1

    run(body())


def test_p7_a_context_too_long_for_a_header_reaches_no_program() -> None:
    async def body() -> None:
        async with a_world() as http, connected(http.port) as client:
            worker = await http.loop_worker()
            await http.poll(client, worker)
            size = limits.HTTP_CONTEXT_BYTES_MAX
            refused = await asyncio.wait_for(http.world.manager.invoke(worker.arn, b"", b'"%s"' % (b"x" * size)), 20)
            assert refused.status is InvokeStatus.REFUSED
            assert b"the limit of this function is 11264" in refused.payload
            http.world.manager.submit(worker.arn, Invocation(b'"%s"' % (b"x" * (size - 2)), b"in"))
            given = await client.answer()
            assert (given.body, len(given.headers["x-amz-client-context"]) < 16_000) == (b"in", True)

    run(body())
