"""The HTTP interface of functions with real workers: calls, results, work, logs, credentials, and who may do what."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import tempfile
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ggfast import limits
from ggfast.arns import ROUTER_ARN, SECRETS_ARN, SHADOW_ARN
from ggfast.core.functions.calls import V1_LIMITS
from ggfast.core.functions.invocations import InvokeStatus
from ggfast.core.functions.ipc_http import HttpInterface, level_of
from ggfast.core.functions.manager import ManagerSettings
from ggfast.core.functions.tokens import KEY_BYTES, load_key
from ggfast.core.functions.worker import Worker, WorkerState
from ggfast.errors import LinkDown
from ggfast.log import Level
from tests.unit.function_support import Lines, PlainChannel, Started, TestRouter, World, arn, new_manager, run
from tests.unit.http_support import Answer, Client, connected, loopback, request

BASE = "/2016-11-01"
KEY = b"k" * KEY_BYTES
_OWN_LOOP = "import signal\nwhile True: signal.pause()"  # speaks no frames: the tests speak HTTP in its place
_ECHO = """
def handler(event, context):
    if event == "raise":
        raise ValueError("no")
    if event == "hang":
        import time
        time.sleep(60)
    return {"event": event, "custom": context.client_context.custom}
"""


class MixedChannel(PlainChannel):
    """Functions whose name begins with `loop` are programs that never read their socket."""

    async def spawn(self, instance: str, spec: Mapping[str, Any]) -> Started:
        self.start, usual = (_OWN_LOOP if instance.startswith("loop") else self.start), self.start
        try:
            return await super().spawn(instance, spec)
        finally:
            self.start = usual


@dataclass
class Http:
    world: World
    interface: HttpInterface
    port: int

    def worker(self, of: str) -> Worker:
        return next(worker for worker in self.world.manager._around.workers.values() if worker.arn == of)

    async def ask(self, method: str, path: str, token: str, body: bytes = b"", **headers: str) -> Answer:
        async with connected(self.port) as client:
            return await client.ask(request(method, BASE + path, body, Authorization=token, **headers))

    async def call(self, token: str, target: str, body: bytes = b"", **headers: str) -> Answer:
        """POST, then GET of the result; the first refusal."""
        answer = await self.ask("POST", f"/functions/{target}", token, body, **headers)
        if answer.status != 200:
            return answer
        assert answer.body == b""
        return await self.result(token, target, answer.headers["x-amz-invocationid"])

    async def result(self, token: str, target: str, invocation: str) -> Answer:
        return await self.ask("GET", f"/functions/{target}", token, X_Amz_InvocationId=invocation)

    async def loop_worker(self, name: str = "loop", **more: Any) -> Worker:
        """A pinned program with its own loop, as far as loading."""
        assert await self.world.manager.apply([self.world.plan(name, "", pinned=True, **more)]) == {}
        return self.worker(arn(name))

    async def poll(self, client: Client, worker: Worker) -> None:
        """Send a request for work and wait until the core has it."""
        client.send(request("GET", f"{BASE}/functions/{worker.arn}/work", Authorization=worker.token))
        side = await self.world.until(lambda: worker.side, "the worker's side")
        await self.world.until(lambda: side._requests or worker.state is WorkerState.BUSY, "the request for work")


@contextlib.asynccontextmanager
async def a_world(settings: ManagerSettings | None = None) -> AsyncIterator[Http]:
    with tempfile.TemporaryDirectory(prefix="ggfast-test-") as name:
        channel, router = MixedChannel(), TestRouter()
        settings = settings or ManagerSettings(token_key=KEY)
        manager, log, counters, logs = new_manager(channel, router, settings)
        world = World(Path(name), channel, router, manager, log, counters, logs)
        interface, port = _serve(world)
        http = Http(world, interface, port)
        try:
            yield http
        finally:
            await world.manager.stop()
            http.interface.close()
            channel.close()
            await world.until(lambda: not len(http.interface.server), "all connections over")


def _serve(world: World) -> tuple[HttpInterface, int]:
    def log_of(name: str) -> Lines:
        return world.logs.setdefault(name, Lines())

    loop = asyncio.get_running_loop()
    interface = HttpInterface(loop, world.manager, log_of, V1_LIMITS, world.counters, world.log)  # type: ignore[arg-type]
    sock = loopback()
    port = sock.getsockname()[1]
    interface.serve(sock)
    return interface, port


def _context(document: Any) -> str:
    return base64.b64encode(json.dumps(document).encode()).decode()


def _message(answer: Answer) -> str:
    return str(json.loads(answer.body)["message"])


async def _caller_and_echo(http: Http, **echo: Any) -> str:
    """A caller's token, with `echo` deployed beside it."""
    plans = [http.world.plan("loop", "", pinned=True), http.world.plan("echo", _ECHO, **echo)]
    assert await http.world.manager.apply(plans) == {}
    return http.worker(arn("loop")).token


