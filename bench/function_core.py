"""The daemon of the function benchmark: broker on plain TCP, router and function manager; nothing else of a core.

Started by the supervisor; reads one JSON file: {"functions": [{"name", "arn", "code", "pinned"}], "table": [[source,
subject, target]]}. A function may name another `runtime`, `handler`, `interpreter` and `memory_kb`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvloop

from ggfast._ext.routes import Router
from ggfast.clock import SystemClock
from ggfast.core.functions.environment import CoreFacts, Identity, WorkerPlan, worker_plan
from ggfast.core.functions.manager import FunctionManager, ManagerSettings
from ggfast.counters import Counters
from ggfast.group.document import Function, FunctionConfiguration
from ggfast.log import Level, LogRule, SystemLog
from ggfast.mqtt.broker import Broker
from ggfast.mqtt.hooks import OpenHooks
from ggfast.mqtt.limits import BrokerLimits
from ggfast.sandbox.channel import SpawnerChannel

WORKERS_MAX = 500  # no worker makes room for another: each start is a cold one, each memory that of one


class _NoLog:
    """Function output is not part of the measurement."""

    def write(self, level: Level, text: str) -> None:
        pass


async def serve(
    document: Mapping[str, Any], channel: socket.socket, listener: socket.socket, ids: tuple[int, int]
) -> None:
    """Run until the supervisor says stop."""
    loop, clock, counters = asyncio.get_running_loop(), SystemClock(), Counters()
    stopping = asyncio.Event()
    router = Router(False)
    router.set_table([tuple(rule) for rule in document["table"]])
    broker = Broker(loop, router, OpenHooks(), BrokerLimits(), clock, counters)

    def event(message: Mapping[str, Any]) -> None:
        if message["event"] == "exited":
            manager.exited(message)
        else:
            stopping.set()

    spawner = SpawnerChannel(loop, channel, event)
    log = SystemLog(Path(document["log"]), LogRule(Level.INFO), clock, counters)
    settings = ManagerSettings(concurrent_max=WORKERS_MAX)
    manager = FunctionManager(loop, spawner, router, counters, log, clock, lambda _arn: _NoLog(), settings)
    await manager.apply([_plan(row, ids) for row in document["functions"]])
    await broker.serve(listener)
    await spawner.ready()
    await stopping.wait()
    await manager.stop()
    broker.close()


def _plan(row: Mapping[str, Any], ids: tuple[int, int]) -> WorkerPlan:
    memory_kb = row.get("memory_kb", 65_536)
    configuration = FunctionConfiguration(pinned=row["pinned"], memory_kb=memory_kb, timeout_s=30)
    function = Function(
        row["name"],
        row["arn"],
        row.get("handler", "main.handler"),
        row.get("runtime", "python3"),
        configuration=configuration,
    )
    facts, interpreter = CoreFacts(region="eu-west-1"), row.get("interpreter", "")
    return worker_plan(function, facts, Identity(*ids), row["code"], interpreter=interpreter, log_level=Level.INFO)


def main() -> None:
    """Entry for the supervisor."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--document", type=Path, required=True)
    parser.add_argument("--uid", type=int, required=True)
    parser.add_argument("--gid", type=int, required=True)
    parser.add_argument("--channel-fd", type=int, required=True)
    parser.add_argument("--listener", required=True)
    given = parser.parse_args()
    document = json.loads(given.document.read_text())
    channel = socket.socket(fileno=given.channel_fd)
    listener = socket.socket(fileno=int(given.listener.partition("=")[2]))
    uvloop.run(serve(document, channel, listener, (given.uid, given.gid)))


if __name__ == "__main__":
    main()
