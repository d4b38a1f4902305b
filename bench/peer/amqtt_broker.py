"""amqtt as a broker on uvloop: amqtt_broker.py PORT [CERT KEY CA]. With certificates: mutual TLS."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

import uvloop
from amqtt.broker import Broker  # type: ignore[import-not-found]


async def serve(port: str, certificates: list[str]) -> None:
    """Serve until SIGTERM."""
    listener: dict[str, object] = {"type": "tcp", "bind": f"127.0.0.1:{port}", "max_connections": 5_000}
    if certificates:
        names = ("certfile", "keyfile", "cafile")
        listener |= {"ssl": True, **dict(zip(names, certificates, strict=True))}
    config = {
        "listeners": {"default": listener},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    broker = Broker(config)
    await broker.start()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await broker.shutdown()


logging.basicConfig(level=logging.ERROR)
uvloop.run(serve(sys.argv[1], sys.argv[2:]))