def test_a_function_is_invoked_and_its_result_fetched_once() -> None:
    async def body() -> None:
        async with a_world() as http:
            token = await _caller_and_echo(http)
            for target in (arn("echo"), urllib.parse.quote(arn("echo"), safe="")):
                context = _context({"custom": {"a": 1}})
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
            plans = [http.world.plan("loop", "", pinned=True), http.world.plan("echo", _ECHO, version="$LATEST")]
            assert await http.world.manager.apply(plans) == {}
            token, name = http.worker(arn("loop")).token, arn("echo", "$LATEST")
            for target in (name, name.replace("$", "%24"), name.replace("$", "%24").replace(":", "%3a")):
                assert (await http.call(token, target, b"3")).status == 200

    run(body())


def test_errors_of_the_function_and_of_the_core_are_told_apart() -> None:
    async def body() -> None:
        async with a_world() as http:
            token = await _caller_and_echo(http, timeout_s=1)
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
            token = await _caller_and_echo(http)
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
                    token, ROUTER_ARN, payload, X_Amz_Client_Context=_context({"custom": custom}), **form
                )
                assert (answer.status, answer.body) == (200, b"")
                assert router.published[-1] == (arn("loop"), b"a/b", payload)
            answer = await http.call(
                token,
                ROUTER_ARN,
                b"x",
                X_Amz_Invocation_Type="RequestResponse",
                X_Amz_Client_Context=_context({"custom": custom}),
            )
            assert (answer.status, answer.body, answer.headers["x-amz-function-error"]) == (200, b"", "")

    run(body())


def test_refused_publishes_have_their_status() -> None:
    async def body() -> None:
        async with a_world() as http:
            token = (await http.loop_worker()).token

            async def publish(custom: Any, payload: bytes = b"") -> int:
                context = _context({"custom": custom})
                return (await http.call(token, ROUTER_ARN, payload, X_Amz_Client_Context=context)).status

            http.world.router.full = True
            assert await publish({"subject": "a", "queueFullPolicy": "AllOrError"}) == 503
            assert await publish({"subject": "a"}) == 200
            assert await publish({"subject": "a/#"}) == 400
            assert await publish({"subject": "a/" * 9}) == 400
            assert await publish({}) == 400
            assert await publish({"subject": "a"}, bytes(limits.V1_PAYLOAD_BYTES_MAX + 1)) == 413
            answer = await http.call(token, ROUTER_ARN, X_Amz_Client_Context="!!")
            assert answer.status == 400 and "base64" in _message(answer)
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
            context = _context({"custom": {"subject": "$aws/x"}})
            answer = await http.call(token, SHADOW_ARN, b"{}", X_Amz_Client_Context=context)
            assert json.loads(answer.body) == [arn("loop"), "$aws/x", "{}"]
            answer = await http.call(token, SHADOW_ARN, b"link", X_Amz_Client_Context=context)
            assert (answer.status, _message(answer)) == (500, "the store is away")
            answer = await http.call(
                token, SHADOW_ARN, b"{}", X_Amz_Client_Context=context, X_Amz_Invocation_Type="Event"
            )
            assert (answer.status, answer.body) == (200, b"")
            await http.world.until(lambda: http.worker(arn("loop")).open_calls == 0, "all calls over")

    run(body())


