"""The HTTP interface of functions with real workers: calls, results, logs, credentials, and who may do what."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import urllib.parse
from typing import Any

import pytest

from ggfast import limits
from ggfast.arns import ROUTER_ARN, SECRETS_ARN, SHADOW_ARN
from ggfast.core.functions.ipc_http import level_of
from ggfast.core.functions.manager import ManagerSettings
from ggfast.core.functions.worker import WorkerState
from ggfast.errors import LinkDown
from ggfast.log import Level
from tests.unit.function_support import arn, run
from tests.unit.http_support import Answer, Client, connected, request
from tests.unit.ipc_support import BASE, ECHO, KEY, a_world, caller_and_echo, context_of, message_of


def test_a_function_is_invoked_and_its_result_fetched_once() -> None:
    async def body() -> None:
        async with a_world() as http:
            token = await caller_and_echo(http)
            for target in (arn("echo"), urllib.parse.quote(arn("echo"), safe="")):
                context = context_of({"custom": {"a": 1}})
                answer = await http.call(token, target, b'{"x": 2}', X_Amz_Client_Context=context)
                assert answer.status == 200
                assert json.loads(answer.body) == {"event": {"x": 2}, "custom": {"a": 1}}
                assert answer.headers["x-amz-function-error"] == ""  # there, and empty
            answer = await http.call(token, arn("echo"), X_Amz_Client_Context="")
            assert json.loads(answer.body)["event"] == {}
            posted = await http.ask("POST", f"/functions/{arn('echo')}", token, b"1")
            invocation = posted.headers["x-amz-invocationid"]
            first = await http.result(token, arn("echo"), invocation)
            assert (first.status, first.headers["x-amz-function-error"]) == (200, "")
            assert (await http.result(token, arn("echo"), invocation)).status == 404
            assert http.worker(arn("loop")).open_calls == 0

    run(body())


def test_latest_is_matched_as_it_is_and_encoded() -> None:
    async def body() -> None:
        async with a_world() as http:
            plans = [http.world.plan("loop", "", pinned=True), http.world.plan("echo", ECHO, version="$LATEST")]
            assert await http.world.manager.apply(plans) == {}
            token, name = http.worker(arn("loop")).token, arn("echo", "$LATEST")
            for target in (name, name.replace("$", "%24"), name.replace("$", "%24").replace(":", "%3a")):
                assert (await http.call(token, target, b"3")).status == 200

    run(body())


def test_errors_of_the_function_and_of_the_core_are_told_apart() -> None:
    async def body() -> None:
        async with a_world() as http:
            token = await caller_and_echo(http, timeout_s=1)
            answer = await http.call(token, arn("echo"), b'"raise"')
            assert (answer.status, answer.headers["x-amz-function-error"]) == (200, "Handled")
            assert json.loads(answer.body)["errorMessage"] == "no"
            answer = await http.call(token, arn("echo"), b'"hang"')
            assert (answer.status, answer.headers["x-amz-function-error"]) == (200, "Unhandled")
            assert "timed out" in json.loads(answer.body)["errorMessage"]

    run(body())


def test_an_event_is_answered_at_once_and_has_an_empty_result() -> None:
    async def body() -> None:
        async with a_world() as http:
            token = await caller_and_echo(http)
            answer = await http.call(token, arn("echo"), b'"hang"', X_Amz_Invocation_Type="Event")
            assert (answer.status, answer.body, answer.headers["x-amz-function-error"]) == (200, b"", "")

    run(body())


def test_p1_a_publish_has_the_tokens_source() -> None:
    async def body() -> None:
        async with a_world() as http:
            token, router = (await http.loop_worker()).token, http.world.router
            custom = {"source": arn("somebody"), "subject": "a/b", "queueFullPolicy": ""}
            form = {"Content-Type": "application/x-www-form-urlencoded", "X_Amz_Invocation_Type": "Event"}
            for payload in (b"a=b&c=%41", b"", bytes(range(256)), bytes(limits.V1_PAYLOAD_BYTES_MAX)):
                answer = await http.call(
                    token, ROUTER_ARN, payload, X_Amz_Client_Context=context_of({"custom": custom}), **form
                )
                assert (answer.status, answer.body) == (200, b"")
                assert router.published[-1] == (arn("loop"), b"a/b", payload)
            answer = await http.call(
                token,
                ROUTER_ARN,
                b"x",
                X_Amz_Invocation_Type="RequestResponse",
                X_Amz_Client_Context=context_of({"custom": custom}),
            )
            assert (answer.status, answer.body, answer.headers["x-amz-function-error"]) == (200, b"", "")

    run(body())


def test_refused_publishes_have_their_status() -> None:
    async def body() -> None:
        async with a_world() as http:
            token = (await http.loop_worker()).token

            async def publish(custom: Any, payload: bytes = b"") -> int:
                context = context_of({"custom": custom})
                return (await http.call(token, ROUTER_ARN, payload, X_Amz_Client_Context=context)).status

            http.world.router.full = True
            assert await publish({"subject": "a", "queueFullPolicy": "AllOrError"}) == 503
            assert await publish({"subject": "a"}) == 200
            assert await publish({"subject": "a/#"}) == 400
            assert await publish({"subject": "a/" * 9}) == 400
            assert await publish({}) == 400
            assert await publish({"subject": "a"}, bytes(limits.V1_PAYLOAD_BYTES_MAX + 1)) == 413
            answer = await http.call(token, ROUTER_ARN, X_Amz_Client_Context="!!")
            assert answer.status == 400 and "base64" in message_of(answer)
            assert (await http.call(token, ROUTER_ARN, X_Amz_Client_Context="e30=")).status == 400
            assert (await http.call(token, ROUTER_ARN, X_Amz_Client_Context="Zm9v")).status == 400

    run(body())


def test_the_cores_own_services_answer_with_their_documents() -> None:
    async def body() -> None:
        async with a_world() as http:
            token = (await http.loop_worker()).token

            async def shadow(source: str, context: bytes, payload: bytes) -> bytes:
                await asyncio.sleep(0)
                if payload == b"link":
                    raise LinkDown("the store is away")
                return json.dumps([source, json.loads(context)["custom"]["subject"], payload.decode()]).encode()

            answer = await http.call(token, SECRETS_ARN, b'{"SecretId": "a"}')
            assert (answer.headers["x-amz-function-error"], json.loads(answer.body)["Status"]) == ("", 404)
            http.world.manager.system_targets[SHADOW_ARN] = shadow
            context = context_of({"custom": {"subject": "$aws/x"}})
            answer = await http.call(token, SHADOW_ARN, b"{}", X_Amz_Client_Context=context)
            assert json.loads(answer.body) == [arn("loop"), "$aws/x", "{}"]
            answer = await http.call(token, SHADOW_ARN, b"link", X_Amz_Client_Context=context)
            assert (answer.status, message_of(answer)) == (500, "the store is away")
            answer = await http.call(
                token, SHADOW_ARN, b"{}", X_Amz_Client_Context=context, X_Amz_Invocation_Type="Event"
            )
            assert (answer.status, answer.body) == (200, b"")
            await http.world.until(lambda: http.worker(arn("loop")).open_calls == 0, "all calls over")

    run(body())


def test_requests_that_may_not_be_have_their_status() -> None:
    async def body() -> None:
        async with a_world(ManagerSettings(work_items_max=1, token_key=KEY)) as http:
            token, own = await caller_and_echo(http, pinned=True), arn("loop")
            other = http.worker(arn("echo")).token
            await http.world.until(lambda: http.worker(arn("echo")).was_ready, "the echo is ready")
            assert (await http.ask("GET", f"/functions/{arn('echo')}/work", token)).status == 403
            assert (await http.ask("POST", f"/functions/{arn('echo')}/work", token, b"x")).status == 403
            assert (await http.ask("PUT", f"/functions/{arn('echo')}/initialized", token, b"{}")).status == 403
            assert (await http.ask("PUT", f"/functions/{own}/initialized", token, b"{}")).status == 400
            assert (await http.ask("POST", f"/functions/{own}/work", token, b"x", X_Amz_InvocationId="1")).status == 404
            assert (await http.ask("GET", f"/functions/{arn('echo')}/work", other)).status == 409
            for path in ("", "/", "/functions", "/functions/", "/functions/a/b", "/functions/a/work/", "/cloudwatch"):
                assert (await http.ask("GET", path, token)).status == 404, path
            for method, path in (
                ("DELETE", f"/functions/{own}"),
                ("PUT", f"/functions/{own}/work"),
                ("GET", "/cloudwatch/logs/"),
                ("POST", "/credentialprovider/"),
            ):
                answer = await http.ask(method, path, token)
                assert (answer.status, bool(answer.headers["allow"])) == (405, True)
            answer = await http.call(token, arn("nobody"))
            assert answer.status == 404 and "not deployed" in message_of(answer)
            assert (await http.call(token, arn("echo"), X_Amz_Invocation_Type="DryRun")).status == 400
            assert (await http.result(token, arn("echo"), "")).status == 404
            assert (await http.call(token, arn("echo"), bytes(limits.V1_PAYLOAD_BYTES_MAX + 1))).status == 413
            hang = {"X_Amz_Invocation_Type": "Event"}
            statuses = [(await http.call(token, arn("echo"), b'"hang"', **hang)).status for _ in range(4)]
            assert statuses[0] == 200 and statuses[-1] == 503  # one runs, one waits

    run(body())


def test_p5_a_token_is_one_workers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_REFUSAL_DELAY_S", 0.1)

    async def body() -> None:
        async with a_world() as http:
            token = await caller_and_echo(http, pinned=True)
            other = http.worker(arn("echo")).token
            loop = asyncio.get_running_loop()
            began = loop.time()
            for wrong in (
                "",
                "x",
                token[:-1],
                token + "0",
                token.upper(),
                f"Bearer {token}",
                "\xff\xfe",
                f"{token}, {token}",
            ):
                async with connected(http.port) as client:
                    answer = await client.ask(
                        request("POST", f"{BASE}/functions/{ROUTER_ARN}", b"x", Authorization=wrong)
                    )
                    assert (answer.status, answer.headers["connection"]) == (401, "close"), wrong
                    assert "AWS_CONTAINER_AUTHORIZATION_TOKEN" in message_of(answer)
                    assert await client.ended() == b""
            assert loop.time() - began >= 0.8  # a guess takes its time
            assert http.world.counters.get("http.refused.tokens") == 8
            posted = await http.ask("POST", f"/functions/{arn('echo')}", token, b"1")
            invocation = posted.headers["x-amz-invocationid"]
            assert (await http.result(other, arn("echo"), invocation)).status == 404
            assert (await http.result(token, arn("loop"), invocation)).status == 404
            assert (await http.result(token, arn("echo"), invocation)).status == 200
            event = await http.ask("POST", f"/functions/{arn('echo')}", token, b"1", X_Amz_Invocation_Type="Event")
            assert (await http.result(other, arn("echo"), event.headers["x-amz-invocationid"])).status == 404
            worker = http.worker(arn("echo"))
            await http.world.manager.apply([http.world.plan("loop", "", pinned=True)])
            await http.world.until(lambda: worker.state is WorkerState.GONE, "the worker's end")
            assert (await http.call(other, arn("loop"))).status == 401

    run(body())


def test_a_waiting_client_that_leaves_can_fetch_again() -> None:
    async def body() -> None:
        async with a_world() as http:
            token = await caller_and_echo(http)
            source = "import time\ndef handler(e, c):\n    time.sleep(0.5)\n    return 7"
            plans = [http.world.plan("loop", "", pinned=True), http.world.plan("slow", source)]
            await http.world.manager.apply(plans)
            posted = await http.ask("POST", f"/functions/{arn('slow')}", token)
            invocation = posted.headers["x-amz-invocationid"]
            ask = request("GET", f"{BASE}/functions/{arn('slow')}", Authorization=token, X_Amz_InvocationId=invocation)
            side = http.worker(arn("loop")).side
            async with connected(http.port) as client:
                client.send(ask)
                await http.world.until(lambda: side._known[invocation].waiter, "the request waits")
                assert (await http.result(token, arn("slow"), invocation)).status == 409
            await http.world.until(lambda: side._known[invocation].waiter is None, "the request is freed")
            assert (await http.result(token, arn("slow"), invocation)).body == b"7"
            assert not side._known and not side._open

    run(body())


def test_p8_results_nobody_fetches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_RESULTS_MAX", 3)
    monkeypatch.setattr(limits, "HTTP_RESULTS_BYTES_MAX", 1000)

    async def body() -> None:
        async with a_world() as http:
            token = (await http.loop_worker()).token
            size = 10

            async def shadow(source: str, context: bytes, payload: bytes) -> bytes:
                return bytes(size)

            http.world.manager.system_targets[SHADOW_ARN] = shadow
            worker = http.worker(arn("loop"))

            async def post() -> str:
                answer = await http.ask("POST", f"/functions/{SHADOW_ARN}", token)
                await http.world.until(lambda: worker.open_calls == 0, "the call's end")
                return answer.headers["x-amz-invocationid"]

            ids = [await post() for _ in range(5)]
            assert [(await http.result(token, SHADOW_ARN, one)).status for one in ids] == [404, 404, 200, 200, 200]
            size = 600
            ids = [await post() for _ in range(2)]
            assert [(await http.result(token, SHADOW_ARN, one)).status for one in ids] == [404, 200]
            assert http.world.counters.get("http.dropped.results") == 3

    run(body())


def test_p8_results_nobody_fetches_are_dropped_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_RESULT_S", 0.1)

    async def body() -> None:
        async with a_world() as http:
            token = (await http.loop_worker()).token
            late = (await http.ask("POST", f"/functions/{SECRETS_ARN}", token)).headers["x-amz-invocationid"]
            await http.world.until(lambda: http.world.counters.get("http.dropped.results"), "the result is dropped")
            assert (await http.result(token, SECRETS_ARN, late)).status == 404
            assert http.worker(arn("loop")).side._expiry is None

    run(body())


def test_p8_results_that_are_fetched_and_not_read_are_bounded() -> None:
    async def body() -> None:
        async with a_world() as http:
            worker = await http.loop_worker()

            async def shadow(source: str, context: bytes, payload: bytes) -> bytes:
                return bytes(1_000_000)

            http.world.manager.system_targets[SHADOW_ARN] = shadow
            most = 0
            with contextlib.ExitStack() as stack:
                for _ in range(20):
                    posted = await http.ask("POST", f"/functions/{SHADOW_ARN}", worker.token)
                    sock = stack.enter_context(socket.socket())
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    sock.connect(("127.0.0.1", http.port))
                    headers = {
                        "Authorization": worker.token,
                        "X_Amz_InvocationId": posted.headers["x-amz-invocationid"],
                    }
                    sock.sendall(request("GET", f"{BASE}/functions/{SHADOW_ARN}", **headers))
                    await asyncio.sleep(0.05)
                    most = max(most, worker.side.owner.unwritten)
                assert 0 < most <= limits.WORKER_OUTBOUND_BYTES_MAX
                assert http.world.counters.get("http.dropped.slow_readers") > 0
                assert (await http.call(worker.token, SECRETS_ARN)).status == 200

    run(body())


def test_p8_bodies_that_arrive_at_a_time_are_bounded() -> None:
    async def body() -> None:
        async with a_world() as http:
            worker = await http.loop_worker()
            size = limits.V1_PAYLOAD_BYTES_MAX
            head = request("POST", f"{BASE}/functions/{SECRETS_ARN}", bytes(size), Authorization=worker.token)[:-size]
            fits = limits.HTTP_WORKER_BODIES_BYTES_MAX // (size + len(head))
            clients = [Client(*await asyncio.open_connection("127.0.0.1", http.port)) for _ in range(fits + 1)]
            for client in clients[:-1]:
                client.send(head + b"x")
            await http.world.until(lambda: worker.side and worker.side._arriving > fits * size, "all heads are there")
            assert (await clients[-1].ask(head)).status == 503
            clients[0].send(bytes(size - 1))
            assert (await clients[0].answer()).status == 200
            for client in clients:
                client.close()
            await http.world.until(lambda: worker.side._arriving == 0, "the room is given back")

    run(body())


def test_calls_of_both_ways_count_together() -> None:
    async def body() -> None:
        async with a_world() as http:
            token = await caller_and_echo(http)
            worker = http.worker(arn("loop"))
            worker.open_calls = limits.WORKER_CALLS_MAX - 1  # as if over its socket
            assert (await http.call(token, arn("echo"), b"1")).status == 200
            worker.open_calls += 1
            answer = await http.call(token, arn("echo"), b"1")
            assert answer.status == 503 and str(limits.WORKER_CALLS_MAX) in message_of(answer)
            worker.open_calls = 0

    run(body())


def test_log_lines_keep_their_levels_and_nothing_is_an_error() -> None:
    async def body() -> None:
        async with a_world() as http:
            token = (await http.loop_worker()).token

            async def post(text: bytes) -> Answer:
                return await http.ask("POST", "/cloudwatch/logs/", token, text)

            events = [
                {"timestamp": 1, "message": m} for m in ("[WARN]-a.py:3,be careful", "plain", "[ERROR]-b.py:4,bad")
            ]
            document = {"logGroupName": "/GreengrassSystem/python_runtime", "logStreamName": "fromPythonAppender"}
            assert (await post(json.dumps({**document, "logEvents": events}).encode())).status == 200
            lines = [(Level.WARN, "a.py:3,be careful"), (Level.INFO, "plain"), (Level.ERROR, "b.py:4,bad")]
            assert http.world.function_log("loop").lines == lines
            for text in (
                b"",
                b"{",
                b"[]",
                b"null",
                b'{"logEvents": 3}',
                b'{"logEvents": [{}]}',
                b'{"logEvents": {"a": 1}}',
            ):
                assert (await post(text)).status == 200, text
            assert (await post(bytes(limits.HTTP_LOG_BYTES_MAX + 1))).status == 200
            assert http.world.counters.get("functions.log.dropped_lines") == 7
            assert http.world.counters.get("functions.log.dropped_requests") == 1
            many = {"logEvents": [{"message": "x"}] * (limits.HTTP_LOG_EVENTS_MAX + 5)}
            assert (await post(json.dumps(many).encode())).status == 200
            assert len(http.world.function_log("loop").lines) == 3 + limits.HTTP_LOG_EVENTS_MAX
            assert (await http.ask("POST", "/cloudwatch/logs/", "wrong", b"{}")).status == 401

    run(body())


@pytest.mark.parametrize(
    ("message", "level", "text"),
    [
        ("[DEBUG]-x", Level.DEBUG, "x"),
        ("[CRITICAL]x", Level.FATAL, "x"),
        ("[WARNING]-x", Level.WARN, "x"),
        ("[SOMETHING]-x", Level.INFO, "[SOMETHING]-x"),
        ("x [ERROR]-", Level.INFO, "x [ERROR]-"),
    ],
)
def test_levels_of_log_lines(message: str, level: Level, text: str) -> None:
    assert level_of(message) == (level, text)


class _Source:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    async def credentials(self) -> dict[str, Any] | None:
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer == "never":
            await asyncio.sleep(60)
        return self.answer  # type: ignore[no-any-return]


def test_credentials_come_or_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_CREDENTIALS_S", 0.2)
    good = {"AccessKeyId": "a", "SecretAccessKey": "b", "Token": "c", "Expiration": "2030-01-01T00:00:00Z"}

    async def body() -> None:
        async with a_world() as http:
            token = (await http.loop_worker()).token
            answer = await http.ask("GET", "/credentialprovider/", token)
            assert (answer.status, message_of(answer)) == (404, "No credentials: this core has no source of them")
            for given, status in (
                (good, 200),
                (None, 404),
                ("never", 503),
                (LinkDown("offline"), 503),
                (KeyError(), 500),
            ):
                http.interface.credentials = _Source(given)
                answer = await http.ask("GET", "/credentialprovider/", token)
                assert answer.status == status, given
                if status == 200:
                    assert json.loads(answer.body) == good
            assert (await http.ask("GET", "/credentialprovider/", "x")).status == 401
            assert http.worker(arn("loop")).open_calls == 0

    run(body())
