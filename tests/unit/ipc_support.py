"""A manager with real workers, some of them programs that speak HTTP alone, and the interface they speak to."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggfast.core.functions.calls import V1_LIMITS
from ggfast.core.functions.ipc_http import HttpInterface
from ggfast.core.functions.manager import ManagerSettings
from ggfast.core.functions.tokens import KEY_BYTES
from ggfast.core.functions.worker import Worker, WorkerState
from tests.unit.function_support import Lines, PlainChannel, Started, TestRouter, World, arn, new_manager
from tests.unit.http_support import Answer, Client, connected, loopback, request

BASE = "/2016-11-01"
KEY = b"k" * KEY_BYTES
OWN_LOOP = "import signal\nwhile True: signal.pause()"  # speaks no frames: the tests speak HTTP in its place
ECHO = """
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
        self.start, usual = (OWN_LOOP if instance.startswith("loop") else self.start), self.start
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
        interface, port = serve(world)
        http = Http(world, interface, port)
        try:
            yield http
        finally:
            await world.manager.stop()
            http.interface.close()
            channel.close()
            await world.until(lambda: not len(http.interface.server), "all connections over")


def serve(world: World) -> tuple[HttpInterface, int]:
    def log_of(name: str) -> Lines:
        return world.logs.setdefault(name, Lines())

    loop = asyncio.get_running_loop()
    interface = HttpInterface(loop, world.manager, log_of, V1_LIMITS, world.counters, world.log)  # type: ignore[arg-type]
    sock = loopback()
    port = sock.getsockname()[1]
    interface.serve(sock)
    return interface, port


def context_of(document: Any) -> str:
    return base64.b64encode(json.dumps(document).encode()).decode()


def message_of(answer: Answer) -> str:
    return str(json.loads(answer.body)["message"])


async def caller_and_echo(http: Http, **echo: Any) -> str:
    """A caller's token, with `echo` deployed beside it."""
    plans = [http.world.plan("loop", "", pinned=True), http.world.plan("echo", ECHO, **echo)]
    assert await http.world.manager.apply(plans) == {}
    return http.worker(arn("loop")).token