def test_requests_that_may_not_be_have_their_status() -> None:
    async def body() -> None:
        async with a_world(ManagerSettings(work_items_max=1, token_key=KEY)) as http:
            token, own = await _caller_and_echo(http, pinned=True), arn("loop")
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
            assert answer.status == 404 and "not deployed" in _message(answer)
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
            token = await _caller_and_echo(http, pinned=True)
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
                    assert "AWS_CONTAINER_AUTHORIZATION_TOKEN" in _message(answer)
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
            token = await _caller_and_echo(http)
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
            fits = limits.HTTP_WORKER_BODIES_BYTES_MAX // size
            clients = [Client(*await asyncio.open_connection("127.0.0.1", http.port)) for _ in range(fits + 1)]
            for client in clients[:-1]:
                client.send(head + b"x")
            await http.world.until(lambda: worker.side and worker.side._arriving == fits * size, "all heads are there")
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
            token = await _caller_and_echo(http)
            worker = http.worker(arn("loop"))
            worker.open_calls = limits.WORKER_CALLS_MAX - 1  # as if over its socket
            assert (await http.call(token, arn("echo"), b"1")).status == 200
            worker.open_calls += 1
            answer = await http.call(token, arn("echo"), b"1")
            assert answer.status == 503 and str(limits.WORKER_CALLS_MAX) in _message(answer)
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
            assert (answer.status, _message(answer)) == (404, "No credentials: this core has no source of them")
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


# --- programs with their own loop ----------------------------------------------------------------------------


def test_a_program_with_its_own_loop_serves_invocations() -> None:
    async def body() -> None:
        async with a_world() as http:
            worker = await http.loop_worker()
            answer = await http.ask(
                "PUT", f"/functions/{worker.arn}/initialized", worker.token, b'{"Success": true, "Response": ""}'
            )
            assert (answer.status, worker.state, worker.was_ready) == (200, WorkerState.AWAY, True)
            async with connected(http.port) as client:
                for number in range(3):
                    asked = request("GET", f"{BASE}/functions/{worker.arn}/work", Authorization=worker.token)
                    if number == 1:  # work first, then the request for it
                        http.world.router.send(worker.arn, (b"a/b", b"1"))
                        client.send(asked)
                    else:
                        await http.poll(client, worker)
                        http.world.router.send(worker.arn, (b"a/b", b"%d" % number))
                    work = await client.answer()
                    assert (work.status, work.body) == (200, b"%d" % number)
                    context = json.loads(base64.b64decode(work.headers["x-amz-client-context"]))
                    assert context == {"custom": {"subject": "a/b"}}
                    invocation = work.headers["x-amz-invocationid"]
                    wrong = await http.ask(
                        "POST", f"/functions/{worker.arn}/work", worker.token, b"r", X_Amz_InvocationId="x"
                    )
                    assert wrong.status == 404
                    done = await http.ask(
                        "POST", f"/functions/{worker.arn}/work", worker.token, b"r", X_Amz_InvocationId=invocation
                    )
                    assert (done.status, worker.state) == (200, WorkerState.AWAY)
            rows = await http.world.manager.status()
            assert (rows[0].invocations, rows[0].errors, rows[0].state) == (3, 0, "running")

    run(body())


def test_results_and_errors_of_such_a_program_reach_the_caller() -> None:
    async def body() -> None:
        async with a_world() as http:
            worker = await http.loop_worker(timeout_s=2)
            cases = [
                ({}, b"\x00\xff", (InvokeStatus.OK, b"\x00\xff")),
                ({"X_Amz_Function_Error": ""}, b"", (InvokeStatus.OK, b"")),
                (
                    {"X_Amz_Function_Error": "Handled"},
                    b'{"errorMessage": "no"}',
                    (InvokeStatus.HANDLED, b'{"errorMessage": "no"}'),
                ),
            ]
            for headers, result, expected in cases:
                asked = asyncio.ensure_future(http.world.manager.invoke(worker.arn, b"in", b'{"custom": {}}'))
                work = await http.ask("GET", f"/functions/{worker.arn}/work", worker.token)
                assert work.body == b"in"
                invocation = work.headers["x-amz-invocationid"]
                path = f"/functions/{worker.arn}/work"
                assert (
                    await http.ask("POST", path, worker.token, result, X_Amz_InvocationId=invocation, **headers)
                ).status == 200
                assert await asked == expected
            # a connection that dies with the work in it: at most once, and the time-out tells
            asked = asyncio.ensure_future(http.world.manager.invoke(worker.arn, b"in"))
            async with connected(http.port) as client:
                await http.poll(client, worker)
                await http.world.until(lambda: worker.state is WorkerState.BUSY, "the work is handed out")
            result_of = await asked
            assert result_of.status is InvokeStatus.UNHANDLED and b"timed out after 2 seconds" in result_of.payload
            await http.world.until(lambda: worker.state is WorkerState.GONE, "the program is ended")
            fresh = await http.world.until(lambda: http.worker(worker.arn), "the next one")
            assert fresh.token != worker.token
            assert (await http.ask("GET", f"/functions/{worker.arn}/work", worker.token)).status == 401

    run(body())


def test_requests_for_work_wait_in_line_and_leave() -> None:
    async def body() -> None:
        async with a_world() as http:
            worker = await http.loop_worker()
            path = f"/functions/{worker.arn}/work"
            async with connected(http.port) as first, connected(http.port) as second:
                await http.poll(first, worker)
                assert worker.state is WorkerState.IDLE
                second.send(request("GET", BASE + path, Authorization=worker.token))
                await http.world.until(lambda: len(worker.side._requests) == 2, "both wait")
                http.world.router.send(worker.arn, (b"t", b"1"), (b"t", b"2"))
                work = await first.answer()
                assert work.body == b"1"
                done = await http.ask(
                    "POST", path, worker.token, b"", X_Amz_InvocationId=work.headers["x-amz-invocationid"]
                )
                assert done.status == 200
                work = await second.answer()  # the one that waited meanwhile
                assert work.body == b"2"
                await http.ask("POST", path, worker.token, b"", X_Amz_InvocationId=work.headers["x-amz-invocationid"])
            async with connected(http.port) as client:
                await http.poll(client, worker)
            await http.world.until(lambda: worker.state is WorkerState.AWAY, "the request left")
            http.world.router.send(worker.arn, (b"t", b"3"))
            assert (await http.ask("GET", path, worker.token)).body == b"3"  # not lost with the client before
            clients = [
                await asyncio.open_connection("127.0.0.1", http.port) for _ in range(limits.HTTP_WORK_REQUESTS_MAX)
            ]
            for _, writer in clients:
                writer.write(request("GET", BASE + path, Authorization=worker.token))
            await http.world.until(lambda: len(worker.side._requests) == limits.HTTP_WORK_REQUESTS_MAX, "all wait")
            assert (await http.ask("GET", path, worker.token)).status == 503
            for _, writer in clients:
                writer.close()

    run(body())


def test_such_a_program_is_told_to_stop() -> None:
    async def body() -> None:
        async with a_world() as http:
            worker = await http.loop_worker()
            loop = asyncio.get_running_loop()
            async with connected(http.port) as client:
                await http.poll(client, worker)
                began = loop.time()
                stopping = asyncio.ensure_future(http.world.manager.apply([]))
                assert (await client.answer()).status == 503
                await stopping
            assert worker.state is WorkerState.GONE
            assert loop.time() - began < limits.WORKER_STOP_S  # by SIGTERM, not by its time being over
            assert "Worker stopped." in http.world.log.messages()

    run(body())


def test_a_program_that_could_not_be_initialised_is_started_again() -> None:
    async def body() -> None:
        async with a_world() as http:
            worker = await http.loop_worker()
            document = b'{"Success": false, "Response": "no such port"}'
            assert (await http.ask("PUT", f"/functions/{worker.arn}/initialized", worker.token, document)).status == 200
            await http.world.until(lambda: worker.state is WorkerState.GONE, "its end")
            row = (await http.world.manager.status())[0]
            assert row.last_error == "no such port" and row.restarts == 1

    run(body())


def test_on_demand_programs_that_stop_asking_give_their_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WORKER_LOAD_S_MIN", 0.5)

    async def body() -> None:
        async with a_world() as http:
            assert await http.world.manager.apply([http.world.plan("loop", "", timeout_s=1)]) == {}
            asked = asyncio.ensure_future(http.world.manager.invoke(arn("loop"), b"in"))
            worker = await http.world.until(
                lambda: next(iter(http.world.manager._around.workers.values()), None), "a worker"
            )
            await http.world.until(lambda: worker.state is WorkerState.LOADING, "loading")
            path = f"/functions/{worker.arn}/work"
            work = await http.ask("GET", path, worker.token)
            await http.ask("POST", path, worker.token, b"r", X_Amz_InvocationId=work.headers["x-amz-invocationid"])
            assert (await asked).payload == b"r"
            await http.world.until(lambda: worker.state is WorkerState.GONE, "its end")
            assert http.world.manager._slots._used == 0

    run(body())


def test_p4_programs_and_tokens_go_on_with_the_next_daemon() -> None:
    async def body() -> None:
        async with a_world() as http:
            worker = await http.loop_worker()
            token, path, pid = worker.token, f"/functions/{worker.arn}/work", worker.pid
            asked = asyncio.ensure_future(http.world.manager.invoke(worker.arn, b"in"))
            work = await http.ask("GET", path, token)
            # another daemon, with the key of the file; the first one is forgotten without a word
            old = http.world.manager
            http.interface.close()
            plan = http.world.plan("loop", "", pinned=True)
            http.world.router.targets.clear()
            manager, *_ = new_manager(http.world.channel, http.world.router, ManagerSettings(token_key=KEY))
            http.world.manager = manager
            assert await manager.adopt_all([plan]) == {}
            http.interface, http.port = _serve(http.world)
            done = await http.ask("POST", path, token, b"late", X_Amz_InvocationId=work.headers["x-amz-invocationid"])
            assert done.status == 200  # not its fault that the caller went
            adopted = http.worker(arn("loop"))
            assert (adopted.pid, adopted.token) == (pid, token)
            http.world.router.send(worker.arn, (b"t", b"next"))
            work = await http.ask("GET", path, token)
            assert work.body == b"next"
            done = await http.ask("POST", path, token, b"", X_Amz_InvocationId=work.headers["x-amz-invocationid"])
            assert (done.status, adopted.state) == (200, WorkerState.AWAY)
            assert (await http.ask("POST", path, token, b"", X_Amz_InvocationId="x")).status == 404
            asked.cancel()
            for left in old._around.workers.values():
                left._link.close()
                for pipe in left._pipes:
                    pipe.close()
                left._timer.cancel() if left._timer else None
            if old._sweep_timer is not None:
                old._sweep_timer.cancel()

    run(body())


# --- the key of the tokens --------------------------------------------------------------------------------------


def test_the_key_is_made_once_and_kept(tmp_path: Path) -> None:
    path, log = tmp_path / "token.key", Lines()
    key = load_key(path, log)  # type: ignore[arg-type]
    assert len(key) == KEY_BYTES and path.stat().st_mode & 0o7777 == 0o600
    assert load_key(path, log) == key  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == ["token.key"] and not log.records


@pytest.mark.parametrize(
    "damage", ["short", "long", "empty", "mode", "link", "hard link", "directory", "fifo", "owner"]
)
def test_p5_a_key_others_may_know_is_replaced(tmp_path: Path, damage: str) -> None:
    path, log = tmp_path / "token.key", Lines()
    key = load_key(path, log)  # type: ignore[arg-type]
    if damage in ("short", "long", "empty"):
        path.write_bytes({"short": key[:-1], "long": key + b"x", "empty": b""}[damage])
    elif damage == "mode":
        path.chmod(0o640)
    elif damage == "owner":
        os.chown(path, 12345, -1)
    elif damage == "hard link":
        os.link(path, tmp_path / "other")
    else:
        path.rename(tmp_path / "other")
        if damage == "link":
            path.symlink_to(tmp_path / "other")
        elif damage == "directory":
            path.mkdir()
        else:
            os.mkfifo(path, 0o600)
    fresh = load_key(path, log)  # type: ignore[arg-type]
    assert fresh != key and len(fresh) == KEY_BYTES
    assert load_key(path, log) == fresh  # type: ignore[arg-type]
    assert [level for level, _, _ in log.records] == ["warn"]
    assert path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o7777 == 0o600


def test_a_disk_that_takes_no_key_is_said_and_nothing_else(tmp_path: Path) -> None:
    log = Lines()
    assert len(load_key(tmp_path / "nowhere" / "token.key", log)) == KEY_BYTES  # type: ignore[arg-type]
    assert [level for level, _, _ in log.records] == ["error"]
